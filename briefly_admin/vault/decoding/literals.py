"""Array and composite literals, read back: for columns whose type has no binary form and that were kept as text."""

import re
from collections.abc import Callable
from typing import Final

_BOUNDS: Final = re.compile(r"(?:\[-?[0-9]+:-?[0-9]+\])+=")
_COMPOSITE_PART: Final = re.compile(r'"((?:[^"\\]|\\.|"")*)"|([^",()\\]+)', re.DOTALL)


_FOLLOWS: Final = {
    "": {"open"},
    "open": {"open", "close", "quoted", "bare"},
    "next": {"open", "quoted", "bare"},
    "quoted": {"next", "close"},
    "bare": {"next", "close"},
    "close": {"next", "close"},
}
"""Which piece of an array literal may stand behind which."""


def array_json(text: str, delimiter: str, item: Callable[[str], str]) -> str:
    """An array literal, as array_out writes it, as JSON. Raises ValueError."""
    mark = re.escape(delimiter)
    piece = re.compile(
        rf'(?P<open>\{{)|(?P<close>\}})|(?P<next>{mark})|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^{{}}"\\{mark}]+)',
        re.DOTALL,
    )
    bounds = _BOUNDS.match(text)
    position = bounds.end() if bounds else 0
    parts: list[str] = []
    depth, before = 0, ""
    while position < len(text):
        found = piece.match(text, position)
        kind = str(found.lastgroup) if found else ""
        if found is None or kind not in _FOLLOWS[before] or (before and not depth):
            raise ValueError("not an array literal")
        depth += {"open": 1, "close": -1}.get(kind, 0)
        parts.append(_array_part(kind, found[kind], item))
        position, before = found.end(), kind
    if depth or not before:
        raise ValueError("not an array literal")
    return "".join(parts)


def _array_part(kind: str, text: str, item: Callable[[str], str]) -> str:
    if kind == "quoted":
        return item(re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL))
    if kind == "bare":
        return "null" if text.upper() == "NULL" else item(text)
    return {"open": "[", "close": "]", "next": ","}[kind]


def composite_fields(text: str) -> list[str | None]:
    """The fields of a composite literal, as record_out writes it; None for NULL. Raises ValueError."""
    if not (text.startswith("(") and text.endswith(")")):
        raise ValueError("not a composite literal")
    fields: list[str | None] = []
    position, end = 1, len(text) - 1
    while True:
        part = _COMPOSITE_PART.match(text, position, end)
        fields.append(_composite_part(part) if part else None)
        position = part.end() if part else position
        if position == end:
            return fields
        if text[position] != ",":
            raise ValueError("not a composite literal")
        position += 1


def _composite_part(part: re.Match[str]) -> str:
    quoted = part[1]
    return str(part[2]) if quoted is None else re.sub(r'\\(.)|"(")', r"\1\2", quoted, flags=re.DOTALL)
