"""The circuit breaker: one behaviour suite for the app database's and for the one that the engine's tests use."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text, update

from briefly_admin.domain.breaker import Breaker, BreakerState, BreakerView
from briefly_admin.domain.errors import Fenced, Unavailable
from briefly_admin.store import runs, tables
from briefly_admin.store.breaker import DatabaseBreaker
from briefly_admin.store.database import Database
from tests.engine.journal_memory import MemoryJournal, RunRecord


@dataclass
class Run:
    """A run, its breaker as any worker sees it, and ways to let time pass and to change the leader."""

    worker: Callable[[str], Breaker]
    pass_time: Callable[[float], None]
    next_attempt: Callable[[], object]


def _in_database(database: Database) -> Run:
    run_id = uuid4()
    values = {
        "id": run_id, "kind": "migration", "state": "running", "plan": "unified", "plan_fingerprint": "f",
        "target_id": "x", "target_title": "t", "config": {}, "created_by": "ana", "attempt": 1,
    }  # fmt: skip
    with database.begin() as connection:
        assert runs.begin(connection, values)

    def pass_time(seconds: float) -> None:
        with database.begin() as connection:
            earlier = tables.run.c.breaker_until - timedelta(seconds=seconds)
            connection.execute(update(tables.run).values(breaker_until=earlier))

    def next_attempt() -> None:
        with database.begin() as connection:
            connection.execute(update(tables.run).values(attempt=tables.run.c.attempt + 1))

    return Run(lambda name: DatabaseBreaker(database, run_id, 1, worker=name), pass_time, next_attempt)


def _in_memory() -> Run:
    record = RunRecord()
    record.next_attempt()

    def pass_time(seconds: float) -> None:
        record.breaker.skip += seconds

    return Run(lambda name: MemoryJournal(record, 1, worker=name).breaker, pass_time, record.next_attempt)


@pytest.fixture(params=["database", "memory"])
def run(request: pytest.FixtureRequest) -> Run:
    return _in_memory() if request.param == "memory" else _in_database(request.getfixturevalue("database"))


def _fail(breaker: Breaker, delay: float = 4.0) -> BreakerView | None:
    return breaker.failed("connection lost", delay=delay, jitter=1.0)


def _opened(run: Run, *, delay: float = 4.0) -> tuple[Breaker, Breaker]:
    """Two workers whose failures have opened it."""
    a, b = run.worker("a:1"), run.worker("b:1")
    for breaker in (a, b, a):
        _fail(breaker, delay)
    assert b.look().state is BreakerState.OPEN
    return a, b


def test_two_workers_failures_add_up_and_the_third_opens_it(run: Run) -> None:
    a, b = run.worker("a:1"), run.worker("b:1")
    first = _fail(a)
    assert first is not None
    assert (first.state, first.failures, first.why) == (BreakerState.CLOSED, 1, "connection lost")
    second = _fail(b)
    assert second is not None
    assert (second.state, second.failures, second.until) == (BreakerState.CLOSED, 2, None)
    third = _fail(a)
    assert third is not None
    assert (third.state, third.failures) == (BreakerState.OPEN, 3)
    assert third.until is not None
    assert 3 < third.seconds <= 4
    assert abs((third.until - datetime.now(UTC)).total_seconds() - third.seconds) < 1
    assert b.look().state is BreakerState.OPEN


def test_a_success_ends_the_row(run: Run) -> None:
    a, b = run.worker("a:1"), run.worker("b:1")
    assert not a.succeeded()
    _fail(a)
    _fail(a)
    assert b.succeeded()
    assert b.look() == BreakerView()
    _fail(a)
    _fail(a)
    assert a.look().state is BreakerState.CLOSED


def test_what_was_under_way_when_it_opened_changes_nothing(run: Run) -> None:
    a, b = _opened(run)
    assert _fail(b) is None
    assert not a.succeeded()
    view = a.look()
    assert (view.state, view.failures) == (BreakerState.OPEN, 3)


def test_nobody_probes_early_then_one_does_and_its_success_closes(run: Run) -> None:
    a, b = _opened(run)
    assert not a.try_probe(30)
    run.pass_time(4)
    assert b.try_probe(30)
    assert not a.try_probe(30)
    assert b.try_probe(30), "a probe of its own goes on"
    view = a.look()
    assert (view.state, view.worker) == (BreakerState.HALF_OPEN, "b:1")
    assert _fail(a) is None
    assert not a.succeeded()
    assert b.succeeded()
    assert a.look() == BreakerView()


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_minute(run: Run) -> None:
    a, b = _opened(run)
    for expected in (8, 16, 32, 60, 60):
        run.pass_time(60)
        assert b.try_probe(30)
        view = _fail(b)
        assert view is not None
        assert (view.state, view.worker) == (BreakerState.OPEN, "")
        assert expected - 1 < view.seconds <= expected
        assert not a.try_probe(30)


def test_it_stays_open_for_a_second_at_least(run: Run) -> None:
    a, _ = _opened(run, delay=0.0)
    assert 0.5 < a.look().seconds <= 1


def test_a_prober_that_died_is_replaced_after_its_lease(run: Run) -> None:
    a, b = _opened(run)
    run.pass_time(4)
    assert a.try_probe(30)
    run.pass_time(29)
    assert not b.try_probe(30)
    run.pass_time(1)
    assert b.try_probe(30)
    # The first one wakes: nothing that it says counts any more.
    assert not a.succeeded()
    assert _fail(a) is None
    assert b.look().worker == "b:1"
    assert b.succeeded()


def test_one_of_eight_threads_probes(run: Run) -> None:
    _opened(run)
    run.pass_time(4)
    barrier, won = threading.Barrier(8), list[str]()

    def try_it(name: str) -> None:
        breaker = run.worker(name)
        barrier.wait()
        if breaker.try_probe(30):
            won.append(name)

    threads = [threading.Thread(target=try_it, args=(f"w{n}:1",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert run.worker("c:1").look().worker == won[0]


def test_an_older_attempt_is_fenced_off(run: Run) -> None:
    a, _ = _opened(run)
    run.next_attempt()
    with pytest.raises(Fenced):
        a.look()
    with pytest.raises(Fenced):
        _fail(a)
    with pytest.raises(Fenced):
        a.succeeded()
    with pytest.raises(Fenced):
        a.try_probe(30)


def test_texts_that_postgresql_cannot_hold_are_no_trouble(database: Database) -> None:
    breaker = _in_database(database).worker("a:1")
    view = breaker.failed("x\0" + "y" * 10_000, delay=1, jitter=1)
    assert view is not None
    assert view.why.startswith("x\ufffdy")
    assert len(view.why) == 500


def test_a_lost_app_database_is_said_so(database: Database) -> None:
    breaker = _in_database(database).worker("a:1")
    lost = Database("postgresql://nobody@/none?host=/nonexistent")
    elsewhere = DatabaseBreaker(lost, uuid4(), 1, worker="a:1")
    with pytest.raises(Unavailable) as raised:
        _fail(elsewhere)
    assert Database.was_lost(raised.value)
    lost.close()
    assert breaker.look() == BreakerView()


def test_a_run_that_people_resume_begins_closed(database: Database) -> None:
    run = _in_database(database)
    _opened(run)
    with database.begin() as connection:
        connection.execute(text("UPDATE briefly_admin.run SET state = 'pending'"))
        run_id = connection.execute(tables.run.select()).one().id
        row = runs.claim(connection, run_id, leader="c:1", lease=timedelta(seconds=30))
    assert row is not None
    view = DatabaseBreaker(database, run_id, row.attempt, worker="c:1").look()
    assert (view.state, view.failures) == (BreakerState.CLOSED, 0)
