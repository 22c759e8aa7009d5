"""Backups as people deal with them: look, keep, delete; the key always goes first."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.audit import AuditEvent
from briefly_admin.domain.errors import BrieflyError, Refused, Unavailable
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.beyond import tables_beyond
from briefly_admin.services.auditing import CLOCK, AuditService, require
from briefly_admin.services.config import Servers
from briefly_admin.services.reading import Reader, find_backup
from briefly_admin.services.views import BackupView, BeyondView, LogLine
from briefly_admin.store import audit, backups, details
from briefly_admin.store.database import Connection, Row

_HELD: Final = ("proven", "damaged")
SPARE: Final = timedelta(hours=6)
"""Longer than a backup's time: the longest run that may still need it, and a clock that stood still."""
_LINES: Final = 200
_UNTOLD: Final = frozenset({"run", "manifest_sha256"})
_WORDS: Final = {
    "backup.prove": "Proven", "backup.verify": "Verified", "backup.drill": "Drilled", "backup.pin": "Pinned",
    "backup.unpin": "Unpinned", "backup.escrow": "Escrow file written", "backup.open": "Opened",
    "backup.expire": "Expired, its key destroyed", "backup.delete": "Deleted, its key destroyed",
    "keys.rotate": "Key rotated",
}  # fmt: skip


