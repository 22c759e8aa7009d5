"""The schema changes that a migration will make, with the statements that take them back, as they stand before it."""

from collections.abc import Mapping
from dataclasses import replace

from briefly_admin.domain.manifest import SchemaChangeRecord
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine.catalog import CatalogColumn, CatalogTable
from briefly_admin.engine.changes import compile_change, free_name, positions, possible, stands
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.expand import column_change, wanted_columns
from briefly_admin.engine.migrate import read_catalog
from briefly_admin.engine.snapshot import translated
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Column


def planned_changes(context: RunContext) -> tuple[SchemaChangeRecord, ...]:
    """What expand and constrain will make in this run, in order of their positions; nothing where it is no migration.

    What the database has already is left out. A change whose name is taken meanwhile gets another one: the run's own
    record says which. Raises Unavailable, RunFailed, PreflightFailed.
    """
    if context.kind is not RunKind.MIGRATION:
        return ()
    with context.target.session(bulk=True) as connection, translated(context.plan.title):
        catalog = read_catalog(connection, context)
        found = []
        later = dict(catalog)
        for position, table, column in wanted_columns(context.plan):
            known = catalog[table.name]
            if known.column(column.name) is None:
                change = column_change(connection, known, position, column)
                found.append(SchemaChangeRecord(known.label, f"column {column.name}", change.sql, change.inverse))
                later[table.name] = _with_column(connection, later[table.name], column)
        return (*found, *_changes(context, connection, catalog, later))


def _changes(
    context: RunContext,
    connection: Connection,
    catalog: Mapping[str, CatalogTable],
    later: Mapping[str, CatalogTable],
) -> list[SchemaChangeRecord]:
    found = []
    for table in context.plan.tables:
        for position, change in positions(context.plan, table.name):
            if not possible(change, later) or (possible(change, catalog) and stands(connection, change, catalog)):
                continue
            wanted = change.name + ("_check" if change.kind == "not_null" else "")
            name = free_name(connection, catalog[table.name], wanted)
            made = compile_change(position, change, later, name).record(connection)
            found.append(
                SchemaChangeRecord(
                    catalog[table.name].label, f"{change.kind} {change.name}".strip(), made.sql, made.inverse
                )
            )
    return found


def _with_column(connection: Connection, table: CatalogTable, column: Column) -> CatalogTable:
    """The table as it will be: what a change looks at of a new column is its type and that it has no default."""
    row = connection.execute(
        "SELECT coalesce((SELECT typname::text FROM pg_type WHERE oid = to_regtype(%s)), '')", (column.type,)
    ).fetchone()
    added = CatalogColumn(
        name=column.name, number=0, type=column.type, base_type=str(row[0]) if row else "", nullable=True,
        default=None, generated="", identity="", collation=None, send=None, type_oid=0, typmod=-1,
    )  # fmt: skip
    return replace(table, columns=(*table.columns, added))
