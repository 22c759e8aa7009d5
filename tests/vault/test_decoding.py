"""What we read of a type's binary form is what PostgreSQL prints of it."""

import json
import math
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.manifest import ColumnManifest, TableManifest, TypeManifest, table_hash
from briefly_admin.vault.decoding.forms import CsvForm, JsonForm
from briefly_admin.vault.decoding.types import Types
from tests.engine import every_type
from tests.vault.decoded import Connection, compare, connect, fill, fill_binary, many
from tests.vault.sample_backups import field

ODD_TEXTS = (
    "", " ", "NULL", "null", "a", "a b", "a,b", 'say "x"', "back\\slash", "\\.", "\\N", "(x)", "{x}", "[1,2]", "'q'",
    "line\nbreak", "carriage\rreturn", "tab\t", "\v\f", "\x01\x1f\x7f", "ünïcode ✓ \U0001f600", "\u2028", "=1+1", "0", "t",
    " lead", "trail ", "a;b", "</script>",
)  # fmt: skip
EDGES: dict[str, tuple[str, ...]] = {
    "boolean": ("t", "f"),
    "smallint": ("0", "-1", "32767", "-32768"),
    "integer": ("0", "-1", "2147483647", "-2147483648"),
    "bigint": ("0", "-1", "9223372036854775807", "-9223372036854775808"),
    "oid": ("0", "4294967295"),
    "xid": ("0", "4294967295"),
    "cid": ("3", "4294967295"),
    "xid8": ("0", "18446744073709551615"),
    "tid": ("(0,0)", "(4294967295,65535)"),
    "numeric": (
        "0", "-0", "0.00", "1", "-1", "10000", "100000000", "1e20", "1e-20", "-0.0001", "0.00010000", "12345.6789", "NaN",
        "Infinity", "-Infinity", "9999.9999", "1" + "0" * 100, "1e130000", "1e-16000", "123456789012345678901234567890.12",
        "99990000.00001", "0.00000001", "1.10",
    ),
    "numeric(10,2)": ("0", "12.3", "-99999999.99", "NaN"),
    "money": ("0", "0.01", "-0.05", "1234.5", "-92233720368547758.08", "92233720368547758.07"),
    "text": ODD_TEXTS,
    "varchar(40)": ODD_TEXTS,
    "char(20)": ODD_TEXTS,
    "bpchar": ODD_TEXTS,
    "name": ODD_TEXTS,
    "refcursor": ODD_TEXTS,
    '"char"': ("", "a", '"', "\\", ",", "é", "\\377", "\\200", "\n"),
    "bytea": ("", "\\x00ff", "\\x" + "5c" * 40),
    "uuid": ("00000000-0000-0000-0000-000000000000", "0b1e4c1e-7d5c-4b8a-9a55-0123456789ab"),
    "date": (
        "2000-01-01", "1970-01-01", "0001-01-01", "0001-12-31 BC", "4713-01-01 BC", "4714-11-24 BC", "5874897-12-31",
        "10000-01-01", "9999-12-31", "2024-02-29", "1900-03-01", "infinity", "-infinity", "0401-02-29 BC", "0400-02-28 BC",
    ),
    "time": ("00:00", "24:00:00", "23:59:59.999999", "12:34:56.7", "00:00:00.000001"),
    "time(2)": ("12:34:56.789",),
    "timetz": ("00:00+00", "24:00:00-12", "12:34:56.789+05:30", "01:02:03-00:30", "01:02:03+15:59:59", "1:2:3-03:30:01"),
    "timestamp": (
        "2000-01-01", "1999-12-31 23:59:59.999999", "0001-01-01 00:00:00", "0001-12-31 23:59:59.5 BC", "4714-11-24 BC",
        "294276-12-31 23:59:59.999999", "infinity", "-infinity", "2024-02-29 12:00:00.100", "10000-01-01",
    ),
    "timestamptz": (
        "2000-01-01+00", "1999-12-31 23:59:59.999999-05", "0044-03-15 12:00:00+00 BC", "294276-12-31 23:59:59.999999+00",
        "infinity", "-infinity", "2024-02-29 12:00:00.120+05:30",
    ),
    "interval": (
        "0", "1 year", "2 years", "-1 year", "13 mons", "-13 mons", "1 mon -1 day", "-1 mon +1 day", "1 day", "-1 days +02:03",
        "-00:00:00.000001", "1000000:00:00.5", "1 year -1 mon +3 days -04:05:06.789", "-1 year -2 mons +3 days -04:05:06",
        "infinity", "-infinity", "-1 mon 00:00:01", "178000000 years", "2562047788:00:54.775807", "-1 day -1 hour",
    ),
    "json": ('{"a": [1, null, "x\\n"]}', "null", "1e400", ' {"a":\n\r\n 1}\n', '"\\u0000"', "[]", '{"a":1,"a":2}', '"é"'),
    "jsonb": ('{"b": [1, null, "x\\n"], "a": 1.10}', "null", '"\\""', "[]", "{}", "12345678901234567890.1", '"é😀"'),
    "jsonpath": ("$.a[*] ? (@ > 1)", 'strict $."x y"'),
    "bit(5)": ("10101", "00000"),
    "varbit": ("", "1", "10101010", "101010101"),
    "inet": (
        "1.2.3.4", "1.2.3.4/24", "0.0.0.0/0", "255.255.255.255/32", "::", "::1", "::/0", "2001:db8::1/64", "::ffff:1.2.3.4",
        "::1.2.3.4", "::1:0", "1:0:0:2::3", "1:2:3:4:5:6:7:8", "1:0:3:4:5:6:7:8", "fe80::", "1:0:0:4:0:0:7:8", "::5:6:7:8",
        "0:0:0:0:0:1:2:3", "0:0:0:0:0:ffff:0:1", "0:0:0:0:0:0:0:2", "1::8",
    ),
    "cidr": ("10.0.0.0/8", "1.2.3.4/32", "::/0", "2001:db8::/32", "::1/128", "0.0.0.0/0"),
    "macaddr": ("08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"),
    "macaddr8": ("08:00:2b:01:02:03:04:05",),
    "point": ("(0,0)", "(1e300,-1e-300)", "(NaN,Infinity)", "(0.1,-0)"),
    "line": ("{1,2,3}", "{-0.5,1e20,0}"),
    "lseg": ("[(0,0),(1.5,1)]",),
    "box": ("(0,0),(1.5,1)",),
    "path": ("[(0,0),(1,1),(2,0)]", "((0,0),(1,1))", "((0.5,0))"),
    "polygon": ("((0,0),(1,1),(2,0))", "((0.1,0.2))"),
    "circle": ("<(0,0),1.5>", "<(1,2),0>"),
    "tsvector": ("", "a:1,2A b:3B,4C 'c d' 'it''s':16383", "'back\\\\slash':1 é:2", "a:1D"),
    "tsquery": (
        "", "a", "a & b | c", "a & (b | c)", "!a & !(b | c)", "a <-> b <-> c", "a <-> (b <-> c)", "a <3> (b & c)",
        "'it''s':*AB & 'x y':D", "!!a", "!(a <-> b)", "(a | b) <-> (c | d)", "a:*", "(a <-> b) & c", "!a <-> b",
        "'back\\\\slash'", "a <0> b", "a <16384> b",
    ),
    "pg_lsn": ("0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"),
    "pg_snapshot": ("10:20:10,14,15", "10:10:"),
    "txid_snapshot": ("10:20:10,14,15",),
    "int4range": ("empty", "[1,5)", "(,5)", "[3,)", "(,)", "[-2147483648,0)"),
    "int8range": ("[1,5]",),
    "numrange": ("(1.10,2.20]", "[Infinity,NaN]", "[1,1]"),
    "daterange": ("[2024-01-01,2024-02-01)", "[2024-01-01,infinity)", "[0001-01-01 BC,)"),
    "tsrange": ("[2024-01-01 12:00,2024-02-01)", "(,infinity]"),
    "tstzrange": ("[2024-01-01 12:00+00,)",),
    "int4multirange": ("{}", "{[1,3),[5,9)}", "{(,)}"),
    "int8multirange": ("{[1,3)}",),
    "nummultirange": ("{[1.5,3],(5,)}",),
    "tsmultirange": ("{[2024-01-01 12:00,2024-02-01)}",),
    "datemultirange": ("{[2024-01-01,2024-02-01)}",),
    "tstzmultirange": ("{[2024-01-01 12:00+00,)}",),
    "int2vector": ("", "1 2 3"),
    "oidvector": ("1 4294967295", ""),
    "vector": ("[1,2,3]", "[0.1,-1e-7,1e20]", "[0]"),
    "vector(2)": ("[1,2]",),
    "halfvec": ("[1,0.1,-65504]", "[6e-08]"),
    "sparsevec": ("{1:1.5,3:-2}/5", "{}/7"),
    "integer[]": ("{}", "{1,NULL,-3}", "{{1,2},{3,4}}", "[2:3]={1,2}", "[0:1][5:6]={{1,2},{3,4}}", "{{{1}},{{2}}}"),
    "text[]": ('{"",NULL,"NULL",null,a b,"a\\"b","a\\\\b","{x}","a,b"," x "}', '{"line\nbreak","nUlL",é}', "{a;b}"),
    "boolean[]": ("{t,f,NULL}",),
    "numeric[]": ("{1.10,NaN,Infinity}",),
    "double precision[]": ("{1e20,NaN,-Infinity,0.1}",),
    "jsonb[]": ('{"{\\"a\\": 1}",NULL,null}',),
    "json[]": ('{"{\\"a\\":\n 1}"}',),
    "box[]": ("{(1,1),(0,0);(2,2),(1,1)}",),
    "timestamp[]": ("{2024-01-01 12:00:00,infinity}",),
    "timestamptz[]": ("{2024-01-01 12:00:00+00}",),
    "date[]": ("{2024-01-01,0001-01-01 BC}",),
    "interval[]": ("{1 day 02:00:00}",),
    "bytea[]": ('{"\\\\x00ff","\\\\x"}',),
    "uuid[]": ("{0b1e4c1e-7d5c-4b8a-9a55-0123456789ab}",),
    "int4range[]": ('{"[1,5)",empty}',),
    "int4multirange[]": ('{"{[1,5)}"}',),
    "inet[]": ("{1.2.3.4,::1/64}",),
    '"char"[]': ('{a,"",NULL}',),
    "char(3)[]": ("{a,abc}",),
    "bit(3)[]": ("{101}",),
    "money[]": ('{"$1,234.50"}',),
    "vector[]": ('{"[1,2]","[3,4]"}',),
    "point[]": ('{"(1,2)"}',),
    "tsvector[]": ("{\"'a':1\"}",),
    "aclitem": ("=r/{role}", "{role}=arw*/{role}"),
    "aclitem[]": ('{=r/{role},"{role}=arw*/{role}",NULL}', "{}"),
}  # fmt: skip


