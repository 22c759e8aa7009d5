import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from briefly_admin.domain.errors import BackupDamaged, BackupError, BackupExpired, BackupKeyMissing, Refused, Stopped
from briefly_admin.domain.manifest import table_hash
from briefly_admin.vault import layout
from briefly_admin.vault.copybinary import HEADER, TRAILER
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.seal import PREFIX_SIZE
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from briefly_admin.vault.verify import Damage, Level, objects_of, verify_objects
from tests.vault.sample_backups import (
    BACKUP_ID,
    KEYS,
    Sample,
    contents,
    copy_binary,
    copy_row,
    manifest_of,
    some_rows,
    table_of,
    without,
    write,
)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path / "store")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_backup_comes_back_byte_for_byte(sample: Sample) -> None:
    reader = sample.open()
    assert reader.manifest == sample.manifest
    assert list(contents(reader)) == [copy_binary(rows) for rows in sample.rows.values()]
    assert reader.verify() == reader.verify(Level.OBJECTS) == []
    assert files(sample.folder) == ["manifest.bma", "slots.json", "streams/1.bma", "streams/2.bma", "streams/3.bma"]


def test_all_master_keys_open(sample: Sample) -> None:
    keys = MasterKeys({"newer": bytes(32), **KEYS})
    assert Vault(sample.store, keys).open(BACKUP_ID, sample.shred_key, sample.sha256).verify() == []


def test_a_missing_or_wrong_key_is_named(sample: Sample) -> None:
    with pytest.raises(BackupKeyMissing, match="first"):
        Vault(sample.store, MasterKeys({"other": bytes(32)})).open(BACKUP_ID, sample.shred_key, sample.sha256)
    with pytest.raises(BackupKeyMissing, match="first"):
        Vault(sample.store, MasterKeys({"first": bytes(32)})).open(BACKUP_ID, sample.shred_key, sample.sha256)
    with pytest.raises(BackupKeyMissing):
        sample.vault.open(BACKUP_ID, bytes(32), sample.sha256)


@pytest.mark.parametrize("shred_key", [None, b""])
def test_a_shredded_backup_says_so(sample: Sample, shred_key: bytes | None) -> None:
    with pytest.raises(BackupExpired):
        sample.vault.open(BACKUP_ID, shred_key, sample.sha256)


def test_nothing_readable_is_in_the_store(sample: Sample) -> None:
    stored = b"".join(path.read_bytes() for path in sample.folder.rglob("*") if path.is_file())
    for secret in (b"public", b"unified", "ünïcode".encode(), KEYS["first"], sample.shred_key):
        assert secret not in stored


def test_a_swapped_or_replayed_manifest_is_refused(sample: Sample, tmp_path: Path) -> None:
    older = Sample(tmp_path / "older", seed=9)
    path = sample.folder / "manifest.bma"
    path.write_bytes((older.folder / "manifest.bma").read_bytes())
    with pytest.raises(BackupDamaged, match="swapped or replayed"):
        sample.open()


def test_a_whole_older_backup_under_the_same_id_is_refused(sample: Sample, tmp_path: Path) -> None:
    older = Sample(tmp_path / "older", seed=9)
    with pytest.raises(BackupDamaged, match="swapped or replayed"):
        older.vault.open(BACKUP_ID, older.shred_key, sample.sha256)


@pytest.mark.parametrize("name", ["manifest.bma", "slots.json"])
def test_a_missing_or_damaged_part_is_named(sample: Sample, name: str) -> None:
    path = sample.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    with pytest.raises(BackupDamaged, match=name.partition(".")[0]):
        sample.open()
    path.unlink()
    with pytest.raises(BackupDamaged, match=f"{name.partition('.')[0]}.* is missing"):
        sample.open()


def test_every_byte_of_the_slots_counts(sample: Sample) -> None:
    path = sample.folder / "slots.json"
    whole = path.read_bytes()
    for place in range(len(whole)):
        flip(path, place)
        with pytest.raises(BackupError):
            sample.open()
        path.write_bytes(whole)
    sample.open()


def test_all_damage_is_listed(sample: Sample) -> None:
    flip(sample.path(1), PREFIX_SIZE + 5)
    sample.path(2).unlink()
    sample.path(3).write_bytes(sample.path(3).read_bytes() + b"\0")
    reader = sample.open()
    assert reader.verify(Level.OBJECTS) == [
        Damage("public.users", 1, None, "is not what was sealed (its SHA-256 differs)"),
        Damage("public.users", 2, None, "is missing"),
        Damage("public.usage logs", 3, None, f"has more than its {sample.results[2].sealed_size} bytes"),
    ]
    found = reader.verify(Level.CONTENT)
    assert found[:2] == [
        Damage("public.users", 1, 0, "is not what was sealed"),
        Damage("public.users", 2, None, "is missing"),
    ]
    assert [(damage.table, damage.stream, damage.chunk) for damage in found[2:]] == [("public.usage logs", 3, 0)]
    assert str(found[0]) == "public.users, stream 1, chunk 0: is not what was sealed"


