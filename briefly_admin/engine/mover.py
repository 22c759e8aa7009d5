"""One partition of one table, batch after batch, from its checkpoint to its end: each batch exactly once."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Fenced, RunFailed, Unavailable
from briefly_admin.domain.partitions import Count, Partition
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.batching import Claim, KeyRange, Work, here, quarantined
from briefly_admin.engine.breaker import Announce
from briefly_admin.engine.careful import CarefulBatch, Outcome
from briefly_admin.engine.checkpoints import Checkpoint, claim_partition, counted, quarantine
from briefly_admin.engine.context import QuarantinedRow, RunContext
from briefly_admin.engine.fast import FastBatch
from briefly_admin.engine.fence import fenced, register
from briefly_admin.engine.pace import Pace
from briefly_admin.engine.retry import Patience, Verdict, classify, describe
from briefly_admin.engine.steering import Steering
from briefly_admin.engine.target import Connection

_SETTINGS: Final = (
    # A batch reads a few rows by key; statistics that are missing or old must not make it read a whole table.
    "SET enable_seqscan TO off; SET enable_mergejoin TO off; SET jit TO off; "
    # A worker that is stopped in the middle of a transaction keeps nobody waiting for longer than a takeover waits.
    "SET idle_in_transaction_session_timeout TO '20s'"
)
_NOTE_EVERY: Final = 0.5
"""Seconds between two notes of how far it has come; each is of batches that are on the target's disk."""
_NAP: Final = 1.0
"""Seconds of waiting after which the others are told that somebody is still there."""


def batch_session(context: RunContext) -> Connection:
    """A connection for batches: short timeouts, commits that do not wait for the disk."""
    connection = context.target.connect()
    connection.execute(_SETTINGS)
    connection.execute("SET synchronous_commit TO off")
    return connection


def refuse(row: QuarantinedRow) -> RunFailed:
    """The error of a row that may not be skipped."""
    return RunFailed(
        f"The row [{', '.join(row.key)}] of {row.table} cannot be changed: {row.message}.".replace("..", "."),
        remedy="Correct the row and resume the run, or start one with onInvalid=skip.",
    )


