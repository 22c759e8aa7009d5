"""A plan's repairs as SQL over a relation: the same expressions for validation, batches, verification, rollback.

A relation is given as composed SQL, so that staged copies of a table serve as well as the table itself.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from string import Formatter
from typing import Any, Final

from psycopg import sql

from briefly_admin.engine.catalog import CatalogColumn, CatalogTable
from briefly_admin.plans.base import AggregateRepair, GroupedRepair, Plan, Repair, Table

Relation = Callable[[str], sql.Composable]
"""From a plan table's name to the relation to read: 'schema'.'table', or a staged copy."""


@dataclass(frozen=True, slots=True)
class CompiledRepairs:
    """What to put after `FROM relation AS alias`, and each repaired column's right value."""

    joins: sql.Composable
    values: Mapping[str, sql.Composable]
    """Column → expression of its repaired value; only columns that a repair may change."""
    aggregates: Mapping[str, sql.Composable] = field(default_factory=dict)
    """Column of an aggregate repair → the aggregate over the children, whatever the column holds."""


def template(text: str, alias: str, columns: Collection[str], types: Mapping[str, str] | None = None) -> sql.Composed:
    """A plan's SQL text with `{name}` filled by alias.name, or by a typed NULL where the table lacks the column."""
    names = {name for _, name, _, _ in Formatter().parse(text) if name}
    parts: dict[str, Any] = {name: column_value(name, alias, columns, types) for name in names}
    return sql.SQL(text).format(**parts)  # plans are code, not input


def column_value(
    name: str, alias: str, columns: Collection[str], types: Mapping[str, str] | None = None
) -> sql.Composable:
    """alias.name, or a typed NULL where the table lacks the column; the name may be any."""
    return sql.Identifier(alias, name) if name in columns else _null((types or {}).get(name))


def _null(type_name: str | None) -> sql.Composable:
    """A NULL of the type that the plan names; an extension's type is not on the search path: a bare NULL."""
    known = type_name is not None and not type_name.startswith("vector")
    return sql.SQL(f"NULL::{type_name}" if known else "NULL")


def compile_repairs(
    plan: Plan,
    table: Table,
    catalog: Mapping[str, CatalogTable],
    *,
    relation: Relation | None = None,
    alias: str = "t",
    scope: sql.Composable | None = None,
    joined: str = "",
    at_once: bool = False,
) -> CompiledRepairs:
    """The table's repairs over `alias`.

    `scope`: a query of keys (the key columns, in order) of the rows at hand: aggregates and groups then read only
    what those rows need; without it each is one pre-aggregated join over the whole child. A repair of a column that
    the table lacks counts as a NULL column repaired. `joined`: what the joins' own aliases begin with, else `alias`.
    `at_once`: for one scan of the whole table: each join is computed once, before it; what fills gaps, for gaps alone.
    """
    source = relation or (lambda name: catalog[name].identifier)
    columns = {column.name: column.base_type for column in catalog[table.name].columns}
    types = {column.name: column.type for column in table.columns}
    joins: list[sql.Composable] = []
    values: dict[str, sql.Composable] = {}
    aggregates: dict[str, sql.Composable] = {}
    joined_to: dict[tuple[str, str], str] = {}
    for number, repair in enumerate(table.repairs):
        name = f"{joined or alias}_r{number}"
        if isinstance(repair, Repair):
            expression = repair.expression_for(columns.get(repair.column, ""))
            # Whatever stands around it binds no tighter than the plan's own operators.
            values[repair.column] = sql.SQL("({})").format(template(expression, alias, columns, types))
        elif isinstance(repair, AggregateRepair):
            children = (repair.child, repair.child_key)
            if children not in joined_to:
                joined_to[children] = name
                of_child = {column.name for column in catalog[repair.child].columns}
                gaps = _gaps(table, repair, source, columns, types) if at_once else None
                joins.append(_aggregate_join(plan, table, repair, source, name, alias, of_child, gaps or scope,
                                             _AGGREGATE_AT_ONCE if at_once else _AGGREGATE))  # fmt: skip
            found = sql.Identifier(joined_to[children], f"value{number}")
            value = sql.SQL("coalesce({}, {})").format(found, sql.SQL(repair.empty))  # a literal
            aggregates[repair.column] = value
            values[repair.column] = (
                _filled(repair.column, alias, columns, types, value) if repair.only_missing else value
            )
        else:
            join = _grouped_at_once if at_once else partial(_grouped_join, scope=scope)
            joins.append(join(table, repair, source, name, alias, columns))
            values[repair.column] = _filled(repair.column, alias, columns, types, sql.Identifier(name, "value"))
    return CompiledRepairs(sql.SQL(" ").join(joins), values, aggregates)