@pytest.fixture
def connection(target_database: str) -> Iterator[Connection]:
    with connect(target_database) as connected:
        yield connected


def test_edges_of_every_built_in_type(connection: Connection) -> None:
    role = connection.info.user
    for type_name, texts in EDGES.items():
        fill(connection, type_name, [text.replace("{role}", role) for text in texts])
        try:
            compare(connection, "public", "v")
        except AssertionError as error:
            pytest.fail(f"{type_name}: {error}")


def _numeric(dice: random.Random) -> bytes:
    words = [dice.choice((0, 1, 10, 9999, 1000, dice.randrange(10000))) for _ in range(dice.randrange(6))]
    scale = dice.randrange(24)
    return struct.pack(
        f">hhHH{len(words)}H", len(words), dice.randrange(-5, 6), dice.choice((0, 0x4000)), scale, *words
    )


def _stamp(dice: random.Random) -> bytes:
    return struct.pack(">q", dice.randrange(-211813488000000000, 9223371331200000000))


def _interval(dice: random.Random) -> bytes:
    micros = dice.choice((0, dice.randrange(-(10**6), 10**6), dice.randrange(-(2**62), 2**62)))
    days, months = (dice.choice((0, 1, -1, dice.randrange(-(2**30), 2**30))) for _ in "dm")
    return struct.pack(">qii", micros, days, months)


