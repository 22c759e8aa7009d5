"""Staging by several workers: each stream once, whoever is killed, late, damaged or without the backup."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
import pytest

from briefly_admin.domain.errors import BackupDamaged, Fenced, Stopped, Unavailable
from briefly_admin.domain.partitions import PartitionState
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import loading, rollback, scratch, staging
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import help_out
from briefly_admin.engine.staged import create_staged
from briefly_admin.engine.target import Target
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import MemoryJournal
from tests.engine.sealed_target import KEYS, SealedTarget, plan_of

STEPS = {step.name: step for step in loading.STEPS}
_END = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'a helper'"
PATIENCE = 10.0


class Watched(DirectoryStore):
    """A store that calls `seen` with the number of a stream before it is read."""

    def __init__(self, root: Path, seen: Callable[[int], None]) -> None:
        super().__init__(root)
        self.seen = seen

    def open(self, key: str) -> BinaryIO:
        if "/streams/" in key:
            self.seen(int(key.rsplit("/", 1)[1].removesuffix(".bma")))
        return super().open(key)


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """Two tables of two streams each: 1 and 2, 3 and 4; the first of each holds a page."""
    sealed = SealedTarget(target_database, plan_of("users", "files"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE users (id int PRIMARY KEY, email text)", "CREATE TABLE files (id int PRIMARY KEY, pad text)",
        "INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 900) i",
        "INSERT INTO files SELECT i, repeat('x', i) FROM generate_series(1, 300) i",
    )  # fmt: skip
    sealed.back_up()
    return sealed


def watching(context: RunContext, sealed: SealedTarget, seen: Callable[[int], None], **changes: Any) -> RunContext:
    return replace(
        context, vault=Vault(Watched(sealed.root, seen), KEYS), sleep=lambda s: time.sleep(s / 10), **changes
    )


def helper(
    leader: RunContext, sealed: SealedTarget, name: str = "test:2", seen: Callable[[int], None] = lambda _: None,
    **changes: Any,
) -> RunContext:  # fmt: skip
    others = {sealed.migration.run_id: sealed.migration}
    journal = MemoryJournal(sealed.run, leader.attempt, others, worker=name)
    return watching(replace(leader, journal=journal, report=lambda _: None), sealed, seen, **changes)


@contextmanager
def helping(*contexts: RunContext) -> Iterator[list[BaseException]]:
    """Helpers at work; what ended them."""
    over, ends = threading.Event(), list[BaseException]()

    def help_(context: RunContext) -> None:
        try:
            while not over.is_set():
                help_out(context, STEPS)
        except BaseException as error:  # noqa: BLE001 - the test looks at whatever it was
            ends.append(error)

    threads = [threading.Thread(target=help_, args=(context,)) for context in contexts]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        over.set()
        for thread in threads:
            thread.join()


def whole(sealed: SealedTarget) -> bool:
    """One scratch schema stands, and its rows are those of the tables, once each."""
    [schema] = sealed.scratches()
    return all(
        sealed.query(f"SELECT * FROM {schema}.t{number} ORDER BY 1") == sealed.query(f"SELECT * FROM {name} ORDER BY 1")
        for number, name in enumerate(("users", "files"))
    )


def workers(sealed: SealedTarget) -> set[str]:
    return {row.view.worker for row in sealed.run.partitions.steps["stage"] if row.view.state is PartitionState.DONE}


def said(sealed: SealedTarget, words: str) -> bool:
    return any(words in line for _, line, _ in sealed.run.lines)


@pytest.mark.parametrize("kind", [RunKind.ROLLBACK, RunKind.PREVIEW])
def test_three_workers_stage_what_one_stages(sealed: SealedTarget, kind: RunKind) -> None:
    expected = rollback.run_phase(sealed.context(kind), Phase.STAGE)
    assert workers(sealed) == {"test:1"}
    meeting, met = threading.Barrier(3, timeout=PATIENCE), set[int]()

    def together(number: int) -> None:
        met.add(number)
        if number < 4:
            meeting.wait()  # passes only if three work at once

    context = watching(sealed.context(kind), sealed, together)
    with helping(*(helper(context, sealed, name, together) for name in ("test:2", "test:3"))) as ends:
        result = rollback.run_phase(context, Phase.STAGE)
    assert (result, ends, met) == (expected, [], {1, 2, 3, 4})
    assert workers(sealed) == {"test:1", "test:2", "test:3"}
    assert whole(sealed)
    assert max(progress.workers for progress in sealed.progress) >= 1
    assert [(t.table, t.total, t.done) for t in sealed.progress[-1].tables] == [
        ("users", 900, 900),
        ("files", 300, 300),
    ]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_helper_killed_within_its_stream(sealed: SealedTarget, retries: int) -> None:
    killed = threading.Event()

    def kill(_: int) -> None:
        if not killed.is_set():
            sealed.query(_END)
            killed.set()

    leader = watching(sealed.context(), sealed, lambda _: None if killed.wait(PATIENCE) else pytest.fail("no helper"))
    config = replace(leader.config, max_retries=retries)
    other = helper(leader, sealed, seen=kill, target=Target(sealed.dsn, "a helper"), read_config=lambda: config)
    with helping(other) as ends:
        rollback.run_phase(leader, Phase.STAGE)
    assert killed.is_set()
    assert ["leaves users to others" in str(error) for error in ends] == [True] * (retries == 0)
    assert whole(sealed)


def test_a_leader_killed_within_its_stream_goes_on(sealed: SealedTarget) -> None:
    seen = list[int]()

    def kill(number: int) -> None:
        seen.append(number)
        if seen == [1, 2]:
            sealed.query(_END)

    context = watching(sealed.context(), sealed, kill, target=Target(sealed.dsn, "a helper"))
    config = replace(context.config, max_retries=1)
    rollback.run_phase(replace(context, read_config=lambda: config), Phase.STAGE)
    assert seen == [1, 2, 2, 3, 4]
    assert whole(sealed)


def test_a_stream_that_was_committed_is_not_loaded_twice(sealed: SealedTarget) -> None:
    """Its worker never heard so, or could not say so: whoever comes next reads the note."""
    lost, seen = threading.Event(), list[int]()

    class Deaf(MemoryJournal):
        @property
        def partitions(self) -> Any:
            mine = super().partitions
            finish = mine.finish

            def lose(*what: Any) -> None:
                if lost.is_set():
                    finish(*what)
                else:
                    lost.set()
                    raise Unavailable("The answer was lost.")

            mine.finish = lose  # type: ignore[method-assign,assignment]
            return mine

    context = watching(sealed.context(), sealed, lambda n: seen.append(n) if lost.wait(PATIENCE) else None)
    other = helper(context, sealed, seen=seen.append)
    journal = Deaf(sealed.run, context.attempt, {sealed.migration.run_id: sealed.migration}, worker="test:2")
    with helping(replace(other, journal=journal)):
        rollback.run_phase(context, Phase.STAGE)
    assert sorted(seen) == [1, 2, 3, 4]
    assert whole(sealed)


def test_a_part_is_done_once(sealed: SealedTarget) -> None:
    context = sealed.context(RunKind.PREVIEW)
    with context.target.session(bulk=True) as one, context.target.session(bulk=True) as two:
        schema = scratch.create_scratch(one, context.run_id, context.attempt)
        assert scratch.once(one, schema, "a", lambda: {"by": 1}) == {"by": 1}
        assert scratch.once(two, schema, "a", lambda: {"by": 2}) == {"by": 1}
        with pytest.raises(ZeroDivisionError):
            scratch.once(one, schema, "b", lambda: {"by": 1 // 0})
        one.execute("BEGIN")
        one.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{schema} b",))
        assert scratch.once(two, schema, "b", lambda: {"by": 2}) == {"by": 2}
        with pytest.raises(psycopg.errors.AdminShutdown):
            one.execute("SELECT 1")


def test_damage_that_a_helper_finds_reaches_the_leader(sealed: SealedTarget) -> None:
    sealed.damage(3)
    seen, mine = threading.Event(), list[int]()

    def late(number: int) -> None:
        mine.append(number)
        assert seen.wait(PATIENCE)
        time.sleep(0.3)

    context = watching(sealed.context(), sealed, late)
    other = helper(context, sealed, seen=lambda number: seen.set() if number == 3 else None)
    before = sealed.dump()
    with helping(other), pytest.raises(BackupDamaged, match="stream 3") as caught:
        rollback.run_phase(context, Phase.STAGE)
    assert "stream 3" in caught.value.damages[0]
    assert 3 not in mine
    assert (sealed.scratches(), sealed.dump()) == ([], before)


@pytest.mark.parametrize("missing", ["all", "streams"])
def test_a_helper_whose_store_lacks_the_backup_leaves(sealed: SealedTarget, tmp_path: Path, missing: str) -> None:
    left, elsewhere = threading.Event(), tmp_path / "elsewhere"
    if missing == "streams":
        shutil.copytree(sealed.root, elsewhere)
        for stream in elsewhere.rglob("*.bma"):
            if stream.parent.name == "streams":
                stream.unlink()
    context = watching(sealed.context(), sealed, lambda _: None if left.wait(PATIENCE) else pytest.fail("it stayed"))
    other = replace(helper(context, sealed), vault=Vault(DirectoryStore(elsewhere), KEYS))
    with helping(other) as ends:
        thread = when(lambda: bool(ends), left.set)
        rollback.run_phase(context, Phase.STAGE)
        thread.join()
    assert ["leaves users to others" in str(error) for error in ends] == [True]
    assert workers(sealed) == {"test:1"}
    assert whole(sealed)


def when(true: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Acts in another thread as soon as it is true."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE
        while not true() and time.monotonic() < end:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


class Stuck:
    """A helper that hangs within a stream until it is let go; `met` is for the leader, who waits for that."""

    def __init__(self) -> None:
        self.hangs, self.go_on, self.let_go = threading.Event(), threading.Event(), False

    def __call__(self, _: int) -> None:
        if not self.hangs.is_set():
            self.hangs.set()
            self.let_go = self.go_on.wait(PATIENCE)

    def met(self, _: int) -> None:
        assert self.hangs.wait(PATIENCE)


def test_a_stop_leaves_nothing_though_a_helper_hangs(sealed: SealedTarget) -> None:
    stuck = Stuck()
    stopping = {"should_stop": lambda: "interrupt" if stuck.hangs.is_set() else None}
    context = watching(sealed.context(), sealed, stuck.met, **stopping)
    with helping(helper(context, sealed, seen=stuck, should_stop=lambda: None)):
        with pytest.raises(Stopped):
            rollback.run_phase(context, Phase.STAGE)
        assert sealed.scratches() == []
        stuck.go_on.set()
    assert stuck.let_go  # and did not give up by itself before
    assert sealed.scratches() == []


def test_a_zombie_holds_up_nobody(sealed: SealedTarget) -> None:
    stuck = Stuck()
    context = watching(sealed.context(), sealed, stuck.met)
    with helping(helper(context, sealed, seen=stuck)) as ends:
        thread = when(stuck.hangs.is_set, lambda: sealed.run.partitions.expire("test:2"))
        rollback.run_phase(context, Phase.STAGE)
        assert whole(sealed)
        thread.join()
        sealed.run.partitions.expired.clear()
        stuck.go_on.set()
    assert stuck.let_go
    assert all(isinstance(error, Fenced | Unavailable) for error in ends)
    assert whole(sealed)


def test_a_takeover_ends_an_older_attempts_helper(sealed: SealedTarget) -> None:
    stuck = Stuck()
    old = watching(
        sealed.context(), sealed, stuck.met,
        should_stop=lambda: "interrupt" if stuck.hangs.is_set() and not stuck.go_on.is_set() else None,
    )  # fmt: skip
    zombie = helper(old, sealed, seen=stuck, should_stop=lambda: None)
    with helping(zombie) as ends:
        with suppress(Stopped):
            staging.load(  # the leader dies without cleaning up
                old, Phase.STAGE, staging.open_backup(old), staging.open_backup(old).manifest.tables, _made(old)
            )
        new = sealed.context()
        rollback.run_phase(new, Phase.STAGE)
        stuck.go_on.set()
    assert stuck.let_go
    assert [isinstance(error, Fenced | Unavailable) for error in ends] == [True]
    assert sealed.scratches() == [scratch.scratch_schema(new.run_id, new.attempt)]
    assert whole(sealed)


def _made(context: RunContext) -> str:
    reader = staging.open_backup(context)
    with context.target.session(bulk=True) as connection:
        schema = scratch.create_scratch(connection, context.run_id, context.attempt)
        for table in reader.manifest.tables:
            create_staged(connection, reader.manifest, table, schema)
    return schema


def test_what_a_crash_emptied_is_staged_again(sealed: SealedTarget) -> None:
    """A crash empties all unlogged tables together."""
    crashed = list[bool]()

    def report(progress: Progress) -> None:
        if not crashed and progress.done == progress.total > 0:
            crashed.append(True)
            [schema] = sealed.scratches()
            sealed.execute(f"TRUNCATE {schema}.t0, {schema}.t1, {schema}.parts")

    rollback.run_phase(replace(sealed.context(), report=report), Phase.STAGE)
    assert crashed
    assert said(sealed, "PostgreSQL crashed and emptied the staged tables")
    assert whole(sealed)


def test_crashes_without_end_are_not_called_damage(sealed: SealedTarget) -> None:
    def report(progress: Progress) -> None:
        for schema in sealed.scratches() if progress.done == progress.total > 0 else ():
            sealed.execute(f"TRUNCATE {schema}.t0, {schema}.t1, {schema}.parts")

    with pytest.raises(Unavailable, match="crashed while the backup was being staged"):
        rollback.run_phase(replace(sealed.context(), report=report), Phase.STAGE)
    assert sealed.scratches() == []
