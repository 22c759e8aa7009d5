"""Whatever a user gets wrong: one clear line, the right exit code, nothing changed, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

from briefly_admin.cli import main
from briefly_admin.cli.up import CHECKOUT
from tests.cli.conftest import NOWHERE, Command

LATER = ("maintenance", "notify")
SETTINGS = [
    ("BACKUP_KEYS", "nonsense", "BACKUP_KEYS: entry 1 has no id."),
    ("MIGRATION_PLAN", "nope", "There is no plan 'nope'. Known plans: unified."),
    ("MIGRATION_BATCH_SIZE", "0", "MIGRATION_BATCH_SIZE: must be a whole number from 1 to 10000, or auto."),
    ("TARGET_DATABASE_URL", "mysql://not-to-be-shown@x/y", "TARGET_DATABASE_URL: must be a URL such as"),
    ("REDIS_URL", None, "REDIS_URL: is not set, and no embedded server runs here."),
    ("DATABASE_URL", "", "DATABASE_URL: is not set"),
    ("APP_ENV", "production", "SECRET_KEY: is required where APP_ENV=production."),
]
CONFIGS = [
    (("--set", "batchSize=0"), 'batchSize: Must be from 1 to 10,000, or "auto"; got 0.'),
    (("--set", 'batchSize="100"'), 'batchSize: Must be an integer from 1 to 10,000, or "auto".'),
    (("--set", "maxRetries=1.5"), "maxRetries: Must be an integer from 0 to 10."),
    (("--set", "retryDelay=true"), "retryDelay: Must be an integer from 0 to 60,000."),
    (("--set", "onInvalid=ignore"), "onInvalid: Must be one of: stop, skip."),
    (("--set", "batchsize=5"), "batchsize: Unknown field; known are batchSize"),
    (("--set", "batchSize"), "--set takes name=value, not 'batchSize'."),
    (("--config", "{"), "--config is not JSON:"),
    (("--config", ""), "--config is not JSON:"),
    (("--config", "[1]"), "--config must be a JSON object."),
    (("--config", "[" * 100_000), "--config is not JSON of reasonable size."),
    (("--config", '{"pause": ' + "1" * 5000 + "}"), "--config is not JSON of reasonable size."),
    (
        ("--config", '{"pause": -1, "workers": 65}'),
        "pause: Must be from 0 to 10,000; got -1.; workers: Must be from 1 to 64; got 65.",
    ),
]

NO_RUN: list[tuple[str, ...]] = [
    ("status", "999"), ("status", "nonsense"), ("status", ""), ("status", "9" * 40), ("pause", "1"), ("resume", "1"), ("approve", "1"),
    ("cancel", "1"), ("findings", "1"), ("quarantine", "list", "1"),
]  # fmt: skip
NO_BACKUP: list[tuple[str, ...]] = [
    ("backup", "verify", "x"), ("backup", "pin", ""), ("backup", "purge", "", "--yes"), ("rollback", "x", "--confirm"),
    ("rollback", "x", "--preview"), ("backup", "drill", "x"),
]  # fmt: skip


def test_bad_setting_is_named(command: Command) -> None:
    for name, value, words in SETTINGS:
        answer = command("status", **{name: value})
        assert answer.code == 2, name
        assert answer.is_one_line(words), answer.err


def test_bad_configuration_names_field_and_bounds_and_starts_nothing(command: Command) -> None:
    for options, words in CONFIGS:
        answer = command("run", *options)
        assert answer.code == 2, options
        assert answer.is_one_line(words), answer.err
    assert command("status").out.startswith("There are no runs yet.")


def test_things_that_are_not_there(command: Command) -> None:
    for args in NO_RUN:
        answer = command(*args)
        assert answer.code == 2, args
        assert answer.is_one_line("There is no such run.", "briefly-admin status"), args
    for args in NO_BACKUP:
        answer = command(*args)
        assert answer.code == 2, args
        assert answer.is_one_line("There is no such backup.", "briefly-admin backup list"), args
    assert command("findings").is_one_line("Nothing was validated yet.", "briefly-admin validate")
    assert command("token", "revoke", "x").is_one_line("There is no such token.")


def test_wrong_words_are_usage_errors(command: Command) -> None:
    for args in (("nonsense",), ("status", "1", "2"), ("run", "--nonsense"), ("rollback",), ("rollback", "x", "--mode", "both"),
                 ("rollback", "x", "--preview", "--confirm"), ("token", "create", "--role", "king", "--name", "x"),
                 ("token", "create", "--role", "viewer", "--name", "x", "--days", "367"), ("audit", "list", "--limit", "0")):  # fmt: skip
        answer = command(*args)
        assert answer.code == 2, args
        assert answer.err.startswith("Usage: briefly-admin "), args


def test_what_comes_later_is_absent() -> None:
    assert not set(LATER) & set(main.commands)


def test_servers_that_do_not_answer(command: Command) -> None:
    for args in (("run",), ("validate",), ("backup", "create"), ("selftest", "create-data")):
        answer = command(*args, TARGET_DATABASE_URL=NOWHERE)
        assert answer.code == 1, args
        assert answer.is_one_line("The database 127.0.0.1/nowhere does not answer"), args
    for args in (("status",), ("check",), ("release",), ("token", "list")):
        answer = command(*args, DATABASE_URL=NOWHERE)
        assert answer.code == 1, args
        assert answer.is_one_line("The app database does not answer.", "DATABASE_URL"), args
    answer = command("worker", "--burst", REDIS_URL="redis://:not-to-be-shown@127.0.0.1:1")
    assert answer.code == 1
    assert answer.is_one_line("Redis does not answer")
    answer = command("check", TARGET_DATABASE_URL=NOWHERE)
    assert answer.code == 4
    assert "not-to-be-shown" not in answer.out


def test_app_database_without_our_tables(command: Command, environ: dict[str, str]) -> None:
    answer = command("status", DATABASE_URL=environ["TARGET_DATABASE_URL"])
    assert answer.code == 1
    assert answer.is_one_line("not at this version's revision", "briefly-admin release")
    answer = command("release", DATABASE_URL=environ["TARGET_DATABASE_URL"])
    assert (answer.code, answer.out) == (0, "The app database is up to date.\n")
    assert command("status", DATABASE_URL=environ["TARGET_DATABASE_URL"]).code == 0


def test_home_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = command("status", BRIEFLY_HOME=str(tmp_path / "file" / "home"))
    assert answer.code == 2
    assert answer.is_one_line("BRIEFLY_HOME:")


def test_reader_who_goes_away_is_no_error(environ: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "briefly_admin.cli", "plans"], cwd=CHECKOUT, env={**os.environ, **environ}, check=False,
        stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert done.stderr == ""


def test_full_disk_is_one_line(environ: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "briefly_admin.cli", "plans"], cwd=CHECKOUT, env={**os.environ, **environ},
            check=False, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "briefly-admin: No space left on device.\n")


def test_help_of_every_command(command: Command) -> None:
    assert command("--version").out.startswith("briefly-admin, version ")
    assert "130 interrupted" in command("--help").out
    for name, found in main.commands.items():
        assert command(name, "--help").out.startswith(f"Usage: briefly-admin {name} "), name
        for inner in getattr(found, "commands", {}):
            assert command(name, inner, "-h").code == 0