def _inet(dice: random.Random) -> bytes:
    if dice.random() < 0.3:
        return bytes((2, dice.randrange(33), 0, 4)) + dice.randbytes(4)
    address = b"".join(dice.choice((b"\0\0", b"\0\0", b"\xff\xff", dice.randbytes(2))) for _ in range(8))
    return bytes((3, dice.randrange(129), 0, 16)) + address


def _double(dice: random.Random) -> bytes:
    while True:
        kind = dice.randrange(4)
        if kind == 0:
            data = dice.randbytes(8)
        elif kind == 1:
            data = struct.pack(">d", float(f"{dice.randrange(10 ** dice.randrange(1, 18))}e{dice.randrange(-30, 30)}"))
        elif kind == 2:
            data = struct.pack(">d", dice.uniform(-1, 1) * 10 ** dice.randrange(-8, 20))
        else:
            data = struct.pack(">d", math.ldexp(1, dice.randrange(-1074, 1024)))
        if not math.isnan(struct.unpack(">d", data)[0]):
            return data


def _single(dice: random.Random) -> bytes:
    while True:
        kind = dice.randrange(3)
        if kind == 0:
            data = dice.randbytes(4)
        elif kind == 1:
            data = struct.pack(">f", float(f"{dice.randrange(10 ** dice.randrange(1, 10))}e{dice.randrange(-20, 20)}"))
        else:
            data = struct.pack(">f", dice.uniform(-1, 1) * 10 ** dice.randrange(-8, 12))
        if not math.isnan(struct.unpack(">f", data)[0]):
            return data


