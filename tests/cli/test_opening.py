"""`backup open`: from the app, and from nothing but the store, the keys and the escrow file."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from briefly_admin.cli import main, opening
from briefly_admin.cli.up import CHECKOUT
from briefly_admin.vault.escrow import Escrow
from briefly_admin.vault.vault import Vault
from tests.cli.conftest import TABLES, Answer, Command
from tests.vault.sample_backups import KEYS, Sample

BACKUP_KEYS = ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in KEYS.items())
OTHER_KEY = f"other:{base64.b64encode(bytes(32)).decode()}"


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path / "store")


def escrow_of(sample: Sample) -> Escrow:
    return Escrow(
        sample.backup_id, "backup_1782000000000", sample.manifest.created_at, sample.shred_key, sample.sha256,
        ("first",),
    )  # fmt: skip


@pytest.fixture
def escrow(sample: Sample, tmp_path: Path) -> Path:
    file = tmp_path / "escrow.json"
    file.write_bytes(escrow_of(sample).to_bytes())
    return file


@pytest.fixture
def environ_alone(sample: Sample, tmp_path: Path) -> dict[str, str]:
    """Neither databases nor Redis nor a home."""
    return {
        "BACKUP_STORE_URL": f"file://{sample.root}", "BACKUP_KEYS": BACKUP_KEYS, "BRIEFLY_HOME": str(tmp_path / "none"),
    }  # fmt: skip


@pytest.fixture
def alone(environ_alone: dict[str, str]) -> Command:
    def call(*args: str, **settings: str | None) -> Answer:
        result = CliRunner().invoke(main, ["backup", "open", *args], env=environ_alone | settings)
        return Answer(result.exit_code, result.stdout, result.stderr)

    return call


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def test_a_backup_is_opened_from_the_app_and_that_is_recorded(
    command: Command, environ: dict[str, str], tmp_path: Path
) -> None:
    assert command("selftest", "create-data").code == 0
    name = command("backup", "create", "--json").lines[-1]["backup_id"]
    answer = command("backup", "open", name, str(tmp_path / "out"))
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0].startswith("users: 5 rows, ")
    assert (
        answer.out.splitlines()[-1] == f"{name} is in {tmp_path / 'out'}: 139 rows in 8 tables; tables.sql loads them."
    )
    with psycopg.connect(environ["TARGET_DATABASE_URL"]) as connection:
        connection.execute("SET timezone TO 'UTC'")
        for table in TABLES:
            with connection.cursor().copy(f"COPY {table} TO STDOUT (FORMAT csv, HEADER)".encode()) as copy:
                printed = b"".join(map(bytes, copy))
            assert sorted((tmp_path / "out" / f"{table}.csv").read_bytes().splitlines()) == sorted(printed.splitlines())
    events = [event for event in json.loads(command("audit", "list", "--json").out) if event["action"] == "backup.open"]
    assert [event["object"] for event in events] == [name]
    assert command("backup", "open", "backup_1", str(tmp_path / "new")).code == 2
    assert command("backup", "open", str(tmp_path / "new")).code == 2
    assert command("backup", "purge", name, "--yes").code == 0
    gone = command("backup", "open", name, str(tmp_path / "new"))
    assert gone.code == 5
    assert not (tmp_path / "new").exists()


def test_the_escrow_file_of_the_app_opens_it_without_the_app(
    command: Command, environ: dict[str, str], tmp_path: Path, alone: Command
) -> None:
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    file = tmp_path / "kept.json"
    assert command("backup", "create", "--escrow", str(file), BACKUP_KEYS=BACKUP_KEYS).code == 0
    store = f"file://{environ['BRIEFLY_HOME']}/backups"
    answer = alone(str(tmp_path / "out"), "--escrow", str(file), "--format", "ndjson", "--json", BACKUP_STORE_URL=store)
    assert (answer.code, answer.err) == (0, "")
    (told,) = answer.lines
    assert (told["whole"], told["damages"], len(told["tables"])) == (True, [], 8)
    rows = [json.loads(line) for line in (tmp_path / "out" / "users.ndjson").read_text().splitlines()]
    with psycopg.connect(environ["TARGET_DATABASE_URL"]) as connection:
        connection.execute("SET timezone TO 'UTC'")
        found = connection.execute("SELECT row_to_json(u) FROM users AS u").fetchall()
    assert sorted(map(str, rows)) == sorted(str(row[0]) for row in found)


@pytest.mark.parametrize(("form", "suffix"), [("csv", "csv"), ("ndjson", "ndjson"), ("binary", "copy")])
def test_nothing_is_needed_but_store_keys_and_escrow_file(
    alone: Command, escrow: Path, tmp_path: Path, form: str, suffix: str
) -> None:
    out = tmp_path / "out"
    answer = alone("backup_1782000000000", str(out), "--escrow", str(escrow), "--format", form)
    assert (answer.code, answer.err) == (0, "")
    assert [line.partition(":")[0] for line in answer.out.splitlines()[:2]] == ["users", "usage logs"]
    assert names(out) == sorted(["manifest.json", "tables.sql", f"users.{suffix}", f"usage_logs.{suffix}"])
    assert (
        alone("0b1e4c1e-7d5c-4b8a-9a55-0123456789ab", f"{out}2", "--escrow", str(escrow), "--table", "users").code == 0
    )
    assert names(tmp_path / "out2") == ["manifest.json", "tables.sql", "users.csv"]


def test_the_home_has_the_store_and_the_keys_where_nothing_is_set(
    sample: Sample, alone: Command, escrow: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "backup_keys").write_text(f"{BACKUP_KEYS}\n")
    sample.root.rename(home / "backups")
    unset = {"BACKUP_KEYS": None, "BACKUP_STORE_URL": None, "BRIEFLY_HOME": str(home)}
    assert alone(str(tmp_path / "out"), "--escrow", str(escrow), **unset).code == 0
    assert names(home) == ["backup_keys", "backups"]


BAD_ESCROW: dict[str, tuple[Callable[[Escrow], bytes], str]] = {
    "cut off": (lambda escrow: escrow.to_bytes()[:100], "cut off"),
    "empty": (lambda _: b"", "no JSON"),
    "nonsense": (lambda _: bytes(range(256)), "no JSON"),
    "10 MB": (lambda _: json.dumps([0] * 4_000_000).encode(), "more than"),
    "deep": (lambda _: b"[" * 60_000, "no JSON"),
    "newer": (lambda escrow: escrow.to_bytes().replace(b'"version":1', b'"version":2'), "version is 2"),
    "another backup's key": (lambda escrow: replace(escrow, shred_key=bytes(32)).to_bytes(), "shred key"),
    "another manifest": (lambda escrow: replace(escrow, manifest_sha256="0" * 64).to_bytes(), "swapped"),
}


@pytest.mark.parametrize("what", BAD_ESCROW)
def test_an_escrow_file_that_is_none(sample: Sample, alone: Command, tmp_path: Path, what: str) -> None:
    make, said = BAD_ESCROW[what]
    file = tmp_path / "bad.json"
    file.write_bytes(make(escrow_of(sample)))
    answer = alone(str(tmp_path / "out"), "--escrow", str(file))
    assert answer.code == 5
    assert answer.is_one_line(said)
    assert names(tmp_path / "out") == []


def test_a_key_that_is_missing_wrong_or_malformed(alone: Command, escrow: Path, tmp_path: Path) -> None:
    arguments = (str(tmp_path / "out"), "--escrow", str(escrow))
    answer = alone(*arguments, BACKUP_KEYS=OTHER_KEY)
    assert answer.code == 5
    assert answer.is_one_line("sealed with the key first; BACKUP_KEYS has only other", "Add the key with the id first")
    answer = alone(*arguments, BACKUP_KEYS=OTHER_KEY.replace("other", "first"))
    assert answer.code == 5
    assert answer.is_one_line("first is not the one that sealed this backup")
    answer = alone(*arguments, BACKUP_KEYS=None)
    assert answer.code == 2
    assert answer.is_one_line("BACKUP_KEYS: is not set", str(tmp_path / "none"))
    answer = alone(*arguments, BACKUP_KEYS="x")
    assert answer.code == 2
    assert not (tmp_path / "none").exists()
    assert not (tmp_path / "out").exists()


def test_a_store_without_the_backup(sample: Sample, alone: Command, escrow: Path, tmp_path: Path) -> None:
    arguments = (str(tmp_path / "out"), "--escrow", str(escrow))
    answer = alone(*arguments, BACKUP_STORE_URL=f"file://{tmp_path}/elsewhere")
    assert answer.code == 5
    assert answer.is_one_line("holds nothing of backup_1782000000000", "another store, or the backup was deleted")
    assert not (tmp_path / "elsewhere").exists()
    sample.vault.destroy(sample.backup_id)
    answer = alone(*arguments)
    assert answer.code == 5
    assert answer.is_one_line("holds nothing of backup_1782000000000")
    assert alone(*arguments, BACKUP_STORE_URL="ftp://host/").code == 2


def test_a_version_that_is_not_read(alone: Command, tmp_path: Path) -> None:
    sample = Sample(tmp_path / "old")
    vault = Vault(sample.store, KEYS)
    sample.vault.destroy(sample.backup_id)
    writer = vault.begin(sample.backup_id)
    sha256 = writer.finish(replace(sample.manifest, tables=(), format_version=9))
    file = tmp_path / "escrow9.json"
    file.write_bytes(replace(escrow_of(sample), shred_key=writer.shred_key, manifest_sha256=sha256).to_bytes())
    answer = alone(str(tmp_path / "out"), "--escrow", str(file), BACKUP_STORE_URL=f"file://{sample.root}")
    assert answer.code == 5
    assert answer.is_one_line("format version is 9; this program reads 1")


def test_wrong_usage(alone: Command, escrow: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    answer = alone(str(tmp_path / "full"), "--escrow", str(escrow))
    assert answer.code == 2
    assert answer.is_one_line("full is not empty")
    assert names(tmp_path / "full") == ["mine"]
    answer = alone(str(tmp_path / "out"), "--escrow", str(escrow), "--table", "user", "--table", "users")
    assert answer.code == 2
    assert answer.is_one_line("no table user", "It has users, usage logs")
    answer = alone("backup_2", str(tmp_path / "out"), "--escrow", str(escrow))
    assert answer.code == 2
    assert answer.is_one_line("the escrow file of backup_1782000000000, not of backup_2")
    for arguments in (("--escrow", str(escrow)), (str(tmp_path / "out"), "--escrow", str(tmp_path / "missing"))):
        assert alone(*arguments).code == 2
    assert alone(str(tmp_path / "out"), "--escrow", str(escrow), "--format", "xlsx").code == 2
    assert not (tmp_path / "out").exists()


def test_damage_is_listed_and_whole_tables_are_there(
    sample: Sample, alone: Command, escrow: Path, tmp_path: Path
) -> None:
    data = bytearray(sample.path(1).read_bytes())
    data[-1] ^= 1
    sample.path(1).write_bytes(data)
    sample.path(2).unlink()
    answer = alone(str(tmp_path / "out"), "--escrow", str(escrow))
    assert answer.code == 5
    assert answer.out.splitlines()[-2:] == [
        "public.users, stream 1, chunk 0: is not what was sealed",
        "public.users, stream 2: is missing",
    ]
    assert answer.out.startswith("usage logs: 40 rows, ")
    assert "1 of 2 tables were not written" in answer.err
    assert names(tmp_path / "out") == ["manifest.json", "tables.sql", "usage_logs.csv"]
    answer = alone(str(tmp_path / "out2"), "--escrow", str(escrow), "--json")
    assert answer.code == 5
    (told,) = answer.lines
    assert (told["whole"], len(told["damages"]), len(told["tables"])) == (False, 2, 1)


def test_nohup_is_heeded() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with opening._interruptible():
            signal.raise_signal(signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_no_half_file(tmp_path: Path, number: signal.Signals) -> None:
    sample = Sample(tmp_path / "store", rows=25_000)
    file = tmp_path / "escrow.json"
    file.write_bytes(escrow_of(sample).to_bytes())
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "briefly_admin.cli", "backup", "open", str(out), "--escrow", str(file), "--format", "ndjson"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "BACKUP_STORE_URL": f"file://{sample.root}", "BACKUP_KEYS": BACKUP_KEYS},
    )  # fmt: skip
    try:
        while not any(name.endswith(".partial") for name in names(out)):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.communicate()
    assert not [name for name in names(out) if name.startswith(".") or name == "manifest.json"]
