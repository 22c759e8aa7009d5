# ruff: noqa: DTZ001 - naive moments are among what is tried
"""Every validator of marshmallow behind the fields that it suits: SQL's verdict is marshmallow's, rule by rule."""

import datetime as dt
import re
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from marshmallow import ValidationError, fields, validate

from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine.target import Target
from tests.engine.compiled import Session, compiled, disputes, look
from tests.engine.test_compiler_fields import COLUMNS, JSON

Make = Callable[[], fields.Field[Any]]
UTC = dt.UTC
FLOAT: Any = 2.5
SOME = uuid.UUID("6f2c1d0e-0000-4000-8000-000000000000")


def _even(value: Any) -> None:
    if value % 2:
        raise ValidationError("Odd.")


def _rules(make: Callable[..., fields.Field[Any]], **rules: Any) -> dict[str, Make]:
    return {name.replace("_", "-"): partial(make, validate=rule) for name, rule in rules.items()}


RULES: dict[str, Make] = {
    **_rules(
        fields.String, text_length=validate.Length(min=1, max=3), text_equal=validate.Equal("abc"), text_none=validate.NoneOf(["abc", "a", 5]), text_one=validate.OneOf({"a", "RED", "\0", "\ud800"}),
        text_nothing=validate.OneOf(()), text_substring=validate.OneOf("abc"), text_range=validate.Range(min="b"), text_and=validate.And(validate.Length(max=4), validate.And(validate.Regexp("[a-z]+"), validate.NoneOf(["abc"]))),
        text_flags=validate.Regexp("RED", re.IGNORECASE), text_shape=validate.Regexp(r"^\d+(-\w+)?$"), text_ahead=validate.Regexp(r"(?!x)."), text_bytes=validate.Regexp(b"a"), text_digits=validate.Predicate("isdigit"),
        text_letters=validate.ContainsOnly(["a", "b", "c"]), text_no_letters=validate.ContainsNoneOf(["a"]), text_mail=validate.Email(), text_url=validate.URL(), text_own=_even, text_length_float=validate.Length(max=FLOAT), text_dict=validate.OneOf({"a": 1}),
        text_free=validate.Length(), text_equal_int=validate.Equal(1),
    ),
    **_rules(
        lambda **given: fields.Integer(strict=True, **given), int_range=validate.Range(min=0, max=5), int_above=validate.Range(min=0, min_inclusive=False), int_below=validate.Range(max=2, max_inclusive=False), int_half=validate.Range(min=0.5, max=Decimal("7.25")),
        int_nan=validate.Range(min=float("nan")), int_inf=validate.Range(max=float("inf")), int_day=validate.Range(min=dt.date(2024, 1, 1)), int_one=validate.OneOf([1, 2.0, True, "5", None, Decimal("1E+2")]), int_none=validate.NoneOf((1, 0.5)), int_equal=validate.Equal(0.5),
        int_length=validate.Length(min=1), int_own=_even, int_list=validate.OneOf([[1]]), int_generator=validate.OneOf(range(3)), int_huge=validate.Range(max=10**40),
    ),
    **_rules(fields.Integer, loose_range=validate.Range(min=1, max=9), loose_one=validate.OneOf([1, 2]), loose_none=validate.NoneOf([1, 7])),
    **_rules(
        fields.Float, float_range=validate.Range(min=0, max=5), float_above=validate.Range(min=0.1, min_inclusive=False), float_tenth=validate.Range(max=Decimal("0.1")), float_one=validate.OneOf([0.1, 1, 2**53 + 1, 2**53 + 4, "1"]), float_none=validate.NoneOf([0.1, 0.5]),
        float_big=validate.Range(max=2**63), float_equal=validate.Equal(Decimal("0.5")),
    ),
    **_rules(lambda **given: fields.Float(allow_nan=True, **given), nan_range=validate.Range(min=0), nan_none=validate.NoneOf([1.0])),
    **_rules(
        fields.Decimal, decimal_range=validate.Range(min=0, max=Decimal("1.5")), decimal_above=validate.Range(min=Decimal("0.125"), min_inclusive=False), decimal_float=validate.Range(max=0.1), decimal_one=validate.OneOf([Decimal("0.1"), 1, 0.125]), decimal_none=validate.NoneOf([Decimal("1.50")]),
        decimal_edge=validate.Range(min=Decimal("123456789.125"), min_inclusive=False), decimal_long=validate.Range(min=Decimal("0.12345678901234567"), max=10**30),
    ),
    **_rules(lambda **given: fields.Decimal(places=1, **given), places_range=validate.Range(max=Decimal("0.1")), places_equal=validate.Equal(Decimal("1.5"))),
    **_rules(lambda **given: fields.Decimal(places=-1, **given), tens_range=validate.Range(min=5)),
    **_rules(
        fields.Date, day_range=validate.Range(min=dt.date(2024, 2, 28), max=dt.date(9999, 1, 1)), day_below=validate.Range(max=dt.date(2024, 2, 29), max_inclusive=False), day_one=validate.OneOf([dt.date(2024, 2, 29), dt.datetime(2024, 2, 28), "2024-02-28"]),
        day_moment=validate.Range(min=dt.datetime(2024, 1, 1)), day_none=validate.NoneOf([dt.date(2024, 2, 28)]),
    ),
    **_rules(
        fields.DateTime, moment_naive=validate.Range(min=dt.datetime(2024, 1, 1)), moment_aware=validate.Range(max=dt.datetime(2024, 2, 29, 12, 30, tzinfo=UTC), max_inclusive=False), moment_one=validate.OneOf([dt.datetime(2024, 2, 29, 12, 30), dt.datetime(2024, 2, 29, 12, 30, tzinfo=UTC)]),
        moment_none=validate.NoneOf([dt.datetime(2024, 2, 28, 12, 30)]),
    ),
    **_rules(
        fields.AwareDateTime, aware_range=validate.Range(min=dt.datetime(2024, 2, 28, 13, tzinfo=dt.timezone(dt.timedelta(hours=3)))), aware_edge=validate.Range(min=dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=14)))), aware_naive=validate.Range(min=dt.datetime(2024, 1, 1)),
        aware_one=validate.Equal(dt.datetime(2024, 2, 28, 12, 30, tzinfo=UTC)),
    ),
    **_rules(fields.NaiveDateTime, naive_range=validate.Range(min=dt.datetime(2024, 2, 28, 12, 30), min_inclusive=False), naive_aware=validate.Range(min=dt.datetime(2024, 1, 1, tzinfo=UTC))),
    **_rules(lambda **given: fields.AwareDateTime(default_timezone=UTC, **given), default_zone=validate.Range(min=dt.datetime(2024, 1, 1, tzinfo=UTC))),
    **_rules(lambda **given: fields.DateTime(format="timestamp", **given), stamp_range=validate.Range(min=dt.datetime(1990, 1, 1))),
    **_rules(fields.Time, time_range=validate.Range(min=dt.time(12, 30), min_inclusive=False), time_aware=validate.Range(min=dt.time(12, tzinfo=UTC)), time_one=validate.OneOf([dt.time(12, 30)])),
    **_rules(fields.TimeDelta, duration_range=validate.Range(max=dt.timedelta(seconds=5))),
    **_rules(fields.UUID, uuid_one=validate.OneOf([SOME, str(SOME)]), uuid_none=validate.NoneOf([SOME]), uuid_range=validate.Range(min=SOME)),
    **_rules(fields.Boolean, bool_true=validate.Equal(True), bool_one=validate.OneOf([0, "t"]), bool_none=validate.NoneOf([True])),
    **_rules(fields.Raw, raw_one=validate.OneOf(["a", 1]), raw_none=validate.NoneOf(["a"]), raw_length=validate.Length(max=1), raw_range=validate.Range(min=0), raw_equal=validate.Equal(1.5), raw_nothing=validate.OneOf(())),
    **_rules(
        lambda **given: fields.List(fields.String(), **given), words_length=validate.Length(min=1, max=1), words_only=validate.ContainsOnly(["a", "b", "ü", 1]), words_never=validate.ContainsNoneOf(["a", "x"]), words_free=validate.ContainsNoneOf([]), words_none=validate.ContainsOnly([]),
        words_equal=validate.Equal(["a"]), words_many=validate.ContainsOnly([str(n) for n in range(120)]),
    ),
    **_rules(lambda **given: fields.List(fields.String(allow_none=True), **given), nulls_only=validate.ContainsOnly(["a"]), nulls_known=validate.ContainsOnly(["a", None]), nulls_never=validate.ContainsNoneOf(["a", None])),
    **_rules(lambda **given: fields.List(fields.Integer(strict=True), **given), ints_only=validate.ContainsOnly([1, 2.0, True]), ints_never=validate.ContainsNoneOf([1])),
    **_rules(lambda **given: fields.List(fields.Integer(), **given), loose_only=validate.ContainsOnly([1])),
    **_rules(lambda **given: fields.List(fields.Raw(allow_none=True), **given), raws_only=validate.ContainsOnly([1, "a"]), raws_never=validate.ContainsNoneOf([1])),
    **_rules(fields.Dict, keys_count=validate.Length(equal=1), keys_one=validate.OneOf([1])),
    **_rules(lambda **given: fields.Dict(keys=fields.Integer(), **given), keys_merged=validate.Length(max=1)),
    **_rules(lambda **given: fields.Tuple((fields.Raw(), fields.Raw()), **given), tuple_length=validate.Length(max=1)),
    "email-length": lambda: fields.Email(validate=validate.Length(max=6)),
    "none-allowed": lambda: fields.Integer(strict=True, allow_none=True, validate=validate.Range(min=1)),
    "list-of-rules": lambda: fields.List(fields.String(validate=[validate.OneOf(["a", "b"]), validate.Length(max=1)])),
    "list-of-days": lambda: fields.List(fields.Date(validate=validate.Range(min=dt.date(2024, 1, 1)))),
    "list-own": lambda: fields.List(fields.Integer(strict=True, validate=_even)),
}  # fmt: skip


