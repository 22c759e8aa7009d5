"""L1 as a step of a run: every byte of a backup read back, opened, parsed and hashed, by all workers."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.domain.manifest import Manifest, StreamManifest
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState, PartitionView
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Note, PartitionWorker, Show, Step, share
from briefly_admin.vault.vault import BackupReader, BackupWriter
from briefly_admin.vault.verify import Damage, Sought, Verdict, judge

PROOF_BYTES: Final = 128 << 20
"""What one partition of the proof reads, about, as it stands in the store."""
_READ_BACK: Final = "all tables, read back"


def prove(context: RunContext, manifest: Manifest, sha256: str, *, proof_bytes: int = PROOF_BYTES) -> list[Damage]:
    """L1 of a backup, shared among the workers: open it as a restore would, read every byte; all damage."""
    parts = [
        Partition(_READ_BACK, number, {"streams": [stream.number for _, stream in group]})
        for number, group in enumerate(_groups(manifest, proof_bytes), start=1)
    ]
    shared = {"backup_id": str(manifest.backup_id), "manifest_sha256": sha256}
    views = share(context, AGAIN, parts, shared, show=_shown(context, AGAIN, manifest.rows))
    return judge(manifest, [_verdict(view.result) for view in views])


def prove_written(context: RunContext, manifest: Manifest, *, proof_bytes: int = PROOF_BYTES) -> Manifest:
    """L1 of what the run has just written, before its manifest is: that one, with the digests of the rows in the store.

    Saves the baselines of the plan's tables, which a later phase compares with. Raises BackupDamaged.
    """
    parts = [
        Partition(_READ_BACK, number, {"streams": [[title, asdict(stream)] for title, stream in group]})
        for number, group in enumerate(_groups(manifest, proof_bytes), start=1)
    ]
    compared = _compared_later(context)
    tables = {
        title: {"label": table.label, "columns": len(table.columns), "key": table.key_positions * (title in compared)}
        for title, table in manifest.by_title.items()
    }
    shared = {"backup_id": str(manifest.backup_id), "tables": tables}
    views = share(context, PROOF, parts, shared, show=_shown(context, PROOF, manifest.rows))
    damages = [Damage(**each) for view in views for each in view.result["damages"]]
    if damages:
        raise BackupDamaged(
            f"The backup that was just written is damaged in {len(damages)} places: {damages[0]}.",
            damages=[str(damage) for damage in damages],
            remedy="Check the disk of the store; nothing was changed.",
        )
    for title in compared:
        found = [BucketDigests.from_bytes(base64.b64decode(text)) for text in _of(views, "buckets", title)]
        context.journal.save_baseline(title, sum(found, BucketDigests()).to_bytes())
    context.journal.log("info", f"Backup proven: {manifest.rows:,} rows read back and equal.", Phase.BACKUP)
    digests = {
        title: sum((TableDigest.parse(text) for text in _of(views, "digests", title)), TableDigest())
        for title in manifest.by_title
    }
    return replace(
        manifest,
        tables=tuple(replace(table, digest=digests[title]) for title, table in manifest.by_title.items()),
    )


def _compared_later(context: RunContext) -> frozenset[str]:
    """The tables whose rows a later phase compares with those of the backup, by bucket: none in a mere backup."""
    return frozenset() if context.kind is RunKind.BACKUP else frozenset(table.name for table in context.plan.tables)


def _of(views: Sequence[PartitionView], fact: str, title: str) -> list[str]:
    """What the partitions found of a table."""
    return [view.result[fact][title] for view in views if title in view.result[fact]]


def _shown(context: RunContext, step: Step, rows: int) -> Show:
    def show(views: Sequence[PartitionView]) -> None:
        done = sum(view.count.done for view in views)
        proven = TableProgress(_READ_BACK, total=rows, done=min(done, rows))
        context.report(Progress(step.phase, (proven,), workers=workers_of(views)))

    return show


def workers_of(views: Sequence[PartitionView]) -> int:
    """How many workers are at work on partitions just now."""
    return len({view.worker for view in views if view.state is PartitionState.WORKING})


def _groups(manifest: Manifest, proof_bytes: int) -> list[list[tuple[str, StreamManifest]]]:
    """(title, stream) in order, so many to a partition that it reads about `proof_bytes` from the store."""
    groups: list[list[tuple[str, StreamManifest]]] = [[]]
    size = 0
    for title, table in manifest.by_title.items():
        for stream in table.streams:
            if size >= proof_bytes:
                groups.append([])
                size = 0
            groups[-1].append((title, stream))
            size += stream.sealed_size
    return groups


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
def _open_again(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    backup_id = UUID(shared["backup_id"])
    context.vault.require_seen(backup_id)
    shred_key = context.journal.backup_keys(backup_id)[0]
    yield _Prover(context, context.vault.open(backup_id, shred_key, shared["manifest_sha256"])).work


@contextmanager
def _open_proving(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    backup_id = UUID(shared["backup_id"])
    writer = context.vault.resume(backup_id, context.journal.writing_keys(backup_id))
    yield partial(_prove_streams, context, writer, shared["tables"])


def _prove_streams(
    context: RunContext, writer: BackupWriter, tables: Mapping[str, Any], claimed: Claimed, note: Note
) -> tuple[Count, Mapping[str, Any]]:
    """Some streams; the result: {"damages": [...], "digests": {title: digest}, "buckets": {title: base64}}."""
    titles, sought, damages = [], [], []
    digests: dict[str, TableDigest] = {}
    buckets: dict[str, BucketDigests] = {}
    for title, entry in claimed.partition.range["streams"]:
        table, stream = tables[title], StreamManifest.from_json(entry, "stream")
        titles.append(title)
        sought.append(Sought(table["label"], table["columns"], stream, tuple(table["key"])))
    rows = sum(each.stream.rows for each in sought)
    found = writer.look_through(
        sought, should_stop=context.should_stop,
        progress=lambda done, total: note(Count(done=rows * done // max(total, 1))),
    )  # fmt: skip
    for title, looked in zip(titles, found, strict=True):
        damages += [asdict(each) for each in looked.damages]
        digests[title] = digests.get(title, TableDigest()) + (looked.digest or TableDigest())
        if looked.buckets is not None:
            buckets[title] = buckets.get(title, BucketDigests()) + looked.buckets
    return Count(done=rows), {
        "damages": damages,
        "digests": {title: str(digest) for title, digest in digests.items()},
        "buckets": {title: base64.b64encode(each.to_bytes()).decode() for title, each in buckets.items()},
    }


PROOF: Final = Step("prove", Phase.BACKUP, _open_proving)
"""Of what the run is writing: partitions are some streams each, {"streams": [[title, entry of the manifest]…]}; shared:
{"backup_id", "tables": {title: {"label", "columns", "key"}}}."""
AGAIN: Final = Step("verify-content", Phase.VERIFY, _open_again)
"""Of a backup that was written before: {"streams": [number…]}; shared: {"backup_id", "manifest_sha256"}."""
