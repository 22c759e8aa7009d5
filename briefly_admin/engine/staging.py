"""A backup's rows in a scratch schema of the target: what rollback, drill and verify compare with.

The run's workers load the streams, a partition each, and then index and check the tables, a partition each. A crash of
the server empties unlogged tables, therefore `still_whole` compares digests again before they are relied on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import BackupDamaged, NotFound, Unavailable
from briefly_admin.domain.manifest import Manifest, StreamManifest, TableManifest
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionView
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import fence, scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.noting import while_noting
from briefly_admin.engine.retry import describe, patiently
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.engine.staged import StagedTable, copy_into, create_staged, staged_digest, staged_table
from briefly_admin.engine.tally import Tally
from briefly_admin.engine.target import Connection
from briefly_admin.vault.vault import BackupReader

STAGED: Final = "staged"
"""The mark of a scratch schema whose tables were all loaded and checked."""
_CRASHES: Final = 3
"""How often staging begins anew after the server emptied what was there."""


def open_backup(context: RunContext) -> BackupReader:
    """The backup that `options["backup_id"]` names. Raises NotFound, BackupExpired, BackupKeyMissing, BackupDamaged."""
    return _open_backup(context, str(context.options["backup_id"]))


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
        for _ in range(_CRASHES):
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
    with _session(context, "staging") as connection:
        schema = scratch.create_scratch(connection, context.run_id, context.attempt)
        staged = tuple(create_staged(connection, reader.manifest, table, schema) for table in tables)
    if not load(context, Phase.STAGE, reader, tables, schema):
        return None
    with _session(context, "staging") as connection:
        scratch.mark(connection, schema, STAGED, {"backup_id": str(reader.manifest.backup_id)})
    return staged


def load(context: RunContext, phase: Phase, reader: BackupReader, tables: Sequence[TableManifest], schema: str) -> bool:
    """The leader's: fill the empty tables of the scratch schema, shared among the workers, and prove them.

    False where a crash of the server emptied them meanwhile. Raises BackupDamaged, Stopped, Unavailable, Fenced,
    psycopg.Error (the caller drops the schema).
    """
    shared = {"schema": schema, "backup_id": str(reader.manifest.backup_id)}
    loading, checking = _STEPS_OF[phase]
    rows = {table.name: table.rows for table in tables}
    streams = [(table, stream) for table in tables for stream in table.streams]
    share(
        context, loading,
        [Partition(table.name, number, {"stream": stream.number}) for number, (table, stream) in enumerate(streams)],
        shared, show=_Show(context, loading, Tally(context, phase, rows)),
    )  # fmt: skip
    checks = [Partition(table.name, number) for number, table in enumerate(tables)]
    show = _Show(context, checking, Tally(context, phase, rows, before=rows))
    views = share(context, checking, checks, shared, show=show)
    return not any(view.result.get("emptied") for view in views)


def emptied() -> Unavailable:
    """What to raise where crashes of the server empty what is staged."""
    return Unavailable(
        "PostgreSQL crashed while the backup was being staged.",
        remedy="Look at the database server's log, then resume the run: the backup is staged again.",
    )


def still_whole(
    connection: Connection, run_id: UUID, manifest: Manifest, tables: Sequence[TableManifest]
) -> tuple[str, tuple[StagedTable, ...]] | None:
    """The newest scratch schema of the run that holds these tables of this backup whole, and them; or None."""
    for schema in scratch.scratch_schemas(connection, run_id):
        found = scratch.marked(connection, schema, STAGED)
        if found is None or found.get("backup_id") != str(manifest.backup_id):
            continue
        staged = tuple(staged_table(connection, manifest, table, schema) for table in tables)
        if all(_is_whole(connection, each) for each in staged):
            return schema, staged
    return None


def drop_quietly(context: RunContext, phase: Phase) -> None:
    """Drop the run's scratch; a server that does not answer now keeps it until the next attempt drops it."""
    try:
        with context.target.session(bulk=True) as connection:
            scratch.drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)
    except Exception as error:  # noqa: BLE001 - the failure that brought us here is the one to tell
        context.journal.log("warning", f"The scratch schema is still there: {describe(error)}.", phase)


