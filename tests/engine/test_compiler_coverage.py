"""What the compiler says of itself: each field and validator that marshmallow ships is decided, or said to be Python's."""

import datetime as dt
import enum
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from marshmallow import Schema, ValidationError, fields, validate, validates, validates_schema

from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine.compiler import RuleCoverage, coverage
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import blocked_rows, examine
from briefly_admin.plans.base import Column, Plan, Repair, Table
from briefly_admin.plans.unified import UNIFIED
from tests.engine.compiled import Session, compiled, look
from tests.engine.test_compiler_fields import FIELDS
from tests.engine.test_compiler_rules import RULES

EXACT, SOUND, PYTHON = "exact", "sound", "python"
SHIPPED_FIELDS = {
    "AwareDateTime": SOUND, "Bool": EXACT, "Boolean": EXACT, "Constant": EXACT, "Date": SOUND, "DateTime": SOUND, "Decimal": SOUND, "Dict": EXACT, "Email": SOUND, "Enum": EXACT, "Field": EXACT, "Float": SOUND,
    "Function": PYTHON, "IP": SOUND, "IPInterface": SOUND, "IPv4": SOUND, "IPv4Interface": SOUND, "IPv6": SOUND, "IPv6Interface": SOUND, "Int": SOUND, "Integer": SOUND, "List": EXACT, "Mapping": None, "Method": PYTHON, "NaiveDateTime": SOUND,
    "Nested": EXACT, "Number": None, "Pluck": EXACT, "Raw": EXACT, "Str": EXACT, "String": EXACT, "Time": SOUND, "TimeDelta": SOUND, "Tuple": EXACT, "URL": SOUND, "UUID": SOUND, "Url": SOUND,
}  # fmt: skip
"""Of each field over a text (of those with JSON within, over a jsonb); None: abstract, nobody can make one."""
WITHIN = {"Dict", "List", "Nested", "Pluck", "Tuple"}


class Inner(Schema):
    a = fields.String(required=True)


class Way(enum.Enum):
    IN = 1


def _shout(_schema: Schema, value: Any) -> Any:
    return value


MADE: Mapping[str, Any] = {
    "Constant": lambda: fields.Constant(1), "Enum": lambda: fields.Enum(Way), "Function": lambda: fields.Function(deserialize=int), "List": lambda: fields.List(fields.String()), "Method": lambda: fields.Method(deserialize="shout"),
    "Nested": lambda: fields.Nested(Inner), "Pluck": lambda: fields.Pluck(Inner, "a"), "Tuple": lambda: fields.Tuple((fields.String(),)),
}  # fmt: skip
SHIPPED_VALIDATORS = {
    "And": ("text-and",), "ContainsNoneOf": ("words-never", "ints-never"), "ContainsOnly": ("words-only", "ints-only"), "Email": ("text-mail",), "Equal": ("text-equal", "decimal-none", "uuid-one", "bool-true"), "Length": ("text-length", "words-length", "keys-count"),
    "NoneOf": ("text-none", "day-none"), "OneOf": ("text-one", "int-one", "float-one", "raw-one"), "Predicate": ("text-digits",), "Range": ("int-range", "float-range", "decimal-range", "day-range", "moment-naive", "aware-range", "time-range"), "Regexp": ("text-shape", "text-flags"), "URL": ("text-url",),
}  # fmt: skip
"""Where test_compiler_rules tries it."""


@pytest.fixture
def connection(target_database: str) -> Iterator[Session]:
    with Target(target_database).session(bulk=True) as session:
        yield session


def _record(**attributes: Any) -> type[Schema]:
    return type("Record", (Schema,), attributes)


def test_no_field_of_marshmallow_is_forgotten() -> None:
    assert set(fields.__all__) == set(SHIPPED_FIELDS)
    tried = {type(make()) for make in FIELDS.values()}
    made = {name for name, how in SHIPPED_FIELDS.items() if how is not None}
    assert {getattr(fields, name) for name in made} <= tried
    assert all(inspect.isabstract(getattr(fields, name)) for name in set(SHIPPED_FIELDS) - made)


