"""A backup's rows in a scratch schema of the target: what rollback, drill and verify compare with.

The run's workers load the streams, a partition each, and then index and check the tables, a partition each. A crash of
the server empties unlogged tables, therefore `still_whole` compares digests again before they are relied on. Damage
ends the step at once, except in a drill, which lists all of it. What one run has staged another may use (`borrow`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from uuid import UUID

from briefly_admin.domain.errors import BackupDamaged, NotFound, Unavailable
from briefly_admin.domain.manifest import Manifest, TableManifest
from briefly_admin.domain.partitions import Partition, PartitionView
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.loading import KEPT, LEADERS, open_named, register
from briefly_admin.engine.retry import describe
from briefly_admin.engine.sharing import Step, share
from briefly_admin.engine.staged import StagedTable, create_staged, create_types, is_whole, staged_table
from briefly_admin.engine.tally import Tally
from briefly_admin.engine.target import Connection
from briefly_admin.vault.vault import BackupReader

STAGED: Final = "staged"
"""The mark of a scratch schema whose tables were all loaded and checked: {"backup_id"}, and of one that uses another
run's tables {"tables_in": the schema where they stand}, too."""
CRASHES: Final = 3
"""How often staging begins anew after the server emptied what was there."""


def open_backup(context: RunContext) -> BackupReader:
    """The backup that `options["backup_id"]` names. Raises NotFound, BackupExpired, BackupKeyMissing, BackupDamaged."""
    return open_named(context, str(context.options["backup_id"]))


def chosen_tables(context: RunContext, manifest: Manifest) -> tuple[TableManifest, ...]:
    """The backup's tables that `options["tables"]` names (None: all of the plan), in plan order. Raises NotFound."""
    planned = {table.name: place for place, table in enumerate(context.plan.tables)}
    by_title = {title: table for title, table in manifest.by_title.items() if title in planned}
    names = context.options.get("tables")
    unknown = sorted(set(names or ()) - by_title.keys())
    if unknown:
        raise NotFound(
            f"The backup has no table {', '.join(unknown)} of the plan.", remedy=f"It has {', '.join(by_title)}."
        )
    chosen = [title for title in by_title if names is None or title in names]
    return tuple(by_title[title] for title in sorted(chosen, key=planned.__getitem__))


def stage(context: RunContext, reader: BackupReader, tables: Sequence[TableManifest]) -> tuple[StagedTable, ...]:
    """Load and check the tables in a fresh scratch schema; earlier ones of the run are dropped.

    A worker's memory is a chunk. Raises BackupDamaged, Refused, Stopped, Unavailable, Fenced: then no scratch is left.
    """
    try:
        for _ in range(CRASHES):
            staged = _stage_once(context, reader, tables)
            if staged is not None:
                return staged
            context.journal.log("warning", "PostgreSQL crashed and emptied the staged tables.", Phase.STAGE)
    except BaseException:
        drop_quietly(context, Phase.STAGE)
        raise
    drop_quietly(context, Phase.STAGE)
    raise emptied()


def _stage_once(
    context: RunContext, reader: BackupReader, tables: Sequence[TableManifest]
) -> tuple[StagedTable, ...] | None:
    schema, staged = prepare(context, reader, tables)
    if not load(context, Phase.STAGE, reader, tables, schema):
        return None
    with _session(context, "staging") as connection:
        scratch.mark(connection, schema, STAGED, {"backup_id": str(reader.manifest.backup_id)})
    return staged


def prepare(
    context: RunContext, reader: BackupReader, tables: Sequence[TableManifest]
) -> tuple[str, tuple[StagedTable, ...]]:
    """A fresh scratch schema and the tables in it, empty; earlier ones of the run are dropped. Raises Refused."""
    with _session(context, "staging") as connection:
        schema = scratch.create_scratch(connection, context.run_id, context.attempt)
        if context.kind is RunKind.DRILL:  # elsewhere, the types may be missing; the target has them
            create_types(connection, reader.manifest, schema)
        staged = tuple(create_staged(connection, reader.manifest, table, schema) for table in tables)
        scratch.shut(connection, schema)
        return schema, staged


def load(context: RunContext, phase: Phase, reader: BackupReader, tables: Sequence[TableManifest], schema: str) -> bool:
    """The leader's: fill the empty tables of the scratch schema, shared among the workers, and prove them.

    False where a crash of the server emptied them meanwhile. Raises BackupDamaged, Stopped, Unavailable, Fenced,
    psycopg.Error (the caller drops the schema).
    """
    fill(context, phase, reader, tables, schema)
    return not any(view.result.get("emptied") for view in check(context, phase, reader, tables, schema))


def fill(
    context: RunContext, phase: Phase, reader: BackupReader, tables: Sequence[TableManifest], schema: str
) -> list[PartitionView]:
    """The first half of `load`: the streams, and how each went: {"rows", "seconds"}, or in a drill {"damaged"}."""
    by_title = _titled(reader, tables)
    streams = [(title, stream) for title, table in by_title.items() for stream in table.streams]
    parts = [Partition(title, number, {"stream": stream.number}) for number, (title, stream) in enumerate(streams)]
    tally = Tally(context, phase, {title: table.rows for title, table in by_title.items()})
    return _shared(context, LEADERS[phase][0], reader, parts, schema, tally)


