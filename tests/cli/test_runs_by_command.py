"""Validate, run, roll back and look, from the command line: what is printed and with which exit code."""

import json

import psycopg

from tests.cli.conftest import Command, column_of, contents


def test_dirty_data_all_the_way_and_back(command: Command, target_database: str) -> None:
    assert command("selftest", "create-data", "--dirty", "20", "--embeddings", "none").code == 0
    before = contents(target_database)

    answer = command("validate")
    assert answer.code == 3
    assert "blocking    users" in answer.out
    assert "repairable  usage_logs" in answer.out
    assert "findings block a migration." in answer.err
    last = command("validate", "--json").lines[-1]
    assert last["valid"] is False
    assert {f["class"] for f in last["findings"]} == {"blocking", "repairable", "notice"}
    assert command("findings", "1").out in answer.out
    assert "run 1  what" in command("findings").out
    assert json.loads(command("findings", last["id"], "--json").out) == last["findings"]

    answer = command("run")
    assert answer.code == 3
    assert "Validation found" in answer.err
    assert "(1 row)" in answer.err
    assert answer.out == "preflight\nvalidate\n"
    assert contents(target_database) == before

    answer = command("run", "--json", "--set", "onInvalid=skip", "--config", '{"batchSize": 7}')
    assert answer.code == 0, answer.err
    assert {line["phase"] for line in answer.lines} >= {"preflight", "backup", "migrate", "verify"}
    done = answer.lines[-1]
    assert (done["status"], done["rollback_available"]) == ("completed_with_skips", True)
    assert (done["config"]["batchSize"], done["config"]["onInvalid"]) == (7, "skip")
    assert contents(target_database) != before
    assert "users" in column_of(command("quarantine", "list", done["id"]).out, 0)
    assert json.loads(command("quarantine", "list", done["id"], "--json").out)[0]["key"]

    name = done["backup_id"]
    check_previews(command, name)
    migrated = contents(target_database)
    refused = command("rollback", name)
    assert refused.code == 4
    assert refused.is_one_line("Nothing was rolled back", "--confirm")
    assert contents(target_database) == migrated

    answer = command("rollback", name, "--confirm", "--reason", "a test")
    assert answer.code == 0, answer.err
    assert answer.out.endswith("UTC.\n")
    with psycopg.connect(target_database) as connection:
        statement = "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
        assert connection.execute(statement).fetchone() == (0,)
    assert contents(target_database) == before
    assert json.loads(command("status", done["id"], "--json").out)["status"] == "rolled_back"
    listed = command("status")
    assert column_of(listed.out, 1)[0] == "rollback"
    shown = command("status", "4").out
    assert shown.startswith(f"Run 4 ({done['id']}), migration of ")
    assert f"Backup: {name}\n" in shown


def check_previews(command: Command, name: str) -> None:
    preview = command("rollback", name, "--preview")
    assert preview.code == 0, preview.err
    assert column_of(preview.out.split("table", 1)[1].split("\n\n")[0], 0)[:2] == ["users", "file_metadata"]
    part = command("rollback", name, "--preview", "--tables", "oauth_tokens", "--json").lines[-1]
    assert list(part["preview"]["tables"]) == ["oauth_tokens"]


def test_rehearsal_commits_nothing(command: Command, target_database: str) -> None:
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    before = contents(target_database)
    answer = command("run", "--set", "dryRun=true")
    assert answer.code == 0, answer.err
    assert answer.out.endswith("nothing was committed.\n")
    assert contents(target_database) == before


def test_clean_data_are_valid_and_a_lonely_row_is_one_row(command: Command, target_database: str) -> None:
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    with psycopg.connect(target_database) as connection:
        for table in ("usage_logs", "oauth_tokens", "user_settings", "chat_messages", "document_chunks", "file_metadata",
                      "conversations"):  # fmt: skip
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM users WHERE ctid <> (SELECT min(ctid) FROM users)")
    answer = command("validate")
    assert answer.code == 0, answer.err
    assert "Nothing was found.\nDone: 1 row looked at;" in answer.out
    assert command("validate", "--json").lines[-1]["valid"] is True


def test_queued_run_is_seen_paused_cancelled_and_resumed(command: Command) -> None:
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    answer = command("run", "--no-wait")
    assert answer.code == 0
    assert answer.out.startswith("Run 1 (")
    assert "none listens" in answer.out
    assert command("pause", "1").is_one_line("Run 1 is pending: pause is not possible", "cancel")
    busy = command("run", "--no-wait")
    assert busy.code == 4
    assert busy.is_one_line("Run 1 (migration, pending) holds the target.")
    answer = command("cancel", "1")
    assert answer.code == 0
    assert answer.out.startswith("Run 1 (")
    assert "Cancelled by cli:" in answer.out
    assert command("cancel", "1").code == 4
    resumed = command("resume", "1", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.lines[-1]["status"] == "completed"
    assert "To roll it back" in command("run", "--set", "createBackup=true").out


def test_target_without_the_tables_is_refused_before_anything_changes(command: Command) -> None:
    answer = command("run")
    assert answer.code == 4
    assert "Missing: public.users" in answer.err
    answer = command("check")
    assert answer.code == 4
    assert "RED" in answer.out
    data = json.loads(command("check", "--json").out)
    assert data["colour"] == "red"
    assert {"name", "title", "colour", "found", "remedy"} == set(data["checks"][0])


def test_check_of_a_good_target(command: Command) -> None:
    assert command("selftest", "create-data", "--embeddings", "none").code == 0
    answer = command("check")
    assert answer.code == 0
    assert "RED" not in answer.out
