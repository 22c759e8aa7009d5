"""Follow a run to its end, leading it here where no worker listens."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from briefly_admin.cli.session import Session, print_json
from briefly_admin.domain.errors import Refused, Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunState
from briefly_admin.services.leadership import leader_name
from briefly_admin.services.views import RunView

_POLL: Final = 0.5
_LET_GO: Final = 130
EXIT_BY_CODE: Final = {
    "blocking_findings": 3,
    "preflight_failed": 4, "refused": 4, "busy": 4, "not_allowed": 4,
    "backup_damaged": 5, "backup_key_missing": 5, "backup_expired": 5, "backup_error": 5,
    "bad_setting": 2, "bad_request": 2,
}  # fmt: skip


class Printer:
    """Shows progress: bars on a terminal, JSON lines for scripts, a line a phase elsewhere."""

    def __init__(self, *, json_lines: bool) -> None:
        self._json = json_lines
        self._last: Any = None
        terminal = sys.stdout.isatty() and not json_lines
        self._bars = (
            Bars(
                TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"),
                console=Console(), transient=True,
            )
            if terminal
            else None
        )  # fmt: skip
        self._tasks: dict[tuple[str, str], Any] = {}

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
        """Draw a snapshot."""
        if self._bars:
            for table in progress.tables:
                key = (progress.phase, table.table)
                if key not in self._tasks:
                    self._tasks[key] = self._bars.add_task(f"{progress.phase:<10}{table.table}", note="")
                note = progress.waiting or f"{table.done:,} of {table.total:,}, {table.rate:,.0f} rows/s"
                self._bars.update(self._tasks[key], completed=table.done, total=max(table.total, 1), note=note)
        elif not self._json and progress.phase != self._last:
            self._last = progress.phase
            click.echo(progress.phase)

    def state(self, view: RunView) -> None:
        """Draw what the app database says."""
        if self._json:
            data = view.status_json()
            if data != self._last:
                self._last = data
                print_json(data)
        elif view.progress:
            self.progress(view.progress)


def follow(session: Session, run_id: str, *, json_lines: bool = False) -> RunView:
    """Follow the run until it is finished; lead it in this process where no worker listens.

    Ctrl-C lets go of it (click.exceptions.Exit 130): the run itself goes on, or is queued again.
    """
    with Printer(json_lines=json_lines) as printer:
        if not workers(session):
            _lead_here(session, run_id, printer.progress)
        try:
            view = session.services.runs.get(session.actor, run_id)
            while not view.finished:
                printer.state(view)
                time.sleep(_POLL)
                view = session.services.runs.get(session.actor, run_id)
                _help_out(session, view, printer.progress)
            printer.state(view)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(_let_go(run_id)) from None
    return view


def _help_out(session: Session, view: RunView, report: Callable[[Progress], None]) -> None:
    """Lead a run that waits while the last worker is gone."""
    if view.state in {RunState.PENDING, RunState.INTERRUPTED} and not workers(session):
        _lead_here(session, view.id, report)


def workers(session: Session) -> int:
    """How many workers listen; none where the queue does not answer."""
    try:
        queue = session.services.servers.queue
        return queue.workers() if queue else 0
    except Unavailable:
        return 0


def _lead_here(session: Session, run_id: str, report: Callable[[Progress], None]) -> None:
    stop = threading.Event()
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        session.services.leading.lead(run_id, report=report, interrupted=stop.is_set, leader=leader_name())
    except Refused:
        return  # a worker took it in the meantime, or it has ended: following shows it
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if stop.is_set():
        raise click.exceptions.Exit(_let_go(run_id))


def _let_go(run_id: str) -> int:
    click.echo(f"Let go of run {run_id}; it goes on: briefly-admin status {run_id}", err=True)
    return _LET_GO


def exit_code(view: RunView) -> int:
    """The exit code of contract.md for a finished run."""
    if view.state in {RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS}:
        return 0
    return EXIT_BY_CODE.get(view.error_code or "", 1)


def conclude(view: RunView, *, json_lines: bool) -> None:
    """Say how the run ended and leave with its exit code."""
    if not json_lines:
        click.echo(view.sentence)
        if view.remedy:
            click.echo(view.remedy)
    code = exit_code(view)
    if code:
        raise click.exceptions.Exit(code)
