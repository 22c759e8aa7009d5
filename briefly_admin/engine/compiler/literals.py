"""A plan's choices and bounds as SQL."""

import datetime as dt
from decimal import Decimal
from typing import Any, Final

from psycopg import sql

_LARGEST_EXPONENT: Final = 5000


def is_storable(choice: object) -> bool:
    """Whether a PostgreSQL text can be equal to it."""
    return isinstance(choice, str) and "\0" not in choice and not any("\ud800" <= c <= "\udfff" for c in choice)


def exactly(value: Any) -> Decimal | None:
    """A number as Python compares it; None for NaN, the infinities, numbers out of all proportion, and others."""
    if not isinstance(value, int | float | Decimal):
        return None
    found = Decimal(value)
    if not found.is_finite() or (found and abs(found.adjusted()) > _LARGEST_EXPONENT):
        return None
    return found


def whole_number(value: Any) -> int | None:
    """An integer that is equal to it; None where none is."""
    found = exactly(value)
    return int(found) if found is not None and found == found.to_integral_value() else None


def numeric(value: Decimal) -> sql.Composable:
    """An integer as it is, a fraction as a numeric."""
    if value == value.to_integral_value():
        return sql.Literal(int(value))
    return sql.SQL("{}::numeric").format(sql.Literal(format(value, "f")))


def double(value: Any) -> sql.Composable | None:
    """A number that a double is exactly; None for others."""
    found = exactly(value)
    if found is None:
        return None
    try:
        as_float = float(found)
    except OverflowError:
        return None
    return sql.SQL("{}::float8").format(sql.Literal(repr(as_float))) if Decimal(as_float) == found else None


def temporal(value: Any, type_name: str) -> sql.Composable | None:
    """A value of `type_name` (date, time; timestamp of naive datetimes, timestamptz of aware ones); None of others."""
    wanted = {"date": dt.date, "time": dt.time, "timestamp": dt.datetime, "timestamptz": dt.datetime}[type_name]
    if type(value) is not wanted or not isinstance(value, dt.date | dt.time):
        return None
    if isinstance(value, dt.datetime | dt.time):
        offset = value.utcoffset()
        if (offset is not None) != (type_name == "timestamptz") or (offset and offset.microseconds):
            return None
    return sql.SQL("{}::{}").format(sql.Literal(value.isoformat()), sql.SQL(type_name))  # one of four names
