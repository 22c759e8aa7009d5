"""What one look at a part of a table found, and how the parts become findings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from briefly_admin.domain.findings import Finding, FindingClass

SAMPLES: Final = 100
"""Of one finding, at most."""


@dataclass(frozen=True, slots=True)
class Part:
    """A finding about a part of its table; `place` orders it among the table's findings and is the same in each part.

    Samples are in the order in which they were read, so that parts put together in order say what one reading says.
    """

    place: int
    finding: Finding

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, without the table; a secret field's samples are keys alone."""
        found = self.finding
        return {
            "place": self.place, "field": found.field, "rule": found.rule, "class": found.finding_class.value,
            "count": found.count, "message": found.message, "samples": [dict(sample) for sample in found.samples],
        }  # fmt: skip

    @classmethod
    def from_json(cls, table: str, data: Mapping[str, Any]) -> "Part":
        """The inverse of `to_json`."""
        return cls(int(data["place"]), Finding(
            table=table, field=data["field"], rule=data["rule"], finding_class=FindingClass(data["class"]),
            count=int(data["count"]), message=data["message"], samples=data["samples"],
        ))  # fmt: skip


def merged(parts: Iterable[Part]) -> list[Finding]:
    """One finding a place, in the places' order: counts added up, samples cut to 100 and sorted by key."""
    places: dict[int, list[Finding]] = {}
    for part in parts:
        places.setdefault(part.place, []).append(part.finding)
    return [_one(places[place]) for place in sorted(places)]


def _one(findings: Sequence[Finding]) -> Finding:
    samples = [sample for finding in findings for sample in finding.samples][:SAMPLES]
    samples.sort(key=lambda entry: str(entry["key"]))
    return replace(findings[0], count=sum(finding.count for finding in findings), samples=samples)
