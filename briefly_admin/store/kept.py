"""Backups that somebody may still want to open, and the lock on one of them that keeps a purge away."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, and_, exists, or_, select

from briefly_admin.domain.runs import ACTIVE
from briefly_admin.store import tables

HELD: Final = ("proven", "damaged")
"""States of a backup whose shred key is there."""
WRITING: Final = "writing"
_BACKUP: Final = tables.backup.c
_ACTIVE: Final = sorted(state.value for state in ACTIVE)


def kept(connection: Connection) -> Sequence[Row[Any]]:
    """id, name and state of all that are held, and of those that an unfinished run is writing; oldest first."""
    unfinished = exists().where(tables.run.c.id == _BACKUP.run_id, tables.run.c.state.in_(_ACTIVE))
    written = and_(_BACKUP.state == WRITING, unfinished.correlate(tables.backup))
    columns: list[Any] = [_BACKUP.id, _BACKUP.name, _BACKUP.state]
    statement = select(*columns).where(or_(_BACKUP.state.in_(HELD), written))
    return connection.execute(statement.order_by(_BACKUP.created_at, _BACKUP.id)).all()


def locked(connection: Connection, backup_id: UUID) -> Row[Any] | None:
    """The backup, if it is held: until the transaction ends nobody shreds it, nor locks it so."""
    statement = select(tables.backup).where(_BACKUP.id == backup_id, _BACKUP.state.in_(HELD))
    row = connection.execute(statement.with_for_update()).one_or_none()
    return row if row is not None and row.shred_key is not None else None
