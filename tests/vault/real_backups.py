"""Sealed backups of tables in a real PostgreSQL, without an engine's run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from psycopg import sql

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.manifest import Manifest, TableManifest, table_hash
from briefly_admin.engine.catalog import read_table
from briefly_admin.engine.snapshot import column_list, describe_columns, read_sequences
from briefly_admin.engine.user_types import describe_types
from briefly_admin.vault.digest import RowDigester
from briefly_admin.vault.escrow import Escrow
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import BackupReader, Vault
from tests.vault.decoded import Connection, copied, sealed_rows
from tests.vault.sample_backups import KEYS


@dataclass(frozen=True)
class RealBackup:
    """A backup in a directory, and what opens it."""

    folder: Path
    manifest: Manifest
    escrow: Escrow

    @property
    def reader(self) -> BackupReader:
        vault = Vault(DirectoryStore(self.folder), KEYS)
        return vault.open(self.manifest.backup_id, self.escrow.shred_key, self.escrow.manifest_sha256)

    def stream(self, number: int) -> Path:
        return self.folder / str(self.manifest.backup_id) / "streams" / f"{number}.bma"


def back_up(
    connection: Connection, folder: Path, names: Sequence[tuple[str, str]], *, halves: bool = False, lie: bool = False
) -> RealBackup:
    """A sealed backup of these tables; each in two streams if `halves`, with a wrong digest if `lie`."""
    writer = Vault(DirectoryStore(folder), KEYS).begin(uuid4())
    found = [table for name in names if (table := read_table(connection, *name))]
    numbers = iter(range(1, 1000))
    tables = []
    for table in found:
        results = [
            writer.write_table_stream(next(numbers), [data], columns=len(table.columns))
            for data in _streams(connection, *(table.schema, table.name), halves=halves)
        ]
        streams = tuple(result.manifest() for result in results)
        digest = sum((result.digest for result in results), TableDigest())
        if lie:
            digest = replace(digest, words=(1, 2, 3, 4))
        tables.append(
            TableManifest(
                table.schema, table.name, describe_columns(connection, table), table.key, digest.count,
                table_hash(streams), digest, streams, (),
            )
        )  # fmt: skip
    manifest = Manifest(
        backup_id=writer.backup_id, created_at=datetime(2026, 7, 1, tzinfo=UTC), plan="unified", plan_fingerprint="f",
        server_version="18.0", encoding="UTF8", database="d", extensions={}, wal_position="0/0", tables=tuple(tables),
        sequences=read_sequences(connection, {table.name: table for table in found}), schema_fingerprint="s",
        schema_changes=(), types=describe_types(connection, [table.oid for table in found]),
    )  # fmt: skip
    sha256 = writer.finish(manifest)
    escrow = Escrow(writer.backup_id, "backup_1", manifest.created_at, writer.shred_key, sha256, ("first",))
    return RealBackup(folder, manifest, escrow)


def _streams(connection: Connection, schema: str, name: str, *, halves: bool) -> Iterator[bytes]:
    table = read_table(connection, schema, name)
    assert table
    for condition in ("ctid < '(0,2)'", "ctid >= '(0,2)'") if halves else ("true",):
        query = sql.SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT (FORMAT binary)")
        yield copied(connection, query.format(column_list(table), table.identifier, sql.SQL(condition)))


def digest_of(connection: Connection, table: TableManifest) -> TableDigest:
    """Of what stands in the database now."""
    digester = RowDigester(keyed=False)
    digester.add(sealed_rows(connection, table))
    return digester.digest()
