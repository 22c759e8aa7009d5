"""A backup written by several workers: resumed, claimed again, given up beneath a worker that writes on."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, BackupKeyMissing, Refused, Unavailable
from briefly_admin.vault import layout
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import BackupWriter, StreamResult, Vault
from briefly_admin.vault.verify import Verdict, judge
from tests.vault.sample_backups import BACKUP_ID, KEYS, Sample, copy_binary, manifest_of, some_rows, table_of

ROWS = some_rows(1, 200)


@pytest.fixture
def leader(tmp_path: Path) -> BackupWriter:
    return Vault(DirectoryStore(tmp_path), KEYS).begin(BACKUP_ID)


@pytest.fixture
def helper(leader: BackupWriter, tmp_path: Path) -> BackupWriter:
    """Another worker's writer of the same backup."""
    return Vault(DirectoryStore(tmp_path), KEYS).resume(BACKUP_ID, leader.shred_key)


def ensure(writer: BackupWriter, number: int = 1) -> StreamResult:
    return writer.ensure_table_stream(number, [copy_binary(ROWS)], columns=3, key=[0])


def test_streams_of_two_workers_make_one_backup(leader: BackupWriter, helper: BackupWriter, tmp_path: Path) -> None:
    results = [ensure(leader, 1), ensure(helper, 2)]
    sha256 = leader.finish(manifest_of([table_of("users", results)]))
    reader = Vault(DirectoryStore(tmp_path), KEYS).open(BACKUP_ID, leader.shred_key, sha256)
    assert reader.verify() == []


def test_a_stream_that_is_there_is_adopted_as_it_is(leader: BackupWriter, helper: BackupWriter, tmp_path: Path) -> None:
    first = ensure(helper)
    file = tmp_path / layout.stream_key(BACKUP_ID, 1)
    before = file.read_bytes()

    copied = iter([copy_binary(some_rows(2, 3))])
    assert leader.ensure_table_stream(1, copied, columns=3, key=[0]) == first
    assert next(copied, None) is not None
    assert file.read_bytes() == before


def test_a_worker_that_wakes_late_replaces_nothing(leader: BackupWriter, helper: BackupWriter, tmp_path: Path) -> None:
    """The zombie had begun when its partition was claimed again, and ends behind the other."""
    finished: list[StreamResult] = []

    def slow() -> Iterator[bytes]:
        data = copy_binary(ROWS)
        yield data[:100]
        finished.append(ensure(leader))
        yield data[100:]

    late = helper.ensure_table_stream(1, slow(), columns=3, key=[0])
    assert late == finished[0]
    sha256 = leader.finish(manifest_of([table_of("users", finished)]))
    reader = Vault(DirectoryStore(tmp_path), KEYS).open(BACKUP_ID, leader.shred_key, sha256)
    assert reader.verify() == []


def test_a_zombie_that_was_first_is_adopted_by_the_other(leader: BackupWriter, helper: BackupWriter) -> None:
    zombie: list[StreamResult] = []

    def overtaken() -> Iterator[bytes]:
        zombie.append(ensure(helper))
        yield copy_binary(ROWS)

    assert leader.ensure_table_stream(1, overtaken(), columns=3, key=[0]) == zombie[0]


def test_what_is_there_but_not_whole_is_not_adopted(leader: BackupWriter, helper: BackupWriter, tmp_path: Path) -> None:
    ensure(helper)
    file = tmp_path / layout.stream_key(BACKUP_ID, 1)
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(BackupDamaged, match="stream 1"):
        ensure(leader)


def test_a_stream_of_another_number_is_not_adopted(leader: BackupWriter, helper: BackupWriter, tmp_path: Path) -> None:
    ensure(helper, 2)
    (tmp_path / layout.stream_key(BACKUP_ID, 2)).rename(tmp_path / layout.stream_key(BACKUP_ID, 1))
    with pytest.raises(BackupDamaged, match="stream 1"):
        ensure(leader)


def test_nothing_is_left_when_a_backup_is_given_up_under_a_worker(
    leader: BackupWriter, helper: BackupWriter, tmp_path: Path
) -> None:
    def given_up() -> Iterator[bytes]:
        leader.abort()
        yield copy_binary(ROWS)

    with pytest.raises(Refused, match="given up"):
        helper.ensure_table_stream(1, given_up(), columns=3, key=[0])
    assert list(DirectoryStore(tmp_path).list()) == []
    with pytest.raises(Refused, match="given up"):
        ensure(helper, 2)


def test_a_store_that_lacks_the_backup_is_said(leader: BackupWriter, tmp_path: Path) -> None:
    elsewhere = Vault(DirectoryStore(tmp_path / "another disk"), KEYS)
    with pytest.raises(Unavailable, match="store of this worker does not hold") as caught:
        elsewhere.resume(BACKUP_ID, leader.shred_key)
    assert "BACKUP_STORE_URL" in caught.value.remedy


def test_another_key_resumes_nothing(leader: BackupWriter, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    with pytest.raises(BackupKeyMissing):
        Vault(store, MasterKeys({"other": bytes(32)})).resume(BACKUP_ID, leader.shred_key)
    with pytest.raises(BackupKeyMissing):
        Vault(store, KEYS).resume(BACKUP_ID, bytes(32))
    with pytest.raises(BackupExpired):
        Vault(store, KEYS).resume(BACKUP_ID, b"")
    with pytest.raises(Unavailable):
        Vault(store, KEYS).resume(uuid4(), leader.shred_key)


def test_verdicts_of_parts_are_the_verdict_of_the_whole(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    reader = sample.open()
    parts = [reader.verify_streams([number]) for number in (3, 1, 2)]
    assert judge(reader.manifest, parts) == reader.verify() == []
    missing = judge(reader.manifest, parts[:2])
    assert [damage.table for damage in missing] == ["public.users"]
    assert "row digest" in missing[0].what
    raw = bytearray(sample.path(2).read_bytes())
    raw[len(raw) // 2] ^= 1
    sample.path(2).write_bytes(raw)
    verdict = reader.verify_streams([2])
    assert judge(reader.manifest, [*parts[:2], verdict]) == reader.verify()
    assert [damage.stream for damage in verdict.damages] == [2]


def test_progress_of_a_part_is_in_its_own_bytes(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    seen: list[tuple[int, int]] = []
    sample.open().verify_streams([2], progress=lambda done, total: seen.append((done, total)))
    size = sample.results[1].sealed_size
    assert seen[-1] == (size, size)
    assert sample.open().verify_streams([]) == Verdict()
