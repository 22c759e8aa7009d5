"""Turns counts of rows into the progress that a phase reports."""

from collections.abc import Mapping

from briefly_admin.domain.progress import Meter, Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext


class Gauge:
    """Rows done, changed and skipped by table, with rates and the time left; reports at every change."""

    def __init__(self, context: RunContext, phase: Phase, totals: Mapping[str, int]) -> None:
        self._context = context
        self._phase = phase
        self._tables = {table: TableProgress(table, total) for table, total in totals.items()}
        self._waiting = ""
        self._rate = 0.0
        now = context.monotonic()
        self._meter = Meter(now)
        self._meters = {table: Meter(now) for table in totals}

    @property
    def done(self) -> int:
        """Rows done over all tables."""
        return sum(table.done for table in self._tables.values())

    @property
    def total(self) -> int:
        """Rows to do over all tables."""
        return sum(table.total for table in self._tables.values())

    def begin(self, table: str, done: int = 0) -> None:
        """The table's work starts now, or goes on after `done` rows: rates count from here."""
        old = self._tables[table]
        self._tables[table] = TableProgress(table, max(old.total, done), done, old.changed, old.skipped)
        now = self._context.monotonic()
        self._meters[table] = Meter(now, done)
        if done:
            self._meter = Meter(now, self.done)

    def at(self, table: str, *, done: int, changed: int, skipped: int) -> None:
        """The table has come this far."""
        now = self._context.monotonic()
        rate = self._meters[table].observe(now, done)
        # Rows may have been added since they were counted.
        total = max(self._tables[table].total, done)
        self._tables[table] = TableProgress(table, total, done, changed, skipped, rate)
        self._rate = self._meter.observe(now, self.done)
        self._waiting = ""
        self.report()

    def finish(self, table: str) -> None:
        """The table's total is what was done: the count was an estimate, or rows went meanwhile."""
        old = self._tables[table]
        self._tables[table] = TableProgress(table, old.done, old.done, old.changed, old.skipped, old.rate)
        self.report()

    def wait(self, why: str) -> None:
        """It waits, for a reason in a sentence; '' when it goes on."""
        self._waiting = why
        self.report()

    def report(self) -> None:
        """Reports a snapshot."""
        eta = self._meter.eta(self.total - self.done)
        self._context.report(
            Progress(str(self._phase), tuple(self._tables.values()), self._rate, eta, waiting=self._waiting)
        )
