"""The memory row and the cost-a-row row: a whole migration of 10⁵ against one of 10⁷ rows."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.ground import Ground
from benchmarks.rows.row import Facts, Measured, Row
from benchmarks.runs import migrate

SMALL, LARGE = 100_000, 10_000_000
MEMORY = 200_000_000
"""Bytes that a worker may have."""


def trial(ground: Ground, _seed: int, small: int = SMALL, large: int = LARGE) -> Facts:
    """Whole migrations by one worker, batch 100: µs a row of the migrate phase and peak memory, of both sizes."""
    facts: Facts = {}
    for name, rows in (("small", small), ("large", large)):
        source = ground.make(rows)
        with ground.copied(source) as target:
            ran = migrate(ground, target, 100, whole=True)
        assert ran.changed == rows, f"{ran.changed} of {rows} rows were changed"
        facts[name] = {
            "rows": rows, "cost": round(1e6 / ran.migrated, 3), "peak": ran.peak,
            "seconds": {phase: round(seconds, 2) for phase, seconds in ran.seconds.items()},
        }  # fmt: skip
    return facts


def _medians(facts: Sequence[Mapping[str, Any]], fact: str) -> tuple[float, float]:
    large, small = (median(float(each[name][fact]) for each in facts) for name in ("large", "small"))
    return large, small


def weigh_memory(facts: Sequence[Mapping[str, Any]]) -> Measured:
    """The same within 10 %, and no more than MEMORY."""
    large, small = _medians(facts, "peak")
    met = abs(large / small - 1) <= 0.10 and max(large, small) <= MEMORY
    return Measured(f"{large / 1e6:.1f} MB", f"{small / 1e6:.1f} MB", round(large / small, 3), met)


def weigh_cost(facts: Sequence[Mapping[str, Any]]) -> Measured:
    """The same within 15 %."""
    large, small = _medians(facts, "cost")
    met = abs(large / small - 1) <= 0.15
    return Measured(f"{large:.1f} µs a row", f"{small:.1f} µs a row", round(large / small, 3), met)


MEMORY_ROW = Row(
    "memory", "memory of a worker, 10⁷ rows", "10⁵ rows", "the same ± 10 %, ≤ 200 MB",
    "scale", 1, 25, 5, trial, weigh_memory,
)  # fmt: skip
COST_ROW = Row(
    "cost", "cost a row of the migrate phase, 10⁷ rows", "10⁵ rows", "the same ± 15 %",
    "scale", 1, 25, 5, trial, weigh_cost,
)  # fmt: skip
