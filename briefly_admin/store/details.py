"""What hangs on a run: phases, log, throughput, findings, quarantine, schema changes."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select, update

from briefly_admin.store import tables


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


def quarantine(connection: Connection, run_id: UUID, *, table_name: str | None = None) -> Sequence[Row[Any]]:
    """Quarantined rows by cause, table and key."""
    table = tables.quarantine
    statement = select(table).where(table.c.run_id == run_id).order_by(table.c.cause, table.c.table, table.c.key)
    if table_name is not None:
        statement = statement.where(table.c.table == table_name)
    return connection.execute(statement).all()


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


def waiting_changes(connection: Connection, run_ids: Collection[UUID]) -> dict[UUID, int]:
    """Run id → its schema changes that wait for quarantined rows."""
    table = tables.schema_change
    statement = select(table.c.run_id, func.count()).where(
        table.c.run_id.in_(list(run_ids)), table.c.state == "waiting"
    )
    return dict(connection.execute(statement.group_by(table.c.run_id)).all())
