"""SQL's verdict is marshmallow's verdict, for every record schema that we ship and for one of every kind of field."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields, post_load, validate, validates_schema
from psycopg import sql

from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine.catalog import read_table
from briefly_admin.engine.compiler.patterns import narrower
from briefly_admin.engine.repairs import compile_repairs
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import blocked_rows, examine
from briefly_admin.plans.base import Column, Plan, Table
from briefly_admin.plans.unified import UNIFIED

Session = psycopg.Connection[Any]
FACTOR = int(os.environ.get("VERDICT_FACTOR", "1"))
"""More examples, and other ones each time, for a long search."""


def _no_palindromes(value: Any) -> None:
    if value == value[::-1]:
        raise ValidationError("A palindrome.")


class EveryKind(Schema):
    """Every kind of field and validator, plain and opaque."""

    id = fields.String(required=True)
    text = fields.String(allow_none=True, validate=validate.Length(min=1, max=5))
    three = fields.String(
        validate=[validate.Length(equal=3), validate.NoneOf(["abc", "\U0001f600\U0001f600\U0001f600"])]
    )
    shape = fields.String(validate=validate.Regexp(r"^(?:[a-z]+|\d{2,3})(-\w+)*$"))
    lookahead = fields.String(validate=validate.Regexp(r"(?!x).*"))
    mail = fields.Email()
    link = fields.Url(allow_none=True)
    number = fields.Integer(strict=True, validate=validate.Range(min=-5, max=10, max_inclusive=False))
    loose = fields.Integer()
    choice = fields.Integer(strict=True, validate=validate.OneOf([1, 2, 3]))
    real = fields.Float(validate=validate.Range(min=0))
    flag = fields.Boolean()
    identity = fields.UUID()
    aware = fields.AwareDateTime()
    naive = fields.NaiveDateTime()
    moment = fields.DateTime(format="iso")
    day = fields.Date()
    words = fields.List(fields.String(), validate=validate.Length(max=2))
    numbers = fields.List(fields.Integer(strict=True))
    anything = fields.List(fields.Raw())
    mapping = fields.Dict()
    typed_mapping = fields.Dict(values=fields.Integer(strict=True))
    raw = fields.Raw(allow_none=True)
    odd = fields.String(validate=_no_palindromes)
    nested = fields.Nested(type("Inner", (Schema,), {"a": fields.Integer(required=True)}))
    both = fields.String(validate=validate.And(validate.Length(max=4), validate.OneOf(["one", "two", "three"])))


class Whole(Schema):
    """A schema that looks at rows as a whole."""

    id = fields.String(required=True)
    low = fields.Integer(strict=True, required=True)
    high = fields.Integer(strict=True, required=True)

    @validates_schema
    def in_order(self, data: Mapping[str, Any], **_: Any) -> None:
        if data["low"] > data["high"]:
            raise ValidationError("Not in order.")

    @post_load
    def as_pair(self, data: Mapping[str, Any], **_: Any) -> tuple[int, int]:
        return data["low"], data["high"]


_STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_TEXTS = st.one_of(
    st.text(_STORABLE, max_size=8),
    st.sampled_from([
        "free", "pro", "FREE", "google", "azure", "user", "pending", "active", "abc", "a-b", "12-x", "12\n", "\n", "", " ", "/",
        "a/../b", "..", "../x", "a..b", "\\x", "uploads/a", "null", "NaN", "1", "1e5", "true", "on", "[1,2]", "[", "]",
        "a@b.co", "a@b", "a@localhost", "ü@b.co", "a@bücher.example", '"a b"@c.de', "a@[127.0.0.1]", "a@b.c", "a@-b.co", "a@b.co\n",
        "a" * 70 + "@b.co", "a@" + "b" * 64 + ".co", "a.@b.co", "a@b_c.de", "İ@b.co", "a@b.kK", "http://a.de", "ftp://x",
        "2020-01-01", "2020-02-30T00:00:00", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00", "infinity",
        "6f2c1d0e-0000-4000-8000-000000000000", "{6f2c1d0e-0000-4000-8000-000000000000}", "6F2C1D0E000040008000000000000000",
        "one", "three", "\U0001f600\U0001f600\U0001f600", "e\u0301", "\u2028", "\x7f", "\u00a0", "٣٤", "ǅ",
    ]),
)  # fmt: skip
_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**22), 10**22), st.integers(-6, 12), _TEXTS,
        st.sampled_from([1.0, 0.5, -0.0, 1e300, 1e22, 1e-9, 5.5]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXTS, inner, max_size=3)),
    max_leaves=4,
).map(json.dumps)  # fmt: skip
_MOMENTS = st.sampled_from([
    "infinity", "-infinity", "0044-03-15 12:00:00 BC", "0001-01-01 00:00:00", "0001-12-31 23:59:59 BC", "9999-12-31 23:59:59.999999",
    "10000-01-01", "294276-12-31 23:59:59", "2024-02-29 12:30:00.1", "1970-01-01", "2024-06-01 00:00:00.123456",
])  # fmt: skip
_BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "text": _TEXTS,
    "varchar": _TEXTS,
    "character(6)": st.text("abc /", max_size=6),
    "integer": st.one_of(st.integers(-6, 12), st.integers(-(2**31), 2**31 - 1)),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "smallint": st.integers(-6, 12),
    "numeric": st.sampled_from(["1", "1.0", "2.50", "-0", "NaN", "Infinity", "1e30", "3", "9.999", "10"]),
    "double precision": st.one_of(st.floats(width=64), st.integers(-6, 12).map(float)),
    "boolean": st.booleans(),
    "uuid": st.uuids().map(str),
    "timestamptz": _MOMENTS,
    "timestamp": _MOMENTS,
    "date": st.sampled_from(["2024-02-29", "infinity", "0044-03-15 BC", "10000-01-01", "9999-12-31"]),
    "jsonb": _JSON,
    "text[]": st.lists(st.one_of(st.none(), _TEXTS), max_size=3),
    "real[]": st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=3),
    "public.vector": st.lists(st.integers(0, 9), min_size=1, max_size=3).map(str),
    "bytea": st.binary(max_size=4),
    "interval": st.sampled_from(["1 day", "-3 hours"]),
}  # fmt: skip
_TYPES = st.sampled_from(sorted(_BY_TYPE))
_HYPOTHESIS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": FACTOR == 1,
    "database": None,
}


@pytest.fixture
def connection(target_database: str) -> Iterator[Session]:
    with Target(target_database).session(bulk=True) as session:
        yield session


def _make(connection: Session, table: Table, types: Mapping[str, str], rows: list[dict[str, Any]]) -> None:
    """The table in the open transaction, with rows under the keys '0', '1' …"""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(type_)) for name, type_ in types.items()
    )
    name = sql.Identifier(table.schema, table.name)
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, columns))
    _fill(connection, table, types, rows)


def _fill(connection: Session, table: Table, types: Mapping[str, str], rows: list[dict[str, Any]]) -> None:
    """In one round trip; all rows have the same columns."""
    if not rows:
        return
    values = sql.SQL(", ").join(sql.SQL("{}::{}").format(sql.Placeholder(), sql.SQL(types[name])) for name in rows[0])
    query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table.schema, table.name), sql.SQL(", ").join(map(sql.Identifier, rows[0])), values
    )
    with connection.cursor() as cursor:
        cursor.executemany(query, [[row[name] for name in rows[0]] for row in rows])


def _raw_rows(connection: Session, table: Table) -> dict[str, dict[str, Any]]:
    query = sql.SQL("SELECT id::text, to_jsonb(t) FROM {} AS t").format(sql.Identifier(table.schema, table.name))
    return dict(connection.execute(query).fetchall())


def _faults(record: type[Schema], row: Mapping[str, Any]) -> set[str]:
    schema = record()
    return set(schema.validate({name: row.get(name) for name in schema.fields}))


def _found(connection: Session, plan: Plan, name: str) -> dict[FindingClass, dict[str, set[str]]]:
    """Key → fields that findings of each class name; every sample is there, as rows are few."""
    found: dict[FindingClass, dict[str, set[str]]] = {kind: defaultdict(set) for kind in FindingClass}
    for finding in examine(connection, plan):
        assert finding.table == name
        assert finding.count == len(finding.samples) > 0
        for sample in finding.samples:
            found[finding.finding_class][sample["key"]].add(finding.field)
    return found


def _without_sets(table: Table) -> Table:
    return replace(table, foreign_keys=(), uniques=(), relations=())


RECORDS = [EveryKind, *(table.record for table in UNIFIED.tables)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_any_type_of_column(connection: Session, record: type[Schema]) -> None:
    names = [name for name in record().fields if name != "id"]
    table = Table("things", record, tuple(Column(name, "text") for name in names))
    plan = Plan("p", "P", "", (table,))

    @settings(max_examples=(20 if record is EveryKind else 4) * FACTOR, **_HYPOTHESIS)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        types = {"id": "text"} | {name: data.draw(_TYPES) for name in names}
        absent = data.draw(st.sets(st.sampled_from(names), max_size=1))
        types = {name: type_ for name, type_ in types.items() if name not in absent}
        row = st.fixed_dictionaries({n: st.one_of(st.none(), _BY_TYPE[types[n]]) for n in names if n not in absent})
        rows = [{"id": str(n)} | values for n, values in enumerate(data.draw(st.lists(row, min_size=1, max_size=25)))]
        with connection.transaction(force_rollback=True):
            _make(connection, table, types, rows)
            raw = _raw_rows(connection, table)
            expected = {key: faults for key, row in raw.items() if (faults := _faults(record, row))}
            assert _found(connection, plan, "things")[FindingClass.BLOCKING] == expected, types
            assert {row.key[0] for row in blocked_rows(connection, plan)} == set(expected)

    check()


def _declared_type(column: Column) -> str:
    return "public.vector" if column.type.startswith("vector") else column.type


@pytest.mark.parametrize("name", [table.name for table in UNIFIED.tables])
def test_unified_before_and_after_repair(connection: Session, name: str) -> None:
    tables = [_without_sets(table) for table in UNIFIED.tables]
    table = next(table for table in tables if table.name == name)
    whole = replace(UNIFIED, tables=tuple(tables))
    types = {column.name: _declared_type(column) for column in table.columns}
    parents = st.sampled_from(["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"])
    values = {
        n: parents if t == "uuid" else _BY_TYPE[{"timestamptz": "timestamptz"}.get(t, t)] for n, t in types.items()
    }

    for each in tables:
        _make(connection, each, {column.name: _declared_type(column) for column in each.columns}, [])

    @settings(max_examples=5 * FACTOR, **_HYPOTHESIS)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        columns = st.fixed_dictionaries({n: st.one_of(st.none(), v) for n, v in values.items() if n != "id"})
        rows = [
            {"id": f"00000000-0000-0000-0000-{n:012}"} | values
            for n, values in enumerate(data.draw(st.lists(columns, min_size=1, max_size=25)))
        ]
        with connection.transaction(force_rollback=True):
            _fill(connection, table, types, rows)
            before = _raw_rows(connection, table)
            after = _repaired_rows(connection, whole, table)
            blocking = {key: faults for key, row in after.items() if (faults := _faults(table.record, row))}
            cured = {}
            for key, row in before.items():
                wrong = _faults(table.record, row) | {n for n in row if row[n] != after[key][n]}
                if wrong - blocking.get(key, set()):
                    cured[key] = wrong - blocking.get(key, set())
            found = _found(connection, whole, name)
            assert found[FindingClass.BLOCKING] == blocking
            assert found[FindingClass.REPAIRABLE] == cured
            assert {row.key[0] for row in blocked_rows(connection, whole)} == set(blocking)

    check()


def _repaired_rows(connection: Session, plan: Plan, table: Table) -> dict[str, dict[str, Any]]:
    catalog = {t.name: found for t in plan.tables if (found := read_table(connection, t.schema, t.name))}
    repairs = compile_repairs(plan, table, catalog)
    pairs = sql.SQL(", ").join(sql.SQL("{}::text, {}").format(sql.Literal(n), v) for n, v in repairs.values.items())
    query = sql.SQL("SELECT t.id::text, to_jsonb(t) || jsonb_build_object({}) FROM {} AS t {}").format(
        pairs, catalog[table.name].identifier, repairs.joins
    )
    return dict(connection.execute(query).fetchall())


def test_a_schema_that_looks_at_whole_rows_is_left_to_marshmallow(connection: Session) -> None:
    table = Table("pairs", Whole, (Column("low", "integer"), Column("high", "integer")))
    connection.execute("CREATE TABLE public.pairs (id text PRIMARY KEY, low int, high int)")
    connection.execute("INSERT INTO public.pairs VALUES ('a', 1, 2), ('b', 2, 1), ('c', NULL, 1), ('d', 5, 5)")
    plan = Plan("p", "P", "", (table,))
    (finding,) = examine(connection, plan)
    assert (finding.rule, finding.count, [sample["key"] for sample in finding.samples]) == ("schema", 2, ["b", "c"])
    assert [row.key for row in blocked_rows(connection, plan)] == [("b",), ("c",)]


@settings(max_examples=100, **_HYPOTHESIS)
@given(pattern=st.sampled_from([
    r"^[a-z]+$", r"\d+", r"[^/]*", r"^(?:a|b){2,3}\Z", r"a.c", r"[\w.-]+@\w+", r"\(x\)\[y\]", r"[\]\\^-]+", r"(ab)?c*?", r"(?:|x)y", r"é+",
]), texts=st.lists(st.one_of(st.text(_STORABLE, max_size=5), st.text("abxyc/@.-]\\^()[]12é\n", max_size=6)), max_size=20))  # fmt: skip
def test_patterns_are_narrower_never_wider(embedded: Any, pattern: str, texts: list[str]) -> None:
    translated = narrower(re.compile(pattern))
    assert translated is not None
    with psycopg.connect(embedded.superuser_url()) as connection:
        rows = connection.execute(
            'SELECT t, t COLLATE "C" ~ %s FROM unnest(%s::text[]) AS t', (translated, texts)
        ).fetchall()
    for text, accepted in rows:
        assert not accepted or re.match(pattern, text), (pattern, text)
        if text.isascii() and not text.endswith("\n") and not re.search(r"[\x1c-\x1f]", text):
            assert accepted == bool(re.match(pattern, text)), (pattern, text)


@pytest.mark.parametrize(
    "pattern", [r"(?i)a", r"(a)\1", r"(?<!a)b", r"a{300}", r"(?:^a)*", r"[^\d]", "\\x00", r"(?s:.)"]
)
def test_patterns_that_python_must_judge(pattern: str) -> None:
    assert narrower(re.compile(pattern)) is None
