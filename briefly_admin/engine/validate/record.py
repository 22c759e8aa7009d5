"""A table of a plan compiled for validation: its rows as they are and as its repairs would leave them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.compiler import Condition, Typed, conditions, readable
from briefly_admin.engine.repairs import column_value, compile_repairs
from briefly_admin.engine.target import Connection, safe_message
from briefly_admin.plans.base import AggregateRepair, AnyRepair, GroupedRepair, Plan, Repair, Table
from briefly_admin.plans.judging import FieldSpec, RecordSpec, describe

ALIAS: Final = "t"
WHOLE_ROW: Final = "row"
"""The field's name of findings about rows as a whole."""

_PAIRS: Final = 40
"""A function takes no more than 100 arguments."""
_LIMITS: Final = {
    "int2": ("smallint", -(2**15), 2**15 - 1),
    "int4": ("integer", -(2**31), 2**31 - 1),
}
_DECLARED: Final = {"smallint": "int2", "integer": "int4"}


@dataclass(frozen=True, slots=True)
class FieldCheck:
    """One field: what must hold for its value as it is (`before`) and once repaired (`after`)."""

    name: str
    secret: bool
    missing: bool
    """The table lacks the column."""
    repair_words: str
    """Empty where no repair is declared; then `before` is `after`."""
    raw: sql.Composable
    repaired: sql.Composable
    before: tuple[Condition, ...]
    after: tuple[Condition, ...]
    may_change: sql.Composable | None = None
    """TRUE wherever the repair changes a value that `before` takes, and cheaper than `changed`; None: it never does."""

    @property
    def suspects(self) -> list[sql.Composable]:
        """One of them is TRUE wherever a condition fails or the repair changes the value; never NULL."""
        asked = [condition.suspect for condition in self.before if condition.test is not None]
        return asked if self.may_change is None else [*asked, self.may_change]

    @property
    def changed(self) -> sql.Composable:
        """Whether the repair would give another value."""
        if not self.repair_words:
            return sql.SQL("false")
        return sql.SQL("({} IS DISTINCT FROM {})").format(self.raw, self.repaired)

    @property
    def is_unsure(self) -> bool:
        """Whether marshmallow must decide where SQL does not accept."""
        return any(condition.judge for condition in (*self.before, *self.after))


@dataclass(frozen=True, slots=True)
class CompiledTable:
    """`source` is what to put after FROM (the table as `t` with its repairs' joins), `rows` a WHERE condition."""

    table: Table
    catalog: CatalogTable
    source: sql.Composable
    plain: sql.Composable
    """The table as `t` alone."""
    joins: sql.Composable
    """Of `source`, what follows `plain`."""
    late: bool
    """Whether there are joins, and rows that the rules take are told without them."""
    rows: sql.Composable
    within: sql.Composable
    """The part of the table at hand, a WHERE condition."""
    values: Mapping[str, sql.Composable]
    """Column → its value once repaired, for repaired columns."""
    fields: tuple[FieldCheck, ...]

    @property
    def keys(self) -> Sequence[sql.Composable]:
        """The key's columns."""
        return [sql.Identifier(ALIAS, name) for name in self.table.key]

    @property
    def key_array(self) -> sql.Composable:
        """The key as an array of texts."""
        return sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(sql.SQL("{}::text").format(key) for key in self.keys))

    def value(self, column: str) -> sql.Composable:
        """A column once repaired."""
        present = {c.name for c in self.catalog.columns}
        return self.values.get(column) or column_value(column, ALIAS, present, _declared(self.table))


