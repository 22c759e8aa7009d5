"""Who may do what, and the audit event of each deed: every service asks `require` first and `record`s last."""

import hmac
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from briefly_admin.domain.audit import AuditEvent
from briefly_admin.domain.errors import NotAllowed
from briefly_admin.domain.permissions import GRANTS, Actor, Permission, Role
from briefly_admin.store import audit
from briefly_admin.store.audit import AuditVerdict
from briefly_admin.store.database import Connection, Database

WORKER: Final = Actor("worker", Role.ADMIN, "worker")
CLOCK: Final = Actor("clock", Role.ADMIN, "clock")


def require(actor: Actor, permission: Permission) -> None:
    """Raises NotAllowed, naming the role that may, unless the actor's role does."""
    if not actor.may(permission):
        needed = next(role for role in Role if permission in GRANTS[role])
        raise NotAllowed(
            f"This needs the role {needed}; yours is {actor.role}.", remedy=f"Ask somebody with the role {needed}."
        )


class AuditService:
    """The audit chain: appended to by the other services, read and verified here."""

    def __init__(self, database: Database, key: bytes, now: Callable[[], datetime]) -> None:
        self._database = database
        self._key = key
        self._now = now

    def write(
        self, connection: Connection, actor: Actor, action: str, object_: str, details: Mapping[str, Any] | None = None
    ) -> None:
        """Append an event, as the last statement of the caller's transaction."""
        audit.append(connection, actor, action, object_, details or {}, key=self._key, at=self._now())

    def seal(self, place: str, value: str | None) -> str | None:
        """What an event says of a value at a place ("table.field"): its HMAC, from which nobody can tell it."""
        if value is None:
            return None
        return hmac.new(self._key, f"briefly/value\n{place}\n{value}".encode(), sha256).hexdigest()

    def record(self, actor: Actor, action: str, object: str, details: Mapping[str, Any] | None = None) -> None:  # noqa: A002 - the word of the audit event
        """An event of a mouth's own, in a transaction of its own."""
        with self._database.begin() as connection:
            self.write(connection, actor, action, object, details)

    def list(
        self,
        actor: Actor,
        *,
        limit: int = 100,
        before: int | None = None,
        actor_name: str | None = None,
        action: str | None = None,
        object: str | None = None,  # noqa: A002 - the word of the audit event
    ) -> tuple[AuditEvent, ...]:
        """Events, newest first; `before` is an event's number. Raises NotAllowed."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            found = audit.newest(
                connection, limit=limit, before=before, actor_name=actor_name, action=action, object_=object
            )
        return tuple(found)

    def verify(self, actor: Actor) -> AuditVerdict:
        """Whether the whole chain holds. Raises NotAllowed."""
        require(actor, Permission.READ)
        with self._database.snapshot() as connection:
            return audit.verify(connection, self._key)

    def export(self, actor: Actor) -> Iterator[AuditEvent]:
        """All events, oldest first, one at a time; the export itself is an event. Raises NotAllowed."""
        require(actor, Permission.EXPORT_AUDIT)
        self.record(actor, "audit.export", "audit log")
        return self._events()

    def _events(self) -> Iterator[AuditEvent]:
        with self._database.snapshot() as connection, closing(audit.events(connection)) as events:
            yield from events
