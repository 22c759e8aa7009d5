"""Types of one value: truth, numbers, texts, bytes, identifiers; and the list of all that pg_catalog has."""

import re
import struct
from collections.abc import Callable, Iterable
from typing import Final

from briefly_admin.vault.decoding import floats, network, search, times
from briefly_admin.vault.decoding.codec import (
    TEXT,
    Codec,
    decoded,
    hexadecimal,
    json_inline,
    json_number,
    json_string,
    scalar,
    take,
)

_NUMERIC: Final = struct.Struct(">hhHH").unpack_from
_NUMERIC_SPECIAL: Final = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_MINUS: Final = 0x4000
_ASCII_END: Final = 0x80
_HSTORE_PAIR: Final = re.compile(r'"((?:[^"\\]|\\.)*)"=>(?:(NULL)|"((?:[^"\\]|\\.)*)")', re.DOTALL)


def _integer(form: str) -> Callable[[bytes], str]:
    unpack = struct.Struct(form).unpack
    return lambda data: str(unpack(data)[0])


def boolean(data: bytes) -> str:
    """T or f."""
    (value,) = data
    return "t" if value else "f"


def numeric(data: bytes) -> str:
    """All its digits: base 10,000 words, `weight` of them before the point beyond the first, `scale` digits behind."""
    count, weight, sign, scale = _NUMERIC(data)
    if special := _NUMERIC_SPECIAL.get(sign):
        return special
    words = struct.unpack(f">{count}H", data[8:])
    if weight < 0:
        whole, rest = "0", (0,) * (-weight - 1) + words
    else:
        before = words[: weight + 1]
        whole = "".join([f"{word:04d}" for word in before]).ljust(4 * (weight + 1), "0").lstrip("0") or "0"
        rest = words[weight + 1 :]
    minus = "-" if sign == _MINUS else ""
    if not scale:
        return minus + whole
    fraction = "".join([f"{word:04d}" for word in rest])[:scale].ljust(scale, "0")
    return f"{minus}{whole}.{fraction}"


def money(data: bytes) -> str:
    """As lc_monetary C writes it: -$1,234.56."""
    (cents,) = struct.unpack(">q", data)
    return f"{'-' if cents < 0 else ''}${abs(cents) // 100:,}.{abs(cents) % 100:02d}"


def uuid(data: bytes) -> str:
    """Lower case, with hyphens."""
    if len(data) != 16:  # noqa: PLR2004 - bytes of a UUID
        raise ValueError("not a UUID")
    text = data.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def single_char(data: bytes) -> str:
    r"""The type "char": one byte, \ooo above ASCII, nothing for zero."""
    (byte,) = data
    if byte >= _ASCII_END:
        return f"\\{byte:03o}"
    return chr(byte) if byte else ""


def bits(data: bytes) -> str:
    """0101."""
    (length,) = struct.unpack_from(">i", data)
    text = "".join([f"{byte:08b}" for byte in data[4:]])
    if not 0 <= length <= len(text):
        raise ValueError("not as many bits as it says")
    return text[:length]


def versioned(data: bytes) -> str:
    """Text behind a byte that says version 1: jsonb, jsonpath, ltree and its kin."""
    if data[0] != 1:
        raise ValueError("of another version")
    return decoded(data[1:])


def tid(data: bytes) -> str:
    """(page,row)."""
    page, row = struct.unpack(">IH", data)
    return f"({page},{row})"


def lsn(data: bytes) -> str:
    """16/B374D848."""
    high, low = struct.unpack(">II", data)
    return f"{high:X}/{low:X}"


def snapshot(data: bytes) -> str:
    """xmin:xmax:xid,…"""
    (count,) = struct.unpack_from(">i", data)
    lowest, highest, *running = struct.unpack(f">{count + 2}Q", data[4:])
    return f"{lowest}:{highest}:{','.join(map(str, running))}"


def _pairs(data: bytes) -> list[tuple[str, str | None]]:
    (count,) = struct.unpack_from(">i", data)
    position = 4
    pairs = []
    for _ in range(count):
        key, position = take(data, position)
        value, position = take(data, position)
        if key is None:
            raise ValueError("a key is NULL")
        pairs.append((decoded(key), None if value is None else decoded(value)))
    return pairs


def _hstore_quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def hstore(data: bytes) -> str:
    """Pairs: "key"=>"value", "other"=>NULL."""
    return ", ".join(
        f"{_hstore_quoted(key)}=>{'NULL' if value is None else _hstore_quoted(value)}" for key, value in _pairs(data)
    )