RANDOM: dict[str, Callable[[random.Random], bytes]] = {
    "bigint": lambda dice: dice.randbytes(8),
    "numeric": _numeric,
    "double precision": _double,
    "real": _single,
    "date": lambda dice: struct.pack(">i", dice.randrange(-2451545, 2145031949)),
    "timestamp": _stamp,
    "timestamptz": _stamp,
    "interval": _interval,
    "timetz": lambda dice: struct.pack(">qi", dice.randrange(86400000001), dice.randrange(-57599, 57600)),
    "inet": _inet,
    "bytea": lambda dice: dice.randbytes(dice.randrange(40)),
    "uuid": lambda dice: dice.randbytes(16),
    "money": lambda dice: struct.pack(">q", dice.randrange(-(2**63), 2**63)),
    "point": lambda dice: _double(dice) + _double(dice),
}


@pytest.mark.parametrize("type_name", RANDOM)
def test_random_values(connection: Connection, type_name: str) -> None:
    fill_binary(connection, type_name, many(RANDOM[type_name]))
    compare(connection, "public", "v")


def test_every_power_of_two(connection: Connection) -> None:
    powers = [math.ldexp(sign, power) for power in range(-1074, 1024) for sign in (1, -1)]
    fill_binary(connection, "double precision", [struct.pack(">d", number) for number in powers])
    compare(connection, "public", "v")
    singles = [
        struct.pack(">I", bits + near) for bits in range(0, 0x7F800000, 0x800000) for near in (0, 1, 2, 0x7FFFFF)
    ]
    fill_binary(connection, "real", singles)
    compare(connection, "public", "v")
    halves = [struct.pack(">HhH", 1, 0, bits) for bits in range(0x10000) if bits & 0x7C00 != 0x7C00]
    fill_binary(connection, "halfvec", halves)
    compare(connection, "public", "v")


@pytest.fixture
def of_all(connection: Connection, target_database: str, superuser_database: Callable[[str], str]) -> Connection:
    with connect(superuser_database(target_database)) as superuser:
        superuser.execute("SET search_path TO public")
        superuser.execute((Path(__file__).parent / "of_all.sql").read_bytes())
        superuser.execute(
            f'GRANT ALL ON SCHEMA "Odd, schema" TO {connection.info.user}; GRANT ALL ON of_all TO PUBLIC'.encode()
        )
    return connection


def test_types_of_the_user_and_of_extensions(of_all: Connection) -> None:
    csv, _ = compare(of_all, "public", "of_all")
    assert csv.notes() == []


def test_a_table_with_a_column_of_every_type(target_database: str, superuser_database: Callable[[str], str]) -> None:
    with connect(superuser_database(target_database)) as superuser:
        superuser.execute("SET search_path TO pg_catalog, public; SET check_function_bodies TO off")
        every_type.make(superuser)
        every_type.fill(superuser, 400, seed=7)
        csv, _ = compare(superuser, "public", every_type.NAME)
    assert not [note for note in csv.notes() if "object numbers" not in note and "lc_monetary" not in note]


