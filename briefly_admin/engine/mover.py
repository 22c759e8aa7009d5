"""One partition of one table, batch after batch, from its checkpoint to its end: each batch exactly once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Fenced, RunFailed, Unavailable
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.batching import Claim, Work, fast_batch, here, quarantined
from briefly_admin.engine.careful import CarefulBatch, Outcome
from briefly_admin.engine.checkpoints import Checkpoint, claim_partition, quarantine, set_aside
from briefly_admin.engine.context import QuarantinedRow, RunContext
from briefly_admin.engine.fence import fenced
from briefly_admin.engine.gauge import Gauge
from briefly_admin.engine.retry import Patience, Verdict, classify, describe
from briefly_admin.engine.target import Connection

_PLANNER: Final = (
    # A batch reads a few rows by key; statistics that are missing or old must not make it read a whole table.
    "SET enable_seqscan TO off; SET enable_mergejoin TO off; SET jit TO off"
)
_TOTALS_EVERY: Final = 2.0
"""Seconds between two notes of the totals in the app database."""


def batch_session(context: RunContext) -> Connection:
    """A connection for batches: short timeouts, commits that do not wait for the disk."""
    connection = context.target.connect()
    connection.execute(_PLANNER)
    connection.execute("SET synchronous_commit TO off")
    return connection


def refuse(row: QuarantinedRow) -> RunFailed:
    """The error of a row that may not be skipped."""
    return RunFailed(
        f"The row [{', '.join(row.key)}] of {row.table} cannot be changed: {row.message}.".replace("..", "."),
        remedy="Correct the row and resume the run, or start one with onInvalid=skip.",
    )


@dataclass(frozen=True, slots=True)
class Count:
    """Rows of a partition that were looked at and changed, as its checkpoint counts them."""

    looked: int = 0
    changed: int = 0

    @classmethod
    def of(cls, counters: Mapping[str, Any]) -> "Count":
        """From the checkpoint's counters."""
        return cls(int(counters.get("looked", 0)), int(counters.get("changed", 0)))


