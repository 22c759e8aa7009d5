"""What an exact rollback would do, counted in one snapshot; what was staged for it stays for a while."""

from typing import Any

import psycopg
from psycopg import sql

from briefly_admin.domain.runs import RunKind
from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.rollback import difference, links, reuse, selection
from briefly_admin.engine.rollback.selection import Selection
from briefly_admin.engine.staged import StagedTable
from briefly_admin.engine.target import Connection

SORTING: sql.SQL = sql.SQL("SET LOCAL work_mem TO '32MB'")
"""One session joins whole tables: what it may use of the server before it goes to disk."""


def run(context: RunContext) -> dict[str, Any]:
    """{tables: {name: {same, update, insert, delete}}, outside: [sentences], schema_changes: [sentences]}.

    In a rollback, raises Refused where rows outside stand against it, or where the counts are not `expected`.
    """
    chosen = selection.choose(context)
    with context.target.session(bulk=True) as connection:
        schema, staged = ensure_staged(context, connection, chosen)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction(force_rollback=True):
            connection.execute(SORTING)
            differences = []
            for number, table in enumerate(staged):
                context.check_stop()
                returning = [(change.table, change.name) for change in chosen.changes]
                pair = selection.pair(connection, table, schema, number, returning)
                differences.append(difference.find(connection, pair))
            going = [(change.table, change.name) for change in chosen.changes]
            outside = links.outside(connection, differences, without=going)
    if context.kind is RunKind.ROLLBACK:
        links.require_none(outside)
        difference.require_expected(differences, context.options.get("expected"))
    return {
        "tables": {found.pair.name: found.counts.to_json() for found in differences},
        "outside": outside,
        "schema_changes": [sentence(change) for change in chosen.changes],
    }


def sentence(change: ChangeRecord) -> str:
    """A schema change that goes, for people."""
    return f"{change.table}: {change.kind.replace('_', ' ')} {change.name}"


def ensure_staged(
    context: RunContext, connection: Connection, chosen: Selection
) -> tuple[str, tuple[StagedTable, ...]]:
    """The scratch schema and the staged tables, which may be the preview's; staged again where they are not whole."""
    return reuse.ensure_staged(context, connection, chosen.reader, chosen.tables)