def _table(*columns: ColumnManifest) -> TableManifest:
    return TableManifest("s", "t", columns, (), 0, table_hash(()), TableDigest(), (), ())


def _row(*fields: bytes | None) -> bytes:
    return b"".join(map(field, fields))


def test_an_unknown_type_is_hexadecimal_and_said_so() -> None:
    alien = TypeManifest("gis.geometry", "base", extension="postgis")
    table = _table(
        ColumnManifest("g", "gis.geometry"), ColumnManifest("n", "pg_new_type"), ColumnManifest("r", "regclass")
    )
    row = _row(b"\x01\xff", b"", b"\0\0\1\0")
    csv, as_json = CsvForm(table, Types([alien])), JsonForm(table, Types([alien]))
    assert csv.rows([row]) == b"\\x01ff,\\x,256\n"
    assert as_json.rows([row]) == b'{"g":"\\\\x01ff","n":"\\\\x","r":"256"}\n'
    assert [note.partition(":")[0] for note in csv.notes()] == ["g", "n", "r"]
    assert "gis.geometry" in csv.notes()[0]
    assert "object numbers" in csv.notes()[2]


MALFORMED: dict[str, tuple[bytes, ...]] = {
    "integer": (b"", b"123", b"12345"),
    "numeric": (b"", b"\0\5\0\0\0\0\0\0", b"\0\1\0\0\x12\x34\0\0\0\1\0"),
    "uuid": (b"x",),
    "jsonb": (b"", b"\2{}"),
    "boolean": (b"", b"ab"),
    "bit": (b"\0\0\0\x09\0",),
    "inet": (b"", b"\2\x18\0\4abc", b"\7\x18\0\4abcd"),
    "macaddr": (b"abc",),
    "tsvector": (b"\0\0\0\1abc",),
    "tsquery": (b"\0\0\0\1\2\2", b"\0\0\0\1\2\x09", b"\0\0\0\1\7"),
    "integer[]": (b"", b"\0\0\0\1\0\0\0\0\0\0\0\x17\0\0\0\2\0\0\0\1\0\0\0\4\0\0\0\1", b"\0\0\0\x09" + bytes(90)),
    "int4range": (b"\2\0\0\0\4\0", b"\2\xff\xff\xff\xff"),
    "polygon": (b"\0\0\0\2" + bytes(16),),
    "timestamp with time zone": (b"1234567",),
}


@pytest.mark.parametrize("type_name", MALFORMED)
def test_bytes_that_are_not_of_the_type_are_hexadecimal_and_counted(type_name: str) -> None:
    table = _table(ColumnManifest("n", "integer"), ColumnManifest("v", type_name))
    for form, hexadecimal in (
        (CsvForm(table, Types(())), b"5,\\x%s\n"),
        (JsonForm(table, Types(())), b'{"n":5,"v":"\\\\x%s"}\n'),
    ):
        for value in MALFORMED[type_name]:
            assert form.rows([_row(b"\0\0\0\5", value)]) == hexadecimal % value.hex().encode()
        (note,) = form.notes()
        assert note.startswith(f"v: {len(MALFORMED[type_name])} values are not in the form of {type_name}")


def test_a_database_without_an_encoding_gives_its_bytes_back() -> None:
    table = _table(ColumnManifest("v", "text"))
    assert CsvForm(table, Types(())).rows([_row(b"caf\xe9")]) == b"caf\xe9\n"
    assert JsonForm(table, Types(())).rows([_row(b"caf\xe9")]) == b'{"v":"caf\xe9"}\n'


@pytest.mark.parametrize("text", ["{1,2", "1,2}", '{"a}', "(1,2", "{1}}x\\"])
def test_text_that_is_no_literal_stays_text_in_json(text: str) -> None:
    table = _table(ColumnManifest("v", "integer[]", binary=False))
    assert json.loads(JsonForm(table, Types(())).rows([_row(text.encode())])) == {"v": text}


def test_a_table_without_columns_has_lines() -> None:
    assert CsvForm(_table(), Types(())).header() + CsvForm(_table(), Types(())).rows([b"", b""]) == b"\n\n\n"
    assert JsonForm(_table(), Types(())).rows([b""]) == b"{}\n"
