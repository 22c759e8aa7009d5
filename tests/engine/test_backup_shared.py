"""The phase backup on several workers: one instant, the same backup as one worker writes, whoever dies on the way."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
import pytest

from briefly_admin.domain.digest import BucketDigests
from briefly_admin.domain.errors import BackupDamaged, Fenced, Refused, Stopped, Unavailable
from briefly_admin.domain.partitions import Count, PartitionState
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import backup, proving
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import help_out
from briefly_admin.engine.snapshot import join_snapshot, open_snapshot
from briefly_admin.engine.target import Target
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import MemoryJournal
from tests.engine.test_backup import KEYS, PLAN, Bench, make_tables, transfers

STEPS = {step.name: step for step in (backup.STEP, proving.PROOF)}
SMALL = 80_000
"""Bytes of a stream, so that there are many."""


class GatheringStore(DirectoryStore):
    """A store that lets nobody on with a stream before everybody has one, so that all get a part."""

    def __init__(self, root: Path, gathered: Callable[[], bool]) -> None:
        super().__init__(root)
        self._gathered = gathered

    def _wait(self, key: str) -> None:
        end = time.monotonic() + 10
        while "streams" in key and not self._gathered() and time.monotonic() < end:
            time.sleep(0.005)

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        self._wait(key)
        return super().put(key, chunks)

    def open(self, key: str) -> BinaryIO:
        self._wait(key)
        return super().open(key)


@pytest.fixture
def target(target_database: str) -> Target:
    make_tables(target_database)
    with psycopg.connect(target_database) as connection:
        connection.execute(
            "INSERT INTO accounts (balance, note) SELECT 100, repeat('y', i % 500) FROM generate_series(501, 3000) i"
        )
    return Target(target_database)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "backups"


class Company(Bench):
    """A leader, and helpers who come when it asks."""

    def __init__(self, target: Target, store: Path, *, helpers: int = 2, **extra: Any) -> None:
        super().__init__(target, store, **extra)
        self.vault = Vault(GatheringStore(store, self._gathered), KEYS)
        self.context = replace(self.context, vault=self.vault, ask_help=self._come)
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._help, args=(f"test:{n + 2}",)) for n in range(helpers)]
        self.errors: list[Exception] = []

    def _gathered(self) -> bool:
        rows = list(self.record.partitions.steps.values())[-1]
        here = {row.view.worker for row in rows if row.view.worker}
        return len(here) > len(self.threads) or all(row.view.state is not PartitionState.WAITING for row in rows)

    def helper(self, worker: str = "test:2") -> RunContext:
        journal = MemoryJournal(self.record, self.context.attempt, worker=worker)
        return replace(self.context, journal=journal, should_stop=lambda: "interrupt" if self.over.is_set() else None)

    def _come(self) -> None:
        for thread in self.threads:
            if thread.ident is None:
                thread.start()

    def _help(self, worker: str) -> None:
        try:
            while not self.over.is_set():
                help_out(self.helper(worker), STEPS)
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def take(self, stream_bytes: int = SMALL) -> dict[str, Any]:
        try:
            return backup.run(self.context, stream_bytes=stream_bytes, proof_bytes=stream_bytes // 20)
        finally:
            self.over.set()
            for thread in self.threads:
                if thread.ident is not None:
                    thread.join(timeout=20)

    def workers(self, step: str) -> set[str]:
        return {row.view.worker for row in self.record.partitions.steps[step]}

    def said(self) -> str:
        return "\n".join(line for _, line, _ in self.record.lines)


def left(helper: RunContext) -> str:
    """A worker that cannot help: why it leaves its partition to others."""
    with pytest.raises(Unavailable) as caught:
        help_out(helper, STEPS)
    return caught.value.message


def test_three_workers_write_the_backup_that_one_writes(target: Target, store: Path) -> None:
    alone, three = (Company(target, store, helpers=number, kind=RunKind.MIGRATION) for number in (0, 2))
    one, all_ = alone.take(), three.take()
    assert three.errors == []
    assert three.workers("backup") == three.workers("prove") == {"test:1", "test:2", "test:3"}
    assert len(three.record.partitions.steps["backup"]) > 10
    assert one["rows"] == all_["rows"] == 3002
    assert [(t["table"], t["digest"]) for t in one["tables"]] == [(t["table"], t["digest"]) for t in all_["tables"]]
    assert alone.record.baselines == three.record.baselines
    assert BucketDigests.from_bytes(three.record.baselines["accounts"]).total().count == 3000
    first, second = (bench.reader(result) for bench, result in ((alone, one), (three, all_)))
    assert second.verify() == []
    assert [[(s.number, s.rows, s.ctid_from, s.ctid_to, s.plaintext_sha256) for s in t.streams]
            for t in first.manifest.tables] == [
           [(s.number, s.rows, s.ctid_from, s.ctid_to, s.plaintext_sha256) for s in t.streams]
            for t in second.manifest.tables]  # fmt: skip
    assert max(progress.workers for progress in three.progress) > 1
    assert three.progress[-1].done == 3002
    assert "accounts: 3,000 rows sealed by test:1, test:2, test:3." in three.said()


def test_no_key_is_laid_down_with_the_partitions(target: Target, store: Path) -> None:
    bench = Company(target, store, helpers=1)
    result = bench.take()
    secret = bench.record.backups[UUID(result["backup_id"])]["shred_key"]
    rows = [row for rows in bench.record.partitions.steps.values() for row in rows]
    text = repr([(row.shared, row.view.partition.range, row.view.result) for row in rows])
    assert secret.hex() not in text
    assert set(rows[0].shared) == {"snapshot", "backup_id"}


def test_three_workers_read_one_instant_while_money_moves(target: Target, store: Path, target_database: str) -> None:
    stop = threading.Event()
    mover = threading.Thread(target=transfers, args=(target_database, stop))
    mover.start()
    try:
        for _ in range(5):
            bench = Company(target, store)
            reader = bench.reader(bench.take(5 * SMALL))
            assert len(bench.workers("backup")) == 3
            assert bench.restored(reader, target_database) == (300_000, 3000)
    finally:
        stop.set()
        mover.join()


def _claim(bench: Company, worker: str) -> Any:
    claimed = bench.helper(worker).journal.partitions.claim("backup")
    assert claimed is not None
    return claimed


def test_a_helper_that_dies_loses_its_stream_to_another(target: Target, store: Path) -> None:
    bench = Company(target, store, helpers=0)
    taken: list[Any] = []

    def die() -> None:
        if not taken:
            taken.append(_claim(bench, "dead:1"))
            bench.record.partitions.expire("dead:1")

    bench.context = replace(bench.context, ask_help=die)
    assert bench.take()["rows"] == 3002
    assert bench.workers("backup") == {"test:1"}
    with pytest.raises(Fenced):
        bench.helper("dead:1").journal.partitions.finish(taken[0], Count(), {})


def test_a_stream_that_a_dead_helper_had_put_is_adopted(target: Target, store: Path) -> None:
    """It put the stream and died before it could say so."""
    bench = Company(target, store, helpers=0)
    written: list[bytes] = []

    def die() -> None:
        if written:
            return
        context = bench.helper("dead:1")
        claimed = _claim(bench, "dead:1")
        with backup.STEP.open(context, claimed.shared) as work:
            work(claimed, lambda _: None)
        bench.record.partitions.expire("dead:1")
        (file,) = store.glob("*/streams/1.bma")
        written.append(file.read_bytes())

    bench.context = replace(bench.context, ask_help=die)
    result = bench.take()
    assert result["rows"] == 3002
    (file,) = store.glob("*/streams/1.bma")
    assert [file.read_bytes()] == written
    assert bench.reader(result).verify() == []


def test_a_zombie_that_puts_late_harms_nothing(target: Target, store: Path) -> None:
    """It wakes when the backup is proven, and ends its put, its finish: both are refused or change nothing."""
    bench = Company(target, store, helpers=0)
    asleep, wake = threading.Event(), threading.Event()
    outcome: list[str] = []

    def sleep_over(_: object) -> None:
        asleep.set()
        assert wake.wait(20)

    def zombie() -> None:
        context = bench.helper("zombie:1")
        claimed = _claim(bench, "zombie:1")
        with backup.STEP.open(context, claimed.shared) as work:
            count, found = work(claimed, sleep_over)
            try:
                context.journal.partitions.finish(claimed, count, found)
            except Fenced as error:
                outcome.append(error.code)

    thread = threading.Thread(target=zombie)

    def ask() -> None:
        if thread.ident is None:
            thread.start()
            assert asleep.wait(20)
            bench.record.partitions.expire("zombie:1")

    bench.context = replace(bench.context, ask_help=ask)
    result = bench.take()
    before = {path: path.read_bytes() for path in store.rglob("*.bma")}
    bench.over.clear()
    wake.set()
    thread.join()
    assert outcome == ["fenced"]
    assert {path: path.read_bytes() for path in store.rglob("*.bma")} == before
    assert bench.reader(result).verify() == []


def test_a_helper_that_does_not_see_the_store_leaves_and_says_so(target: Target, store: Path, tmp_path: Path) -> None:
    bench = Company(target, store, helpers=0)
    elsewhere = Vault(DirectoryStore(tmp_path / "another machine"), KEYS)
    said: list[str] = []

    def ask() -> None:
        if len(said) < 2:
            said.append(left(replace(bench.helper(), vault=elsewhere)))

    bench.context = replace(bench.context, ask_help=ask)
    assert bench.take()["rows"] == 3002
    assert "test:2 leaves accounts to others: The store of this worker does not hold" in said[0]
    assert "test:2 leaves all tables, read back to others" in said[1]


def test_a_snapshot_whose_leader_is_gone_cannot_be_joined(target: Target) -> None:
    with open_snapshot(target, PLAN) as snapshot:
        exported = snapshot.exported
        with join_snapshot(target, PLAN, exported) as joined:
            assert list(joined.tables) == list(snapshot.tables)
    for gone in (exported, "nonsense", "0000-0%'"):
        with pytest.raises(Unavailable, match="its leader is gone"), join_snapshot(target, PLAN, gone):
            pass


def test_a_joined_snapshot_sees_nothing_newer(target: Target, target_database: str) -> None:
    with open_snapshot(target, PLAN) as snapshot:
        with psycopg.connect(target_database) as connection:
            connection.execute("UPDATE accounts SET balance = 0")
        with join_snapshot(target, PLAN, snapshot.exported) as joined:
            row = joined.connection.execute("SELECT sum(balance) FROM public.accounts").fetchone()
            assert row == (300_000,)
            assert joined.tables["accounts"].columns == snapshot.tables["accounts"].columns


def test_a_helper_leaves_where_the_snapshot_is_lost(target: Target, store: Path) -> None:
    """The leader's session ended between the layout and the helper's coming: the backup fails, and nothing is left."""
    bench = Company(target, store, helpers=0)
    said: list[str] = []

    def ask() -> None:
        if not said:
            _end_snapshot(bench.context.target)
            said.append(left(bench.helper()))

    bench.context = replace(bench.context, ask_help=ask)
    with pytest.raises(Unavailable):
        bench.take()
    assert "its leader is gone" in said[0]
    assert bench.nothing_is_left()


def _end_snapshot(target: Target) -> None:
    with target.session() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND state = 'idle in transaction'"
        )


def test_nothing_is_left_by_a_helper_that_still_writes(target: Target, store: Path) -> None:
    """The leader gives the backup up while a helper is in the midst of a stream."""
    bench = Company(target, store, helpers=0)
    asleep, wake = threading.Event(), threading.Event()
    caught: list[Exception] = []

    def wait(_: object) -> None:
        asleep.set()
        assert wake.wait(20)

    def write() -> None:
        claimed = _claim(bench, "test:2")
        with backup.STEP.open(replace(bench.helper(), should_stop=lambda: None), claimed.shared) as work:
            try:
                work(claimed, wait)
            except Refused as error:
                caught.append(error)

    thread = threading.Thread(target=write)

    def ask() -> None:
        if thread.ident is None:
            thread.start()
            assert asleep.wait(20)

    stop = {"reason": None}

    def report(progress: Progress) -> None:
        stop["reason"] = "cancel" if progress.done else None  # type: ignore[assignment]

    bench.context = replace(
        bench.context, ask_help=ask, report=report, should_stop=lambda: stop["reason"], nap=lambda _: None,
        monotonic=iter(range(100_000)).__next__,
    )  # fmt: skip
    with pytest.raises(Stopped):
        bench.take()
    wake.set()
    thread.join()
    assert "given up" in str(caught[0])
    assert bench.nothing_is_left()
    context = bench.helper()
    claimed = bench.record.partitions.steps["backup"][-1]
    with pytest.raises(Exception, match="given up"), backup.STEP.open(context, claimed.shared):
        pass


def test_damage_found_by_a_helper_fails_the_backup(target: Target, store: Path) -> None:
    bench = Company(target, store, helpers=0)
    done: list[int] = []

    def ask() -> None:
        if "prove" not in bench.record.partitions.steps or done:
            return
        for file in store.glob("*/streams/*.bma"):
            raw = bytearray(file.read_bytes())
            raw[len(raw) // 2] ^= 1
            file.write_bytes(raw)
        bench.context = replace(bench.context, ask_help=lambda: None)
        done.append(help_out(replace(bench.helper(), sleep=lambda _: None), STEPS))

    bench.context = replace(bench.context, ask_help=ask)
    with pytest.raises(BackupDamaged, match="stream 1") as caught:
        bench.take()
    assert done[0] > 1
    assert len(caught.value.damages) == len(bench.record.partitions.steps["backup"])
    assert bench.nothing_is_left()
