"""The migrate phase shared out: many partitions, several workers, kills; the result depends on none of it."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Self

import psycopg
import pytest

from briefly_admin.domain.config import BatchSize
from briefly_admin.domain.errors import Fenced, RunFailed, Stopped
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState
from briefly_admin.engine import fence, migrate
from briefly_admin.engine.checkpoints import quarantine, set_aside
from briefly_admin.engine.context import QuarantinedRow, RunContext
from briefly_admin.engine.cutting import Cut
from briefly_admin.engine.sharing import PartitionWorker, help_out
from tests.engine.journal_memory import MemoryJournal
from tests.engine.test_migrate import LOUD, add_trigger, changed_rows, spoiled
from tests.engine.writing_bench import Bench, Rows, contents, fill, oracle, same

SMALL = Cut(smallest=10, largest=40)


class Crew:
    """Helpers of one attempt, each in a thread of its own, with its own sessions."""

    def __init__(self, context: RunContext, workers: int) -> None:
        self.failures: list[Exception] = []
        self.done: dict[str, int] = {}
        self._over = threading.Event()
        journals = [MemoryJournal(context.journal.record, context.attempt, worker=f"test:{n}")  # type: ignore[attr-defined]
                    for n in range(2, workers + 1)]  # fmt: skip
        self._contexts = [
            replace(context, journal=journal, random=random.Random(1), should_stop=self._stop) for journal in journals
        ]
        self._threads = [threading.Thread(target=self._work, args=(each,)) for each in self._contexts]

    def _stop(self) -> str | None:
        return "interrupt" if self._over.is_set() else None

    def _work(self, context: RunContext) -> None:
        name = context.journal.partitions.worker
        while not self._over.is_set():
            try:
                self.done[name] = self.done.get(name, 0) + help_out(context, {migrate.STEP.name: migrate.STEP})
            except (Stopped, Fenced):
                return
            except Exception as error:  # noqa: BLE001 - collected and shown
                self.failures.append(error)
                return

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def killing(superuser_dsn: str, seed: int) -> Iterator[list[int]]:
    """Ends a random one of the backends that hold a partition, again and again; how many were ended so far."""
    stop, chance, kills = threading.Event(), random.Random(seed), [0]

    def kill() -> None:
        with psycopg.connect(superuser_dsn, autocommit=True) as connection:
            while not stop.wait(chance.uniform(0.01, 0.05) * (1 + kills[0] / 4) if kills[0] else 0.002):
                kills[0] += connection.execute(
                    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity a "
                    "WHERE EXISTS (SELECT FROM briefly_migration.checkpoint c WHERE c.backend_pid = a.pid AND "
                    "c.backend_start = a.backend_start AND c.partition >= 0) ORDER BY random() LIMIT 1) AS one"
                ).fetchone()[0]  # type: ignore[index]  # an aggregate always gives a row

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield kills
    finally:
        stop.set()
        thread.join()


def shared_run(
    bench: Bench, workers: int, *, batch_size: BatchSize = 7, cut: Cut = SMALL, killer_dsn: str = "", **extra: Any
) -> dict[str, Any]:
    """A whole migrate phase by so many workers; their backends are ended where a superuser's connection is given."""
    context = bench.context(batch_size=batch_size, workers=workers, retry_delay=1, max_retries=10, **extra)
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    try:
        with contextlib.ExitStack() as stack:
            kills = stack.enter_context(killing(killer_dsn, workers)) if killer_dsn else [0]
            crew = stack.enter_context(Crew(context, workers))
            result = migrate.run(context, cut)
        assert not crew.failures
        assert bool(killer_dsn) is bool(kills[0])
        return result
    finally:
        lead.release()


def comparable(bench: Bench) -> list[tuple[Any, ...]]:
    rows = bench.record.quarantine.values()
    return sorted((r.table, r.key, r.cause, r.sqlstate, r.constraint, r.message) for r in rows)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("batch_size", "kills"), [(1, True), (7, False), (7, True), (100, True), ("auto", True)])
