"""Findings against those of an earlier run, and quarantined rows by cause: counted, and turned over page by page."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, FromClause, Row, and_, collate, exists, func, or_, select

from briefly_admin.store import tables
from briefly_admin.store.texts import storable

_RUN = tables.run.c
_HELD = tables.quarantine.c
_SKIP = tables.skip.c


def earlier(connection: Connection, run: Row[Any], phase: str) -> Row[Any] | None:
    """The newest run before this one, of the same plan and target, whose findings of the phase were saved.

    A phase that stopped for what it found has saved it; one that ended otherwise may have found nothing at all.
    """
    found, of_phase = tables.finding.c, tables.run_phase.c
    saved = exists().where(found.run_id == _RUN.id, found.phase == phase)
    statement = (
        select(tables.run)
        .join(tables.run_phase, and_(of_phase.run_id == _RUN.id, of_phase.phase == phase))
        .where(_RUN.target_id == run.target_id, _RUN.plan == run.plan, _RUN.number < run.number)
        .where(or_(of_phase.state == "done", saved))
        .order_by(_RUN.number.desc())
        .limit(1)
    )
    return connection.execute(statement).one_or_none()


def causes(
    connection: Connection, *, run_id: UUID | None = None, target_id: str | None = None
) -> Sequence[Row[Any]]:  # fmt: skip
    """Open rows of a run, or of all runs of a target, grouped by run, table, field and cause; the newest run first."""
    whose = _HELD.run_id == run_id if run_id is not None else _RUN.target_id == target_id
    group = (_RUN.id, _RUN.number, _RUN.state, _HELD.table, _HELD.field, _HELD.cause)
    statement = (
        select(
            *group,
            # Byte by byte: any of them will do, and the language's rules would cost more than all the counting.
            func.min(collate(_HELD.message, "C")).label("message"),
            func.count().label("rows"),
            func.count(_HELD.corrected_at).label("corrected"),
            func.count(_SKIP.key).label("skipped"),
            # Not rows less both: a row may be corrected and skipped.
            func.count().filter(_HELD.corrected_at.is_(None), _SKIP.key.is_(None)).label("open_to_fix"),
        )
        .select_from(_with_skips())
        .where(whose, _HELD.closed_by.is_(None))
        .group_by(*group)
        .order_by(_RUN.number.desc(), _HELD.table, _HELD.field, _HELD.cause)
    )
    return connection.execute(statement).all()


def rows_of_cause(
    connection: Connection, run_id: UUID, *, table: str, field: str, cause: str, after: Sequence[str] | None, limit: int
) -> Sequence[Row[Any]]:
    """A page of a cause's open rows in the order of their keys' texts; `after` is the last key of the page before."""
    of_cause = (_HELD.table == storable(table), _HELD.field == storable(field), _HELD.cause == storable(cause))
    statement = _rows(run_id).where(*of_cause, _HELD.closed_by.is_(None)).order_by(_HELD.key).limit(limit)
    if after is not None:
        statement = statement.where(_HELD.key > storable(json.dumps(list(after), ensure_ascii=False)))
    return connection.execute(statement).all()


def quarantine(connection: Connection, run_id: UUID) -> Sequence[Row[Any]]:
    """All quarantined rows of a run by cause, table and key; `skipped` is the reason of those to be left alone."""
    return connection.execute(_rows(run_id).order_by(_HELD.cause, _HELD.table, _HELD.key)).all()


def _rows(run_id: UUID) -> Any:
    return (
        select(tables.quarantine, _SKIP.reason.label("skipped"))
        .select_from(_with_skips())
        .where(_HELD.run_id == run_id)
    )  # fmt: skip


def _with_skips() -> FromClause:
    """Each quarantined row with its run, and with the word to leave it alone where somebody gave one."""
    same: tuple[ColumnElement[bool], ...] = (
        _SKIP.target_id == _RUN.target_id, _SKIP.plan == _RUN.plan, _SKIP.table == _HELD.table, _SKIP.key == _HELD.key,
    )  # fmt: skip
    return tables.quarantine.join(tables.run, _RUN.id == _HELD.run_id).outerjoin(tables.skip, and_(*same))
