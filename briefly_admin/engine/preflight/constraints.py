"""Whether an existing CHECK constraint would refuse a row that a repair changes."""

from collections.abc import Iterator
from typing import Final

import psycopg
from psycopg import sql

from briefly_admin.domain.checks import Check, Colour
from briefly_admin.engine.catalog import CatalogConstraint
from briefly_admin.engine.preflight.inputs import amber, green, look, red
from briefly_admin.engine.preflight.tables import Site
from briefly_admin.engine.target import safe_message
from briefly_admin.engine.validate.record import CompiledTable, compile_table
from briefly_admin.plans.base import Table

NAME: Final = "check_constraints"
TITLE: Final = "Existing CHECK constraints admit the repairs"
_RANGES: Final = {"int2": 2**15, "int4": 2**31, "int8": 2**63}
_PATIENCE: Final = "5s"
"""statement_timeout of each question: on a large table this is a look, not a scan at any price."""

_BROKEN: Final = sql.SQL(
    "SELECT EXISTS (SELECT FROM (SELECT {columns} FROM {source} WHERE {changed}) AS {name} WHERE NOT ({expression}))"
)


def check_constraints(site: Site) -> Check:
    """Rows that repairs change are put, as they would be, to the constraint's own expression; nothing is written."""
    return look(NAME, TITLE, lambda: _ask(site), otherwise=Colour.AMBER)


def _ask(site: Site) -> Check:
    refused, unknown, asked = [], [], 0
    if len(site.catalog) == len(site.plan.tables):
        for table, constraint in _candidates(site):
            asked += 1
            title = f"{table.schema}.{table.name}: {constraint.name}"
            try:
                if _is_broken(site, table, constraint):
                    refused.append(title)
            except psycopg.Error as error:
                unknown.append(f"{title} ({safe_message(error)})")
    if refused:
        return red(NAME, TITLE, f"They would refuse repaired rows: {'; '.join(refused)}.",
                   "Drop or widen them first; the plan adds its own where they are right.")  # fmt: skip
    if unknown:
        return amber(NAME, TITLE, f"These could not be tried: {'; '.join(unknown)}.",
                     "Rehearse the run (dryRun): it tries every batch and rolls it back.")  # fmt: skip
    return green(NAME, TITLE, f"{asked} on repaired columns, and none refuses." if asked else "None is in the way.")


def _candidates(site: Site) -> Iterator[tuple[Table, CatalogConstraint]]:
    """CHECKs on repaired columns, but the plan's own: what a repair gives satisfies these by declaration."""
    own = {change.name for change in site.plan.changes}
    for table, found in site.pairs:
        repaired = {repair.column for repair in table.repairs}
        for constraint in found.constraints:
            if constraint.kind == "c" and constraint.name not in own and repaired & set(constraint.columns):
                yield table, constraint


def _is_broken(site: Site, table: Table, constraint: CatalogConstraint) -> bool:
    compiled = compile_table(site.connection, site.plan, table, site.catalog)
    with site.connection.transaction():
        site.connection.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(_PATIENCE)))
        ((expression,),) = site.connection.execute(
            "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = %s::oid AND conname = %s",
            (compiled.catalog.oid, constraint.name),
        ).fetchall()
        changed = sql.SQL(" OR ").join(
            check.changed for check in compiled.fields if check.name in compiled.values and not check.missing
        )
        query = _BROKEN.format(
            columns=_columns(compiled), source=compiled.source, changed=changed,
            name=sql.Identifier(compiled.catalog.name),
            expression=sql.SQL(expression),  # the server's own text of its constraint
        )  # fmt: skip
        ((broken,),) = site.connection.execute(query).fetchall()
    return bool(broken)


def _columns(compiled: CompiledTable) -> sql.Composable:
    """Every column under its name, repaired ones as they would be; a value beyond the type's range is validation's."""
    parts = []
    for column in compiled.catalog.columns:
        value = compiled.value(column.name)
        name = sql.Identifier(column.name)
        if column.name in compiled.values and column.base_type in _RANGES:
            bound = sql.Literal(_RANGES[column.base_type])
            value = sql.SQL("CASE WHEN ({v})::numeric >= -{b} AND ({v})::numeric < {b} THEN ({v})::{t} END").format(
                v=value, b=bound, t=sql.SQL(column.base_type)
            )
        parts.append(sql.SQL("{} AS {}").format(value, name))
    return sql.SQL(", ").join(parts)
