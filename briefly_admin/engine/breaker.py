"""A worker's dealings with the run's circuit breaker: whether it may go on, must wait, or is the one that probes.

While all is well it costs one look at the app database a second, and nothing is written.
"""

from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from briefly_admin.domain.breaker import BreakerState, BreakerView
from briefly_admin.engine.context import RunContext

PROBE_ROWS: Final = 10
"""Rows of the one small batch."""
PROBE_LEASE: Final = 30.0
"""Seconds after which a worker that probes and is not heard of counts as dead: more than a connection and a batch."""
_LOOK_EVERY: Final = 1.0
_NAP: Final = 0.5
_SHORTEST_NAP: Final = 0.05


class Announce(Protocol):
    """Says why the work waits, in a sentence ('' when it goes on), and until when (ISO 8601, UTC; '' if unknown)."""

    def __call__(self, text: str, until: str = "") -> None:
        """Say it."""


def in_seconds(context: RunContext, seconds: float) -> str:
    """The time so many seconds from now, as `Announce` takes it."""
    return written(context.now() + timedelta(seconds=seconds))


def written(at: datetime) -> str:
    """A time as `Announce` takes it: ISO 8601, UTC, whole seconds."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


class Circuit:
    """One worker's view of the breaker during one piece of work."""

    def __init__(self, context: RunContext, announce: Announce) -> None:
        self._context = context
        self._announce = announce
        self._breaker = context.journal.breaker
        self._failures = 0
        self._look_at = float("-inf")
        self._probing = False

    def permit(self) -> int | None:
        """Waits while the breaker is open; then None, or how many rows this worker's probe may have.

        Raises Stopped, Fenced, Unavailable (the app database's).
        """
        if self._probing:
            return PROBE_ROWS
        if self._context.monotonic() < self._look_at:
            return None
        waited = False
        while self._must_wait():
            waited = True
        if waited:
            self._announce("")
        return PROBE_ROWS if self._probing else None

    def _must_wait(self) -> bool:
        """Waits a little where it is open and others probe; False as soon as this worker may go on."""
        view = self._breaker.look()
        self._failures = view.failures
        if view.state is BreakerState.CLOSED:
            self._look_at = self._context.monotonic() + _LOOK_EVERY
            return False
        mine = view.state is BreakerState.HALF_OPEN and view.worker == self._breaker.worker
        if (mine or view.seconds <= 0) and self._breaker.try_probe(PROBE_LEASE):
            self._probing = True
            return False
        probes_at = view.until if view.state is BreakerState.OPEN else None
        self._announce(sentence(view), written(probes_at) if probes_at else "")
        self._context.sleep(max(_SHORTEST_NAP, min(_NAP, view.seconds)))
        return True

    def failed(self, why: str) -> None:
        """A failure that counts: of the run's in a row, or of this worker's probe. Raises Fenced, Unavailable."""
        context = self._context
        jitter = context.random.uniform(0.75, 1.0)
        view = self._breaker.failed(why, delay=context.config.retry_delay / 1000, jitter=jitter)
        self._probing = False
        self._look_at = float("-inf")
        if view is None:
            return
        self._failures = view.failures
        if view.state is BreakerState.OPEN:
            context.journal.log("warning", sentence(view))

    def conflicted(self) -> None:
        """A failure that does not count: a probe that met one is this worker's still, and tried again."""
        self._probing = False
        self._look_at = float("-inf")

    def succeeded(self) -> None:
        """A batch was done. Raises Fenced, Unavailable."""
        if not self._probing and not self._failures:
            return
        changed, probed = self._breaker.succeeded(), self._probing
        self._failures, self._probing = 0, False
        self._look_at = float("-inf")
        if changed and probed:
            self._context.journal.log("info", "The circuit breaker is closed again: a batch went through.")


def sentence(view: BreakerView) -> str:
    """What people are told of a breaker that is not closed."""
    told = f"The circuit breaker is open after {view.failures} failures in a row ({view.why})."
    if view.state is BreakerState.HALF_OPEN:
        return f"{told} One batch probes now ({view.worker})."
    at = f" at {view.until.astimezone(UTC):%H:%M:%S} UTC" if view.until else ""
    return f"{told} One batch probes{at}."
