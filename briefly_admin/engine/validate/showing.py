"""How far a shared validation has come, from its partitions."""

from collections.abc import Mapping, Sequence

from briefly_admin.domain.partitions import PartitionState, PartitionView
from briefly_admin.domain.progress import Meter, Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Show


def shower(context: RunContext, phase: Phase, estimated: Mapping[str, int]) -> Show:
    """Reports rows a table, rate and time left. `estimated`: table → rows, until its records are all counted."""
    meter = Meter(context.monotonic())

    def show(views: Sequence[PartitionView]) -> None:
        counted = sum(view.count.done for view in views)
        rate = meter.observe(context.monotonic(), counted)
        tables = tuple(_table(name, views, rows, rate) for name, rows in estimated.items())
        left = sum(table.total - table.done for table in tables)
        over = all(view.state is PartitionState.DONE for view in views)
        # Rules across rows come last and have no rows to count: nobody can tell how long they take.
        eta = meter.eta(left) if over or (rate and left) else None
        workers = len({view.worker for view in views if view.state is PartitionState.WORKING})
        context.report(Progress(phase, tables, rate, eta, workers=workers))

    return show


def _table(name: str, views: Sequence[PartitionView], estimated: int, rate: float) -> TableProgress:
    mine = [view for view in views if view.partition.table == name]
    records = [view for view in mine if view.partition.range["part"] == "records"]
    done = sum(view.count.done for view in records)
    counted = all(view.state is PartitionState.DONE for view in records)
    working = any(view.state is PartitionState.WORKING for view in mine)
    return TableProgress(name, done if counted else max(estimated, done), done, rate=rate if working else 0.0)
