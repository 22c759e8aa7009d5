"""A preflight check's answer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Colour(StrEnum):
    """Green goes, amber goes with a warning, red stops a run."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do about it."""

    name: str
    """A short stable word, e.g. 'target_reachable'."""
    title: str
    """For people: 'The target database answers'."""
    colour: Colour
    found: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def worst(checks: Sequence[Check]) -> Colour:
    """The colour of the whole list."""
    colours = {check.colour for check in checks}
    return next((c for c in (Colour.RED, Colour.AMBER) if c in colours), Colour.GREEN)
