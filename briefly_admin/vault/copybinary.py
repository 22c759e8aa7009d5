"""PostgreSQL's COPY binary format, walked row by row as it streams past.

signature 11 bytes ‖ u32 flags ‖ u32 length of an extension ‖ extension ‖ rows ‖ i16 −1; a row is i16 field count and,
for each field, i32 length (−1 for NULL) ‖ bytes. Source: the manual's page on COPY, "Binary Format".
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.vault.copypattern import RowPattern

SIGNATURE: Final = b"PGCOPY\n\xff\r\n\x00"
HEADER: Final = SIGNATURE + bytes(8)
"""As every PostgreSQL writes it: no flags, no extension."""
TRAILER: Final = b"\xff\xff"

MAX_FIELD: Final = 1 << 30
"""Bytes of a field, and of a row: PostgreSQL's own limit."""
BLOCK_SIZE: Final = 1 << 18
"""Small chunks (libpq gives one a row) are gathered to blocks of about so many bytes."""

_MAX_EXTENSION: Final = 1 << 16
_CRITICAL_FLAGS: Final = 0xFFFF0000
_PREAMBLE: Final = struct.Struct(">11sII")
_count_at: Final = struct.Struct(">h").unpack_from
_length_at: Final = struct.Struct(">i").unpack_from


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one block: each row's bytes without its field count, and, if asked for, its key's fields joined."""

    rows: list[bytes]
    keys: list[bytes]


class _Incomplete(Exception):
    """The row at hand needs the buffer to hold `needed` bytes at least."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


class CopyParser:
    """Takes a COPY binary stream in pieces of any size; gives its rows, and refuses all that is not one.

    `columns`: fields that every row must have. `key`: positions of the key's columns, in key order.
    """

    def __init__(self, columns: int, key: Sequence[int] = ()) -> None:
        if not all(0 <= position < columns for position in key):
            raise ValueError("a key column lies outside the row")
        self.row_count = 0
        self._columns = columns
        ascending = sorted(key)
        self._order = [ascending.index(position) for position in key]
        # Fields to pass over before each key column, and behind the last one.
        self._gaps = [after - before - 1 for before, after in zip([-1, *ascending], ascending, strict=False)]
        self._rest = columns - (ascending[-1] + 1 if ascending else 0)
        self._pattern = RowPattern(columns, key)
        self._pending = b""
        self._begun = False
        self._ended = False
        self.needed = _PREAMBLE.size
        """Bytes, with those kept back, that bring the next row; feeding fewer is allowed, and slow."""

    def feed(self, data: bytes) -> Rows:
        """The rows that are complete with `data`. Raises BackupDamaged."""
        buffer = self._pending + data if self._pending else data
        position = 0
        found = Rows([], [])
        try:
            if not self._begun:
                position = self._header(buffer)
                self._begun = True
            hopeful = True
            while not self._ended:
                position = self._pattern.take(buffer, position, found.rows, found.keys, hopeful=hopeful)
                position = self._row(buffer, position, found)
                hopeful = False
        except _Incomplete as incomplete:
            self.needed = incomplete.needed
        self.row_count += len(found.rows)
        if self._ended and position < len(buffer):
            raise self._damaged("bytes follow the trailer")
        self._pending = buffer[position:]
        return found

    @property
    def pending(self) -> int:
        """Bytes kept back for the next row."""
        return len(self._pending)

    def finish(self) -> None:
        """The stream is over. Raises BackupDamaged if it is not whole."""
        if not self._ended:
            raise self._damaged("it ends before its trailer")

    def _header(self, buffer: bytes) -> int:
        if len(buffer) < _PREAMBLE.size:
            if not SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
                raise self._damaged("it does not begin with COPY's signature")
            raise _Incomplete(_PREAMBLE.size)
        signature, flags, extension = _PREAMBLE.unpack_from(buffer)
        if signature != SIGNATURE:
            raise self._damaged("it does not begin with COPY's signature")
        if flags & _CRITICAL_FLAGS:
            raise self._damaged(f"it has flags that are not known ({flags:#x})")
        if extension > _MAX_EXTENSION:
            raise self._damaged(f"its header extension has {extension} bytes")
        end: int = _PREAMBLE.size + extension
        if len(buffer) < end:
            raise _Incomplete(end)
        return end

    def _row(self, buffer: bytes, start: int, found: Rows) -> int:
        """Take the row at `start`; where it ends."""
        size = len(buffer)
        if size - start < len(TRAILER):
            raise _Incomplete(len(TRAILER))
        (count,) = _count_at(buffer, start)
        begin = start + 2
        if count != self._columns:
            if count != -1:
                raise self._damaged(f"row {self._number(found)} has {count} fields instead of {self._columns}")
            self._ended = True
            return begin
        spans = []
        position = begin
        try:
            for gap in self._gaps:
                first = self._pass(buffer, position, gap, found)
                position = self._pass(buffer, first, 1, found)
                spans.append((first, position))
            position = self._pass(buffer, position, self._rest, found)
        except _Incomplete as incomplete:
            raise self._awaiting(incomplete.needed - start, found) from None
        if position > size:
            raise self._awaiting(position - start, found)
        row = buffer[begin:position]
        self._pattern.learn(row)
        found.rows.append(row)
        if spans:
            found.keys.append(b"".join([buffer[slice(*spans[place])] for place in self._order]))
        return position

    def _pass(self, buffer: bytes, position: int, fields: int, found: Rows) -> int:
        """The position behind so many fields; the last one may reach beyond the buffer."""
        try:
            for _ in range(fields):
                (length,) = _length_at(buffer, position)
                if length > 0:
                    position += length + 4
                elif length >= -1:
                    position += 4
                else:
                    raise self._damaged(f"row {self._number(found)} has a field of {length} bytes")
        except struct.error:
            raise _Incomplete(position + 4) from None
        return position

    def _awaiting(self, needed: int, found: Rows) -> _Incomplete:
        if needed > MAX_FIELD + 4 * self._columns:
            raise self._damaged(f"row {self._number(found)} is longer than {MAX_FIELD} bytes")
        return _Incomplete(needed)

    def _number(self, found: Rows) -> int:
        return self.row_count + len(found.rows) + 1

    def _damaged(self, what: str) -> BackupDamaged:
        return BackupDamaged(
            f"The data is no COPY binary stream: {what}.", damages=[what], remedy="Use another backup."
        )


def blocks(parser: CopyParser, chunks: Iterable[bytes]) -> Iterator[tuple[bytes, Rows]]:
    """Gather chunks to blocks and parse each: (the block's bytes, its rows). Raises BackupDamaged.

    Memory is a block, or twice the largest row.
    """
    gathered: list[bytes] = []
    size, wanted = 0, BLOCK_SIZE
    for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size < wanted:
            continue
        block = b"".join(gathered)
        yield block, parser.feed(block)
        # A row kept back doubles what is awaited, so that a huge row of many fields is not walked again and again.
        size, wanted = 0, max(BLOCK_SIZE, parser.needed - parser.pending, parser.pending)
        gathered = []
    block = b"".join(gathered)
    yield block, parser.feed(block)
    parser.finish()
