"""A small target with a sealed backup of it, and the context of a rollback: for the tests of staging and rollback."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from marshmallow import Schema
from psycopg import sql

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.manifest import ColumnManifest, Manifest, SequenceManifest, TableManifest, table_hash
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import fence, rollback
from briefly_admin.engine.before import read_tables
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.context import ChangeRecord, QuarantinedRow, RunContext
from briefly_admin.engine.repairs import as_stored, compile_repairs
from briefly_admin.engine.target import Connection, Target
from briefly_admin.engine.user_types import describe_types
from briefly_admin.plans.base import Plan, Table
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import BackupWriter, Vault
from tests.engine.journal_memory import MemoryJournal, RunRecord

KEYS = MasterKeys({"first": bytes(range(32))})
_TYPE = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(t.typname) FROM pg_type t
JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.oid = %s
"""


def plan_of(*names: str, keys: Mapping[str, Sequence[str]] | None = None) -> Plan:
    tables = tuple(Table(name, Schema, (), key=(keys or {}).get(name, ("id",))) for name in names)
    return Plan("tiny", "Tiny", "A few tables.", tables)


@dataclass
class SealedTarget:
    """A database, a plan, a vault, and a backup once `back_up` was called."""

    dsn: str
    plan: Plan
    root: Path
    backup_id: UUID = field(default_factory=uuid4)
    migration: RunRecord = field(default_factory=RunRecord)
    run: RunRecord = field(default_factory=RunRecord)
    progress: list[Progress] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    """Of every run."""

    def __post_init__(self) -> None:
        self.target = Target(self.dsn)
        self.vault = Vault(DirectoryStore(self.root), KEYS)

    def execute(self, *statements: str) -> None:
        with self.target.session(bulk=True) as connection:
            connection.execute("SET search_path TO public")
            for statement in statements:
                connection.execute(statement.encode())

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with self.target.session(bulk=True) as connection:
            return connection.execute(statement.encode()).fetchall()

    def back_up(self, *, change: Callable[[Manifest], Manifest] = lambda manifest: manifest) -> None:
        """Seal the plan's tables, in two streams each."""
        writer = self.vault.begin(self.backup_id)
        with self.target.session(bulk=True) as connection:
            manifest = change(self._manifest(connection, writer))
        sha256 = writer.finish(manifest)
        self.migration.backups[self.backup_id] = {"shred_key": writer.shred_key, "manifest_sha256": sha256}

    def _manifest(self, connection: Connection, writer: BackupWriter) -> Manifest:
        tables: list[TableManifest] = []
        oids: list[int] = []
        sequences: list[SequenceManifest] = []
        for table in self.plan.tables:
            catalog = read_table(connection, table.schema, table.name)
            assert catalog is not None
            oids.append(catalog.oid)
            tables.append(_seal(connection, writer, catalog, table.key, 1 + 2 * len(tables)))
            for schema, name in catalog.sequences:
                query = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name))
                row = connection.execute(query).fetchone()
                assert row is not None
                sequences.append(SequenceManifest(schema, name, row[0], row[1]))
        row = connection.execute("SELECT current_database(), current_setting('server_encoding')").fetchone()
        assert row is not None
        return Manifest(
            self.backup_id, datetime(2025, 11, 22, 12, 0, tzinfo=UTC), self.plan.name, self.plan.fingerprint,
            "18", row[1], row[0], {}, "0/0", tuple(tables), tuple(sequences), "cd" * 32, (),
            types=describe_types(connection, oids),
        )  # fmt: skip

    def changed(self, table: str, kind: str, name: str, made: str, inverse: str, *, state: str = "made") -> None:
        """Make a schema change as a migration does, recorded."""
        position = len(self.migration.changes) + 1
        self.migration.changes[position] = ChangeRecord(position, table, kind, name, made, inverse, state)
        if state == "made":
            self.execute(made)

    def migrate(self, *, aside: Mapping[str, Sequence[str]] | None = None) -> None:
        """Set every column to its repaired value, as the migration does, but for rows whose keys are set `aside`."""
        for name, keys in (aside or {}).items():
            rows = [QuarantinedRow(name, (key,), "value", "does not fit") for key in keys]
            self.migration.quarantine |= {(row.table, row.key): row for row in rows}
        with self.target.session(bulk=True) as connection, connection.transaction():
            catalog = read_tables(connection, self.plan)
            for table in self.plan.tables:
                if table.repairs:
                    keys = list((aside or {}).get(table.name, ()))
                    connection.execute(_repair(self.plan, table, catalog, keys))

    @property
    def origin(self) -> dict[str, Any]:
        """Options that say whose backup it is."""
        return {"origin": {"run_id": str(self.migration.run_id), "number": 1}, "reverts": [str(self.migration.run_id)]}

    def context(self, kind: RunKind = RunKind.ROLLBACK, **options: Any) -> RunContext:
        """The next attempt at the rollback (it takes over, as the pipeline does)."""
        journal: MemoryJournal = self.run.next_attempt({self.migration.run_id: self.migration})
        config = RunConfig(max_retries=0, retry_delay=1)
        context = RunContext(
            self.run.run_id, journal.attempt, kind, self.plan, self.target, self.vault, journal, self.progress.append,
            lambda: config, {"backup_id": str(self.backup_id), "mode": "exact", "tables": None} | self.options | options,
            sleep=lambda _: None, random=random.Random(1),
        )  # fmt: skip
        if kind is RunKind.ROLLBACK:
            fence.take_over(self.target, self.run.run_id, journal.attempt).release()
        return context

    def roll_back(self, **options: Any) -> dict[Phase, dict[str, Any]]:
        """All phases of a rollback but preflight and its own backup."""
        context = self.context(**options)
        results = {}
        for phase in (Phase.STAGE, Phase.PREVIEW, Phase.RESTORE, Phase.VERIFY):
            results[phase] = rollback.run_phase(context, phase)
            context.journal.phase_finished(phase, results[phase])
        return results

    def preview(self, **options: Any) -> dict[str, Any]:
        context = self.context(RunKind.PREVIEW, **options)
        rollback.run_phase(context, Phase.STAGE)
        return rollback.run_phase(context, Phase.PREVIEW)

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row as text, and what the catalog says of each table: two dumps are equal or something changed."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        with self.target.session(bulk=True) as connection:
            for table in self.plan.tables:
                catalog = read_table(connection, table.schema, table.name)
                assert catalog is not None
                query = sql.SQL('SELECT t::text FROM {} AS t ORDER BY t::text COLLATE "C"').format(catalog.identifier)
                found[table.name] = connection.execute(query).fetchall()
                found[f"{table.name}: catalog"] = [
                    *((c.name, c.type, c.nullable, c.default, c.generated, c.identity) for c in catalog.columns),
                    *((c.name, c.definition, c.validated, c.deferrable) for c in catalog.constraints),
                    *((i.name, i.definition, i.valid) for i in catalog.indexes),
                    *((t.name, t.enabled) for t in catalog.triggers),
                ]
        return found

    def scratches(self) -> list[str]:
        return [
            name for (name,) in self.query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'briefly_scratch%'")
        ]

    def damage(self, number: int) -> None:
        """Flip a bit in the middle of a stream."""
        path = self.root / str(self.backup_id) / "streams" / f"{number}.bma"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(bytes(data))