def test_every_damaged_chunk_of_a_stream_is_listed(tmp_path: Path) -> None:
    vault = Vault(DirectoryStore(tmp_path), KEYS)
    writer = vault.begin(BACKUP_ID)
    rows = [(number.to_bytes(16, "big"), random.Random(number).randbytes(300_000), None) for number in range(14)]
    result = write(writer, 1, rows)
    sha256 = writer.finish(manifest_of([table_of("users", [result])]))
    path = tmp_path / str(BACKUP_ID) / "streams" / "1.bma"
    for index in (1, 3):
        flip(path, PREFIX_SIZE + index * ((1 << 20) + 16) + 7)
    reader = vault.open(BACKUP_ID, writer.shred_key, sha256)
    assert [(damage.stream, damage.chunk) for damage in reader.verify()] == [(1, 1), (1, 3)]
    with pytest.raises(BackupDamaged, match="stream 1: chunk 1 is not what was sealed"):
        list(contents(reader))


def test_objects_can_be_verified_without_a_key(sample: Sample) -> None:
    objects = objects_of(sample.manifest)
    assert verify_objects(sample.store, objects) == []
    sample.path(2).write_bytes(sample.path(2).read_bytes()[:-1])
    size = sample.results[1].sealed_size
    assert verify_objects(sample.store, objects) == [
        Damage("public.users", 2, None, f"has {size - 1} bytes instead of {size}")
    ]


def test_a_stream_of_the_same_backup_cannot_stand_for_another(sample: Sample) -> None:
    sample.path(1).write_bytes(sample.path(2).read_bytes())
    reader = sample.open()
    with pytest.raises(BackupDamaged, match=r"stream 1.*another stream"):
        list(contents(reader))
    assert [damage.stream for damage in reader.verify()] == [1]


def test_an_earlier_try_of_the_same_stream_is_not_taken_for_it(sample: Sample, tmp_path: Path) -> None:
    vault = Vault(DirectoryStore(tmp_path / "again"), KEYS)
    writer = vault.begin(BACKUP_ID)
    early = tmp_path / "again" / str(BACKUP_ID) / "streams" / "1.bma"
    write(writer, 1, some_rows(50, 10))
    replayed = early.read_bytes()
    early.unlink()
    result = write(writer, 1, some_rows(51, 10))
    sha256 = writer.finish(manifest_of([table_of("users", [result])]))
    early.write_bytes(replayed)
    reader = vault.open(BACKUP_ID, writer.shred_key, sha256)
    assert [damage.stream for damage in reader.verify()] == [1]
    with pytest.raises(BackupDamaged, match=r"manifest (says|describes)"):
        list(contents(reader))


def test_a_manifest_that_does_not_fit_the_rows_is_seen(tmp_path: Path) -> None:
    vault = Vault(DirectoryStore(tmp_path), KEYS)
    writer = vault.begin(BACKUP_ID)
    results = [write(writer, number, some_rows(number, 10)) for number in (1, 2)]
    users = table_of("users", results)
    first, second = users.streams
    wrong = (replace(first, rows=9), replace(second, rows=11))
    sha256 = writer.finish(
        manifest_of([replace(users, streams=wrong, digest=replace(users.digest, words=(1, 2, 3, 4)))])
    )
    found = vault.open(BACKUP_ID, writer.shred_key, sha256).verify()
    assert [damage.what for damage in found[:2]] == ["has 10 rows instead of 9", "has 10 rows instead of 11"]
    assert "row digest" in found[2].what


