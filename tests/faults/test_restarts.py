"""Restarts, duplicates, zombies and people: one leader at a time, and each stop at a batch's end."""

import signal

from rq import Queue

from briefly_admin.domain.runs import RunState
from briefly_admin.jobs.connection import QUEUE, SERIALIZER, connect
from briefly_admin.jobs.job import LEAD, RunJob
from tests.faults.harness import ANA, Field, Undisturbed
from tests.faults.processes import alive, handles, until

_SECONDS = 10
"""How long a platform waits between SIGTERM and SIGKILL."""


def test_sigterm_ends_a_batch_and_the_next_worker_goes_on(field: Field, undisturbed: Undisturbed) -> None:
    for _ in range(3):
        field.worker()
    field.listening(3)
    run = field.migrate()
    for attempt, (place, to_all) in enumerate(zip(undisturbed.points(2, seed=3), (True, False), strict=True), 1):
        field.has_looked_at(run, place)
        worker = field.led(run)
        horse = worker.horse
        assert horse is not None
        worker.send(signal.SIGTERM, horse=to_all)
        worker.process.wait(_SECONDS)
        assert not alive(horse)
        view = field.view(run)
        assert (view.state, view.attempt) == (RunState.INTERRUPTED, attempt), field.said()
        assert place <= field.looked(run) < undisturbed.migrate["looked"]
        assert field.services.sweeping.sweep() == [run.id]
    assert field.ends(run).attempt == 3
    undisturbed.require_same(field, run)


def ready(pid: int) -> None:
    until(lambda: handles(pid, signal.SIGTERM), what="a handler of SIGTERM")


def gone(pid: int) -> None:
    until(lambda: not alive(pid), seconds=_SECONDS, what=f"the end of process {pid}")


def test_an_idle_worker_and_the_clock_leave_at_once(field: Field) -> None:
    both = [field.worker(), field.clock()]
    for each in both:
        ready(each.pid)
        each.send(signal.SIGTERM)
    for each in both:
        assert each.process.wait(_SECONDS) == 0, field.said()


def test_a_run_delivered_five_times_is_led_once(field: Field, undisturbed: Undisturbed) -> None:
    field.use(LEASE_SECONDS="30")
    field.worker()
    field.worker()
    field.listening(2)
    run = field.migrate()
    with connect(field.environ["REDIS_URL"], timeout=2) as client:
        queue = Queue(QUEUE, connection=client, serializer=SERIALIZER, job_class=RunJob)
        for _ in range(4):
            queue.enqueue_call(LEAD, args=(run.id,), timeout=-1)
    view = field.ends(run)
    assert view.attempt == 1
    undisturbed.require_same(field, run)
    until(lambda: field.said().count("run not led") == 4, what="four jobs that leave the run alone")
    assert all(each.process.poll() is None for each in field.started)


def test_people_pause_resume_and_cancel_a_live_run(field: Field, undisturbed: Undisturbed) -> None:
    field.worker()
    field.listening(1)
    run, runs, rows = field.migrate(pause=30), field.services.runs, undisturbed.migrate["looked"]
    field.has_looked_at(run, rows // 5)
    assert runs.pause(ANA, run.id).state is RunState.PAUSING
    field.reaches(run, RunState.PAUSED)
    paused = field.looked(run)
    assert paused < rows
    assert runs.resume(ANA, run.id).state is RunState.PENDING
    field.reaches(run, RunState.RUNNING)
    field.has_looked_at(run, paused + 1)
    assert runs.cancel(ANA, run.id).state is RunState.CANCELLING
    assert field.reaches(run, RunState.CANCELLED).finished
    assert paused < field.looked(run) < rows
    assert runs.resume(ANA, run.id).state is RunState.PENDING
    field.reaches(run, RunState.RUNNING)
    runs.change(ANA, run.id, {"pause": 0})
    field.ends(run)
    undisturbed.require_same(field, run)
