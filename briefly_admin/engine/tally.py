"""How far a shared step has come, told from its partitions."""

from collections.abc import Mapping, Sequence

from briefly_admin.domain.partitions import PartitionState, PartitionView
from briefly_admin.domain.progress import Meter, Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext


class Tally:
    """Reports progress whenever it is shown the step's partitions; `totals`: table → rows to do, in order.

    `before`: table → rows that earlier steps of the phase have done.
    """

    def __init__(
        self, context: RunContext, phase: Phase, totals: Mapping[str, int], before: Mapping[str, int] | None = None
    ) -> None:
        self._context = context
        self._phase = phase
        self._totals = totals
        self._before = before or {}
        self._meter = Meter(context.monotonic())

    def __call__(self, views: Sequence[PartitionView]) -> None:
        """Take all partitions of the step as they stand."""
        done = {name: self._before.get(name, 0) for name in self._totals}
        for view in views:
            done[view.partition.table] = done.get(view.partition.table, 0) + view.count.done
        rate = self._meter.observe(self._context.monotonic(), sum(done.values()))
        tables = tuple(
            TableProgress(name, total=max(self._totals.get(name, 0), rows), done=rows) for name, rows in done.items()
        )
        left = sum(table.total - table.done for table in tables)
        workers = {view.worker for view in views if view.state is PartitionState.WORKING}
        self._context.report(
            Progress(self._phase.value, tables, rate=rate, eta_seconds=self._meter.eta(left), workers=len(workers))
        )
