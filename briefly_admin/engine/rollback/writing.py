"""The statements that make a table what the backup says: only rows that differ, only columns that changed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from psycopg import sql

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import VerificationFailed
from briefly_admin.domain.manifest import SequenceManifest
from briefly_admin.engine.rollback.difference import NOW, Difference
from briefly_admin.engine.rollback.selection import Pair
from briefly_admin.engine.target import Connection
from briefly_admin.vault.digest import SendColumn, digest_of, digest_sql

_ENABLE: Final = {"O": "ENABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}
_FEW: Final = 4
"""One in so many rows of a table."""
_SEQUENCE: Final = """
SELECT s.seqincrement > 0 FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
"""


@contextmanager
def triggers_off(connection: Connection, pairs: Sequence[Pair]) -> Iterator[None]:
    """The tables' own triggers, one by one: disabled within, and afterwards as they were (O, A, R; D stays).

    Foreign keys' triggers stay on. After an error nothing is put back: the transaction is undone as a whole.
    """
    firing = [(pair.current, trigger) for pair in pairs for trigger in pair.current.triggers if trigger.enabled != "D"]
    alter = "ALTER TABLE {} {} TRIGGER {}"
    for table, trigger in firing:
        off = sql.SQL(alter).format(table.identifier, sql.SQL("DISABLE"), sql.Identifier(trigger.name))
        connection.execute(off)
    yield
    for table, trigger in firing:
        how = sql.SQL(_ENABLE[trigger.enabled])
        connection.execute(sql.SQL(alter).format(table.identifier, how, sql.Identifier(trigger.name)))


def delete(connection: Connection, found: Difference) -> None:
    """Delete the rows created since."""
    query = sql.SQL("DELETE FROM ONLY {} AS now USING {} AS d WHERE now.ctid = d.here AND d.there IS NULL")
    statement = query.format(found.pair.current.identifier, found.pair.difference)
    _write(connection, statement, found, "delete", found.counts.delete)


def insert(connection: Connection, found: Difference) -> None:
    """Insert the rows missing now, with the identities that they had."""
    pair = found.pair
    columns = [column for column in pair.staged.columns if not _generated(pair, column.name)]
    query = sql.SQL(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS d JOIN {} AS was ON was.ctid = d.there"
        " WHERE d.here IS NULL"
    ).format(
        pair.current.identifier, sql.SQL(", ").join(sql.Identifier(column.name) for column in columns),
        sql.SQL(", ").join(_restored(pair, column) for column in columns), pair.difference, pair.staged.identifier,
    )  # fmt: skip
    _write(connection, query, found, "insert", found.counts.insert)


def update(connection: Connection, found: Difference) -> None:
    """Update the rows that differ: those columns alone in which any row does, so that others are not rewritten."""
    pair = found.pair
    columns = [c for c in pair.staged.columns if c.name in found.columns and not _generated(pair, c.name)]
    if not columns:
        return
    sets = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(column.name), _restored(pair, column)) for column in columns
    )
    query = sql.SQL(
        "UPDATE ONLY {} AS now SET {} FROM {} AS d JOIN {} AS was ON was.ctid = d.there WHERE now.ctid = d.here"
    ).format(pair.current.identifier, sets, pair.difference, pair.staged.identifier)
    _write(connection, query, found, "update", found.counts.update)


def _write(connection: Connection, statement: sql.Composed, found: Difference, what: str, expected: int) -> None:
    if not expected:
        return
    with _by_place(connection, found):
        written = connection.execute(statement).rowcount
    if written != expected:
        raise VerificationFailed(
            f"{found.pair.name}: {written:,} rows instead of {expected:,} ({what}).",
            remedy="Nothing was changed. See whether rules or foreign keys of the table hold rows back.",
        )


@contextmanager
def _by_place(connection: Connection, found: Difference) -> Iterator[None]:
    """Where few rows differ, each is fetched by its ctid: joins that read both tables whole take longer."""
    few = found.counts.changes * _FEW < found.pair.staged.manifest.rows
    names = ("enable_hashjoin", "enable_mergejoin") if few else ()
    for name in names:
        connection.execute(sql.SQL("SET LOCAL {} TO off").format(sql.Identifier(name)))
    yield
    for name in names:
        connection.execute(sql.SQL("SET LOCAL {} TO DEFAULT").format(sql.Identifier(name)))


def _generated(pair: Pair, name: str) -> bool:
    column = pair.current.column(name)
    return column is not None and bool(column.generated)


def _restored(pair: Pair, column: SendColumn) -> sql.Composable:
    """The staged value, cast back where it had to be staged as its text."""
    name = sql.Identifier("was", column.name)
    current = pair.current.column(column.name)
    if column.send is not None or current is None:
        return name
    return sql.SQL("{}::{}").format(name, sql.SQL(current.type))  # as format_type quoted it


def digest(connection: Connection, pair: Pair, where: sql.Composable | None = None) -> TableDigest:
    """The digest of the table as it is now, over the manifest's columns; of those rows alone (alias `now`)."""
    return _digest(connection, pair, where=where)[0]


def digest_beside(connection: Connection, pair: Pair, only: sql.Composable) -> tuple[TableDigest, int]:
    """The digest of those rows alone (alias `now`), and how many others there are."""
    return _digest(connection, pair, only=only)


def _digest(
    connection: Connection, pair: Pair, *, where: sql.Composable | None = None, only: sql.Composable | None = None
) -> tuple[TableDigest, int]:
    source = sql.SQL("ONLY {}").format(pair.current.identifier)
    server = connection.info.server_version
    query = digest_sql(source, pair.staged.columns, where=where, only=only, alias=NOW, server=server)
    row = connection.execute(query).fetchone()
    assert row is not None
    return digest_of(row), int(row[-1])


def advance_sequences(connection: Connection, sequences: Sequence[SequenceManifest]) -> None:
    """Set sequences that stand behind the backup to where they stood; never backwards. One that is gone is left."""
    for sequence in sequences:
        ascending = connection.execute(_SEQUENCE, (sequence.schema, sequence.name)).fetchone()
        if ascending is None:
            continue
        name = sql.Identifier(sequence.schema, sequence.name)
        # A descending one is behind where it is greater.
        sign = sql.SQL("" if ascending[0] else "-")
        query = sql.SQL(
            "SELECT setval({literal}::regclass, {then}, {called}) FROM {name}"
            " WHERE ({sign}last_value, is_called) < ({sign}({then}), {called})"
        ).format(
            literal=sql.Literal(name.as_string()), name=name, sign=sign,
            then=sql.Literal(sequence.last_value), called=sql.Literal(sequence.is_called),
        )  # fmt: skip
        connection.execute(query)
