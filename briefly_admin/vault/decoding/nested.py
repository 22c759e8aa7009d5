"""Types made of others: arrays, composites, ranges and multiranges, with the quotes that each needs.

Source: array_send, record_send, range_send, multirange_send and the output functions beside them.
"""

import re
import struct
from collections.abc import Callable, Sequence
from typing import Final

from briefly_admin.vault.decoding import literals
from briefly_admin.vault.decoding.codec import Codec, json_string, scalar, take

_SPACE: Final = r" \t\n\r\v\f"
_COMPOSITE_ODD: Final = re.compile(rf'["\\(),{_SPACE}]')
_RANGE_ODD: Final = re.compile(rf'["\\()\[\],{_SPACE}]')
_EMPTY, _LOWER_IN, _UPPER_IN, _NO_LOWER, _NO_UPPER = 0x01, 0x02, 0x04, 0x08, 0x10
_MOST_DIMENSIONS: Final = 6


def _with_backslashes(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _doubled(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '""') + '"'


def array(element: Codec) -> Codec:
    """Arrays of any dimensions; `{…}` with the bounds before it where they do not begin at 1."""
    odd = re.compile(rf'["\\{{}}{re.escape(element.delimiter)}{_SPACE}]')
    read, delimiter = element.text, element.delimiter

    def quoted(data: bytes) -> str:
        text = read(data)
        return _with_backslashes(text) if not text or odd.search(text) or text.upper() == "NULL" else text

    item = read if element.plain else quoted

    def text(data: bytes) -> str:
        bounds, items = _elements(data, item, "NULL")
        if not bounds:
            return "{}"
        before = "".join(f"[{lower}:{lower + length - 1}]" for length, lower in bounds)
        prefix = f"{before}=" if any(lower != 1 for _, lower in bounds) else ""
        return prefix + _folded(items, [length for length, _ in bounds], "{", "}", delimiter)

    def to_json(data: bytes) -> str:
        bounds, items = _elements(data, element.json, "null")
        return _folded(items, [length for length, _ in bounds], "[", "]", ",") if bounds else "[]"

    def json_of_text(value: str) -> str:
        return literals.array_json(value, delimiter, element.json_of_text)

    return Codec(text, to_json, json_of_text, notes=element.notes)


def _elements(data: bytes, read: Callable[[bytes], str], null: str) -> tuple[list[tuple[int, int]], list[str]]:
    """(length, lower bound) of each dimension, and the elements in order."""
    dimensions, _, _ = struct.unpack_from(">iiI", data)
    if not 0 <= dimensions <= _MOST_DIMENSIONS:
        raise ValueError("not an array")
    bounds = [struct.unpack_from(">ii", data, 12 + 8 * i) for i in range(dimensions)]
    position = 12 + 8 * dimensions
    items = []
    while position < len(data):
        field, position = take(data, position)
        items.append(null if field is None else read(field))
    if not items and (0, 0) in bounds:  # how an int2vector of nothing is sent
        return [], []
    return [(length, lower) for length, lower in bounds], items


def _folded(items: Sequence[str], lengths: Sequence[int], opening: str, closing: str, delimiter: str) -> str:
    folded = list(items)
    for length in reversed(lengths):
        if length < 1 or len(folded) % length:
            raise ValueError("not as many elements as it says")
        folded = [
            opening + delimiter.join(folded[start : start + length]) + closing
            for start in range(0, len(folded), length)
        ]
    (whole,) = folded
    return whole


def composite(fields: Sequence[tuple[str, Codec]]) -> Codec:
    """(1,"two words",); an object in JSON."""
    codecs = [codec for _, codec in fields]
    keys = [f"{json_string(name)}:" for name, _ in fields]

    def item(codec: Codec, field: bytes | None) -> str:
        if field is None:
            return ""
        text = codec.text(field)
        return text if codec.plain or (text and not _COMPOSITE_ODD.search(text)) else _doubled(text)

    def text(data: bytes) -> str:
        return f"({','.join(map(item, codecs, _attributes(data, len(codecs))))})"

    def to_json(data: bytes) -> str:
        found = zip(keys, codecs, _attributes(data, len(codecs)), strict=True)
        return "{" + ",".join(key + ("null" if f is None else codec.json(f)) for key, codec, f in found) + "}"

    def json_of_text(value: str) -> str:
        parts = zip(keys, codecs, literals.composite_fields(value), strict=True)
        return "{" + ",".join(k + ("null" if f is None else c.json_of_text(f)) for k, c, f in parts) + "}"

    return Codec(text, to_json, json_of_text, notes=tuple(note for codec in codecs for note in codec.notes))


def _attributes(data: bytes, count: int) -> list[bytes | None]:
    if struct.unpack_from(">i", data) != (count,):
        raise ValueError("not as many fields as its type has")
    position = 4
    found: list[bytes | None] = []
    for _ in range(count):
        field, position = take(data, position + 4)
        found.append(field)
    return found


def range_(subtype: Codec) -> Codec:
    """[1,10), (,5], empty."""

    def bound(field: bytes | None) -> str:
        if field is None:
            raise ValueError("a bound is NULL")
        text = subtype.text(field)
        return text if subtype.plain or (text and not _RANGE_ODD.search(text)) else _doubled(text)

    def text(data: bytes) -> str:
        flags, position = data[0], 1
        if flags & _EMPTY:
            return "empty"
        lower = upper = ""
        if not flags & _NO_LOWER:
            field, position = take(data, position)
            lower = bound(field)
        if not flags & _NO_UPPER:
            upper = bound(take(data, position)[0])
        return f"{'[' if flags & _LOWER_IN else '('}{lower},{upper}{']' if flags & _UPPER_IN else ')'}"

    return scalar(text, notes=subtype.notes)


def multirange(of: Codec) -> Codec:
    """{[1,3),[5,9)}."""

    def text(data: bytes) -> str:
        (count,) = struct.unpack_from(">I", data)
        position = 4
        found = []
        for _ in range(count):
            field, position = take(data, position)
            if field is None:
                raise ValueError("a range is NULL")
            found.append(of.text(field))
        return "{" + ",".join(found) + "}"

    return scalar(text, notes=of.notes)


def number_vector(element: Codec) -> Codec:
    """int2vector and oidvector: arrays whose text is the numbers with blanks between."""
    as_array = array(element)

    def text(data: bytes) -> str:
        return " ".join(_elements(data, element.text, "NULL")[1])

    def json_of_text(value: str) -> str:
        return f"[{','.join(map(element.json_of_text, value.split()))}]"

    return Codec(text, as_array.json, json_of_text)
