"""What hangs on a run: phases, log, throughput, findings, quarantine, schema changes."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import RunKind
from briefly_admin.store import tables
from briefly_admin.store.texts import storable


def phases(connection: Connection, run_ids: Collection[UUID]) -> dict[UUID, dict[str, Row[Any]]]:
    """Run id → phase → its row."""
    found: dict[UUID, dict[str, Row[Any]]] = {run_id: {} for run_id in run_ids}
    for row in connection.execute(select(tables.run_phase).where(tables.run_phase.c.run_id.in_(list(run_ids)))):
        found[row.run_id][row.phase] = row
    return found


def log(connection: Connection, run_id: UUID, *, limit: int) -> Sequence[Row[Any]]:
    """The newest lines of the run's log, newest first."""
    table = tables.run_log
    statement = select(table).where(table.c.run_id == run_id).order_by(table.c.id.desc()).limit(limit)
    return connection.execute(statement).all()


def throughput(connection: Connection, run_id: UUID, *, limit: int) -> Sequence[Row[Any]]:
    """The newest points, oldest first."""
    table = tables.throughput
    newest = select(table).where(table.c.run_id == run_id).order_by(table.c.at.desc()).limit(limit).subquery()
    return connection.execute(select(newest).order_by(newest.c.at)).all()


def findings(connection: Connection, run_id: UUID, *, phase: str | None = None) -> Sequence[Row[Any]]:
    """Findings: blocking, repairable, notice; by table in the order in which they were saved."""
    table = tables.finding
    statement = select(table).where(table.c.run_id == run_id).order_by(table.c["class"] == "notice", table.c["class"])
    if phase is not None:
        statement = statement.where(table.c.phase == phase)
    return connection.execute(statement.order_by(table.c.id)).all()


def quarantine(
    connection: Connection, run_id: UUID, *, table_name: str | None = None, uncured: bool = False
) -> Sequence[Row[Any]]:
    """Quarantined rows by cause, table and key; `uncured`: without those that a later run has dealt with."""
    table, run = tables.quarantine, tables.run.c
    statement = select(table).where(table.c.run_id == run_id).order_by(table.c.cause, table.c.table, table.c.key)
    if uncured:
        undone = select(run.id).where(run.kind == RunKind.ROLLBACK.value)
        statement = statement.where(or_(table.c.closed_by.is_(None), table.c.closed_by.in_(undone)))
    if table_name is not None:
        statement = statement.where(table.c.table == table_name)
    return connection.execute(statement).all()


def quarantine_values(run_id: UUID, row: QuarantinedRow) -> dict[str, Any]:
    """A quarantined row as the table holds it."""
    return {
        "run_id": run_id, "table": row.table, "key": json.dumps(row.key, ensure_ascii=False), "cause": row.cause,
        "message": storable(row.message), "sqlstate": row.sqlstate, "constraint": row.constraint, "field": row.field,
    }  # fmt: skip


def open_keys(connection: Connection, run_id: UUID) -> set[tuple[str, str]]:
    """(table, key as JSON) of the run's quarantined rows that are open."""
    return open_in_scope(connection, run_id)


def open_in_scope(
    connection: Connection, run_id: UUID, *, table: str | None = None, field: str | None = None,
    cause: str | None = None, key: Sequence[str] | None = None,
) -> set[tuple[str, str]]:  # fmt: skip
    """(table, key as JSON) of the run's open rows that are of this table, field and cause, and have this key."""
    found = tables.quarantine.c
    statement = select(found.table, found.key).where(found.run_id == run_id, found.closed_by.is_(None))
    text = None if key is None else json.dumps(list(key), ensure_ascii=False)
    wanted = ((found.table, table), (found.field, field), (found.cause, cause), (found.key, text))
    for column, value in wanted:
        if value is not None:
            statement = statement.where(column == value)
    return {(row.table, row.key) for row in connection.execute(statement)}


def put_quarantine(connection: Connection, values: Sequence[Mapping[str, Any]]) -> None:
    """Rows that are in quarantine now, for this cause, whatever is known of them; a new cause wants a new look."""
    table = tables.quarantine
    statement = insert(table).values([dict(each) for each in values])
    new, names = statement.excluded, ("cause", "message", "sqlstate", "constraint", "field")
    now = tuple_(*(table.c[name] for name in names), table.c.closed_by)
    changes = now.is_distinct_from(tuple_(*(new[name] for name in names), None))
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id", "table", "key"], where=changes,
            set_={name: new[name] for name in names} | {"closed_by": None, "corrected_at": None},
        )
    )  # fmt: skip


