"""Small backups for the vault's tests: seeded, so that they are the same every time."""

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.manifest import (
    ColumnManifest,
    Manifest,
    SchemaChangeRecord,
    SequenceManifest,
    StreamManifest,
    TableManifest,
    table_hash,
)
from briefly_admin.vault.copybinary import HEADER, TRAILER
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import BackupReader, BackupWriter, StreamResult, Vault

BACKUP_ID = UUID("0b1e4c1e-7d5c-4b8a-9a55-0123456789ab")
KEYS = MasterKeys({"first": bytes(range(32)), "second": bytes(range(32, 64))})
Fields = Sequence[bytes | None]


def seeded(seed: int) -> Callable[[int], bytes]:
    """Randomness that is the same every time."""
    return random.Random(seed).randbytes


def field(value: bytes | None) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def copy_row(fields: Fields) -> bytes:
    return struct.pack(">h", len(fields)) + b"".join(map(field, fields))


def copy_binary(rows: Sequence[Fields]) -> bytes:
    return HEADER + b"".join(map(copy_row, rows)) + TRAILER


def some_rows(seed: int, count: int) -> list[Fields]:
    """uuid, text, int4 or NULL."""
    dice = random.Random(seed)
    return [
        (
            dice.randbytes(16),
            dice.choice(["", "a", "ünïcode ✓", "x" * dice.randrange(400)]).encode(),
            None if dice.random() < 0.2 else dice.randbytes(4),
        )
        for _ in range(count)
    ]


COLUMNS = (
    ColumnManifest("id", "pg_catalog.uuid", nullable=False),
    ColumnManifest("title", "pg_catalog.text", collation="pg_catalog.default"),
    ColumnManifest("n%", "pg_catalog.int4"),
)


def table_of(name: str, results: Sequence[StreamResult]) -> TableManifest:
    streams: tuple[StreamManifest, ...] = tuple(result.manifest(f"({i},0)") for i, result in enumerate(results))
    return TableManifest(
        schema="public",
        name=name,
        columns=COLUMNS,
        key=("id",),
        rows=sum(stream.rows for stream in streams),
        hash=table_hash(streams),
        digest=sum((result.digest for result in results), TableDigest()),
        streams=streams,
    )


def manifest_of(tables: Sequence[TableManifest], backup_id: UUID = BACKUP_ID) -> Manifest:
    return Manifest(
        backup_id=backup_id,
        created_at=datetime(2025, 11, 22, 12, 0, 0, 345678, UTC),
        plan="unified",
        plan_fingerprint="ab" * 32,
        server_version="18.1",
        encoding="UTF8",
        database="briefly",
        extensions={"vector": "0.8.1", "plpgsql": "1.0"},
        wal_position="0/16B3748",
        tables=tuple(tables),
        sequences=(SequenceManifest("public", "ids", -5, is_called=True),),
        schema_fingerprint="cd" * 32,
        schema_changes=(
            SchemaChangeRecord("public.users", "index on users(email)", 'CREATE INDEX "ix"', 'DROP INDEX "ix"'),
        ),
    )


def write(writer: BackupWriter, number: int, rows: Sequence[Fields]) -> StreamResult:
    return writer.write_table_stream(number, [copy_binary(rows)], columns=3, key=[0])


class Sample:
    """A finished backup of two tables and three streams."""

    def __init__(self, root: Path, *, backup_id: UUID = BACKUP_ID, seed: int = 1, rows: int = 40) -> None:
        self.root = root
        self.store = DirectoryStore(root)
        self.vault = Vault(self.store, KEYS, randomness=seeded(seed))
        self.backup_id = backup_id
        self.rows = {number: some_rows(seed + number, rows) for number in (1, 2, 3)}
        writer = self.vault.begin(backup_id)
        self.shred_key = writer.shred_key
        self.results = [write(writer, number, self.rows[number]) for number in (1, 2, 3)]
        tables = [table_of("users", self.results[:2]), table_of("usage logs", self.results[2:])]
        self.manifest = manifest_of(tables, backup_id)
        self.sha256 = writer.finish(self.manifest)

    def open(self) -> BackupReader:
        return self.vault.open(self.backup_id, self.shred_key, self.sha256)

    def path(self, number: int) -> Path:
        return self.root / str(self.backup_id) / "streams" / f"{number}.bma"

    @property
    def folder(self) -> Path:
        return self.root / str(self.backup_id)


def contents(reader: BackupReader) -> Iterator[bytes]:
    for stream in reader.manifest.streams:
        yield b"".join(reader.read_table_stream(stream))


def without(manifest: Manifest, table: str) -> Manifest:
    return replace(manifest, tables=tuple(each for each in manifest.tables if each.name != table))
