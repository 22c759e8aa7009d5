"""One rotation that is killed; and that one which loses a backup is noticed."""

from contextlib import closing
from uuid import UUID

import pytest

from briefly_admin.domain.errors import BackupKeyMissing
from briefly_admin.vault import layout
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.rows import rotations
from tests.faults.stored import store_of
from tests.faults.test_rows import says


def test_a_killed_rotation(ground: Ground) -> None:
    facts = rotations.trial(ground, 1, 1)
    assert facts["count"] == 1
    assert facts["kills"] >= 1
    assert "every one of 3 backups was read" in says("rotations", facts)


def test_a_backup_that_does_not_open_is_noticed(field: Field) -> None:
    rotations._back_up(field)
    rotations.require_all_open(field, 1)
    (backup,) = field.services.backups.list(ANA)
    key, store = layout.slots_key(UUID(backup.id)), store_of(field)
    with closing(store.open(key)) as file:
        slots = file.read()
    store.replace(key, slots.replace(b"local-1", b"local-2"))
    with pytest.raises(BackupKeyMissing):
        rotations.require_all_open(field, 1)
    store.replace(key, slots)
    with pytest.raises(AssertionError):
        rotations.require_all_open(field, 2)
