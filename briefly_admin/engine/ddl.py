"""Statements that change the schema: fenced, never queueing traffic behind them, watched, and cancelled by a stop."""

import threading
from collections.abc import Callable
from typing import Final
from uuid import UUID

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.errors import BrieflyError, RunFailed
from briefly_admin.engine.breaker import Announce
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.fence import fenced, flush, register
from briefly_admin.engine.retry import describe
from briefly_admin.engine.target import Connection

_LOCK_TRIES: Final = 60
"""Tries of lock_timeout each, before an ALTER gives up."""
_LONGEST_WAIT: Final = 2.0
_LOOK_EVERY: Final = 0.25
_WATCH_FROM: Final = 1.0
"""Seconds: what takes longer is looked at from a second session."""
_HOLDERS: Final = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed'),
  coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::int
FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids(%(pid)s))
  OR a.pid IN (SELECT current_locker_pid FROM pg_stat_progress_create_index WHERE pid = %(pid)s) ORDER BY 3 DESC LIMIT 5
"""
_BUILDING: Final = """
SELECT phase, coalesce((100 * blocks_done / nullif(blocks_total, 0))::int, 0) FROM pg_stat_progress_create_index
WHERE pid = %s
"""


class SchemaSession:
    """A session for schema changes of a run, registered with the fence so that a takeover can end it."""

    def __init__(self, context: RunContext, connection: Connection, name: str, announce: Announce) -> None:
        """`connection` is a bulk one; `name` is the phase. Raises Fenced."""
        self.context = context
        self.connection = connection
        self._announce = announce
        self._who: tuple[UUID, int] = (context.run_id, context.attempt)
        register(connection, *self._who, name)

    def alter(self, *statements: sql.Composed) -> None:
        """One fenced transaction with lock_timeout 1 s, tried again with jitter, so that traffic never queues longer.

        Raises RunFailed where the lock is not to be had; psycopg.Error for all else.
        """

        def work() -> None:
            with fenced(self.connection, *self._who):
                for statement in statements:
                    self.connection.execute(statement)

        for tries in range(_LOCK_TRIES):
            self.context.check_stop()
            try:
                self._watched(work)
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                wait = self.context.random.uniform(0, min(_LONGEST_WAIT, 0.1 * 2**tries))
                self._announce("A schema change waits for a lock; traffic goes first.")
                self.context.sleep(wait)
                continue
            self._announce("")
            return
        raise RunFailed(
            f"A lock on a table was not to be had in {_LOCK_TRIES} tries of a second.",
            remedy="End the long transactions on the target (the checklist lists them), then resume the run.",
        )

    def alone(self, statement: sql.Composed, *, wait_for_locks: bool = False) -> None:
        """One statement outside a transaction (CREATE INDEX CONCURRENTLY, ANALYZE); the fence is looked at before.

        `wait_for_locks`: lock_timeout 0, for what blocks no writers. Raises psycopg.Error.
        """
        flush(self.connection, *self._who)
        self.connection.execute(f"SET lock_timeout TO {0 if wait_for_locks else 1000}")
        try:
            self._watched(lambda: self.connection.execute(statement))
        finally:
            if not self.connection.broken:
                self.connection.execute("SET lock_timeout TO 1000")
        self._announce("")

    def _watched(self, work: Callable[[], object]) -> None:
        """Runs `work` aside, says what it waits for, and cancels it when a stop is asked for."""
        failures: list[Exception] = []

        def run() -> None:
            try:
                work()
            except (psycopg.Error, BrieflyError) as error:
                failures.append(error)

        thread = threading.Thread(target=run, name="schema-change", daemon=True)
        started = self.context.monotonic()
        thread.start()
        try:
            thread.join(_WATCH_FROM)
            while thread.is_alive():
                self.context.check_stop()
                self._announce(self._look(self.context.monotonic() - started))
                thread.join(_LOOK_EVERY)
        except BaseException:
            self.connection.cancel_safe(timeout=5)
            thread.join()
            raise
        if failures:
            raise failures[0]

    def _look(self, elapsed: float) -> str:
        """What the session waits for or does, in a sentence."""
        pid = self.connection.info.backend_pid
        try:
            with self.context.target.session() as other:
                holders = other.execute(_HOLDERS, {"pid": pid}).fetchall()
                building = other.execute(_BUILDING, (pid,)).fetchone()
        except (psycopg.Error, BrieflyError) as error:
            return f"The schema change goes on; the server was not to be asked about it ({describe(error)})."
        if holders:
            names = ", ".join(f"{name} (process {p}, {seconds} s)" for p, name, seconds in holders)
            return f"Waiting for transactions that began earlier: {names}."
        if building:
            return f"Building an index: {building[0]}, {building[1]} %."
        return f"Changing the schema for {elapsed:.0f} s."
