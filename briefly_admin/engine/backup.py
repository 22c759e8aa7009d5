"""The phase backup: one instant of the plan's tables, sealed, written, and proven before anything may change.

The leader holds the snapshot; every worker copies streams from that same instant, and then reads some of them back.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import sql

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.domain.manifest import Manifest, StreamManifest, TableManifest, table_hash
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState, PartitionView
from briefly_admin.domain.progress import Meter, Progress, TableProgress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.copying import CopyOut, widen
from briefly_admin.engine.planned import planned_changes
from briefly_admin.engine.proving import PROOF_BYTES, prove_written, workers_of
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.engine.snapshot import (
    STREAM_BYTES,
    Snapshot,
    column_list,
    ctid_condition,
    describe_columns,
    describe_foreign_keys,
    join_snapshot,
    open_snapshot,
    page_ranges,
    read_sequences,
    schema_fingerprint,
    server_facts,
    translated,
)
from briefly_admin.engine.user_types import describe_types
from briefly_admin.vault.layout import manifest_key
from briefly_admin.vault.vault import BackupWriter
from briefly_admin.vault.verify import all_objects_of


def run(context: RunContext, *, stream_bytes: int = STREAM_BYTES, proof_bytes: int = PROOF_BYTES) -> dict[str, Any]:
    """Take a backup and prove it (L1); the baseline digests for verification come from the same instant.

    The result: backup_id, name, rows, bytes (sealed), seconds, sealed_seconds (until all rows stood in the store, not
    yet proven), tables. On any failure nothing is left: no manifest, no
    streams, no key. Raises BackupDamaged, PreflightFailed, Unavailable, Stopped.
    """
    began = context.monotonic()
    backup_id = uuid4()
    name = f"backup_{int(context.now().timestamp() * 1000)}"
    writer = context.vault.begin(backup_id)
    try:
        context.journal.backup_begun(backup_id, name, writer.shred_key)
        manifest = _write(context, writer, stream_bytes)
        sealed = round(context.monotonic() - began, 3)
        manifest = prove_written(context, manifest, proof_bytes=proof_bytes)
        sha256 = writer.finish(manifest)
        # As a restore would: what was proven is worth nothing without its keys and its manifest.
        context.vault.open(backup_id, writer.shred_key, sha256)
        manifest_size = context.vault.store.size(manifest_key(backup_id))
    except BaseException:
        _give_up(context, writer, backup_id)
        raise
    tables = [
        {"table": title, "rows": t.rows, "bytes": sum(s.sealed_size for s in t.streams), "digest": str(t.digest)}
        for title, t in manifest.by_title.items()
    ]
    objects = all_objects_of(manifest, manifest_size=manifest_size, manifest_sha256=sha256)
    context.journal.backup_proven(
        backup_id, manifest_sha256=sha256, tables=tables, rows=manifest.rows, size=manifest.sealed_size,
        objects=[asdict(each) for each in objects], seconds=round(context.monotonic() - began, 3),
    )  # fmt: skip
    if context.kind is RunKind.BACKUP:
        context.journal.totals(manifest.rows, manifest.rows)
    return {
        "backup_id": str(backup_id), "name": name, "rows": manifest.rows, "bytes": manifest.sealed_size,
        "tables": tables, "seconds": round(context.monotonic() - began, 3), "sealed_seconds": sealed,
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
    """All streams; the manifest but for the rows' digests, which come of the bytes in the store, with the proof."""
    changes = planned_changes(context)
    with open_snapshot(context.target, context.plan, beyond_plan(context)) as snapshot:
        sealer = _Sealer(context, writer, snapshot)
        # The leader copies on the session that holds the snapshot: with no second one, nobody can queue between them.
        step = replace(STEP, open=lambda _, __: nullcontext(sealer.work))
        shown = _Shown(context, {name: table.estimated_rows for name, table in snapshot.tables.items()})
        views = share(
            context, step, _streams(snapshot, stream_bytes),
            {"snapshot": snapshot.exported, "backup_id": str(writer.backup_id)}, show=shown.show,
        )  # fmt: skip
        tables = tuple(_table(snapshot, title, views) for title in snapshot.tables)
        facts = server_facts(snapshot.connection)
        return Manifest(
            backup_id=writer.backup_id, created_at=context.now(), plan=context.plan.name,
            plan_fingerprint=context.plan.fingerprint, tables=tables,
            sequences=read_sequences(snapshot.connection, snapshot.tables),
            schema_fingerprint=schema_fingerprint(snapshot.tables), schema_changes=changes,
            types=describe_types(snapshot.connection, [table.oid for table in snapshot.tables.values()]), **facts,
        )  # fmt: skip


