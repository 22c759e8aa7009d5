"""The circuit breaker of a run: after failures in a row it lets one small batch try, and all other work wait."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

OPENS_AT: Final = 3
"""Failures in a row of a run, of all its workers together."""
SHORTEST: Final = 1.0
"""Seconds that it stays open at least; they double with each failed probe."""
LONGEST: Final = 60.0


class BreakerState(StrEnum):
    """Closed: work goes on. Open: all wait. Half open: one worker probes, the others wait."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerView:
    """The breaker as the app database has it."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    """In a row, of all workers."""
    why: str = ""
    """The last of them, without values of the data."""
    until: datetime | None = None
    """Open: when one batch may probe. Half open: until when that probe counts. By the app database's clock."""
    seconds: float = 0.0
    """From now to `until`, by the same clock; 0 or less when it is over."""
    worker: str = ""
    """Half open: whose batch probes."""


class Breaker(Protocol):
    """A run's breaker, as one worker of one attempt sees it. Each method raises Fenced once a newer attempt leads."""

    worker: str
    """Who asks: host:pid."""

    def look(self) -> BreakerView:
        """How it stands."""

    def failed(self, why: str, *, delay: float, jitter: float) -> BreakerView | None:
        """One more failure; how it stands after that, or None where others had opened it already.

        A work that was under way when it opened adds nothing. With three failures, or where this worker's probe
        failed, it opens for `delay` seconds, doubled for each failure after the third, times `jitter` (0…1), within
        SHORTEST and LONGEST.
        """

    def succeeded(self) -> bool:
        """The row of failures has ended, or this worker's probe has closed it; whether anything changed.

        Nothing changes while it is open, or while another probes.
        """

    def try_probe(self, lease: float) -> bool:
        """Whether this worker may probe, for `lease` seconds: exactly one may when the time is over.

        A probe of its own goes on; that of a worker which was silent for its lease is taken over.
        """