@pytest.fixture(scope="module")
def connection(embedded: EmbeddedServers) -> Iterator[Session]:
    """One for all: nothing is made."""
    with Target(embedded.superuser_url()).session(bulk=True) as session:
        yield session


@pytest.mark.parametrize("column", ["text", "bpchar", "int2", "int4", "int8", "numeric", "numeric(6,2)", "float4", "float8", "bool", "uuid", "date", "time", "timetz", "timestamp", "timestamptz", "inet", "text[]", "int4[]", "bytea"])  # fmt: skip
def test_every_rule_over_every_column(connection: Session, column: str) -> None:
    assert disputes(connection, {name: make() for name, make in RULES.items()}, column, COLUMNS[column]) == []


def test_every_rule_over_json(connection: Session) -> None:
    values = [
        *JSON,
        '["2024-02-28"]',
        '["2023-02-28", "2024-02-28"]',
        '["b"]',
        '["a", "c"]',
        "[2, 4]",
        '{"1": 0, "01": 0}',
        '{"1": 0, "2": 0}',
    ]
    assert disputes(connection, {name: make() for name, make in RULES.items()}, "jsonb", values) == []


@pytest.mark.parametrize(
    ("make", "column", "failing"),
    [
        (lambda: fields.String(validate=[validate.Length(max=2), validate.OneOf(["a", "abc"])]), "text", {"abc": ("length",), "xyz": ("length", "one_of"), "": ("one_of",), "a": ()}),
        (lambda: fields.Integer(strict=True, validate=[validate.Range(min=2), validate.NoneOf([3])]), "int4", {"1": ("range",), "3": ("none_of",), "4": ()}),
        (lambda: fields.List(fields.String(), validate=[validate.Length(max=1), validate.ContainsOnly(["a"])]), "jsonb", {'["b"]': ("contains_only",), '["a", "b"]': ("length", "contains_only"), "[]": (), "5": ("type",), "null": ("null",)}),
        (lambda: fields.Date(validate=validate.Range(min=dt.date(2024, 1, 1))), "date", {"2023-12-31": ("range",), "infinity": ("type",), "2024-01-01": ()}),
        (lambda: fields.UUID(validate=validate.Equal(SOME)), "uuid", {str(SOME): (), "00000000-0000-0000-0000-000000000000": ("one_of",)}),
        (lambda: fields.Raw(validate=validate.OneOf([2])), "text", {"2": ("one_of",)}),
    ],
)  # fmt: skip
def test_each_rule_has_its_own_finding(
    connection: Session, make: Make, column: str, failing: dict[str, tuple[str, ...]]
) -> None:
    seen = look(connection, make(), column, [*failing, None])
    assert [each.failing for each in seen] == [*failing.values(), ("null",)]


