"""What a worker does of staging: streams loaded, tables indexed and compared, each exactly once, in its own session."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import BackupDamaged, NotFound, RunFailed
from briefly_admin.domain.manifest import StreamManifest, TableManifest
from briefly_admin.domain.partitions import Claimed, Count
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import fence, scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.noting import while_noting
from briefly_admin.engine.retry import describe, patiently
from briefly_admin.engine.sharing import Note, PartitionWorker, Step
from briefly_admin.engine.staged import copy_into, is_whole, staged_digest, staged_table
from briefly_admin.engine.target import Connection
from briefly_admin.vault.vault import BackupReader

_STREAM: Final = "stream "
_REFUSED: Final = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProtocolViolation)
"""What COPY says of values that a type does not take; the last, of too few bytes, is no sign of a lost connection."""


def open_named(context: RunContext, name: str) -> BackupReader:
    """The backup of this id. Raises NotFound, BackupExpired, BackupKeyMissing, BackupDamaged."""
    backup_id = UUID(name)
    shred_key, manifest_sha256 = context.journal.backup_keys(backup_id)
    return context.vault.open(backup_id, shred_key, manifest_sha256)


def register(context: RunContext, connection: Connection, name: str) -> None:
    """A takeover ends this session, so that it cannot stand in the way of the next attempt's staging."""
    if context.kind is RunKind.ROLLBACK:
        fence.register(connection, context.run_id, context.attempt, name)


def _part(stream: StreamManifest) -> str:
    """The name of a stream's part in the scratch schema."""
    return f"{_STREAM}{stream.number}"


def all_loaded(connection: Connection, schema: str, tables: Sequence[TableManifest]) -> bool:
    """Whether every stream of the tables is noted as loaded; a crash empties tables and notes together."""
    loaded = {what for what, _ in scratch.parts(connection, schema, _STREAM)}
    return loaded.issuperset(_part(stream) for table in tables for stream in table.streams)


