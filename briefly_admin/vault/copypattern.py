"""A pattern of the rows that a COPY stream holds, learnt from those that came: `re` then walks them, not Python.

A row whose fields have lengths that were seen before is matched byte for byte; any other row does not match and is
for the caller to walk. What the pattern accepts is a row: the count of fields, and each field's length and bytes.
"""

import re
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

_LEARN: Final = 256
"""Rows that were walked before a pattern is made; four times as many in all before each wider one."""
_MOST_LEARNT: Final = _LEARN * 4**2
_LENGTHS: Final = 64
"""Lengths of one field that the pattern knows at most: the most frequent ones."""
_COLUMNS: Final = 100
"""A pattern of more fields is not worth its making."""
_LENGTH: Final = struct.Struct(">i")
_length_at: Final = _LENGTH.unpack_from


class RowPattern:
    """Rows of `columns` fields; `key`: positions of the key's columns, in key order."""

    def __init__(self, columns: int, key: Sequence[int]) -> None:
        self._count = struct.pack(">h", columns)
        self._key = frozenset(key)
        # Groups of a match: the row, then the key's columns as they stand in it.
        self._parts = itemgetter(*(1 + sorted(key).index(place) for place in key)) if key else None
        self._lengths: list[Counter[int]] = [Counter() for _ in range(columns)]
        self._wanted = _LEARN if 0 < columns <= _COLUMNS else 0
        self._learnt = self._taken = 0
        self._row: re.Pattern[bytes] | None = None
        self._run: re.Pattern[bytes] | None = None

    def learn(self, row: bytes) -> None:
        """Take a row that had to be walked, its bytes without the field count."""
        if not self._wanted:
            return
        position = 0
        for lengths in self._lengths:
            (length,) = _length_at(row, position)
            lengths[length] += 1
            position += 4 + max(length, 0)
        self._learnt += 1
        if self._learnt == self._wanted:
            self._make()

    def take(self, buffer: bytes, position: int, rows: list[bytes], keys: list[bytes], *, hopeful: bool) -> int:
        """Add the rows from `position` on, up to the first that the pattern does not know; where that one begins.

        `hopeful`: all rows of the buffer may well be known, which is tried first.
        """
        if self._row is None or self._run is None:
            return position
        if hopeful:
            known, parts = self._find(self._row.findall(buffer, position))
            # A search passes over what it does not know: the rows must be the buffer's bytes without a gap.
            taken = self._count.join([b"", *known])
            hopeful = buffer.startswith(taken, position)
            end = position + len(taken)
        if not hopeful:
            run = self._run.match(buffer, position)
            end = run.end() if run else position
            known, parts = self._find(self._row.findall(buffer, position, end))
        self._taken += len(known)
        rows += known
        keys += parts
        return end

    def _find(self, found: list[Any]) -> tuple[list[bytes], Iterable[bytes]]:
        """The rows and the keys of what `findall` gave: texts, or tuples of groups where there is a key."""
        if self._parts is None:
            return found, ()
        parts = map(self._parts, found)
        return [each[0] for each in found], parts if len(self._key) == 1 else map(b"".join, parts)

    def _make(self) -> None:
        """From what was learnt; not where a pattern has been of little use."""
        if self._learnt == _MOST_LEARNT and self._taken < self._learnt:
            self._row = self._run = None
            self._wanted = 0
            return
        self._wanted = self._learnt * 4 if self._learnt < _MOST_LEARNT else 0
        fields = [_field(lengths) for lengths in self._lengths]
        count = re.escape(self._count)
        grouped = [b"(%b)" % field if place in self._key else field for place, field in enumerate(fields)]
        self._row = re.compile(b"%b(%b)" % (count, b"".join(grouped)), re.DOTALL)
        # Possessive: the lengths leave no choice, so there is nothing to come back to.
        self._run = re.compile(b"(?:%b%b)*+" % (count, b"".join(fields)), re.DOTALL)


def _field(lengths: Counter[int]) -> bytes:
    """The pattern of one field: its length in four bytes, and so many."""
    options = [
        re.escape(_LENGTH.pack(length)) + (b".{%d}" % length if length > 0 else b"")
        for length, _ in lengths.most_common(_LENGTHS)
    ]
    return b"(?:%b)" % b"|".join(options)
