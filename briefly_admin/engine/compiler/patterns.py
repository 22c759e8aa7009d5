"""Python's regular expressions as PostgreSQL's: narrower where they differ, so that what matches surely matches.

Only a subset is translated (no flags, look-around, back-references, possessive repeats); for the rest Python decides.
Positive contexts alone are kept, so that a narrower part makes a narrower whole.
"""

import re
from importlib import import_module
from typing import Any, Final

_parser: Final[Any] = import_module("re._parser")  # the standard library's own; there is no public parse tree

_ATOM: Final = r"[-A-Za-z0-9_!#$%&'*+/=?^`{|}~]+"
EMAIL: Final = rf"^{_ATOM}(\.{_ATOM})*@([A-Za-z0-9]+(-+[A-Za-z0-9]+)*\.)+[A-Za-z]{{2,}}$"
"""Narrower than marshmallow's: ASCII, no quoted names, a domain ending in letters. Labels need at most 63 characters
besides, which a whole of at most 64 grants."""
EMAIL_LENGTH: Final = 64

_MOST_REPEATS: Final = 255
_LAST_ASCII: Final = 127
_CATEGORIES: Final = {"CATEGORY_DIGIT": "0-9", "CATEGORY_WORD": "A-Za-z0-9_", "CATEGORY_SPACE": r" \t\n\r\f\v"}
_ANCHORS: Final = {
    "AT_BEGINNING": r"\A",
    "AT_BEGINNING_STRING": r"\A",
    "AT_END": r"\Z",
    "AT_END_STRING": r"\Z",
}


class _Untranslatable(Exception):
    """Python must decide."""


def narrower(pattern: re.Pattern[str]) -> str | None:
    """A PostgreSQL expression whose matches Python's `match` surely takes, or None where none is known."""
    if pattern.flags != re.UNICODE:
        return None
    try:
        return rf"\A(?:{_sequence(_parser.parse(pattern.pattern))})"
    except _Untranslatable:
        return None


def _sequence(nodes: Any, *, repeated: bool = False) -> str:
    return "".join(_node(str(operator), argument, repeated=repeated) for operator, argument in nodes)


def _node(operator: str, argument: Any, *, repeated: bool) -> str:  # noqa: PLR0911 - a table of cases
    if operator == "LITERAL":
        return _character(argument)
    if operator == "NOT_LITERAL":
        return f"[^{_character(argument)}]"
    if operator == "ANY":
        return r"[^\n]"
    if operator == "IN":
        return _set(argument)
    if operator == "AT" and str(argument) in _ANCHORS and not repeated:
        return _ANCHORS[str(argument)]
    if operator in {"MAX_REPEAT", "MIN_REPEAT"}:
        return _repeat(*argument)
    if operator == "SUBPATTERN":
        _, added, removed, nodes = argument
        if not added and not removed:
            return f"(?:{_sequence(nodes, repeated=repeated)})"
    if operator == "BRANCH":
        return f"(?:{'|'.join(_sequence(nodes, repeated=repeated) for nodes in argument[1])})"
    raise _Untranslatable


def _repeat(lowest: Any, highest: Any, nodes: Any) -> str:
    unbounded = highest == _parser.MAXREPEAT
    if lowest > _MOST_REPEATS or (not unbounded and highest > _MOST_REPEATS):
        raise _Untranslatable
    return f"(?:{_sequence(nodes, repeated=True)}){{{lowest},{'' if unbounded else highest}}}"


def _set(items: Any) -> str:
    parts, negated = [], False
    for operator, argument in items:
        name = str(operator)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            parts.append(_character(argument))
        elif name == "RANGE":
            parts.append(f"{_character(argument[0])}-{_character(argument[1])}")
        elif name == "CATEGORY" and str(argument) in _CATEGORIES and not negated:
            parts.append(_CATEGORIES[str(argument)])
        else:
            raise _Untranslatable
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _character(code: int) -> str:
    character = chr(code)
    if code == 0 or 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 - surrogates: neither can stand in a PostgreSQL text
        raise _Untranslatable
    if code <= _LAST_ASCII and character.isalnum():
        return character
    return f"\\U{code:08X}"
