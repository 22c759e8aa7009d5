"""Validation shared out among a run's workers: all read the snapshot that the leader holds."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import RunFailed, Unavailable
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionView
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Note, PartitionWorker, Show, Step, share
from briefly_admin.engine.snapshot import page_ranges
from briefly_admin.engine.target import Connection
from briefly_admin.engine.validate.across import declared_rules, in_one_scan, row_rules, set_parts
from briefly_admin.engine.validate.examine import Examination, read_catalog
from briefly_admin.engine.validate.parts import Part, merged
from briefly_admin.engine.validate.reading import Reading, exported, reading
from briefly_admin.engine.validate.record import CompiledTable, compile_table
from briefly_admin.engine.validate.scan import count_rows, scan_parts
from briefly_admin.engine.validate.showing import shower
from briefly_admin.plans.base import Plan, Repair, Table

LARGE: Final = 64 << 20
"""Bytes of a table, indexes and all, from which on several workers share its rows."""
_RANGES_A_WORKER: Final = 3
_PARTS: Final = ("records", "across")
_NOTE_EVERY: Final = 0.5
_CANCEL_EVERY: Final = 0.5


def examine_shared(
    context: RunContext, connection: Connection | None = None, *, step: Step | None = None,
    except_quarantined: bool = False, show: Show | None = None, large: int = LARGE,
) -> Examination:  # fmt: skip
    """As `examine_tables` for the run's plan, by all of the run's workers; the same findings however many they are.

    `connection`: to read from (its open REPEATABLE READ transaction, if there is one); a session of its own without.
    `step`: STEP, or AGAIN in the phase verify; its phase is the one that progress names. `except_quarantined`: the
    rows of the quarantine that the run heeds are left aside, as those that are to be skipped always are.
    `large`: see LARGE. Raises Stopped and Fenced; Refused where a table is missing or a repair does not fit it;
    Unavailable, RunFailed.
    """
    step = step or STEP
    with ExitStack() as opened:
        source = connection or opened.enter_context(context.target.session(bulk=True))
        session = opened.enter_context(reading(source, context.should_stop))
        catalog = read_catalog(source, context.plan)
        shared = {"snapshot": exported(session), "except_quarantined": except_quarantined}
        examiner = opened.enter_context(_examining(context, session, catalog, shared))
        # The leader reads from the very transaction that exports: where it is lost, the leader's work ends with it.
        mine = replace(step, open=lambda _context, _shared: nullcontext(examiner.work))
        parts = partitions(context.plan, catalog, context.config.workers, large=large)
        known = {name: table.estimated_rows for name, table in catalog.items()}
        views = share(context, mine, parts, shared, show=show or shower(context, step.phase, known))
    return _gathered(context.plan, views)


def partitions(plan: Plan, catalog: Mapping[str, CatalogTable], workers: int, *, large: int = LARGE) -> list[Partition]:
    """Each table's rows (`{"part": "records", "ctid_from", "ctid_to", "rules"}`), then its other rules across rows.

    `rules`: numbers of the rules that are answered there. One worker gets each table whole, and its other rules as one
    more partition (`{"part": "across", "rules"}`). For several, large tables are cut, and each rule is one.
    """
    found: list[Partition] = []
    for table in plan.tables:
        bounds = _ranges(table, catalog[table.name], workers, large)
        scanned = in_one_scan(table, catalog, joined=len(bounds) == 1)  # each range would read the parents again
        ranges = [
            {"part": "records", "ctid_from": low, "ctid_to": high, "rules": scanned} for low, high in bounds
        ]  # fmt: skip
        others = [number for number in range(len(declared_rules(table))) if number not in scanned]
        across: list[dict[str, Any]] = [{"part": "across", "rules": [number]} for number in others]
        if workers == 1 and across:
            across = [{"part": "across", "rules": others}]
        found += [Partition(table.name, number, what) for number, what in enumerate([*ranges, *across])]
    return found


def _ranges(table: Table, found: CatalogTable, workers: int, large: int) -> Sequence[tuple[str, str]]:
    """A table with aggregates or groups stays whole: each range would compute them all again."""
    joined = any(not isinstance(repair, Repair) for repair in table.repairs)
    if workers == 1 or joined or found.bytes < large:
        return [("", "")]
    count = min(workers * _RANGES_A_WORKER, max(4 * found.bytes // large, 1))
    return page_ranges(found, stream_bytes=max(found.bytes // count, 1))


class _Examiner:
    """Works partitions in a transaction that has the shared snapshot."""

    def __init__(
        self, context: RunContext, session: Reading, catalog: Mapping[str, CatalogTable], shared: Mapping[str, Any],
        pool: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        self._context = context
        self._session = session
        self._catalog = catalog
        self._except_quarantined = bool(shared.get("except_quarantined"))
        self._pool = pool
        self._compiled: dict[str, CompiledTable] = {}

    def work(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """`{"rows": looked at, "records": […], "across": […]}`. Raises Stopped, Refused, Unavailable, RunFailed."""
        try:
            table = self._of(claimed.partition.table)
            # A statement may take longer than a lease: another thread waits for the server, this one says it lives.
            future = self._pool.submit(self._examine, table, claimed.partition.range)
            try:
                while not wait([future], timeout=_NOTE_EVERY).done:
                    note(Count())
            finally:
                self._end(future)
            rows, found = future.result()
        except psycopg.Error as error:
            raise self._session.told(error) from None
        return Count(done=rows), {"rows": rows} | {
            what: [part.to_json() for part in parts] for what, parts in zip(_PARTS, found, strict=True)
        }  # fmt: skip

    def _of(self, name: str) -> CompiledTable:
        if name not in self._compiled:
            plan, connection = self._context.plan, self._session.connection
            excluded = _left_aside(self._context, plan.table(name), quarantined=self._except_quarantined)
            self._compiled[name] = compile_table(connection, plan, plan.table(name), self._catalog, excluded)
        return self._compiled[name]

    def _examine(
        self, table: CompiledTable, what: Mapping[str, Any]
    ) -> tuple[int, tuple[list[Part], list[Part]]]:  # fmt: skip
        self._session.check_stop()
        numbers = [int(number) for number in what["rules"]]
        if what["part"] == "across":
            return 0, ([], list(set_parts(self._session, self._context.plan, table, self._catalog, numbers)))
        part = _within(table, what["ctid_from"], what["ctid_to"])
        rows = count_rows(self._session, part)
        return rows, scan_parts(self._session, part, row_rules(part, self._catalog, numbers))

    def _end(self, future: "Future[Any]") -> None:
        """The connection is free again: what still runs there is cancelled."""
        while not future.done():
            with suppress(psycopg.Error):
                self._session.connection.cancel_safe(timeout=5)
            wait([future], timeout=_CANCEL_EVERY)


def _left_aside(context: RunContext, table: Table, *, quarantined: bool) -> list[tuple[str, ...]]:
    """Keys of the rows that are not looked at: those to be skipped, and those in quarantine."""
    keys = [row.key for row in context.journal.skipped(table.name) if len(row.key) == len(table.key)]
    if quarantined:
        keys += [row.key for row in context.journal.quarantined(table.name, context.quarantine_of)]
    return list(dict.fromkeys(keys))


def _within(table: CompiledTable, ctid_from: str, ctid_to: str) -> CompiledTable:
    """The table's rows in a ctid range alone; a range with a bound is never one of a table with joins."""
    if not ctid_from and not ctid_to:
        return table
    bounds = [("t.ctid >= {}::tid", ctid_from), ("t.ctid < {}::tid", ctid_to)]
    tests = [sql.SQL(text).format(sql.Literal(bound)) for text, bound in bounds if bound]
    return replace(table, within=sql.SQL(" AND ").join(tests))


