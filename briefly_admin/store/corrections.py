"""What was changed by hand, taken over from the target's record of it, and the quarantine's note of it."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, DateTime, Text, and_, bindparam, cast, column, delete, exists, func, literal, select
from sqlalchemy import update as update_of
from sqlalchemy.dialects.postgresql import JSONB, insert

from briefly_admin.domain.corrections import CorrectedRow
from briefly_admin.store import tables
from briefly_admin.store.kept import HELD

_CORRECTION = tables.correction.c
_QUARANTINE = tables.quarantine.c


def lock(connection: Connection, deed: UUID) -> bool:
    """One transaction at a time takes a deed over; whether it was taken over before."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"briefly correction {deed}", 0))))
    return bool(connection.scalar(select(exists().where(_CORRECTION.deed == deed))))


def add(connection: Connection, *, deed: UUID, target_id: str, by: str, rows: Sequence[CorrectedRow]) -> None:
    """Rows of the deed; those that are there already stay."""
    values = [
        {"table": row.table, "key": key_text(row.key), "at": row.at.isoformat(), "changes": _changes(row)}
        for row in rows
    ]
    given = (
        func.jsonb_to_recordset(cast(bindparam("rows", values, JSONB), JSONB))
        .table_valued(
            column("table", Text), column("key", Text), column("at", DateTime(timezone=True)), column("changes", JSONB)
        )
        .render_derived(name="given", with_types=True)
    )
    chosen = select(
        literal(deed), literal(target_id), literal(by), given.c.table, given.c.key, given.c.at, given.c.changes
    )
    names = ["deed", "target_id", "by_whom", "table", "key", "at", "changes"]
    connection.execute(insert(tables.correction).from_select(names, chosen).on_conflict_do_nothing())


def _changes(row: CorrectedRow) -> dict[str, Any]:
    told = {name: {"before": before, "after": after} for name, (before, after) in row.values.items()}
    return told | {name: {"secret": True} for name in row.secrets}


def note_quarantine(connection: Connection, deed: UUID) -> int:
    """Marks open quarantined rows of the target that the deed has changed; how many."""
    of_target = select(tables.run.c.id).where(tables.run.c.target_id == _CORRECTION.target_id)
    same = and_(_QUARANTINE.table == _CORRECTION.table, _QUARANTINE.key == _CORRECTION.key)
    statement = (
        update_of(tables.quarantine)
        .where(_CORRECTION.deed == deed, same, _QUARANTINE.closed_by.is_(None), _QUARANTINE.run_id.in_(of_target))
        .values(corrected_at=_CORRECTION.at)
    )
    return connection.execute(statement).rowcount


def forget(connection: Connection, *, before: datetime) -> int:
    """Deletes older values, unless a backup of before the correction is held, which has them anyway; how many rows."""
    backup = tables.backup.c
    held = exists().where(
        backup.target_id == _CORRECTION.target_id, backup.state.in_(HELD), backup.created_at <= _CORRECTION.at
    )
    return connection.execute(delete(tables.correction).where(_CORRECTION.at < before, ~held)).rowcount


def quarantined_keys(
    connection: Connection, run_id: UUID, *, table: str, field: str, cause: str, target_id: str, plan: str,
    to_fix: bool = False,
) -> list[tuple[str, ...]]:  # fmt: skip
    """Keys of a cause's open rows, but for those that are to be left alone; `to_fix`: nor any corrected since."""
    skip = tables.skip.c
    skipped = exists().where(
        skip.target_id == target_id, skip.plan == plan, skip.table == _QUARANTINE.table, skip.key == _QUARANTINE.key
    )
    statement = select(_QUARANTINE.key).where(
        _QUARANTINE.run_id == run_id, _QUARANTINE.table == table, _QUARANTINE.field == field,
        _QUARANTINE.cause == cause, _QUARANTINE.closed_by.is_(None), ~skipped,
    )  # fmt: skip
    if to_fix:
        statement = statement.where(_QUARANTINE.corrected_at.is_(None))
    return [tuple(json.loads(key)) for key in connection.execute(statement.order_by(_QUARANTINE.key)).scalars()]


def key_text(key: Sequence[str]) -> str:
    """A key as `quarantine`, `skip` and `correction` hold it."""
    return json.dumps(list(key), ensure_ascii=False)
