"""Shares a step of a phase out among the run's workers: the leader lays partitions out, everybody claims the next one.

One worker alone finishes every step. A worker that dies loses its lease, and its partitions are claimed again.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from briefly_admin.domain.errors import BrieflyError, Fenced, RunFailed, Stopped, Unavailable
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState, PartitionView
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.retry import describe

Note = Callable[[Count], None]
"""Takes how far a partition has come; cheap, so that it may be called after every batch."""
PartitionWorker = Callable[[Claimed, Note], tuple[Count, Mapping[str, Any]]]
"""Works one partition to its end: its final count and its result (plain JSON)."""
Show = Callable[[Sequence[PartitionView]], None]
"""The leader's: takes all partitions of the step as they stand, about twice a second."""

_NOTE_EVERY: Final = 1.0
_SHOW_EVERY: Final = 0.5
_ASK_EVERY: Final = 3.0
_LOOK_EVERY: Final = 0.2
_LET_GO: Final = 6.0
"""Seconds that a leader who stops waits for the others to have stopped."""
IDLE: Final = 5.0
"""Seconds without a free partition after which a helper leaves; the leader asks again when there is work."""


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of work that partitions are made of. `name`: at most 16 characters, unique among all steps."""

    name: str
    phase: Phase
    open: Callable[[RunContext, Mapping[str, Any]], AbstractContextManager[PartitionWorker]]
    """Given what the leader laid down for the step: sessions, catalog and what else each partition needs."""


def share(
    context: RunContext, step: Step, partitions: Sequence[Partition], shared: Mapping[str, Any], *, show: Show,
    keep: bool = False,
) -> list[PartitionView]:  # fmt: skip
    """The leader's part: lays out, asks for helpers, works itself, and returns all partitions done, in order.

    Raises the error of a partition that failed, Stopped, Fenced; psycopg.Error where its own work met one.
    """
    share_out = context.journal.partitions
    share_out.lay_out(step.name, partitions, shared, keep=keep)
    board = _Board(context, step, show)
    try:
        with step.open(context, shared) as work:
            while True:
                context.check_stop()
                board.ask()
                claimed = share_out.claim(step.name)
                if claimed is not None:
                    _work(context, claimed, lambda _: work, board.mine)
                views = board.look(force=claimed is None)
                if claimed is None:
                    if all(view.state is PartitionState.DONE for view in views):
                        return list(share_out.survey(step.name, results=True))
                    context.sleep(_LOOK_EVERY)
    except Stopped as stop:
        if stop.reason != "interrupt":
            board.wait_for_others()
        raise


def help_out(context: RunContext, steps: Mapping[str, Step]) -> int:
    """A helper's part: partitions of whatever step the run is at, until there were none for a while; how many it did.

    Raises Stopped, Fenced, and Unavailable where this worker could not do its part: the leader, or who comes next,
    finds out whether the fault was this worker's own. A partition that failed for good is the leader's to judge.
    """
    done, waited = 0, 0.0
    with closing(_Tools(context, steps)) as tools:
        while waited < IDLE:
            context.check_stop()
            claimed = context.journal.partitions.claim()
            if claimed is None:
                # An idle helper holds no snapshot open.
                tools.close()
                context.sleep(_LOOK_EVERY)
                waited += _LOOK_EVERY
                continue
            waited = 0.0
            try:
                _work(context, claimed, tools.of, None)
            except (Stopped, Fenced):
                raise
            except (psycopg.Error, BrieflyError) as error:
                worker, table = context.journal.partitions.worker, claimed.partition.table
                raise Unavailable(f"{worker} leaves {table} to others: {describe(error)}.") from None
            done += 1
    return done


def _work(
    context: RunContext, claimed: Claimed, open_: Callable[[Claimed], PartitionWorker],
    also: Callable[[Claimed, Count], None] | None,
) -> None:  # fmt: skip
    """Works one partition; gives it back where it could not be finished, unless it failed for good."""
    share_out = context.journal.partitions
    noted = context.monotonic()

    def note(count: Count) -> None:
        nonlocal noted
        if also:
            also(claimed, count)
        if context.monotonic() - noted >= _NOTE_EVERY:
            noted = context.monotonic()
            share_out.note(claimed, count)

    try:
        count, result = open_(claimed)(claimed, note)
        if also:
            also(claimed, count)
        share_out.finish(claimed, count, result)
    except Fenced:
        raise
    except RunFailed as error:
        with suppress(BrieflyError):
            share_out.fail(claimed, {"code": error.code, "message": error.message, "remedy": error.remedy})
        raise
    except BaseException:
        with suppress(BrieflyError):
            share_out.give_back(claimed)
        raise


class _Board:
    """What the leader knows of the step: the app database's view, its own newest counts over it."""

    def __init__(self, context: RunContext, step: Step, show: Show) -> None:
        self._context = context
        self._step = step
        self._show = show
        self._views: list[PartitionView] = []
        self._mine: tuple[Partition, Count] | None = None
        self._looked = self._asked = float("-inf")

    def ask(self) -> None:
        """Asks for helpers now and then; who comes is the queue's affair."""
        now = self._context.monotonic()
        if now - self._asked >= _ASK_EVERY:
            self._asked = now
            self._context.ask_help()

    def mine(self, claimed: Claimed, count: Count) -> None:
        """The leader's own partition has come this far."""
        self._mine = (claimed.partition, count)
        if self._context.monotonic() - self._looked >= _SHOW_EVERY:
            self.ask()
            self.look(force=True)

    def look(self, *, force: bool) -> list[PartitionView]:
        """All partitions; raises the error of one that failed."""
        now = self._context.monotonic()
        if not force and now - self._looked < _SHOW_EVERY:
            return self._views
        self._looked = now
        self._views = [self._newest(view) for view in self._context.journal.partitions.survey(self._step.name)]
        for view in self._views:
            if view.state is PartitionState.FAILED:
                raise RunFailed(view.error.get("message", "A partition failed."), remedy=view.error.get("remedy", ""))
        self._show(self._views)
        return self._views

    def _newest(self, view: PartitionView) -> PartitionView:
        if self._mine and view.state is PartitionState.WORKING:
            partition, count = self._mine
            if (partition.table, partition.number) == (view.partition.table, view.partition.number):
                return PartitionView(view.partition, view.state, view.worker, count)
        return view

    def wait_for_others(self) -> None:
        """Others stop at the end of their batch; a pause is one when nobody works any more."""
        end = self._context.monotonic() + _LET_GO
        with suppress(BrieflyError):
            while self._context.monotonic() < end:
                views = self._context.journal.partitions.survey(self._step.name)
                if not any(view.state is PartitionState.WORKING for view in views):
                    return
                # The context's own sleep would raise the stop that brought us here.
                self._context.nap(_LOOK_EVERY)


class _Tools:
    """A helper's opened step: kept from partition to partition, opened anew for another step or layout."""

    def __init__(self, context: RunContext, steps: Mapping[str, Step]) -> None:
        self._context = context
        self._steps = steps
        self._opened = ExitStack()
        self._key: tuple[str, int] | None = None
        self._work: PartitionWorker | None = None

    def of(self, claimed: Claimed) -> PartitionWorker:
        """What works this partition. Raises whatever opening the step raises."""
        key = (claimed.step, claimed.generation)
        if self._work is None or self._key != key:
            self.close()
            step = self._steps.get(claimed.step)
            if step is None:
                raise Unavailable(f"the step {claimed.step} is another version's")
            self._work = self._opened.enter_context(step.open(self._context, claimed.shared))
            self._key = key
        return self._work

    def close(self) -> None:
        """Ends the sessions; one that is lost already is no matter."""
        self._work = None
        with suppress(psycopg.Error, BrieflyError):
            self._opened.close()