def test_no_validator_of_marshmallow_is_forgotten() -> None:
    shipped = {
        name for name, each in vars(validate).items() if inspect.isclass(each) and issubclass(each, validate.Validator)
    }
    assert shipped - {"Validator", "ABC"} == set(SHIPPED_VALIDATORS)
    assert {name for names in SHIPPED_VALIDATORS.values() for name in names} <= set(RULES)


@pytest.mark.parametrize(("name", "how"), [(name, how) for name, how in SHIPPED_FIELDS.items() if how])
def test_each_field_is_decided_as_promised(name: str, how: str) -> None:
    field = MADE.get(name, getattr(fields, name))()
    found = coverage(_record(f=field, shout=_shout), {"f": "jsonb" if name in WITHIN else "text"})
    assert _least(found) == how
    assert all(bool(rule.why) == (rule.how == PYTHON) for rule in found)


def _least(found: tuple[RuleCoverage, ...]) -> str:
    return max((rule.how for rule in found), key=(EXACT, SOUND, PYTHON).index)


@pytest.mark.parametrize(
    ("field", "column", "how"),
    [
        (fields.Date, "date", EXACT), (fields.DateTime, "timestamptz", EXACT), (fields.AwareDateTime, "timestamptz", EXACT), (fields.NaiveDateTime, "timestamp", EXACT), (fields.DateTime, "date", EXACT), (fields.Time, "time", SOUND), (fields.Decimal, "numeric", EXACT),
        (fields.Decimal, "int8", EXACT), (fields.Float, "numeric", EXACT), (fields.Float, "float8", EXACT), (fields.Float, "float4", EXACT), (fields.Integer, "int4", EXACT), (fields.Integer, "numeric", EXACT), (fields.Boolean, "bool", EXACT), (fields.Boolean, "int2", EXACT),
        (fields.UUID, "uuid", EXACT), (fields.IP, "inet", EXACT), (fields.IPv6Interface, "cidr", EXACT), (fields.String, "bpchar", EXACT), (fields.Dict, "jsonb", EXACT), (lambda: fields.List(fields.String()), "_text", EXACT), (lambda: fields.Enum(Way, by_value=True), "int4", EXACT),
        (lambda: fields.Date(validate=validate.Range(min=dt.date(2024, 1, 1))), "date", EXACT), (lambda: fields.Integer(validate=validate.Range(min=1)), "int8", EXACT),
    ],
)  # fmt: skip
def test_typed_columns_need_no_python(field: Any, column: str, how: str) -> None:
    assert _least(coverage(_record(f=field()), {"f": column})) == how


def test_words_say_what_only_python_knows() -> None:
    def odd(value: Any) -> None:
        raise ValidationError(str(value))

    record = _record(
        own=fields.String(validate=[validate.Length(max=3), odd]),
        digits=fields.String(validate=validate.Predicate("isdigit")),
        ahead=fields.String(validate=validate.Regexp("(?=x)")),
        made=fields.String(pre_load=str.strip),
        form=fields.Date(format="%A"),
    )
    found = {
        (rule.field, rule.rule): (rule.how, rule.why)
        for rule in coverage(record, dict.fromkeys(record().fields, "text"))
    }
    assert {name: told for name, told in found.items() if name[1] != "null"} == {
        ("own", "length"): (EXACT, ""),
        ("own", "odd"): (PYTHON, "a validator of the plan's own code decides"),
        ("digits", "predicate"): (PYTHON, "only Python can ask this of a value"),
        ("ahead", "pattern"): (PYTHON, "the regular expression is Python's own"),
        ("made", "type"): (PYTHON, "functions of the plan change the value before it is judged or afterwards"),
        ("form", "type"): (PYTHON, "only Python reads the format '%A' here"),
    }


def test_a_schema_that_looks_at_rows_as_a_whole_says_so() -> None:
    class Ordered(Schema):
        low = fields.Integer()

        @validates("low")
        def check(self, value: Any, **_: Any) -> None:
            del value

    (rule,) = coverage(Ordered, {"low": "int4"})
    assert (rule.field, rule.how, rule.why) == ("row", PYTHON, "the schema looks at rows as a whole")


