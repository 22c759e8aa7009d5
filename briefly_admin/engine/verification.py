"""The phase verify of a verification: a backup's objects (L0), or all that they hold (L1), shared among the workers.

All damage is listed. A store that does not answer, or that is another one, is no damage; nor is a key that is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.errors import BackupDamaged, NotFound, Refused, Unavailable
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionView
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.proving import PROOF_BYTES, prove, workers_of
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.vault import layout
from briefly_admin.vault.verify import MISSING, Damage, StoredObject, verify_objects

PLACE: Final = "the store"
"""Where L0 and L1 look, for `backup_verified`."""
_MOST_LOGGED: Final = 100
_COMPARED: Final = "all objects, compared"


def run(context: RunContext, *, part_bytes: int = PROOF_BYTES) -> dict[str, Any]:
    """Verify the backup `options["backup_id"]` at `options["level"]`, and have the journal keep what was found.

    The result: level, rows, bytes (as they stand in the store), seconds, damages, damage_count. Raises BackupDamaged
    with all damage; BackupKeyMissing, BackupExpired, NotFound, Unavailable, Stopped, Fenced, which say nothing of it.
    """
    began = context.monotonic()
    backup_id = UUID(str(context.options["backup_id"]))
    level = str(context.options["level"])
    look = _objects_found if level == "L0" else _content_found
    rows, size, damages = look(context, backup_id, part_bytes)
    texts = [str(damage) for damage in damages]
    if damages:
        require_store(context, backup_id, damages)
        rows = 0
    seconds = round(context.monotonic() - began, 3)
    context.journal.backup_verified(backup_id, level, damages=texts, rows=rows, seconds=seconds, place=PLACE)
    if texts:
        raise damaged(context, Phase.VERIFY, texts)
    context.journal.log("info", f"{level}: every byte of {size:,} is as it was written.", Phase.VERIFY)
    context.journal.totals(rows, rows)
    return {"level": level, "rows": rows, "bytes": size, "seconds": seconds, "damages": [], "damage_count": 0}


def damaged(context: RunContext, phase: Phase, texts: Sequence[str]) -> BackupDamaged:
    """What to raise where a backup is damaged in these ways; the log tells the first hundred of them."""
    for text in texts[:_MOST_LOGGED]:
        context.journal.log("error", f"Damage: {text}.", phase)
    places = "one place" if len(texts) == 1 else f"{len(texts):,} places, first of all"
    return BackupDamaged(
        f"The backup is damaged in {places}: {texts[0]}.",
        damages=texts,
        remedy="Do not rely on it: take a new backup, and look at the disk of the store.",
    )


def require_store(context: RunContext, backup_id: UUID, damages: Sequence[Damage] = ()) -> None:
    """Raises Unavailable where what is missing says that the store, or its disk, is not there, or was not for a while.

    `damages`: what was found; an object among them that is missing, and there by now, was never damaged.
    """
    store = context.vault.store
    if next(iter(store.list()), None) is None:
        raise Unavailable(
            "The backup store holds nothing at all: it is another directory, or its disk is not there.",
            remedy="Look at BACKUP_STORE_URL and at the disk, then verify again; the backup was not marked as damaged.",
        )
    for damage in damages:
        if damage.what == MISSING:
            try:
                store.size(_key_of(backup_id, damage))
            except NotFound:
                continue
            raise _there_again(damage.table if damage.stream is None else f"{damage.table}, stream {damage.stream}")


def _key_of(backup_id: UUID, damage: Damage) -> str:
    """Of an object that is missing: a stream, or what stands beside them and is named so itself."""
    if damage.stream is None:
        return layout.prefix(backup_id) + damage.table
    return layout.stream_key(backup_id, damage.stream)


def _there_again(what: str) -> Unavailable:
    return Unavailable(
        f"Objects of the backup were missing ({what}) and are there again.",
        remedy="Look at the store's disk, and whether all workers have the same one; then verify again.",
    )


def _content_found(context: RunContext, backup_id: UUID, part_bytes: int) -> tuple[int, int, list[Damage]]:
    """L1: rows, bytes, all damage. Of a backup that damage keeps from being opened, every object is still compared."""
    shred_key, sha256 = context.journal.backup_keys(backup_id)
    try:
        manifest = context.vault.open(backup_id, shred_key, sha256).manifest
    except BackupDamaged as error:
        _, size, damages = _compared(context, backup_id, part_bytes)
        if all(damage.stream is not None for damage in damages):
            if isinstance(error.__cause__, NotFound) and _opens(context, backup_id, shred_key, sha256):
                raise _there_again("its manifest, or slots.json") from error
            damages = [*(Damage("", None, None, text) for text in error.damages or (error.message,)), *damages]
        return 0, size, damages
    return manifest.rows, manifest.sealed_size, prove(context, manifest, sha256, proof_bytes=part_bytes)


def _opens(context: RunContext, backup_id: UUID, shred_key: bytes, sha256: str) -> bool:
    """Whether it can be opened now."""
    try:
        context.vault.open(backup_id, shred_key, sha256)
    except BackupDamaged:
        return False
    return True


def _objects_found(context: RunContext, backup_id: UUID, part_bytes: int) -> tuple[int, int, list[Damage]]:
    """L0: no rows, bytes, all damage."""
    if not context.journal.backup_objects(backup_id):
        raise Refused(
            "The backup was written by a version that did not record its objects.", remedy="Verify it at level L1."
        )
    return _compared(context, backup_id, part_bytes)


def _compared(context: RunContext, backup_id: UUID, part_bytes: int) -> tuple[int, int, list[Damage]]:
    """L0 of every object that the app database knows of, shared among the workers."""
    objects = _recorded(context, backup_id)

    def show(views: Sequence[PartitionView]) -> None:
        done = sum(view.count.done for view in views)
        table = TableProgress(_COMPARED, total=len(objects), done=done)
        context.report(Progress(Phase.VERIFY, (table,), workers=workers_of(views)))

    # To the leader a missing slots.json is damage; to a helper it may mean that its store is another one.
    step = replace(OBJECTS, open=lambda _, __: nullcontext(partial(_compare, context, objects)))
    views = share(context, step, _parts(objects, part_bytes), {"backup_id": str(backup_id)}, show=show)
    damages = [Damage(**each) for view in views for each in view.result["damages"]]
    return 0, sum(each.size for each in objects), damages


def _recorded(context: RunContext, backup_id: UUID) -> list[StoredObject]:
    """The backup's objects as they were written."""
    return [StoredObject(**each) for each in context.journal.backup_objects(backup_id)]


