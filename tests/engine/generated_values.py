"""Values for generated schemas: texts that hurt, JSON of any shape, and every type of column that may hold them.

A value is what JSON has (None, bool, int, float, str, list, dict), or `Literal`: JSON text as it stands. A column type
takes what it can hold as the text that PostgreSQL reads (`fit`), and has edges and random values of its own.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from random import Random
from typing import Any

TYPES = """
CREATE TYPE public.verdict_mood AS ENUM ('', 'sad', 'so so', 'it''s "fine" 100%', 'GREEN', 'grün ☘', '1', '2', 'null', 'a@b.co');
CREATE DOMAIN public.verdict_small AS int CHECK (VALUE < 1000);
CREATE DOMAIN public.verdict_code AS varchar(5) COLLATE "C";
CREATE DOMAIN public.verdict_object AS jsonb;
CREATE DOMAIN public.verdict_when AS timestamptz;
CREATE DOMAIN public.verdict_words AS text[];
CREATE TYPE public.verdict_pair AS (a int, b text);
"""
"""What the column types need; made once in each transaction."""
MOODS = ("", "sad", "so so", 'it\'s "fine" 100%', "GREEN", "grün ☘", "1", "2", "null", "a@b.co")


@dataclass(frozen=True)
class Literal:
    """A JSON text as it stands: a number of any length, an object with a key twice."""

    text: str

    def __str__(self) -> str:
        return self.text


HOSTILE = (
    "", " ", "\t", "\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202e", "\u200b",
    "\u200d", "\ufeff", "\ufffd", "\U0010ffff", "\x01", "\x7f", "e\u0301", "é", "ß", "ſ", "İ", "ı", "ǅ", "ﬁ", "K", "Å", "٣", "１２", "Ⅷ",
    "²", "½", "\U0001d7d9", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f600" * 3, "אבג", "مرحبا", "漢字", "a\u0300\u0301\u0302", "null", "NULL", "None", "true",
    "True", "NaN", "nan", "sNaN", "Infinity", "-inf", "infinity", "0", "-0", "+1", "1_000", "1,5", "1.", ".5", "1e5", "1E400", "0x10", "٣.٥",
    "'", '"', "\\", "%", "%s", "{}", "{0}", "$1", "--", "/*", "';DROP TABLE x", "[]", "[1,2]", "[", "{", '{"a":1}', "a\nb", "abc\n", "\nabc",
)  # fmt: skip


def text(dice: Random) -> str:
    """Any text that PostgreSQL can hold: one of HOSTILE, several together, or random characters."""
    way = dice.randrange(10)
    if way < 4:
        return dice.choice(HOSTILE)
    if way < 6:
        return "".join(dice.choice(HOSTILE) for _ in range(dice.randint(2, 4)))
    if way < 9:
        return "".join(_character(dice) for _ in range(dice.randint(1, 8)))
    return dice.choice("aé\U0001f600 ") * dice.choice((63, 64, 65, 254, 255, 256, 2100))


def _character(dice: Random) -> str:
    low, high = dice.choice(
        ((1, 127), (32, 126), (97, 122), (128, 0x2FF), (0x300, 0x36F), (0x2000, 0x20FF), (0xE000, 0x10FFFF), (48, 57))
    )
    return chr(dice.randint(low, high))


def changed(dice: Random, value: str) -> str:
    """Nearly the same text: another case, something before, after or amid it, a part lost or doubled."""
    at = dice.randint(0, len(value))
    return dice.choice(
        (
            value.upper, value.lower, value.swapcase, lambda: value[:at], lambda: value[at:], lambda: value * 2,
            lambda: value[:at] + dice.choice(HOSTILE) + value[at:], lambda: value + dice.choice(HOSTILE), lambda: value[::-1],
            lambda: dice.choice(HOSTILE) + value, lambda: value + "\n", lambda: f" {value} ", lambda: _one_other(dice, value),
        )
    )()  # fmt: skip


def _one_other(dice: Random, value: str) -> str:
    at = dice.randrange(len(value)) if value else 0
    return value[:at] + _character(dice) + value[at + 1 :]


def anything(dice: Random, depth: int = 0) -> Any:
    """Any JSON value."""
    if depth < 3 and dice.random() < 0.3:
        if dice.random() < 0.5:
            return [anything(dice, depth + 1) for _ in range(dice.randint(0, 3))]
        return {text(dice)[:9]: anything(dice, depth + 1) for _ in range(dice.randint(0, 3))}
    return _scalar(dice)


def _scalar(dice: Random) -> Any:
    made = dice.choice((None, True, False, number, number, text, text))
    return made(dice) if callable(made) else made


_NUMBERS = (
    0, 1, -1, 2, 3, 10, 127, 255, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, -(2**63), 10**18, 10**30, 10**308, 10**400, 0.5, -0.5, 1e300, 1e-300, 0.1,
    Literal("1.0"), Literal("-0.0"), Literal("1.50"), Literal("1e2"), Literal("1E-400"), Literal("0.1000000000000000055511151231257827"),
    Literal("9007199254740993.0"), Literal("1e400"), Literal("-1e309"), Literal("1" + "0" * 308 + ".5"), Literal("1" + "0" * 309 + ".5"),
    Literal("100.00"), Literal("0.30000000000000004"), Literal("2e0"), Literal("1.000000000000000000000001"), Literal("1" + "0" * 4310),
)  # fmt: skip


def number(dice: Random) -> Any:
    """Any JSON number, as Python has it or literally."""
    if dice.random() < 0.6:
        return dice.choice(_NUMBERS)
    return dice.choice((dice.randint(-20, 20), round(dice.uniform(-20, 20), dice.randint(0, 6)), dice.getrandbits(60)))


def as_json(value: Any) -> str:
    """The JSON text of a value; what no jsonb can hold is left out."""
    if isinstance(value, Literal | Decimal):
        return str(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{as_json(str(key))}: {as_json(each)}' for key, each in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_json, value))}]"
    if isinstance(value, str):
        return json.dumps(storable(value), ensure_ascii=len(value) % 2 == 0)
    if isinstance(value, float) and (value != value or value in {float("inf"), float("-inf")}):  # noqa: PLR0124 - NaN
        return f'"{value}"'
    return json.dumps(value)


def storable(value: str) -> str:
    """The text without what no PostgreSQL text can hold."""
    return re.sub("[\0\ud800-\udfff]", "", value)


Fit = Callable[[Any], str | None]


@dataclass(frozen=True)
class ColumnType:
    """A type of column: how SQL writes it, texts of its edges, a random text, and what a value is in it (None: none)."""

    sql: str
    edges: Sequence[str]
    fit: Fit
    random: Callable[[Random], str] | None = None

    def value(self, dice: Random, near: Callable[[Random], Any]) -> str | None:
        """NULL, an edge, something random, or what `near` gives, where the type can hold it."""
        chance = dice.random()
        if chance < 0.04:
            return None
        if chance > 0.2:
            fitted = self.fit(near(dice))
            if fitted is not None:
                return fitted
        if self.random and (chance < 0.12 or not self.edges):
            return self.random(dice)
        return dice.choice(self.edges)


def _plain(value: Any) -> str:
    """A value as text: what stands in a text column that should hold it."""
    if isinstance(value, str):
        return storable(value)
    return as_json(value)


def _cut(length: int) -> Fit:
    return lambda value: _plain(value)[:length]


def _integer(bits: int) -> Fit:
    def fit(value: Any) -> str | None:
        found = re.fullmatch(r"[+-]?[0-9]{1,20}", _plain(value))
        return found and (found[0] if -(2 ** (bits - 1)) <= int(found[0]) < 2 ** (bits - 1) else None)

    return fit


def _small(value: Any) -> str | None:
    found = _integer(32)(value)
    return found if found is not None and int(found) < 1000 else None


_NUMERIC = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]{1,4})?|NaN|-?Infinity", re.ASCII | re.IGNORECASE)


def _numeric(value: Any) -> str | None:
    return _plain(value) if _NUMERIC.fullmatch(_plain(value)) else None


def _within(lowest: float, highest: float) -> Fit:
    """Numbers whose absolute value a type of bounded range can hold."""

    def fit(value: Any) -> str | None:
        found = _numeric(value)
        if found is None or found[-1].isalpha():
            return "NaN" if found and found.lower() == "nan" else None
        size = abs(float(found))
        return found if lowest <= size <= highest else None

    return fit


def _boolean(value: Any) -> str | None:
    words = {"true", "false", "t", "f", "on", "off", "yes", "no", "1", "0"}
    return _plain(value).lower() if _plain(value).lower() in words else None


def _one_in(*texts: str) -> Fit:
    return lambda value: _plain(value) if _plain(value) in texts else None


def _uuid(value: Any) -> str | None:
    return (
        _plain(value) if re.fullmatch(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", _plain(value)) else None
    )


def _temporal(kind: type[date] | type[datetime] | type[time]) -> Fit:
    def fit(value: Any) -> str | None:
        with suppress(ValueError):
            found = kind.fromisoformat(_plain(value)).isoformat()
            # PostgreSQL's offsets have no fractions and are below 16 hours.
            return None if re.search(r":.*[+-](..:..:|1[6-9]|2)", found) else found
        return None

    return fit


def _address(value: Any) -> str | None:
    with suppress(ValueError):
        return str(ipaddress.ip_interface(_plain(value).partition("%")[0]))
    return None


def _network(value: Any) -> str | None:
    with suppress(ValueError):
        return str(ipaddress.ip_interface(_plain(value).partition("%")[0]).network)
    return None


def _bytes(value: Any) -> str:
    return "\\x" + _plain(value).encode()[:40].hex()


def _array(fit: Fit) -> Fit:
    """A list's items as an array's, each in its type; nested lists that PostgreSQL could not read are none."""

    def fit_list(value: Any) -> str | None:
        if not isinstance(value, list):
            return None
        items = [None if each is None else fit(each) for each in value]
        if any(item is None and each is not None for item, each in zip(items, value, strict=True)):
            return None
        return array(items)

    return fit_list


def array(items: Sequence[str | None]) -> str:
    """An array's text."""
    quoted = ("NULL" if item is None else '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items)
    return f"{{{','.join(quoted)}}}"


def _vector(value: Any) -> str | None:
    numbers = isinstance(value, list) and value and all(type(n) in {int, float} and abs(n) < 60_000 for n in value)
    return as_json(value) if numbers else None


def _never(_value: Any) -> str | None:
    return None


def _day(dice: Random) -> str:
    return f"{dice.randint(1, 9999):04}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"


def _clock(dice: Random) -> str:
    fraction = dice.choice(("", ".5", ".123456", ".000001", ".999999"))
    return f"{dice.randint(0, 23):02}:{dice.randint(0, 59):02}:{dice.randint(0, 59):02}{fraction}"


_DAYS = (
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "0001-01-01",
    "9999-12-31",
    "10000-01-01",
    "2024-02-29",
    "0001-12-31 BC",
    "1970-01-01",
    "2000-01-01",
)
_MOMENTS = (
    "infinity", "-infinity", "0044-03-15 12:00 BC", "0001-01-01 00:00:00", "0001-12-31 23:59:59.999999 BC", "9999-12-31 23:59:59.999999",
    "10000-01-01", "294276-12-31 23:59:59", "4713-01-01 BC", "2024-02-29 12:30:00.1", "1970-01-01", "2000-01-01 24:00", "1999-12-31 23:59:59.999999",
)  # fmt: skip
_INTS = ("0", "1", "-1", "2", "3", "5", "10", "127", "-5", "100")
_FLOATS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "0",
    "-0",
    "1",
    "0.5",
    "1e300",
    "5e-324",
    "1.7976931348623157e308",
    "0.1",
    "9007199254740993",
    "1e15",
    "1e16",
    "123456.789",
)
_JSON = (
    "null",
    "{}",
    "[]",
    '""',
    "0",
    "-0",
    "1.0",
    "1e2",
    "true",
    "[null]",
    '{"a": null}',
    '{"a": 1, "a": 2}',
    "[[[[[]]]]]",
    '"null"',
    '{"": ""}',
    "1" + "0" * 400,
    "[1, 1.0, 1.50]",
)
_VECTORS = ("[1,2,3]", "[0]", "[-0,1e-5,3]")