_AGGREGATE: Final = sql.SQL(
    "LEFT JOIN (SELECT c.{child_key} AS owner, {values} FROM {child} AS c {where} "
    "GROUP BY c.{child_key}) AS {name} ON {name}.owner = {alias}.{key}"
)


_AGGREGATE_AT_ONCE: Final = sql.SQL(
    "LEFT JOIN (WITH a AS MATERIALIZED (SELECT c.{child_key} AS owner, {values} FROM {child} AS c {where} "
    "GROUP BY c.{child_key}) SELECT * FROM a) AS {name} ON {name}.owner = {alias}.{key}"
)
"""A parallel scan would have each of its workers aggregate anew."""


def _alike(table: Table, repair: AggregateRepair) -> dict[int, AggregateRepair]:
    """Number → each repair of the table that aggregates the same children: one join serves them all."""
    return {
        number: each for number, each in enumerate(table.repairs)
        if isinstance(each, AggregateRepair) and (each.child, each.child_key) == (repair.child, repair.child_key)
    }  # fmt: skip


def _gaps(
    table: Table, repair: AggregateRepair, source: Relation, columns: Collection[str], types: Mapping[str, str]
) -> sql.Composable | None:
    """The keys of the rows that lack what is aggregated; None where others need it, too."""
    alike = _alike(table, repair).values()
    if not all(each.only_missing for each in alike):
        return None
    missing = [sql.SQL("{} IS NULL").format(column_value(each.column, "n", columns, types)) for each in alike]
    return sql.SQL("SELECT n.{} FROM {} AS n WHERE {}").format(
        sql.Identifier(table.key[0]), source(table.name), sql.SQL(" OR ").join(missing)
    )


def _aggregate_join(
    plan: Plan, table: Table, repair: AggregateRepair, source: Relation, name: str, alias: str,
    child_columns: Collection[str], scope: sql.Composable | None, text: sql.SQL,
) -> sql.Composable:  # fmt: skip
    child_types = {column.name: column.type for column in plan.table(repair.child).columns}
    key = sql.Identifier(repair.child_key)
    where = sql.SQL("WHERE c.{} IN ({})").format(key, scope) if scope else sql.SQL("")
    values = (
        sql.SQL("{} AS {}").format(
            template(each.aggregate, "c", child_columns, child_types), sql.Identifier(f"value{number}")
        )
        for number, each in _alike(table, repair).items()
    )
    return text.format(
        child_key=key, values=sql.SQL(", ").join(values),
        child=source(repair.child), where=where, name=sql.Identifier(name), alias=sql.Identifier(alias),
        key=sql.Identifier(table.key[0]),
    )  # fmt: skip


def _filled(
    column: str, alias: str, columns: Collection[str], types: Mapping[str, str], value: sql.Composable
) -> sql.Composable:
    """The column where it has a value, else `value`."""
    return sql.SQL("coalesce({}, {})").format(column_value(column, alias, columns, types), value)


_GROUPED: Final = sql.SQL(
    "LEFT JOIN (SELECT {g_keys}, h.highest + row_number() OVER (PARTITION BY g.{group} ORDER BY {order}) AS value "
    "FROM {table} AS g JOIN (SELECT m.{group} AS owner, coalesce(max({m_column}), -1)::{wide} AS highest "
    "FROM {table} AS m WHERE m.{group} IN (SELECT n.{group} FROM {table} AS n WHERE {n_column} IS NULL {scope}) "
    "GROUP BY m.{group}) AS h ON h.owner = g.{group} WHERE {g_column} IS NULL) AS {name} ON {on}"
)


def _grouped_join(
    table: Table, repair: GroupedRepair, source: Relation, name: str, alias: str, columns: Mapping[str, str],
    scope: sql.Composable | None,
) -> sql.Composable:  # fmt: skip
    keys = [sql.Identifier(column) for column in table.key]
    types = {column.name: column.type for column in table.columns}
    column = repair.column
    within = sql.SQL("AND ({}) IN ({})").format(
        sql.SQL(", ").join(sql.SQL("n.{}").format(key) for key in keys), scope
    ) if scope else sql.SQL("")  # fmt: skip
    return _GROUPED.format(
        g_keys=sql.SQL(", ").join(sql.SQL("g.{}").format(key) for key in keys),
        group=sql.Identifier(repair.group_by), table=source(table.name),
        m_column=column_value(column, "m", columns, types), n_column=column_value(column, "n", columns, types),
        g_column=column_value(column, "g", columns, types),
        wide=_wide(repair, columns),
        order=sql.SQL(", ").join(column_value(part, "g", columns, types) for part in repair.order),
        scope=within, name=sql.Identifier(name),
        on=sql.SQL(" AND ").join(
            sql.SQL("{}.{} = {}.{}").format(sql.Identifier(name), key, sql.Identifier(alias), key) for key in keys
        ),
    )  # fmt: skip