@pytest.mark.parametrize(
    ("make", "column", "values"),
    [
        (fields.Date, "text", ["2024-02-28", "0001-12-31", "9999-01-30"]),
        (fields.DateTime, "text", ["2024-02-28T12:30:00Z", "2024-02-28 12:30:00.5+05:30", "2024-02-28"]),
        (fields.AwareDateTime, "text", ["2024-02-28T12:30:00Z"]),
        (fields.NaiveDateTime, "jsonb", ['"2024-02-28T12:30:00"']),
        (lambda: fields.DateTime(format="rfc"), "text", ["Mon, 28 Feb 2024 12:30:00 +0100"]),
        (lambda: fields.DateTime(format="timestamp"), "jsonb", ["1709209800", "1709209800.5", '"1709209800"']),
        (lambda: fields.Date(format="%d.%m.%Y"), "text", ["28.02.2024"]),
        (fields.Time, "text", ["12:30", "12:30:00.5"]),
        (fields.TimeDelta, "text", ["5", "1.5"]),
        (fields.Integer, "text", ["7", "-12", "+3"]),
        (fields.Float, "text", ["1", "-1.5", "1e10"]),
        (fields.Decimal, "text", ["1", "-1.50"]),
        (lambda: fields.Decimal(places=2, validate=validate.Range(min=0)), "text", ["1", "1.50"]),
        (lambda: fields.Decimal(places=2, validate=validate.Range(min=0)), "numeric", ["1", "1.50"]),
        (fields.UUID, "text", [str(SOME), SOME.hex]),
        (fields.IP, "text", ["127.0.0.1", "::1", "fe80::1:2"]),
        (fields.IPv4Interface, "text", ["10.0.0.0/8", "1.2.3.4"]),
        (fields.Email, "text", ["a.b@example.com"]),
        (fields.Url, "text", ["https://example.com/a?b#c", "http://localhost"]),
        (lambda: fields.List(fields.UUID()), "jsonb", [f'["{SOME}"]']),
        (lambda: fields.Integer(validate=validate.Range(min=1)), "text", ["1", "12"]),
        (lambda: fields.Date(validate=validate.Range(min=dt.date(2024, 1, 1))), "text", ["2024-02-28"]),
    ],
)  # fmt: skip
def test_usual_forms_are_not_asked_of_python(connection: Session, make: Make, column: str, values: list[str]) -> None:
    assert any(condition.judge for condition in compiled(connection, make(), column))
    assert [(seen.passes, seen.asked) for seen in look(connection, make(), column, values)] == [(True, False)] * len(
        values
    )
