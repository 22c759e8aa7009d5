"""Backups as people deal with them: look, verify, keep, delete; the key always goes first."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.errors import BackupDamaged, InvalidRequest, Refused
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.services.auditing import CLOCK, AuditService, require
from briefly_admin.services.config import Servers
from briefly_admin.services.reading import Reader, find_backup, why_not_restorable
from briefly_admin.services.views import BackupView
from briefly_admin.store import backups
from briefly_admin.store.database import Connection, Row
from briefly_admin.vault.verify import Damage, Level

LEVELS: Final = {"L0": Level.OBJECTS, "L1": Level.CONTENT}
_HELD: Final = ("proven", "damaged")


class BackupService:
    """Every method checks permission first; state and audit event go in one transaction."""

    def __init__(self, servers: Servers, audit: AuditService, reader: Reader, now: Callable[[], datetime]) -> None:
        self._database = servers.database
        self._vault = servers.vault
        self._audit = audit
        self._reader = reader
        self._now = now

    def list(self, actor: Actor) -> tuple[BackupView, ...]:
        """Newest first; those that were never proven do not exist. Raises NotAllowed."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            rows = backups.newest(connection)
        return tuple(self._reader.backup_with(row, row.run_number) for row in rows)

    def get(self, actor: Actor, reference: str) -> BackupView:
        """One by its name or id. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            return self._reader.backup(connection, find_backup(connection, reference))

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
            return self._reader.backup(connection, find_backup(connection, str(row.id)))

    def delete(self, actor: Actor, reference: str) -> BackupView:
        """Destroy its key, then its bytes. Raises Refused while it is pinned or an unfinished run needs it."""
        require(actor, Permission.DELETE_BACKUP)
        with self._database.begin() as connection:
            row = find_backup(connection, reference)
            self._require_deletable(connection, row)
            self._shred(connection, actor, row)
        self._destroy([row.id])
        return self.get(actor, str(row.id))

    def _require_deletable(self, connection: Connection, row: Row[Any]) -> None:
        if row.pinned:
            raise Refused(f"{row.name} is pinned.", remedy="Unpin it first.")
        number = backups.used_by(connection, row.id)
        if number is not None:
            raise Refused(f"Run {number} is not finished and needs {row.name}.", remedy="Wait for it, or cancel it.")

    def _shred(self, connection: Connection, actor: Actor, row: Row[Any]) -> bool:
        shredded = backups.shred(connection, row.id)
        if shredded:
            self._audit.write(connection, actor, "backup.delete", row.name, {"run": str(row.run_id)})
        return shredded

    def purge_expired(self, actor: Actor) -> int:
        """Delete all backups whose time is over, and what half-written ones left; how many expired."""
        require(actor, Permission.DELETE_BACKUP)
        return self.purge(actor)

    def purge(self, actor: Actor = CLOCK) -> int:
        """As `purge_expired`, for the clock. The keys go first, each in a transaction of its own."""
        with self._database.begin() as connection:
            due = backups.expired(connection, self._now())
        count = 0
        for backup_id in due:
            with self._database.begin() as connection:
                row = backups.get(connection, backup_id)
                count += row is not None and self._shred(connection, actor, row)
        with self._database.begin() as connection:
            left = backups.unpurged(connection)
        self._destroy(left)
        self._sweep_orphans()
        return count

    def _destroy(self, backup_ids: Sequence[UUID]) -> None:
        for backup_id in backup_ids:
            self._vault.destroy(backup_id)
            with self._database.begin() as connection:
                backups.purged(connection, backup_id)

    def _sweep_orphans(self) -> None:
        """What crashes left in the store; not while a run is led, whose backup may not be recorded yet."""
        with self._database.begin() as connection:
            if backups.anything_led(connection):
                return
            kept = backups.kept_ids(connection)
        self._vault.sweep_orphans(kept)

    def verify(self, actor: Actor, reference: str, level: str = "L1") -> BackupView:
        """Read it whole (L1), or look whether all objects are there (L0). Raises BackupDamaged, which lists all damage,
        BackupExpired, BackupKeyMissing, Unavailable.
        """
        require(actor, Permission.VERIFY_BACKUP)
        if level not in LEVELS:
            text = f"Must be one of: {', '.join(LEVELS)}."
            raise InvalidRequest(f"There is no level '{level}'.", details={"level": [text]})
        with self._database.begin() as connection:
            row = find_backup(connection, reference)
        if row.shred_key is None:
            raise Refused(f"{row.name}: {why_not_restorable(row, self._now())}", remedy="Use another backup.")
        damage = self._damage(row, LEVELS[level])
        self._tell(actor, row, level, damage)
        if damage:
            more = f", and {len(damage) - 1} more" if len(damage) > 1 else ""
            raise BackupDamaged(
                f"{row.name} is damaged: {damage[0].rstrip('.')}{more}.",
                damages=damage, remedy="Take a new backup now; this one cannot be restored.",
            )  # fmt: skip
        return self.get(actor, str(row.id))

    def _damage(self, row: Row[Any], level: Level) -> Sequence[str]:
        try:
            found: Sequence[Damage] = self._vault.open(row.id, row.shred_key, row.manifest_sha256).verify(level)
        except BackupDamaged as error:
            return error.damages or (error.message,)
        return [str(damage) for damage in found]

    def _tell(self, actor: Actor, row: Row[Any], level: str, damage: Sequence[str]) -> None:
        values: dict[str, Any] = {"damage": list(damage)}
        if damage:
            values["state"] = "damaged"
        elif level == "L1":
            values |= {"state": "proven", "proven_at": self._now(), "proven_level": level}
        with self._database.begin() as connection:
            backups.set_values(connection, row.id, states=_HELD, **values)
            facts = {"level": level, "damages": len(damage)}
            self._audit.write(connection, actor, "backup.verify", row.name, facts)