def _object(pairs: Iterable[tuple[str, str | None]]) -> str:
    texts = (f"{json_string(key)}: {'null' if value is None else json_string(value)}" for key, value in pairs)
    return "{" + ", ".join(texts) + "}"


def hstore_json(data: bytes) -> str:
    """An object of strings, as its cast to json makes it."""
    return _object(_pairs(data))


def hstore_json_of_text(text: str) -> str:
    """The same, from its text."""

    def bare(quoted: str) -> str:
        return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)

    return _object((bare(key), None if null else bare(value)) for key, null, value in _HSTORE_PAIR.findall(text))


_BOOLEAN_JSON: Final = {"t": "true", "f": "false"}
_NUMBER: Final = _integer(">I")
_OIDS: Final = (
    "regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator", "regproc",
    "regprocedure", "regrole", "regtype", "regdatabase",
)  # fmt: skip


def _object_number(name: str) -> Codec:
    note = f"Values of the type {name} are written as object numbers: their names stand in the lost database alone."
    return scalar(_NUMBER, plain=True, notes=(note,))


BUILT_IN: Final[dict[str, Codec]] = {
    "boolean": scalar(boolean, lambda text: _BOOLEAN_JSON[text], plain=True),
    "smallint": scalar(_integer(">h"), str, plain=True),
    "integer": scalar(_integer(">i"), str, plain=True),
    "bigint": scalar(_integer(">q"), str, plain=True),
    "real": scalar(floats.float4, json_number, plain=True),
    "double precision": scalar(floats.float8, json_number, plain=True),
    "numeric": scalar(numeric, json_number, plain=True),
    "money": scalar(money, notes=("Values of the type money are written as under lc_monetary C.",)),
    "oid": scalar(_NUMBER, plain=True),
    "xid": scalar(_NUMBER, plain=True),
    "cid": scalar(_NUMBER, plain=True),
    "xid8": scalar(_integer(">Q"), plain=True),
    "tid": scalar(tid),
    "text": TEXT, "character varying": TEXT, "character": TEXT, "bpchar": TEXT, "name": TEXT, "unknown": TEXT,
    "cstring": TEXT, "refcursor": TEXT, "xml": TEXT,
    '"char"': scalar(single_char),
    "bytea": scalar(hexadecimal),
    "uuid": scalar(uuid, plain=True),
    "date": scalar(times.date),
    "time without time zone": scalar(times.time, plain=True),
    "time with time zone": scalar(times.timetz, plain=True),
    "timestamp without time zone": scalar(times.timestamp, times.timestamp_json),
    "timestamp with time zone": scalar(times.timestamptz, times.timestamptz_json),
    "interval": scalar(times.interval),
    "json": scalar(decoded, json_inline),
    "jsonb": scalar(versioned, json_inline),
    "jsonpath": scalar(versioned),
    "bit": scalar(bits), "bit varying": scalar(bits),
    "inet": scalar(network.inet), "cidr": scalar(network.cidr),
    "macaddr": scalar(network.macaddr, plain=True), "macaddr8": scalar(network.macaddr, plain=True),
    "point": scalar(floats.point), "line": scalar(floats.line), "lseg": scalar(floats.lseg),
    "box": scalar(floats.box, delimiter=";"), "path": scalar(floats.path), "polygon": scalar(floats.polygon),
    "circle": scalar(floats.circle),
    "tsvector": scalar(search.tsvector), "tsquery": scalar(search.tsquery),
    "pg_lsn": scalar(lsn), "pg_snapshot": scalar(snapshot), "txid_snapshot": scalar(snapshot),
    **{name: _object_number(name) for name in _OIDS},
}  # fmt: skip
"""By the name that format_type gives, without typmod."""

BUILT_IN_RANGES: Final = {
    "int4range": "integer", "int8range": "bigint", "numrange": "numeric", "daterange": "date",
    "tsrange": "timestamp without time zone", "tstzrange": "timestamp with time zone",
}  # fmt: skip
"""Range → its subtype; the multirange of each is called as it with 'multirange' for 'range'."""

OF_EXTENSIONS: Final[dict[tuple[str, str], Codec]] = {
    ("vector", "vector"): scalar(floats.vector),
    ("vector", "halfvec"): scalar(floats.halfvec),
    ("vector", "sparsevec"): scalar(floats.sparsevec),
    ("citext", "citext"): TEXT,
    ("ltree", "ltree"): scalar(versioned),
    ("ltree", "lquery"): scalar(versioned),
    ("ltree", "ltxtquery"): scalar(versioned),
    ("hstore", "hstore"): Codec(hstore, hstore_json, hstore_json_of_text),
}
"""(extension, type) of those that are known."""
