"""Hostile stores: endless, changing, swapped, replayed, listing what is not theirs. An error, and nothing worse."""

import base64
import io
import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from briefly_admin.domain.errors import BackupDamaged, BackupError, BackupKeyMissing, BrieflyError
from briefly_admin.vault import layout
from briefly_admin.vault.keys import MAX_SLOTS_SIZE
from briefly_admin.vault.vault import Vault
from briefly_admin.vault.verify import Level
from tests.vault.hostile import Dripping, Forger, HostileStore, Repeating, bounded
from tests.vault.sample_backups import BACKUP_ID, KEYS, Sample, contents

OTHER_ID = UUID(int=77)
SLOTS, MANIFEST = layout.slots_key(BACKUP_ID), layout.manifest_key(BACKUP_ID)
STREAM = layout.stream_key(BACKUP_ID, 1)


@pytest.fixture
def forger(tmp_path: Path) -> Forger:
    return Forger(tmp_path / "store")


@pytest.fixture
def other(forger: Forger) -> Sample:
    """Another backup in the same store, of the same target and keys."""
    return Sample(forger.store.root, backup_id=OTHER_ID, seed=5)


# Endless objects


@pytest.mark.parametrize("key", [SLOTS, MANIFEST])
@pytest.mark.parametrize("whole", [True, False])
def test_small_objects_that_never_end_are_given_up(forger: Forger, key: str, *, whole: bool) -> None:
    forger.store.opened[key] = lambda _, truth: Repeating(truth if whole else b"")
    with bounded(), pytest.raises(BackupDamaged, match="larger than it can be"):
        forger.open()


@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_that_never_ends_is_damage_at_every_level(forger: Forger, *, whole: bool) -> None:
    reader = forger.open()
    forger.store.opened[STREAM] = lambda _, truth: Repeating(truth if whole else b"")
    for level in Level:
        with bounded():
            (damage,) = reader.verify(level)
        assert damage.stream == 1
    with bounded(), pytest.raises(BackupDamaged, match="stream 1"):
        list(contents(reader))


def test_a_worker_that_adopts_an_endless_stream_gives_up(forger: Forger) -> None:
    writer = forger.vault.resume(BACKUP_ID, forger.sample.shred_key)
    for begin in (b"", forger.sample.path(1).read_bytes()):
        forger.store.opened[STREAM] = lambda _, _truth, begin=begin: Repeating(begin)  # type: ignore[misc]
        with bounded(), pytest.raises(BackupDamaged):
            writer.ensure_table_stream(1, [], columns=3, key=[0])


def test_a_store_that_gives_a_byte_at_a_time_is_read_all_the_same(forger: Forger) -> None:
    for key in (SLOTS, MANIFEST, STREAM):
        forger.store.opened[key] = lambda _, truth: Dripping(truth)
    with bounded():
        assert forger.open().verify() == []


# Objects that change


def test_an_object_that_changes_between_two_openings_is_damage(forger: Forger, other: Sample) -> None:
    """What was proven is not what is restored: each reading authenticates again."""
    theirs = other.path(1).read_bytes()
    forger.store.opened[STREAM] = lambda before, truth: io.BytesIO(theirs if before else truth)
    reader = forger.open()
    assert reader.verify() == []
    with pytest.raises(BackupDamaged, match="stream 1"):
        list(contents(reader))


def test_an_object_that_changes_between_size_and_open_is_damage(forger: Forger) -> None:
    class Shrinking(HostileStore):
        def size(self, key: str) -> int:
            found = super().size(key)
            if key == STREAM:
                (self.root / key).write_bytes((self.root / key).read_bytes()[:-1])
            return found

    sample = Sample(forger.store.root / "second")
    store = Shrinking(sample.root)
    vault = Vault(store, KEYS)
    assert store.size(STREAM) == sample.manifest.streams[0].sealed_size
    damages = vault.open(BACKUP_ID, sample.shred_key, sample.sha256).verify()
    assert [damage.stream for damage in damages] == [1]


