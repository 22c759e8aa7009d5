"""The migrate phase of a replay: quarantined rows that no longer block are repaired and taken out, each exactly once.

A chunk of rows, the quarantine without them and the checkpoint are one transaction in the target; whatever is lost on
the way, the checkpoint says where to go on. What still blocks stays, with the cause that it has now.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.errors import RunFailed, Stopped, Unavailable
from briefly_admin.domain.partitions import Count
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import validate
from briefly_admin.engine.aside import Scope, put_back
from briefly_admin.engine.batching import Work, quarantined
from briefly_admin.engine.careful import CarefulBatch
from briefly_admin.engine.checkpoints import Checkpoint, advance, claim_partition, counted, counts
from briefly_admin.engine.context import QuarantinedRow, RunContext
from briefly_admin.engine.fence import fenced
from briefly_admin.engine.gauge import Gauge
from briefly_admin.engine.migrate import asked, copy_quarantine, read_catalog
from briefly_admin.engine.mover import Line
from briefly_admin.engine.pace import Pace
from briefly_admin.engine.retry import Patience, Verdict, classify, describe
from briefly_admin.engine.target import Connection

JUDGED: Final = 5_000
"""Rows that are validated together, before the first of them is changed."""
TAKEN: Final = 500
"""Rows at most that one transaction takes out."""
Key = tuple[str, ...]


def run(context: RunContext) -> dict[str, Any]:
    """Replays the rows in the options' scope.

    `{"tables": [{table, looked, changed, skipped}], looked, changed, skipped, "replayed": rows taken out of quarantine,
    "left": rows of the whole quarantine}`, skipped: looked at, and still there. Raises RunFailed, Stopped, Fenced.
    """
    asked(context, lambda _: put_back(context))
    scopes = asked(context, lambda reader: _scopes(context, reader))
    so_far = asked(context, lambda reader: counts(reader, context.run_id))
    began = {name: count for (name, _), count in so_far.items()}
    ahead = asked(context, lambda reader: {s.work.table.name: s.count(reader) for s in scopes})
    gauge = Gauge(context, Phase.MIGRATE, {n: began.get(n, Count()).done + rows for n, rows in ahead.items() if rows})
    try:
        with closing(Line(context)) as line:
            for scope in scopes:
                if ahead[scope.work.table.name]:
                    _Replay(context, scope, line, gauge).run()
    except (RunFailed, Stopped):
        # For the pages; the next attempt copies what this one cannot.
        with suppress(psycopg.Error, Unavailable), context.target.session(bulk=True) as reader:
            copy_quarantine(context, reader)
        raise
    context.journal.totals(gauge.done, gauge.total)
    return asked(context, lambda reader: _report(context, reader))


def _scopes(context: RunContext, reader: Connection) -> list[Scope]:
    """The plan's tables, parents first."""
    catalog = read_catalog(reader, context)
    return [Scope(context, Work(context.plan, table, catalog)) for table in context.plan.tables]


def _report(context: RunContext, reader: Connection) -> dict[str, Any]:
    """What the target says of the run, whatever attempt did it: by table, in the plan's order."""
    aside = copy_quarantine(context, reader)
    done = {name: count for (name, _), count in counts(reader, context.run_id).items()}
    tables = [
        {"table": table.name, "looked": count.done, "changed": count.changed, "skipped": count.skipped}
        for table in context.plan.tables
        if (count := done.get(table.name))
    ]
    sums = {name: sum(int(str(each[name])) for each in tables) for name in ("looked", "changed", "skipped")}
    replayed = sums["looked"] - sums["skipped"]
    return {"tables": tables, **sums, "replayed": replayed, "left": sum(aside.values())}


