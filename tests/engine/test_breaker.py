"""A worker's dealings with the circuit breaker: who waits, who probes, what counts, and what it costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors, sql

from briefly_admin.domain.breaker import BreakerState, BreakerView
from briefly_admin.domain.errors import Fenced, RunFailed, Stopped, Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.engine import fence, migrate
from briefly_admin.engine.breaker import PROBE_LEASE, PROBE_ROWS
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.retry import Patience, patiently
from tests.engine.breaker_memory import BreakerRecord, MemoryBreaker
from tests.engine.journal_memory import MemoryJournal, RunRecord
from tests.engine.writing_bench import Bench, contents, fill, oracle, same

LOST = psycopg.OperationalError("connection lost")


@dataclass
class Watch:
    """Time that passes only where somebody sleeps, and everything that was announced."""

    record: RunRecord = field(default_factory=RunRecord)
    seconds: float = 1000.0
    said: list[tuple[str, str]] = field(default_factory=list)
    stop_after: float = float("inf")

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.record.breaker.skip += seconds
        assert self.seconds < 100_000, "nobody lets it go on"
        if self.seconds > self.stop_after:
            raise Stopped("pause")

    def announce(self, text: str, until: str = "") -> None:
        self.said.append((text, until))

    def context(self, **config: Any) -> RunContext:
        wanted: dict[str, Any] = {"max_retries": 10, "retry_delay": 1000} | config
        bench = Bench("postgresql://nobody@/none?host=/nonexistent", record=self.record)
        return bench.context(sleep=self.sleep, monotonic=lambda: self.seconds, **wanted)

    def worker(self, context: RunContext, name: str = "test:1") -> Patience:
        journal = MemoryJournal(self.record, context.attempt, worker=name)
        return Patience(replace(context, journal=journal), "A batch of t", self.announce)

    @property
    def breaker(self) -> BreakerRecord:
        return self.record.breaker

    @property
    def lines(self) -> list[str]:
        return [message for _, message, _ in self.record.lines]


def _fails(patience: Patience, times: int = 1) -> None:
    for _ in range(times):
        patience.failed(LOST)


def test_two_workers_failures_add_up_and_the_one_that_is_awake_probes() -> None:
    watch = Watch()
    context = watch.context()
    a, b = watch.worker(context, "a:1"), watch.worker(context, "b:1")
    _fails(a)
    _fails(b)
    assert watch.breaker.view.state is BreakerState.CLOSED
    assert a.admit() is None
    watch.said.clear()
    _fails(a)
    assert a.admit() == PROBE_ROWS
    waited = [(text, until) for text, until in watch.said if "circuit breaker" in text]
    for text, until in waited:
        assert text.startswith(
            "The circuit breaker is open after 3 failures in a row (connection lost). One batch probes at "
        )
        assert f"{datetime.fromisoformat(until):%H:%M:%S} UTC." in text
    assert any("The circuit breaker is open after 3 failures" in line for line in watch.lines)
    assert watch.breaker.view.worker == "a:1"


def test_conflicts_never_open_it() -> None:
    watch = Watch()
    patience = watch.worker(watch.context())
    for error in (errors.LockNotAvailable(), errors.DeadlockDetected(), errors.QueryCanceled()) * 3:
        patience.failed(error)
    assert watch.breaker.view == BreakerView()
    assert patience.admit() is None


def test_a_success_of_another_worker_ends_the_row() -> None:
    watch = Watch()
    context = watch.context()
    a, b = watch.worker(context, "a:1"), watch.worker(context, "b:1")
    _fails(a, 2)
    assert b.admit() is None
    b.succeeded()
    _fails(a, 2)
    assert watch.breaker.view.state is BreakerState.CLOSED


def test_waiting_uses_up_no_try_and_a_failed_probe_does() -> None:
    watch = Watch()
    context = watch.context(max_retries=3)
    mine, others = watch.worker(context, "a:1"), watch.worker(context, "b:1")
    _fails(others, 3)
    assert others.admit() == PROBE_ROWS
    # b:1 dies: a:1 waits for the whole lease, then it probes, as often as its own tries allow.
    begun = watch.seconds
    assert mine.admit() == PROBE_ROWS
    assert watch.seconds - begun >= PROBE_LEASE - 1
    for expected in (4, 5, 6):
        _fails(mine)
        assert watch.breaker.view.failures == expected
        assert mine.admit() == PROBE_ROWS
    with pytest.raises(Unavailable, match="failed 4 times in a row; the last failure: connection lost"):
        mine.failed(LOST)
    assert watch.breaker.view.state is BreakerState.OPEN


def test_each_failed_probe_makes_all_wait_longer() -> None:
    watch = Watch()
    patience = watch.worker(watch.context(retry_delay=8000))
    _fails(patience, 3)
    waits = []
    for _ in range(4):
        failures = watch.breaker.view.failures
        begun = watch.seconds
        _fails(patience)
        assert watch.breaker.view.failures == failures + 1
        waits.append(watch.seconds - begun)
    assert waits[0] < waits[-1] <= 61


def test_a_probe_that_succeeds_lets_all_go_on() -> None:
    watch = Watch()
    context = watch.context()
    a, b = watch.worker(context, "a:1"), watch.worker(context, "b:1")
    _fails(a, 3)
    assert a.admit() == PROBE_ROWS
    a.succeeded()
    assert watch.breaker.view == BreakerView()
    assert (a.admit(), b.admit()) == (None, None)
    assert watch.lines[-1] == "The circuit breaker is closed again: a batch went through."
    assert watch.said[-1] == ("", "")


def test_others_say_who_probes() -> None:
    watch = Watch()
    context = watch.context()
    a, b = watch.worker(context, "a:1"), watch.worker(context, "b:1")
    _fails(a, 3)
    watch.said.clear()
    watch.stop_after = watch.seconds + 1
    with pytest.raises(Stopped):
        b.admit()
    told = "The circuit breaker is open after 3 failures in a row (connection lost). One batch probes now (a:1)."
    assert watch.said[0] == (told, "")


def test_a_conflict_while_probing_neither_closes_nor_loses_the_probe() -> None:
    watch = Watch()
    context = watch.context()
    patience = watch.worker(context, "a:1")
    _fails(patience, 3)
    patience.failed(errors.LockNotAvailable())
    assert (watch.breaker.view.state, watch.breaker.view.failures) == (BreakerState.HALF_OPEN, 3)
    assert patience.admit() == PROBE_ROWS
    patience.succeeded()
    assert watch.breaker.view.state is BreakerState.CLOSED


def test_conflicts_beyond_max_retries_still_fail() -> None:
    watch = Watch()
    patience = watch.worker(watch.context(max_retries=1))
    patience.failed(errors.LockNotAvailable())
    with pytest.raises(RunFailed):
        patience.failed(errors.LockNotAvailable())


def test_a_stop_ends_the_waiting() -> None:
    watch = Watch()
    context = watch.context(retry_delay=60_000)
    a, b = watch.worker(context, "a:1"), watch.worker(context, "b:1")
    _fails(a, 2)
    # It is open for 45 s at least.
    watch.stop_after = watch.seconds + 40
    with pytest.raises(Stopped):
        _fails(a)
    watch.stop_after = watch.seconds + 1
    with pytest.raises(Stopped):
        b.admit()
    assert watch.breaker.view.failures == 3


def test_a_run_that_is_resumed_begins_closed() -> None:
    watch = Watch()
    old = watch.worker(watch.context(max_retries=2))
    with pytest.raises(Unavailable):
        _fails(old, 3)
    assert watch.breaker.view.state is BreakerState.OPEN
    new = watch.worker(watch.context())
    assert new.admit() is None
    for wrong in (old.admit, old.succeeded, lambda: old.failed(LOST)):
        with pytest.raises(Fenced):
            wrong()
    assert watch.breaker.view == BreakerView()


def test_pieces_of_work_that_succeed_at_last_leave_nothing_behind() -> None:
    watch = Watch()
    context = watch.context()
    for _ in range(4):
        tries = iter([LOST, LOST, None])

        def work(tries: Iterator[Exception | None] = tries) -> int:
            if error := next(tries):
                raise error
            return 7

        assert patiently(context, "The phase t", watch.announce, work) == 7
    assert watch.breaker.view == BreakerView()


def test_while_all_is_well_it_costs_a_look_a_second_and_no_write(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(MemoryBreaker, name)

        def call(*args: Any, **named: Any) -> Any:
            asked.append(name)
            return real(*args, **named)

        return call

    for name in ("look", "succeeded", "failed", "try_probe"):
        monkeypatch.setattr(MemoryBreaker, name, watched(name))
    watch = Watch()
    patience = watch.worker(watch.context())
    for _ in range(1000):
        assert patience.admit() is None
        patience.succeeded()
        watch.sleep(0.01)
    assert set(asked) == {"look"}
    assert 9 <= len(asked) <= 12


@contextmanager
def _no_entry(superuser_dsn: str) -> Iterator[Callable[[bool], None]]:
    """A way to shut the database and to open it again, as an outage would."""
    name = urlsplit(superuser_dsn).path[1:]
    with psycopg.connect(urlsplit(superuser_dsn)._replace(path="/postgres").geturl(), autocommit=True) as other:

        def shut(out: bool) -> None:
            allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
            other.execute(allow.format(sql.Identifier(name), sql.SQL("false" if out else "true")))
            if out:
                other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

        yield shut
        shut(False)


def test_a_migration_waits_out_an_outage_and_goes_on_with_a_small_batch(
    target_database: str, superuser_database: Callable[[str], str]
) -> None:
    before = fill(target_database)
    bench = Bench(target_database)
    seen: list[str] = []
    sizes: list[int] = []
    with _no_entry(superuser_database(target_database)) as shut:

        def report(progress: Progress) -> None:
            if progress.done and not seen:
                seen.append("shut")
                shut(True)
            if "circuit breaker is open" in progress.waiting and seen == ["shut"]:
                seen.append(progress.waiting)
                assert datetime.fromisoformat(progress.waiting_until)
                shut(False)
            if len(seen) > 1 and progress.batch_size:
                sizes.append(progress.batch_size)

        context = replace(bench.context(max_retries=5, batch_size=12, pause=30), report=report)
        lead = fence.take_over(context.target, context.run_id, context.attempt)
        try:
            migrate.run(context)
        finally:
            lead.release()
    assert len(seen) == 2
    assert "after 3 failures in a row" in seen[1]
    assert same(contents(target_database), oracle(before))
    assert bench.record.breaker.view.state is BreakerState.CLOSED
    assert PROBE_ROWS in sizes
    assert sizes[-1] == 12
