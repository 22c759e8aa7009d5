"""What a row of the promises' first table is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.ground import Ground

Facts = dict[str, Any]
"""What one trial found, as plain JSON; `count`: how many of the row's units it was (1 where it is missing)."""
Attempt = Callable[[Ground, int], Facts]
"""Tries once, with a seed; raises AssertionError, or any other error, where the promise was not kept."""


@dataclass(frozen=True)
class Row:
    """One row that `make faults` runs: so many `units`, in about `minutes` on two cores."""

    name: str
    wanted: int
    units: str
    minutes: int
    trial: Attempt
    says: Callable[[Sequence[Mapping[str, Any]]], str]
    """From the facts of all trials, good ones only, what was measured, in words."""


def total(trials: Sequence[Mapping[str, Any]], fact: str = "count") -> int:
    """The sum of a fact over trials."""
    return sum(int(trial.get(fact, 1 if fact == "count" else 0)) for trial in trials)


def most(trials: Sequence[Mapping[str, Any]], fact: str) -> float:
    """The greatest of a fact over trials; 0 where there is none."""
    return max((float(trial[fact]) for trial in trials if fact in trial), default=0.0)
