"""The escrow file: what opens one backup when the app database is lost, together with the store and a master key.

Canonical JSON (see domain/manifest.py) and a line break. It holds the shred key, and no master key: shredding the
backup does not reach it. Source: docs/backup-format.md, "The escrow file".
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self
from uuid import UUID

from briefly_admin.domain.errors import BackupError
from briefly_admin.vault.keys import KEY_ID, KEY_SIZE

FORMAT: Final = "briefly-escrow"
VERSION: Final = 1
READ_VERSIONS: Final = (1,)
MAX_SIZE: Final = 1 << 16
"""Bytes of an escrow file that a reader takes at most."""

_FIELDS: Final = frozenset(
    {"format", "version", "backup_id", "name", "created_at", "shred_key", "manifest_sha256", "key_ids"}
)
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME: Final = 200
_MOST_KEYS: Final = 1000


@dataclass(frozen=True, slots=True)
class Escrow:
    """One backup's escrow; `shred_key` has 32 bytes, `key_ids` are the master keys whose slots it had when written."""

    backup_id: UUID
    name: str
    created_at: datetime
    shred_key: bytes = field(repr=False)
    manifest_sha256: str
    key_ids: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """What the file holds; it opens the backup, so it is a secret."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "backup_id": str(self.backup_id),
            "name": self.name,
            "created_at": self.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
            "shred_key": base64.b64encode(self.shred_key).decode(),
            "manifest_sha256": self.manifest_sha256,
            "key_ids": list(self.key_ids),
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The inverse of `to_bytes`; white space between values may differ. Raises BackupError."""
        data = _object(raw)
        _require_version(data)
        if surprises := sorted(_FIELDS ^ data.keys()):
            raise _nonsense(f"has missing or unknown fields ({', '.join(map(ascii, surprises[:8]))})")
        return cls(
            backup_id=_backup_id(data["backup_id"]),
            name=_name(data["name"]),
            created_at=_time(data["created_at"]),
            shred_key=_shred_key(data["shred_key"]),
            manifest_sha256=_sha256(data["manifest_sha256"]),
            key_ids=_key_ids(data["key_ids"]),
        )


def _object(raw: bytes) -> Mapping[str, Any]:
    if len(raw) > MAX_SIZE:
        raise _nonsense(f"has more than {MAX_SIZE} bytes")
    try:
        data = json.loads(raw.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError):  # its text holds the file's
        raise _nonsense("is cut off, or no JSON") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _nonsense(f'does not say "format":"{FORMAT}"')
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a field stands twice")
    return dict(pairs)


def _require_version(data: Mapping[str, Any]) -> None:
    version = data.get("version")
    if type(version) is not int:
        raise _nonsense("does not say its version")
    if version not in READ_VERSIONS:
        raise BackupError(
            f"The escrow file's version is {version}; this program reads {', '.join(map(str, READ_VERSIONS))}.",
            remedy="Use it with the version of Briefly Admin that wrote it.",
        )


def _backup_id(value: Any) -> UUID:
    try:
        backup_id = UUID(value) if isinstance(value, str) else None
    except ValueError:
        backup_id = None
    if backup_id is None or str(backup_id) != value:
        raise _nonsense("does not hold the id of a backup")
    return backup_id


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
        raise _nonsense("does not hold the name of a backup")
    return value


def _time(value: Any) -> datetime:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is not None and found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):  # no time at all, or one at the very edge of the calendar
        pass
    raise _nonsense("does not hold the time of a backup")


def _shred_key(value: Any) -> bytes:
    try:
        key = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):  # its text holds a piece of the key
        raise _nonsense("holds a shred key that is not base64") from None
    if len(key) != KEY_SIZE:
        raise _nonsense(f"holds a shred key of {len(key)} bytes instead of {KEY_SIZE}")
    return key


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise _nonsense("does not hold the SHA-256 of a manifest")
    return value


def _key_ids(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_KEYS:
        raise _nonsense("does not say which master keys open the backup")
    if not all(isinstance(each, str) and KEY_ID.fullmatch(each) for each in value):
        raise _nonsense("holds a malformed key id")
    return tuple(value)


def _nonsense(what: str) -> BackupError:
    return BackupError(
        f"This is no escrow file that can be used: it {what}.",
        remedy="Use another copy of the file that `briefly-admin backup escrow` wrote.",
    )
