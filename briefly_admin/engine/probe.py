"""Which columns the target's own triggers write when we update a row: found by updates that are rolled back."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.repairs import as_stored, changed, compile_repairs
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan, Table

_ROWS: Final = 20
_DISABLED: Final = "D"

_PROBE: Final = sql.SQL(
    "WITH picked AS MATERIALIZED (SELECT {keys}, to_jsonb(t) AS old, {values} FROM ONLY {table} AS t {joins} "
    "{where} LIMIT {rows}), "
    "done AS (UPDATE ONLY {table} AS u SET {assignments} FROM picked AS p WHERE {match} "
    "RETURNING p.old, to_jsonb(u) AS new) "
    "SELECT DISTINCT n.key FROM done, LATERAL jsonb_each(done.new) AS n "
    "WHERE done.old -> n.key IS DISTINCT FROM n.value"
)


def trigger_columns(connection: Connection, plan: Plan, catalog: Mapping[str, CatalogTable]) -> dict[str, list[str]]:
    """Table → columns that its triggers write on an update of ours; tables without triggers are left out.

    Up to 20 rows that the repairs would change are updated, or rows are set to themselves, and all is rolled back.
    """
    found: dict[str, list[str]] = {}
    for table in plan.tables:
        here = catalog[table.name]
        if any(trigger.enabled != _DISABLED for trigger in here.triggers):
            found[table.name] = sorted(_probe(connection, plan, table, catalog, repaired=True) or
                                       _probe(connection, plan, table, catalog, repaired=False))  # fmt: skip
    return found


def _probe(
    connection: Connection, plan: Plan, table: Table, catalog: Mapping[str, CatalogTable], *, repaired: bool
) -> set[str]:
    here = catalog[table.name]
    present = {column.name for column in here.columns}
    repairs = compile_repairs(plan, table, catalog)
    values = {name: value for name, value in repairs.values.items() if name in present}
    ours = set(values) if repaired else set()
    if not repaired:
        values = {name: sql.Identifier("t", name) for name in [*table.key, *values]}
    if not values:
        return set()
    joins = repairs.joins if repaired else sql.SQL("")
    where = sql.SQL("WHERE {}").format(changed(values, "t", here)) if repaired else sql.SQL("")
    try:
        with connection.transaction(force_rollback=True):
            rows = connection.execute(_statement(table, here, values, joins, where)).fetchall()
    except psycopg.Error:
        return set()  # a trigger that refuses, a lock, a slow scan: verification then lists more rows than it need
    return {str(name) for (name,) in rows} - ours


def _statement(
    table: Table, here: CatalogTable, values: Mapping[str, sql.Composable], joins: Any, where: Any
) -> sql.Composed:
    columns = {column.name: column for column in here.columns}
    keys = [(sql.Identifier(name), sql.Identifier(f"k{n}")) for n, name in enumerate(table.key)]
    new = {name: sql.Identifier(f"v{n}") for n, name in enumerate(values)}
    return _PROBE.format(
        keys=_each("t.{} AS {}", keys),
        values=_each("{} AS {}", [(as_stored(v, columns[n]), new[n]) for n, v in values.items()]),
        table=here.identifier, joins=joins, where=where, rows=sql.Literal(_ROWS),
        assignments=_each("{} = p.{}", [(sql.Identifier(name), value) for name, value in new.items()]),
        match=_each("u.{} = p.{}", keys, " AND "),
    )  # fmt: skip


def _each(form: str, parts: Sequence[tuple[sql.Composable, ...]], between: str = ", ") -> sql.Composable:
    return sql.SQL(between).join(sql.SQL(form).format(*part) for part in parts)
