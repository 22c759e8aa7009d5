"""Partitions: the parts of a step of a run that several workers share out among themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class PartitionState(StrEnum):
    """Where a partition stands."""

    WAITING = "waiting"
    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Count:
    """Rows of a partition so far, for progress."""

    done: int = 0
    changed: int = 0
    skipped: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.done + other.done, self.changed + other.changed, self.skipped + other.skipped)


@dataclass(frozen=True, slots=True)
class Partition:
    """One part of a step: a range of a table's keys or ctids, or what else `range` (plain JSON) says."""

    table: str
    number: int
    range: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A partition in one worker's hands; `claim` and `generation` tell it from every other holder's."""

    step: str
    partition: Partition
    claim: int
    generation: int
    shared: Mapping[str, Any] = field(default_factory=dict)
    """What the leader laid down for the whole step (plain JSON, no secret)."""


@dataclass(frozen=True, slots=True)
class PartitionView:
    """A partition as the app database has it."""

    partition: Partition
    state: PartitionState
    worker: str = ""
    count: Count = field(default_factory=Count)
    result: Mapping[str, Any] = field(default_factory=dict)
    """What its worker found (plain JSON), once done."""
    error: Mapping[str, str] = field(default_factory=dict)
    """code, message, remedy, once failed."""


class Partitions(Protocol):
    """A run's partitions, as one attempt's workers see them. Each method raises Fenced once a newer attempt leads."""

    worker: str
    """Who asks: host:pid."""

    def lay_out(
        self, step: str, partitions: Sequence[Partition], shared: Mapping[str, Any], *, keep: bool = False
    ) -> Sequence[Partition]:
        """The leader's: the step consists of these partitions, in this order, all waiting; those in force.

        What an earlier layout of the step had is replaced; with `keep`, one that is there stays, and what was done
        stays done.
        """

    def claim(self, step: str | None = None) -> Claimed | None:
        """The next partition (of that step, or of any) that waits or whose worker's lease is over; None if none is."""

    def note(self, claimed: Claimed, count: Count) -> None:
        """How far it has come; its lease begins anew. Raises Fenced where another worker holds it."""

    def finish(self, claimed: Claimed, count: Count, result: Mapping[str, Any]) -> None:
        """It is done. Raises Fenced where another worker holds it."""

    def fail(self, claimed: Claimed, error: Mapping[str, str]) -> None:
        """It cannot be done: the leader ends the step with this error (code, message, remedy)."""

    def give_back(self, claimed: Claimed) -> None:
        """Somebody else may take it; nothing happens where somebody has."""

    def survey(self, step: str, *, results: bool = False) -> Sequence[PartitionView]:
        """All partitions of the step, in order; with `results` what was found in each, too."""
