"""A table's rows as a file: COPY binary as it is, CSV as COPY writes it, or one JSON object a line.

A form's pieces are `header()`, `rows(…)` as often as there are blocks, `trailer()`. Source: CopyAttributeOutCSV in
PostgreSQL's copyto.c, and row_to_json.
"""

import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from briefly_admin.domain.manifest import ColumnManifest, TableManifest
from briefly_admin.vault.copybinary import HEADER, TRAILER
from briefly_admin.vault.decoding.codec import UNREADABLE, hexadecimal, json_string
from briefly_admin.vault.decoding.types import Types

_CSV_ODD: Final = re.compile(r'[",\n\r]')
_END_OF_DATA: Final = "\\."
_length_at: Final = struct.Struct(">i").unpack_from
_Reader = Callable[[bytes], str]


class Form(Protocol):
    """What a file of one table is made of."""

    def header(self) -> bytes:
        """What stands before the rows."""

    def rows(self, rows: Sequence[bytes]) -> bytes:
        """These rows; each is its fields as COPY binary has them, without the field count."""

    def trailer(self) -> bytes:
        """What stands behind the rows."""

    def notes(self) -> list[str]:
        """What is not as PostgreSQL would print it; complete once all rows were given."""


class BinaryForm:
    """One COPY binary."""

    def __init__(self, table: TableManifest, _types: Types) -> None:
        self._count = struct.pack(">h", len(table.columns))
        self._kept_as_text = [
            f"{column.name}: its type {column.type} has no binary form; the column holds text, as tables.sql knows."
            for column in table.columns
            if not column.binary
        ]

    def header(self) -> bytes:
        """COPY's."""
        return HEADER

    def rows(self, rows: Sequence[bytes]) -> bytes:
        """The same, with their field counts."""
        return self._count + self._count.join(rows) if rows else b""

    def trailer(self) -> bytes:
        """COPY's."""
        return TRAILER

    def notes(self) -> list[str]:
        """Columns that are kept as text."""
        return self._kept_as_text


class _Lines(ABC):
    """Forms of one line a row."""

    def __init__(self, table: TableManifest, types: Types) -> None:
        self._columns: tuple[ColumnManifest, ...] = table.columns
        codecs = [types.of_column(column) for column in table.columns]
        self._notes = [
            f"{column.name}: {note}"
            for column, codec in zip(table.columns, codecs, strict=True)
            for note in codec.notes
        ]
        self._odd = [0] * len(table.columns)
        self._readers: list[_Reader] = []
        self._null = ""

    def header(self) -> bytes:
        return b""

    def trailer(self) -> bytes:
        return b""

    def notes(self) -> list[str]:
        """What was said of the types, and how many values were not in their type's form."""
        return self._notes + [
            f"{column.name}: {count:,} values are not in the form of {column.type} that is known here; "
            "they are written as their bytes in hexadecimal."
            for column, count in zip(self._columns, self._odd, strict=True)
            if count
        ]

    def rows(self, rows: Sequence[bytes]) -> bytes:
        readers, null = self._readers, self._null
        lines = []
        for row in rows:
            position = 0
            cells = []
            try:
                for read in readers:
                    (length,) = _length_at(row, position)
                    position += 4
                    if length < 0:
                        cells.append(null)
                    else:
                        cells.append(read(row[position : (position := position + length)]))
            except UNREADABLE:
                cells = self._one_by_one(row)
            lines.append(self._line(cells))
        return "".join(lines).encode("utf-8", "surrogateescape")

    def _one_by_one(self, row: bytes) -> list[str]:
        """The cells of a row of which a value cannot be read: that one as hexadecimal."""
        position = 0
        cells = []
        for place, read in enumerate(self._readers):
            (length,) = _length_at(row, position)
            field = row[position + 4 : position + 4 + max(length, 0)]
            position += 4 + max(length, 0)
            try:
                cells.append(self._null if length < 0 else read(field))
            except UNREADABLE:
                self._odd[place] += 1
                cells.append(self._strange(field))
        return cells

    @abstractmethod
    def _line(self, cells: list[str]) -> str: ...

    def _strange(self, field: bytes) -> str:
        return hexadecimal(field)


class CsvForm(_Lines):
    """As `COPY … (FORMAT csv, HEADER)` writes it: NULL is nothing, an empty text is quoted."""

    def __init__(self, table: TableManifest, types: Types) -> None:
        super().__init__(table, types)
        self._alone = len(table.columns) == 1
        codecs = [types.of_column(column) for column in table.columns]
        self._readers = [codec.text if codec.plain else self._quoting(codec.text) for codec in codecs]

    def header(self) -> bytes:
        """The columns' names."""
        names = [self._quoted(column.name) for column in self._columns]
        return self._line(names).encode("utf-8", "surrogateescape")

    def _line(self, cells: list[str]) -> str:
        return ",".join(cells) + "\n"

    def _quoted(self, text: str) -> str:
        if text and not _CSV_ODD.search(text) and not (self._alone and text == _END_OF_DATA):
            return text
        return '"' + text.replace('"', '""') + '"'

    def _quoting(self, read: _Reader) -> _Reader:
        return lambda data: self._quoted(read(data))


class JsonForm(_Lines):
    """As row_to_json writes it, a row a line."""

    def __init__(self, table: TableManifest, types: Types) -> None:
        super().__init__(table, types)
        self._null = "null"
        self._readers = [types.of_column(column).json for column in table.columns]
        self._keys = [f"{json_string(column.name)}:" for column in table.columns]

    def _line(self, cells: list[str]) -> str:
        return "{" + ",".join(map(str.__add__, self._keys, cells)) + "}\n"

    def _strange(self, field: bytes) -> str:
        return json_string(hexadecimal(field))


FORMS: Final[dict[str, tuple[str, Callable[[TableManifest, Types], Form]]]] = {
    "binary": ("copy", BinaryForm),
    "csv": ("csv", CsvForm),
    "ndjson": ("ndjson", JsonForm),
}
"""Form → the files' suffix, and what writes them."""
