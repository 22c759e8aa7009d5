"""Backups from the command line: taken, proven, kept, damaged, without their key, deleted."""

import base64
import json
from pathlib import Path

import psycopg
import pytest

from briefly_admin import settings, wiring
from briefly_admin.domain.permissions import Actor, Role
from tests.cli.conftest import Command, column_of

OTHER_KEY = f"other:{base64.b64encode(bytes(32)).decode()}"


@pytest.fixture
def backup(command: Command, sample_data: dict[str, int]) -> str:
    """The name of a backup of the sample data."""
    answer = command("backup", "create", "--json")
    assert answer.code == 0, answer.err
    last = answer.lines[-1]
    assert last["status"] == "completed"
    return str(last["backup_id"])


def test_backup_is_listed_verified_kept_and_deleted(command: Command, backup: str) -> None:
    assert backup.startswith("backup_")
    listed = command("backup", "list").out
    assert column_of(listed, 0) == [backup]
    assert "139" in listed.split()
    assert " L1 " in listed
    data = json.loads(command("backup", "list", "--json").out)[0]
    assert (data["backup_id"], data["rows"], data["state"]) == (backup, 139, "proven")
    verified = command("backup", "verify", backup)
    assert (verified.code, verified.err) == (0, "")
    assert f"Done: {backup} is whole: every byte was opened, 139 rows counted and hashed.\n" in verified.out
    looked = command("backup", "verify", backup, "--level", "L0", "--json").lines[-1]
    assert (looked["backup_id"], looked["level"], looked["whole"], looked["damages"]) == (backup, "L0", True, [])
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


def test_a_drill_is_a_level_too_and_shown(command: Command, backup: str) -> None:
    answer = command("backup", "drill", backup)
    assert (answer.code, answer.err) == (0, "")
    assert f"{backup} can be restored" in answer.out
    again = command("backup", "verify", backup, "--level", "L2", "--json").lines[-1]
    assert (again["level"], again["whole"], again["status"]) == ("L2", True, "completed")
    (shown,) = json.loads(command("backup", "list", "--json").out)
    assert [proof["level"] for proof in shown["proofs"]] == ["L2", "L2", "L1"]
    assert shown["tables"][0]["table"] == "users"
    assert shown["escrowed_at"] is None
    assert {"L1", "L2"} <= set(command("backup", "list").out.split())


def test_tables_outside_the_plan_come_along(command: Command, environ: dict[str, str]) -> None:
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    with psycopg.connect(environ["TARGET_DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE invoices (id int PRIMARY KEY)")
        connection.execute('CREATE TABLE "Other one" (id int PRIMARY KEY)')
    for also, titles in ((("public.invoices",), {"invoices"}), (("*",), {"invoices", "Other one"})):
        arguments = [word for table in also for word in ("--also", table)]
        name = command("backup", "create", *arguments, "--json").lines[-1]["backup_id"]
        shown = json.loads(command("backup", "list", "--json").out)[0]
        assert shown["name"] == name
        assert titles == {table["table"] for table in shown["tables"]} & {"invoices", "Other one"}
    for wrong in ("public.nowhere", "nonsense", ""):
        refused = command("backup", "create", "--also", wrong)
        assert refused.code == 2, refused
        assert refused.is_one_line()
    assert len(json.loads(command("backup", "list", "--json").out)) == 2


def test_an_escrow_file_is_written_beside(command: Command, backup: str, tmp_path: Path) -> None:
    file = tmp_path / "escrow.json"
    made = command("backup", "create", "--escrow", str(file), "--json")
    assert made.code == 0
    assert (made.lines[-1]["escrow"], file.stat().st_mode & 0o777) == (str(file), 0o600)
    assert json.loads(file.read_text())["name"] == made.lines[-1]["backup_id"]
    again = command("backup", "create", "--escrow", str(file))
    assert again.code == 4
    assert again.is_one_line("is there already")
    assert len(json.loads(command("backup", "list", "--json").out)) == 2, "and no backup was begun for it"


@pytest.fixture
def damaged(backup: str, environ: dict[str, str]) -> str:
    """The name of a backup with one flipped byte."""
    streams = sorted(Path(environ["BRIEFLY_HOME"], "backups").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(streams[-1].read_bytes())
    data[len(data) // 2] ^= 1
    streams[-1].chmod(0o600)
    streams[-1].write_bytes(data)
    return backup


@pytest.mark.parametrize("deed", [("verify",), ("verify", "--level", "L0"), ("drill",)])
def test_damaged_backup_is_exit_5_and_nothing_is_restored(
    command: Command, damaged: str, deed: tuple[str, ...]
) -> None:
    answer = command("backup", *deed, damaged, "--json")
    assert answer.code == 5
    last = answer.lines[-1]
    assert (last["whole"], last["status"], len(last["damages"])) == (False, "failed", 1)
    assert "damaged" in answer.err
    text = command("backup", *deed, damaged)
    assert text.code == 5
    assert last["damages"][0] in text.out
    assert command("rollback", damaged, "--confirm").code == 5
    listed = command("backup", "list").out
    assert column_of(listed, 1) == ["damaged"]
    assert "L1" not in listed.split(), "what damage undid proves nothing"
    (shown,) = json.loads(command("backup", "list", "--json").out)
    assert (shown["damage"], shown["restorable"]) == (last["damages"], False)


def test_without_its_key_a_backup_is_exit_5(command: Command, backup: str, environ: dict[str, str]) -> None:
    (slots,) = Path(environ["BRIEFLY_HOME"], "backups").rglob("slots.json")
    for args in (
        ("backup", "verify", backup), ("backup", "drill", backup), ("rollback", backup, "--preview"),
        ("rollback", backup, "--confirm"),
    ):  # fmt: skip
        answer = command(*args, BACKUP_KEYS=OTHER_KEY)
        assert answer.code == 5, (args, answer)
        assert "Traceback" not in answer.err
    said = command("backup", "verify", backup, "--json", BACKUP_KEYS=OTHER_KEY)
    assert (said.code, said.lines[-1]["whole"], said.lines[-1]["damages"]) == (5, None, [])
    assert json.loads(slots.read_text())["slots"][0]["key_id"] in said.err
    assert command("backup", "verify", backup, "--level", "L0", BACKUP_KEYS=OTHER_KEY).code == 0, "which needs none"
    assert command("backup", "verify", backup).code == 0


def test_what_cannot_be_looked_at(command: Command, backup: str) -> None:
    for args in (("verify", "backup_1"), ("drill", "backup_1"), ("pin", "..")):
        answer = command("backup", *args)
        assert answer.code == 2
        assert answer.is_one_line("There is no such backup")
    assert command("backup", "verify", backup, "--level", "L3").code == 2
    assert command("backup", "purge", backup, "--yes").code == 0
    for deed in ("verify", "drill"):
        answer = command("backup", deed, backup)
        assert answer.code == 5
        assert answer.is_one_line("nobody can read it any more")
    assert command("backup", "pin", backup).code == 4
    assert column_of(command("backup", "list").out, 1) == ["expired"]


def test_two_looks_at_once_are_refused(command: Command, backup: str, environ: dict[str, str]) -> None:
    services = wiring.build(settings.load(environ))
    clerk = Actor("clerk", Role.OPERATOR, "api")
    services.runs.verify_backup(clerk, backup)
    services.runs.drill(clerk, backup)
    services.close()
    for deed in ("verify", "drill"):
        answer = command("backup", deed, backup)
        assert answer.code == 4
        assert answer.is_one_line("already (pending)")