def beyond_plan(context: RunContext) -> list[tuple[str, str]]:
    """(schema, name) of the tables beyond the plan that `options["beyond"]` names: [[schema, name], …]."""
    return [(str(schema), str(name)) for schema, name in context.options.get("beyond") or ()]


def _streams(snapshot: Snapshot, stream_bytes: int) -> list[Partition]:
    """One partition a stream, numbered from 1 over all tables."""
    ranges = [
        (title, bounds)
        for title, table in snapshot.tables.items()
        for bounds in page_ranges(table, stream_bytes=stream_bytes)
    ]
    return [
        Partition(title, number, {"stream": number, "ctid_from": ctid_from, "ctid_to": ctid_to})
        for number, (title, (ctid_from, ctid_to)) in enumerate(ranges, start=1)
    ]


def _table(snapshot: Snapshot, title: str, views: Sequence[PartitionView]) -> TableManifest:
    """What its streams add up to; of its digest only the count."""
    catalog = snapshot.tables[title]
    results = [view.result for view in views if view.partition.table == title]
    streams = tuple(StreamManifest.from_json(each["stream"], "stream") for each in results)
    rows = sum(stream.rows for stream in streams)
    return TableManifest(
        schema=catalog.schema, name=catalog.name, columns=describe_columns(snapshot.connection, catalog),
        key=tuple(snapshot.keys[title]), rows=rows, hash=table_hash(streams), digest=TableDigest(rows),
        streams=streams, foreign_keys=describe_foreign_keys(catalog),
    )  # fmt: skip


class _Sealer:
    """Copies streams from one snapshot into one backup."""

    def __init__(self, context: RunContext, writer: BackupWriter, snapshot: Snapshot) -> None:
        self._context = context
        self._writer = writer
        self._snapshot = snapshot
        with translated("the session that copies"):
            widen(snapshot.connection)

    def work(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """One stream; its result: {"stream": its entry in the manifest}."""
        title, bounds = claimed.partition.table, claimed.partition.range
        ctids = {"ctid_from": bounds["ctid_from"], "ctid_to": bounds["ctid_to"]}
        table = self._snapshot.tables[title]
        statement = sql.SQL("COPY (SELECT {} FROM ONLY {}{}) TO STDOUT (FORMAT binary)").format(
            column_list(table), table.identifier, ctid_condition(**ctids)
        )
        copied = CopyOut(self._context, self._snapshot.connection, statement, note)
        with translated(f"the table {title}"):
            stream = self._writer.ensure_copied(bounds["stream"], copied, columns=len(table.columns))
        return Count(done=stream.rows), {"stream": asdict(replace(stream, **ctids))}


@contextmanager
def _open_sealing(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    """A helper's: the backup's store and key, and a session that sees the leader's instant."""
    backup_id = UUID(shared["backup_id"])
    writer = context.vault.resume(backup_id, context.journal.writing_keys(backup_id))
    with join_snapshot(context.target, context.plan, shared["snapshot"], beyond_plan(context)) as snapshot:
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
                Phase.BACKUP, tables, rate=rate, workers=workers_of(views),
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