class _Replay:
    """One table's rows, from its checkpoint to the last of them."""

    def __init__(self, context: RunContext, scope: Scope, line: Line, gauge: Gauge) -> None:
        self._context = context
        self._scope = scope
        self._work = scope.work
        self._line = line
        self._gauge = gauge
        self._name = scope.work.table.name
        self._size = TAKEN
        self._keys: list[Key] = []
        self._blocked: Mapping[Key, QuarantinedRow] = {}
        self._versions: Mapping[Key, str] = {}

    def run(self) -> None:
        """Chunk after chunk. Raises RunFailed, Stopped, Fenced, Unavailable."""
        context, state = self._context, None
        patience = Patience(context, f"The replay of {self._name}", self._gauge.wait)
        pace = Pace(context, self._gauge.wait)
        self._gauge.begin(self._name)
        while True:
            context.check_stop()
            size = min(self._size, self._wanted, patience.admit() or TAKEN)
            try:
                state = state or self._claim()
                if not self._keys and not self._judge(state):
                    break
                begun = context.monotonic()
                state = self._chunk(state, size)
            except (psycopg.Error, Unavailable) as error:
                self._after_failure(error, patience)
                self._keys, state = [], None
                continue
            patience.succeeded()
            count = counted(state)
            self._gauge.at(self._name, done=count.done, changed=count.changed, skipped=count.skipped)
            self._rest(pace, context.monotonic() - begun)
        self._gauge.finish(self._name)

    def _rest(self, pace: Pace, seconds: float) -> None:
        """Whatever pause the admin, the replicas and the server need."""
        pace.after(self._line.open(), seconds)
        if self._context.config.pause:
            self._context.sleep(self._context.config.pause / 1000)

    @property
    def _wanted(self) -> int:
        wanted = self._context.config.batch_size
        return wanted if isinstance(wanted, int) else TAKEN

    def _claim(self) -> Checkpoint:
        context = self._context
        return claim_partition(
            self._line.open(), context.run_id, context.attempt, self._name, 0, sleep=context.sleep,
            monotonic=context.monotonic,
        )  # fmt: skip

    def _after_failure(self, error: Exception, patience: Patience) -> None:
        verdict = classify(error)
        self._line.close()
        if verdict in {Verdict.STOP, Verdict.ROWS}:
            raise RunFailed(
                f"The replay of {self._name} failed: {describe(error)}.",
                remedy="Correct the cause in the target database, then resume the run: it goes on at the last row.",
            ) from None
        if verdict is Verdict.SMALLER:
            self._size = max(1, self._size // 2)
        self._context.journal.log("warning", f"The replay of {self._name}: {describe(error)}", Phase.MIGRATE)
        patience.failed(error)

    def _judge(self, state: Checkpoint) -> bool:
        """Validates the next rows and notes which versions of them it saw; False where there are no more."""
        context = self._context
        with context.target.session(bulk=True) as reader:
            self._keys = self._scope.keys(reader, state.last_key, JUDGED)
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            blocked = validate.blocked_among(
                reader, context.plan, self._work.table, self._keys, beside=self._scope.beside,
                should_stop=context.should_stop,
            )  # fmt: skip
            self._blocked = {row.key: row for row in blocked}
            self._versions = self._read_versions(reader, self._keys)
            reader.rollback()
        return bool(self._keys)

    def _read_versions(self, connection: Connection, keys: Sequence[Key], lock: str = "") -> dict[Key, str]:
        """Key → what names this state of the row, of those that are there."""
        if not keys:
            return {}
        query = sql.SQL("SELECT {}, concat_ws(':', t.xmin, t.ctid) FROM {} AS t WHERE {} ORDER BY {} {}").format(
            self._work.key_texts("t"), self._work.known.identifier, self._work.among(keys), self._work.keys("t"),
            sql.SQL(lock),
        )  # fmt: skip
        return {tuple(key): version for key, version in connection.execute(query)}

    def _chunk(self, state: Checkpoint, size: int) -> Checkpoint:
        """One transaction: repaired and taken out, or kept with the cause of now."""
        context, keys = self._context, self._keys[:size]
        connection = self._line.open()
        with fenced(connection, context.run_id, context.attempt):
            # Surely on disk: the app database closes what is not in the quarantine any more.
            connection.execute("SET LOCAL synchronous_commit TO on")
            seen = {key: self._versions[key] for key in keys if key in self._versions}
            if self._read_versions(connection, keys, "FOR NO KEY UPDATE OF t") != seen:
                raise errors.SerializationFailure("a row was changed by somebody else since it was validated")
            kept = [self._blocked[key] for key in keys if key in self._blocked]
            free = [key for key in keys if key not in self._blocked]
            self._scope.take_out(connection, free)
            failures, changed = self._repair(connection, free)
            self._scope.save(connection, kept + failures)
            count = counted(state) + Count(len(keys), changed, len(kept) + len(failures))
            state = advance(connection, state.claim, count, last_key=keys[-1])
        self._keys = self._keys[size:]
        for row in failures:
            context.journal.log("warning", f"Kept {row.table} [{', '.join(row.key)}]: {row.message}", Phase.MIGRATE)
        return state

    def _repair(self, connection: Connection, keys: Sequence[Key]) -> tuple[list[QuarantinedRow], int]:
        """Rows that could not be changed after all, and how many were."""
        work, failures, changed = self._work, list[QuarantinedRow](), 0
        if not keys or not work.table.repairs or not work.columns:
            return failures, changed
        left_alone = quarantined(self._context.quarantine_of, work)
        careful = CarefulBatch(connection, work, left_alone=left_alone, on_failure=failures.append)
        last: Sequence[str] | None = None
        while True:
            where = sql.SQL("{} AND {}").format(work.among(keys), work.after_key(last))
            outcome = careful.run(where, len(keys))
            changed += outcome.changed
            if not outcome.looked:
                return failures, changed
            last = outcome.last_key