def compile_table(
    connection: Connection,
    plan: Plan,
    table: Table,
    catalog: Mapping[str, CatalogTable],
    excluded: Sequence[Sequence[str]] = (),
) -> CompiledTable:
    """Compile `table`; rows whose keys (as texts) are `excluded` are left aside.

    Raises Refused where a repair does not fit the columns that the database has.
    """
    found = catalog[table.name]
    repairs = compile_repairs(plan, table, catalog, alias=ALIAS, at_once=True)
    plain = sql.SQL("{} AS {}").format(found.identifier, sql.Identifier(ALIAS))
    source = sql.SQL("{} {}").format(plain, repairs.joins)
    types = _types_of(connection, table, source, repairs.values)
    spec = describe(table.record)
    declared = {repair.column: repair for repair in table.repairs}
    names = [field.name for field in spec.fields]
    specs = {field.name: field for field in spec.fields}
    for name in repairs.values:  # a repaired column that the schema does not know can still differ
        if name not in specs:
            specs[name] = FieldSpec(name, "any", allow_none=True, judge=lambda _: True)
            names.append(name)
    fields = tuple(_check(table, found, specs[name], repairs.values, types, declared.get(name)) for name in names)
    if spec.has_hooks:
        fields = (_whole_row(spec, fields, repairs.values),)
    rows, whole = _not_excluded(table, excluded), sql.SQL("true")
    joined = [repair for repair in table.repairs if not isinstance(repair, Repair)]
    late = bool(joined) and all(isinstance(repair, GroupedRepair) or repair.only_missing for repair in joined)
    return CompiledTable(table, found, source, plain, repairs.joins, late, rows, whole, repairs.values, fields)


def _declared(table: Table) -> dict[str, str]:
    return {column.name: column.type for column in table.columns}


def _types_of(
    connection: Connection, table: Table, source: sql.Composable, values: Mapping[str, sql.Composable]
) -> dict[str, str]:
    """pg_type.typname of each repaired value, asked of the server: no row is read."""
    if not values:
        return {}
    names = list(values)
    query = sql.SQL("SELECT {} FROM {} LIMIT 0").format(sql.SQL(", ").join(values[name] for name in names), source)
    try:
        with connection.transaction():
            described: Sequence[Any] = connection.execute(query).description or ()
    except psycopg.errors.InsufficientPrivilege:
        raise
    except (psycopg.ProgrammingError, psycopg.DataError) as error:
        raise Refused(
            f"The repairs of {table.schema}.{table.name} do not fit its columns: {safe_message(error)}.",
            remedy="Give the columns the types that the plan names (see the preflight checks).",
        ) from None
    oids = [column.type_code for column in described]
    by_oid: dict[int, str] = dict(
        connection.execute("SELECT oid::int8, typname::text FROM pg_type WHERE oid = ANY(%s)", (oids,)).fetchall()
    )
    return {name: by_oid[oid] for name, oid in zip(names, oids, strict=True)}


def _check(
    table: Table, found: CatalogTable, spec: FieldSpec, values: Mapping[str, sql.Composable],
    types: Mapping[str, str], repair: AnyRepair | None,
) -> FieldCheck:  # fmt: skip
    name = spec.name
    declared = _declared(table)
    column = found.column(name)
    raw = column_value(name, ALIAS, {c.name for c in found.columns}, declared)
    raw_type = column.base_type if column else types.get(name, "text")  # a NULL is as good in any type
    before = conditions(spec, Typed(raw, raw_type))
    raw = readable(Typed(raw, raw_type))
    if column is None and spec.has_default:
        before = ()  # the default stands for the column, as it would for a missing key
    elif column is None:
        before = tuple(
            Condition("required", c.words, c.test, c.judge) if c.name == "null" else c for c in before
        )  # fmt: skip
    after, repaired = before, sql.Composed([raw])
    if name in values:
        value = values[name]
        if raw_type == types[name] == "numeric":  # 1.00 is 1, so the row is left as it is, and its JSON has no fraction
            value = sql.SQL("(CASE WHEN {raw} = {value} THEN {raw} ELSE {value} END)").format(raw=raw, value=value)
        repaired = sql.Composed([readable(Typed(value, types[name]))])
        after = (*conditions(spec, Typed(value, types[name])), *_fit(column.base_type if column else
                 _DECLARED.get(declared.get(name, ""), ""), types[name], repaired))  # fmt: skip
    secret = any(c.secret for c in table.columns if c.name == name)
    check = FieldCheck(name, secret, column is None, repair.words if repair else "", raw, repaired,
                       _named_apart(before), _named_apart(after))  # fmt: skip
    return replace(check, may_change=_may_change(repair, check))


