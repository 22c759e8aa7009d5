"""Backups from the command line: taken, proven, kept, damaged, without their key, deleted."""

import base64
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Command, column_of

OTHER_KEY = f"other:{base64.b64encode(bytes(32)).decode()}"


@pytest.fixture
def backup(command: Command) -> str:
    """The name of a backup of the sample data."""
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    answer = command("backup", "create", "--json")
    assert answer.code == 0, answer.err
    last = answer.lines[-1]
    assert last["status"] == "completed"
    return str(last["backup_id"])


def test_backup_is_listed_verified_kept_and_deleted(command: Command, backup: str) -> None:
    assert backup.startswith("backup_")
    listed = command("backup", "list").out
    assert column_of(listed, 0) == [backup]
    assert column_of(listed, 4) == ["139"]
    data = json.loads(command("backup", "list", "--json").out)[0]
    assert (data["backup_id"], data["rows"], data["state"]) == (backup, 139, "proven")
    assert command("backup", "verify", backup).out == f"{backup} is whole: L1, 139 rows in 8 tables.\n"
    assert json.loads(command("backup", "verify", backup, "--level", "L0", "--json").out)["whole"] is True
    assert command("backup", "pin", backup).code == 0
    assert command("backup", "purge", backup, "--yes").is_one_line("is pinned. Unpin it first.")
    assert command("backup", "unpin", backup).code == 0
    asked = command("backup", "purge", backup)
    assert asked.code == 4
    assert asked.is_one_line("it was not confirmed. Add --yes.")
    assert command("backup", "purge").out == "0 expired backups are deleted.\n"
    assert command("backup", "purge", backup, "--yes").out == f"{backup} is deleted.\n"
    gone = command("rollback", backup, "--confirm")
    assert gone.code == 5
    assert gone.is_one_line("nobody can read it any more")
    text = command("backup", "create")
    assert text.out.splitlines()[-2].startswith("backup_")


def test_damaged_backup_is_exit_5_and_nothing_is_restored(
    command: Command, backup: str, environ: dict[str, str]
) -> None:
    streams = sorted(Path(environ["BRIEFLY_HOME"], "backups").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(streams[-1].read_bytes())
    data[len(data) // 2] ^= 1
    streams[-1].chmod(0o600)
    streams[-1].write_bytes(data)
    answer = command("backup", "verify", backup, "--json")
    assert answer.code == 5
    assert json.loads(answer.out)["whole"] is False
    assert len(json.loads(answer.out)["damages"]) == 1
    assert f"{backup} is damaged" in answer.err
    assert command("rollback", backup, "--confirm").code == 5
    assert column_of(command("backup", "list").out, 1) == ["damaged"]


def test_without_its_key_a_backup_is_exit_5(command: Command, backup: str) -> None:
    for args in (("backup", "verify", backup), ("rollback", backup, "--preview"), ("rollback", backup, "--confirm")):
        answer = command(*args, BACKUP_KEYS=OTHER_KEY)
        assert answer.code == 5, (args, answer)
        assert "Traceback" not in answer.err
    assert command("backup", "verify", backup).code == 0
