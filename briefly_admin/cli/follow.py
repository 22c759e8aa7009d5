"""Follow a run to its end, leading it here where no worker listens."""

import os
import signal
import sys
import threading
import time
from typing import Final

import click

from briefly_admin.cli.progress import Printer
from briefly_admin.cli.session import Session
from briefly_admin.domain.errors import BrieflyError, Refused, Unavailable
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.leadership import worker_name
from briefly_admin.services.views import RunView

_POLL: Final = 0.5
"""Seconds between two looks at a run."""
_PATIENCE: Final = 30.0
"""Seconds that the app database may be silent while a run is followed."""
_LET_GO: Final = 130
_WAITING: Final = frozenset({RunState.PENDING, RunState.INTERRUPTED})
_DONE: Final = frozenset({RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS})


def follow(session: Session, run_id: str, *, json_lines: bool = False) -> RunView:
    """Follow the run until it is finished; lead it in this process where no worker listens.

    Ctrl-C lets go of it (click.exceptions.Exit 130): the run itself goes on, or waits to be taken up again.
    """
    with Printer(lambda: session.services.runs.get(session.actor, run_id), json_lines=json_lines) as printer:
        try:
            view = _look(session, run_id)
            while not view.finished:
                if view.state in _WAITING and not workers(session):
                    _lead_here(session, view, printer)
                else:
                    printer.state(view)
                    time.sleep(_POLL)
                view = _look(session, run_id)
            printer.state(view)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(_let_go(session, view)) from None
    return view


def workers(session: Session) -> int:
    """How many workers listen; none where the queue does not answer."""
    try:
        return session.services.queue.workers()
    except Unavailable:
        return 0


def _look(session: Session, run_id: str) -> RunView:
    """The run now; a short silence of the app database does not end the following."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return session.services.runs.get(session.actor, run_id)
        except Unavailable:
            if time.monotonic() >= end:
                raise
            time.sleep(_POLL)


def _lead_here(session: Session, view: RunView, printer: Printer) -> None:
    stop = threading.Event()

    def let_go(_number: int, _frame: object) -> None:
        if not stop.is_set():
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nLetting go after the batch in hand.\n")
        stop.set()

    former = {number: signal.signal(number, let_go) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        view = session.services.leading.lead(
            view.id, report=printer.progress, interrupted=stop.is_set, leader=worker_name()
        )
    except Refused:
        time.sleep(_POLL)  # a worker took it in the meantime, or it has ended: following shows it
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if stop.is_set() and not view.finished:
        raise click.exceptions.Exit(_let_go(session, view))


def _let_go(session: Session, view: RunView) -> int:
    goes_on = "it goes on by itself" if workers(session) else "it goes on as soon as a worker listens"
    click.echo(
        f"Let go of run {view.number}; {goes_on}. Look: briefly-admin status {view.number}. "
        f"Take it up here: briefly-admin resume {view.number}.",
        err=True,
    )
    return _LET_GO


def _exit_codes(error: type[BrieflyError]) -> dict[str, int]:
    codes = {error.code: error.exit_code}
    for kind in error.__subclasses__():
        codes |= _exit_codes(kind)
    return codes


EXIT_BY_CODE: Final = _exit_codes(BrieflyError)


def exit_code(view: RunView) -> int:
    """The exit code of contract.md for a finished run."""
    return 0 if view.state in _DONE else EXIT_BY_CODE.get(view.error_code, 1)


def conclude(view: RunView, *, json_lines: bool) -> None:
    """Say how the run ended and leave with its exit code."""
    code = exit_code(view)
    if code or not json_lines:
        click.echo(view.sentence, err=bool(code))
    if code:
        raise click.exceptions.Exit(code)
    if view.rollback_available and view.kind is RunKind.MIGRATION and not json_lines:
        click.echo(f"To roll it back: briefly-admin rollback {view.backup_name} --preview, then --confirm.")
