"""Escrow, opening and crypto-shredding: what is recorded, and what opens what, down to the bytes."""

import shutil
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.errors import (
    BackupDamaged,
    BackupExpired,
    BackupKeyMissing,
    NotAllowed,
    NotFound,
    Unavailable,
)
from briefly_admin.vault import layout
from briefly_admin.vault.escrow import Escrow
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.services.conftest import Stage
from tests.services.keeping import ONE, THREE, TWO, KeptBackup, keep, opens, services_with

ALL_KEYS = MasterKeys({"one": ONE, "two": TWO, "three": THREE})


@pytest.fixture
def backup(stage: Stage) -> KeptBackup:
    return keep(stage, "backup_1")


def test_an_escrow_is_written_and_recorded(stage: Stage, backup: KeptBackup) -> None:
    written: list[bytes] = []
    view = stage.services.keys.escrow(stage.ana, backup.name, written.append)
    (raw,) = written
    escrow = Escrow.parse(raw)
    assert (escrow.backup_id, escrow.name, escrow.shred_key) == (backup.id, backup.name, backup.shred_key)
    assert (escrow.manifest_sha256, escrow.key_ids, escrow.created_at) == (backup.sha256, ("one",), view.created_at)
    assert view.escrowed_at == stage.clock.time
    event = stage.services.audit.list(stage.ana, limit=1)[0]
    assert (event.action, event.object, event.details) == ("backup.escrow", backup.name, {"keys": ["one"]})
    assert backup.shred_key.hex() not in _app_database(stage, without="backup")


def test_if_the_file_cannot_be_written_nothing_is_recorded(stage: Stage, backup: KeptBackup) -> None:
    def fail(_data: bytes) -> None:
        raise Unavailable("no room")

    with pytest.raises(Unavailable, match="no room"):
        stage.services.keys.escrow(stage.ana, backup.name, fail)
    assert stage.services.backups.get(stage.ana, backup.name).escrowed_at is None
    assert "backup.escrow" not in stage.actions()


def test_only_an_admin_escrows_or_opens(stage: Stage, backup: KeptBackup) -> None:
    written: list[bytes] = []
    for actor in (stage.olga, stage.vito, stage.stranger):
        with pytest.raises(NotAllowed):
            stage.services.keys.escrow(actor, backup.name, written.append)
        with pytest.raises(NotAllowed):
            stage.services.keys.reader(actor, backup.name)
    for unknown in ("backup_9", "../x", "", "\0"):
        with pytest.raises(NotFound):
            stage.services.keys.escrow(stage.ana, unknown, written.append)
        with pytest.raises(NotFound):
            stage.services.keys.reader(stage.ana, unknown)
    assert written == []


def test_what_opens_no_backup_is_not_given_out(stage: Stage, backup: KeptBackup, tmp_path: Path) -> None:
    written: list[bytes] = []
    with services_with(stage, {"two": TWO}) as services:
        for act in (lambda: services.keys.escrow(stage.ana, backup.name, written.append),
                    lambda: services.keys.reader(stage.ana, backup.name)):  # fmt: skip
            with pytest.raises(BackupKeyMissing, match="sealed with the key one; BACKUP_KEYS has only two"):
                act()
    (tmp_path / "backups" / layout.slots_key(backup.id)).unlink()
    with pytest.raises(BackupDamaged, match=r"slots\.json is missing"):
        stage.services.keys.escrow(stage.ana, backup.name, written.append)
    assert written == []
    assert {"backup.escrow", "backup.open"}.isdisjoint(stage.actions())


def test_one_that_expired_offers_the_list(stage: Stage, backup: KeptBackup) -> None:
    keys, written = stage.services.keys, list[bytes]()
    stage.clock.move(hours=25)
    for words in ("about to be deleted", "nobody can read it any more"):
        for act in (
            lambda: keys.escrow(stage.ana, backup.name, written.append),
            lambda: keys.reader(stage.ana, backup.name),
        ):
            with pytest.raises(BackupExpired, match=words) as caught:
                act()
            assert "briefly-admin backup list" in caught.value.remedy
        stage.services.sweeping.purge()
    assert written == []


def test_a_pinned_one_is_escrowed_beyond_its_time(stage: Stage, backup: KeptBackup) -> None:
    stage.services.backups.pin(stage.olga, backup.name)
    stage.clock.move(hours=25)
    assert stage.services.keys.escrow(stage.ana, backup.name, lambda _: None).escrowed_at == stage.clock.time


def test_opening_is_recorded(stage: Stage, backup: KeptBackup) -> None:
    reader = stage.services.keys.reader(stage.ana, str(backup.id))
    assert reader.verify() == []
    assert stage.actions()[-1] == "backup.open"
    assert stage.services.audit.list(stage.ana, limit=1)[0].object == backup.name


def _app_database(stage: Stage, *, without: str = "") -> str:
    """All rows of the app database as text; bytea in hexadecimal."""
    with psycopg.connect(stage.app_url) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'briefly_admin' AND tablename <> %s", (without,)
        ).fetchall()
        found = []
        for (name,) in names:
            statement = sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier("briefly_admin", name))
            found += [row[0] for row in connection.execute(statement)]
    return "\n".join(found)


def _data_key(stage: Stage, backup: KeptBackup) -> bytes:
    return stage.servers.vault._data_key(backup.id, backup.shred_key)


def test_after_a_purge_no_copy_of_the_store_opens_but_with_the_escrow_file(
    stage: Stage, backup: KeptBackup, tmp_path: Path
) -> None:
    retained = keep(stage, "backup_2")
    stage.services.backups.pin(stage.ana, retained.name)
    written: list[bytes] = []
    stage.services.keys.escrow(stage.ana, backup.name, written.append)
    data_key = _data_key(stage, backup)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "backups", copy)
    assert backup.shred_key.hex() in _app_database(stage)

    stage.clock.move(hours=25)
    assert stage.services.sweeping.purge() == 1

    with psycopg.connect(stage.app_url) as connection:
        found = connection.execute("SELECT name, shred_key IS NULL FROM briefly_admin.backup ORDER BY name").fetchall()
    assert found == [("backup_1", True), ("backup_2", False)]
    everything = _app_database(stage).encode() + b"".join(p.read_bytes() for p in copy.rglob("*") if p.is_file())
    for secret in (backup.shred_key, data_key):
        assert secret not in everything
        assert secret.hex().encode() not in everything
    assert not (tmp_path / "backups" / str(backup.id)).exists()

    thief = Vault(DirectoryStore(copy), ALL_KEYS)
    for guess in (
        None,
        b"",
        bytes(32),
        ONE,
        TWO,
        retained.shred_key,
        backup.id.bytes * 2,
        bytes.fromhex(backup.sha256),
    ):
        with pytest.raises((BackupExpired, BackupKeyMissing)):
            thief.open(backup.id, guess, backup.sha256)

    escrow = Escrow.parse(written[0])
    assert thief.open(escrow.backup_id, escrow.shred_key, escrow.manifest_sha256).verify() == []
    assert opens(stage, retained, {"one": ONE})
    assert stage.services.keys.reader(stage.ana, retained.name).verify() == []
