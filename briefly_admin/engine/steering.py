"""How many rows the next batch has: as wanted, fewer after a lock or a timeout, or steered by time (`auto`)."""

import math
from typing import Final

from briefly_admin.domain.config import AUTO, BatchSize

TARGET_SECONDS: Final = 0.5
"""What an automatic batch should take, commit included."""
FIRST: Final = 100
LEAST: Final = 10
MOST: Final = 10_000

_STEP: Final = 2.0
"""An automatic batch has at most this many times the rows of the one before, and at least one such part of them."""
_NEAR: Final = 0.1
"""A size this near its aim stays, so that batches of one size can share a plan."""
_WEIGHT: Final = 0.5
"""Of the newest batch in the geometric mean of the cost a row; one slow batch alone moves the size by less."""
_GROWTH: Final = 1.1
"""After a failure an automatic batch may grow by this a success, whatever its time allows."""
_LONGEST_WAIT: Final = 64
"""Successes, at most, before a batch that had to be halved is doubled again."""


class Steering:
    """The size of one worker's batches, in rows.

    `auto` keeps a geometric mean of the seconds a row and aims at TARGET_SECONDS. The mean is of the cost and not of
    the error, so that a step changes nothing that is remembered: the size closes in on its aim and does not swing
    around it. With a fixed cost a batch (a round trip) it closes in from below, more slowly.
    """

    def __init__(self, wanted: BatchSize) -> None:
        self._wanted = wanted
        self._size = float(FIRST if wanted == AUTO else wanted)
        self._cost: float | None = None
        self._ceiling = float(MOST)
        self._wait = 1
        self._successes = 0

    @property
    def size(self) -> int:
        """Rows of the next batch."""
        return max(round(self._size), 1)

    def want(self, wanted: BatchSize) -> None:
        """The run's setting as it is now; the same again changes nothing. `auto` goes on from the size there is."""
        if wanted == self._wanted:
            return
        self._wanted = wanted
        self._cost = None
        self._ceiling = float(MOST)
        self._wait, self._successes = 1, 0
        self._size = _bounded(self._size) if wanted == AUTO else float(wanted)

    def took(self, rows: int, seconds: float) -> None:
        """A batch of `rows` was committed after `seconds`."""
        if self._wanted == AUTO:
            self._steer(rows, seconds)
        else:
            self._grow_back(float(self._wanted))

    def halve(self) -> None:
        """A batch met a serialization failure, a lock or a timeout (SQLSTATE 40, 55P03, 57014)."""
        self._successes = 0
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        if self._wanted == AUTO:
            self._size = self._ceiling = _bounded(self._size / 2)
        else:
            self._size = max(self._size // 2, 1.0)

    def _steer(self, rows: int, seconds: float) -> None:
        self._ceiling = min(self._ceiling * _GROWTH, MOST)
        if rows < 1 or (rows * 2 < self._size and seconds < TARGET_SECONDS):
            # The last rows of a table are nearly all overhead, and say little of a whole batch.
            return
        newest = math.log(max(seconds, 1e-6) / rows)
        self._cost = newest if self._cost is None else self._cost * (1 - _WEIGHT) + newest * _WEIGHT
        aim = TARGET_SECONDS / math.exp(self._cost)
        step = min(max(aim / self._size, 1 / _STEP), _STEP)
        if abs(step - 1) < _NEAR:
            return
        self._size = _bounded(min(self._size * step, self._ceiling))

    def _grow_back(self, wanted: float) -> None:
        """Doubles after a success; later and later, where the doubled batch keeps failing."""
        self._successes += 1
        if self._size >= wanted:
            self._wait = 1
        elif self._successes >= self._wait:
            self._size, self._successes = min(self._size * 2, wanted), 0


def _bounded(size: float) -> float:
    return min(max(size, float(LEAST)), float(MOST))
