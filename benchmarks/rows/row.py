"""What a row of the speed table is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.ground import Ground

Facts = dict[str, Any]
"""What one trial measured, as plain JSON."""


@dataclass(frozen=True)
class Measured:
    """What all trials of a row come to; `ratio` is compared with the bar."""

    ours: str
    theirs: str
    ratio: float
    met: bool


@dataclass(frozen=True)
class Row:
    """One line of the table, as promises.md words it.

    `trials`: the name under which its trials are written; rows of one name share them. `minutes`: about how long all
    `wanted` of them take on two cores, the set-up's `making` aside.
    """

    name: str
    what: str
    against: str
    bar: str
    trials: str = ""
    wanted: int = 0
    minutes: int = 0
    making: int = 0
    trial: Callable[[Ground, int], Facts] | None = None
    weigh: Callable[[Sequence[Mapping[str, Any]]], Measured] | None = field(default=None, repr=False)

    @property
    def measured_now(self) -> bool:
        """Whether there is a way to measure it yet."""
        return self.trial is not None
