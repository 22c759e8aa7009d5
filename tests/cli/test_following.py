"""Who leads a run that the command began, and what Ctrl-C does to it."""

import json
import signal
import subprocess
import time
from collections.abc import Callable

from briefly_admin.jobs.queue import RqQueue
from briefly_admin.jobs.worker import BrieflyWorker
from tests.cli.conftest import Command

Process = Callable[..., subprocess.Popen[str]]
Rows = dict[str, int]


def wait_until(what: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def status_of(command: Command, run: str) -> str:
    answer = command("status", run, "--json")
    return "" if answer.code else str(json.loads(answer.out)["status"])


def test_a_worker_leads_and_the_command_follows(
    sample_data: Rows, command: Command, process: Process, queue: RqQueue
) -> None:
    worker = process("worker")
    wait_until(queue.workers)
    answer = command("run", "--json")
    assert answer.code == 0, answer.err
    assert answer.lines[-1]["status"] == "completed"
    assert "worker" in command("audit", "list").out
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=20)
    assert queue.workers() == 0


def test_no_worker_and_no_redis_leads_here(sample_data: Rows, command: Command) -> None:
    answer = command("validate", REDIS_URL="redis://127.0.0.1:1")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("preflight\nvalidate\n")


def test_letting_go_of_a_queued_run_leaves_it_queued(
    sample_data: Rows, command: Command, process: Process, listening: BrieflyWorker
) -> None:
    follower = process("run")
    wait_until(lambda: status_of(command, "1") == "pending")
    assert follower.stdout is not None
    assert "Waiting for a worker; 1 listens" in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=20)
    assert follower.returncode == 130
    assert err == (
        "Let go of run 1; it goes on by itself. Look: briefly-admin status 1. "
        "Take it up here: briefly-admin resume 1.\n"
    )
    assert status_of(command, "1") == "pending"


def test_letting_go_of_a_run_led_here_interrupts_it_and_resume_takes_it_up(
    sample_data: Rows, command: Command, process: Process
) -> None:
    leader = process("run", "--json", "--set", "pause=50", "--set", "batchSize=3")
    assert leader.stdout is not None
    wait_until(lambda: json.loads(leader.stdout.readline())["phase"] == "migrate")  # type: ignore[union-attr] # looked at above
    leader.send_signal(signal.SIGINT)
    _, err = leader.communicate(timeout=20)
    assert leader.returncode == 130, err
    assert "Traceback" not in err
    assert "Let go of run 1; it goes on as soon as a worker listens." in err
    assert status_of(command, "1") == "interrupted"
    answer = command("resume", "1", "--json")
    assert answer.code == 0, answer.err
    assert (answer.lines[-1]["status"], answer.lines[-1]["records_processed"]) == ("completed", 139)


def test_run_goes_on_when_the_reader_goes_away(sample_data: Rows, command: Command, process: Process) -> None:
    leader = process("run", "--json")
    assert leader.stdout is not None
    leader.stdout.readline()
    leader.stdout.close()
    assert leader.wait(timeout=30) == 0
    assert leader.stderr is not None
    assert leader.stderr.read() == ""
    assert status_of(command, "1") == "completed"


def test_cancelled_while_followed_is_exit_1(
    sample_data: Rows, command: Command, process: Process, listening: BrieflyWorker
) -> None:
    follower = process("run")
    wait_until(lambda: status_of(command, "1") == "pending")
    assert command("cancel", "1").code == 0
    _, err = follower.communicate(timeout=20)
    assert follower.returncode == 1
    assert err.startswith("Cancelled by cli:")
