"""The newest preflight of a target, kept for all processes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.store import tables


def save(connection: Connection, target: str, *, at: datetime, checks: Sequence[Any]) -> None:
    """Replace the target's checklist; `checks` as JSON."""
    values = {"at": at, "checks": list(checks)}
    statement = insert(tables.checklist).values(target_id=target, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["target_id"], set_=values))


def load(connection: Connection, target: str) -> Row[Any] | None:
    """The target's checklist."""
    return connection.execute(select(tables.checklist).where(tables.checklist.c.target_id == target)).one_or_none()
