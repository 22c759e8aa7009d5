"""L1 as a step of a run: every byte of a backup read back, opened, parsed and hashed, by all workers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.domain.manifest import Manifest
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState, PartitionView
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.vault.vault import BackupReader
from briefly_admin.vault.verify import Damage, Verdict, judge

PROOF_BYTES: Final = 128 << 20
"""What one partition of the proof reads, about, as it stands in the store."""
_READ_BACK: Final = "all tables, read back"


def prove(context: RunContext, manifest: Manifest, sha256: str, *, proof_bytes: int = PROOF_BYTES) -> list[Damage]:
    """L1 of a backup, shared among the workers: open it as a restore would, read every byte; all damage.

    The backup is the one that the run is writing or, in a verification, any.
    """
    step = AGAIN if context.kind is RunKind.VERIFICATION else PROOF

    def show(views: Sequence[PartitionView]) -> None:
        done = sum(view.count.done for view in views)
        proven = TableProgress(_READ_BACK, total=manifest.rows, done=min(done, manifest.rows))
        context.report(Progress(step.phase, (proven,), workers=workers_of(views)))

    shared = {"backup_id": str(manifest.backup_id), "manifest_sha256": sha256}
    views = share(context, step, _proof_partitions(manifest, proof_bytes), shared, show=show)
    return judge(manifest, [_verdict(view.result) for view in views])


def prove_written(context: RunContext, manifest: Manifest, sha256: str, *, proof_bytes: int = PROOF_BYTES) -> None:
    """L1 of the backup that the run has just written. Raises BackupDamaged."""
    damages = prove(context, manifest, sha256, proof_bytes=proof_bytes)
    if damages:
        raise BackupDamaged(
            f"The backup that was just written is damaged in {len(damages)} places: {damages[0]}.",
            damages=[str(damage) for damage in damages],
            remedy="Check the disk of the store; nothing was changed.",
        )
    context.journal.log("info", f"Backup proven: {manifest.rows:,} rows read back and equal.", Phase.BACKUP)


def workers_of(views: Sequence[PartitionView]) -> int:
    """How many workers are at work on partitions just now."""
    return len({view.worker for view in views if view.state is PartitionState.WORKING})


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
    journal = context.journal
    verified = context.kind is RunKind.VERIFICATION
    shred_key = journal.backup_keys(backup_id)[0] if verified else journal.writing_keys(backup_id)
    yield _Prover(context, context.vault.open(backup_id, shred_key, shared["manifest_sha256"])).work


PROOF: Final = Step("prove", Phase.BACKUP, _open_proving)
"""Its partitions are some streams each, {"streams": [number…]}; shared: {"backup_id", "manifest_sha256"}."""
AGAIN: Final = Step("verify-content", Phase.VERIFY, _open_proving)
"""The same of a backup that was written before."""