def test_an_object_that_changes_between_two_reads_is_damage(forger: Forger) -> None:
    class Turning(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.reads += 1
            data = super().read(min(size or 0, 64))
            return data if self.reads < 2 else bytes(len(data))

    for key in (SLOTS, MANIFEST, STREAM):
        forger.store.opened = {key: lambda _, truth: Turning(truth)}
        with pytest.raises(BackupError):
            list(contents(forger.open()))


def test_what_is_listed_and_then_not_there_is_missing(forger: Forger) -> None:
    reader = forger.open()
    forger.sample.path(2).unlink()
    forger.store.listed = lambda _: [SLOTS, MANIFEST, *(layout.stream_key(BACKUP_ID, n) for n in (1, 2, 3))]
    for level in Level:
        assert [str(damage) for damage in reader.verify(level)] == ["public.users, stream 2: is missing"]
    with pytest.raises(BackupDamaged, match="stream 2: is missing"):
        list(contents(reader))
    for key in (MANIFEST, SLOTS):
        (forger.store.root / key).unlink()
        with pytest.raises(BackupDamaged, match="is missing"):
            forger.open()
    forger.vault.destroy(BACKUP_ID)


# Swapped and replayed


def test_streams_swapped_within_and_between_backups_are_damage(forger: Forger, other: Sample) -> None:
    mine = forger.sample
    for number, source in ((2, mine.path(1)), (1, other.path(1)), (3, mine.folder / "manifest.bma")):
        truth = mine.path(number).read_bytes()
        mine.path(number).write_bytes(source.read_bytes())
        (damage,) = forger.open().verify()
        assert damage.stream == number
        assert str(damage).count(f"stream {number}") == 1  # said once
        with pytest.raises(BackupDamaged, match=f"stream {number}"):
            list(contents(forger.open()))
        mine.path(number).write_bytes(truth)
    assert forger.open().verify() == []


def test_the_manifest_of_another_backup_or_an_older_one_is_refused(forger: Forger, other: Sample) -> None:
    older = (forger.sample.folder / "manifest.bma").read_bytes()
    forger.manifest(forger.sample.manifest.to_bytes())
    assert forger.open().verify() == []
    for replayed in (older, (other.folder / "manifest.bma").read_bytes(), forger.sample.path(1).read_bytes()):
        forger.plant(MANIFEST, replayed)
        with pytest.raises(BackupDamaged, match="not the one that was recorded"):
            forger.open()


def test_a_whole_backup_in_the_place_of_another_is_refused(forger: Forger, other: Sample) -> None:
    for path in other.folder.rglob("*"):
        if path.is_file():
            forger.plant(f"{BACKUP_ID}/{path.relative_to(other.folder).as_posix()}", path.read_bytes())
    with pytest.raises(BackupDamaged, match="not the one that was recorded"):
        forger.open()
    with pytest.raises(BackupDamaged, match=r"slots\.json is that of another backup"):
        forger.vault.open(BACKUP_ID, other.shred_key, other.sha256)


def test_slots_of_another_backup_open_nothing_whatever_they_say(forger: Forger, other: Sample) -> None:
    theirs = (other.folder / "slots.json").read_bytes()
    forger.plant(SLOTS, theirs)
    with pytest.raises(BackupDamaged, match="another backup"):
        forger.open()
    forger.plant(SLOTS, theirs.replace(str(OTHER_ID).encode(), str(BACKUP_ID).encode()))
    with pytest.raises(BackupKeyMissing, match="first"):
        forger.open()


def _slots(forger: Forger, change: Callable[[dict[str, Any]], object]) -> bytes:
    data = json.loads((forger.store.root / SLOTS).read_bytes())
    change(data)
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _many(number: int) -> list[dict[str, str]]:
    wrapped = base64.b64encode(bytes(40)).decode()
    return [{"key_id": f"k{i}", "wrapped": wrapped} for i in range(number)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data["slots"].append(data["slots"][0]), "names a key twice"),
        (lambda data: data.update(slots=_many(10_000)), "larger than it can be"),
        (lambda data: data.update(slots=[]), "malformed slot, or none"),
        (lambda data: data.update(slots={}), "malformed slot, or none"),
        (lambda data: data["slots"][0].update(key_id="../../etc/passwd"), "malformed slot"),
        (lambda data: data["slots"][0].update(wrapped="AAAA"), "malformed slot"),
        (lambda data: data["slots"][0].update(surprise=1), "canonical"),
        (lambda data: data.update(version=2), r"version 2; this program reads 1"),
        (lambda data: data.update(version=True), "version"),
    ],
)
def test_slots_that_are_not_what_is_written_are_damage(
    forger: Forger, change: Callable[[dict[str, Any]], object], what: str
) -> None:
    forger.plant(SLOTS, _slots(forger, change))
    with bounded(mib=10, seconds=5), pytest.raises(BackupDamaged, match=what):
        forger.open()
    with pytest.raises(BackupDamaged, match=what):
        forger.vault.rotate(BACKUP_ID, forger.sample.shred_key)