def close_rows(connection: Connection, run_id: UUID, keys: Sequence[tuple[str, str]], *, by: UUID) -> None:
    """These open rows, (table, key as JSON), were cured by a run."""
    table = tables.quarantine
    statement = update(table).where(
        table.c.run_id == run_id, table.c.closed_by.is_(None), tuple_(table.c.table, table.c.key).in_(list(keys))
    )
    connection.execute(statement.values(closed_by=by))


def open_quarantine(connection: Connection, run_ids: Collection[UUID] | None = None) -> dict[UUID, int]:
    """Run id → its quarantined rows that no rollback closed."""
    table = tables.quarantine
    statement = select(table.c.run_id, func.count()).where(table.c.closed_by.is_(None)).group_by(table.c.run_id)
    if run_ids is not None:
        statement = statement.where(table.c.run_id.in_(list(run_ids)))
    return dict(connection.execute(statement).all())


def close_quarantine(connection: Connection, run_id: UUID, *, by: UUID) -> None:
    """A rollback undid the migration: its quarantined rows are as before."""
    table = tables.quarantine
    connection.execute(
        update(table).where(table.c.run_id == run_id, table.c.closed_by.is_(None)).values(closed_by=by)
    )  # fmt: skip


def reopen_quarantine(connection: Connection, *, closed_by: UUID) -> None:
    """The rollback that closed it was itself rolled back."""
    table = tables.quarantine
    connection.execute(update(table).where(table.c.closed_by == closed_by).values(closed_by=None))


def reopen_cured(
    connection: Connection, *, closed_by: Collection[UUID], but: Collection[UUID]
) -> Sequence[Any]:  # fmt: skip
    """What these runs had cured is as before, as they were rolled back; (run_id, table, key, closed_by) of the rows.

    `but`: runs that were rolled back themselves, whose quarantine stays closed.
    """
    table = tables.quarantine
    statement = select(table.c.run_id, table.c.table, table.c.key, table.c.closed_by).where(
        table.c.closed_by.in_(list(closed_by)), table.c.run_id.not_in(list(but))
    )
    rows = connection.execute(statement.order_by(table.c.run_id, table.c.table, table.c.key)).all()
    connection.execute(
        update(table)
        .where(table.c.closed_by.in_(list(closed_by)), table.c.run_id.not_in(list(but)))
        # What was corrected may have gone back with the rest: a replay will tell.
        .values(closed_by=None, corrected_at=None)
    )
    return rows


def close_earlier(connection: Connection, row: Row[Any]) -> None:
    """The migration `row` has looked anew at what earlier ones of its plan and target had left."""
    table, run = tables.quarantine, tables.run.c
    earlier = select(run.id).where(
        run.target_id == row.target_id, run.plan == row.plan, run.kind == RunKind.MIGRATION.value,
        run.number < row.number,
    )  # fmt: skip
    statement = update(table).where(table.c.closed_by.is_(None), table.c.run_id.in_(earlier))
    connection.execute(statement.values(closed_by=row.id))


def settle_notes(
    connection: Connection, run_ids: Collection[UUID], *, old: str, state: str, note: str,
    by: Collection[UUID] | None = None,
) -> None:  # fmt: skip
    """The schema changes of these runs with a note that begins with `old` are in another state, with another note.

    `by`: only those that one of these runs had made.
    """
    table = tables.schema_change
    statement = update(table).where(table.c.run_id.in_(list(run_ids)), table.c.note.startswith(old, autoescape=True))
    if by is not None:
        other = tables.schema_change.alias("made")
        statement = statement.where(
            table.c.position.in_(
                select(other.c.position).where(other.c.run_id.in_(list(by)), other.c.state.in_(["made", "reverted"]))
            )
        )
    connection.execute(statement.values(state=state, note=note))


def waiting_changes(connection: Connection, run_ids: Collection[UUID]) -> dict[UUID, int]:
    """Run id → its schema changes that wait for quarantined rows."""
    table = tables.schema_change
    statement = select(table.c.run_id, func.count()).where(
        table.c.run_id.in_(list(run_ids)), table.c.state == "waiting"
    )
    return dict(connection.execute(statement.group_by(table.c.run_id)).all())
