"""Numbers, sizes, durations and moments as people read them. Pure functions; the app registers them as Jinja filters.

All of them turn None into an en dash, so that a value not known yet never breaks a page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

UNKNOWN: Final = "–"
_KIB: Final = 1024
_SIZES: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400
_WHOLE_FROM: Final = 100
"""From here on a decimal says nothing more."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time for `components/_time.html`: `iso` for machines, `relative` to read, `exact` in UTC on hover."""

    iso: str
    relative: str
    exact: str


def number(value: float | None) -> str:
    """1284003 → '1,284,003'; a fraction keeps one decimal below 100, none from there on."""
    if value is None:
        return UNKNOWN
    if value == int(value) or abs(value) >= _WHOLE_FROM:
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def percent(fraction: float | None, digits: int = 0) -> str:
    """0.684 → '68 %'. Rounded down: what is not done yet never reads 100 %."""
    if fraction is None:
        return UNKNOWN
    scale = 10**digits
    # The tiny addend undoes binary noise such as 0.29 * 100 = 28.999999999999996.
    return f"{int(fraction * 100 * scale + 1e-9) / scale:.{digits}f} %"


def size(count: float | None) -> str:
    """Bytes in words: 1 → '1 byte', 1536 → '1.5 KiB', 41943040 → '40 MiB'."""
    if count is None:
        return UNKNOWN
    if count < _KIB:
        return "1 byte" if count == 1 else f"{count:,.0f} bytes"
    value = float(count)
    unit = ""
    for unit in _SIZES:  # noqa: B007 - read after the loop
        value /= _KIB
        # 1023.95 would be written as 1,024.0 of this unit.
        if value < _KIB - 0.5:
            break
    return f"{number(round(value, 1))} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds in words: 0.4 → '0.4 s', 38 → '38 s', 252 → '4 min 12 s', 3900 → '1 h 5 min', 180000 → '2 d 2 h'."""
    if seconds is None:
        return UNKNOWN
    seconds = max(seconds, 0)
    if seconds < 1:
        return f"{seconds:.1f} s" if seconds and round(seconds, 1) not in {0, 1} else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 10 * _MINUTE:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < 2 * _DAY:
        return _two(_nearest(whole, _MINUTE), _HOUR, "h", _MINUTE, "min")
    return _two(_nearest(whole, _HOUR), _DAY, "d", _HOUR, "h")


def about(seconds: float | None) -> str:
    """A guess in words, in one unit up to the hour: 23 → '23 s', 131 → '2 min', 5500 → '1 h 32 min'."""
    if seconds is None or seconds >= _HOUR - _MINUTE / 2:
        return duration(seconds)
    whole = round(max(seconds, 0))
    return f"{whole} s" if whole < 1.5 * _MINUTE else f"{_nearest(whole, _MINUTE) // _MINUTE} min"


def relative(moment: datetime | None, now: datetime) -> str:
    """'just now', '8 s ago', '2 h ago', 'in 3 h', '5 d ago'; both with a time zone."""
    if moment is None:
        return UNKNOWN
    seconds = (moment - now).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    words = _largest(int(abs(seconds)))
    return f"in {words}" if seconds > 0 else f"{words} ago"


def moment(value: datetime, now: datetime) -> Moment:
    """A point in time as the time component wants it; `value` without a time zone is taken for UTC."""
    aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return Moment(
        iso=aware.strftime("%Y-%m-%dT%H:%M:%SZ"),
        relative=relative(aware, now),
        exact=aware.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def filters(clock: Callable[[], datetime]) -> dict[str, Callable[..., Any]]:
    """The Jinja filters by name: number, percent, bytes, duration, about, and moment (datetime → Moment, or None)."""
    return {
        "number": number,
        "percent": percent,
        "bytes": size,
        "duration": duration,
        "about": about,
        "moment": lambda value: None if value is None else moment(value, clock()),
    }


def _two(whole: int, large: int, large_unit: str, small: int, small_unit: str) -> str:
    """`whole` seconds in two units, leaving out one that is zero."""
    many, rest = divmod(whole, large)
    few = rest // small
    parts = [f"{many:,} {large_unit}"] if many else []
    if few or not many:
        parts.append(f"{few} {small_unit}")
    return " ".join(parts)


def _nearest(whole: int, unit: int) -> int:
    """`whole` rounded to a multiple of `unit`, halves up."""
    return (whole + unit // 2) // unit * unit


def _largest(whole: int) -> str:
    """Seconds in the one unit that suits them, rounded down; hours reach to two days, as backups are spoken of."""
    for unit, length, below in (("s", 1, _MINUTE), ("min", _MINUTE, _HOUR), ("h", _HOUR, 2 * _DAY)):
        if whole < below:
            return f"{whole // length} {unit}"
    return f"{whole // _DAY:,} d"