@contextmanager
def _examining(
    context: RunContext, session: Reading, catalog: Mapping[str, CatalogTable], shared: Mapping[str, Any]
) -> Iterator[_Examiner]:
    with ThreadPoolExecutor(1, thread_name_prefix="validate") as pool:
        yield _Examiner(context, session, catalog, shared, pool)


@contextmanager
def _join(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    """A helper's: a session that sees the leader's snapshot for as long as the helper works on the step."""
    with (
        context.target.session(bulk=True) as connection,
        reading(connection, context.should_stop, snapshot=str(shared["snapshot"])) as session,
        _examining(context, session, read_catalog(connection, context.plan), shared) as examiner,
    ):

        def work(claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
            try:
                return examiner.work(claimed, note)
            except RunFailed as error:
                # The fault may be this worker's own; the leader, who takes the partition next, knows better.
                raise Unavailable(error.message, remedy=error.remedy) from None

        yield work


STEP: Final = Step("validate", Phase.VALIDATE, _join)
"""The phase validate's."""
AGAIN: Final = Step("revalidate", Phase.VERIFY, _join)
"""The phase verify's."""


def _gathered(plan: Plan, views: Sequence[PartitionView]) -> Examination:
    """Findings in the plan's order of tables: of a table's records first, then of its rules across rows."""
    rows: dict[str, int] = {}
    parts: dict[tuple[str, str], list[Part]] = {}
    for view in views:
        table = view.partition.table
        rows[table] = rows.get(table, 0) + int(view.result["rows"])
        for what in _PARTS:
            found = parts.setdefault((table, what), [])
            found += [Part.from_json(table, part) for part in view.result[what]]
    ordered = [parts.get((table.name, what), []) for table in plan.tables for what in _PARTS]
    return Examination([finding for found in ordered for finding in merged(found)], rows)