def test_the_result_does_not_depend_on_how(
    target_database: str, superuser_database: Callable[[str], str], workers: int, batch_size: BatchSize, kills: bool
) -> None:
    before = fill(target_database, 5, chunks=400)
    add_trigger(target_database, LOUD)
    bad = spoiled(before)
    assert bad
    bench = Bench(target_database)
    killer = superuser_database(target_database) if kills else ""
    result = shared_run(bench, workers, batch_size=batch_size, on_invalid="skip", killer_dsn=killer)
    expected = oracle(before)
    pairs = zip(before['us "ers" 100%s'], expected['us "ers" 100%s'], strict=True)
    expected['us "ers" 100%s'] = [old if old[0] in bad else new for old, new in pairs]
    assert same(contents(target_database), expected)
    message = "RaiseException, SQLSTATE P0001"
    assert comparable(bench) == sorted(('us "ers" 100%s', (str(n),), "trigger", "P0001", None, message) for n in bad)
    changed = {t: sum(a != b for a, b in zip(before[t], expected[t], strict=True)) for t in before}
    assert result == {
        "tables": [
            {"table": t, "looked": len(before[t]), "changed": changed[t], "skipped": len(bad) if "ers" in t else 0}
            for t in ('us "ers" 100%s', "files", "chu%nks")
        ],
        "looked": 500, "changed": sum(changed.values()), "skipped": len(bad),
    }  # fmt: skip


def test_several_workers_share_one_table_and_its_groups(target_database: str) -> None:
    before = fill(target_database, files=5, chunks=900)
    bench = Bench(target_database)
    result = shared_run(bench, 4, batch_size=10, cut=Cut(smallest=50, largest=100), pause=20)
    assert same(contents(target_database), oracle(before))
    assert result["changed"] == changed_rows(before)
    views = bench.record.partitions.steps["migrate"]
    assert len({row.view.worker for row in views}) > 1
    assert max(each.workers for each in bench.progress) > 1


def test_batches_that_meet_the_same_groups_do_not_undo_each_other(target_database: str) -> None:
    before = fill(target_database, files=150, chunks=2400)
    bench = Bench(target_database)
    with psycopg.connect(target_database) as connection:
        connection.execute('CREATE INDEX ON "chu%nks" (file_id)')
    shared_run(bench, 4, batch_size=60, cut=Cut(smallest=100, largest=600))
    assert same(contents(target_database), oracle(before))
    assert not [line for level, line, _ in bench.record.lines if level == "warning"]


def stopping_after(looks: int) -> Callable[[], str | None]:
    """Asks to pause at the look number `looks` + 1."""
    left = iter(range(looks))
    return lambda: None if next(left, None) is not None else "pause"


def test_a_later_attempt_goes_on_with_the_same_partitions(target_database: str) -> None:
    before = fill(target_database)
    bench = Bench(target_database)
    with pytest.raises(Stopped):
        shared_run(bench, 1, should_stop=stopping_after(60))
    rows = bench.record.partitions.steps["migrate"]
    ranges = [row.view.partition for row in rows]
    done = {(row.view.partition.table, row.view.partition.number): row.claim for row in rows
            if row.view.state is PartitionState.DONE}  # fmt: skip
    assert 0 < len(done) < len(rows)
    seen = bench.progress[-1].done
    reached = len(bench.progress)
    result = shared_run(bench, 2, cut=Cut(smallest=1, largest=1))
    rows = bench.record.partitions.steps["migrate"]
    assert [row.view.partition for row in rows] == ranges
    assert {place: next(r.claim for r in rows if (r.view.partition.table, r.view.partition.number) == place)
            for place in done} == done  # fmt: skip
    assert seen <= min(each.done for each in bench.progress[reached:])
    assert (result["looked"], result["changed"]) == (400, changed_rows(before))
    assert same(contents(target_database), oracle(before))


