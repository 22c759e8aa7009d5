"""Rows that somebody decided to leave alone, by target, plan, table and key."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.domain.records import SkippedRow
from briefly_admin.store import tables
from briefly_admin.store.texts import storable


def put(
    connection: Connection, *, target_id: str, plan: str, table: str, key: Sequence[str], reason: str, by: str
) -> None:
    """Leave the row alone from now on, or for another reason; `key` as texts."""
    place = {"target_id": target_id, "plan": plan, "table": table, "key": _text(key)}
    values = {"reason": storable(reason), "by_whom": by, "at": func.now()}
    statement = insert(tables.skip).values(place | values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(place), set_=values))


def remove(connection: Connection, *, target_id: str, plan: str, table: str, key: Sequence[str]) -> bool:
    """Treat the row as others again; False where it was not left alone."""
    found = tables.skip.c
    statement = delete(tables.skip).where(*_of(target_id, plan), found.table == table, found.key == _text(key))
    return connection.execute(statement).rowcount == 1


def all_of(connection: Connection, *, target_id: str, plan: str, table: str | None = None) -> Sequence[Row[Any]]:
    """The rows left alone, by table and key; `key` is a JSON array of texts."""
    found = tables.skip.c
    statement = select(tables.skip).where(*_of(target_id, plan)).order_by(found.table, found.key)
    if table is not None:
        statement = statement.where(found.table == table)
    return connection.execute(statement).all()


def of_run(connection: Connection, run_id: UUID, *, table: str | None = None) -> Sequence[SkippedRow]:
    """Those of the run's target and plan."""
    run = tables.run.c
    row = connection.execute(select(run.target_id, run.plan).where(run.id == run_id)).one_or_none()
    found = all_of(connection, target_id=row.target_id, plan=row.plan, table=table) if row is not None else ()
    return [SkippedRow(each.table, tuple(json.loads(each.key)), each.reason, each.by_whom) for each in found]


def _of(target_id: str, plan: str) -> tuple[ColumnElement[bool], ...]:
    return tables.skip.c.target_id == target_id, tables.skip.c.plan == plan


def _text(key: Sequence[str]) -> str:
    return json.dumps(list(key), ensure_ascii=False)
