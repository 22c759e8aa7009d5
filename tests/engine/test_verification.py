"""The verification of a backup: both levels, all damage, by all workers; and what is no damage."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
import pytest

from briefly_admin.domain.errors import (
    BackupDamaged,
    BackupExpired,
    BackupKeyMissing,
    NotFound,
    Refused,
    Stopped,
    Unavailable,
)
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import backup, helping, pipeline, verification
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import MemoryJournal, RunRecord
from tests.engine.test_backup import KEYS, Bench, make_tables

SMALL = 20_000
"""Bytes of a stream, and of a part of a verification, so that there are many."""


class Backup:
    """A backup of many streams, and verifications of it: runs of their own, which need no target."""

    def __init__(self, dsn: str, root: Path) -> None:
        make_tables(dsn)
        with psycopg.connect(dsn) as connection:
            connection.execute("INSERT INTO accounts (balance) SELECT 100 FROM generate_series(501, 3000) i")
        self.root = root
        self.bench = Bench(Target(dsn), root)
        self.id = UUID(backup.run(self.bench.context, stream_bytes=SMALL)["backup_id"])
        self.run = RunRecord()

    def context(self, level: str = "L1", **changes: Any) -> RunContext:
        journal = self.run.next_attempt({self.bench.record.run_id: self.bench.record})
        options = {"backup_id": str(self.id), "backup_name": "backup_1", "level": level}
        context = replace(
            self.bench.context, run_id=self.run.run_id, attempt=journal.attempt, kind=RunKind.VERIFICATION,
            target=Target("host=/nowhere"), journal=journal, options=options, sleep=lambda _: None,
        )  # fmt: skip
        return replace(context, **changes)

    def verify(self, level: str = "L1", **changes: Any) -> dict[str, Any]:
        return verification.run(self.context(level, **changes), part_bytes=2000)

    def damages(self, level: str) -> set[str]:
        """What a verification found; the journal has it as well."""
        with pytest.raises(BackupDamaged) as caught:
            self.verify(level)
        assert self.recorded["state"] == "damaged"
        assert self.recorded["proofs"][-1]["damages"] == list(caught.value.damages)
        return set(caught.value.damages)

    @property
    def recorded(self) -> dict[str, Any]:
        return self.bench.record.backups[self.id]

    def file(self, number: int) -> Path:
        return self.root / str(self.id) / "streams" / f"{number}.bma"

    def flip(self, path: Path, place: int = -1) -> None:
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        self.write(path, bytes(data))

    @staticmethod
    def write(path: Path, data: bytes) -> None:
        path.chmod(0o600)
        path.write_bytes(data)


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> Backup:
    return Backup(target_database, tmp_path / "backups")


@pytest.mark.parametrize(("level", "rows"), [("L0", 0), ("L1", 3002)])
def test_a_whole_backup_is_whole(sealed: Backup, level: str, rows: int) -> None:
    result = sealed.verify(level)
    assert (result["level"], result["rows"], result["damages"], result["damage_count"]) == (level, rows, [], 0)
    assert result["bytes"] >= sum(path.stat().st_size for path in sealed.root.rglob("streams/*.bma"))
    [proof] = sealed.recorded["proofs"]
    assert (proof["level"], proof["damages"], proof["rows"], proof["place"]) == (level, [], rows, "the store")
    assert proof["seconds"] >= 0
    assert sealed.bench.progress[-1].phase == Phase.VERIFY
    [shown] = sealed.bench.progress[-1].tables
    assert shown.done == shown.total > 0


def test_the_pipeline_leads_it_without_a_target(sealed: Backup) -> None:
    report = pipeline.lead(sealed.context("L0"))
    assert report["verify"]["level"] == "L0"
    assert sealed.run.phases == {Phase.VERIFY: "done"}


def test_all_damage_is_listed_at_both_levels(sealed: Backup) -> None:
    """One of each kind, in streams of their own."""
    assert len(list(sealed.root.rglob("*.bma"))) > 7
    sealed.flip(sealed.file(1))
    sealed.file(2).unlink()
    sealed.write(sealed.file(3), sealed.file(3).read_bytes()[:-1])
    sealed.write(sealed.file(4), sealed.file(4).read_bytes() + b"x")
    five, six = sealed.file(5).read_bytes(), sealed.file(6).read_bytes()
    sealed.write(sealed.file(5), six)
    sealed.write(sealed.file(6), five)
    for level in ("L0", "L1"):
        found = sealed.damages(level)
        assert {line.split(": ")[0].split(", chunk")[0] for line in found} == {
            f"public.accounts, stream {number}" for number in range(1, 7)
        }
        assert "public.accounts, stream 2: is missing" in found
    errors = [line for level, line, _ in sealed.run.lines if level == "error"]
    assert len(errors) >= 12


@pytest.mark.parametrize("level", ["L0", "L1"])
@pytest.mark.parametrize("name", ["manifest.bma", "slots.json"])
def test_a_missing_manifest_or_slots_do_not_hide_damaged_streams(sealed: Backup, name: str, level: str) -> None:
    (sealed.root / str(sealed.id) / name).unlink()
    sealed.flip(sealed.file(2))
    assert sealed.damages(level) == {
        f"{name}: is missing",
        "public.accounts, stream 2: is not what was sealed (its SHA-256 differs)",
    }


def test_a_changed_manifest_and_unreadable_slots_are_damage(sealed: Backup) -> None:
    manifest = sealed.root / str(sealed.id) / "manifest.bma"
    kept = manifest.read_bytes()
    sealed.flip(manifest)
    for level in ("L0", "L1"):
        assert sealed.damages(level) == {"manifest.bma: is not what was sealed (its SHA-256 differs)"}
    sealed.write(manifest, kept)
    sealed.write(sealed.root / str(sealed.id) / "slots.json", b"{}")
    [found] = sealed.damages("L1")
    assert found.startswith("slots.json")


def test_rotated_slots_are_no_damage(sealed: Backup) -> None:
    both = MasterKeys({"k2": bytes(range(32)), **KEYS})
    vault = Vault(DirectoryStore(sealed.root), both)
    assert vault.rotate(sealed.id, sealed.recorded["shred_key"])
    sealed.verify("L0")
    sealed.verify("L1", vault=vault)
    with pytest.raises(BackupKeyMissing, match="k2"):
        sealed.verify("L1")


def test_a_missing_key_is_no_damage_and_none_is_needed_for_l0(sealed: Backup) -> None:
    other = Vault(DirectoryStore(sealed.root), MasterKeys({"k9": bytes(32)}))
    with pytest.raises(BackupKeyMissing, match="k1"):
        sealed.verify(vault=other)
    assert (sealed.recorded["state"], "proofs" in sealed.recorded) == ("proven", False)
    assert sealed.verify("L0", vault=other)["level"] == "L0"


def test_what_nobody_can_verify_says_so(sealed: Backup) -> None:
    sealed.recorded["objects"] = []
    with pytest.raises(Refused, match="did not record"):
        sealed.verify("L0")
    (sealed.root / str(sealed.id) / "manifest.bma").unlink()
    assert sealed.damages("L1") == {"the manifest is missing"}
    sealed.recorded["shred_key"] = None
    with pytest.raises(BackupExpired):
        sealed.verify("L1")
    sealed.id = UUID(int=1)
    with pytest.raises(NotFound):
        sealed.verify("L0")


class Watched(DirectoryStore):
    """A store that calls `seen` before a stream is read."""

    def __init__(self, root: Path, seen: Callable[[], None]) -> None:
        super().__init__(root)
        self._seen = seen

    def open(self, key: str) -> BinaryIO:
        if "/streams/" in key:
            self._seen()
        return super().open(key)


@pytest.mark.parametrize("level", ["L0", "L1"])
def test_a_disk_that_is_lost_on_the_way_is_no_damage(sealed: Backup, level: str) -> None:
    reads = iter(range(1000))

    def lose() -> None:
        if next(reads) == 3:
            sealed.root.rename(sealed.root.with_name("elsewhere"))

    with pytest.raises(Unavailable, match="nothing at all"):
        sealed.verify(level, vault=Vault(Watched(sealed.root, lose), KEYS))
    assert (sealed.recorded["state"], "proofs" in sealed.recorded) == ("proven", False)


@pytest.mark.parametrize("level", ["L0", "L1"])
def test_what_was_missing_for_a_moment_is_no_damage(sealed: Backup, level: str) -> None:
    reads, away = iter(range(1000)), sealed.root.with_name("elsewhere")

    def blink() -> None:
        number = next(reads)
        if number == 2:
            sealed.file(3).rename(away)
        if number == 4:
            away.rename(sealed.file(3))

    with pytest.raises(Unavailable, match="are there again"):
        sealed.verify(level, vault=Vault(Watched(sealed.root, blink), KEYS))
    assert sealed.recorded["state"] == "proven"


class Blinking(DirectoryStore):
    """A store that does not find one object, the first time."""

    def __init__(self, root: Path, name: str) -> None:
        super().__init__(root)
        self._lost = name

    def open(self, key: str) -> BinaryIO:
        if self._lost and key.endswith(self._lost):
            self._lost = ""
            raise NotFound(f"The store does not hold {key}.")
        return super().open(key)


@pytest.mark.parametrize("name", ["manifest.bma", "slots.json"])
def test_a_manifest_that_was_missing_for_a_moment_is_no_damage(sealed: Backup, name: str) -> None:
    for level in ("L0", "L1"):
        with pytest.raises(Unavailable, match="there again"):
            sealed.verify(level, vault=Vault(Blinking(sealed.root, name), KEYS))
    assert (sealed.recorded["state"], "proofs" in sealed.recorded) == ("proven", False)


class Refusing(DirectoryStore):
    """A store that answers nothing but errors."""

    def open(self, key: str) -> BinaryIO:
        raise Unavailable(f"The store does not give {key}.")


def test_a_store_that_does_not_answer_is_no_damage(sealed: Backup) -> None:
    for level in ("L0", "L1"):
        with pytest.raises(Unavailable):
            sealed.verify(level, vault=Vault(Refusing(sealed.root), KEYS))
    assert sealed.recorded["state"] == "proven"


@pytest.mark.parametrize("level", ["L0", "L1"])
def test_a_stop_is_heard_and_proves_nothing(sealed: Backup, level: str) -> None:
    looks = iter(range(1000))
    with pytest.raises(Stopped):
        sealed.verify(level, should_stop=lambda: "pause" if next(looks) > 6 else None)
    assert "proofs" not in sealed.recorded
    assert sealed.verify(level)["damage_count"] == 0


@contextmanager
def helping_with(sealed: Backup, vault: Vault) -> Iterator[tuple[RunContext, list[Exception]]]:
    """A leader's context, and a helper at work beside it."""
    context, over, ends = sealed.context(sleep=lambda s: time.sleep(s / 20)), threading.Event(), list[Exception]()
    journal = MemoryJournal(sealed.run, context.attempt, {sealed.bench.record.run_id: sealed.bench.record}, "test:2")
    helper = replace(context, journal=journal, vault=vault, report=lambda _: None)

    def help_() -> None:
        try:
            while not over.is_set():
                helping.assist(helper)
        except Exception as error:  # noqa: BLE001 - the test looks at whatever it was
            ends.append(error)

    thread = threading.Thread(target=help_)
    thread.start()
    try:
        yield context, ends
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(("level", "step"), [("L0", "verify-objects"), ("L1", "verify-content")])
def test_helpers_take_their_part(sealed: Backup, level: str, step: str) -> None:
    sealed.flip(sealed.file(2))
    meeting = threading.Barrier(2, timeout=10)
    met: list[str] = []

    def together() -> None:
        if threading.current_thread().name not in met:
            met.append(threading.current_thread().name)
            meeting.wait()  # passes only if two work at once

    vault = Vault(Watched(sealed.root, together), KEYS)
    with helping_with(sealed, vault) as (context, ends), pytest.raises(BackupDamaged) as caught:
        verification.run(replace(context, vault=vault, options={**context.options, "level": level}), part_bytes=2000)
    assert {line.split(", chunk")[0].split(": ")[0] for line in caught.value.damages} == {"public.accounts, stream 2"}
    assert {row.view.worker for row in sealed.run.partitions.steps[step]} == {"test:1", "test:2"}
    assert ends == []


@pytest.mark.parametrize("level", ["L0", "L1"])
def test_a_helper_with_another_store_leaves(sealed: Backup, tmp_path: Path, level: str) -> None:
    (tmp_path / "other").mkdir()
    with helping_with(sealed, Vault(DirectoryStore(tmp_path / "other"), KEYS)) as (context, ends):
        slow = replace(context, vault=Vault(Watched(sealed.root, lambda: time.sleep(0.05)), KEYS))
        result = verification.run(replace(slow, options={**context.options, "level": level}), part_bytes=2000)
    assert result["damage_count"] == 0
    assert all("to others" in str(end) for end in ends)
    assert ends


def test_a_whole_backup_after_a_damaged_one_is_proven_again(sealed: Backup) -> None:
    copy = sealed.root.with_name("copy")
    shutil.copytree(sealed.root, copy)
    sealed.file(1).unlink()
    sealed.damages("L1")
    sealed.verify(vault=Vault(DirectoryStore(copy), KEYS))
    assert sealed.recorded["state"] == "proven"