def test_the_target_says_what_is_done(target_database: str) -> None:
    """A worker that died between its last COMMIT and its report: nothing is done twice."""
    before = fill(target_database)
    bench = Bench(target_database)
    first = shared_run(bench, 1)
    for row in bench.record.partitions.steps["migrate"]:
        row.view = replace(row.view, state=PartitionState.WAITING, count=Count())
    with psycopg.connect(target_database) as connection:
        connection.execute('UPDATE "us ""ers"" 100%s" SET "ti er%" = NULL WHERE id = 0')
    assert shared_run(bench, 1) == first
    assert bench.progress[-1].done == 400
    assert not same(contents(target_database), oracle(before))


def opened(context: RunContext) -> tuple[contextlib.ExitStack, PartitionWorker, Claimed]:
    """A worker that has claimed the only partition of the users."""
    step = context.journal.partitions
    step.lay_out("migrate", [Partition('us "ers" 100%s', 0, {"after": None, "to": None})], {})
    stack = contextlib.ExitStack()
    work = stack.enter_context(migrate.STEP.open(context, {}))
    claimed = step.claim("migrate")
    assert claimed
    return stack, work, claimed


def test_a_worker_whose_claim_is_another_s_writes_nothing_more(target_database: str) -> None:
    fill(target_database)
    context = Bench(target_database).context(batch_size=5)
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    stack, work, claimed = opened(context)
    states: list[Rows] = []

    def note(_: Count) -> None:
        if not states:
            with psycopg.connect(target_database, autocommit=True) as other:
                other.execute("UPDATE briefly_migration.checkpoint SET claim = claim + 1")
        states.append(contents(target_database))

    with stack, pytest.raises(Fenced, match="Another worker has claimed"):
        work(claimed, note)
    lead.release()
    assert len(states) == 1
    assert same(states[0], contents(target_database))


def test_a_worker_that_was_silent_for_too_long_does_not_take_its_partition_back(target_database: str) -> None:
    """Its session was ended by the new holder; that is no reason to claim again."""
    fill(target_database)
    bench = Bench(target_database)
    context = bench.context(batch_size=5, retry_delay=0)
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    stack, work, claimed = opened(context)
    other = replace(context, journal=MemoryJournal(bench.record, context.attempt, worker="test:2"))
    taken: list[Claimed | None] = []

    def note(count: Count) -> None:
        if not taken:
            bench.record.partitions.expire("test:1")
            taken.append(other.journal.partitions.claim())
            with migrate.STEP.open(other, {}) as theirs:
                assert taken[0]
                theirs(taken[0], lambda _: None)
            return  # It learns of it only when its session fails.
        context.journal.partitions.note(claimed, count)

    with stack, pytest.raises(Fenced, match="Another worker holds"):
        work(claimed, note)
    lead.release()
    with psycopg.connect(target_database) as connection:
        claims = "SELECT claim, done FROM briefly_migration.checkpoint WHERE partition = 0"
        assert connection.execute(claims).fetchall() == [(2, True)]


def test_two_at_once_do_not_exceed_max_skipped(target_database: str) -> None:
    context = Bench(target_database).context()
    fence.take_over(context.target, context.run_id, context.attempt).release()
    failures: list[Exception] = []

    def add(key: str) -> None:
        try:
            with context.target.session() as connection, connection.transaction():
                quarantine(connection, context.run_id, [QuarantinedRow("t", (key,), "value", "x", None, None)], most=1)
        except RunFailed as error:
            failures.append(error)

    with context.target.session() as first, first.transaction():
        quarantine(first, context.run_id, [QuarantinedRow("t", ("1",), "value", "x", None, None)], most=1)
        second = threading.Thread(target=add, args=("2",))
        second.start()
        second.join(0.3)
        assert second.is_alive()
    second.join()
    assert len(failures) == 1
    assert "maxSkipped allows (1)" in str(failures[0])
    with context.target.session() as connection:
        assert set_aside(connection, context.run_id) == {"t": 1}
