"""Validation's verdict on some rows of a table alone, as they stand or as they are typed: once they are repaired.

The conditions are those that validation asks of the whole table, over a relation that has these rows only; what the
repairs count or number among other rows is read for these rows' keys only.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from psycopg import sql

from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine.correcting.place import Place
from briefly_admin.engine.repairs import compile_repairs
from briefly_admin.engine.target import Connection, server_cursor
from briefly_admin.engine.validate.across import declared_rules, set_rule
from briefly_admin.engine.validate.reading import as_json
from briefly_admin.engine.validate.record import ALIAS, WHOLE_ROW, CompiledTable, FieldCheck, compile_table
from briefly_admin.engine.validate.scan import any_of, fails, really_fail
from briefly_admin.plans.base import ForeignKey, Relation, Repair, Unique
from briefly_admin.plans.judging import describe

_CHUNK: Final = 2000
_OTHER: Final = "o"
WHOLE_ROW_RULE: Final = "schema"
"""Of a record schema that looks at whole rows: as validation calls it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What blocks a row. `field` '' is the row as a whole; `touches` are the columns that have a part in it."""

    field: str
    rule: str
    words: str
    touches: frozenset[str]

    @property
    def text(self) -> str:
        """For a row's own list of faults."""
        return self.words if self.field else f"{', '.join(sorted(self.touches))}: {self.words}"


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table: `compiled` has them alone as its source, `scope` is a query of their keys."""

    place: Place
    compiled: CompiledTable
    scope: sql.Composable
    own: sql.Composable
    """The whole table with these rows as they are here, to be put after FROM."""
    many: bool = False
    """Equals are counted by value, not looked for row by row: rows of one fix all have the same value."""


def some_rows(
    connection: Connection, place: Place, *, rows: sql.Composable, scope: sql.Composable,
    own: sql.Composable | None = None, many: bool = False,
) -> Rows:  # fmt: skip
    """`rows`: a query of whole rows of the table; `own`: where they are not what the table has, the table with them.

    `many`: they are, and not few.
    Raises Refused where a repair does not fit the table.
    """
    whole = own or place.here.identifier
    plan, table = place.plan, place.table

    def relation(name: str) -> sql.Composable:
        return whole if name == table.name else place.catalog[name].identifier

    compiled = compile_table(connection, plan, table, place.catalog)
    plain = sql.SQL("({}) AS {}").format(rows, sql.Identifier(ALIAS))
    joins = compile_repairs(plan, table, place.catalog, relation=relation, alias=ALIAS, scope=scope).joins
    source = sql.SQL("{} {}").format(plain, joins)
    return Rows(place, replace(compiled, plain=plain, source=source), scope, whole, many)


Faults = Iterator[tuple[tuple[str, ...], Fault]]


def faults(connection: Connection, rows: Rows, *, about: Collection[str] | None, changed: Collection[str]) -> Faults:
    """(key, fault) of each of the rows: by the record schema, then across rows; streamed.

    `about`: only what has to do with these columns (None: all). Of equal rows validation blocks all but the first;
    where a `changed` column makes them equal, each is blocked.
    """
    yield from _record_faults(connection, rows, about)
    for number, rule in enumerate(declared_rules(rows.compiled.table)):
        touches = _touches(rule)
        if about is not None and not touches & set(about):
            continue
        if set_rule(rows.place.plan, rows.compiled, rows.place.catalog, number) is None and not isinstance(
            rule, Unique
        ):
            continue
        fault, query = _across(rows, rule, number, changed)
        if query is None:
            continue
        for (key,) in stream(connection, query):
            yield tuple(key), replace(fault, touches=touches)


def _touches(rule: ForeignKey | Unique | Relation) -> frozenset[str]:
    if isinstance(rule, ForeignKey):
        return frozenset({rule.column})
    if isinstance(rule, Unique):
        return frozenset(rule.columns)
    return frozenset({rule.field, *(name for name, _ in rule.needs)})


def _across(
    rows: Rows, rule: ForeignKey | Unique | Relation, number: int, changed: Collection[str]
) -> tuple[Fault, sql.Composable | None]:
    touches = _touches(rule)
    if isinstance(rule, ForeignKey):
        found = set_rule(rows.place.plan, rows.compiled, rows.place.catalog, number)
        query = sql.SQL("SELECT s.key FROM ({}) AS s").format(found.keys) if found else None
        words = f"no row of {rule.parent} has this {rule.parent_column}"
        return Fault(rule.column, "foreign_key", words, touches), query
    if isinstance(rule, Unique):
        field = rule.columns[0] if len(rule.columns) == 1 else ""
        words = "another row has the same value once both are repaired"
        return Fault(field, "unique", words, touches), _equals(rows, rule, first_stays=not touches & set(changed))
    blocks = rule.finding_class == FindingClass.BLOCKING.value
    return Fault(rule.field, rule.name, rule.words, touches), _broken(rows, rule) if blocks else None


def _equals(rows: Rows, unique: Unique, *, first_stays: bool) -> sql.Composable | None:
    """Rows with an equal: any, or one that validation would leave in peace and count these."""
    compiled, place = rows.compiled, rows.place
    present = {column.name for column in compiled.catalog.columns}
    if any(column not in present and column not in compiled.values for column in unique.columns):
        return None
    others = compile_repairs(place.plan, place.table, place.catalog, alias=_OTHER)
    joined = {repair.column for repair in place.table.repairs if not isinstance(repair, Repair)}
    needs_joins = bool(joined & set(unique.columns))
    there = {name: others.values.get(name) or sql.Identifier(_OTHER, name) for name in unique.columns}
    source = compiled.source if needs_joins else compiled.plain
    joins = others.joins if needs_joins else sql.SQL("")
    if rows.many and not first_stays:
        return sql.SQL(
            "SELECT {key} FROM {source} WHERE ({here}) IN"
            " (SELECT {there} FROM {table} AS {other} {joins} GROUP BY {there} HAVING count(*) > 1)"
        ).format(
            key=compiled.key_array, source=source, here=sql.SQL(", ").join(map(compiled.value, unique.columns)),
            there=sql.SQL(", ").join(there.values()), table=place.here.identifier, other=sql.Identifier(_OTHER),
            joins=joins,
        )  # fmt: skip
    tests = [sql.SQL("{} = {}").format(there[name], compiled.value(name)) for name in unique.columns]
    tests.append(sql.SQL("NOT {}").format(place.same_row(_OTHER, ALIAS)))
    if first_stays:
        tests.append(
            sql.SQL("({}) < ({})").format(*(_order(rows, unique, alias, others.values) for alias in (_OTHER, ALIAS)))
        )
    return sql.SQL(
        "SELECT {key} FROM {source} WHERE EXISTS (SELECT FROM {table} AS {other} {joins} WHERE {tests})"
    ).format(
        key=compiled.key_array, source=source, table=place.here.identifier, other=sql.Identifier(_OTHER), joins=joins,
        tests=sql.SQL(" AND ").join(tests),
    )  # fmt: skip


def _order(rows: Rows, unique: Unique, alias: str, others: Mapping[str, sql.Composable]) -> sql.Composable:
    """What validation orders equals by: those that no repair changes first, then by key."""
    values = others if alias == _OTHER else rows.compiled.values
    changes = [
        sql.SQL("({} IS DISTINCT FROM {})").format(sql.Identifier(alias, name), values[name])
        for name in unique.columns if name in values and rows.compiled.catalog.column(name)
    ]  # fmt: skip
    return sql.SQL(", ").join([*changes, rows.place.columns(alias)])


def _broken(rows: Rows, relation: Relation) -> sql.Composable:
    place = rows.place
    names = {
        name: rows.own if table == place.table.name else place.catalog[table].identifier
        for name, table in relation.tables.items()
    }
    query = sql.SQL(relation.query).format(**names)  # a plan's SQL: code, not input
    return sql.SQL("SELECT {} FROM {} WHERE {} IN (SELECT broken.key FROM ({}) AS broken)").format(
        rows.compiled.key_array, rows.compiled.plain, place.columns(ALIAS), query
    )


def _record_faults(connection: Connection, rows: Rows, about: Collection[str] | None) -> Faults:
    checks = [
        check for check in rows.compiled.fields if about is None or check.name in about or check.name == WHOLE_ROW
    ]  # fmt: skip
    wrong = [test for check in checks for test in fails(check.after)]
    if not wrong:
        return
    flags = sql.SQL(", ").join(
        sql.SQL("ARRAY[{}]::bool[]").format(sql.SQL(", ").join(c.fails for c in check.after)) for check in checks
    )
    json = sql.SQL(", ").join(
        sql.SQL("to_jsonb({})::text").format(check.repaired) if check.is_unsure else sql.SQL("NULL::text")
        for check in checks
    )
    query = sql.SQL("SELECT {}, {}, {} FROM {} WHERE {}").format(
        rows.compiled.key_array, flags, json, rows.compiled.source, any_of(wrong)
    )
    for key, *found in stream(connection, query):
        for check, failed, value in zip(checks, found[: len(checks)], found[len(checks) :], strict=True):
            for fault in _of_check(rows, check, failed, value):
                yield tuple(key), fault


def _of_check(rows: Rows, check: FieldCheck, failed: Sequence[bool], value: str | None) -> Iterator[Fault]:
    really = really_fail(check.after, failed, value)
    if really and check.name == WHOLE_ROW:
        yield from _whole_row_faults(rows, as_json(value))
        return
    for condition in really:
        yield Fault(check.name, condition.name, condition.words, frozenset({check.name}))


def _whole_row_faults(rows: Rows, row: Mapping[str, Any]) -> Iterator[Fault]:
    """The words of marshmallow, where it looks at rows as a whole; of secret fields none of them."""
    table = rows.compiled.table
    known = frozenset(row)
    for name, texts in describe(table.record).judge(row).items():
        secret = name in table.secrets or (name not in known and table.secrets)
        words = "must satisfy the record schema" if secret else " ".join(_flat(texts))
        of_field = name in known
        yield Fault(name if of_field else "", WHOLE_ROW_RULE, words, frozenset({name}) if of_field else known)


def _flat(texts: Any) -> Iterator[str]:
    if isinstance(texts, Mapping):
        texts = list(texts.values())
    for text in [texts] if isinstance(texts, str) else texts:
        if isinstance(text, str):
            yield text
        else:
            yield from _flat(text)


def stream(connection: Connection, query: sql.Composable) -> Iterator[tuple[Any, ...]]:
    """The rows of a query that may give many, a chunk at a time."""
    with server_cursor(connection, "briefly_rows", chunk=_CHUNK) as cursor:
        cursor.execute(sql.Composed([query]))
        yield from cursor
