"""Turns counts of rows into the progress that a phase reports."""

from collections.abc import Mapping, Sequence

from briefly_admin.domain.partitions import Count, PartitionState, PartitionView
from briefly_admin.domain.progress import Meter, Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext

Place = tuple[str, int]
"""A partition: its table and its number."""


class Gauge:
    """Rows done, changed and skipped by table, with rates and the time left; reports at every change."""

    def __init__(self, context: RunContext, phase: Phase, totals: Mapping[str, int]) -> None:
        self._context = context
        self._phase = phase
        self._tables = {table: TableProgress(table, total) for table, total in totals.items()}
        self._floor: dict[Place, Count] = {}
        self._aside: dict[str, int] = {}
        self._waiting = self._until = ""
        self._rate = 0.0
        self._workers = 0
        self.batch_size = 0
        """Rows a batch now."""
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

    def resume(self, floor: Mapping[Place, Count], aside: Mapping[str, int]) -> None:
        """Earlier attempts came this far, and set so many rows of a table aside before any batch: never less again."""
        self._floor, self._aside = dict(floor), dict(aside)
        for table in self._tables:
            counts = [count for (name, _), count in floor.items() if name == table]
            so_far = sum(counts, Count(skipped=self._aside.get(table, 0)))
            self.begin(table, so_far.done)
            self._set(table, so_far, 0.0)

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
        self._set(table, Count(done, changed, skipped), self._meters[table].observe(now, done))
        self._rate = self._meter.observe(now, self.done)
        self._waiting = self._until = ""
        self.report()

    def show(self, views: Sequence[PartitionView]) -> None:
        """The partitions have come this far; how many workers are at them."""
        now = self._context.monotonic()
        for table in self._tables:
            mine = [view for view in views if view.partition.table == table]
            if not mine:
                continue
            so_far = sum(map(self._count, mine), Count(skipped=self._aside.get(table, 0)))
            self._set(table, so_far, self._meters[table].observe(now, so_far.done))
            if all(view.state is PartitionState.DONE for view in mine):
                self._close(table)
        self._rate = self._meter.observe(now, self.done)
        self._workers = len({view.worker for view in views if view.state is PartitionState.WORKING})
        self.report()

    def finish(self, table: str) -> None:
        """The table's total is what was done: the count was an estimate, or rows went meanwhile."""
        self._close(table)
        self.report()

    def wait(self, text: str, until: str = "") -> None:
        """It waits, for a reason in a sentence and until then (ISO 8601, UTC); '' when it goes on."""
        self._waiting, self._until = text, until
        self.report()

    def report(self) -> None:
        """Reports a snapshot."""
        self._context.report(
            Progress(
                str(self._phase), tuple(self._tables.values()), self._rate, self._meter.eta(self.total - self.done),
                waiting=self._waiting, waiting_until=self._until, batch_size=self.batch_size, workers=self._workers,
            )
        )  # fmt: skip

    def _count(self, view: PartitionView) -> Count:
        """What the partition's workers said last, or what the target said before, whichever is further."""
        place = view.partition.table, view.partition.number
        self._floor[place] = max(self._floor.get(place, Count()), view.count, key=lambda count: count.done)
        return self._floor[place]

    def _set(self, table: str, so_far: Count, rate: float) -> None:
        # Rows may have been added since they were counted.
        total = max(self._tables[table].total, so_far.done)
        self._tables[table] = TableProgress(table, total, so_far.done, so_far.changed, so_far.skipped, rate)

    def _close(self, table: str) -> None:
        old = self._tables[table]
        self._tables[table] = TableProgress(table, old.done, old.done, old.changed, old.skipped, old.rate)
