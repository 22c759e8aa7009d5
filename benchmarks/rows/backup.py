"""The backup rows: a whole backup by a real worker against pg_dump and psql of the same server, the same data."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks import peers
from benchmarks.ground import Ground
from benchmarks.rows.row import Facts, Measured, Row
from benchmarks.runs import Sealed, back_up

NARROW, EMBEDDED = 3_000_000, 100_000
MEMORY = 200_000_000
"""Bytes that a worker may have."""


def trial(ground: Ground, seed: int, source: Callable[[], str], table: str) -> Facts:
    """Seconds of each way to copy a database out, ours first where the seed is odd.

    Ours: `proven` and `sealed` by one worker, `two` (proven) by two, `peak` bytes of the one worker's memory.
    """
    with ground.copied(source()) as target:
        file = ground.logs / "peer"
        peers.copy(target, table)  # reads the table once, so that nobody is the first to

        def ours() -> Facts:
            alone, both = back_up(ground, target, 1), back_up(ground, target, 2)
            return _facts(alone) | {"two": both.seconds}

        def theirs() -> Facts:
            return {
                "copy": peers.copy(target, table), "dump": peers.dump(target, file),
                "zstd": peers.dump_zstd(target, file),
            }  # fmt: skip

        first, second = (ours, theirs) if seed % 2 else (theirs, ours)
        found = first() | second()
    return {name: round(value, 3) for name, value in found.items()}


def _facts(ran: Sealed) -> Facts:
    return {"rows": ran.rows, "bytes": ran.size, "proven": ran.seconds, "sealed": ran.sealed, "peak": ran.peak}


def _medians(facts: Sequence[Mapping[str, Any]], *names: str) -> list[float]:
    return [median(float(each[name]) for each in facts) for name in names]


def weigh_proven(facts: Sequence[Mapping[str, Any]], least: float) -> Measured:
    """pg_dump's time over ours; beside them two workers', and pg_dump's with zstd."""
    proven, two, dump, zstd = _medians(facts, "proven", "two", "dump", "zstd")
    ours, theirs = f"{proven:.2f} s (two workers {two:.2f} s)", f"{dump:.2f} s (zstd:1 {zstd:.2f} s)"
    return Measured(ours, theirs, round(dump / proven, 3), dump / proven >= least)


def weigh_sealed(facts: Sequence[Mapping[str, Any]], most: float) -> Measured:
    """Our time over psql's."""
    sealed, copy = _medians(facts, "sealed", "copy")
    return Measured(f"{sealed:.2f} s", f"{copy:.2f} s", round(sealed / copy, 3), sealed / copy <= most)


def weigh_memory(facts: Sequence[Mapping[str, Any]]) -> Measured:
    """The most that a worker ever had, over what it may have."""
    peak = max(float(each["peak"]) for each in facts)
    return Measured(f"{peak / 1e6:.1f} MB", f"{MEMORY / 1e6:.0f} MB", round(peak / MEMORY, 3), peak <= MEMORY)


def narrow(ground: Ground, seed: int, rows: int = NARROW) -> Facts:
    """A trial over narrow rows."""
    return trial(ground, seed, lambda: ground.make(rows), "public.usage_logs")


def embedded(ground: Ground, seed: int, rows: int = EMBEDDED) -> Facts:
    """A trial over rows with 1536-d embeddings."""
    return trial(ground, seed, lambda: ground.make_embedded(rows), "public.document_chunks")


_COPY = "psql \\copy to /dev/null (format binary)"
PROVEN_EMBEDDED = Row(
    "backup_embeddings", "backup, proven, 1536-d embeddings, one worker", "pg_dump -Fc", "≥ 5×",
    "backup_embedded", 3, 10, 1, embedded, lambda facts: weigh_proven(facts, 5),
)  # fmt: skip
PROVEN_NARROW = Row(
    "backup_narrow", "backup, proven, narrow rows, one worker", "pg_dump -Fc", "≥ 1.5×",
    "backup_narrow", 5, 4, 1, narrow, lambda facts: weigh_proven(facts, 1.5),
)  # fmt: skip
SEALED_NARROW = Row(
    "backup_copy", "backup, sealed, not yet proven, narrow rows", _COPY, "≤ 2.5× its time",
    "backup_narrow", 5, 4, 1, narrow, lambda facts: weigh_sealed(facts, 2.5),
)  # fmt: skip
SEALED_EMBEDDED = Row(
    "backup_copy_embeddings", "the same, 1536-d embeddings", _COPY, "≤ 2× its time",
    "backup_embedded", 3, 10, 1, embedded, lambda facts: weigh_sealed(facts, 2),
)  # fmt: skip
MEMORY_ROW = Row(
    "backup_memory", "memory of a worker in a backup, 1536-d embeddings", "what it may have", "≤ 200 MB",
    "backup_embedded", 3, 10, 1, embedded, weigh_memory,
)  # fmt: skip