def _open_backup(context: RunContext, name: str) -> BackupReader:
    backup_id = UUID(name)
    shred_key, manifest_sha256 = context.journal.backup_keys(backup_id)
    return context.vault.open(backup_id, shred_key, manifest_sha256)


@contextmanager
def _session(context: RunContext, name: str) -> Iterator[Connection]:
    with context.target.session(bulk=True) as connection:
        _register(context, connection, name)
        yield connection


def _register(context: RunContext, connection: Connection, name: str) -> None:
    """A takeover ends this session, so that it cannot stand in the way of the next attempt's staging."""
    if context.kind is RunKind.ROLLBACK:
        fence.register(connection, context.run_id, context.attempt, name)


def _is_whole(connection: Connection, staged: StagedTable) -> bool:
    try:
        return staged_digest(connection, staged) == staged.manifest.digest
    except psycopg.errors.UndefinedTable:
        return False


def _part(stream: StreamManifest) -> str:
    """The name of a stream's part in the scratch schema."""
    return f"stream {stream.number}"


class _Worker:
    """One worker's session on the scratch schema; a lost one is replaced, and the parts' notes say what it had done."""

    def __init__(self, context: RunContext, phase: Phase, shared: Mapping[str, Any]) -> None:
        self._context = context
        self._phase = phase
        self._schema = str(shared["schema"])
        self._reader = _open_backup(context, str(shared["backup_id"]))
        self._tables = {table.name: table for table in self._reader.manifest.tables}
        self._connection: Connection | None = None

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()

    def load(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """Load a stream: rows, or what is damaged."""
        table = self._tables[claimed.partition.table]
        [stream] = [each for each in table.streams if each.number == claimed.partition.range["stream"]]
        return self._once(table, _part(stream), lambda connection: self._copy(connection, table, stream, note))

    def check(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """Index, analyse and compare a table that is loaded: nothing, or what is damaged."""
        table = self._tables[claimed.partition.table]
        return self._once(table, f"table {table.label}", lambda connection: self._proven(connection, table, note))

    def _once(
        self, table: TableManifest, what: str, work: Callable[[Connection], Mapping[str, Any]]
    ) -> tuple[Count, Mapping[str, Any]]:
        def once() -> Mapping[str, Any]:
            connection = self._connected()
            return scratch.once(
                connection, self._schema, what, lambda: work(connection), lambda: self._require(connection)
            )

        try:
            done = patiently(self._context, f"Staging {table.name}", self._announce, once)
        except BackupDamaged as error:
            if isinstance(error.__cause__, NotFound):
                # Perhaps only this worker's store lacks it: the leader, who opened the backup, finds out.
                raise
            # Rows that cannot be loaded: counts reach the leader soon, results at the end.
            return Count(skipped=max(table.rows, 1)), {
                "damaged": list(error.damages),
                "message": error.message,
                "remedy": error.remedy,
            }
        return Count(done=int(done["rows"])), done

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._context.target.connect(bulk=True)
            _register(self._context, self._connection, f"staging {self._context.journal.partitions.worker}")
        return self._connection

    def _require(self, connection: Connection) -> None:
        if self._context.kind is RunKind.ROLLBACK:
            fence.require(connection, self._context.run_id, self._context.attempt)

    def _announce(self, text: str, until: str = "") -> None:
        if text:
            self._context.journal.log("warning", text, self._phase)
        self._context.report(Progress(self._phase.value, waiting=text, waiting_until=until))

    def _copy(
        self, connection: Connection, table: TableManifest, stream: StreamManifest, note: Note
    ) -> Mapping[str, Any]:
        staged = staged_table(connection, self._reader.manifest, table, self._schema)
        size, read = max(stream.plaintext_size, 1), 0
        cursor = connection.cursor()
        with cursor.copy(copy_into(staged)) as loading:
            for piece in self._reader.read_table_stream(stream):
                loading.write(piece)
                read += len(piece)
                self._context.check_stop()
                note(Count(done=stream.rows * read // size))
        if cursor.rowcount != stream.rows:
            raise _damaged(table, f"stream {stream.number} has {cursor.rowcount} rows instead of {stream.rows}")
        return {"rows": stream.rows}

    def _proven(self, connection: Connection, table: TableManifest, note: Note) -> Mapping[str, Any]:
        def alive() -> None:
            self._context.check_stop()
            note(Count())

        self._context.check_stop()
        return while_noting(connection, alive, lambda: self._prove(connection, table))

    def _prove(self, connection: Connection, table: TableManifest) -> Mapping[str, Any]:
        staged = staged_table(connection, self._reader.manifest, table, self._schema)
        if table.key:
            index = sql.SQL("CREATE UNIQUE INDEX ON {} ({})")
            connection.execute(index.format(staged.identifier, sql.SQL(", ").join(map(sql.Identifier, table.key))))
        connection.execute(sql.SQL("ANALYZE {}").format(staged.identifier))
        if staged_digest(connection, staged) != table.digest:
            # A crash of the server empties the tables and the notes together: then nothing is damaged.
            loaded = {what for what, _ in scratch.parts(connection, self._schema, "stream ")}
            if not loaded.issuperset(_part(stream) for stream in table.streams):
                return {"rows": 0, "emptied": True}
            raise _damaged(table, "its rows are not those that were backed up")
        return {"rows": 0}  # they were counted when they were loaded


@contextmanager
def _open(
    context: RunContext, shared: Mapping[str, Any], *, phase: Phase,
    work: Callable[[_Worker, Claimed, Note], tuple[Count, Mapping[str, Any]]],
) -> Iterator[PartitionWorker]:  # fmt: skip
    worker = _Worker(context, phase, shared)
    try:
        yield partial(work, worker)
    finally:
        worker.close()


def _step(name: str, phase: Phase, work: Callable[[_Worker, Claimed, Note], tuple[Count, Mapping[str, Any]]]) -> Step:
    return Step(name, phase, partial(_open, phase=phase, work=work))


STEP: Final = _step("stage", Phase.STAGE, _Worker.load)
CHECK: Final = _step("stage-check", Phase.STAGE, _Worker.check)
VERIFY_STEP: Final = _step("verify-stage", Phase.VERIFY, _Worker.load)
VERIFY_CHECK: Final = _step("verify-check", Phase.VERIFY, _Worker.check)
STEPS: Final[tuple[Step, ...]] = (STEP, CHECK, VERIFY_STEP, VERIFY_CHECK)
_STEPS_OF: Final = {Phase.STAGE: (STEP, CHECK), Phase.VERIFY: (VERIFY_STEP, VERIFY_CHECK)}


class _Show:
    """Progress in rows; and what a worker found damaged ends the step at once."""

    def __init__(self, context: RunContext, step: Step, tally: Tally) -> None:
        self._partitions = context.journal.partitions
        self._step = step
        self._tally = tally

    def __call__(self, views: Sequence[PartitionView]) -> None:
        if any(view.count.skipped for view in views):
            for view in self._partitions.survey(self._step.name, results=True):
                found = view.result
                if "damaged" in found:
                    raise BackupDamaged(found["message"], damages=found["damaged"], remedy=found["remedy"])
        self._tally(views)


def _damaged(table: TableManifest, what: str) -> BackupDamaged:
    return BackupDamaged(
        f"The backup is damaged: {table.label}: {what}.",
        damages=[f"{table.label}: {what}"],
        remedy="Nothing was restored. Use another backup.",
    )
