"""The way out of quarantine from the command line: findings, causes, corrections, fixes, skips, replay."""

import csv
import io
import json
from typing import Any

import psycopg

from tests.cli.conftest import NOWHERE, Answer, Command
from tests.quarantined import break_emails, email_of

TIER = ("--field", "subscription_tier", "--rule", "one_of")


def told(answer: Answer) -> Any:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def tiers(target: str) -> int:
    with psycopg.connect(target) as connection:
        found = connection.execute("SELECT count(*) FROM users WHERE subscription_tier = 'gold'").fetchone()
    return int(found[0]) if found else 0


def gild(target: str, number: int) -> None:
    """Give so many users a tier that there is not."""
    with psycopg.connect(target) as connection:
        connection.execute(
            "UPDATE users SET subscription_tier = 'gold' WHERE id IN (SELECT id FROM users ORDER BY id DESC LIMIT %s)",
            [number],
        )


def test_dirty_rows_are_cured_until_the_run_completes(
    command: Command, target_database: str, sample_data: dict[str, int]
) -> None:
    assert sample_data
    first, second = break_emails(target_database, 2)
    gild(target_database, 2)
    assert command("run", "--set", "onInvalid=skip", "--set", "createBackup=false").code == 0
    causes = told(command("quarantine", "list", "--json"))
    assert [(c["table"], c["cause"], c["rows"], c["replayable"]) for c in causes] == [
        ("users", "email", 2, True), ("users", "one_of", 2, True),
    ]  # fmt: skip
    listed = command("quarantine", "list")
    assert listed.out.splitlines()[0].split()[:5] == ["run", "table", "field", "cause", "rows"]
    shown = command("quarantine", "show", "users", first)
    assert "must be an e-mail address" in shown.out
    assert f"nonsense {first}" in shown.out
    row = told(command("quarantine", "show", "users", first, "--json"))
    assert (row["blocks"], row["skipped"]) == (True, None)

    refused = command("quarantine", "correct", "users", first, "--set", "email=still nonsense")
    assert refused.code == 2
    assert refused.is_one_line("email", "must be an e-mail address")
    done = command(
        "quarantine", "correct", "users", first, "--set", "email=a=b@example.com", "--version", row["version"]
    )
    assert (done.code, done.out) == (0, f"Corrected: users {first}.\n")
    assert email_of(target_database, first) == "a=b@example.com"
    again = command(
        "quarantine", "correct", "users", first, "--set", "email=x@example.com", "--version", row["version"]
    )
    assert again.code == 4
    assert again.is_one_line("changed meanwhile by somebody else")

    check_fixes(command, target_database)
    check_skips_and_replays(command, second)


def check_fixes(command: Command, target_database: str) -> None:
    preview = command("quarantine", "correct", "users", *TIER, "--set", "subscription_tier=free")
    assert preview.code == 0
    assert preview.out.count("gold") == 2
    assert "--confirm 2" in preview.out.splitlines()[-1]
    moved = command("quarantine", "correct", "users", *TIER, "--set", "subscription_tier=free", "--confirm", "3")
    assert moved.code == 4
    assert tiers(target_database) == 2
    fixed = told(
        command("quarantine", "correct", "users", *TIER, "--run", "1", "--set", "subscription_tier=free", "--confirm", "2",
                "--json")
    )  # fmt: skip
    assert (fixed["rows"], fixed["cured"], tiers(target_database)) == (2, 2, 0)


def check_skips_and_replays(command: Command, second: str) -> None:
    assert command("quarantine", "skip", "users", second, "--reason", "asked for").code == 0
    rows = told(command("quarantine", "list", "1", "--json"))
    assert {(tuple(r["key"]), r["skipped"]) for r in rows if r["skipped"]} == {((second,), "asked for")}
    assert sum(bool(r["corrected_at"]) for r in rows) == 3
    assert "left alone: asked for" in command("quarantine", "list", "1").out
    assert "It is left alone: asked for" in command("quarantine", "show", "users", second).out

    nothing = command("quarantine", "replay", "1", "--table", "users", "--key", second)
    assert nothing.code == 4
    replayed = command("quarantine", "replay", "1", "--table", "users", "--cause", "one_of", "--json")
    assert replayed.code == 0, replayed.err
    assert (replayed.lines[-1]["kind"], replayed.lines[-1]["status"]) == ("replay", "completed")
    assert [c["cause"] for c in told(command("quarantine", "list", "--json"))] == ["email"]

    assert command("quarantine", "unskip", "users", second).code == 0
    assert command("quarantine", "unskip", "users", second).code == 2
    assert command("quarantine", "correct", "users", second, "--set", "email=c@example.com").code == 0
    replayed = command("quarantine", "replay", "1")
    assert replayed.code == 0, replayed.err
    assert told(command("status", "1", "--json"))["status"] == "completed"
    assert command("quarantine", "list").out == "No row is in quarantine.\n"
    assert command("quarantine", "replay", "1").code == 4


def test_findings_go_into_files_beside_those_before(
    command: Command, target_database: str, sample_data: dict[str, int]
) -> None:
    assert sample_data
    keys = break_emails(target_database, 3)
    assert command("validate").code == 3
    with psycopg.connect(target_database) as connection:
        connection.execute("UPDATE users SET email = id || '@example.com' WHERE id = %s::uuid", [keys[0]])
    gild(target_database, 1)
    answer = command("validate")
    assert "run 1  what" in answer.out
    rows = list(csv.DictReader(io.StringIO(command("findings", "--csv").out)))
    assert [(row["rule"], row["rows"], row["rows_before"]) for row in rows] == [
        ("email", "2", "3"),
        ("one_of", "1", "0"),
    ]
    lines = command("findings", "2", "--ndjson").lines
    assert [(line["rule"], line["count"], line["before"]) for line in lines] == [("email", 2, 3), ("one_of", 1, 0)]
    assert command("findings", "1", "--ndjson").lines[0]["before"] is None
    with psycopg.connect(target_database) as connection:
        connection.execute("UPDATE users SET email = id || '@example.com'")
    assert command("validate").code == 3
    assert "Gone since run 2: users.email must be an e-mail address (2 rows)." in command("findings").out
    assert command("findings", "--csv", "--json").code == 2