def test_a_missing_column_is_required_unless_it_has_a_default() -> None:
    record = _record(
        there=fields.String(), lacking=fields.String(), ready=fields.String(load_default="x"), fixed=fields.Constant(1)
    )
    found = coverage(record, {"there": "text"})
    assert [(rule.field, rule.rule) for rule in found] == [("there", "null"), ("lacking", "required")]


def test_shipped_records_are_exact_but_for_addresses() -> None:
    for table in UNIFIED.tables:
        types = {column.name: _TYPES.get(column.type, column.type) for column in table.columns}
        types |= {"embedding": "vector"}
        inexact = {(rule.field, rule.rule) for rule in coverage(table.record, types) if rule.how != EXACT}
        assert inexact == ({("email", "email")} if table.name == "users" else set())


_TYPES = {"integer": "int4", "bigint": "int8", "text[]": "_text"}


# Columns of the wrong type: a finding, and no error of the database.


@pytest.mark.parametrize(
    ("field", "column", "value"),
    [
        (lambda: fields.Integer(strict=True), "jsonb", '{"a": 1}'), (fields.Integer, "bytea", "\\x01"), (fields.Date, "timestamptz", "2024-01-01"), (fields.NaiveDateTime, "timestamptz", "2024-01-01"), (fields.AwareDateTime, "timestamp", "2024-01-01"), (fields.Float, "interval", "1 day"),
        (fields.String, "int4", "1"), (fields.Dict, "text", "{}"), (lambda: fields.List(fields.String()), "text", "[]"), (fields.Decimal, "uuid", "6f2c1d0e-0000-4000-8000-000000000000"), (fields.UUID, "int8", "1"), (fields.IP, "cidr", "10.0.0.0/8"),
        (lambda: fields.Nested(Inner), "int4", "1"), (lambda: fields.Date(validate=validate.Range(min=dt.date(2024, 1, 1))), "float8", "1"), (fields.TimeDelta, "inet", "::1"), (fields.Time, "bool", "true"),
    ],
)  # fmt: skip
def test_a_column_of_the_wrong_type_is_a_finding(connection: Session, field: Any, column: str, value: str) -> None:
    found = compiled(connection, field(), column)
    assert not any(condition.judge for condition in found), "a whole column would go through Python"
    assert [(seen.passes, seen.failing) for seen in look(connection, field(), column, [value, None])] == [
        (False, ("type",)),
        (False, ("null",)),
    ]


# Whole validations.


def _examine(
    connection: Session, record: type[Schema], types: Mapping[str, str], values: str, repairs: tuple[Repair, ...] = ()
) -> dict[tuple[str, str, str], int]:
    listed = ", ".join(f'"{name}" {type_}' for name, type_ in types.items())
    connection.execute(
        f"CREATE TABLE public.things (id text PRIMARY KEY, {listed}); INSERT INTO public.things VALUES {values}".encode()
    )
    columns = tuple(Column(name, type_) for name, type_ in types.items())
    plan = Plan("p", "P", "", (Table("things", record, columns, repairs=repairs),))
    found = examine(connection, plan)
    blocking = {sample["key"] for f in found if f.finding_class is FindingClass.BLOCKING for sample in f.samples}
    assert {row.key[0] for row in blocked_rows(connection, plan)} == blocking
    return {(f.field, f.rule, f.finding_class.value): f.count for f in found}


def test_a_validator_of_ones_own_works(connection: Session) -> None:
    def even(value: int) -> None:
        if value % 2:
            raise ValidationError("Odd.")

    record = _record(n=fields.Integer(strict=True, validate=[validate.Range(min=0), even]))
    found = _examine(connection, record, {"n": "int"}, "('a', 1), ('b', 2), ('c', -1), ('d', NULL)")
    assert found == {("n", "range", "blocking"): 1, ("n", "even", "blocking"): 2, ("n", "null", "blocking"): 1}


