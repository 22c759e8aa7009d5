"""Changes to rows by hand: a row shown with validation's verdict, corrected, and one fix applied to all of a cause."""

from collections.abc import Sequence

from briefly_admin.engine.correcting.answers import reading_row
from briefly_admin.engine.correcting.causes import rows_of_cause, rows_of_keys
from briefly_admin.engine.correcting.fixing import fix
from briefly_admin.engine.correcting.outbox import empty, left_over, records
from briefly_admin.engine.correcting.place import find_key, find_place
from briefly_admin.engine.correcting.showing import check_row, read_row
from briefly_admin.engine.correcting.writing import correct_row
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan

__all__ = [
    "check_row", "correct_row", "empty", "fix", "key_of_row", "left_over", "read_row", "records", "rows_of_cause",
    "rows_of_keys",
]  # fmt: skip


def key_of_row(connection: Connection, plan: Plan, table: str, key: Sequence[str]) -> tuple[str, ...]:
    """The row's key as PostgreSQL writes it. Raises NotFound, InvalidRequest, Refused, Unavailable."""
    with reading_row(connection):
        return find_key(connection, find_place(connection, plan, table), key)
