"""The audit chain: every event is linked to the one before it by an HMAC (RFC 2104, SHA-256) under AUDIT_KEY."""

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

GENESIS: Final = "0" * 64
"""The `previous` of the first event."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who did what to what, when, from where. `details` holds names and numbers, never values of tenant data."""

    number: int
    at: datetime
    actor: str
    role: str
    via: str
    address: str
    action: str
    """'run.start', 'run.pause', 'backup.delete', 'admin.sign_in' …: noun, dot, verb."""
    object: str
    """'run 1f…', 'backup_1763812345678', 'admin ana@example.com'."""
    details: Mapping[str, Any] = field(default_factory=dict)
    key_id: str = ""
    previous: str = GENESIS
    link: str = ""


def link(event: AuditEvent, key: bytes) -> str:
    """The event's link: hex HMAC-SHA256 over the canonical JSON of everything but the link itself."""
    body = {
        "number": event.number, "at": event.at.isoformat(), "actor": event.actor, "role": event.role,
        "via": event.via, "address": event.address, "action": event.action, "object": event.object,
        "details": event.details, "key_id": event.key_id, "previous": event.previous,
    }  # fmt: skip
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hmac.new(key, text.encode(), sha256).hexdigest()


def key_id(key: bytes) -> str:
    """A short public name of a key: the first 8 hex digits of its SHA-256."""
    return sha256(b"briefly/audit-key-id" + key).hexdigest()[:8]
