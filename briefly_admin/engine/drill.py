"""A drill: a whole backup restored into a scratch schema, compared, and dropped; so that it is known to restore.

The place is the target, or a database of its own; nothing in it is touched but the scratch schema. All tables of the
backup are staged, those beyond the plan, too, by all of the run's workers. All damage is listed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from briefly_admin.domain.errors import BackupDamaged, VerificationFailed
from briefly_admin.domain.manifest import Manifest, TableManifest
from briefly_admin.domain.partitions import PartitionView
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import scratch, staging, verification
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.loading import all_loaded
from briefly_admin.engine.preflight import concluded
from briefly_admin.engine.preflight.drilling import check_place
from briefly_admin.engine.references import TriedKey, try_keys
from briefly_admin.engine.retry import patiently
from briefly_admin.vault.vault import BackupReader

_LEVEL = "L2"


class _BrokenKeys(VerificationFailed):
    """Every row is as it was backed up, and breaks a foreign key that was valid: no damage of the backup's bytes."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(
            f"The rows are those that were backed up, but they break a foreign key: {keys[0]}.",
            remedy="Look for such rows in the database itself; a rollback to this backup brings them back.",
        )
        self.keys = tuple(keys)


def preflight(context: RunContext) -> dict[str, Any]:
    """Whether the backup opens and its place can take it; the result is `{colour, checks, amber}`.

    Raises PreflightFailed, which names every red check; BackupError, NotFound, Unavailable, Stopped.
    """
    context.check_stop()
    context.report(Progress(Phase.PREFLIGHT))
    with _judged(context):
        manifest = staging.open_backup(context).manifest
    return concluded(context, check_place(context.target, manifest))


def stage(context: RunContext) -> dict[str, Any]:
    """Load every stream of the backup: place, tables (table, rows, bytes, seconds), seconds.

    Raises BackupDamaged with all damage, Refused, Unavailable, Stopped, Fenced, RunFailed, psycopg.Error; then no
    scratch is left, and damage is in the journal.
    """
    began = context.monotonic()
    with _judged(context):
        reader = staging.open_backup(context)
        _, loaded = _staged(context, Phase.STAGE, reader)
    return {
        "place": context.target.title,
        "tables": [_line(title, table, loaded) for title, table in reader.manifest.by_title.items()],
        "seconds": round(context.monotonic() - began, 3),
    }


def verify(context: RunContext) -> dict[str, Any]:
    """Compare every staged table with the manifest, try its keys and foreign keys, drop the scratch, tell the journal.

    The result: level, place, rows, bytes, seconds (staging included), tables (table, rows, bytes, seconds,
    equal), foreign_keys (see TriedKey), damages, damage_count. Raises as `stage` does.
    """
    began = context.monotonic()
    with _judged(context):
        reader = staging.open_backup(context)
        try:
            tables, keys = _examined(context, reader)
            _drop(context)
        finally:
            staging.drop_quietly(context, Phase.VERIFY)
    before = context.journal.finished_phases().get(Phase.STAGE, {}).get("seconds", 0.0)
    seconds = round(before + context.monotonic() - began, 3)
    manifest, place = reader.manifest, context.target.title
    context.journal.backup_verified(
        manifest.backup_id, _LEVEL, damages=(), rows=manifest.rows, seconds=seconds, place=place
    )
    context.journal.totals(manifest.rows, manifest.rows)
    context.journal.log("info", f"{manifest.rows:,} rows were restored on {place}, and are equal.", Phase.VERIFY)
    return {
        "level": _LEVEL, "place": place, "rows": manifest.rows, "bytes": manifest.sealed_size, "seconds": seconds,
        "tables": tables, "foreign_keys": [key.to_json() for key in keys], "damages": [], "damage_count": 0,
    }  # fmt: skip


@contextmanager
def _judged(context: RunContext) -> Iterator[None]:
    """What is met goes into the journal: damage, unless it is the store that is gone; and keys that do not hold."""
    began = context.monotonic()
    try:
        yield
    except (BackupDamaged, _BrokenKeys) as error:
        backup_id = UUID(str(context.options["backup_id"]))
        damages: Sequence[str] = ()
        if isinstance(error, BackupDamaged):
            verification.require_store(context, backup_id)
            damages = error.damages or (error.message,)
        context.journal.backup_verified(
            backup_id, _LEVEL, damages=damages, rows=0, seconds=round(context.monotonic() - began, 3),
            place=context.target.title, broken=error.keys if isinstance(error, _BrokenKeys) else (),
        )  # fmt: skip
        raise


