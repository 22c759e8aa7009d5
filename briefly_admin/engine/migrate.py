"""The migrate phase: every table's repairs in batches, each exactly once.

A batch and its checkpoint are one transaction in the target; whatever is lost on the way, the checkpoint says where to
go on. See engine.md, "Migrate: exactly once".
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import RunFailed, Stopped, Unavailable
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionView
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import validate
from briefly_admin.engine.batching import Work
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.checkpoints import (
    claim_partition,
    counts,
    mark_done,
    quarantine,
    quarantined_rows,
    set_aside,
)
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.cutting import Cut, cut, whole
from briefly_admin.engine.fence import fenced, flush
from briefly_admin.engine.gauge import Gauge
from briefly_admin.engine.mover import Line, Mover, Tools, batch_session
from briefly_admin.engine.retry import patiently
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.engine.skipping import set_skipped_aside, skipped_keys
from briefly_admin.engine.steering import Steering
from briefly_admin.engine.target import Connection

T = TypeVar("T")
_EXACT_BELOW: Final = 2_000_000
"""Rows (estimated) up to which a table is counted before it is begun."""
_TOTALS_EVERY: Final = 2.0
"""Seconds between two notes of the totals in the app database."""
_CUT: Final = Cut()
_BLOCKED: Final = "blocked rows"
"""The partition -1 under which the checkpoint says that blocked rows were set aside."""


def run(context: RunContext, cut_by: Cut = _CUT) -> dict[str, Any]:
    """Repairs every table; `{"tables": [{table, looked, changed, skipped}], looked, changed, skipped}`, in rows.

    Raises RunFailed for a row that cannot be changed (onInvalid=stop) or too many of them, Stopped, Fenced.
    """
    partitions, board = asked(context, lambda reader: _prepare(context, reader, cut_by))
    step = Step(STEP.name, STEP.phase, lambda context, shared: _open(context, shared, board.gauge))
    try:
        share(context, step, partitions, {}, show=board.show, keep=True)
    except (RunFailed, Stopped):
        # For the pages; the next attempt copies what this one cannot.
        with suppress(psycopg.Error, Unavailable), context.target.session(bulk=True) as reader:
            copy_quarantine(context, reader)
        raise
    board.total()
    return asked(context, lambda reader: _report(context, reader))


class _Board:
    """What the leader shows: a gauge, and the totals in the app database."""

    def __init__(self, context: RunContext, gauge: Gauge) -> None:
        self.gauge = gauge
        self._context = context
        self._noted = context.monotonic()

    def show(self, views: Sequence[PartitionView]) -> None:
        """The partitions as they stand now."""
        self.gauge.show(views)
        if self._context.monotonic() - self._noted >= _TOTALS_EVERY:
            self.total()

    def total(self) -> None:
        """Notes the totals."""
        self._noted = self._context.monotonic()
        self._context.journal.totals(self.gauge.done, self.gauge.total)


@contextmanager
def _open(
    context: RunContext, _shared: Mapping[str, Any], gauge: Gauge | None = None
) -> Iterator[PartitionWorker]:  # fmt: skip
    """A worker's part: moves the partitions it claims, all over one session; `gauge` is the leader's."""
    catalog = asked(context, lambda reader: read_catalog(reader, context))
    works = {table.name: Work(context.plan, table, catalog) for table in context.plan.tables}
    # Rows of one table cost about the same, those of another do not.
    steerings: defaultdict[str, Steering] = defaultdict(lambda: Steering(context.config.batch_size))

    def announce(text: str, until: str = "") -> None:
        if gauge:
            gauge.wait(text, until)

    def sized(rows: int) -> None:
        if gauge:
            gauge.batch_size = rows

    with closing(Line(context)) as line:

        def work(claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
            partition = claimed.partition
            tools = Tools(line, steerings[partition.table], announce, sized)
            count = Mover(context, works[partition.table], partition, tools, note).move()
            return count, {}

        yield work


STEP: Final = Step("migrate", Phase.MIGRATE, _open)


def asked(context: RunContext, ask: Callable[[Connection], T]) -> T:
    """What `ask` finds in a session of its own, which is not held while batches run; safe to repeat."""

    def work() -> T:
        with context.target.session(bulk=True) as reader:
            return ask(reader)

    def announce(text: str, until: str = "") -> None:
        context.report(Progress(str(Phase.MIGRATE), waiting=text, waiting_until=until))

    return patiently(context, "A look at the target", announce, work)


def _prepare(context: RunContext, reader: Connection, by: Cut) -> tuple[list[Partition], _Board]:
    """The work to do, and how far earlier attempts have come; what validation blocks is set aside."""
    catalog = read_catalog(reader, context)
    works = [Work(context.plan, table, catalog) for table in context.plan.tables if table.repairs]
    works = [work for work in works if work.columns]
    _set_aside(context, reader, catalog)
    rows = {work.table.name: count_rows(reader, work.known) for work in works}
    gauge = Gauge(context, Phase.MIGRATE, rows)
    so_far = counts(reader, context.run_id)
    aside = Counter(set_aside(reader, context.run_id))
    for (table, _), count in so_far.items():
        aside[table] -= count.skipped
    gauge.resume(so_far, aside)
    partitions = [view.partition for view in context.journal.partitions.survey(STEP.name)]
    for work in works if not partitions else ():
        name = work.table.name
        # An attempt of an older version began it in one piece.
        begun = any(table == name for table, _ in so_far)
        partitions += whole(work) if begun else cut(reader, work, rows[name], by)
    return partitions, _Board(context, gauge)


def _report(context: RunContext, reader: Connection) -> dict[str, Any]:
    """What the target says of the run, whoever did it: by table, in the plan's order."""
    skipped = copy_quarantine(context, reader)
    tables: dict[str, dict[str, Any]] = {}
    moved = {name: Count() for name in skipped}
    for (name, _), count in counts(reader, context.run_id).items():
        moved[name] = moved.get(name, Count()) + count
    for table in context.plan.tables:
        if table.name in moved:
            count = moved[table.name]
            tables[table.name] = {"table": table.name, "looked": count.done, "changed": count.changed,
                                  "skipped": skipped.get(table.name, 0)}  # fmt: skip
    listed = list(tables.values())
    return {"tables": listed} | {name: sum(t[name] for t in listed) for name in ("looked", "changed", "skipped")}


