"""How far a run has come: what a worker reports, a page shows and the JSON endpoints answer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TableProgress:
    """One table in the current phase; counts are rows, `rate` rows a second over the last seconds."""

    table: str
    total: int = 0
    done: int = 0
    changed: int = 0
    skipped: int = 0
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of one phase of a run; `eta_seconds` None while it cannot be told."""

    phase: str
    tables: Sequence[TableProgress] = field(default_factory=tuple)
    rate: float = 0.0
    eta_seconds: float | None = None
    waiting: str = ""
    """Why it waits (a lock, a retry), in a sentence; empty while it works."""
    waiting_until: str = ""
    """When it tries next (ISO 8601, UTC); empty where nobody can tell."""
    batch_size: int = 0
    """Rows a batch now; 0 in phases without batches."""
    workers: int = 0
    """Workers that are at it now; 0 where that is not counted."""

    @property
    def done(self) -> int:
        """Rows done over all tables."""
        return sum(table.done for table in self.tables)

    @property
    def total(self) -> int:
        """Rows to do over all tables."""
        return sum(table.total for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, for `job.meta` and the app database."""
        return asdict(self) | {"tables": [asdict(table) for table in self.tables]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Progress":
        """The inverse of `to_json`; unknown fields are left out."""
        return cls(
            phase=str(data.get("phase", "")),
            tables=tuple(
                TableProgress(**{k: v for k, v in row.items() if k in TableProgress.__dataclass_fields__})
                for row in data.get("tables", ())
            ),
            rate=float(data.get("rate", 0.0)),
            eta_seconds=data.get("eta_seconds"),
            waiting=str(data.get("waiting", "")),
            waiting_until=str(data.get("waiting_until", "")),
            batch_size=int(data.get("batch_size", 0)),
            workers=int(data.get("workers", 0)),
        )


class Meter:
    """Rate and time left from (time, rows) observations; seconds are monotonic and given by the caller.

    The rate is an exponentially weighted mean with a half-life of `half_life` seconds, so that the time left
    follows a real change within seconds and does not jump with every batch.
    """

    def __init__(self, now: float, done: int = 0, *, half_life: float = 5.0) -> None:
        self._last = now
        self._done = done
        self._half_life = half_life
        self._rate: float | None = None

    def observe(self, now: float, done: int) -> float:
        """Take an observation; the rate in rows a second."""
        elapsed = now - self._last
        if elapsed <= 0:
            return self._rate or 0.0
        current = max(done - self._done, 0) / elapsed
        weight = 0.5 ** (elapsed / self._half_life)
        self._rate = current if self._rate is None else self._rate * weight + current * (1 - weight)
        self._last, self._done = now, done
        return self._rate

    def eta(self, remaining: int) -> float | None:
        """Seconds left for `remaining` rows, or None while there is no rate."""
        if remaining <= 0:
            return 0.0
        return remaining / self._rate if self._rate else None
