"""Rotation of a backup's slots: at every instant one opens, whatever dies; data is not rewritten."""

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, BackupKeyMissing, NotFound, Unavailable
from briefly_admin.vault import layout
from briefly_admin.vault.keys import MAX_SLOTS_SIZE, MasterKeys, sealing_slot, write_slots
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.vault.sample_backups import BACKUP_ID, KEYS, Sample

NEW = bytes([7]) * 32
ROTATED = MasterKeys({"new": NEW, **KEYS})
ALONE = MasterKeys({"new": NEW})


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path / "store")


def vault(sample: Sample, keys: Mapping[str, bytes]) -> Vault:
    return Vault(sample.store, MasterKeys(dict(keys)))


def opens(sample: Sample, keys: Mapping[str, bytes]) -> bool:
    try:
        return vault(sample, keys).open(BACKUP_ID, sample.shred_key, sample.sha256).verify() == []
    except BackupKeyMissing:
        return False


def slots(sample: Sample) -> Path:
    return sample.folder / "slots.json"


def test_after_a_rotation_the_new_key_alone_opens(sample: Sample) -> None:
    others = {p: p.stat().st_mtime_ns for p in sample.folder.rglob("*.bma")}
    assert vault(sample, KEYS).slot_ids(BACKUP_ID) == ("first",)
    assert vault(sample, ROTATED).rotate(BACKUP_ID, sample.shred_key) is True
    assert vault(sample, ROTATED).slot_ids(BACKUP_ID) == ("new",)
    assert opens(sample, ALONE)
    assert not opens(sample, KEYS)
    assert {p: p.stat().st_mtime_ns for p in sample.folder.rglob("*.bma")} == others
    assert oct(slots(sample).stat().st_mode)[-3:] == "600"


def test_a_second_rotation_touches_nothing(sample: Sample) -> None:
    vault(sample, ROTATED).rotate(BACKUP_ID, sample.shred_key)
    before = slots(sample).stat().st_ino
    assert vault(sample, ROTATED).rotate(BACKUP_ID, sample.shred_key) is False
    assert slots(sample).stat().st_ino == before
    assert vault(sample, KEYS).slot_ids(BACKUP_ID) == ("new",)


def test_the_halves_are_resumable(sample: Sample) -> None:
    rotating = vault(sample, ROTATED)
    with pytest.raises(BackupKeyMissing, match="no slot of the key new"):
        rotating.drop_slots(BACKUP_ID, sample.shred_key)
    assert rotating.add_slot(BACKUP_ID, sample.shred_key) is True
    assert opens(sample, KEYS)
    assert opens(sample, ALONE)
    assert rotating.add_slot(BACKUP_ID, sample.shred_key) is False
    assert rotating.rotate(BACKUP_ID, sample.shred_key) is True
    assert not opens(sample, KEYS)


def test_a_slot_of_the_sealing_keys_id_that_does_not_open_is_replaced(sample: Sample) -> None:
    """The id was used for another key once: its slot must not pass for the sealing key's."""
    data_key = vault(sample, KEYS)._data_key(BACKUP_ID, sample.shred_key)
    common = {"data_key": data_key, "shred_key": sample.shred_key, "backup_id": BACKUP_ID}
    both = sealing_slot(MasterKeys({"new": bytes(32)}), **common) | sealing_slot(KEYS, **common)  # type: ignore[arg-type]
    sample.store.replace(layout.slots_key(BACKUP_ID), write_slots(both, BACKUP_ID))
    assert vault(sample, ROTATED).rotate(BACKUP_ID, sample.shred_key) is True
    assert opens(sample, ALONE)


def test_a_missing_or_wrong_key_is_named_and_nothing_changes(sample: Sample) -> None:
    before = slots(sample).read_bytes()
    with pytest.raises(BackupKeyMissing, match=r"sealed with the key first; BACKUP_KEYS has only new"):
        vault(sample, ALONE).rotate(BACKUP_ID, sample.shred_key)
    with pytest.raises(BackupKeyMissing, match="The key first is not the one"):
        vault(sample, {"new": NEW, "first": bytes(32)}).rotate(BACKUP_ID, sample.shred_key)
    with pytest.raises(BackupKeyMissing):
        vault(sample, ROTATED).rotate(BACKUP_ID, bytes(32))
    with pytest.raises(BackupExpired):
        vault(sample, ROTATED).rotate(BACKUP_ID, b"")
    assert slots(sample).read_bytes() == before


def test_slots_that_a_purge_deleted_do_not_come_back(sample: Sample) -> None:
    class Purged(DirectoryStore):
        def replace(self, key: str, data: bytes) -> None:
            self.delete(key)
            super().replace(key, data)

    with pytest.raises(NotFound):
        Vault(Purged(sample.root), ROTATED).rotate(BACKUP_ID, sample.shred_key)
    assert not slots(sample).exists()
    with pytest.raises(BackupDamaged, match=r"slots\.json is missing"):
        vault(sample, ROTATED).rotate(BACKUP_ID, sample.shred_key)


