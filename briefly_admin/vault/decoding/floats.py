"""Floating point as PostgreSQL prints it since version 12: the shortest digits that give the same number back.

Source: src/common/d2s.c and f2s.c; fixed notation from 1e-4 to below 1e15 (double precision) or 1e6 (real).
"""

import decimal
import math
import struct
from array import array
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

_DOUBLE: Final = struct.Struct(">d").unpack
_SINGLE: Final = struct.Struct(">f").unpack
_FIXED_FROM: Final = 1e-4
_SINGLE_FIXED_BELOW: Final = 1e6
_DOUBLE_FIXED_BELOW, _DOUBLE_REPR_FIXED_BELOW = 1e15, 1e16
_SMALLEST_NORMAL: Final = 2.0**-126
_MOST_DIGITS: Final = 9
_MOST_DOUBLE_DIGITS: Final = 17
_DOUBLE_EDGED: Final = (2.0**53, 1e40)
_SINGLE_EDGED: Final = (2.0**24, 1e20)
"""Where a number of few enough digits can lie half way between two neighbours: whole, and divisible by a power of 5."""
_POWER_OF_TWO: Final = 0.5
"""What frexp gives of one."""


def double(value: float) -> str:
    """A double precision number."""
    if not math.isfinite(value):
        return _special(value)
    text = repr(value)
    size = abs(value)
    if _DOUBLE_EDGED[0] <= size < _DOUBLE_EDGED[1] and _at_edge(value, text):
        return _longer(value, text)
    if _DOUBLE_FIXED_BELOW <= size < _DOUBLE_REPR_FIXED_BELOW:
        digits = text.removesuffix(".0").lstrip("-").replace(".", "")
        return ("-" if value < 0 else "") + _exponential(digits, 15)
    return text.removesuffix(".0")


def singles(values: Sequence[float]) -> list[str]:
    """Single precision numbers, each."""
    if not all(map(math.isfinite, values)):
        return [singles((value,))[0] if math.isfinite(value) else _special(value) for value in values]
    nine, _ = _written(values, 9)
    eight, from_eight = _written(values, 8)
    seven, from_seven = _written(values, 7)
    texts = [
        seven[i] if from_seven[i] == value else eight[i] if from_eight[i] == value else nine[i]
        for i, value in enumerate(values)
    ]
    for i, value in enumerate(values):
        if from_seven[i] == value:
            (six,), (back,) = _written((value,), 6)
            texts[i] = six if back == value else texts[i]
        if value and not _FIXED_FROM <= abs(value) < _SINGLE_FIXED_BELOW:
            texts[i] = _in_form(value, texts[i])
    return texts


def _written(values: Sequence[float], digits: int) -> tuple[list[str], "array[float]"]:
    """The numbers with so many digits, and what comes back from that."""
    texts = (f"%.{digits}g " * len(values) % tuple(values)).split()
    return texts, array("f", map(float, texts))


def _in_form(value: float, text: str) -> str:
    """The text of a number that is not written in fixed notation."""
    size = abs(value)
    if size < _SMALLEST_NORMAL or _SINGLE_EDGED[0] <= size < _SINGLE_EDGED[1] or math.frexp(size)[0] == _POWER_OF_TWO:
        text = _shortest(value)
    mantissa, _, exponent = f"{float(text):.{_MOST_DIGITS - 1}e}".partition("e")
    digits = mantissa.lstrip("-").replace(".", "").rstrip("0")
    power = int(exponent)
    sign = "-" if value < 0 else ""
    if power == -4:  # noqa: PLR2004 - 1e-4, whose nearest real is below it
        return f"{sign}0.000{digits}"
    return sign + _exponential(digits, power)


