"""What an exact rollback would do, counted in one snapshot; nothing is kept of it but the figures."""

from typing import Any

import psycopg
from psycopg import sql

from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import scratch, staging
from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.rollback import difference, links, selection
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
        if context.kind is RunKind.PREVIEW:
            connection.isolation_level = None
            scratch.drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)
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
    """The scratch schema and its tables, staged again where they are not whole."""
    whole = staging.still_whole(connection, context.run_id, chosen.reader.manifest, chosen.tables)
    if whole is not None:
        return whole
    context.journal.log("info", "The backup is staged again: the staged tables are not whole.", Phase.STAGE)
    staged = staging.stage(context, chosen.reader, chosen.tables)
    return scratch.scratch_schema(context.run_id, context.attempt), staged
