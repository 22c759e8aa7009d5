"""How the values of one type are read from their binary send form: as PostgreSQL's text, and as a JSON value."""

import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

UNREADABLE: Final = (struct.error, IndexError, KeyError, ValueError, OverflowError, RecursionError)
"""What a reader raises for bytes that are not in its type's form."""

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_length_at: Final = struct.Struct(">i").unpack_from


@dataclass(frozen=True, slots=True)
class Codec:
    """One type's readers. They raise one of UNREADABLE for bytes that are not in its form.

    `text` is the type's output function, `json` what row_to_json makes of the value, `json_of_text` the same from its
    text. `plain`: the text has only letters, digits, and `+-.:`, and is never empty, so that it needs quotes nowhere.
    `delimiter` stands between the elements of its arrays. `notes` says what is not as PostgreSQL would print it.
    """

    text: Callable[[bytes], str]
    json: Callable[[bytes], str]
    json_of_text: Callable[[str], str]
    plain: bool = False
    delimiter: str = ","
    notes: tuple[str, ...] = ()


def scalar(
    text: Callable[[bytes], str],
    to_json: Callable[[str], str] | None = None,
    *,
    plain: bool = False,
    delimiter: str = ",",
    notes: tuple[str, ...] = (),
) -> Codec:
    """A type whose JSON follows from its text: a string unless `to_json` says otherwise."""
    convert = to_json or json_string
    return Codec(text, lambda data: convert(text(data)), convert, plain, delimiter, notes)


def decoded(data: bytes) -> str:
    """Text in the session's encoding, UTF-8; other bytes, of a database without an encoding, survive as they are."""
    return str(data, "utf-8", "surrogateescape")


def hexadecimal(data: bytes) -> str:
    r"""As bytea prints: `\x…`."""
    return "\\x" + data.hex()


def json_string(text: str) -> str:
    """The text as a JSON string, escaped as PostgreSQL does."""
    return json.dumps(text, ensure_ascii=False)


def json_number(text: str) -> str:
    """The same digits where it is a number; NaN and the infinities are strings."""
    return text if _NUMBER.fullmatch(text) else json_string(text)


def json_inline(text: str) -> str:
    """JSON as it is, on one line: line breaks in it are white space between tokens."""
    return text.replace("\r", " ").replace("\n", " ")


def take(data: bytes, position: int) -> tuple[bytes | None, int]:
    """The field at `position` (i32 length, −1 for NULL, and its bytes) and where the next one begins."""
    (length,) = _length_at(data, position)
    start = position + 4
    if length < 0:
        return None, start
    end = start + length
    if end > len(data):
        raise ValueError("a field reaches beyond its value")
    return data[start:end], end


TEXT: Final = scalar(decoded)


def unknown(name: str) -> Codec:
    """A type that is not known: its bytes, in hexadecimal."""
    note = f"The type {name} is not known here: its values are written as their bytes in hexadecimal."
    return scalar(hexadecimal, notes=(note,))