@dataclass
class Line:
    """A worker's session for batches, opened when it is needed and kept from partition to partition.

    `name`: what a takeover finds it by where no claim of a partition records it.
    """

    context: RunContext
    name: str = ""
    _connection: Connection | None = field(default=None, init=False)

    def open(self) -> Connection:
        """The session. Raises Unavailable, Fenced."""
        if self._connection is None:
            self._connection = batch_session(self.context)
            if self.name:
                register(self._connection, self.context.run_id, self.context.attempt, self.name)
        return self._connection

    def close(self) -> None:
        """Ends it; the next `open` makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()


@dataclass(frozen=True, slots=True)
class Tools:
    """What a worker's movers share: its session, the size of a table's batches, and how it says what it does."""

    line: Line
    steering: Steering
    announce: Announce
    sized: Callable[[int], None]
    """Takes the size of the next batch, in rows."""


class Mover:
    """Leads one partition of one table from its checkpoint to its end.

    `note` takes the count of what is surely on the target's disk; it raises Fenced once the partition is another's.
    """

    def __init__(
        self, context: RunContext, work: Work, partition: Partition, tools: Tools, note: Callable[[Count], None]
    ) -> None:
        self._context = replace(context, sleep=self._sleep)
        self._wait = context.sleep
        self._number = partition.number
        self._keys = KeyRange.of(partition.range)
        self._work = replace(work, by_place=bool(self._keys.since))
        self._tools = tools
        self._note = note
        self._texts: dict[tuple[bool, bool], FastBatch] = {}
        self._sent: tuple[Connection, FastBatch, int] | None = None
        self._planned: tuple[Connection, FastBatch, int] | None = None
        self._durable = Count()
        self._noted = context.monotonic()

    def move(self) -> Count:
        """Batch after batch; the partition's counts. Raises RunFailed, Stopped, Fenced, Unavailable."""
        patience = Patience(self._context, f"A batch of {self._work.table.name}", self._tools.announce)
        pace = Pace(self._context, self._tools.announce)
        steering, state = self._tools.steering, None
        while True:
            self._context.check_stop()
            steering.want(self._context.config.batch_size)
            size = min(steering.size, patience.admit() or steering.size)
            try:
                if state is None:
                    state = self._claim()
                if state.done:
                    patience.succeeded()
                    return counted(state)
                state, seconds = self._timed_batch(state, size)
            except (psycopg.Error, Unavailable) as error:
                if self._after_failure(error, patience) is Verdict.SMALLER:
                    steering.halve()
                # Whoever was silent for too long must not take the partition back from its new holder.
                self._note(self._durable)
                state = None
                continue
            patience.succeeded()
            self._rest(state, pace, seconds)

    def _sleep(self, seconds: float) -> None:
        while seconds > 0:
            self._wait(min(seconds, _NAP))
            self._note(self._durable)
            seconds -= _NAP

    def _claim(self) -> Checkpoint:
        context = self._context
        state = claim_partition(
            self._tools.line.open(), context.run_id, context.attempt, self._work.table.name, self._number,
            sleep=context.sleep, monotonic=context.monotonic,
        )  # fmt: skip
        self._texts.clear()
        self._durable = counted(state)
        return state

    def _after_failure(self, error: Exception, patience: Patience) -> Verdict:
        """Waits, or gives up; what kind of failure it was."""
        verdict = classify(error)
        # The next claim, on a new session, finds out what became of the batch.
        self._tools.line.close()
        if verdict in {Verdict.STOP, Verdict.ROWS}:
            raise RunFailed(
                f"A batch of {self._work.table.name} failed: {describe(error)}.",
                remedy="Correct the cause in the target database, then resume the run: it goes on at the last batch.",
            ) from None
        self._context.journal.log("warning", f"A batch of {self._work.table.name}: {describe(error)}", Phase.MIGRATE)
        patience.failed(error)
        return verdict

    def _rest(self, state: Checkpoint, pace: Pace, seconds: float) -> None:
        """Says how far it has come; then whatever pause the admin, the replicas and the server need."""
        if state.durable:
            self._durable = counted(state)
            self._noted = self._context.monotonic()
        self._note(self._durable)
        if state.done:
            return
        pace.after(self._tools.line.open(), seconds)
        if self._context.config.pause:
            self._context.sleep(self._context.config.pause / 1000)

    @property
    def _noting(self) -> bool:
        """Whether a note is due in the app database; the batch before it is then committed to the disk."""
        return self._context.monotonic() - self._noted >= _NOTE_EVERY

    def _timed_batch(self, state: Checkpoint, size: int) -> tuple[Checkpoint, float]:
        """The batch, and how many seconds it took."""
        self._tools.sized(size)
        begun = self._context.monotonic()
        moved = self._batch(state, size)
        seconds = self._context.monotonic() - begun
        self._tools.steering.took(counted(moved).done - counted(state).done, seconds)
        return moved, seconds

    def _batch(self, state: Checkpoint, limit: int) -> Checkpoint:
        connection = self._tools.line.open()
        durable = self._noting
        try:
            looked, written = self._send(connection, state, limit, durable=durable)
        except psycopg.Error as error:
            # A deferred constraint that fails at COMMIT is a row's fault, too: nothing was committed.
            if classify(error) is not Verdict.ROWS:
                raise
            connection.rollback()
            return self._careful(connection, state, limit)
        done = looked < limit
        if self._context.config.debug:
            self._context.journal.log(
                "debug", f"{self._work.table.name}: {looked} rows, {written} changed", Phase.MIGRATE
            )
        # The key itself stays in the target; here only whether there is one.
        last = state.last_key or ("",) if looked else state.last_key
        return replace(
            state, last_key=last, counters=_added(state, looked, written, 0), done=done, durable=durable or done
        )  # fmt: skip

    def _send(self, connection: Connection, state: Checkpoint, limit: int, *, durable: bool) -> tuple[int, int]:
        """Sends a whole batch, COMMIT included; rows looked at and rows changed."""
        first, ordered = state.last_key is None, self._context.config.workers > 1
        batch = self._texts.get((first, ordered))
        if batch is None:
            batch = FastBatch.compose(connection, self._work, state.claim, self._keys, first=first, ordered=ordered)
            self._texts[first, ordered] = batch
        cursor = connection.execute(self._text(connection, batch, limit, durable=durable))
        looked = written = 0
        while cursor.nextset():
            if cursor.pgresult and cursor.pgresult.nfields > 1:
                looked, written = (cursor.fetchone() or (0, 0))[:2]
        return looked, written

    def _text(self, connection: Connection, batch: FastBatch, limit: int, *, durable: bool) -> bytes:
        """The batch's text; of one that comes again, only the names of the plans that the session then keeps.

        Planning costs a batch of 100 rows a third of its time, and one of thousands nothing that matters.
        """
        now = (connection, batch, limit)
        if self._planned != now:
            before, self._sent = self._sent, now
            if before != now:
                return batch.of(limit, durable=durable)
            connection.execute(batch.prepare(limit))
            self._planned = now
        return batch.execute(durable=durable)

    def _careful(self, connection: Connection, state: Checkpoint, limit: int) -> Checkpoint:
        """The same batch with its rows locked, around those that fail."""
        context, claim = self._context, state.claim
        config = context.config
        place = here(claim.run_id, claim.table, claim.partition)
        failures: list[QuarantinedRow] = []

        def failed(row: QuarantinedRow) -> None:
            if config.on_invalid != "skip":
                raise refuse(row)
            failures.append(row)

        with fenced(connection, claim.run_id, claim.attempt):
            held = _locked(connection, place, claim)
            if held.done:
                return held
            careful = CarefulBatch(
                connection, self._work, left_alone=quarantined(claim.run_id, self._work), on_failure=failed
            )
            outcome = careful.run(self._work.between(held.last_key, self._keys), limit)
            if failures:
                quarantine(connection, claim.run_id, failures, most=config.max_skipped)
            new = _moved(held, outcome, len(failures))
            _save(connection, place, new)
        for row in failures:
            context.journal.log("warning", f"Skipped {row.table} [{', '.join(row.key)}]: {row.message}", Phase.MIGRATE)
        return new