COLUMN_TYPES: dict[str, ColumnType] = {
    each.sql: each
    for each in (
        ColumnType("text", HOSTILE, _plain, text), ColumnType("varchar", HOSTILE, _plain, text),
        ColumnType("varchar(6)", ("", " ", "abc"), _cut(6)), ColumnType("char(6)", ("", "a", "abc", "  a", "abcdef", "é"), _cut(6)),
        ColumnType("name", ("", "abc"), _cut(15)), ColumnType('text COLLATE "C"', HOSTILE, _plain, text),
        ColumnType("smallint", (*_INTS, "-32768", "32767"), _integer(16)), ColumnType("integer", (*_INTS, "-2147483648", "2147483647"), _integer(32)),
        ColumnType("bigint", (*_INTS, "-9223372036854775808", "9223372036854775807"), _integer(64)),
        ColumnType("numeric", ("NaN", "Infinity", "-Infinity", "0", "0.000", "-0.0", "1.0", "1.50", "1e30", "1e-30", "9.995", "10", "1e400", "1e-400", "12345678901234567890.1"), _numeric),
        ColumnType("numeric(12,3)", ("NaN", "0", "999999999.999", "-0.001", "1", "2.5"), _within(1e-9, 9e8)),
        ColumnType("numeric(8,0)", ("NaN", "0", "5", "10", "-1"), _within(1e-9, 9e7)),
        ColumnType("real", ("NaN", "Infinity", "-Infinity", "0", "-0", "1", "0.1", "3.4028235e38", "1e-45", "16777217"), _within(1e-30, 1e30)),
        ColumnType("double precision", _FLOATS, _within(1e-290, 1e300)),
        ColumnType("boolean", ("true", "false"), _boolean), ColumnType("uuid", ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "6f2c1d0e-0000-4000-8000-000000000000"), _uuid),
        ColumnType("date", _DAYS, _temporal(date), _day), ColumnType("time", ("00:00", "24:00", "23:59:59.999999", "12:00"), _temporal(time), _clock),
        ColumnType("timetz", ("00:00+15:59:59", "24:00-15:59:59", "12:00Z", "12:00+05:30"), _never, lambda dice: f"{_clock(dice)}+02"),
        ColumnType("timestamp", _MOMENTS, _temporal(datetime), lambda dice: f"{_day(dice)} {_clock(dice)}"),
        ColumnType("timestamptz", _MOMENTS, _temporal(datetime), lambda dice: f"{_day(dice)} {_clock(dice)}"),
        ColumnType("interval", ("1 day", "-3 hours", "0", "infinity", "1 mon -1 day +00:00:00.000001", "5 seconds", "-178000000 years"), _never),
        ColumnType("bytea", ("\\x", "\\x00", "\\xff5c27"), _bytes), ColumnType("json", _JSON[:-2], as_json), ColumnType("jsonb", _JSON, as_json),
        ColumnType("inet", ("0.0.0.0/0", "::", "::ffff:1.2.3.4/128", "10.1.2.3/8", "127.0.0.1", "192.168.0.2/24", "fe80::1"), _address),
        ColumnType("cidr", ("0.0.0.0/0", "2001:db8::/32", "10.0.0.0/8", "127.0.0.1/32"), _network),
        ColumnType("macaddr", ("00:00:00:00:00:00",), _never), ColumnType("money", ("0", "-1.50", "12345.67"), _never),
        ColumnType("oid", ("0", "1", "4294967295"), _never), ColumnType("point", ("(0,0)", "(NaN,-Infinity)"), _never), ColumnType("int4range", ("empty", "(,)", "[1,5)"), _never),
        ColumnType("bit(5)", ("00000", "11111"), _never), ColumnType("tsvector", ("", "'a' 'b':1"), _never), ColumnType('"char"', ("", "a", "1"), _never),
        ColumnType("text[]", ("{}", "{NULL}", "{a,NULL}", "{{a,b},{c,d}}", "[-1:0]={a,b}", '{""}'), _array(_plain)),
        ColumnType("varchar[]", ("{}", "{a}"), _array(_plain)), ColumnType("integer[]", ("{}", "{NULL}", "{1,2}", "{{1},{2}}", "[5:6]={1,2}", "{1,1,1}"), _array(_integer(32))),
        ColumnType("bigint[]", ("{}", "{9223372036854775807}"), _array(_integer(64))),
        ColumnType("double precision[]", ("{}", "{NaN,1}", "{0.5,NULL}", "{-0}", "{1e300}"), _array(_within(1e-290, 1e300))), ColumnType("real[]", ("{}", "{1,2}", "{NaN}"), _array(_within(1e-30, 1e30))),
        ColumnType("numeric[]", ("{}", "{1.0,2}", "{NaN}", "{1e400}"), _array(_numeric)), ColumnType("boolean[]", ("{}", "{t,f,NULL}"), _array(_boolean)),
        ColumnType("timestamptz[]", ("{}", "{infinity}", "{2024-02-29}"), _array(_temporal(datetime))), ColumnType("date[]", ("{}", "{infinity,2024-02-29}"), _array(_temporal(date))),
        ColumnType("uuid[]", ("{}",), _array(_uuid)), ColumnType("jsonb[]", ("{}", "{NULL,null}", '{"{}"}'), _array(as_json)), ColumnType("public.verdict_mood[]", ("{}", "{sad,NULL}"), _array(_one_in(*MOODS))),
        ColumnType("public.vector", _VECTORS, _vector), ColumnType("public.halfvec", _VECTORS, _vector), ColumnType("public.vector[]", ("{}",), _never), ColumnType("public.sparsevec", ("{}/5", "{1:2}/5"), _never),
        ColumnType("public.verdict_mood", MOODS, _one_in(*MOODS)), ColumnType("public.verdict_small", ("0", "-5", "999"), _small),
        ColumnType("public.verdict_code", ("", "abc", "abcde"), _cut(5)), ColumnType("public.verdict_object", _JSON, as_json), ColumnType("public.verdict_when", _MOMENTS, _temporal(datetime)),
        ColumnType("public.verdict_words", ("{}", "{a,b}", "{NULL}"), _array(_plain)), ColumnType("public.verdict_pair", ("(,)", "(1,a)"), _never),
    )
}  # fmt: skip
"""By what SQL calls them."""