def check(
    context: RunContext, phase: Phase, reader: BackupReader, tables: Sequence[TableManifest], schema: str
) -> list[PartitionView]:
    """The other half: the tables, each {"seconds"}, {"emptied"} by a crash, or in a drill {"damaged"}."""
    by_title = _titled(reader, tables)
    rows = {title: table.rows for title, table in by_title.items()}
    parts = [Partition(title, number) for number, title in enumerate(by_title)]
    return _shared(context, LEADERS[phase][1], reader, parts, schema, Tally(context, phase, rows, before=rows))


def _shared(
    context: RunContext, step: Step, reader: BackupReader, parts: Sequence[Partition], schema: str, tally: Tally
) -> list[PartitionView]:
    shared = {"schema": schema, "backup_id": str(reader.manifest.backup_id)}
    return share(context, step, parts, shared, show=_Show(context, step, tally))


def _titled(reader: BackupReader, tables: Sequence[TableManifest]) -> dict[str, TableManifest]:
    return {title: table for title, table in reader.manifest.by_title.items() if table in tables}


def emptied() -> Unavailable:
    """What to raise where crashes of the server empty what is staged."""
    return Unavailable(
        "PostgreSQL crashed while the backup was being staged.",
        remedy="Look at the database server's log, then resume the run: the backup is staged again.",
    )


def still_whole(
    connection: Connection, run_id: UUID, manifest: Manifest, tables: Sequence[TableManifest],
    judge: Callable[[Connection, StagedTable], bool] = is_whole,
) -> tuple[str, tuple[StagedTable, ...]] | None:  # fmt: skip
    """The newest scratch schema of the run that holds these tables of this backup whole, and them; or None.

    `judge`: whether a table is; by its digest, unless what is made of it is compared with the manifest anyway.
    """
    for schema in scratch.scratch_schemas(connection, run_id):
        found = scratch.marked(connection, schema, STAGED)
        if found is None or found.get("backup_id") != str(manifest.backup_id):
            continue
        place = str(found.get("tables_in", schema))
        staged = tuple(staged_table(connection, manifest, table, place) for table in tables)
        if all(judge(connection, each) for each in staged):
            return schema, staged
    return None


def borrow(
    context: RunContext, lender: UUID, reader: BackupReader, tables: Sequence[TableManifest]
) -> tuple[StagedTable, ...] | None:
    """Use what another run has staged, compared again by all workers: the run gets a scratch schema without tables.

    None where that is not whole, which the log says; the run is to stage them itself. Raises Stopped, Unavailable,
    Fenced, RunFailed, psycopg.Error; what is left of it then is no whole scratch schema.
    """
    with _session(context, "staging") as connection:
        place = _lent(connection, lender, reader.manifest)
    faults = ["it is gone"] if place is None else _faults(context, reader, tables, place)
    if faults or place is None:
        text = f"What run {lender} left staged cannot be used, and is staged anew: {'; '.join(faults)}."
        context.journal.log("warning", text, Phase.STAGE)
        return None
    with _session(context, "staging") as connection:
        schema = scratch.create_scratch(connection, context.run_id, context.attempt)
        mark = {"backup_id": str(reader.manifest.backup_id), "tables_in": place}
        scratch.mark(connection, schema, STAGED, mark)
        return tuple(staged_table(connection, reader.manifest, table, place) for table in tables)


def _lent(connection: Connection, lender: UUID, manifest: Manifest) -> str | None:
    """The lender's newest scratch schema that was whole with tables of this backup."""
    for schema in scratch.scratch_schemas(connection, lender):
        found = scratch.marked(connection, schema, STAGED)
        if found is not None and found.get("backup_id") == str(manifest.backup_id):
            return schema
    return None


def _faults(context: RunContext, reader: BackupReader, tables: Sequence[TableManifest], place: str) -> list[str]:
    parts = [Partition(title, number) for number, title in enumerate(_titled(reader, tables))]
    rows = {title: table.rows for title, table in _titled(reader, tables).items()}
    views = _shared(context, KEPT, reader, parts, place, Tally(context, Phase.STAGE, rows, before=rows))
    return [f"{view.partition.table} is not there whole" for view in views if not view.result.get("whole")]


def drop_quietly(context: RunContext, phase: Phase) -> None:
    """Drop the run's scratch; a server that does not answer now keeps it until the next attempt drops it."""
    try:
        with context.target.session(bulk=True) as connection:
            scratch.drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)
    except Exception as error:  # noqa: BLE001 - the failure that brought us here is the one to tell
        context.journal.log("warning", f"The scratch schema is still there: {describe(error)}.", phase)


@contextmanager
def _session(context: RunContext, name: str) -> Iterator[Connection]:
    with context.target.session(bulk=True) as connection:
        register(context, connection, name)
        yield connection


class _Show:
    """Progress in rows; and what a worker found damaged ends the step at once."""

    def __init__(self, context: RunContext, step: Step, tally: Tally) -> None:
        self._ends = context.kind is not RunKind.DRILL
        self._partitions = context.journal.partitions
        self._step = step
        self._tally = tally

    def __call__(self, views: Sequence[PartitionView]) -> None:
        if self._ends and any(view.count.skipped for view in views):
            for view in self._partitions.survey(self._step.name, results=True):
                found = view.result
                if "damaged" in found:
                    raise BackupDamaged(found["message"], damages=found["damaged"], remedy=found["remedy"])
        self._tally(views)
