"""Keys as people deal with them: rotate the masters, write an escrow file, open a backup for reading."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn
from uuid import UUID

from briefly_admin.domain.errors import BackupError, BackupExpired, BrieflyError, NotFound, Unavailable
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.config import Servers
from briefly_admin.services.reading import Reader, find_backup
from briefly_admin.services.views import BackupView
from briefly_admin.store import backups, kept
from briefly_admin.store.database import Connection, Row
from briefly_admin.vault.escrow import Escrow
from briefly_admin.vault.keys import named
from briefly_admin.vault.vault import BackupReader

_PASSED_BY: Final = (BackupError, NotFound, Unavailable)
"""What keeps one backup from being rotated, and not the others."""


@dataclass(frozen=True, slots=True)
class RotatedBackup:
    """A backup whose slots were changed: the ids of the keys that opened it, and the one that does now."""

    name: str
    before: tuple[str, ...]
    after: str


@dataclass(frozen=True, slots=True)
class LeftBackup:
    """A backup that was not rotated, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class RotationView:
    """What a rotation did, and which keys are needed from now on.

    `needed`: key id → how many kept backups it opens; `unneeded`: ids in the setting that open none;
    `missing`: ids that a kept backup needs and the setting lacks; `surveyed` False: some backup's slots could not be
    read, so that no key is called unneeded.
    """

    sealing_id: str
    rotated: tuple[RotatedBackup, ...]
    unchanged: tuple[str, ...]
    writing: tuple[str, ...]
    """Being written just now: they keep their key until the next rotation."""
    failed: tuple[LeftBackup, ...]
    needed: Mapping[str, int]
    unneeded: tuple[str, ...]
    missing: tuple[str, ...]
    surveyed: bool


@dataclass(slots=True)
class _Tally:
    rotated: list[RotatedBackup] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[LeftBackup] = field(default_factory=list)


