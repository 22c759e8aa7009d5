"""The planted faults as people are told of them: name, what is wrong, what finds it, which row."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine.sampledata.plants import BLOCKING_FAULTS, NOTICE_FAULTS, REPAIRABLE_FAULTS
from briefly_admin.engine.sampledata.shape import Shape


@dataclass(frozen=True, slots=True)
class PlantedFault:
    """One planted row; `findings` are (field, rule)."""

    name: str
    words: str
    table: str
    key: str
    finding_class: FindingClass
    findings: tuple[tuple[str, str], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; `class` as of findings."""
        return {
            "name": self.name, "words": self.words, "table": self.table, "key": self.key, "class": self.finding_class,
            "findings": [{"field": field, "rule": rule} for field, rule in self.findings],
        }  # fmt: skip


_FAULTS: Final = {
    FindingClass.BLOCKING: BLOCKING_FAULTS,
    FindingClass.NOTICE: NOTICE_FAULTS,
    FindingClass.REPAIRABLE: REPAIRABLE_FAULTS,
}


def planted_faults(seed: int = 0, *, without: Collection[str] = ()) -> tuple[PlantedFault, ...]:
    """What `create` plants with that seed, but for the names `without`; blocking ones first."""
    shape = Shape(seed=seed)
    return tuple(
        PlantedFault(name, plant.words, plant.table, str(shape.key(plant.table, name)), finding_class, plant.findings)
        for finding_class, plants in _FAULTS.items() for name, plant in plants.items() if name not in without
    )  # fmt: skip