def _staged(context: RunContext, phase: Phase, reader: BackupReader) -> tuple[str, dict[str, float]]:
    """A fresh scratch schema with all rows, and title → seconds that loading took; no schema is left on failure."""
    manifest = reader.manifest
    try:
        schema, _ = staging.prepare(context, reader, manifest.tables)
        loaded = _seconds(_loaded(context, phase, reader, schema))
        with context.target.session(bulk=True) as connection:
            scratch.mark(connection, schema, staging.STAGED, {"backup_id": str(manifest.backup_id), "seconds": loaded})
    except BaseException:
        staging.drop_quietly(context, phase)
        raise
    return schema, loaded


def _loaded(context: RunContext, phase: Phase, reader: BackupReader, schema: str) -> Sequence[PartitionView]:
    """Fill the tables; where streams are damaged, the other tables are checked, so that all damage is known."""
    views = staging.fill(context, phase, reader, reader.manifest.tables, schema)
    damages = _damages(views)
    if damages:
        sound = _sound(reader.manifest, views)
        damages += _damages(staging.check(context, phase, reader, list(sound.values()), schema))
        raise verification.damaged(context, phase, damages)
    return views


def _standing(context: RunContext, manifest: Manifest) -> tuple[str, dict[str, float]] | None:
    """What this attempt has staged, or None: what an earlier one had is not relied on."""
    schema = scratch.scratch_schema(context.run_id, context.attempt)
    with context.target.session(bulk=True) as connection:
        found = scratch.marked(connection, schema, staging.STAGED)
    if found is None or found.get("backup_id") != str(manifest.backup_id):
        return None
    return schema, dict(found["seconds"])


def _examined(context: RunContext, reader: BackupReader) -> tuple[list[dict[str, Any]], list[TriedKey]]:
    """The tables and the foreign keys of the report. Raises BackupDamaged with all damage, _BrokenKeys."""
    manifest = reader.manifest
    standing = _standing(context, manifest)
    for _ in range(staging.CRASHES):
        schema, loaded = standing or _staged(context, Phase.VERIFY, reader)
        views = staging.check(context, Phase.VERIFY, reader, manifest.tables, schema)
        keys = try_keys(context, manifest, schema, _sound(manifest, views))
        with context.target.session(bulk=True) as connection:
            whole = all_loaded(connection, schema, manifest.tables)
        if whole:
            break
        context.journal.log("warning", "PostgreSQL crashed and emptied the staged tables.", Phase.VERIFY)
        standing = None
    else:
        raise staging.emptied()
    for key in keys:
        if key.remark and not key.damage:
            context.journal.log("warning", f"{key.table}, foreign key {key.name}: {key.remark}.", Phase.VERIFY)
    damages, broken = _damages(views), [key.damage for key in keys if key.damage]
    if damages:
        raise verification.damaged(context, Phase.VERIFY, [*damages, *broken])
    if broken:
        for text in broken:
            context.journal.log("error", f"{text}.", Phase.VERIFY)
        raise _BrokenKeys(broken)
    seconds = _seconds(views, loaded)
    tables = manifest.by_title.items()
    return [_line(title, table, seconds) | {"equal": True} for title, table in tables], keys


def _drop(context: RunContext) -> None:
    """No drill is done while its scratch stands. Raises Unavailable; the next attempt drops what is there."""

    def drop() -> None:
        with context.target.session(bulk=True) as connection:
            scratch.drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)

    def announce(text: str, until: str = "") -> None:
        context.report(Progress(Phase.VERIFY, waiting=text, waiting_until=until))

    patiently(context, "Dropping the scratch schema", announce, drop)


def _damages(views: Sequence[PartitionView]) -> list[str]:
    return [text for view in views for text in view.result.get("damaged", ())]


def _sound(manifest: Manifest, views: Sequence[PartitionView]) -> dict[str, TableManifest]:
    """The tables that none of these partitions found damaged, by title."""
    hurt = {view.partition.table for view in views if "damaged" in view.result}
    return {title: table for title, table in manifest.by_title.items() if title not in hurt}


def _seconds(views: Sequence[PartitionView], before: Mapping[str, float] | None = None) -> dict[str, float]:
    """Title → seconds that its partitions took, added up over all workers."""
    found = dict(before or {})
    for view in views:
        title = view.partition.table
        found[title] = round(found.get(title, 0.0) + float(view.result.get("seconds", 0.0)), 3)
    return found


def _line(title: str, table: TableManifest, seconds: Mapping[str, float]) -> dict[str, Any]:
    size = sum(stream.sealed_size for stream in table.streams)
    return {"table": title, "rows": table.rows, "bytes": size, "seconds": seconds.get(title, 0.0)}