class _Worker:
    """One worker's session on the scratch schema; a lost one is replaced, and the parts' notes say what it had done."""

    def __init__(self, context: RunContext, phase: Phase, shared: Mapping[str, Any], *, leads: bool) -> None:
        self._context = context
        self._leads = leads
        self._lists_all = context.kind is RunKind.DRILL
        self._phase = phase
        self._schema = str(shared["schema"])
        self._reader = open_named(context, str(shared["backup_id"]))
        self._tables = self._reader.manifest.by_title
        self._connection: Connection | None = None

    def close(self) -> None:
        """End the session."""
        if self._connection is not None:
            self._connection.close()

    def load(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """Load a stream: rows, or what is damaged."""
        table = self._tables[claimed.partition.table]
        [stream] = [each for each in table.streams if each.number == claimed.partition.range["stream"]]
        return self._once(table, _part(stream), lambda connection: self._copy(connection, table, stream, note), stream)

    def check(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """Index, analyse and compare a table that is loaded: nothing, or what is damaged."""
        table = self._tables[claimed.partition.table]
        return self._once(table, f"table {table.label}", lambda connection: self._proven(connection, table, note))

    def compare(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """Compare a table that another run has staged and checked: {"whole"}."""
        table = self._tables[claimed.partition.table]

        def compared() -> bool:
            connection = self._connected()
            staged = staged_table(connection, self._reader.manifest, table, self._schema)
            return while_noting(connection, self._alive(note), lambda: is_whole(connection, staged))

        return Count(), {"whole": patiently(self._context, f"Comparing {table.name}", self._announce, compared)}

    def _once(
        self, table: TableManifest, what: str, work: Callable[[Connection], Mapping[str, Any]],
        stream: StreamManifest | None = None,
    ) -> tuple[Count, Mapping[str, Any]]:  # fmt: skip
        def timed(connection: Connection) -> Mapping[str, Any]:
            began = self._context.monotonic()
            return {**work(connection), "seconds": round(self._context.monotonic() - began, 3)}

        def once() -> Mapping[str, Any]:
            connection = self._connected()
            return scratch.once(
                connection, self._schema, what, lambda: timed(connection), lambda: self._require(connection)
            )

        try:
            done = patiently(self._context, f"Staging {table.name}", self._announce, once)
        except BackupDamaged as error:
            if isinstance(error.__cause__, NotFound) and not (self._leads and self._lists_all):
                # Perhaps only this worker's store lacks it: the leader, who opened the backup, finds out.
                raise
            # Rows that cannot be loaded: counts reach the leader soon, results at the end.
            return Count(skipped=max(table.rows, 1)), {
                "damaged": self._all_damage(error, stream),
                "message": error.message,
                "remedy": error.remedy,
            }
        return Count(done=int(done["rows"])), done

    def _all_damage(self, error: BackupDamaged, stream: StreamManifest | None) -> list[str]:
        """Loading ends at the first damaged byte of a stream; a drill looks through the rest of it, too."""
        found = list(error.damages)
        if self._lists_all and stream is not None:
            verdict = self._reader.verify_streams({stream.number}, should_stop=self._context.should_stop)
            found = [str(damage) for damage in verdict.damages] or found
        return found

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._context.target.connect(bulk=True)
            register(self._context, self._connection, f"staging {self._context.journal.partitions.worker}")
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
        try:
            with cursor.copy(copy_into(staged)) as loading:
                for piece in self._reader.read_table_stream(stream):
                    loading.write(piece)
                    read += len(piece)
                    self._context.check_stop()
                    note(Count(done=stream.rows * read // size))
        except _REFUSED as error:
            raise RunFailed(
                f"{self._context.target.title} refuses rows of {table.label}: {describe(error)}.",
                remedy="Restore on a server of the version that was backed up, of the same extensions.",
            ) from None
        if cursor.rowcount != stream.rows:
            raise _damaged(table, f"stream {stream.number} has {cursor.rowcount} rows instead of {stream.rows}")
        return {"rows": stream.rows}

    def _proven(self, connection: Connection, table: TableManifest, note: Note) -> Mapping[str, Any]:
        self._context.check_stop()
        return while_noting(connection, self._alive(note), lambda: self._prove(connection, table))

    def _alive(self, note: Note) -> Callable[[], None]:
        """What is called while a statement takes its time."""

        def alive() -> None:
            self._context.check_stop()
            note(Count())

        return alive

    def _prove(self, connection: Connection, table: TableManifest) -> Mapping[str, Any]:
        staged = staged_table(connection, self._reader.manifest, table, self._schema)
        if table.key:
            index = sql.SQL("CREATE UNIQUE INDEX ON {} ({})")
            try:
                connection.execute(index.format(staged.identifier, sql.SQL(", ").join(map(sql.Identifier, table.key))))
            except psycopg.errors.UniqueViolation:
                raise _damaged(table, f"several of its rows have one key ({', '.join(table.key)})") from None
        connection.execute(sql.SQL("ANALYZE {}").format(staged.identifier))
        if staged_digest(connection, staged) != table.digest:
            if not all_loaded(connection, self._schema, [table]):
                return {"rows": 0, "emptied": True}
            raise _damaged(table, "its rows are not those that were backed up")
        return {"rows": 0}  # they were counted when they were loaded


@contextmanager
def _open(
    context: RunContext, shared: Mapping[str, Any], *, phase: Phase,
    work: Callable[[_Worker, Claimed, Note], tuple[Count, Mapping[str, Any]]], leads: bool = False,
) -> Iterator[PartitionWorker]:  # fmt: skip
    worker = _Worker(context, phase, shared, leads=leads)
    try:
        yield partial(work, worker)
    finally:
        worker.close()


def _step(
    name: str, phase: Phase, work: Callable[[_Worker, Claimed, Note], tuple[Count, Mapping[str, Any]]],
    *, leads: bool = False,
) -> Step:  # fmt: skip
    return Step(name, phase, partial(_open, phase=phase, work=work, leads=leads))


STEP: Final = _step("stage", Phase.STAGE, _Worker.load)
CHECK: Final = _step("stage-check", Phase.STAGE, _Worker.check)
KEPT: Final = _step("stage-kept", Phase.STAGE, _Worker.compare)
"""What a preview has left staged, compared again."""
VERIFY_STEP: Final = _step("verify-stage", Phase.VERIFY, _Worker.load)
VERIFY_CHECK: Final = _step("verify-check", Phase.VERIFY, _Worker.check)
STEPS: Final[tuple[Step, ...]] = (STEP, CHECK, KEPT, VERIFY_STEP, VERIFY_CHECK)
LEADERS: Final[Mapping[Phase, tuple[Step, Step]]] = {
    Phase.STAGE: (
        _step(STEP.name, Phase.STAGE, _Worker.load, leads=True),
        _step(CHECK.name, Phase.STAGE, _Worker.check, leads=True),
    ),
    Phase.VERIFY: (
        _step(VERIFY_STEP.name, Phase.VERIFY, _Worker.load, leads=True),
        _step(VERIFY_CHECK.name, Phase.VERIFY, _Worker.check, leads=True),
    ),
}
"""Phase → the same steps for who leads: loading, and checking."""


def _damaged(table: TableManifest, what: str) -> BackupDamaged:
    return BackupDamaged(
        f"The backup is damaged: {table.label}: {what}.",
        damages=[f"{table.label}: {what}"],
        remedy="Nothing was restored. Use another backup.",
    )
