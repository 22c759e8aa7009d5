"""What is drawn of a run that waits, is held back, or is shared: each thing once, as long as it stays the same."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from briefly_admin.cli.progress import Printer
from briefly_admin.domain.breaker import BreakerState, BreakerView
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView
from tests.cli.conftest import Command

HERE = Actor("here", Role.ADMIN, "cli")
WAITING = Progress(
    "migrate", waiting="A lock is held.", waiting_until="2000-01-01T00:00:00Z", batch_size=640, workers=2
)
HELD = BreakerView(BreakerState.OPEN, 3, "connection refused")


@pytest.fixture
def view(command: Command, environ: dict[str, str]) -> Iterator[RunView]:
    """A run, which tests put in a state."""
    from briefly_admin import wiring
    from briefly_admin.settings import load

    services = wiring.build(load(environ))
    assert command("status").code == 0
    yield services.runs.start(HERE, RunKind.MIGRATION, config={"workers": 4})
    services.close()


def running(view: RunView, progress: Progress, breaker: BreakerView = HELD) -> RunView:
    return replace(view, state=RunState.RUNNING, progress=progress, breaker=breaker, waiting=progress.waiting)


def test_lines_say_each_thing_once(view: RunView, capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(lambda: view, json_lines=False) as printer:
        for _ in range(3):
            printer.state(running(view, WAITING))
        printer.state(running(view, replace(WAITING, waiting_until="2000-01-01T00:00:09Z")))
        printer.state(running(view, Progress("migrate"), BreakerView()))
        printer.state(running(view, WAITING, BreakerView()))
    said = capsys.readouterr().out.splitlines()
    waits = "  A lock is held; next try now"
    breaker = "  The circuit breaker is open after 3 failures in a row (connection refused). One batch probes."
    assert said == ["migrate", waits, breaker, waits, waits]


def test_json_lines_tell_how_it_goes(view: RunView, capsys: pytest.CaptureFixture[str]) -> None:
    with Printer(lambda: view, json_lines=True) as printer:
        printer.state(view)
        printer.state(running(view, WAITING))
    lines: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ("batch_size", "workers", "waiting", "waiting_until")
    assert [lines[0][name] for name in names] == [None, None, "", None]
    assert [lines[1][name] for name in names] == [640, 2, "A lock is held.", "2000-01-01T00:00:00Z"]
    assert (lines[0]["breaker"], lines[1]["breaker"]["failures"]) == (None, 3)


def test_bars_name_workers_and_batches(
    view: RunView, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    tables = (TableProgress("users", 10, 10), TableProgress("files", 100, 40, rate=20.0))
    with Printer(lambda: view, json_lines=False) as printer:
        printer.state(running(view, replace(WAITING, tables=tables)))
        assert printer._bars is not None
        notes = [task.fields["note"] for task in printer._bars.tasks]
    assert notes == ["10 of 10 rows", "40 of 100 rows, 20 rows/s · 2 of 4 workers · 640 rows a batch"]
    assert "A lock is held; next try now" in capsys.readouterr().out