def test_a_secret_is_read_from_standard_input(
    command: Command, target_database: str, sample_data: dict[str, int]
) -> None:
    assert sample_data
    with psycopg.connect(target_database) as connection:
        (key,) = connection.execute("SELECT id::text FROM oauth_tokens LIMIT 1").fetchone() or ("",)
    args = ("quarantine", "correct", "oauth_tokens", key, "--secret", "access_token", "--secret", "refresh_token")
    answer = command(*args, input="canary-one\ncanary-two\n")
    assert answer.code == 0, answer.err
    with psycopg.connect(target_database) as connection:
        found = connection.execute("SELECT access_token, refresh_token FROM oauth_tokens WHERE id::text = %s", [key])
        assert found.fetchone() == ("canary-one", "canary-two")
    shown = command("quarantine", "show", "oauth_tokens", key)
    assert "(secret)" in shown.out
    assert (
        "canary"
        not in answer.out + answer.err + shown.out + command("quarantine", "show", "oauth_tokens", key, "--json").out
    )
    assert "canary" not in command("audit", "list", "--json").out
    assert command(*args, input="one line alone\n").is_one_line("no line for 'refresh_token'")


USAGE = [
    ("show",), ("show", "users"), ("correct",), ("correct", "users"), ("correct", "users", "1"),
    ("correct", "users", *TIER), ("correct", "users", "1", *TIER, "--set", "a=b"), ("skip", "users", "1"),
    ("correct", "users", "1", "--confirm", "1", "--set", "a=b"), ("correct", "users", "--field", "a", "--set", "a=b"),
    ("correct", "users", *TIER, "--set", "a=b", "--version", "1"), ("skip", "users", "--reason", "x"), ("unskip", "users"),
    ("correct", "users", *TIER, "--set", "a=b", "--confirm", "-1"), ("replay",), ("replay", "1", "2"), ("nonsense",),
    ("correct", "users", *TIER, "--set", "a=b", "--confirm", "many"),
]  # fmt: skip


def test_wrong_words_are_usage_errors(command: Command) -> None:
    for args in USAGE:
        answer = command("quarantine", *args)
        assert answer.code == 2, args
        assert answer.err.startswith("Usage: briefly-admin quarantine"), args


def test_what_cannot_be_is_one_line(command: Command, target_database: str, sample_data: dict[str, int]) -> None:
    assert sample_data
    (key,) = break_emails(target_database, 1)
    for args, words in [
        (("show", "nowhere", "1"), "no table of that name"), (("show", "pg_authid", "1"), "no table of that name"),
        (("show", "users", "00000000-0000-4000-8000-000000000000"), "users"), (("show", "users", "a", "b"), "key"),
        (("correct", "users", key, "--set", "email"), "COLUMN=TEXT"), (("correct", "users", key, "--set", "=x"), "COLUMN=TEXT"),
        (("correct", "users", key, "--set", "email=x", "--null", "email"), "twice"),
        (("correct", "users", key, "--set", "email=a@b.example", "--version", ""), "--version is empty."),
        (("correct", "users", key, "--set", "nowhere=x"), "nowhere"), (("correct", "users", key, "--set", "id=x"), "id"),
        (("correct", "users", key, "--null", "email"), "email"),
        (("correct", "users", key, "--set", "usage_documents=many"), "usage_documents"),
        (("correct", "nowhere", *TIER, "--set", "a=b"), "no table of that name"), (("skip", "users", key, "--reason", " "), "reason"),
        (("correct", "users", *TIER, "--run", "99", "--set", "a=b"), "There is no such run."),
        (("replay", "99"), "There is no such run."), (("list", "99"), "There is no such run."),
        (("unskip", "users", key), "not one to be left alone"),
    ]:  # fmt: skip
        answer = command("quarantine", *args)
        assert answer.code == 2, (args, answer.err)
        assert answer.is_one_line(words), (args, answer.err)
    for args in (("list",), ("show", "users", key), ("correct", "users", key, "--set", "email=a@b.example")):
        answer = command("quarantine", *args, TARGET_DATABASE_URL=NOWHERE)
        assert answer.code == 1, args
        assert answer.is_one_line("does not answer"), (args, answer.err)
    assert command("validate").code == 3
    for args in (("replay", "1"), ("replay", "1", "--key", "x"), ("replay", "1", "--table", "nowhere")):
        assert command("quarantine", *args).code in {2, 4}, args


def test_a_key_gives_a_terminal_no_orders(command: Command, target_database: str, sample_data: dict[str, int]) -> None:
    assert sample_data
    with psycopg.connect(target_database) as connection:
        connection.execute("ALTER TABLE usage_logs ALTER id TYPE text")
        connection.execute(
            "UPDATE usage_logs SET id = E'a\\x1b[2Jb' WHERE id = (SELECT id FROM usage_logs ORDER BY id LIMIT 1)"
        )
    done = command("quarantine", "correct", "usage_logs", "a\x1b[2Jb", "--set", "action=other")
    assert (done.code, done.out.splitlines()[0]) == (0, "Corrected: usage_logs a\\x1b[2Jb."), done.err
    assert "\x1b" not in done.out