def _added(state: Checkpoint, looked: int, changed: int, skipped: int) -> dict[str, int]:
    count = counted(state) + Count(looked, changed, skipped)
    return {"looked": count.done, "changed": count.changed, "skipped": count.skipped}


def _locked(connection: Connection, place: sql.Composed, claim: Claim) -> Checkpoint:
    """The checkpoint, locked. Raises Fenced where another claim owns the partition."""
    query = sql.SQL(
        "SELECT c.claim, c.last_key, c.counters, c.done FROM briefly_migration.checkpoint AS c WHERE {} FOR UPDATE"
    )
    row = connection.execute(query.format(place)).fetchone()
    if row is None or row[0] != claim.claim:
        raise Fenced(f"Another worker has claimed {claim.table}: this one writes nothing more.")
    return Checkpoint(claim, tuple(row[1]) if row[1] else None, row[2], row[3])


def _moved(held: Checkpoint, outcome: Outcome, skipped: int) -> Checkpoint:
    counters = _added(held, outcome.looked, outcome.changed, skipped)
    return replace(
        held, last_key=outcome.last_key or held.last_key, counters=counters, done=not outcome.looked, durable=True
    )  # fmt: skip


def _save(connection: Connection, place: sql.Composed, state: Checkpoint) -> None:
    last = sql.Literal(list(state.last_key)) if state.last_key else sql.SQL("NULL")
    counters = (sql.Literal(state.counters[name]) for name in ("looked", "changed", "skipped"))
    connection.execute(
        sql.SQL(
            "SET LOCAL synchronous_commit TO on; UPDATE briefly_migration.checkpoint AS c SET last_key = {}::text[], "
            "counters = jsonb_build_object('looked', {}, 'changed', {}, 'skipped', {}), done = {} WHERE {}"
        ).format(last, *counters, sql.Literal(state.done), place)
    )
