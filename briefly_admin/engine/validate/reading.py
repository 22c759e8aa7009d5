"""One snapshot of the target to read from, which ends soon after somebody asks the run to stop."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from briefly_admin.domain.errors import RunFailed, Stopped, Unavailable
from briefly_admin.domain.ports import StopSignal
from briefly_admin.engine.target import Connection, safe_message, server_cursor

_POLL_SECONDS: Final = 0.5
_TRANSACTION_TIMEOUT: Final = 170_000
"""The first server that has it: a database's own setting would end a long reading."""
_CHUNK: Final = 500
"""Rows that a server-side cursor fetches at once."""
_LONGEST_INTEGER: Final = 4000
"""Digits; Python refuses to read longer ones, and what they are compared with is far smaller."""
_HUGE: Final[int] = 10**_LONGEST_INTEGER


_TOO_DEEP: Final = object()


def as_json(text: str | None) -> Any:
    """A JSON text as Python's; None for None, an object of no JSON type for what is deeper than Python can read."""
    try:
        return None if text is None else json.loads(text, parse_int=_integer)
    except RecursionError:
        return _TOO_DEEP


def _integer(digits: str) -> int:
    if len(digits) <= _LONGEST_INTEGER:
        return int(digits)
    return -_HUGE if digits.startswith("-") else _HUGE


@dataclass(frozen=True, slots=True)
class Reading:
    """A read-only transaction; see `reading`."""

    connection: Connection
    should_stop: StopSignal | None
    watch: "_Watch"

    def told(self, error: psycopg.Error) -> Exception:
        """The error as ours, without the server's text: Stopped, Unavailable, RunFailed."""
        if isinstance(error, psycopg.errors.QueryCanceled) and self.watch.reason:
            return Stopped(self.watch.reason)
        return _failed(error)

    def check_stop(self) -> None:
        """Raises Stopped."""
        reason = self.should_stop() if self.should_stop else None
        if reason:
            raise Stopped(reason)

    def rows(self, query: sql.Composable) -> list[tuple[Any, ...]]:
        """All rows of a query that gives few."""
        return self.connection.execute(sql.Composed([query])).fetchall()

    def stream(self, query: sql.Composable) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that may give many, a chunk at a time."""
        with server_cursor(self.connection, "briefly_validate", chunk=_CHUNK) as cursor:
            cursor.execute(sql.Composed([query]))
            yield from cursor


@contextmanager
def reading(
    connection: Connection, should_stop: StopSignal | None = None, *, snapshot: str | None = None
) -> Iterator[Reading]:
    """A REPEATABLE READ READ ONLY transaction (the caller's own, if one is open) without a statement timeout.

    `snapshot`: of another transaction, which must hold it still (see `exported`): this one sees the same instant.
    Raises Stopped soon after `should_stop` says so, even in the middle of a statement; Unavailable when the
    connection is lost or the snapshot is gone; RunFailed for any other database error, without its text.
    """
    own = connection.info.transaction_status == TransactionStatus.IDLE
    session = Reading(connection, should_stop, _Watch(connection, should_stop))
    try:
        if own:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if snapshot is not None:
            _import(connection, snapshot)
        # JIT would spend a second on compiling hundreds of small expressions. Where statistics lag behind the rows, as
        # after a rollback, a guess of one row makes a nested loop of whole tables. Hash tables of some 100,000
        # keys stay in memory. Rows come in their own order, wherever another reader of the table has got to.
        # To pass a row on between parallel workers costs less than the planner's usual guess, which fits wide rows.
        connection.execute(
            "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'; SET LOCAL jit = off; "
            "SET LOCAL enable_nestloop = off; SET LOCAL work_mem = '32MB'; SET LOCAL synchronize_seqscans = off; "
            "SET LOCAL parallel_tuple_cost = 0.003"
        )
        if connection.info.server_version >= _TRANSACTION_TIMEOUT:
            connection.execute("SET LOCAL transaction_timeout = 0")
        with session.watch:
            yield session
    except psycopg.Error as error:
        raise session.told(error) from None
    finally:
        if own and not connection.closed:
            connection.rollback()


def exported(reading: Reading) -> str:
    """The transaction's snapshot, for `reading(…, snapshot=…)` of others; good until the transaction ends."""
    ((name,),) = reading.rows(sql.SQL("SELECT pg_export_snapshot()"))
    return str(name)


def _import(connection: Connection, snapshot: str) -> None:
    try:
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
    except psycopg.Error as error:
        # Whoever held it is gone, or begins anew: no fault of the data, and none that this worker could judge.
        raise Unavailable(
            f"The snapshot that the run's workers share cannot be joined: {safe_message(error)}.",
            remedy="The run goes on with the workers that have it, or begins the phase again.",
        ) from None


def _failed(error: psycopg.Error) -> Exception:
    lost = error.sqlstate is None or error.sqlstate[:2] in {"08", "57"}
    if lost and isinstance(error, psycopg.OperationalError):
        return Unavailable(
            f"The connection to the target was lost while validating: {safe_message(error)}.",
            remedy="Try again once the database answers.",
        )
    return RunFailed(
        f"The data could not be validated: {safe_message(error)}.",
        remedy="See the preflight checks: a column may have an unexpected type, or a right may be missing.",
    )


class _Watch:
    """Cancels the connection's statement when `should_stop` gives a reason."""

    def __init__(self, connection: Connection, should_stop: StopSignal | None) -> None:
        self.reason: str | None = None
        self._connection = connection
        self._should_stop = should_stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="validate-stop", daemon=True)

    def __enter__(self) -> None:
        if self._should_stop:
            self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._should_stop:
            self._thread.join()

    def _run(self) -> None:
        while self._should_stop and not self._over.wait(_POLL_SECONDS):
            self.reason = self.reason or self._should_stop()
            if self.reason:
                self._cancel()

    def _cancel(self) -> None:
        try:
            self._connection.cancel_safe(timeout=5)
        except psycopg.Error:
            return  # the next round tries again; a lost connection ends the statement by itself
