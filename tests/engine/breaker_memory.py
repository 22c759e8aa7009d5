"""A run's circuit breaker kept in memory, for the engine's tests: shared by the workers of one attempt."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from briefly_admin.domain.breaker import LONGEST, OPENS_AT, SHORTEST, BreakerState, BreakerView
from briefly_admin.domain.errors import Fenced


@dataclass
class BreakerRecord:
    """What the app database would hold; `skip` seconds lie between its clock and the real one."""

    view: BreakerView = field(default_factory=BreakerView)
    over_at: float = 0.0
    skip: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def now(self) -> float:
        return time.monotonic() + self.skip

    def until(self, seconds: float) -> datetime:
        self.over_at = self.now() + seconds
        return datetime.now(UTC) + timedelta(seconds=self.skip + seconds)


@dataclass
class MemoryBreaker:
    """One worker's view; `newest()` is the record's newest attempt."""

    find: Callable[[], BreakerRecord]
    newest: Callable[[], int]
    attempt: int
    worker: str = "test:1"

    @property
    def _record(self) -> BreakerRecord:
        if self.newest() != self.attempt:
            raise Fenced(f"Attempt {self.newest()} leads the run now; this is attempt {self.attempt}.")
        return self.find()

    def _probing(self, view: BreakerView) -> bool:
        return view.state is BreakerState.HALF_OPEN and view.worker == self.worker

    def look(self) -> BreakerView:
        record = self._record
        with record.lock:
            return replace(record.view, seconds=record.over_at - record.now() if record.view.until else 0.0)

    def failed(self, why: str, *, delay: float, jitter: float) -> BreakerView | None:
        record = self._record
        with record.lock:
            if record.view.state is not BreakerState.CLOSED and not self._probing(record.view):
                return None
            failures = record.view.failures + 1
            record.view = BreakerView(BreakerState.CLOSED, failures, why)
            if failures >= OPENS_AT:
                seconds = max(SHORTEST, min(LONGEST, delay * jitter * 2.0 ** (failures - OPENS_AT)))
                record.view = BreakerView(BreakerState.OPEN, failures, why, record.until(seconds))
            return self.look()

    def succeeded(self) -> bool:
        record = self._record
        with record.lock:
            counted = record.view.state is BreakerState.CLOSED and record.view.failures > 0
            if not counted and not self._probing(record.view):
                return False
            record.view = BreakerView()
            return True

    def try_probe(self, lease: float) -> bool:
        record = self._record
        with record.lock:
            over = record.view.state is not BreakerState.CLOSED and record.over_at <= record.now()
            if not over and not self._probing(record.view):
                return False
            until = record.until(lease)
            record.view = replace(record.view, state=BreakerState.HALF_OPEN, worker=self.worker, until=until)
            return True
