"""Pause, resume, cancel and change by command: in which state, with which exit code, and what status tells."""

import json

import psycopg
import pytest

from briefly_admin.domain.runs import RunState
from briefly_admin.jobs.worker import BrieflyWorker
from briefly_admin.plans import plan
from tests.cli.conftest import Command
from tests.steered import RESULTS, cases, put

MORE = {"change": ("--set", "batchSize=auto", "--set", "workers=4")}


@pytest.fixture
def started(command: Command, listening: BrieflyWorker) -> None:
    """Run 1, which a worker would take if it took any."""
    assert listening
    assert command("run", "--no-wait").code == 0


@pytest.mark.usefixtures("started")
def test_each_action_in_each_state(command: Command, app_database: str) -> None:
    for action, state, result in cases():
        put(app_database, state)
        answer = command(action, "1", *MORE.get(action, ()))
        if result:
            assert answer.code == 0, (action, state, answer.err)
        else:
            assert answer.code == 4, (action, state, answer.out)
            assert answer.is_one_line(f"Run 1 is {state.value}: {action} is not possible")
        now = json.loads(command("status", "1", "--json").out)
        assert now["status"] == (result or state).value
        assert now["config"]["batchSize"] == ("auto" if result and action == "change" else 100)


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "batchSize=Auto"), 'batchSize: Must be an integer from 1 to 10,000, or "auto".'),
        (("--set", "workers=auto"), "workers: Must be an integer from 1 to 64."),
        (("--set", "maxRetries=1"), "maxRetries cannot be changed once a run has begun."),
        (("--config", '{"nonsense": 1}'), "nonsense: Unknown field"),
        ((), "There is nothing to change; what can be changed: batchSize, workers, pause."),
    ],
)
def test_what_cannot_be_changed_is_wrong_usage(
    command: Command, app_database: str, words: tuple[str, ...], said: str
) -> None:
    put(app_database, RunState.RUNNING)
    answer = command("change", "1", *words)
    assert answer.code == 2
    assert answer.is_one_line(said)


@pytest.mark.usefixtures("started")
def test_a_run_whose_plan_has_changed_does_not_go_on(command: Command, app_database: str) -> None:
    for state in RESULTS["resume"]:
        put(app_database, state, plan_fingerprint="0123456789ab" + "c" * 52)
        answer = command("resume", "1")
        assert answer.code == 4
        assert answer.is_one_line("0123456789ab…", plan("unified").fingerprint[:12], "start a new one")
        assert json.loads(command("status", "1", "--json").out)["status"] == state.value


@pytest.mark.usefixtures("started")
def test_status_tells_how_a_live_run_goes(command: Command, app_database: str) -> None:
    assert "a batch" not in command("status", "1").out
    progress = {"phase": "migrate", "waiting": "A lock is held.", "waiting_until": "2100-03-01T12:00:12Z",
                "batch_size": 640, "workers": 2}  # fmt: skip
    put(app_database, RunState.RUNNING, progress=progress, breaker_state="open", breaker_failures=3,
        breaker_why="connection refused", breaker_until="2026-03-01T12:03:20Z")  # fmt: skip
    with psycopg.connect(app_database) as connection:
        connection.execute("""UPDATE briefly_admin.run SET config = config || '{"workers": 4}'""")
    lines = command("status", "1").out.splitlines()
    assert lines[1] == "Migrating: A lock is held."
    assert lines[2].startswith("Waiting: next try in ")
    assert lines[3] == "At work: 2 of 4 workers · 640 rows a batch."
    assert lines[4].startswith("The circuit breaker is open after 3 failures in a row (connection refused). One batch")
    assert "12:03:20 UTC" in lines[4]
    told = json.loads(command("status", "1", "--json").out)
    assert (told["batch_size"], told["workers"], told["waiting_until"]) == (640, 2, "2100-03-01T12:00:12Z")
    assert told["breaker"]["why"] == "connection refused"
