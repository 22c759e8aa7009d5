"""What a failure means by its SQLSTATE, and how long to wait before another try.

Source of the classes: the design's "Failures by SQLSTATE"; https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import random
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeVar

import psycopg

from briefly_admin.domain.errors import BrieflyError, RunFailed, Unavailable
from briefly_admin.engine.breaker import Announce, Circuit, in_seconds
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import safe_message

LONGEST_WAIT: Final = 60.0
"""Seconds."""
_SMALLER_CLASSES: Final = ("40",)
_SMALLER: Final = frozenset({"55P03", "57014"})
_AGAIN_CLASSES: Final = ("08", "53")
_ENDED: Final = frozenset({"57P01", "57P02", "57P05", "25P03", "25P04"})
"""The server ends the session with these: the connection is lost, whoever asked for it."""
_AGAIN: Final = _ENDED | {"57P03", "25006"}
_DISK_FULL: Final = "53100"
_ROW_CLASSES: Final = ("22", "23", "44", "P0")
T = TypeVar("T")


class Verdict(StrEnum):
    """What to do about a failed batch."""

    AGAIN = "again"
    """Transient: wait and try again."""
    SMALLER = "smaller"
    """A conflict with others or a slow batch: wait and try again with half of it."""
    ROWS = "rows"
    """A row's own fault: find the row."""
    STOP = "stop"
    """Nothing that a retry could cure."""


def classify(error: Exception) -> Verdict:
    """The verdict on an error of a batch."""
    if isinstance(error, Unavailable):
        return Verdict.AGAIN
    if not isinstance(error, psycopg.Error):
        return Verdict.STOP
    if lost_connection(error):
        return Verdict.AGAIN
    state = error.sqlstate or ""
    if state in _SMALLER or state.startswith(_SMALLER_CLASSES):
        return Verdict.SMALLER
    if state in _AGAIN or (state.startswith(_AGAIN_CLASSES) and state != _DISK_FULL):
        return Verdict.AGAIN
    return Verdict.ROWS if state.startswith(_ROW_CLASSES) else Verdict.STOP


def lost_connection(error: Exception) -> bool:
    """Whether the connection is gone, so that nobody knows what became of the transaction."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    # By the state alone: psycopg counts 25P03 among the internal errors.
    return error.sqlstate.startswith("08") or error.sqlstate in _ENDED


def backoff(tries: int, delay: int, chance: random.Random) -> float:
    """Seconds before try number `tries` + 1: full jitter below `delay` ms doubled each time, at most 60 s.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("full jitter").
    """
    return chance.uniform(0, min(LONGEST_WAIT, delay / 1000 * 2 ** (tries - 1)))


def describe(error: Exception) -> str:
    """What may be said of an error, without values of the data."""
    if isinstance(error, psycopg.Error):
        return safe_message(error)
    return (error.message if isinstance(error, BrieflyError) else str(error)).rstrip(".")


class Patience:
    """Counts failures in a row of one piece of work and waits between tries, as the run's config says.

    What fails counts for the run's circuit breaker, too, which stops all workers together while the server is gone.
    """

    def __init__(self, context: RunContext, what: str, announce: Announce) -> None:
        self._context = context
        self._what = what
        self._announce = announce
        self._circuit = Circuit(context, announce)
        self._tries = 0

    def admit(self) -> int | None:
        """Before a batch: waits while the circuit breaker is open; the rows that a probe may have, or None.

        Raises Stopped, Fenced, Unavailable (the app database's).
        """
        return self._circuit.permit()

    def succeeded(self) -> None:
        """The work went on: the next failure is a first one again."""
        if self._tries:
            self._announce("")
        self._tries = 0
        self._circuit.succeeded()

    def failed(self, error: Exception) -> None:
        """Waits before the next try. Raises RunFailed, or Unavailable where the server is gone, after the last one.

        While the circuit breaker is open it waits on, which uses up no try. An Unavailable that has a cause is not the
        target's, and raised at once: without the app database nobody leads. Raises Stopped and Fenced, too.
        """
        if isinstance(error, Unavailable) and error.__cause__ is not None:
            raise error
        config = self._context.config
        self._tries += 1
        if classify(error) is Verdict.AGAIN:
            self._circuit.failed(describe(error))
        else:
            self._circuit.conflicted()
        if self._tries > config.max_retries:
            kind = Unavailable if isinstance(error, Unavailable) or lost_connection(error) else RunFailed
            times = f"{self._tries} times in a row" if self._tries > 1 else "and may not be tried again"
            known = error.remedy if isinstance(error, BrieflyError) else ""
            cure = known or "See what holds the target database."
            raise kind(
                f"{self._what} failed {times}; the last failure: {describe(error)}.",
                remedy=f"{cure} Then resume the run: it goes on at the last batch.",
            ) from None
        wait = backoff(self._tries, config.retry_delay, self._context.random)
        told = f"{self._what} failed ({describe(error)}); try {self._tries} of {config.max_retries} in {wait:.1f} s."
        self._announce(told, in_seconds(self._context, wait))
        self._context.sleep(wait)
        self._circuit.permit()


def patiently(context: RunContext, what: str, announce: Announce, work: Callable[[], T]) -> T:
    """What `work` returns; tried again where the connection is lost, so it must be safe to repeat."""
    patience = Patience(context, what, announce)
    while True:
        try:
            result = work()
        except (psycopg.Error, Unavailable) as error:
            if classify(error) is not Verdict.AGAIN:
                raise
            patience.failed(error)
        else:
            patience.succeeded()
            return result
