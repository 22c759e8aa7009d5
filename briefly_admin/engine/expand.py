"""The expand phase: columns that the plan needs and the database lacks, and the indexes that its batches look up by."""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import RunFailed
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.batching import has_lookup, needed_lookups
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.changes import compile_change, free_name, positions
from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.ddl import SchemaSession
from briefly_admin.engine.indexes import build
from briefly_admin.engine.migrate import read_catalog
from briefly_admin.engine.retry import describe, lost_connection
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Column, Plan, SchemaChange, Table

_HAS_STATISTICS = "SELECT EXISTS (SELECT FROM pg_stats WHERE schemaname = %s AND tablename = %s)"


def run(context: RunContext) -> dict[str, Any]:
    """Adds what is missing: `{"columns": ["table.column"], "indexes": [name]}` of what this run made.

    Raises RunFailed, Stopped, Fenced.
    """
    with context.target.session(bulk=True) as connection:

        def announce(text: str, until: str = "") -> None:
            context.report(Progress(str(Phase.EXPAND), waiting=text, waiting_until=until))

        session = SchemaSession(context, connection, str(Phase.EXPAND), announce)
        catalog = read_catalog(connection, context)
        for position, table, column in wanted_columns(context.plan):
            _add(session, catalog[table.name], position, column)
        for table in context.plan.tables:
            for child, key in needed_lookups(context.plan, table):
                _index(session, child, key)
        for name in dict.fromkeys(child for t in context.plan.tables for child, _ in needed_lookups(context.plan, t)):
            _analyze_if_unknown(session, catalog[name])
    made = [change for change in context.journal.changes() if change.state == "made"]
    return {
        "columns": [f"{change.table}.{change.name}" for change in made if change.kind == "column"],
        "indexes": [change.name for change in made if change.kind == "index"],
    }


def wanted_columns(plan: Plan) -> Iterator[tuple[int, Table, Column]]:
    """Columns that the plan needs, with positions that stay the same whatever the database has."""
    position = 0
    for table in plan.tables:
        repaired = {repair.column for repair in table.repairs}
        for column in table.columns:
            position += 1
            if column.expand or column.name in repaired:
                yield position, table, column


def column_change(connection: Connection, table: CatalogTable, position: int, column: Column) -> ChangeRecord:
    """The column's record: how it is added, and dropped again."""
    names = (table.identifier, sql.Identifier(column.name))
    add = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(*names, sql.SQL(column.type))  # the plan's own text
    drop = sql.SQL("ALTER TABLE {} DROP COLUMN IF EXISTS {}").format(*names)
    return ChangeRecord(
        position, table.name, "column", column.name, add.as_string(connection), drop.as_string(connection)
    )


def _add(session: SchemaSession, table: CatalogTable, position: int, column: Column) -> None:
    journal, connection = session.context.journal, session.connection
    recorded = {change.position: change for change in journal.changes()}.get(position)
    if table.column(column.name) is None:
        change = column_change(connection, table, position, column)
        journal.record_change(change)
        try:
            session.alter(sql.Composed([sql.SQL(change.sql)]))
        except psycopg.Error as error:
            if lost_connection(error):
                raise
            raise RunFailed(
                f"The column {column.name} could not be added to {table.name}: {describe(error)}.",
                remedy="Give the role of TARGET_DATABASE_URL the table's ownership, then resume the run.",
            ) from None
    elif recorded is None or recorded.state == "made":
        return
    journal.set_change_state(position, "made")
    journal.log("info", f"Added the column {table.name}.{column.name}.", Phase.EXPAND)


def _index(session: SchemaSession, child: str, key: str) -> None:
    """The plan's plain index that begins with the key, now, because every batch looks children or groups up by it."""
    context = session.context
    table = read_table(session.connection, context.plan.table(child).schema, child)
    wanted = _plain_index(context.plan, child, key)
    if table is None or wanted is None or has_lookup(table, key):
        return
    position, change = wanted
    recorded = {each.position: each for each in context.journal.changes()}.get(position)
    name = recorded.name if recorded else free_name(session.connection, table, change.name)
    compiled = compile_change(position, change, {child: table}, name)
    if recorded is None:
        context.journal.record_change(compiled.record(session.connection))
    build(session, compiled, table)
    context.journal.set_change_state(position, "made")
    context.journal.log("info", f"Built the index {name}, by which batches look up {child}.{key}.", Phase.EXPAND)


def _plain_index(plan: Plan, table: str, column: str) -> tuple[int, SchemaChange] | None:
    return next((p for p in positions(plan, table) if p[1].kind == "index" and p[1].columns[0] == column), None)


def _analyze_if_unknown(session: SchemaSession, table: CatalogTable) -> None:
    """A table that was never analysed gets statistics, or look-ups into it may be planned badly."""
    row = session.connection.execute(_HAS_STATISTICS, (table.schema, table.name)).fetchone()
    if row and not row[0]:
        session.alone(sql.SQL("ANALYZE {}").format(table.identifier), wait_for_locks=True)