class BackupService:
    """Every method checks permission first; state and audit event go in one transaction."""

    def __init__(self, servers: Servers, audit: AuditService, reader: Reader, now: Callable[[], datetime]) -> None:
        self._database = servers.database
        self._vault = servers.vault
        self._target = servers.target
        self._plan = servers.plan
        self._audit = audit
        self._reader = reader
        self._now = now

    def list(self, actor: Actor) -> tuple[BackupView, ...]:
        """Newest first; those that were never proven do not exist. Raises NotAllowed."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            rows = backups.newest(connection)
            return self._reader.backups(connection, rows)

    def get(self, actor: Actor, reference: str) -> BackupView:
        """One by its name or id. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            return self._reader.backup(connection, find_backup(connection, reference))

    def log(self, actor: Actor, reference: str) -> tuple[LogLine, ...]:
        """What happened to it: what its run's log says of it, and every deed since; newest first."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            row = find_backup(connection, reference)
            said = details.log(connection, row.run_id, limit=_LINES) if row.run_id else ()
            events = audit.newest(connection, limit=_LINES, object_=row.name)
        lines = [
            LogLine(line.at, line.level, line.phase, line.message) for line in said if line.phase == Phase.BACKUP
        ] + [LogLine(event.at, "info", "", _told(event)) for event in events]
        return tuple(sorted(lines, key=lambda line: line.at, reverse=True))

    def beyond(self, actor: Actor) -> tuple[BeyondView, ...]:
        """The target's tables beyond the plan. Raises NotAllowed, Unavailable."""
        require(actor, Permission.BACK_UP)
        with self._target.session() as connection:
            found = tables_beyond(connection, self._plan)
        return tuple(BeyondView(t.label, t.rows, t.bytes, t.why_not) for t in found)

    def pin(self, actor: Actor, reference: str) -> BackupView:
        """Keep it beyond its time. Raises Refused where it has expired."""
        return self._set_pinned(actor, reference, pinned=True)

    def unpin(self, actor: Actor, reference: str) -> BackupView:
        """Let it expire."""
        return self._set_pinned(actor, reference, pinned=False)

    def _set_pinned(self, actor: Actor, reference: str, *, pinned: bool) -> BackupView:
        require(actor, Permission.PIN_BACKUP)
        with self._database.begin() as connection:
            row = find_backup(connection, reference)
            if not backups.set_values(connection, row.id, states=_HELD, pinned=pinned):
                raise Refused(f"{row.name} has expired: there is nothing to keep.", remedy="Take a new backup.")
            self._audit.write(connection, actor, "backup.pin" if pinned else "backup.unpin", row.name)
            view = self._reader.backup(connection, find_backup(connection, str(row.id)))
        with suppress(Unavailable):  # the clock tells it again
            self._keep([view])
        return view

    def delete(self, actor: Actor, reference: str) -> BackupView:
        """Destroy its key, then its bytes. Raises Refused while it is pinned or an unfinished run needs it."""
        require(actor, Permission.DELETE_BACKUP)
        with self._database.begin() as connection:
            row = find_backup(connection, reference)
            self._require_deletable(connection, row)
            self._shred(connection, actor, row, "backup.delete")
        self._destroy([row.id])
        return self.get(actor, str(row.id))

    def _require_deletable(self, connection: Connection, row: Row[Any]) -> None:
        if row.pinned:
            raise Refused(f"{row.name} is pinned.", remedy="Unpin it first.")
        number = backups.used_by(connection, row.id)
        if number is not None:
            raise Refused(f"Run {number} is not finished and needs {row.name}.", remedy="Wait for it, or cancel it.")

    def _shred(self, connection: Connection, actor: Actor, row: Row[Any], action: str) -> bool:
        shredded = backups.shred(connection, row.id)
        if shredded:
            facts = {"run": str(row.run_id), "taken": row.created_at.isoformat(), "rows": row.rows}
            self._audit.write(connection, actor, action, row.name, facts)
        return shredded

    def purge_expired(self, actor: Actor) -> int:
        """Delete all backups whose time is over, and what half-written ones left; how many expired."""
        return self.purge(actor)

    def purge(self, actor: Actor = CLOCK) -> int:
        """As `purge_expired`, for the clock. The keys go first, each in a transaction of its own.

        What one backup's destruction meets keeps no other from its own; the first such error is raised at the end.
        """
        require(actor, Permission.DELETE_BACKUP)
        with self._database.begin() as connection:
            due = backups.expired(connection, self._now())
        count = 0
        for backup_id in due:
            with self._database.begin() as connection:
                row = backups.get(connection, backup_id)
                count += row is not None and self._shred(connection, actor, row, "backup.expire")
        with self._database.begin() as connection:
            left = backups.unpurged(connection)
        self._destroy(left)
        self._sweep_orphans(actor)
        self._keep(self.list(actor))
        return count

    def _destroy(self, backup_ids: Sequence[UUID]) -> None:
        errors: list[BrieflyError] = []
        for backup_id in backup_ids:
            try:
                self._vault.destroy(backup_id)
            except BrieflyError as error:
                errors.append(error)
                continue
            with self._database.begin() as connection:
                backups.purged(connection, backup_id)
        if errors:
            raise errors[0]

    def _keep(self, views: Iterable[BackupView]) -> None:
        """Tell the store for how long: one that forgets by itself must not do so before we do."""
        for view in views:
            if view.state in _HELD:
                ends = None if view.pinned or view.expires_at is None else view.expires_at - self._now() + SPARE
                self._vault.keep(UUID(view.id), None if ends is None else max(ends, SPARE).total_seconds())

    def _sweep_orphans(self, actor: Actor) -> None:
        """What crashes left in the store; not while a run is led, whose backup may not be recorded yet."""

        def known() -> set[UUID] | None:
            with self._database.begin() as connection:
                return None if backups.anything_led(connection) else backups.kept_ids(connection)

        for backup_id in self._vault.sweep_orphans(known):
            self._audit.record(actor, "backup.sweep", str(backup_id))


def _told(event: AuditEvent) -> str:
    """An event in words: what was done, by whom, and its facts but for ids and sums, which say nothing to people."""
    what = _WORDS.get(event.action, event.action)
    facts = {
        name: value for name, value in event.details.items() if name not in _UNTOLD and value not in ("", None, [])
    }
    told = ", ".join(
        f"{name.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in facts.items()
    )
    return f"{what} by {event.actor}" + (f": {told}." if told else ".")
