"""What a preview must count and a rollback must leave, row by row in plain Python, from three sets of rows.

B: the rows when the backup was taken. M: as the migration left them. C: as they are now. Nothing of the engine or of
the plan is used here: rows are read as COPY writes them, and the classes are those of the design's words.
"""

import struct
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql

from tests.faults.oracle import TABLES

Row = dict[str, bytes | None]
"""Column → its field as COPY binary writes it; None for NULL."""
Rows = dict[str, dict[bytes, Row]]
"""Table → id → row."""
CLASSES = ("untouched", "migrated", "edited", "created", "deleted")
_HEADER = 19
_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = {}::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""


def read(url: str) -> Rows:
    """All rows of the eight tables."""
    with psycopg.connect(url, autocommit=True) as connection:
        return read_by(connection)


def read_by(connection: psycopg.Connection[Any]) -> Rows:
    """The same, by a session outside a transaction."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return {table: _read_table(connection, table) for table in TABLES}


def _read_table(connection: psycopg.Connection[Any], table: str) -> dict[bytes, Row]:
    query = sql.SQL(_COLUMNS).format(sql.Literal(f"public.{table}"))
    names = [str(name) for (name,) in connection.execute(query)]
    listed = sql.SQL(", ").join(map(sql.Identifier, names))
    found = copied(connection, sql.SQL("SELECT {} FROM public.{}").format(listed, sql.Identifier(table)))
    rows = [dict(zip(names, fields, strict=True)) for fields in found]
    return {row["id"] or b"": row for row in rows}


def copied(connection: psycopg.Connection[Any], query: sql.Composable) -> list[list[bytes | None]]:
    """A query's rows, each its fields as COPY binary writes them."""
    with connection.cursor().copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(query)) as blocks:
        data = b"".join(blocks)
    rows, at = [], _HEADER
    while (count := struct.unpack_from(">h", data, at)[0]) >= 0:
        at += 2
        fields: list[bytes | None] = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            at += 4
            fields.append(data[at : at + length] if length >= 0 else None)
            at += max(length, 0)
        rows.append(fields)
    return rows


def _has_embedding(chunk: Row) -> bool:
    return chunk["embedding"] is not None or chunk["embedding_id"] is not None


_DERIVED: Mapping[str, Mapping[str, tuple[str, str, Callable[[Row], bool]]]] = {
    "file_metadata": {
        "chunk_count": ("document_chunks", "file_id", lambda _: True),
        "embedding_count": ("document_chunks", "file_id", _has_embedding),
    },
    "conversations": {"message_count": ("chat_messages", "conversation_id", lambda _: True)},
}
"""Table → column → the child whose rows it counts, the child's reference, and which of them."""


def derived(table: str) -> frozenset[str]:
    """The table's columns that are counted from children."""
    return frozenset(_DERIVED.get(table, {}))


class Counted:
    """What the derived columns would be, counted over one set of rows."""

    def __init__(self, rows: Rows) -> None:
        self._found = {
            (table, column): Counter(child[reference] for child in rows[children].values() if counts(child))
            for table, columns in _DERIVED.items()
            for column, (children, reference, counts) in columns.items()
        }

    def of(self, table: str, column: str, key: bytes) -> bytes:
        """As COPY writes an integer."""
        return struct.pack(">i", self._found[table, column][key])


@dataclass(frozen=True)
class Settled:
    """How one edited row is settled: keep, restore or edit, with the new fields."""

    how: str
    values: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """What is to become of rows that are not the migration's alone; as it is when nobody chooses anything."""

    edited: str = "keep"
    created: str = "keep"
    deleted: str = "leave"
    settled: Mapping[tuple[str, bytes], Settled] = field(default_factory=dict)


