"""The phase backup: one instant of the plan's tables, sealed, written, and proven before anything may change.

The leader holds the snapshot; every worker copies streams from that same instant, and then reads some of them back.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import sql

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.domain.errors import BackupDamaged, BrieflyError
from briefly_admin.domain.manifest import Manifest, StreamManifest, TableManifest, table_hash
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState, PartitionView
from briefly_admin.domain.progress import Meter, Progress, TableProgress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.engine.snapshot import (
    STREAM_BYTES,
    Snapshot,
    column_list,
    ctid_condition,
    describe_columns,
    join_snapshot,
    open_snapshot,
    page_ranges,
    read_sequences,
    schema_fingerprint,
    server_facts,
    translated,
)
from briefly_admin.plans.base import Table
from briefly_admin.vault.vault import BackupReader, BackupWriter
from briefly_admin.vault.verify import Damage, Verdict, judge

_LOOK_EVERY: Final = 256
"""Blocks of COPY between two looks at the stop signal and the clock."""
_PROOF_BYTES: Final = 128 << 20
"""What one partition of the proof reads, about, as it stands in the store."""
_READ_BACK: Final = "all tables, read back"


def run(context: RunContext, *, stream_bytes: int = STREAM_BYTES, proof_bytes: int = _PROOF_BYTES) -> dict[str, Any]:
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
        manifest = _write(context, writer, stream_bytes)
        sha256 = writer.finish(manifest)
        _prove(context, manifest, sha256, proof_bytes)
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
    """Forget the key, then delete what was written; what cannot be deleted now, the sweep deletes.

    A worker that still writes a stream finds the backup gone and deletes that itself.
    """
    with suppress(BrieflyError):
        context.journal.backup_failed(backup_id)
    with suppress(BrieflyError):
        writer.abort()


def _write(context: RunContext, writer: BackupWriter, stream_bytes: int) -> Manifest:
    with open_snapshot(context.target, context.plan) as snapshot:
        sealer = _Sealer(context, writer, snapshot)
        # The leader copies on the session that holds the snapshot: with no second one, nobody can queue between them.
        step = replace(STEP, open=lambda _, __: nullcontext(sealer.work))
        shown = _Shown(context, {name: table.estimated_rows for name, table in snapshot.tables.items()})
        views = share(
            context, step, _streams(context, snapshot, stream_bytes),
            {"snapshot": snapshot.exported, "backup_id": str(writer.backup_id)}, show=shown.show,
        )  # fmt: skip
        tables = tuple(_table(context, snapshot, table, views) for table in context.plan.tables)
        facts = server_facts(snapshot.connection)
        return Manifest(
            backup_id=writer.backup_id, created_at=context.now(), plan=context.plan.name,
            plan_fingerprint=context.plan.fingerprint, tables=tables,
            sequences=read_sequences(snapshot.connection, snapshot.tables),
            schema_fingerprint=schema_fingerprint(snapshot.tables), schema_changes=(), **facts,
        )  # fmt: skip


def _streams(context: RunContext, snapshot: Snapshot, stream_bytes: int) -> list[Partition]:
    """One partition a stream, numbered from 1 over all tables."""
    ranges = [
        (table.name, bounds)
        for table in context.plan.tables
        for bounds in page_ranges(snapshot.tables[table.name], stream_bytes=stream_bytes)
    ]
    return [
        Partition(name, number, {"stream": number, "ctid_from": ctid_from, "ctid_to": ctid_to})
        for number, (name, (ctid_from, ctid_to)) in enumerate(ranges, start=1)
    ]


def _table(context: RunContext, snapshot: Snapshot, table: Table, views: Sequence[PartitionView]) -> TableManifest:
    """What its streams add up to; saves the table's baseline."""
    catalog = snapshot.tables[table.name]
    results = [view.result for view in views if view.partition.table == table.name]
    streams = tuple(StreamManifest.from_json(each["stream"], "stream") for each in results)
    digest = sum((TableDigest.parse(each["digest"]) for each in results), TableDigest())
    buckets = [BucketDigests.from_bytes(base64.b64decode(each["buckets"])) for each in results]
    context.journal.save_baseline(table.name, sum(buckets, BucketDigests()).to_bytes())
    return TableManifest(
        schema=catalog.schema, name=table.name, columns=describe_columns(snapshot.connection, catalog),
        key=tuple(table.key), rows=digest.count, hash=table_hash(streams), digest=digest, streams=streams,
    )  # fmt: skip


