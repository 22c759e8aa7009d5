"""How a run's progress is drawn: bars on a terminal, JSON lines for scripts, a line a phase elsewhere."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from briefly_admin.cli.printing import counted, one_line, print_json
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import RunState
from briefly_admin.services.sentences import at_work, held_back, next_try
from briefly_admin.services.views import RunView

_BETWEEN: Final = 0.5
"""Seconds between two JSON lines of one phase."""
_STANDING: Final = frozenset({RunState.AWAITING_APPROVAL, RunState.PENDING, RunState.PAUSED, RunState.INTERRUPTED})
"""States whose sentence says why nothing moves."""


class Printer:
    """Draws what a leader reports (`progress`) or what the app database says (`state`); `look` is the run now.

    A reader who went away (`… | head`) silences it and never disturbs the run.
    """

    def __init__(self, look: Callable[[], RunView], *, json_lines: bool) -> None:
        self._look = look
        self._json = json_lines
        self._bars = _bars() if sys.stdout.isatty() and not json_lines else None
        self._tasks: dict[str, TaskID] = {}
        self._phase = ""
        self._said = ""
        self._stood: RunState | None = None
        self._asked = False
        self._held = ""
        self._wanted = 1
        self._printed: Any = None
        self._next = 0.0

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        if self._bars:
            self._bars.stop()

    def progress(self, progress: Progress) -> None:
        """Draw a leader's snapshot."""
        if self._json:
            self._json_progress(progress)
            return
        if progress.phase != self._phase:
            self._begin(progress.phase)
        when = next_try(progress, datetime.now(UTC)) if progress.waiting else ""
        self._say(progress.waiting, f"; {when}" if when else "", progress.waiting_until)
        work = at_work(progress, self._wanted)
        for table in progress.tables if self._bars else ():
            if table.total or table.done:
                self._draw(table, work)
                work = "" if table.done < table.total else work

    def state(self, view: RunView) -> None:
        """Draw what the app database says."""
        if self._json:
            self._json_line(view)
        elif view.state in _STANDING:
            # Only at the second look: a worker takes most runs within half a second.
            if view.state is self._stood:
                self._stand(view)
        elif view.progress and view.live:
            self._wanted = int(view.config.get("workers", 1))
            self.progress(view.progress)
            self._hold(held_back(view.breaker, view.progress.waiting))
        self._stood = view.state

    def _json_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.phase == self._phase and now < self._next:
            return
        self._phase, self._next = progress.phase, now + _BETWEEN
        with suppress(BrieflyError):
            self._json_line(replace(self._look(), progress=progress, phase=progress.phase))

    def _json_line(self, view: RunView) -> None:
        data = view.status_json() | view.work_json()
        if data != self._printed:
            self._printed = data
            _unheard(lambda: print_json(data))

    def _begin(self, phase: str) -> None:
        self._phase = phase
        self._line(phase)
        for task in self._tasks.values() if self._bars else ():
            self._bars.remove_task(task)  # type: ignore[union-attr] # looked at one line above
        self._tasks.clear()

    def _stand(self, view: RunView) -> None:
        """Why nothing moves; once of an approval, for hours may pass, and the sentence counts the minutes."""
        waits = view.state is RunState.AWAITING_APPROVAL
        if not (waits and self._asked):
            self._say(view.sentence)
        self._asked = waits

    def _say(self, text: str, when: str = "", until: str = "") -> None:
        """Once, as long as it and the moment of the next try stay the same."""
        said = f"{text} {until}"
        if text and said != self._said:
            self._line(f"  {one_line(text.rstrip('.') + when if when else text)}")
        self._said = said

    def _hold(self, text: str) -> None:
        """What the circuit breaker says, once."""
        if text and text != self._held:
            self._line(f"  {one_line(text)}")
        self._held = text

    def _line(self, text: str) -> None:
        if self._bars:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            _unheard(lambda: click.echo(text))

    def _draw(self, table: TableProgress, work: str) -> None:
        assert self._bars is not None
        if table.table not in self._tasks:
            self._tasks[table.table] = self._bars.add_task(one_line(table.table), note="")
        note = f"{table.done:,} of {counted(table.total, 'row')}"
        if table.done < table.total and round(table.rate):
            note += f", {table.rate:,.0f} rows/s"
        if table.done < table.total and work:
            note += f" · {work}"
        self._bars.update(self._tasks[table.table], completed=table.done, total=max(table.total, 1), note=note)


def _bars() -> Bars:
    texts = [TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[note]")]
    return Bars(texts[0], BarColumn(), TaskProgressColumn(), texts[1], console=Console(), transient=True)


def _unheard(write: Callable[[], None]) -> None:
    """Print; once nobody reads any more, standard output goes nowhere."""
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
