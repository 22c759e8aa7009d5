"""What is looked at before a migration changes anything, for its verification and its report."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from briefly_admin.domain.runs import Phase
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.figures import measure
from briefly_admin.engine.probe import trigger_columns
from briefly_admin.engine.snapshot import copied_columns, key_columns, open_snapshot, translated
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan
from briefly_admin.vault.digest import bucket_sql, buckets_of


def look(context: RunContext) -> dict[str, Any]:
    """{"columns", "trigger_columns", "tables", "queries"}, plain JSON; a baseline where no backup has stored one.

    Nothing is changed: the probe of triggers is rolled back. Raises PreflightFailed, Unavailable, Stopped.
    """
    if not context.config.create_backup:
        _baseline(context)
    context.check_stop()
    with context.target.session() as connection, translated("the plan's tables"):
        added = _added(context)
        tables = {
            name: replace(table, columns=tuple(c for c in table.columns if (name, c.name) not in added))
            for name, table in read_tables(connection, context.plan).items()
        }
        columns = {name: [column.name for column in table.columns] for name, table in tables.items()}
        written = trigger_columns(connection, context.plan, tables)
        return {"columns": columns, "trigger_columns": written, **measure(connection, context.plan, tables)}


def read_tables(connection: Connection, plan: Plan) -> Mapping[str, CatalogTable]:
    """The plan's tables as the catalog has them now, in the plan's order; missing ones are left out."""
    found = {table.name: read_table(connection, table.schema, table.name) for table in plan.tables}
    return {name: table for name, table in found.items() if table}


def _added(context: RunContext) -> set[tuple[str, str]]:
    """(table, column) that an interrupted attempt at this phase has added already: they were not there before."""
    return {(change.table, change.name) for change in context.journal.changes() if change.kind == "column"}


def _baseline(context: RunContext) -> None:
    """Digests of every bucket of every table at one instant."""
    added = _added(context)
    with open_snapshot(context.target, context.plan) as snapshot:
        for table in context.plan.tables:
            context.check_stop()
            here = snapshot.tables[table.name]
            columns = [column for column in copied_columns(here) if (table.name, column.name) not in added]
            query = bucket_sql(here.identifier, columns, key_columns(here, table.key))
            buckets = buckets_of(snapshot.connection.execute(query).fetchall())
            context.journal.save_baseline(table.name, buckets.to_bytes())
            context.journal.log("debug", f"{table.name}: baseline of {buckets.total().count:,} rows.", Phase.EXPAND)
