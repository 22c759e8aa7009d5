"""What validation says of the data."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class FindingClass(StrEnum):
    """How much a finding matters."""

    BLOCKING = "blocking"
    """The repairs will not cure it; it stops the run unless such rows are skipped."""
    REPAIRABLE = "repairable"
    """The plan's repairs will cure it."""
    NOTICE = "notice"
    """Reported, never stops a run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken in one table: an exact count and up to 100 sample keys (as text), never a secret value."""

    table: str
    field: str
    rule: str
    """A short stable word: required, null, one_of, range, length, email, foreign_key, unique, relation …"""
    finding_class: FindingClass
    count: int
    message: str
    """For people: 'file_metadata.file_size must be at least 0'."""
    samples: Sequence[Mapping[str, Any]] = dataclasses.field(default_factory=tuple)
    """`{"key": "…", "value": "…"}` each; no `value` for secret fields."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; `class` is the JSON name of `finding_class`."""
        data = asdict(self)
        data["class"] = data.pop("finding_class")
        data["samples"] = [dict(sample) for sample in self.samples]
        return data


def blocking(findings: Sequence[Finding]) -> list[Finding]:
    """Those that stop a run."""
    return [finding for finding in findings if finding.finding_class is FindingClass.BLOCKING and finding.count]