def _repair(plan: Plan, table: Table, catalog: Mapping[str, CatalogTable], aside: Sequence[str]) -> sql.Composed:
    here = catalog[table.name]
    repairs = compile_repairs(plan, table, catalog)
    present = [column for column in here.columns if column.name in repairs.values]
    key = sql.Identifier(table.key[0])
    return sql.SQL(
        "UPDATE {table} AS u SET {sets} FROM (SELECT t.{key}, {values} FROM {table} AS t {joins}) AS r"
        " WHERE u.{key} = r.{key} AND u.{key}::text <> ALL ({aside}::text[])"
    ).format(
        table=here.identifier, key=key, joins=repairs.joins, aside=sql.Literal(list(aside)),
        sets=sql.SQL(", ").join(sql.SQL("{} = r.{}").format(sql.Identifier(c.name), sql.Identifier(f"v{n}"))
                                for n, c in enumerate(present)),
        values=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(as_stored(repairs.values[c.name], c), sql.Identifier(f"v{n}"))
            for n, c in enumerate(present)
        ),
    )  # fmt: skip


def _seal(
    connection: Connection, writer: BackupWriter, table: CatalogTable, key: Sequence[str], number: int
) -> TableManifest:
    names = sql.SQL(", ").join(
        sql.Identifier(column.name) if column.send else sql.SQL("{}::text").format(sql.Identifier(column.name))
        for column in table.columns
    )
    positions = [[column.name for column in table.columns].index(name) for name in key]
    results = []
    for offset, condition in enumerate(("ctid < '(1,0)'", "ctid >= '(1,0)'")):
        copy = sql.SQL("COPY (SELECT {} FROM ONLY {} WHERE {}) TO STDOUT (FORMAT binary)").format(
            names, table.identifier, sql.SQL(condition)
        )
        with connection.cursor().copy(copy) as chunks:
            data = [bytes(chunk) for chunk in chunks]
        results.append(writer.write_table_stream(number + offset, data, columns=len(table.columns), key=positions))
    streams = tuple(result.manifest() for result in results)
    columns = tuple(
        ColumnManifest(
            column.name, connection.execute(_TYPE, (column.type_oid,)).fetchall()[0][0], column.typmod, column.nullable,
            column.generated, column.identity, column.collation or "", column.send is not None,
        )
        for column in table.columns
    )  # fmt: skip
    return TableManifest(
        table.schema, table.name, columns, tuple(key), sum(stream.rows for stream in streams), table_hash(streams),
        sum((result.digest for result in results), TableDigest()), streams,
    )  # fmt: skip


def fingerprint(dump: Mapping[str, object]) -> str:
    return hashlib.sha256(repr(dump).encode()).hexdigest()