class Mover:
    """Leads one partition of one table from its checkpoint to its end."""

    def __init__(self, context: RunContext, work: Work, gauge: Gauge, partition: int = 0) -> None:
        self._context = context
        self._work = work
        self._gauge = gauge
        self._partition = partition
        self._connection: Connection | None = None
        self._texts: dict[tuple[Claim, int, bool], str] = {}
        self._skipped = 0
        self._noted = context.monotonic()

    def move(self) -> dict[str, Any]:
        """Batch after batch; the partition's counts."""
        name = self._work.table.name
        patience = Patience(self._context, f"A batch of {name}", self._gauge.wait)
        state: Checkpoint | None = None
        limit = self._context.config.batch_size
        try:
            while True:
                self._context.check_stop()
                try:
                    if state is None:
                        state = self._claim()
                    if state.done:
                        break
                    state = self._batch(state, min(limit, self._context.config.batch_size))
                except (psycopg.Error, Unavailable) as error:
                    limit = self._after_failure(error, patience, limit)
                    state = None
                    continue
                patience.succeeded()
                limit = min(limit * 2, self._context.config.batch_size)
                self._pause(state)
        finally:
            self._drop()
        count = Count.of(state.counters)
        self._gauge.finish(name)
        self._context.journal.totals(self._gauge.done, self._gauge.total)
        return {"table": name, "looked": count.looked, "changed": count.changed, "skipped": self._skipped}

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = batch_session(self._context)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _claim(self) -> Checkpoint:
        context = self._context
        state = claim_partition(
            self._open(), context.run_id, context.attempt, self._work.table.name, self._partition,
            sleep=context.sleep, monotonic=context.monotonic,
        )  # fmt: skip
        self._texts.clear()
        self._skipped = set_aside(self._open(), context.run_id).get(self._work.table.name, 0)
        count = Count.of(state.counters)
        self._gauge.begin(self._work.table.name, count.looked)
        self._gauge.at(self._work.table.name, done=count.looked, changed=count.changed, skipped=self._skipped)
        return state

    def _after_failure(self, error: Exception, patience: Patience, limit: int) -> int:
        """Waits, or gives up; the limit of the next try."""
        verdict = classify(error)
        # The next claim, on a new session, finds out what became of the batch.
        self._drop()
        if verdict in {Verdict.STOP, Verdict.ROWS}:
            raise RunFailed(
                f"A batch of {self._work.table.name} failed: {describe(error)}.",
                remedy="Correct the cause in the target database, then resume the run: it goes on at the last batch.",
            ) from None
        self._context.journal.log("warning", f"A batch of {self._work.table.name}: {describe(error)}", Phase.MIGRATE)
        patience.failed(error)
        return max(1, limit // 2) if verdict is Verdict.SMALLER else limit

    def _pause(self, state: Checkpoint) -> None:
        count = Count.of(state.counters)
        self._gauge.at(self._work.table.name, done=count.looked, changed=count.changed, skipped=self._skipped)
        if self._noting:
            self._noted = self._context.monotonic()
            self._context.journal.totals(self._gauge.done, self._gauge.total)
        pause = self._context.config.pause
        if pause and not state.done:
            self._context.sleep(pause / 1000)

    @property
    def _noting(self) -> bool:
        """Whether the totals are due in the app database; the batch before them is then committed to the disk."""
        return self._context.monotonic() - self._noted >= _TOTALS_EVERY

    def _batch(self, state: Checkpoint, limit: int) -> Checkpoint:
        connection = self._open()
        try:
            guard, looked, meant, written = self._send(connection, state, limit)
        except psycopg.Error as error:
            if classify(error) is not Verdict.ROWS:
                raise
            connection.rollback()
            return self._careful(connection, state, limit)
        if not guard or meant != written:
            connection.rollback()
            return self._careful(connection, state, limit)
        done = looked < limit
        try:
            connection.execute("SET LOCAL synchronous_commit TO on; COMMIT" if done or self._noting else "COMMIT")
        except psycopg.IntegrityError:
            # A deferred constraint: nothing was committed.
            return self._careful(connection, state, limit)
        if self._context.config.debug:
            self._context.journal.log(
                "debug", f"{self._work.table.name}: {looked} rows, {written} changed", Phase.MIGRATE
            )
        count = Count.of(state.counters)
        counters = {"looked": count.looked + looked, "changed": count.changed + written}
        # The key itself stays in the target; here only whether there is one.
        return replace(
            state, last_key=state.last_key or ("",) if looked else state.last_key, counters=counters, done=done
        )

    def _send(self, connection: Connection, state: Checkpoint, limit: int) -> tuple[int, int, int, int]:
        first = state.last_key is None
        text = self._texts.get((state.claim, limit, first))
        if text is None:
            text = fast_batch(connection, self._work, state.claim, limit, first=first)
            self._texts[state.claim, limit, first] = text
        cursor = connection.execute(text.encode())
        while cursor.nextset():
            pass
        row = cursor.fetchone()
        return row or (0, 0, 0, 0)

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
            outcome = careful.run(self._work.after_key(held.last_key), limit)
            if failures:
                quarantine(connection, claim.run_id, failures, most=config.max_skipped)
            new = _moved(held, outcome)
            _save(connection, place, new)
        self._skipped += len(failures)
        for row in failures:
            context.journal.log("warning", f"Skipped {row.table} [{', '.join(row.key)}]: {row.message}", Phase.MIGRATE)
        return new


def _locked(connection: Connection, place: sql.Composed, claim: Claim) -> Checkpoint:
    """The checkpoint, locked. Raises Fenced where another claim owns the partition."""
    query = sql.SQL(
        "SELECT c.claim, c.last_key, c.counters, c.done FROM briefly_migration.checkpoint AS c WHERE {} FOR UPDATE"
    )
    row = connection.execute(query.format(place)).fetchone()
    if row is None or row[0] != claim.claim:
        raise Fenced(f"Another worker has claimed {claim.table}: this one writes nothing more.")
    return Checkpoint(claim, tuple(row[1]) if row[1] else None, row[2], row[3])


def _moved(held: Checkpoint, outcome: Outcome) -> Checkpoint:
    count = Count.of(held.counters)
    counters = {"looked": count.looked + outcome.looked, "changed": count.changed + outcome.changed}
    return replace(held, last_key=outcome.last_key or held.last_key, counters=counters, done=not outcome.looked)


def _save(connection: Connection, place: sql.Composed, state: Checkpoint) -> None:
    last = sql.Literal(list(state.last_key)) if state.last_key else sql.SQL("NULL")
    connection.execute(
        sql.SQL(
            "SET LOCAL synchronous_commit TO on; UPDATE briefly_migration.checkpoint AS c SET last_key = {}::text[], "
            "counters = jsonb_build_object('looked', {}, 'changed', {}), done = {} WHERE {}"
        ).format(
            last, sql.Literal(state.counters["looked"]), sql.Literal(state.counters["changed"]),
            sql.Literal(state.done), place,
        )
    )  # fmt: skip
