"""A plan's schema changes as statements with their inverses, recognised by definition where they stand already."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.context import ChangeRecord
from briefly_admin.engine.repairs import template
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan, SchemaChange

FIRST_CHANGE: Final = 1001
"""Positions: added columns count from 1, the plan's changes from here; a rollback goes through them backwards."""
INDEX_KINDS: Final = frozenset({"index", "unique_index"})
_CAST: Final = re.compile(r"::[a-z][a-z0-9_ ]*(\[\])?$")
_PROBE: Final = "briefly_probe"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A change of the plan for this database. `add` makes it (constraints: NOT VALID), `inverse` takes it back.

    Every inverse is one statement that does no harm where the change was never made.
    """

    position: int
    change: SchemaChange
    name: str
    add: sql.Composed
    inverse: sql.Composed
    violated: sql.Composable | None = None
    """Over the table AS t: whether a row breaks it; None for what no row can break."""

    def record(self, connection: Connection) -> ChangeRecord:
        """As the run's record keeps it."""
        return ChangeRecord(
            self.position, self.change.table, self.change.kind, self.name, self.add.as_string(connection),
            self.inverse.as_string(connection),
        )  # fmt: skip


def positions(plan: Plan, table: str) -> list[tuple[int, SchemaChange]]:
    """The table's changes with their positions in the plan."""
    return [(FIRST_CHANGE + n, change) for n, change in enumerate(plan.changes) if change.table == table]


def revert_statements(changes: Sequence[ChangeRecord]) -> list[str]:
    """The inverses of what a run made, or may have made, in the order in which they take it back."""
    done = [change for change in changes if change.state in {"planned", "made"}]
    return [change.inverse for change in sorted(done, key=lambda change: -change.position)]


def possible(change: SchemaChange, catalog: Mapping[str, CatalogTable]) -> bool:
    """Whether the table has the change's columns; a tolerated one may be missing."""
    table = catalog[change.table]
    return all(table.column(name) for name in change.columns)


def stands(connection: Connection, change: SchemaChange, catalog: Mapping[str, CatalogTable]) -> bool:
    """Whether the database has it already, whole and valid, whatever its name."""
    table = catalog[change.table]
    columns = tuple(change.columns)
    if change.kind == "default":
        column = table.column(columns[0])
        return column is not None and bare_default(column.default) == _expression(change, table)
    if change.kind == "not_null":
        column = table.column(columns[0])
        return column is not None and not column.nullable
    if change.kind == "unique_index":
        return table.has_unique_index(columns)
    if change.kind == "index":
        return any(
            i.valid and not i.partial and i.columns == columns and " USING btree " in i.definition
            for i in table.indexes
        )
    if change.kind == "foreign_key":
        parent, parent_column = change.references or ("", "")
        wanted = (catalog[parent].schema, parent, (parent_column,))
        return any(
            c.kind == "f" and c.validated and c.columns == columns and c.references == wanted for c in table.constraints
        )
    wanted_check = check_definition(connection, change, table)
    return any(c.kind == "c" and c.validated and c.definition == wanted_check for c in table.constraints)


def compile_change(position: int, change: SchemaChange, catalog: Mapping[str, CatalogTable], name: str) -> Compiled:
    """The statements of a change under this name."""
    table = catalog[change.table]
    column = sql.Identifier(change.columns[0])
    if change.kind in INDEX_KINDS:
        return _index(position, change, table, name)
    if change.kind == "default":
        former = (catalog[change.table].column(change.columns[0]) or table.columns[0]).default
        undo = sql.SQL("SET DEFAULT {}").format(sql.SQL(former)) if former else sql.SQL("DROP DEFAULT")
        add = sql.SQL("SET DEFAULT {}").format(sql.SQL(_expression(change, table)))  # the plan's own text
        alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} {}")
        return Compiled(
            position,
            change,
            name,
            alter.format(table.identifier, column, add),
            alter.format(table.identifier, column, undo),
        )
    if change.kind == "not_null":
        condition: sql.Composable = sql.SQL("{} IS NOT NULL").format(column)
        inverse = sql.SQL("ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL, DROP CONSTRAINT IF EXISTS {}").format(
            table.identifier, column, sql.Identifier(name)
        )
        return Compiled(
            position, change, name, _check(table, name, condition), inverse, sql.SQL("t.{} IS NULL").format(column)
        )
    drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(table.identifier, sql.Identifier(name))
    if change.kind == "check":
        violated = sql.SQL("({}) IS FALSE").format(condition_of(change, table, "t"))
        return Compiled(
            position, change, name, _check(table, name, condition_of(change, table, table.name)), drop, violated
        )
    return _foreign_key(position, change, catalog, name, drop)