class _Sealer:
    """Copies streams from one snapshot into one backup."""

    def __init__(self, context: RunContext, writer: BackupWriter, snapshot: Snapshot) -> None:
        self._context = context
        self._writer = writer
        self._snapshot = snapshot
        self._keys = {table.name: table.key for table in context.plan.tables}

    def work(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """One stream; its result: {"stream": its entry in the manifest, "digest", "buckets" (base64)}."""
        name, bounds = claimed.partition.table, claimed.partition.range
        table = self._snapshot.tables[name]
        names = [column.name for column in table.columns]
        copied = self._copy(table, bounds["ctid_from"], bounds["ctid_to"], note)
        with translated(f"the table {name}"):
            result = self._writer.ensure_table_stream(
                bounds["stream"], copied, columns=len(names), key=[names.index(part) for part in self._keys[name]]
            )
        buckets = (result.buckets or BucketDigests()).to_bytes()
        return Count(done=result.rows), {
            "stream": asdict(result.manifest(bounds["ctid_from"], bounds["ctid_to"])),
            "digest": str(result.digest),
            "buckets": base64.b64encode(buckets).decode(),
        }

    def _copy(self, table: CatalogTable, ctid_from: str, ctid_to: str, note: Note) -> Iterator[bytes]:
        """The range as COPY binary. The server sends a row a message, which is what the progress counts."""
        statement = sql.SQL("COPY (SELECT {} FROM ONLY {}{}) TO STDOUT (FORMAT binary)").format(
            column_list(table), table.identifier, ctid_condition(ctid_from, ctid_to)
        )
        with self._snapshot.connection.cursor() as cursor, cursor.copy(statement) as copy:
            for number, block in enumerate(copy):
                if number % _LOOK_EVERY == 0:
                    self._context.check_stop()
                    note(Count(done=number))
                yield bytes(block)


@contextmanager
def _open_sealing(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    """A helper's: the backup's store and key, and a session that sees the leader's instant."""
    backup_id = UUID(shared["backup_id"])
    writer = context.vault.resume(backup_id, context.journal.writing_keys(backup_id))
    with join_snapshot(context.target, context.plan, shared["snapshot"]) as snapshot:
        yield _Sealer(context, writer, snapshot).work


STEP: Final = Step("backup", Phase.BACKUP, _open_sealing)
"""Its partitions are streams, {"stream", "ctid_from", "ctid_to"}; shared: {"snapshot", "backup_id"}."""


@dataclass
class _Shown:
    """Progress from the partitions: rows by table, rate, time left, workers; a line in the log for each table done."""

    context: RunContext
    totals: Mapping[str, int]
    told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._meter = Meter(self.context.monotonic())

    def show(self, views: Sequence[PartitionView]) -> None:
        """Take the partitions as they stand."""
        done = dict.fromkeys(self.totals, 0)
        for view in views:
            done[view.partition.table] += view.count.done
        tables = tuple(
            TableProgress(name, total=max(total, done[name]), done=done[name]) for name, total in self.totals.items()
        )
        rate = self._meter.observe(self.context.monotonic(), sum(done.values()))
        self.context.report(
            Progress(
                Phase.BACKUP, tables, rate=rate, workers=_workers(views),
                eta_seconds=self._meter.eta(sum(table.total - table.done for table in tables)),
            )
        )  # fmt: skip
        for name in self.totals:
            self._tell(name, [view for view in views if view.partition.table == name])

    def _tell(self, name: str, views: Sequence[PartitionView]) -> None:
        if name in self.told or any(view.state is not PartitionState.DONE for view in views):
            return
        self.told.add(name)
        rows = sum(view.count.done for view in views)
        by = ", ".join(sorted({view.worker for view in views}))
        self.context.journal.log("info", f"{name}: {rows:,} rows sealed by {by}.", Phase.BACKUP)


def _workers(views: Sequence[PartitionView]) -> int:
    return len({view.worker for view in views if view.state is PartitionState.WORKING})


def _prove(context: RunContext, manifest: Manifest, sha256: str, proof_bytes: int) -> None:
    """Open the backup as a restore would, and read every byte of it."""

    def show(views: Sequence[PartitionView]) -> None:
        done = sum(view.count.done for view in views)
        proven = TableProgress(_READ_BACK, total=manifest.rows, done=min(done, manifest.rows))
        context.report(Progress(Phase.BACKUP, (proven,), workers=_workers(views)))

    shared = {"backup_id": str(manifest.backup_id), "manifest_sha256": sha256}
    views = share(context, PROOF, _proof_partitions(manifest, proof_bytes), shared, show=show)
    damages = judge(manifest, [_verdict(view.result) for view in views])
    if damages:
        raise BackupDamaged(
            f"The backup that was just written is damaged in {len(damages)} places: {damages[0]}.",
            damages=[str(damage) for damage in damages],
            remedy="Check the disk of the store; nothing was changed.",
        )
    context.journal.log("info", f"Backup proven: {manifest.rows:,} rows read back and equal.", Phase.BACKUP)


def _proof_partitions(manifest: Manifest, proof_bytes: int) -> list[Partition]:
    """Streams in order, so many to a partition that it reads about `proof_bytes` from the store."""
    groups: list[list[int]] = [[]]
    size = 0
    for stream in manifest.streams:
        if size >= proof_bytes:
            groups.append([])
            size = 0
        groups[-1].append(stream.number)
        size += stream.sealed_size
    return [Partition(_READ_BACK, number, {"streams": group}) for number, group in enumerate(groups, start=1)]


class _Prover:
    """Reads streams of one backup back."""

    def __init__(self, context: RunContext, reader: BackupReader) -> None:
        self._context = context
        self._reader = reader

    def work(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """Some streams; the result: {"damages": [...], "digests": {table: digest or null}}."""
        numbers = frozenset(claimed.partition.range["streams"])
        rows = sum(stream.rows for stream in self._reader.manifest.streams if stream.number in numbers)
        verdict = self._reader.verify_streams(
            numbers, should_stop=self._context.should_stop,
            progress=lambda done, total: note(Count(done=rows * done // max(total, 1))),
        )  # fmt: skip
        digests = {table: digest and str(digest) for table, digest in verdict.digests.items()}
        return Count(done=rows), {"damages": [asdict(each) for each in verdict.damages], "digests": digests}


def _verdict(result: Mapping[str, Any]) -> Verdict:
    digests = {table: text and TableDigest.parse(text) for table, text in result["digests"].items()}
    return Verdict(tuple(Damage(**each) for each in result["damages"]), digests)


@contextmanager
def _open_proving(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    backup_id = UUID(shared["backup_id"])
    context.vault.require_seen(backup_id)
    shred_key = context.journal.writing_keys(backup_id)
    yield _Prover(context, context.vault.open(backup_id, shred_key, shared["manifest_sha256"])).work


PROOF: Final = Step("prove", Phase.BACKUP, _open_proving)
"""Its partitions are some streams each, {"streams": [number…]}; shared: {"backup_id", "manifest_sha256"}."""
