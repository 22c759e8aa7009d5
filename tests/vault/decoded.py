"""One column of a type in a real PostgreSQL, read from its COPY binary by us and printed by PostgreSQL: side by side."""

import random
import struct
from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.manifest import ColumnManifest, TableManifest, TypeManifest, table_hash
from briefly_admin.engine.catalog import read_table
from briefly_admin.engine.snapshot import column_list, copied_columns, describe_columns
from briefly_admin.engine.user_types import describe_types
from briefly_admin.vault.copybinary import HEADER, TRAILER, CopyParser
from briefly_admin.vault.decoding.forms import CsvForm, JsonForm
from briefly_admin.vault.decoding.types import Types

Connection = psycopg.Connection[tuple[object, ...]]
SETTINGS = (
    "SET timezone TO 'UTC'; SET datestyle TO 'ISO'; SET intervalstyle TO 'postgres'; SET extra_float_digits TO 1; "
    "SET bytea_output TO 'hex'; SET lc_monetary TO 'C'; SET xmloption TO content"
)


def connect(url: str) -> Connection:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute(SETTINGS)
    return connection


def table_of(connection: Connection, schema: str, name: str) -> tuple[TableManifest, tuple[TypeManifest, ...]]:
    found = read_table(connection, schema, name)
    assert found
    columns = describe_columns(connection, found)
    table = TableManifest(schema, name, columns, (), 0, table_hash(()), TableDigest(), (), ())
    return table, describe_types(connection, [found.oid])


def copied(connection: Connection, query: sql.Composed) -> bytes:
    with connection.cursor().copy(query) as copy:
        return b"".join(map(bytes, copy))


def sealed_rows(connection: Connection, table: TableManifest) -> list[bytes]:
    """The table's rows as a backup's stream has them."""
    found = read_table(connection, table.schema, table.name)
    assert found
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(column_list(found), found.identifier)
    return CopyParser(len(copied_columns(found))).feed(copied(connection, query)).rows


def compare(connection: Connection, schema: str, name: str) -> tuple[CsvForm, JsonForm]:
    """Our CSV and JSON of a table are PostgreSQL's, byte for byte."""
    table, types = table_of(connection, schema, name)
    rows = sealed_rows(connection, table)
    identifier = sql.Identifier(schema, name)
    csv, as_json = CsvForm(table, Types(types)), JsonForm(table, Types(types))
    selected = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(map(_printed, table.columns)), identifier)
    same(
        csv.header() + csv.rows(rows) + csv.trailer(),
        copied(connection, sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(selected)),
    )
    query = sql.SQL("SELECT translate(row_to_json(the_row)::text, chr(10) || chr(13), '  ') FROM ({}) AS the_row")
    lines = connection.execute(query.format(selected)).fetchall()
    same(as_json.rows(rows), "".join(f"{row[0]}\n" for row in lines).encode())
    return csv, as_json


def _printed(column: ColumnManifest) -> sql.Composed:
    """The column, or the object number where the type is one that prints the object's name."""
    name = sql.Identifier(column.name)
    if column.binary and column.type.startswith("reg") and column.type != "refcursor":
        array = sql.SQL("[]" if column.type.endswith("[]") else "")
        return sql.SQL("{}::oid{} AS {}").format(name, array, name)
    return sql.SQL("{}").format(name)


def same(ours: bytes, theirs: bytes) -> None:
    if ours != theirs:
        pairs = zip(ours.split(b"\n"), theirs.split(b"\n"), strict=False)
        wrong = [pair for pair in pairs if pair[0] != pair[1]]
        raise AssertionError(f"{len(wrong)} lines differ, the first (ours, PostgreSQL's): {_where(*wrong[0])}")


def _where(ours: bytes, theirs: bytes) -> tuple[bytes, bytes]:
    same_until = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
    start = max(same_until - 60, 0)
    return ours[start : same_until + 60], theirs[start : same_until + 60]


def fill(connection: Connection, type_name: str, texts: Sequence[str | None]) -> None:
    """A table v with one column of the type, holding NULL and the values of these texts."""
    connection.execute("DROP TABLE IF EXISTS v")
    connection.execute(f"CREATE TABLE v (v {type_name})".encode())
    with connection.cursor().copy("COPY v FROM STDIN") as copy:
        copy.set_types(["text"])
        for text in [None, *texts]:
            copy.write_row([text])


def fill_binary(connection: Connection, type_name: str, values: Sequence[bytes]) -> None:
    """The same from values in their send form."""
    connection.execute("DROP TABLE IF EXISTS v")
    connection.execute(f"CREATE TABLE v (v {type_name})".encode())
    with connection.cursor().copy("COPY v FROM STDIN (FORMAT binary)") as copy:
        copy.write(HEADER + b"".join(struct.pack(">hi", 1, len(value)) + value for value in values) + TRAILER)


def many(make: Callable[[random.Random], bytes], count: int = 3000, seed: int = 4) -> list[bytes]:
    dice = random.Random(seed)
    return [make(dice) for _ in range(count)]