def _wide(repair: GroupedRepair, columns: Mapping[str, str]) -> sql.SQL:
    """The highest bigint + 1 must be a value that validation can name, not an error in the middle of a scan."""
    return sql.SQL("bigint" if columns.get(repair.column, "int4") in {"int2", "int4"} else "numeric")


_GROUPED_AT_ONCE: Final = sql.SQL(
    "LEFT JOIN (WITH g AS MATERIALIZED (SELECT {keys}, n.{group} AS grp, {order} FROM {table} AS n "
    "WHERE {n_column} IS NULL), h AS MATERIALIZED (SELECT m.{group} AS grp, coalesce(max({m_column}), -1)::{wide} "
    "AS highest FROM {table} AS m GROUP BY m.{group} HAVING count(*) > count({m_column})) "
    "SELECT {g_keys}, h.highest + row_number() OVER (PARTITION BY g.grp ORDER BY {g_order}) AS value "
    "FROM g JOIN h ON h.grp = g.grp) AS {name} ON {on}"
)
"""As _GROUPED of all rows, reading the table twice instead of three times."""


def _grouped_at_once(
    table: Table, repair: GroupedRepair, source: Relation, name: str, alias: str, columns: Mapping[str, str]
) -> sql.Composable:
    types = {column.name: column.type for column in table.columns}
    key_names = [sql.Identifier(f"k{place}") for place in range(len(table.key))]
    order_names = [sql.Identifier(f"o{place}") for place in range(len(repair.order))]
    named = sql.SQL("{} AS {}").format
    keys = [sql.Identifier(column) for column in table.key]
    return _GROUPED_AT_ONCE.format(
        keys=sql.SQL(", ").join(named(sql.SQL("n.{}").format(key), k) for key, k in zip(keys, key_names, strict=True)),
        order=sql.SQL(", ").join(
            named(column_value(part, "n", columns, types), o) for part, o in zip(repair.order, order_names, strict=True)
        ),
        group=sql.Identifier(repair.group_by), table=source(table.name), wide=_wide(repair, columns),
        n_column=column_value(repair.column, "n", columns, types),
        m_column=column_value(repair.column, "m", columns, types),
        g_keys=sql.SQL(", ").join(sql.SQL("g.{}").format(k) for k in key_names),
        g_order=sql.SQL(", ").join(sql.SQL("g.{}").format(o) for o in order_names), name=sql.Identifier(name),
        on=sql.SQL(" AND ").join(
            sql.SQL("{}.{} = {}.{}").format(sql.Identifier(name), k, sql.Identifier(alias), key)
            for key, k in zip(keys, key_names, strict=True)
        ),
    )  # fmt: skip


def changed(values: Mapping[str, sql.Composable], alias: str, catalog: CatalogTable) -> sql.Composable:
    """Whether any repaired value differs from the row's; columns that the table lacks are left out."""
    present = {column.name: column for column in catalog.columns}
    tests = [
        sql.SQL("{}.{} IS DISTINCT FROM {}").format(sql.Identifier(alias), sql.Identifier(name), value)
        for name, value in values.items()
        if name in present
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(tests)) if tests else sql.SQL("false")


_BOUNDS: Final = {"int2": (-(2**15), 2**15 - 1), "int4": (-(2**31), 2**31 - 1), "int8": (-(2**63), 2**63 - 1)}


def as_stored(value: sql.Composable, column: CatalogColumn) -> sql.Composable:
    """A repaired value in its column's type; NULL, not an error, where an integer type cannot hold it."""
    cast = sql.SQL("({})::{}").format(value, sql.SQL(column.type))
    bounds = _BOUNDS.get(column.base_type)
    if bounds is None:
        return cast
    return sql.SQL("CASE WHEN {} BETWEEN {} AND {} THEN {} END").format(value, *map(sql.Literal, bounds), cast)
