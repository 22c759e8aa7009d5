"""Rotation over all that is kept: recorded, past what cannot be rotated, beside a purge, and killed at any point."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import BinaryIO

import psycopg
import pytest

from briefly_admin.domain.errors import BackupKeyMissing, NotAllowed
from briefly_admin.domain.runs import RunKind
from briefly_admin.services import Services
from briefly_admin.services.keys import RotationView, rotation_error
from briefly_admin.vault import layout
from briefly_admin.vault.stores.directory import DirectoryStore
from tests.services.conftest import Stage
from tests.services.keeping import ONE, THREE, TWO, KeptBackup, keep, opens, services_with

NEW_FIRST = {"two": TWO, "one": ONE}


@pytest.fixture
def kept(stage: Stage) -> list[KeptBackup]:
    return [keep(stage, f"backup_{number}") for number in (1, 2, 3)]


@pytest.fixture
def rotating(stage: Stage) -> Iterator[Services]:
    """Services to which a new key was given."""
    with services_with(stage, NEW_FIRST) as services:
        yield services


def _events(stage: Stage) -> list[tuple[str, object]]:
    found = stage.services.audit.list(stage.ana, action="keys.rotate")
    return [(event.object, event.details) for event in reversed(found)]


def test_all_backups_go_to_the_new_key_and_that_is_recorded(
    stage: Stage, kept: list[KeptBackup], rotating: Services
) -> None:
    damaged = keep(stage, "backup_4", state="damaged")
    view = rotating.keys.rotate(stage.ana)
    names = ["backup_1", "backup_2", "backup_3", "backup_4"]
    assert [(each.name, each.before, each.after) for each in view.rotated] == [
        (name, ("one",), "two") for name in names
    ]
    assert (view.failed, view.unchanged, view.writing, view.missing, view.surveyed) == ((), (), (), (), True)
    assert (dict(view.needed), view.unneeded) == ({"two": 4}, ("one",))
    assert rotation_error(view) is None
    assert _events(stage) == [(name, {"from": ["one"], "to": "two"}) for name in names]
    assert all(opens(stage, backup, {"two": TWO}) for backup in [*kept, damaged])
    assert rotating.backups.get(stage.vito, "backup_4").state == "damaged"
    again = rotating.keys.rotate(stage.ana)
    assert (again.rotated, again.unchanged) == ((), tuple(names))
    assert len(_events(stage)) == 4
    assert stage.actions()[-1] == "keys.rotate"


def test_only_an_admin_rotates(stage: Stage, kept: list[KeptBackup], rotating: Services) -> None:
    for actor in (stage.olga, stage.vito, stage.stranger):
        with pytest.raises(NotAllowed):
            rotating.keys.rotate(actor)
    assert opens(stage, kept[0], {"one": ONE})
    assert _events(stage) == []


def test_it_goes_past_what_cannot_be_rotated(stage: Stage, kept: list[KeptBackup], tmp_path: Path) -> None:
    first, second, third = kept
    slots = tmp_path / "backups" / layout.slots_key(second.id)
    with services_with(stage, {"three": THREE, "one": ONE}) as foreign:
        foreign.servers.vault.rotate(third.id, third.shred_key)
    slots.write_bytes(b"{}")
    with services_with(stage, NEW_FIRST) as services:
        view = services.keys.rotate(stage.ana)
    assert [each.name for each in view.rotated] == ["backup_1"]
    assert [each.name for each in view.failed] == ["backup_2", "backup_3"]
    assert view.failed[0].reason.startswith("The backup is damaged: slots.json")
    assert view.failed[1].reason == (
        "The backup was sealed with the key three; BACKUP_KEYS has only two, one. "
        "Add the key with the id three to BACKUP_KEYS."
    )
    error = rotation_error(view)
    assert error is not None
    assert error.exit_code == 5
    assert "backup_2, backup_3" in str(error)
    assert (view.missing, view.surveyed, view.unneeded) == (("three",), False, ())
    assert opens(stage, first, {"two": TWO})
    assert opens(stage, third, {"three": THREE})


def test_wrong_keys_change_nothing(stage: Stage, kept: list[KeptBackup]) -> None:
    with services_with(stage, {"two": TWO, "one": THREE}) as services:
        view = services.keys.rotate(stage.ana)
    assert [each.name for each in view.failed] == [backup.name for backup in kept]
    assert all("The key one is not the one that sealed this backup" in each.reason for each in view.failed)
    assert all(opens(stage, backup, {"one": ONE}) for backup in kept)
    assert _events(stage) == []


def test_a_backup_being_written_keeps_its_key_until_the_next_rotation(
    stage: Stage, kept: list[KeptBackup], rotating: Services
) -> None:
    run = stage.services.runs.start(stage.olga, RunKind.BACKUP)
    being_written = keep(stage, "backup_9", state="writing", run_id=run.id)
    left_by_a_crash = keep(stage, "backup_8", state="writing")
    view = rotating.keys.rotate(stage.ana)
    assert len(view.rotated) == len(kept)
    assert view.writing == ("backup_9",)
    assert (dict(view.needed), view.unneeded) == ({"two": 3, "one": 1}, ())
    for backup in (being_written, left_by_a_crash):
        assert opens(stage, backup, {"one": ONE})
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.backup SET state = 'proven' WHERE name = 'backup_9'")
    assert [each.name for each in rotating.keys.rotate(stage.ana).rotated] == ["backup_9"]
    assert rotating.keys.rotate(stage.ana).unneeded == ("one",)


def test_what_was_shredded_is_left_alone(stage: Stage, kept: list[KeptBackup], rotating: Services) -> None:
    stage.services.backups.delete(stage.ana, "backup_2")
    view = rotating.keys.rotate(stage.ana)
    assert [each.name for each in view.rotated] == ["backup_1", "backup_3"]
    assert view.failed == ()


def test_two_rotations_at_once_do_each_backup_once(stage: Stage, kept: list[KeptBackup]) -> None:
    views: list[RotationView] = []

    def rotate() -> None:
        with services_with(stage, NEW_FIRST) as services:
            views.append(services.keys.rotate(stage.ana))

    threads = [threading.Thread(target=rotate) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.name for view in views for each in view.rotated) == [backup.name for backup in kept]
    assert [view.failed for view in views] == [(), (), ()]
    assert len(_events(stage)) == len(kept)


def test_a_purge_waits_for_the_rotation_of_its_backup(stage: Stage, tmp_path: Path) -> None:
    backup = keep(stage, "backup_1")
    purging: list[threading.Thread] = []
    seen: list[bool] = []

    class Slow(DirectoryStore):
        def replace(self, key: str, data: bytes) -> None:
            if not purging:
                purging.append(threading.Thread(target=stage.services.backups.delete, args=(stage.ana, backup.name)))
                purging[0].start()
                time.sleep(0.3)
            with psycopg.connect(stage.app_url) as connection:
                row = connection.execute("SELECT shred_key IS NOT NULL FROM briefly_admin.backup").fetchone()
            seen.append(bool(row and row[0]))
            super().replace(key, data)

    with services_with(stage, NEW_FIRST, Slow(tmp_path / "backups")) as services:
        services.keys.rotate(stage.ana)
    purging[0].join()
    assert seen[0] is True
    assert [path for path in (tmp_path / "backups").rglob("*") if path.is_file()] == []
    assert stage.services.backups.get(stage.vito, backup.name).state == "expired"


class _Killing(DirectoryStore):
    """Ends its process with SIGKILL at the n-th moment before or behind a replacement, or an opening."""

    def __init__(self, root: Path, moment: int) -> None:
        super().__init__(root)
        self._left = moment

    def _moment(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def replace(self, key: str, data: bytes) -> None:
        self._moment()
        super().replace(key, data)
        self._moment()

    def open(self, key: str) -> BinaryIO:
        self._moment()
        return super().open(key)


def _killed(stage: Stage, keys: dict[str, bytes], root: Path, moment: int) -> bool:
    """Rotate in a process that is killed at that moment; whether it was."""
    child = os.fork()
    if not child:
        code = 1
        try:
            with services_with(stage, keys, _Killing(root, moment)) as services:
                code = len(services.keys.rotate(stage.ana).failed)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, -signal.SIGKILL}
    return code != 0


def test_rotations_killed_at_every_moment_leave_every_backup_open_and_go_on(
    stage: Stage, kept: list[KeptBackup], tmp_path: Path
) -> None:
    keys, kills = {"one": ONE}, 0
    for turn in range(3):
        keys = {f"turn-{turn}": bytes([turn + 10]) * 32} | keys
        stage.services.close()  # a fork must not share its connections
        for moment in count(1):
            if not _killed(stage, keys, tmp_path / "backups", moment):
                break
            kills += 1
            assert all(opens(stage, backup, keys) for backup in kept)
        only = {f"turn-{turn}": keys[f"turn-{turn}"]}
        assert all(opens(stage, backup, only) for backup in kept)
        for backup in kept:  # a changed backup is on record, even where it was changed by one who died
            assert (backup.name, f"turn-{turn}") in {(o, d["to"]) for o, d in _events(stage)}  # type: ignore[index]
    assert kills > 20
    with pytest.raises(BackupKeyMissing):
        opens(stage, kept[0], {"one": ONE})
    assert stage.actions().count("keys.rotate") >= 9