def _forgetting(_key: str, _data: bytes, _put: Callable[[str, bytes], None]) -> None:
    """It says that it took them."""


def _garbling(key: str, data: bytes, put: Callable[[str, bytes], None]) -> None:
    place = data.index(b'"wrapped":"') + 11
    put(key, data[:place] + (b"B" if data[place : place + 1] == b"A" else b"A") + data[place + 1 :])


@pytest.mark.parametrize("how", [_forgetting, _garbling])
def test_old_slots_are_dropped_only_when_the_new_one_was_read_back(
    sample: Sample, how: Callable[[str, bytes, Callable[[str, bytes], None]], None]
) -> None:
    class Lying(DirectoryStore):
        def replace(self, key: str, data: bytes) -> None:
            how(key, data, super().replace)

    with pytest.raises(BackupDamaged, match="not what was written just now"):
        Vault(Lying(sample.root), ROTATED).rotate(BACKUP_ID, sample.shred_key)
    assert opens(sample, KEYS)


def test_a_store_that_takes_nothing_leaves_all_as_it_was(sample: Sample) -> None:
    class Full(DirectoryStore):
        def replace(self, key: str, data: bytes) -> None:
            del data
            raise Unavailable(f"no room for {key}")

    with pytest.raises(Unavailable):
        Vault(Full(sample.root), ROTATED).rotate(BACKUP_ID, sample.shred_key)
    assert opens(sample, KEYS)


_CALLS = ("open", "rename", "fsync", "link")
"""Of the operating system: before each of them and behind it a kill may come."""


def _kill_at(touch: int) -> None:
    """Arrange for SIGKILL before or behind a system call of this process that touches the store."""
    count = 0

    def touched() -> None:
        nonlocal count
        count += 1
        if count == touch:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            touched()
            result = call(*args, **kwargs)
            touched()
            return result

        return wrapped

    for name in _CALLS:
        setattr(os, name, around(getattr(os, name)))


def _rotate_killed_at(sample: Sample, keys: MasterKeys, touch: int) -> bool:
    """In a fork, which is killed at that touch; whether it was."""
    child = os.fork()
    if not child:
        try:
            _kill_at(touch)
            vault(sample, keys).rotate(BACKUP_ID, sample.shred_key)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_ten_rotations_killed_everywhere_and_every_state_opens(sample: Sample) -> None:
    """Each rotation is killed at every system call that it makes; what stands then opens, and the next one goes on."""
    masters: dict[str, Any] = dict(KEYS)
    kills = 0
    for turn in range(10):
        former = MasterKeys(masters)
        masters = {f"turn-{turn}": bytes([turn + 10]) * 32, **masters}
        keys, touch = MasterKeys(masters), 1
        while _rotate_killed_at(sample, keys, touch):
            kills += 1
            touch += 1
            assert opens(sample, keys)
            ids = set(vault(sample, keys).slot_ids(BACKUP_ID))
            assert ids <= set(masters)
            assert opens(sample, former) == bool(ids & set(former))
        assert vault(sample, keys).slot_ids(BACKUP_ID) == (f"turn-{turn}",)
        assert opens(sample, {f"turn-{turn}": masters[f"turn-{turn}"]})
    assert kills > 100
    assert Vault(sample.store, keys).sweep_orphans(set) == []


def test_slots_stay_below_what_a_reader_takes(sample: Sample) -> None:
    data_key = vault(sample, KEYS)._data_key(BACKUP_ID, sample.shred_key)
    common = {"data_key": data_key, "shred_key": sample.shred_key, "backup_id": BACKUP_ID}
    many = sealing_slot(KEYS, **common)  # type: ignore[arg-type]
    size = len(write_slots(many, BACKUP_ID))
    for number in range(10_000):
        key_id = f"k{number:063}"
        if size + 150 > MAX_SLOTS_SIZE:
            break
        many[key_id] = bytes(40)
        size = len(write_slots(many, BACKUP_ID))
    sample.store.replace(layout.slots_key(BACKUP_ID), write_slots(many, BACKUP_ID))
    assert opens(sample, KEYS)
    assert vault(sample, ROTATED).rotate(BACKUP_ID, sample.shred_key) is True
    assert vault(sample, ALONE).slot_ids(BACKUP_ID) == ("new",)


def test_rotations_of_two_backups_do_not_meet(sample: Sample) -> None:
    other = Sample(sample.root, backup_id=UUID(int=9), seed=4)
    vault(sample, ROTATED).rotate(BACKUP_ID, sample.shred_key)
    assert other.open().verify() == []
    assert json.loads((other.folder / "slots.json").read_bytes())["slots"][0]["key_id"] == "first"