def _may_change(repair: AnyRepair | None, check: FieldCheck) -> sql.Composable | None:
    if repair is None or (isinstance(repair, Repair) and repair.only_wrong and check.before):
        return None
    if isinstance(repair, Repair) or (isinstance(repair, AggregateRepair) and not repair.only_missing):
        return check.changed
    asked = any(condition.name in {"null", "required"} for condition in check.before)
    return None if asked else sql.SQL("({} IS NULL)").format(check.raw)  # these fill what is missing


def _named_apart(found: Sequence[Condition]) -> tuple[Condition, ...]:
    """Two validators of one class are two rules."""
    names = [condition.name for condition in found]
    return tuple(
        replace(condition, name=f"{condition.name}_{names[:position].count(condition.name) + 1}")
        if condition.name in names[:position] else condition
        for position, condition in enumerate(found)
    )  # fmt: skip


def _fit(column_type: str, value_type: str, value: sql.Composable) -> tuple[Condition, ...]:
    """A repaired value of a wider type must fit the column."""
    if column_type not in _LIMITS or value_type not in {"int4", "int8", "numeric"} or value_type == column_type:
        return ()
    title, low, high = _LIMITS[column_type]
    fits = sql.SQL("({} BETWEEN {} AND {})").format(value, sql.Literal(low), sql.Literal(high))
    return (Condition("type_range", f"must fit the type {title}", fits),)


def _whole_row(spec: RecordSpec, fields: Sequence[FieldCheck], repaired: Collection[str]) -> FieldCheck:
    """The schema looks at rows as a whole: marshmallow judges every one.

    A column that is not there is left out where its field has a default; null otherwise.
    """
    defaults = {field.name for field in spec.fields if field.has_default}
    given = [field for field in fields if not field.missing or field.name not in defaults]
    mended = [field for field in fields if not field.missing or field.name not in defaults - set(repaired)]

    def objects(values: Mapping[str, sql.Composable]) -> sql.Composable:
        pairs = [sql.SQL("{}::text, to_jsonb({})").format(sql.Literal(name), value) for name, value in values.items()]
        parts = [pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS)] or [[]]
        built = [sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(part)) for part in parts]
        return sql.SQL("({})").format(sql.SQL(" || ").join(built))

    asked = Condition("schema", "must satisfy the record schema", sql.SQL("false"), lambda row: not spec.judge(row))
    return FieldCheck(
        WHOLE_ROW, secret=True, missing=False,
        repair_words="; ".join(field.repair_words for field in fields if field.repair_words),
        raw=objects({field.name: field.raw for field in given}),
        repaired=objects({field.name: field.repaired for field in mended}),
        before=(asked,), after=(asked,),
    )  # fmt: skip


def _not_excluded(table: Table, excluded: Sequence[Sequence[str]]) -> sql.Composable:
    if not excluded:
        return sql.SQL("true")
    names = [f"k{position}" for position in range(len(table.key))]
    columns = [sql.Literal([key[position] for key in excluded]) for position in range(len(table.key))]
    return sql.SQL("NOT EXISTS (SELECT FROM unnest({arrays}) AS x({names}) WHERE {same})").format(
        arrays=sql.SQL(", ").join(sql.SQL("{}::text[]").format(column) for column in columns),
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        same=sql.SQL(" AND ").join(
            sql.SQL("x.{} = {}::text").format(sql.Identifier(name), sql.Identifier(ALIAS, column))
            for name, column in zip(names, table.key, strict=True)
        ),
    )