def read_catalog(connection: Connection, context: RunContext) -> dict[str, CatalogTable]:
    """The plan's tables as they are now. Raises RunFailed for a missing one."""
    catalog = {}
    for table in context.plan.tables:
        found = read_table(connection, table.schema, table.name)
        if found is None:
            raise RunFailed(
                f"The table {table.schema}.{table.name} is gone from the target.",
                remedy="Restore it, or choose a plan that fits this database.",
            )
        catalog[table.name] = found
    return catalog


def count_rows(connection: Connection, table: CatalogTable) -> int:
    """Rows of a table: counted, or for a very large one as the statistics say."""
    if table.estimated_rows > _EXACT_BELOW:
        return table.estimated_rows
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
    return int(row[0]) if row else 0


def _set_aside(context: RunContext, reader: Connection, catalog: Mapping[str, CatalogTable]) -> None:
    """Into quarantine before the first batch: what is to be skipped; with onInvalid=skip, what validation blocks."""
    config = context.config
    if context.journal.skipped():
        works = [Work(context.plan, table, catalog) for table in context.plan.tables]
        with batch_session(context) as connection:
            set_skipped_aside(context, reader, connection, works)
    if config.on_invalid == "skip" and config.validate_data:
        _set_blocked_aside(context, reader)


def _set_blocked_aside(context: RunContext, reader: Connection) -> None:
    """What validation found blocking, once a run."""
    config = context.config
    with batch_session(context) as connection:
        state = claim_partition(
            connection, context.run_id, context.attempt, _BLOCKED, -1, sleep=context.sleep, monotonic=context.monotonic
        )
        if state.done:
            return
        most = config.max_skipped + 1
        exclude = skipped_keys(context)
        rows = list(
            validate.blocked_rows(
                reader, context.plan, limit=most, should_stop=context.should_stop, exclude=exclude
            )
        )  # fmt: skip
        with fenced(connection, context.run_id, context.attempt):
            quarantine(connection, context.run_id, rows, most=config.max_skipped)
            mark_done(connection, state.claim, {"rows": len(rows)})


def copy_quarantine(context: RunContext, reader: Connection) -> dict[str, int]:
    """Into the app database, after it is surely on the target's disk; idempotent. Rows set aside by table."""
    flush(reader, context.run_id, context.attempt)
    rows = quarantined_rows(reader, context.quarantine_of)
    if context.kind is RunKind.REPLAY:
        context.journal.settle_quarantine(context.quarantine_of, rows)
    else:
        context.journal.save_quarantine(rows)
    return set_aside(reader, context.quarantine_of)