def _shortest(value: float) -> str:
    """The slow way for a real about which those that give it back lie unevenly, or with a short one at their very edge:
    PostgreSQL takes none from the edge, half way to a neighbour.
    """
    (bits,) = struct.unpack(">I", struct.pack(">f", abs(value)))
    beside = struct.unpack(">2f", struct.pack(">2I", bits - 1, bits + 1))
    edges = {Fraction(abs(value)) + Fraction(each) for each in beside if math.isfinite(each)}
    exact = decimal.Decimal(value)
    for digits in range(1, _MOST_DIGITS):
        for rounding in (decimal.ROUND_HALF_EVEN, decimal.ROUND_UP):
            found = decimal.Context(digits, rounding).create_decimal(exact)
            if array("f", [float(found)])[0] == value and 2 * Fraction(abs(found)) not in edges:
                return str(found)
    return f"{value:.{_MOST_DIGITS}g}"


def _at_edge(value: float, text: str) -> bool:
    """Whether the text is half way to a neighbour."""
    twice, whole = 2 * int(decimal.Decimal(text)), int(value)
    return any(twice == whole + int(math.nextafter(value, end)) for end in (-math.inf, math.inf))


def _longer(value: float, text: str) -> str:
    """The shortest text of the number that is not half way to a neighbour."""
    for digits in range(len(decimal.Decimal(text).normalize().as_tuple().digits), _MOST_DOUBLE_DIGITS):
        text = f"{value:.{digits}e}"
        if float(text) == value and not _at_edge(value, text):
            break
    mantissa, _, power = text.partition("e")
    return ("-" if value < 0 else "") + _exponential(mantissa.lstrip("-").replace(".", ""), int(power))


def _exponential(digits: str, power: int) -> str:
    digits = digits.rstrip("0") or "0"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{fraction}e{power:+03d}"


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def float8(data: bytes) -> str:
    """The type double precision."""
    return double(_DOUBLE(data)[0])


def float4(data: bytes) -> str:
    """The type real."""
    return singles(_SINGLE(data))[0]


def _points(data: bytes) -> list[str]:
    numbers = [double(number) for number in struct.unpack(f">{len(data) // 8}d", data)]
    return [f"({x},{y})" for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


def point(data: bytes) -> str:
    """(x,y)."""
    (only,) = _points(data)
    return only


def lseg(data: bytes) -> str:
    """[(x,y),(x,y)]."""
    first, second = _points(data)
    return f"[{first},{second}]"


def box(data: bytes) -> str:
    """(x,y),(x,y)."""
    high, low = _points(data)
    return f"{high},{low}"


def line(data: bytes) -> str:
    """{A,B,C}."""
    return "{" + ",".join(map(double, struct.unpack(">3d", data))) + "}"


def path(data: bytes) -> str:
    """[…] where it is open, (…) where it is closed."""
    closed, count = struct.unpack_from(">bi", data)
    points = _counted(data[5:], count)
    return f"({points})" if closed else f"[{points}]"


def polygon(data: bytes) -> str:
    """((x,y),…)."""
    (count,) = struct.unpack_from(">i", data)
    return f"({_counted(data[4:], count)})"


def _counted(data: bytes, count: int) -> str:
    points = _points(data)
    if len(points) != count:
        raise ValueError("not as many points as it says")
    return ",".join(points)


def circle(data: bytes) -> str:
    """<(x,y),r>."""
    return f"<{point(data[:16])},{double(_DOUBLE(data[16:])[0])}>"


def vector(data: bytes) -> str:
    """The type vector of pgvector: [1,2,3]."""
    dimensions, _ = struct.unpack_from(">Hh", data)
    return f"[{','.join(singles(struct.unpack(f'>{dimensions}f', data[4:])))}]"


def halfvec(data: bytes) -> str:
    """The type halfvec of pgvector: [1,2,3]."""
    dimensions, _ = struct.unpack_from(">Hh", data)
    return f"[{','.join(singles(struct.unpack(f'>{dimensions}e', data[4:])))}]"


def sparsevec(data: bytes) -> str:
    """The type sparsevec of pgvector: {1:1.5,3:2}/5, counted from 1."""
    dimensions, count, _ = struct.unpack_from(">iii", data)
    found = struct.unpack(f">{count}i{count}f", data[12:])
    pairs = zip(found[:count], singles(found[count:]), strict=True)
    return "{" + ",".join(f"{place + 1}:{number}" for place, number in pairs) + f"}}/{dimensions}"
