"""How large the plan's tables are, as the server's statistics say: instant, whatever their size."""

from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan

_SIZES: Final = """
SELECT n.nspname, c.relname, c.reltuples::bigint, pg_table_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""
_SMALL: Final = 8 << 20
"""Bytes below which a table is counted, where the server has no statistics of it."""


@dataclass(frozen=True, slots=True)
class TableSize:
    """Rows (an estimate; None for a table that is not there) and bytes with TOAST, without indexes."""

    name: str
    rows: int | None
    bytes: int


def sizes(connection: Connection, plan: Plan) -> tuple[TableSize, ...]:
    """One a table of the plan, in its order."""
    names = [table.name for table in plan.tables]
    found = {
        (schema, name): (rows, size)
        for schema, name, rows, size in connection.execute(_SIZES, ([t.schema for t in plan.tables], names))
    }
    listed = []
    for table in plan.tables:
        rows, size = found.get((table.schema, table.name), (None, 0))
        if rows is not None and rows <= 0 and 0 < size < _SMALL:
            counting = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.schema, table.name))
            row = connection.execute(counting).fetchone()
            rows = row[0] if row else 0
        listed.append(TableSize(table.name, None if rows is None else max(0, rows), size))
    return tuple(listed)
