"""Dates, times and intervals under DateStyle ISO, IntervalStyle postgres and TimeZone UTC.

Source: the send functions in PostgreSQL's date.c and timestamp.c, and EncodeDateTime, EncodeInterval in datetime.c.
"""

import datetime as dt
import struct
from functools import lru_cache
from typing import Final

from briefly_admin.vault.decoding.codec import json_string

_EPOCH: Final = dt.date(2000, 1, 1).toordinal()
_CYCLE: Final = 146_097
"""Days of 400 years."""
_SECOND: Final = 1_000_000
_DAY: Final = 86_400 * _SECOND
_INT4: Final = struct.Struct(">i").unpack
_INT8: Final = struct.Struct(">q").unpack
_TIMETZ: Final = struct.Struct(">qi").unpack
_INTERVAL: Final = struct.Struct(">qii").unpack
_DATE_INFINITE: Final = {(1 << 31) - 1: "infinity", -(1 << 31): "-infinity"}
_STAMP_INFINITE: Final = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}
_SPAN_INFINITE: Final = {
    ((1 << 63) - 1, (1 << 31) - 1, (1 << 31) - 1): "infinity",
    (-(1 << 63), -(1 << 31), -(1 << 31)): "-infinity",
}


@lru_cache(maxsize=1 << 14)
def _day(days: int) -> tuple[str, str]:
    """The date so many days after 2000-01-01, and what stands behind it: ' BC' or ''."""
    cycles, rest = divmod(days, _CYCLE)
    found = dt.date.fromordinal(_EPOCH + rest)
    year = found.year + 400 * cycles
    era = "" if year > 0 else " BC"
    return f"{year if year > 0 else 1 - year:04d}-{found.month:02d}-{found.day:02d}", era


def _clock(micros: int) -> str:
    """HH:MM:SS, and the fraction without its zeros at the end."""
    seconds, fraction = divmod(micros, _SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    whole = f"{hour:02d}:{minute:02d}:{second:02d}"
    return f"{whole}.{fraction:06d}".rstrip("0") if fraction else whole


def date(data: bytes) -> str:
    """2024-02-29."""
    (days,) = _INT4(data)
    return _DATE_INFINITE.get(days) or "".join(_day(days))


def time(data: bytes) -> str:
    """12:34:56.789."""
    return _clock(*_INT8(data))


def timetz(data: bytes) -> str:
    """12:34:56.789+05:30; the zone is kept in seconds west of Greenwich."""
    micros, west = _TIMETZ(data)
    minutes, second = divmod(abs(west), 60)
    hour, minute = divmod(minutes, 60)
    zone = f"{'-' if west > 0 else '+'}{hour:02d}"
    zone += f":{minute:02d}" if minute or second else ""
    return _clock(micros) + zone + (f":{second:02d}" if second else "")


def _stamp(data: bytes, zone: str) -> str:
    (micros,) = _INT8(data)
    if infinite := _STAMP_INFINITE.get(micros):
        return infinite
    days, rest = divmod(micros, _DAY)
    day, era = _day(days)
    return f"{day} {_clock(rest)}{zone}{era}"


def timestamp(data: bytes) -> str:
    """2024-02-29 12:34:56.789."""
    return _stamp(data, "")


def timestamptz(data: bytes) -> str:
    """2024-02-29 12:34:56.789+00."""
    return _stamp(data, "+00")


def timestamp_json(text: str) -> str:
    """ISO 8601, as row_to_json writes it."""
    return json_string(text.replace(" ", "T", 1))


def timestamptz_json(text: str) -> str:
    """ISO 8601, as row_to_json writes it."""
    return json_string(text.replace(" ", "T", 1).replace("+00", "+00:00", 1))


def interval(data: bytes) -> str:
    """1 year 2 mons -3 days +04:05:06."""
    micros, days, months = _INTERVAL(data)
    if infinite := _SPAN_INFINITE.get((micros, days, months)):
        return infinite
    sign = -1 if months < 0 else 1
    years, rest = divmod(abs(months), 12)
    parts: list[str] = []
    before = False
    for number, unit in ((sign * years, "year"), (sign * rest, "mon"), (days, "day")):
        if number:
            parts.append(f"{'+' if before and number > 0 else ''}{number} {unit}{'' if number == 1 else 's'}")
            before = number < 0
    if micros or not parts:
        mark = "-" if micros < 0 else "+" if before else ""
        parts.append(mark + _clock(abs(micros)))
    return " ".join(parts)
