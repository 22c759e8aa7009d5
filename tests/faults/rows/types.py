"""Rows of every type that a column can have, through a sealed backup and back: equal byte for byte."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql

from briefly_admin.domain.manifest import TableManifest
from briefly_admin.engine import backup, scratch
from briefly_admin.engine.catalog import read_table
from briefly_admin.engine.snapshot import column_list
from briefly_admin.engine.staged import copy_into, create_staged, staged_digest
from briefly_admin.engine.target import Connection, Target
from briefly_admin.vault.copybinary import HEADER, TRAILER
from briefly_admin.vault.vault import BackupReader
from tests.engine import every_type
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.rows.row import Facts, Row, total

EACH = 50_000
"""Rows of one trial."""
STREAM_BYTES = 16 << 20


def trial(ground: Ground, seed: int, count: int = EACH) -> Facts:
    """So many rows, others for each seed, backed up in several streams and restored beside the table they came from."""
    with ground.field() as field:
        target = Target(field.environ["TARGET_DATABASE_URL"])
        with target.session(bulk=True) as connection, connection.transaction():
            every_type.make(connection)
            every_type.fill(connection, count, seed=seed)
        reader = _backed_up(field)
        table = reader.manifest.table("public", every_type.NAME)
        assert table is not None
        assert table.rows == count
        with target.session(bulk=True) as connection, connection.transaction():
            require_equal(connection, reader, table)
    size = sum(stream.plaintext_size for stream in table.streams)
    return {"count": count, "columns": len(table.columns), "bytes": size, "streams": len(table.streams)}


def _backed_up(field: Field) -> BackupReader:
    """By this process; the run itself proves it, L1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backup.run.__kwdefaults__ or {}, "stream_bytes", STREAM_BYTES)
        run = field.back_up(beyond=[("public", every_type.NAME)])
        field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
        field.ends(run)
    return field.services.keys.reader(ANA, field.services.backups.list(ANA)[0].id)


def require_equal(connection: Connection, reader: BackupReader, table: TableManifest) -> None:
    """Restore the table into a scratch schema; its digest is the manifest's, its rows are those of the table."""
    schema = scratch.create_scratch(connection, uuid4(), 1)
    staged = create_staged(connection, reader.manifest, table, schema)
    for stream in table.streams:
        with connection.cursor().copy(copy_into(staged)) as loading:
            for piece in reader.read_table_stream(stream):
                loading.write(piece)
    digest = staged_digest(connection, staged)
    assert digest == table.digest, f"the digest is {digest} instead of {table.digest}"
    original = read_table(connection, table.schema, table.name)
    assert original is not None
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    before = _rows(connection, column_list(original), original.identifier)
    after = _rows(connection, names, staged.identifier)
    assert len(after) == table.rows, f"{len(after)} rows instead of {table.rows}"
    assert before == after, f"{len(set(before) ^ set(after))} rows differ"


def _rows(connection: Connection, columns: sql.Composable, relation: sql.Composable) -> list[bytes]:
    """SHA-256 of each row as COPY binary writes it, sorted: the server sends a row a message."""
    copy = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT (FORMAT binary)").format(columns, relation)
    with connection.cursor().copy(copy) as blocks:
        rows = (bytes(block).removeprefix(HEADER) for block in blocks)
        return sorted(hashlib.sha256(row).digest() for row in rows if row not in {b"", TRAILER})


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"{total(trials):,} rows of {int(trials[0]['columns'])} columns equal, {total(trials, 'bytes') / 2**30:.1f} GiB "
        f"in {total(trials, 'streams'):,} streams"
    )


ROW = Row("types", 1_000_000, "rows", 30, trial, _says)
