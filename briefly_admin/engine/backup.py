"""The phase backup: one instant of the plan's tables, sealed, written, and proven before anything may change."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import sql

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.domain.errors import BackupDamaged, BrieflyError
from briefly_admin.domain.manifest import Manifest, StreamManifest, TableManifest, table_hash
from briefly_admin.domain.progress import Meter, Progress, TableProgress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.snapshot import (
    Snapshot,
    column_list,
    ctid_condition,
    describe_columns,
    open_snapshot,
    page_ranges,
    read_sequences,
    schema_fingerprint,
    server_facts,
    translated,
)
from briefly_admin.vault.vault import BackupWriter

_REPORT_EVERY: Final = 0.2
_LOOK_EVERY: Final = 256
"""Blocks of COPY between two looks at the stop signal and the clock."""


@dataclass
class _Counter:
    """Rows copied so far, for progress."""

    context: RunContext
    totals: dict[str, int]
    done: dict[str, int] = field(default_factory=dict)
    _next: float = 0.0

    def __post_init__(self) -> None:
        self._meter = Meter(self.context.monotonic())

    def show(self, table: str, rows: int, *, words: str = "") -> None:
        """Look at the stop signal, and report if it is time."""
        self.context.check_stop()
        self.done[table] = rows
        now = self.context.monotonic()
        if now < self._next:
            return
        self._next = now + _REPORT_EVERY
        rate = self._meter.observe(now, sum(self.done.values()))
        tables = tuple(
            TableProgress(name, total=max(total, self.done.get(name, 0)), done=self.done.get(name, 0))
            for name, total in self.totals.items()
        )
        left = sum(t.total - t.done for t in tables)
        self.context.report(Progress(Phase.BACKUP, tables, rate=rate, eta_seconds=self._meter.eta(left), waiting=words))


def run(context: RunContext) -> dict[str, Any]:
    """Take a backup and prove it (L1); the baseline digests for verification come from the same instant.

    The result: backup_id, name, rows, bytes (sealed), seconds, tables. On any failure nothing is left: no manifest, no
    streams, no key. Raises BackupDamaged, PreflightFailed, Unavailable, Stopped.
    """
    began = context.monotonic()
    backup_id = uuid4()
    name = f"backup_{int(context.now().timestamp() * 1000)}"
    writer = context.vault.begin(backup_id)
    try:
        context.journal.backup_begun(backup_id, name, writer.shred_key)
        manifest = _write(context, writer, backup_id)
        sha256 = writer.finish(manifest)
        _prove(context, writer, backup_id, sha256)
    except BaseException:
        _give_up(context, writer, backup_id)
        raise
    tables = [
        {"table": t.name, "rows": t.rows, "bytes": sum(s.sealed_size for s in t.streams), "digest": str(t.digest)}
        for t in manifest.tables
    ]
    context.journal.backup_proven(
        backup_id, manifest_sha256=sha256, tables=tables, rows=manifest.rows, size=manifest.sealed_size
    )
    if context.kind is RunKind.BACKUP:
        context.journal.totals(manifest.rows, manifest.rows)
    return {
        "backup_id": str(backup_id), "name": name, "rows": manifest.rows, "bytes": manifest.sealed_size,
        "tables": tables, "seconds": round(context.monotonic() - began, 3),
    }  # fmt: skip


def _give_up(context: RunContext, writer: BackupWriter, backup_id: UUID) -> None:
    """Forget the key, then delete what was written; what cannot be deleted now, the sweep deletes."""
    with suppress(BrieflyError):
        context.journal.backup_failed(backup_id)
    with suppress(BrieflyError):
        writer.abort()


def _write(context: RunContext, writer: BackupWriter, backup_id: UUID) -> Manifest:
    with open_snapshot(context.target, context.plan) as snapshot:
        counter = _Counter(context, {name: table.estimated_rows for name, table in snapshot.tables.items()})
        number = 0
        written = []
        for table in context.plan.tables:
            streams = _write_table(context, writer, snapshot, table.name, table.key, counter, number)
            number += len(streams.streams)
            written.append(streams)
        connection = snapshot.connection
        facts = server_facts(connection)
        return Manifest(
            backup_id=backup_id, created_at=context.now(), plan=context.plan.name,
            plan_fingerprint=context.plan.fingerprint, tables=tuple(written),
            sequences=read_sequences(connection, snapshot.tables),
            schema_fingerprint=schema_fingerprint(snapshot.tables), schema_changes=(), **facts,
        )  # fmt: skip


def _write_table(
    context: RunContext, writer: BackupWriter, snapshot: Snapshot, name: str, key: Any, counter: _Counter, number: int
) -> TableManifest:
    table = snapshot.tables[name]
    columns = describe_columns(snapshot.connection, table)
    positions = [[column.name for column in columns].index(part) for part in key]
    streams: list[StreamManifest] = []
    digest, buckets = TableDigest(), BucketDigests()
    for ctid_from, ctid_to in page_ranges(table):
        number += 1
        rows = digest.count
        with translated(f"the table {name}"):
            result = writer.write_table_stream(
                number, _copy(snapshot, table, ctid_from, ctid_to, counter, rows), columns=len(columns), key=positions
            )
        streams.append(result.manifest(ctid_from, ctid_to))
        digest = digest + result.digest
        buckets = buckets + (result.buckets or BucketDigests())
        counter.show(name, digest.count)
    context.journal.save_baseline(name, buckets.to_bytes())
    context.journal.log("info", f"{name}: {digest.count:,} rows sealed.", Phase.BACKUP)
    return TableManifest(
        schema=table.schema, name=name, columns=columns, key=tuple(key), rows=digest.count,
        hash=table_hash(streams), digest=digest, streams=tuple(streams),
    )  # fmt: skip


def _copy(
    snapshot: Snapshot, table: CatalogTable, ctid_from: str, ctid_to: str, counter: _Counter, rows: int
) -> Iterator[bytes]:
    """The range as COPY binary. The server sends a row a message, which is what the progress counts."""
    statement = sql.SQL("COPY (SELECT {} FROM ONLY {}{}) TO STDOUT (FORMAT binary)").format(
        column_list(table), table.identifier, ctid_condition(ctid_from, ctid_to)
    )
    with snapshot.connection.cursor() as cursor, cursor.copy(statement) as copy:
        for number, block in enumerate(copy):
            if number % _LOOK_EVERY == 0:
                counter.show(table.name, rows + number)
            yield bytes(block)


def _prove(context: RunContext, writer: BackupWriter, backup_id: UUID, sha256: str) -> None:
    """Open the backup as a restore would, and read every byte of it."""
    reader = context.vault.open(backup_id, writer.shred_key, sha256)
    rows = sum(table.rows for table in reader.manifest.tables)
    shown = [0.0]

    def progress(done: int, total: int) -> None:
        if time.monotonic() - shown[0] < _REPORT_EVERY:
            return
        shown[0] = time.monotonic()
        proven = TableProgress("all tables, read back", total=rows, done=rows * done // max(total, 1))
        context.report(Progress(Phase.BACKUP, (proven,), waiting=""))

    damages = reader.verify(progress=progress, should_stop=context.should_stop)
    if damages:
        raise BackupDamaged(
            f"The backup that was just written is damaged in {len(damages)} places: {damages[0]}.",
            damages=[str(damage) for damage in damages],
            remedy="Check the disk of the store; nothing was changed.",
        )
    context.journal.log("info", f"Backup proven: {rows:,} rows read back and equal.", Phase.BACKUP)