@pytest.mark.parametrize("stops_after", [0, 3])
def test_verification_stops_when_asked_and_tells_its_progress(sample: Sample, stops_after: int) -> None:
    seen: list[tuple[int, int]] = []
    sample.open().verify(progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (sample.manifest.sealed_size, sample.manifest.sealed_size)
    asked = iter([None] * stops_after + ["interrupt"])
    with pytest.raises(Stopped, match="interrupt"):
        sample.open().verify(should_stop=lambda: next(asked))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (HEADER, "before its trailer"),
        (b"", "before its trailer"),
        (HEADER + copy_row([b"a", b"b"]) + TRAILER, "2 fields instead of 3"),
        (HEADER + TRAILER + b"\0", "follow the trailer"),
        (b"ERROR: something", "signature"),
    ],
)
def test_what_is_no_copy_stream_is_not_written(tmp_path: Path, data: bytes, what: str) -> None:
    writer = Vault(DirectoryStore(tmp_path), KEYS).begin(BACKUP_ID)
    with pytest.raises(BackupDamaged, match=what):
        writer.write_table_stream(1, [data], columns=3)
    assert files(tmp_path) == [f"{BACKUP_ID}/slots.json"]


def test_a_broken_source_leaves_nothing_and_the_number_is_free_again(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield copy_binary(some_rows(1, 2000))[:-2]
        raise ConnectionResetError

    writer = Vault(DirectoryStore(tmp_path), KEYS).begin(BACKUP_ID)
    with pytest.raises(ConnectionResetError):
        writer.write_table_stream(1, broken(), columns=3, key=[0])
    assert files(tmp_path) == [f"{BACKUP_ID}/slots.json"]
    assert write(writer, 1, some_rows(1, 3)).rows == 3
    with pytest.raises(Refused, match="already holds"):
        write(writer, 1, some_rows(1, 3))


def test_an_id_is_used_once(sample: Sample) -> None:
    with pytest.raises(Refused):
        sample.vault.begin(BACKUP_ID)


def test_aborting_deletes_everything(tmp_path: Path) -> None:
    writer = Vault(DirectoryStore(tmp_path), KEYS).begin(BACKUP_ID)
    write(writer, 1, some_rows(1, 3))
    writer.abort()
    writer.abort()
    assert files(tmp_path) == []
    with pytest.raises(Refused, match="given up"):
        write(writer, 2, some_rows(1, 3))


def test_a_finished_backup_takes_no_more(tmp_path: Path) -> None:
    writer = Vault(DirectoryStore(tmp_path), KEYS).begin(BACKUP_ID)
    manifest = manifest_of([])
    writer.finish(manifest)
    for again in (lambda: write(writer, 1, []), lambda: writer.finish(manifest)):
        with pytest.raises(Refused):
            again()


def test_a_manifest_never_names_a_stream_that_the_store_lacks(tmp_path: Path) -> None:
    writer = Vault(DirectoryStore(tmp_path), KEYS).begin(BACKUP_ID)
    users = table_of("users", [write(writer, 1, some_rows(1, 3))])
    (stream,) = users.streams
    cases = [replace(stream, number=2), replace(stream, sealed_size=stream.sealed_size + 1)]
    for wrong in cases:
        with pytest.raises(BackupDamaged, match=r"cannot be finished: .*streams/"):
            writer.finish(manifest_of([replace(users, streams=(wrong,), hash=table_hash([wrong]))]))
    with pytest.raises(ValueError, match="another backup"):
        writer.finish(manifest_of([users], uuid4()))
    writer.finish(manifest_of([users]))


def test_destroying_deletes_the_slots_first(sample: Sample) -> None:
    deleted: list[str] = []

    class Noting(DirectoryStore):
        def delete(self, key: str) -> None:
            deleted.append(key)
            super().delete(key)

    vault = Vault(Noting(sample.root), KEYS)
    vault.destroy(BACKUP_ID)
    assert deleted[:2] == [layout.slots_key(BACKUP_ID), layout.manifest_key(BACKUP_ID)]
    assert files(sample.root) == []
    vault.destroy(BACKUP_ID)


def test_destroying_one_leaves_the_others(sample: Sample) -> None:
    other = Sample(sample.root, backup_id=UUID(int=5), seed=3)
    sample.vault.destroy(BACKUP_ID)
    assert other.open().verify() == []


def test_orphans_are_swept_and_nothing_else(sample: Sample) -> None:
    orphan, running = UUID(int=1), UUID(int=2)
    for backup_id in (orphan, running):
        write(sample.vault.begin(backup_id), 1, some_rows(1, 3))
    sample.store.put("notes/readme", [b"not ours"])
    assert sample.vault.sweep_orphans(lambda: None) == []
    assert sample.vault.sweep_orphans(lambda: {running}) == [orphan]
    assert sample.vault.sweep_orphans(lambda: {running}) == []
    assert sample.open().verify() == []
    assert [name.split("/")[0] for name in files(sample.root) if str(BACKUP_ID) not in name] == [str(running)] * 2 + [
        "notes"
    ]


def test_digests_and_buckets_come_with_a_stream(sample: Sample) -> None:
    for result, rows in zip(sample.results, sample.rows.values(), strict=True):
        assert result.buckets
        assert result.buckets.total() == result.digest
        assert result.rows == len(rows) == result.digest.count


def test_without_a_key_there_are_no_buckets(tmp_path: Path) -> None:
    writer = Vault(DirectoryStore(tmp_path), KEYS).begin(BACKUP_ID)
    rows = some_rows(2, 20)
    bare = writer.write_table_stream(1, [copy_binary(rows)], columns=3)
    assert bare.buckets is None
    assert bare.digest == write(writer, 2, rows).digest


def test_an_empty_table_is_backed_up(tmp_path: Path) -> None:
    vault = Vault(DirectoryStore(tmp_path), KEYS)
    writer = vault.begin(BACKUP_ID)
    sha256 = writer.finish(manifest_of([table_of("users", [write(writer, 1, [])]), table_of("none", [])]))
    reader = vault.open(BACKUP_ID, writer.shred_key, sha256)
    assert reader.verify() == []
    assert list(contents(reader)) == [HEADER + TRAILER]
    assert without(reader.manifest, "users").rows == 0


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    noise = random.Random(1)

    def rows(count: int) -> Iterator[bytes]:
        yield HEADER
        for _ in range(count):
            yield copy_row([noise.randbytes(16), noise.randbytes(6000), None])
        yield TRAILER

    vault = Vault(DirectoryStore(tmp_path), KEYS)

    def peak(count: int) -> int:
        writer = vault.begin(backup_id := uuid4())
        tracemalloc.start()
        result = writer.write_table_stream(1, rows(count), columns=3, key=[0])
        sha256 = writer.finish(manifest_of([table_of("users", [result])], backup_id))
        assert vault.open(backup_id, writer.shred_key, sha256).verify() == []
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # How many chunks are under way at once depends on the moment; what grows with the table grows every time.
    small = max(peak(4000), peak(4000))
    large = peak(16_000)
    for _ in range(2):
        large = large if large < small * 1.25 else min(large, peak(16_000))
    assert large < small * 1.25  # four times the data; the rest is buckets that fill
    assert large < 20 << 20


def mutations(dice: random.Random, sample: Sample, other: bytes) -> dict[str, Callable[[bytes], bytes]]:
    def cut(data: bytes) -> tuple[int, int]:
        a, b = sorted(dice.randrange(len(data) + 1) for _ in range(2))
        return a, b

    def at(change: Callable[[bytes, int, int], bytes]) -> Callable[[bytes], bytes]:
        return lambda data: change(data, *cut(data))

    return {
        "flip": at(
            lambda d, a, _: d[:a] + bytes([d[a] ^ (1 << dice.randrange(8))]) + d[a + 1 :] if a < len(d) else d[1:]
        ),
        "cut": at(lambda d, a, _: d[:a]),
        "drop": at(lambda d, a, b: d[:a] + d[b:]),
        "repeat": at(lambda d, a, b: d[:b] + d[a:]),
        "swap": at(lambda d, a, b: d[:a] + d[b:] + d[a:b]),
        "splice": at(lambda d, a, b: d[:a] + other[a:b] + d[b:]),
        "insert": at(lambda d, a, _: d[:a] + dice.randbytes(1 + dice.randrange(20)) + d[a:]),
        "replay": lambda _: other,
    }


def test_no_mutation_of_a_store_is_missed(sample: Sample, tmp_path: Path) -> None:
    dice = random.Random(20251122)
    twin = Sample(tmp_path / "twin", seed=2)
    names = [path for path in sorted(sample.folder.rglob("*")) if path.is_file() and path.name != "slots.json"]
    missed = []
    for trial in range(1500):
        path = dice.choice(names)
        whole = path.read_bytes()
        other = (twin.folder / path.relative_to(sample.folder)).read_bytes()
        how, change = dice.choice(list(mutations(dice, sample, other).items()))
        changed = change(whole)
        if changed == whole:
            continue
        path.write_bytes(changed)
        try:
            if not sample.open().verify():
                missed.append((trial, how, path.name))
        except BackupError:
            pass
        path.write_bytes(whole)
    assert missed == []
    assert sample.open().verify() == []


def test_a_part_that_was_blown_up_is_not_read_whole(sample: Sample) -> None:
    with (sample.folder / "slots.json").open("ab") as file:
        file.truncate(1 << 33)
    tracemalloc.start()
    with pytest.raises(BackupDamaged, match="larger than it can be"):
        sample.open()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20