def test_the_most_slots_that_fit_are_no_work_and_a_short_message(forger: Forger) -> None:
    raw = _slots(forger, lambda data: data.update(slots=_many(750)))
    assert MAX_SLOTS_SIZE * 0.9 < len(raw) <= MAX_SLOTS_SIZE
    forger.plant(SLOTS, raw)
    with bounded(mib=10, seconds=5), pytest.raises(BackupKeyMissing) as caught:
        forger.open()
    assert len(str(caught.value)) < 500


# Listings

TRAVERSALS = [
    "../../etc/passwd", "/etc/passwd", f"{BACKUP_ID}/../{OTHER_ID}/manifest.bma", f"{BACKUP_ID}/streams/../../x",
    f"{BACKUP_ID}//manifest.bma", f"{BACKUP_ID}", f"{BACKUP_ID}/\0", f"{BACKUP_ID}/%2e%2e/x", f"{BACKUP_ID}\\..\\x",
    f"{str(BACKUP_ID).upper()}/manifest.bma", f"{BACKUP_ID}/.partial/x", "", "\ud800", f"{BACKUP_ID}/" + "x" * 100_000,
]  # fmt: skip


def test_listed_names_lead_nowhere_else(forger: Forger, other: Sample, tmp_path: Path) -> None:
    """Destroying one backup deletes nothing of another, nor outside the store, whatever the store lists under it."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    theirs = [f"{OTHER_ID}/{path.relative_to(other.folder).as_posix()}" for path in other.folder.rglob("*.*")]
    forger.store.listed = lambda _: [
        *TRAVERSALS,
        "../outside",
        *theirs,
        *(layout.stream_key(BACKUP_ID, n) for n in (1, 2, 3)),
    ]
    forger.vault.destroy(BACKUP_ID)
    assert forger.store.deleted == [SLOTS, MANIFEST, *(layout.stream_key(BACKUP_ID, n) for n in (1, 2, 3))]
    assert outside.read_text() == "mine"
    assert other.open().verify() == []
    assert not forger.sample.folder.exists()


def test_orphans_are_found_among_true_names_alone(forger: Forger, other: Sample) -> None:
    orphan = UUID(int=1)
    forger.store.listed = lambda prefix: (
        [*TRAVERSALS, SLOTS, layout.slots_key(orphan), layout.manifest_key(OTHER_ID)] if not prefix else TRAVERSALS
    )
    assert forger.vault.sweep_orphans(lambda: {BACKUP_ID}) == [orphan]
    assert set(forger.store.deleted) == {layout.slots_key(orphan), layout.manifest_key(orphan)}
    assert other.open().verify() == forger.sample.open().verify() == []


def _endlessly(make: Callable[[int], str]) -> Callable[[str], Iterator[str]]:
    return lambda _: (make(number) for number in count(1))


def test_a_listing_that_never_ends_is_given_up(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_KEYS", 20_000)
    listings = (
        str, lambda number: f"{UUID(int=number)}/slots.json", lambda _: TRAVERSALS[0],
    )  # fmt: skip
    for make in listings:
        forger.store.listed = _endlessly(make)
        for act in (lambda: forger.vault.sweep_orphans(set), lambda: forger.vault.destroy(OTHER_ID)):
            with bounded(), pytest.raises(BackupError, match="lists more than 20000"):
                act()
    assert forger.sample.open().verify() == []


def test_only_errors_of_ours_come_out_of_a_store_of_noise(forger: Forger) -> None:
    noise = [b"", b"\0", b"\xff" * 4096, b"BMA1", b"BMA1" + bytes(200), b"{}", b"[" * 4096, b"BMA1\x02" + bytes(100)]
    for key in (SLOTS, MANIFEST, STREAM):
        for data in noise:
            forger.store.opened = {key: lambda _, _truth, data=data: io.BytesIO(data)}  # type: ignore[misc]
            with pytest.raises(BrieflyError):
                list(contents(forger.open()))
