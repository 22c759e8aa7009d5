"""Keys from the command line: rotated, missing, escrowed into a file that is nobody else's."""

import base64
import json
from pathlib import Path

import psycopg
import pytest

from briefly_admin.vault.escrow import Escrow
from tests.cli.conftest import Command

ONE, TWO = (f"{name}:{base64.b64encode(bytes([n]) * 32).decode()}" for n, name in enumerate(("one", "two"), start=1))
CURE = "Add the key with the id one to BACKUP_KEYS."


@pytest.fixture
def backup(command: Command, environ: dict[str, str], sample_data: dict[str, int]) -> str:
    """The name of a backup of the sample data, sealed with the key `one`."""
    environ["BACKUP_KEYS"] = ONE
    answer = command("backup", "create", "--json")
    assert answer.code == 0, answer.err
    return str(answer.lines[-1]["backup_id"])


def test_keys_are_rotated_and_the_old_one_is_given_up(command: Command, backup: str, environ: dict[str, str]) -> None:
    environ["BACKUP_KEYS"] = f"{TWO},{ONE}"
    answer = command("keys", "rotate")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines() == [
        f"{backup}: one → two.",
        "1 backup was rotated to two; 0 had its slot alone already.",
        (
            "The key one opens no kept backup any more. It may be taken out of BACKUP_KEYS once all processes run with two "
            "first. Older copies of the store still need it; escrow files do not hold master keys."
        ),
    ]
    (again,) = command("keys", "rotate", "--json").lines
    assert (again["rotated"], again["unchanged"], again["needed"], again["unneeded"]) == (
        [],
        [backup],
        {"two": 1},
        ["one"],
    )
    environ["BACKUP_KEYS"] = TWO
    assert command("rollback", backup, "--preview").code == 0
    environ["BACKUP_KEYS"] = ONE
    answer = command("rollback", backup, "--preview")
    assert answer.code == 5
    assert "sealed with the key two; BACKUP_KEYS has only one" in answer.err
    assert [event["action"] for event in json.loads(command("audit", "list", "--json").out)].count("keys.rotate") == 1


def test_a_backup_that_cannot_be_rotated_is_exit_5(command: Command, backup: str, environ: dict[str, str]) -> None:
    environ["BACKUP_KEYS"] = TWO
    answer = command("keys", "rotate")
    assert answer.code == 5
    assert answer.out.splitlines() == [
        f"{backup}: not rotated. The backup was sealed with the key one; BACKUP_KEYS has only two. {CURE}",
        "0 backups were rotated to two; 0 had its slot alone already.",
        "The key one is still needed by 1 backup. It is not in BACKUP_KEYS: put it back.",
    ]
    assert answer.err.startswith(f"briefly-admin: Not all backups have the key two: {backup} kept what they had.")
    assert command("keys", "rotate", "--json").lines[0]["failed"][0]["name"] == backup


def _escrowed(environ: dict[str, str]) -> list[bool]:
    with psycopg.connect(environ["DATABASE_URL"]) as connection:
        rows = connection.execute(
            "SELECT escrowed_at IS NOT NULL FROM briefly_admin.backup ORDER BY created_at"
        ).fetchall()
    return [row[0] for row in rows]


def test_an_escrow_file_is_its_owners_and_never_overwritten(
    command: Command, backup: str, environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "escrow.json"
    answer = command("backup", "escrow", backup, str(file))
    assert answer.code == 0, answer.err
    assert answer.out.startswith(f"{backup} is in escrow: {file}.")
    assert oct(file.stat().st_mode)[-3:] == "600"
    content = file.read_bytes()
    assert Escrow.parse(content).name == backup
    assert json.loads(content)["shred_key"] not in answer.out
    answer = command("backup", "escrow", backup, str(file))
    assert answer.code == 4
    assert answer.is_one_line("is there already")
    assert file.read_bytes() == content
    assert _escrowed(environ) == [True]


def test_no_file_is_left_where_nothing_was_recorded(
    command: Command, backup: str, environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "escrow.json"
    for name, keys, code in (("backup_9", ONE, 2), (backup, TWO, 5)):
        assert command("backup", "escrow", name, str(file), BACKUP_KEYS=keys).code == code
        assert not file.exists()
    for place in (tmp_path / "nowhere" / "file", Path("/proc/none")):
        answer = command("backup", "escrow", backup, str(place))
        assert answer.code == 2
        assert answer.is_one_line("cannot be made")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert command("backup", "escrow", backup, str(tmp_path / "link")).code == 4
    assert command("backup", "escrow", backup, "/dev/full").code == 4
    assert not (tmp_path / "elsewhere").exists()
    assert _escrowed(environ) == [False]
    assert command("backup", "purge", backup, "--yes").code == 0
    answer = command("backup", "escrow", backup, str(file))
    assert answer.code == 5
    assert answer.is_one_line("has expired", "briefly-admin backup list")
    assert not file.exists()


def test_a_backup_is_created_with_its_escrow(
    command: Command, backup: str, environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "escrow.json"
    answer = command("backup", "create", "--escrow", str(file), "--json")
    assert answer.code == 0, answer.err
    assert Escrow.parse(file.read_bytes()).name == answer.lines[-1]["backup_id"] != backup
    assert _escrowed(environ) == [False, True]


def test_a_place_that_takes_no_file_is_found_out_before_the_backup(
    command: Command, backup: str, environ: dict[str, str], tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")
    for place, code in ((taken, 4), (tmp_path / "nowhere" / "file", 2)):
        answer = command("backup", "create", "--escrow", str(place))
        assert answer.code == code
        assert answer.is_one_line(str(place))
    assert taken.read_text() == "mine"
    assert len(json.loads(command("backup", "list", "--json").out)) == 1


def test_a_backup_that_fails_leaves_no_escrow_file(
    command: Command, backup: str, environ: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "escrow.json"
    store = Path(environ["BRIEFLY_HOME"], "backups")
    store.rename(store.with_name("away"))
    store.write_text("no directory")
    answer = command("backup", "create", "--escrow", str(file))
    assert answer.code != 0
    assert not file.exists()
