"""Every field of marshmallow over columns of its own type, of a text and of JSON: SQL's verdict is marshmallow's."""

import datetime as dt
import decimal
import enum
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from marshmallow import EXCLUDE, INCLUDE, Schema, fields, validate

from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine.target import Target
from tests.engine.compiled import Session, disputes

Make = Callable[[], fields.Field[Any]]


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"
    SAME = 1  # noqa: PIE796 - an alias is a name, too


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


class Way(enum.Enum):
    IN = "in"

    @classmethod
    def _missing_(cls, value: object) -> "Way | None":
        return cls.IN if value == "into" else None


class Inner(Schema):
    a = fields.Integer(required=True)
    b = fields.String(allow_none=True, validate=validate.Length(max=3))
    c = fields.Date(data_key="the day")


class Selfish(Schema):
    name = fields.String(required=True)
    child = fields.Nested(lambda: Selfish(), allow_none=True)  # noqa: PLW0108 - the class is not there yet


UTC = dt.UTC
FIELDS: dict[str, Make] = {
    "aware": fields.AwareDateTime,
    "aware-default": lambda: fields.AwareDateTime(default_timezone=UTC),
    "naive": fields.NaiveDateTime,
    "naive-zone": lambda: fields.NaiveDateTime(timezone=dt.timezone(dt.timedelta(hours=14))),
    "moment": fields.DateTime,
    "rfc": lambda: fields.DateTime(format="rfc"),
    "rfc-naive": lambda: fields.NaiveDateTime(format="rfc"),
    "stamp": lambda: fields.DateTime(format="timestamp"),
    "stamp-ms": lambda: fields.DateTime(format="timestamp_ms"),
    "stamp-aware": lambda: fields.AwareDateTime(format="timestamp"),
    "stamp-utc": lambda: fields.AwareDateTime(format="timestamp", default_timezone=UTC),
    "strptime": lambda: fields.DateTime(format="%d.%m.%Y %H:%M:%S"),
    "strptime-odd": lambda: fields.DateTime(format="%A, %d %B %y"),
    "date": fields.Date,
    "date-format": lambda: fields.Date(format="%Y%m%d"),
    "time": fields.Time,
    "time-format": lambda: fields.Time(format="%H.%M"),
    "duration": fields.TimeDelta,
    "duration-weeks": lambda: fields.TimeDelta(precision="weeks"),
    "duration-us": lambda: fields.TimeDelta(precision="microseconds"),
    "boolean": fields.Boolean,
    "boolean-own": lambda: fields.Boolean(truthy={"ja", 2, 1.5}, falsy={"nein", 0}),
    "boolean-any": lambda: fields.Boolean(truthy=set()),
    "constant": lambda: fields.Constant(5),
    "constant-bad": lambda: fields.Constant(5, validate=validate.Range(max=3)),
    "decimal": fields.Decimal,
    "decimal-places": lambda: fields.Decimal(places=2, rounding=decimal.ROUND_UP),
    "decimal-tens": lambda: fields.Decimal(places=-1),
    "decimal-many": lambda: fields.Decimal(places=27),
    "decimal-nan": lambda: fields.Decimal(allow_nan=True, as_string=True),
    "float": fields.Float,
    "float-nan": lambda: fields.Float(allow_nan=True),
    "integer": fields.Integer,
    "strict": lambda: fields.Integer(strict=True),
    "dict": fields.Dict,
    "dict-values": lambda: fields.Dict(values=fields.Integer(strict=True, allow_none=True)),
    "dict-keys": lambda: fields.Dict(keys=fields.String(validate=validate.Length(max=1)), values=fields.Raw(allow_none=True)),
    "dict-days": lambda: fields.Dict(keys=fields.Date(), values=fields.List(fields.String())),
    "list": lambda: fields.List(fields.String()),
    "list-null": lambda: fields.List(fields.String(allow_none=True)),
    "list-rules": lambda: fields.List(fields.Integer(validate=validate.Range(min=0)), validate=validate.Length(min=1)),
    "list-raw": lambda: fields.List(fields.Raw(allow_none=True)),
    "list-lists": lambda: fields.List(fields.List(fields.Boolean())),
    "list-nested": lambda: fields.List(fields.Nested(Inner)),
    "list-own": lambda: fields.List(fields.Function(deserialize=int)),
    "tuple": lambda: fields.Tuple((fields.String(), fields.Integer(strict=True), fields.Raw(allow_none=True))),
    "nested": lambda: fields.Nested(Inner),
    "nested-open": lambda: fields.Nested(Inner, unknown=EXCLUDE),
    "nested-include": lambda: fields.Nested(Inner, unknown=INCLUDE, allow_none=True),
    "nested-only": lambda: fields.Nested(Inner, only=("b",)),
    "nested-exclude": lambda: fields.Nested(Inner, exclude=("a",)),
    "nested-many": lambda: fields.Nested(Inner, many=True),
    "nested-partial": lambda: fields.Nested(Inner(partial=True)),
    "nested-some": lambda: fields.Nested(Inner(partial=("a",))),
    "nested-self": lambda: fields.Nested(Selfish),
    "pluck": lambda: fields.Pluck(Inner, "b"),
    "pluck-many": lambda: fields.Pluck(Inner, "a", many=True),
    "enum": lambda: fields.Enum(Colour),
    "enum-value": lambda: fields.Enum(Colour, by_value=True),
    "enum-int": lambda: fields.Enum(Size, by_value=fields.Integer),
    "enum-strict": lambda: fields.Enum(Size, by_value=fields.Integer(strict=True)),
    "enum-missing": lambda: fields.Enum(Way, by_value=True),
    "email": fields.Email,
    "url": fields.Url,
    "url-relative": lambda: fields.URL(relative=True, schemes={"https"}),
    "url-path": lambda: fields.URL(relative=True, absolute=False),
    "url-host": lambda: fields.URL(require_tld=False, schemes=["file", "http"]),
    "uuid": fields.UUID,
    "ip": fields.IP,
    "ipv4": fields.IPv4,
    "ipv6": fields.IPv6,
    "interface": fields.IPInterface,
    "interface4": fields.IPv4Interface,
    "interface6": fields.IPv6Interface,
    "string": fields.String,
    "raw": fields.Raw,
    "field": fields.Field,
    "null": lambda: fields.String(allow_none=True),
    "default": lambda: fields.Integer(load_default=None),
    "function": lambda: fields.Function(deserialize=int),
    "function-plain": fields.Function,
    "method": fields.Method,
    "pre": lambda: fields.String(pre_load=lambda value: value or "x", allow_none=True),
    "post": lambda: fields.String(post_load=str.upper, validate=validate.Length(max=2)),
}  # fmt: skip
TEXTS = [
    None, "", " ", "a", "abc", "RED", "SAME", "GREEN", "green", "in", "into", "1", "2", "0", "-1", "+5", "-0", " 7", "7 ", "1_000", "٣", "007", "1.5", "1.0", ".5", "5.", "1e5", "1e400", "-1e-400", "nan", "NaN", "-inf", "Infinity",
    "9" * 30, "9" * 101, "0." + "1" * 30, "99999999.999999999", "123456789", "true", "TRUE", "t", "yes", "Yes", "yEs", "ja", "nein", "off", "2024-02-29", "2023-02-29", "2024-02-30", "2024-04-31", "2024-12-31", "0001-01-01", "0000-01-01", "9999-12-31", "10000-01-01",
    "20240229", "2024-W09-4", "2024-060", "2024-2-9", "29.02.2024 12:30:00", "28.02.2024 12:30:00", "28.02.0000 12:30:00", "Thursday, 29 February 24", "2024-02-28T12:30:00", "2024-02-28 12:30", "2024-02-28T12:30:00Z", "2024-02-28T12:30:00+05:30", "2024-02-28T12:30:00.123456-14:59", "2024-02-28T12:30:00.1234567",
    "2024-02-28T24:00:00", "2024-02-28T12:30:60", "2024-02-28T12:30:00+25:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00", "infinity", "-infinity", "0044-03-15 BC", "2024-02-28T12:30:00 ", "２０２４-02-28",
    "Thu, 29 Feb 2024 12:30:00 +0000", "Mon, 28 Feb 2024 12:30:00 +0530", "28 Feb 2024 12:30:00 -0000", "28 Feb 2024 12:30:00 -1100", "28 Feb 2024 12:30:00 -0030", "Mon, 28 Feb 2024 12:30:00 GMT", "28 Feb 2024", "1709209800", "99999999999", "999999999999", "253402300800",
    "12:30", "12:30:59", "24:00:00", "23:59:60", "12:30:00.5", "12:30:00Z", "12:30:00+05:30", "12.30", "1:30", "12", "{}", "[]", "[1,2]", "[", "null", "6f2c1d0e-0000-4000-8000-000000000000", "6F2C1D0E000040008000000000000000", "{6f2c1d0e-0000-4000-8000-000000000000}", "urn:uuid:6f2c1d0e-0000-4000-8000-000000000000", "6f2c1d0e-0000-4000-8000-00000000000g",
    "127.0.0.1", "127.0.0.01", "256.0.0.1", "1.2.3", "1.2.3.4/8", "1.2.3.4/33", "1.2.3.4/255.0.0.0", "::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3::4:5:6:7", "1:2:3:4::5:6:7", "1:2:3::4:5:6:7:8", "1:2:3:4:5:6:7::", "::1:2:3:4:5:6:7", "::ffff:1.2.3.4", "fe80::1%eth0", "::1/128", "::1/129", "::/0", ":::", "12345::", "1::2::3",
    "a@b.co", "a@b", "a@localhost", "ü@b.co", '"a b"@c.de', "a@[127.0.0.1]", "a@-b.co", "a@b.co\n", "a" * 70 + "@b.co", "a@" + "b" * 64 + ".co",
    "http://a.de", "HTTP://a.de", "https://a.de/x?y#z", "http://a.de/ü", "http://a.de/ x", "http://localhost:80/", "http://1.2.3.4", "http://[::1]/", "http://u:p@a.de", "http://a", "http://a.b-", "ftp://a.de", "ssh://a.de", "file:///etc", "file://a.de/x", "http://" + "a" * 64 + ".de", "http://" + "a" * 63 + ".de", "//a.de", "/x", "/x://y", "?a=b", "#", "x", "/", "javascript:x", "http://a.de\n", "http://a.d", "http://a.de:123456", "http://a.de:", "http://a.de/@b",
    "\x01", "\u2028", "e\u0301", "\U0001f600", "a\nb", "a'b\"c\\d%s{x}",
]  # fmt: skip
SCALARS = [
    None, True, False, 0, 1, 2, -1, 5, 1.5, -0.5, 0.1, 10**20, -(10**25), 10**26, 10**27, 10**28, 10**308, 2**1024 - 2**970 - 1, 2**1024 - 2**970, 10**310, 253402300799, 253402300800, 253402300799000, 99999999999999, 86399999913600, 86400000000000, 1e300, 5e-324, 123456789.12, 0.125,
    "a", "", "1", "true", "2024-02-28", "RED", "green", "::1",
]  # fmt: skip
SHAPES = [
    [], [None], ["a"], ["a", None], [1], ["1"], [1, -1], [True], [[True], ["yes"]], [[2]], [[]], [{}], ["x", 1, None], ["x", 1.0, {}], ["x", 1], ["abcd"],
    {}, {"a": 1}, {"a": "1", "b": "abc"}, {"a": 1, "b": None}, {"a": 1, "b": "abcd"}, {"a": None}, {"b": "x"}, {"b": 5}, {"a": 1, "x": 1}, {"a": 1, "the day": "2024-02-28"}, {"a": 1, "the day": "2024-02-30"}, {"a": 1, "c": "2024-02-28"}, {"a": 1.5}, {"a": "x"},
    [{"a": 1}], [{"a": 1}, {"a": []}], [{"a": 1}, None], [{"b": "x"}], {"name": "x"}, {"name": "x", "child": None}, {"name": "x", "child": {"name": 1}}, {"name": "x", "child": {"name": "y"}}, {"2024-02-28": ["x"]}, {"2024-02-28": [1]}, {"x": []}, {"": None},
]  # fmt: skip
JSON = [None if value is None else json.dumps(value) for value in (*SCALARS, *SHAPES)] + [
    "null", "1.0", "-0.0", "1.00000000000000000000001", "0.1000000000000000055511151231257827", "1e400", "-1e400", "1" + "0" * 308 + ".5", "1" + "0" * 309 + ".5", "2.0", "1e-400",
    *(json.dumps(text) for text in TEXTS if text is not None),
]  # fmt: skip
COLUMNS: dict[str, list[str | None]] = {
    "text": TEXTS,
    "varchar": TEXTS[:8],
    "bpchar": ["a", "a  ", "", "1 ", "true"],
    "name": ["a", "1", "RED"],
    "jsonb": JSON,
    "json": [None, "null", "1", "1.50", "true", *map(json.dumps, SHAPES), '"\\ud83d\\ude00"'],
    "int2": [None, "0", "1", "2", "-1", "32767"],
    "int4": ["0", "1", "2", "-5", "2147483647"],
    "int8": ["0", "1", "5", "-9223372036854775808", "9223372036854775807", "9007199254740995", "253402300799", "253402300800", "86400000000000"],
    "numeric": [None, "0", "0.00", "1", "1.0", "2", "-1.50", "NaN", "Infinity", "-Infinity", "1e30", "1e-30", "1e309", "1e400", "0.1234567890123456789", "1" + "0" * 309 + ".5", "123456789.1250000001", "253402300799.5"],
    "numeric(6,2)": ["0", "1", "1.50", "NaN"],
    "float4": ["0", "1", "0.1", "NaN", "-Infinity", "3.4028235e38", "1e-45"],
    "float8": [None, "0", "-0", "1", "1.5", "NaN", "Infinity", "-Infinity", "1e308", "1.7976931348623157e308", "5e-324", "1e22", "253402300800"],
    "bool": [None, "true", "false"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "6f2c1d0e-0000-4000-8000-000000000000"],
    "date": [None, "2024-02-29", "0001-01-01", "9999-12-31", "10000-01-01", "0001-12-31 BC", "infinity", "-infinity"],
    "time": ["00:00", "12:30:00.5", "23:59:59.999999", "24:00"],
    "timetz": ["00:00+00", "24:00:00+00", "12:30+05:30", "12:30:00.5-15:59:59"],
    "timestamp": ["2024-02-29 12:30", "0001-01-01", "9999-12-31 23:59:59.999999", "10000-01-01", "0044-03-15 12:00 BC", "infinity", "-infinity"],
    "timestamptz": [None, "2024-02-29 12:30Z", "0001-01-01Z", "9999-12-31 23:59:59.999999Z", "10000-01-01Z", "0044-03-15 12:00Z BC", "infinity", "-infinity"],
    "interval": ["0", "infinity", "1 day", "-3 hours", "1 year 2 mons 00:00:01.5"],
    "bytea": ["\\x", "\\x31", "\\xff"],
    "inet": ["127.0.0.1", "10.1.2.3/8", "::1", "fe80::/10", "::ffff:1.2.3.4", "0.0.0.0/0"],
    "cidr": ["127.0.0.1/32", "10.0.0.0/8", "::1/128", "fe80::/10"],
    "text[]": [None, "{}", "{a}", "{a,NULL}", "{{a},{b}}", "{abcd}", "{1,2}"],
    "int4[]": ["{}", "{1}", "{1,NULL}", "{-1,2}", "{{1},{2}}"],
    "float8[]": ["{}", "{1,NaN}", "{0.5}"],
    "jsonb[]": ["{}", "{NULL}", '{"null"}', '{"{}"}', '{"{\\"a\\": 1}"}'],
    "public.vector": ["[1,2]", "[0.5]"],
    "compiler_mood": ["RED", "green", "1"],
    "compiler_small": ["0", "1", "2"],
    "compiler_days": ["2024-02-29", "infinity"],
    "compiler_pair": ["(1,a)", "(,)"],
    "money": ["1.5"], "oid": ["1"], "macaddr": ["00:00:00:00:00:00"], "bit(3)": ["101"], "point": ["(0,1)"], "int4range": ["[1,5)"], "tsvector": ["a b"],
}  # fmt: skip


@pytest.fixture(scope="module")
def connection(embedded: EmbeddedServers) -> Iterator[Session]:
    """One for all: nothing is left behind, and nothing but types is made."""
    with Target(embedded.superuser_url()).session(bulk=True) as session, session.transaction(force_rollback=True):
        session.execute(
            "SET LOCAL search_path TO public, pg_catalog; CREATE EXTENSION IF NOT EXISTS vector SCHEMA public"
        )
        session.execute(
            "CREATE TYPE compiler_mood AS ENUM ('RED', 'green', '1'); CREATE DOMAIN compiler_small AS int2; "
            "CREATE DOMAIN compiler_days AS date; CREATE TYPE compiler_pair AS (a int, b text)"
        )
        yield session


@pytest.mark.parametrize("column", COLUMNS)
def test_every_field_over_every_column(connection: Session, column: str) -> None:
    assert disputes(connection, {name: make() for name, make in FIELDS.items()}, column, COLUMNS[column]) == []