class KeyService:
    """Every method checks permission first; each deed is an audit event."""

    def __init__(self, servers: Servers, audit: AuditService, reader: Reader, now: Callable[[], datetime]) -> None:
        self._database = servers.database
        self._vault = servers.vault
        self._audit = audit
        self._reader = reader
        self._now = now

    def rotate(self, actor: Actor) -> RotationView:
        """Wrap the data key of every kept backup under the sealing key alone; an audit event a backup changed.

        Goes past a backup that cannot be rotated and names it in `failed`. Wherever it is interrupted, every backup
        still opens, and the next call does the rest; two at once do each backup once. Raises NotAllowed, Unavailable.
        """
        require(actor, Permission.ROTATE_KEYS)
        tally = _Tally()
        for row in self._kept():
            if row.state != kept.WRITING:
                try:
                    self._rotate(actor, row, tally)
                except _PASSED_BY as error:
                    tally.failed.append(LeftBackup(row.name, str(error)))
        return self._view(tally)

    def _kept(self) -> tuple[Row[Any], ...]:
        with self._database.begin() as connection:
            return tuple(kept.kept(connection))

    def _rotate(self, actor: Actor, row: Row[Any], tally: _Tally) -> None:
        """One backup, its row locked. The event is committed while both slots stand: no change goes without one."""
        sealing = self._vault.keys.sealing_id
        with self._database.begin() as connection:
            locked = kept.locked(connection, row.id)
            if locked is None:  # shredded since it was listed
                return
            shred_key = bytes(locked.shred_key)
            before = self._vault.slot_ids(row.id)
            if not self._vault.add_slot(row.id, shred_key) and before == (sealing,):
                tally.unchanged.append(row.name)
                return
            self._audit.record(actor, "keys.rotate", row.name, {"from": list(before), "to": sealing})
            self._vault.drop_slots(row.id, shred_key)
        tally.rotated.append(RotatedBackup(row.name, before, sealing))

    def _view(self, tally: _Tally) -> RotationView:
        """Look again at all that is kept by now, also at what was begun meanwhile."""
        needed: dict[str, int] = {}
        surveyed, writing = True, []
        for row in self._kept():
            if row.state == kept.WRITING:
                writing.append(row.name)
            try:
                ids = self._vault.slot_ids(row.id)
            except _PASSED_BY:
                surveyed = surveyed and not self._is_kept(row.id)
                continue
            for key_id in ids:
                needed[key_id] = needed.get(key_id, 0) + 1
        keys = self._vault.keys
        return RotationView(
            sealing_id=keys.sealing_id, rotated=tuple(tally.rotated), unchanged=tuple(tally.unchanged),
            writing=tuple(writing), failed=tuple(tally.failed), needed=needed,
            unneeded=tuple(i for i in keys if surveyed and i != keys.sealing_id and i not in needed),
            missing=tuple(i for i in needed if i not in keys), surveyed=surveyed,
        )  # fmt: skip

    def _is_kept(self, backup_id: UUID) -> bool:
        return any(row.id == backup_id for row in self._kept())

    def escrow(self, actor: Actor, reference: str, write: Callable[[bytes], None]) -> BackupView:
        """Give `write` the backup's escrow file, and record that it was written; if `write` raises, nothing is.

        The file opens the backup without the app database: `write` must put it where nobody else reads.
        Raises NotAllowed, NotFound, BackupExpired, BackupKeyMissing and BackupDamaged (nothing that opens no backup is
        given out), Unavailable.
        """
        require(actor, Permission.ESCROW_BACKUP)
        with self._database.begin() as connection:
            row = self._readable(connection, reference)
            escrow = Escrow(
                backup_id=row.id, name=row.name, created_at=row.created_at, shred_key=bytes(row.shred_key),
                manifest_sha256=row.manifest_sha256, key_ids=self._vault.slot_ids(row.id),
            )  # fmt: skip
            self._vault.require_opened_by(escrow.backup_id, escrow.shred_key)
            write(escrow.to_bytes())
            backups.set_values(connection, row.id, states=kept.HELD, escrowed_at=self._now())
            self._audit.write(connection, actor, "backup.escrow", row.name, {"keys": list(escrow.key_ids)})
            return self._reader.backup(connection, find_backup(connection, str(row.id)))

    def reader(self, actor: Actor, reference: str) -> BackupReader:
        """Open a backup to read its rows; that it was opened is an audit event.

        Raises NotAllowed, NotFound, BackupExpired, BackupKeyMissing, BackupDamaged, Unavailable.
        """
        require(actor, Permission.OPEN_BACKUP)
        with self._database.begin() as connection:
            row = self._readable(connection, reference)
        opened = self._vault.open(row.id, row.shred_key, row.manifest_sha256)
        self._audit.record(actor, "backup.open", row.name, {"tables": len(opened.manifest.tables)})
        return opened

    def _readable(self, connection: Connection, reference: str) -> Row[Any]:
        """The backup, locked. Raises NotFound, BackupExpired."""
        found = find_backup(connection, reference)
        row = kept.locked(connection, found.id)
        if row is None or row.manifest_sha256 is None:
            _expired(found.name, "has expired: its key is gone, and nobody can read it any more.")
        if not row.pinned and row.expires_at is not None and row.expires_at <= self._now():
            _expired(row.name, "is past its time, and about to be deleted.")
        return row


def _expired(name: str, why: str) -> NoReturn:
    raise BackupExpired(f"{name} {why}", remedy="Use another: `briefly-admin backup list` names them.")


def rotation_error(view: RotationView) -> BrieflyError | None:
    """What a mouth raises after it has shown a rotation that left something behind; or None."""
    if not view.failed:
        return None
    names = named([left.name for left in view.failed])
    return BackupError(
        f"Not all backups have the key {view.sealing_id}: {names} kept what they had.",
        remedy="Cure what is said of each, then rotate again.",
    )