class ThreeWays:
    """The three sets of rows beside one another.

    `uncounted`: table → columns that say nothing of who changed a row; `tables`: those that are rolled back; `going`:
    table → columns that go with the schema changes.
    """

    def __init__(
        self, before: Rows, migrated: Rows, now: Rows, uncounted: Mapping[str, frozenset[str]],
        tables: Collection[str] = TABLES, going: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self._before, self._migrated, self.now = before, migrated, now
        self._uncounted, self.tables, self.going = uncounted, tables, going
        self._counted_before, self._counted_now = Counted(before), Counted(now)
        self.classes = {
            table: {key: self._class(table, key) for key in sorted(before[table].keys() | now[table].keys())}
            for table in tables
        }

    def _class(self, table: str, key: bytes) -> str:
        before, now = self._before[table].get(key), self.now[table].get(key)
        if now is None:
            return "deleted"
        if before is None:
            return "created"
        names = before.keys() - self._uncounted.get(table, frozenset())
        if all(now[name] == before[name] for name in names):
            return "untouched"
        migrated = self._migrated[table][key]
        for name in names:
            right = {migrated[name]}
            if name in derived(table):
                counts = (counted.of(table, name, key) for counted in (self._counted_before, self._counted_now))
                right |= {before[name], *counts}
            if now[name] not in right:
                return "edited"
        return "migrated"

    def counts(self) -> dict[str, dict[str, int]]:
        """Table → class → rows."""
        return {
            table: {name: list(found.values()).count(name) for name in CLASSES} for table, found in self.classes.items()
        }

    def exact(self) -> dict[str, dict[str, int]]:
        """Table → what an exact rollback does → rows."""
        return {table: _written(self.now[table], self._before[table]) for table in self.tables}

    def exactly(self) -> Rows:
        """The rows that `exact` must leave."""
        return {table: (self._before if table in self.tables else self.now)[table] for table in TABLES}

    def kept(self, choice: Choice) -> Rows:
        """The rows that `keep` must leave."""
        final: Rows = {table: dict(self.now[table]) for table in TABLES}
        for table, classes in self.classes.items():
            decided = {key: self._decide(table, key, choice) for key in classes}
            final[table] = {key: self._left(table, row) for key, row in decided.items() if row is not None}
        counted = Counted(final)  # over children that have no derived columns of their own
        for table, classes in self.classes.items():
            for key, row in final[table].items():
                if classes[key] == "migrated":
                    for column in derived(table) & row.keys():
                        if row[column] == self._counted_before.of(table, column, key):
                            row[column] = counted.of(table, column, key)
        return final

    def _left(self, table: str, row: Row) -> Row:
        going = self.going.get(table, frozenset())
        return {name: value for name, value in row.items() if name not in going}

    def _decide(self, table: str, key: bytes, choice: Choice) -> Row | None:
        before, now = self._before[table].get(key), self.now[table].get(key)
        what = self.classes[table][key]
        if what == "edited":
            settled = choice.settled.get((table, key), Settled(choice.edited))
            return before if settled.how == "restore" else {**(now or {}), **settled.values}
        gives_way = {
            "untouched": False, "migrated": True, "created": choice.created == "delete",
            "deleted": choice.deleted == "bring_back",
        }  # fmt: skip
        return before if gives_way[what] else now

    def written(self, choice: Choice, but: Mapping[str, frozenset[str]]) -> dict[str, dict[str, int]]:
        """Table → what `keep` writes → rows; `but`: columns that follow from others by themselves."""
        final = self.kept(choice)
        return {table: _written(self.now[table], final[table], but.get(table, frozenset())) for table in self.tables}

    def lost(self) -> dict[str, int]:
        """table.column that goes → rows where something stands that the migration did not put there."""
        return {
            f"{table}.{name}": sum(self._loses(table, name, key, row) for key, row in self.now[table].items())
            for table in self.tables
            for name in self.going.get(table, ())
        }

    def _loses(self, table: str, name: str, key: bytes, row: Row) -> bool:
        right = [self._migrated[table][key][name]] if key in self._before[table] else [None]
        if right != [None] and name in derived(table):  # where nothing stood, the row was left alone
            right += [counted.of(table, name, key) for counted in (self._counted_before, self._counted_now)]
        return row[name] is not None and row[name] not in right


def _written(now: Mapping[bytes, Row], then: Mapping[bytes, Row], but: frozenset[str] = frozenset()) -> dict[str, int]:
    both = now.keys() & then.keys()
    same = sum(shared(then[key], now[key], but) for key in both)
    return {
        "same": same, "update": len(both) - same, "insert": len(then) - len(both), "delete": len(now) - len(both),
    }  # fmt: skip


def shared(row: Row, other: Row, but: frozenset[str] = frozenset()) -> bool:
    """Whether the other row has the same fields in all columns of the first, some aside."""
    return all(other[name] == value for name, value in row.items() if name not in but)


def differences(right: Rows, found: Rows, but: Mapping[str, frozenset[str]]) -> list[str]:
    """Where rows are otherwise than they should be, without their values; columns `but` these. Empty: nowhere."""
    lines = []
    for table, rows in right.items():
        lines += [f"{table} {key.hex()} is lost" for key in sorted(rows.keys() - found[table].keys())[:3]]
        lines += [f"{table} {key.hex()} is too much" for key in sorted(found[table].keys() - rows.keys())[:3]]
        leave = but.get(table, frozenset())
        for key in sorted(rows.keys() & found[table].keys()):
            names = [n for n, value in rows[key].items() if n not in leave and found[table][key].get(n, b"-") != value]
            lines += [f"{table} {key.hex()}: {', '.join(names)}"] if names else []
    return lines