def _parts(objects: Sequence[StoredObject], part_bytes: int) -> list[Partition]:
    """Objects in order, so many to a partition that it reads about `part_bytes`."""
    bounds, size = [0], 0
    for place, each in enumerate(objects):
        if size >= part_bytes:
            bounds.append(place)
            size = 0
        size += each.size
    bounds.append(len(objects))
    return [
        Partition(_COMPARED, number, {"first": first, "end": end})
        for number, (first, end) in enumerate(pairwise(bounds), start=1)
    ]


def _compare(
    context: RunContext, objects: Sequence[StoredObject], claimed: Claimed, note: Note
) -> tuple[Count, Mapping[str, Any]]:
    """Some objects; the result: {"damages": [...]}."""
    mine = objects[claimed.partition.range["first"] : claimed.partition.range["end"]]
    damages = verify_objects(
        context.vault.store, mine, should_stop=context.should_stop,
        progress=lambda done, total: note(Count(done=len(mine) * done // max(total, 1))),
    )  # fmt: skip
    return Count(done=len(mine)), {"damages": [asdict(damage) for damage in damages]}


@contextmanager
def _open_comparing(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    """A helper's."""
    backup_id = UUID(shared["backup_id"])
    context.vault.require_seen(backup_id)
    yield partial(_compare, context, _recorded(context, backup_id))


OBJECTS: Final = Step("verify-objects", Phase.VERIFY, _open_comparing)
"""Its partitions are some objects each, {"first", "end"} of the recorded ones; shared: {"backup_id"}."""
STEPS: Final = (OBJECTS,)
