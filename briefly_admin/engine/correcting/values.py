"""Values as people type them: read by PostgreSQL, each by its column's type; what is none is said in plain words."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.corrections import Changes
from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.engine.catalog import CatalogColumn
from briefly_admin.engine.correcting.answers import invalid
from briefly_admin.engine.correcting.columns import JSON, LONGEST, MOMENTS, NUMBERS, TEXTS, WHOLE, Asked
from briefly_admin.engine.target import Connection
from briefly_admin.store.texts import storable

_HEADER: Final = 4
"""What varchar(n) adds to n in its typmod."""


def typed(column: CatalogColumn, text: str | None) -> sql.Composable:
    """The value of that text, in the column's type."""
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(column.type))


def require_changeable(columns: Sequence[Asked], changes: Changes) -> None:
    """Raises InvalidRequest where there is no such column, or it cannot be changed."""
    by_name = {column.name: column for column in columns}
    faults: dict[str, list[str]] = {}
    if not changes:
        raise InvalidRequest("Nothing was changed: no value is given.", remedy="Name a column and its new value.")
    for name in changes:
        column = by_name.get(name)
        why = column.why_fixed if column else "the table has no such column"
        if why:
            faults[name] = [f"cannot be changed here, because {why}"]
    if faults:
        raise invalid(faults)


def value_faults(connection: Connection, columns: Sequence[Asked], changes: Changes) -> dict[str, str]:
    """Column → why its text is no value of its type, for those that are none. Within a transaction."""
    by_name = {column.name: column for column in columns}
    faults = {name: fault for name, text in changes.items() if (fault := _fault_of_text(by_name[name], text))}
    asked = {name: text for name, text in changes.items() if name not in faults and text is not None}
    if asked and not _are_values(connection, by_name, asked):
        for name, text in asked.items():
            if not _are_values(connection, by_name, {name: text}):
                faults[name] = _words(by_name[name].column, text or "")
    return faults


def _fault_of_text(column: Asked, text: str | None) -> str:
    if text is None:
        return "" if column.column.nullable else "must not be missing"
    if storable(text) != text:
        return "has characters that PostgreSQL cannot hold"
    if len(text) > LONGEST:
        return f"is longer than {LONGEST:,} characters"
    limit = column.column.typmod - _HEADER
    if column.column.base_type in {"varchar", "bpchar"} and 0 < limit < len(text.rstrip(" ")):
        return f"is longer than {limit:,} characters"
    return ""


def _are_values(connection: Connection, columns: Mapping[str, Asked], texts: Changes) -> bool:
    values = sql.SQL(", ").join(typed(columns[name].column, text) for name, text in texts.items())
    try:
        with connection.transaction():
            connection.execute(sql.SQL("SELECT {}").format(values))
    except (psycopg.DataError, errors.IntegrityError):  # the latter: a domain's rule
        return False
    return True


def _words(column: CatalogColumn, text: str) -> str:
    """What a text should have been; the text itself is not repeated."""
    kind = column.base_type
    if kind in JSON:
        return _json_words(text)
    if kind in WHOLE:
        return f"is not a whole number, or is out of the range of {column.type}"
    for types, words in (
        (NUMBERS, f"is not a number, or is out of the range of {column.type}"),
        (MOMENTS, "is not a moment" if kind != "date" else "is not a date"),
        ({"bool"}, "is not true or false"),
        ({"uuid"}, "is not a UUID"),
        ({"_text", "_varchar", "_uuid"}, "is not a list as PostgreSQL writes it, such as {one,two}"),
        (TEXTS, f"is against the rule of its type {column.type}"),
    ):
        if kind in types:
            return words
    return f"is no value of the type {column.type}"


def _json_words(text: str) -> str:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except (ValueError, RecursionError):
        return "is not JSON that PostgreSQL can hold"
    return "is not JSON that PostgreSQL can hold"