def _foreign_key(
    position: int, change: SchemaChange, catalog: Mapping[str, CatalogTable], name: str, drop: sql.Composed
) -> Compiled:
    table, column = catalog[change.table], sql.Identifier(change.columns[0])
    parent, parent_column = change.references or ("", "")
    names = {"parent": catalog[parent].identifier, "parent_column": sql.Identifier(parent_column), "column": column}
    add = sql.SQL(
        "ALTER TABLE {table} ADD CONSTRAINT {name} FOREIGN KEY ({column}) REFERENCES {parent} ({parent_column}) "
        "NOT VALID"
    ).format(table=table.identifier, name=sql.Identifier(name), **names)
    violated = sql.SQL(
        "(t.{column} IS NOT NULL AND NOT EXISTS (SELECT FROM {parent} AS p WHERE p.{parent_column} = t.{column}))"
    ).format(**names)
    return Compiled(position, change, name, add, drop, violated)


def _index(position: int, change: SchemaChange, table: CatalogTable, name: str) -> Compiled:
    unique = change.kind == "unique_index"
    columns = sql.SQL(", ").join(map(sql.Identifier, change.columns))
    add = sql.SQL("CREATE {} CONCURRENTLY {} ON {} ({})").format(
        sql.SQL("UNIQUE INDEX" if unique else "INDEX"), sql.Identifier(name), table.identifier, columns
    )
    drop = sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(table.schema, name))
    mine = sql.SQL(", ").join(sql.Identifier("t", column) for column in change.columns)
    filled = sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier(c)) for c in change.columns)
    violated = sql.SQL("({}) IN (SELECT {} FROM {} WHERE {} GROUP BY {} HAVING count(*) > 1)").format(
        mine, columns, table.identifier, filled, columns
    )
    return Compiled(position, change, name, add, drop, violated if unique else None)


def _check(table: CatalogTable, name: str, condition: sql.Composable) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({}) NOT VALID").format(
        table.identifier, sql.Identifier(name), condition
    )


def _expression(change: SchemaChange, table: CatalogTable) -> str:
    column = table.column(change.columns[0])
    return change.expression_for(column.base_type if column else "")


def condition_of(change: SchemaChange, table: CatalogTable, alias: str) -> sql.Composed:
    """A check's condition over an alias."""
    return template(_expression(change, table), alias, {column.name for column in table.columns})


def bare_default(text: str | None) -> str | None:
    """A default as a plan writes it: without the cast that the catalog prints ('free'::text)."""
    return _CAST.sub("", text) if text else text


def check_definition(connection: Connection, change: SchemaChange, table: CatalogTable) -> str:
    """The check as the catalog would print it: asked of an empty copy of the table that nobody else ever sees."""
    probe = sql.Identifier("pg_temp", _PROBE)
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("CREATE TEMP TABLE {} (LIKE {})").format(sql.Identifier(_PROBE), table.identifier))
        condition = condition_of(change, table, _PROBE)
        connection.execute(sql.SQL("ALTER TABLE {} ADD CONSTRAINT c CHECK ({})").format(probe, condition))
        row = connection.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'c' AND conrelid = %s::regclass",
            (f"pg_temp.{_PROBE}",),
        ).fetchone()
    return str(row[0]) if row else ""


_TAKEN: Final = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = %(name)s)
  OR EXISTS (SELECT FROM pg_constraint o WHERE o.conrelid = %(oid)s::oid AND o.conname = %(name)s)
"""


def free_name(connection: Connection, table: CatalogTable, wanted: str) -> str:
    """The wanted name, or one with a number after it where something else bears it; at most 63 bytes."""
    for number in range(1000):
        tail = f"_{number}" if number else ""
        name = wanted.encode()[: 63 - len(tail)].decode(errors="ignore") + tail
        values = {"schema": table.schema, "name": name, "oid": table.oid}
        row = connection.execute(_TAKEN, values).fetchone()
        if row and not row[0]:
            return name
    return wanted
