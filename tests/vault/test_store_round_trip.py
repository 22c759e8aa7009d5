"""A whole backup in every store: written, opened, verified, rotated, given up, swept, destroyed."""

import random
from uuid import UUID, uuid4

import pytest

from briefly_admin.domain.errors import BackupDamaged, BrieflyError, Refused
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.layout import manifest_key, prefix, stream_key
from briefly_admin.vault.vault import Vault
from briefly_admin.vault.verify import Level
from tests.vault.conftest import Opened
from tests.vault.sample_backups import (
    BACKUP_ID,
    KEYS,
    contents,
    copy_binary,
    manifest_of,
    seeded,
    some_rows,
    table_of,
    write,
)

OTHER = UUID("7b1e4c1e-7d5c-4b8a-9a55-0123456789ab")
DICE = random.Random(7)
LARGE = [(DICE.randbytes(16), DICE.randbytes(4000), None) for _ in range(1600)]
"""More than a bucket's store puts by one request."""


def finished(vault: Vault, backup_id: UUID = BACKUP_ID) -> tuple[bytes, str]:
    """Of a small and a large stream: the shred key and the manifest's SHA-256."""
    writer = vault.begin(backup_id)
    results = [write(writer, 1, some_rows(1, 40)), write(writer, 2, LARGE)]
    return writer.shred_key, writer.finish(manifest_of([table_of("users", results)], backup_id))


def test_a_backup_goes_through_its_life(opened: Opened) -> None:
    vault = Vault(opened.store, KEYS, randomness=seeded(1))
    shred_key, sha256 = finished(vault)
    reader = vault.open(BACKUP_ID, shred_key, sha256)
    assert opened.store.size(stream_key(BACKUP_ID, 2)) > 5 << 20
    assert reader.verify(Level.OBJECTS) == []
    assert reader.verify() == []
    assert list(contents(reader)) == [copy_binary(some_rows(1, 40)), copy_binary(LARGE)]
    turned = Vault(opened.store, MasterKeys({"third": bytes(32), **dict(KEYS.items())}))
    assert turned.rotate(BACKUP_ID, shred_key)
    assert not turned.rotate(BACKUP_ID, shred_key)
    assert Vault(opened.store, MasterKeys({"third": bytes(32)})).open(BACKUP_ID, shred_key, sha256).verify() == []
    assert vault.sweep_orphans(set) == []
    vault.destroy(BACKUP_ID)
    vault.destroy(BACKUP_ID)
    assert opened.everything() == []
    with pytest.raises(BrieflyError):
        vault.open(BACKUP_ID, shred_key, sha256)


def test_a_backup_that_crashed_is_swept(opened: Opened) -> None:
    vault = Vault(opened.store, KEYS, randomness=seeded(1))
    shred_key, sha256 = finished(vault)
    write(vault.begin(OTHER), 1, some_rows(1, 40))
    write(vault.begin(being_written := uuid4()), 1, some_rows(1, 40))
    assert vault.sweep_orphans(lambda: [being_written]) == [OTHER]
    assert list(opened.store.list(prefix(OTHER))) == []
    assert len(list(opened.store.list(prefix(being_written)))) == 2
    assert vault.open(BACKUP_ID, shred_key, sha256).verify() == []


def test_a_backup_that_is_given_up_leaves_nothing(opened: Opened) -> None:
    writer = Vault(opened.store, KEYS, randomness=seeded(1)).begin(BACKUP_ID)
    write(writer, 1, some_rows(1, 40))
    writer.abort()
    assert opened.everything() == []


def test_an_id_is_used_once(opened: Opened) -> None:
    vault = Vault(opened.store, KEYS, randomness=seeded(1))
    shred_key, sha256 = finished(vault)
    with pytest.raises(Refused):
        vault.begin(BACKUP_ID)
    assert vault.open(BACKUP_ID, shred_key, sha256).verify() == []


def test_what_a_store_lost_or_changed_is_found(opened: Opened) -> None:
    vault = Vault(opened.store, KEYS, randomness=seeded(1))
    shred_key, sha256 = finished(vault)
    reader = vault.open(BACKUP_ID, shred_key, sha256)
    with opened.store.open(stream_key(BACKUP_ID, 1)) as file:
        sealed = bytearray(file.read())
    sealed[len(sealed) // 2] ^= 1
    opened.store.replace(stream_key(BACKUP_ID, 1), bytes(sealed))
    opened.store.delete(stream_key(BACKUP_ID, 2))
    assert [damage.stream for damage in reader.verify()] == [1, 2]
    opened.store.replace(manifest_key(BACKUP_ID), b"{}")
    with pytest.raises(BackupDamaged):
        vault.open(BACKUP_ID, shred_key, sha256)