def test_a_validator_that_breaks_refuses(connection: Session) -> None:
    def first(value: str) -> None:
        value[0]

    record = _record(t=fields.String(validate=first), day=fields.Raw(validate=validate.Range(min=3)))
    found = _examine(connection, record, {"t": "text", "day": "text"}, "('a', '', '1'), ('b', 'x', '5')")
    assert found == {("t", "first", "blocking"): 1, ("day", "range", "blocking"): 2}


def test_a_schema_of_many_columns_that_looks_at_rows_as_a_whole_works(connection: Session) -> None:
    class Wide(Schema):
        class Meta:
            fields = tuple(f"c{n}" for n in range(60))

        @validates_schema
        def no_two(self, data: Mapping[str, Any], **_: Any) -> None:
            if data["c59"] == "2":
                raise ValidationError("Two.")
            if data["c58"] == "3":
                raise RuntimeError

    record = type("Record", (Wide,), {f"c{n}": fields.String() for n in range(60)})
    values = ", ".join(f"('{n}', {', '.join([repr(str(n))] * 60)})" for n in range(5))
    found = _examine(connection, record, {f"c{n}": "text" for n in range(60)}, values)
    assert found == {("row", "schema", "blocking"): 2}


@pytest.mark.parametrize("whole", [False, True])
def test_a_default_stands_for_a_missing_column(connection: Session, whole: bool) -> None:
    @validates_schema
    def seven(_schema: Schema, data: Mapping[str, Any], **_: Any) -> None:
        assert data["ready"] == 7

    hook = {"hook": seven} if whole else {}
    record = _record(t=fields.String(), ready=fields.Integer(load_default=7), **hook)
    assert _examine(connection, record, {"t": "text"}, "('a', 'x')") == {}
    connection.execute("ALTER TABLE public.things ADD ready int")
    plan = Plan("p", "P", "", (Table("things", record, (Column("t", "text"), Column("ready", "int"))),))
    assert [(f.rule, f.count) for f in examine(connection, plan)] == [("schema" if whole else "null", 1)]


def test_a_json_that_jsonb_cannot_hold_is_a_finding(connection: Session) -> None:
    values = [
        r'{"a": "\u0000"}', r'{"a": "\ud800"}', r'{"a": "\ud83d\ude00"}', r'{"a": "\\u0000"}', r'{"a": "\\ud800"}', r'{"a": "\\\u0000"}', r'{"a": "\udc00\ud800"}',
        '{"a": "1e99999"}', '{"a": 1e99999999}', '{"a": 1e-10}', '{"a": "' + "x" * 200_000 + '"}', '{"a": ' + "9" * 200_000 + "}",
    ]  # fmt: skip
    rows = ", ".join(f"('{key}', '{value}')" for key, value in zip("abcdefghijkl", values, strict=True))
    record = _record(j=fields.Dict())
    assert _examine(connection, record, {"j": "json"}, rows) == {("j", "type", "blocking"): 6}
    plan = Plan("p", "P", "", (Table("things", record, (Column("j", "json"),)),))
    assert {row.key[0] for row in blocked_rows(connection, plan)} == set("abfgil")


@pytest.mark.parametrize("whole", [False, True])
def test_a_json_deeper_than_python_reads_is_a_finding(connection: Session, whole: bool) -> None:
    @validates_schema
    def nothing(_schema: Schema, _data: Any, **_: Any) -> None:
        """Every row is judged as a whole."""

    hook = {"hook": nothing} if whole else {}
    record = _record(j=fields.Dict(values=fields.Date()), **hook)
    deep = f"""('a', '{{"a": {"[" * 3000}{"]" * 3000}}}'), ('b', '{{"a": "2024-02-29"}}')"""
    assert list(_examine(connection, record, {"j": "jsonb"}, deep).values()) == [1]


def test_operators_of_a_repair_bind_within_it(connection: Session) -> None:
    repair = Repair("b", "NOT {b}", "turned")
    record = _record(b=fields.Boolean())
    found = _examine(connection, record, {"b": "boolean"}, "('a', true), ('b', NULL), ('c', false)", (repair,))
    assert found == {("b", "null", "blocking"): 1, ("b", "repair", "repairable"): 2}
