"""`selftest`: all four parts in order, the seed's counts, nothing left; and what it refuses."""

import json

import psycopg

from briefly_admin.engine.sampledata import SEED_COUNTS
from tests.cli.conftest import NOWHERE, TABLES, Command


def test_whole_self_test_passes_and_leaves_nothing(command: Command, target_database: str) -> None:
    answer = command("selftest")
    assert answer.code == 0, answer.err
    assert answer.out.endswith("None of the sample rows is left.\nThe self-test passed.\n")
    made = dict(line.rsplit(maxsplit=1) for line in answer.out.splitlines()[1:9])
    assert {name: int(rows) for name, rows in made.items()} == SEED_COUNTS
    assert "Validation passed." in answer.out
    assert "Migration and rollback passed." in answer.out
    assert answer.out.count("verified") == 2
    with psycopg.connect(target_database) as connection:
        for name in TABLES:
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
        assert connection.execute("SELECT to_regclass('briefly_migration.sample')").fetchone() == (None,)
    assert command("audit", "verify").code == 0


def test_users_that_are_not_sample_data_are_refused_and_stay(command: Command, target_database: str) -> None:
    assert command("selftest", "create-data").code == 0
    with psycopg.connect(target_database) as connection:
        connection.execute("INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'somebody@example.org')")
    assert command("selftest", "create-data").is_one_line("not sample data", "TARGET_DATABASE_URL")
    assert command("selftest").code == 4
    answer = command("selftest", "cleanup")
    assert answer.code == 0, answer.err
    with psycopg.connect(target_database) as connection:
        assert connection.execute("SELECT email FROM users").fetchall() == [("somebody@example.org",)]


def test_blocking_findings_fail_the_validation_part(command: Command) -> None:
    assert command("selftest", "create-data", "--dirty", "100", "--embeddings", "none").code == 0
    answer = command("selftest", "test-validation")
    assert answer.code == 3
    assert "findings block a migration" in answer.err


def test_planted_faults_are_listed_by_name_with_what_finds_them(command: Command) -> None:
    answer = command("selftest", "create-data", "--dirty", "5", "--embeddings", "none")
    assert answer.code == 0, answer.err
    lines = [line.split(maxsplit=2) for line in answer.out.splitlines()]
    assert ["users.email.invalid", "blocking", "users.email email"] in lines
    assert ["document_chunks.chunk_index.hole", "notice", "document_chunks.chunk_index hole"] in lines
    assert ["users.settings.missing", "repairable", "users.settings null"] in lines
    made = json.loads(command("selftest", "create-data", "--dirty", "5", "--embeddings", "none", "--json").out)
    assert made["made"]["users"] > 5
    assert made["not_planted"] == []
    planted = {fault["name"]: fault for fault in made["planted"]}
    assert f"{len(planted)} rows have a fault on purpose" in answer.out
    findings = json.loads(command("validate", "--json").out.splitlines()[-1])["findings"]
    where = {(f["table"], f["field"], f["rule"], f["class"]): {s["key"] for s in f["samples"]} for f in findings}
    for name, fault in planted.items():
        for found in fault["findings"]:
            keys = where[fault["table"], found["field"], found["rule"], fault["class"]]
            assert fault["key"] in keys or found["rule"] == "unique", name


def test_clean_data_and_columns_that_rule_a_fault_out_are_told(command: Command) -> None:
    create = ("selftest", "create-data", "--embeddings", "1")
    clean = command(*create)
    assert "on purpose" not in clean.out
    brief = command(*create, "--dirty", "5", "--no-list")
    assert "rows have a fault on purpose, one each.\n" in brief.out
    assert "users.email.invalid" not in brief.out
    answer = command(*create, "--dirty", "5", "--json")
    assert json.loads(answer.out)["not_planted"] == ["document_chunks.embedding.dimension"]
    answer = command(*create, "--dirty", "5")
    assert "not planted: document_chunks.embedding.dimension" in answer.out
    assert "document_chunks.embedding.dimension  notice" not in answer.out


def test_options_out_of_bounds(command: Command) -> None:
    for options, words in (
        (("--scale", "0"), "scale: Must be from 1 to"),
        (("--dirty", "101"), "dirty: Must be from 0 to 100"),
        (("--seed", "-1"), "seed: Must be"),
        (("--embeddings", "some"), "--embeddings must be"),
        (("--scale", "many"), "'many' is not a valid integer"),
    ):
        answer = command("selftest", "create-data", *options)
        assert answer.code == 2, options
        assert words in answer.err
    assert command("selftest", "create-data", "--embeddings", "9" * 5000).code == 0


def test_without_tables_the_migration_part_fails_in_preflight(command: Command) -> None:
    answer = command("selftest", "test-migration")
    assert answer.code == 4
    assert "Missing: public.users" in answer.err


def test_unreachable_target(command: Command) -> None:
    answer = command("selftest", TARGET_DATABASE_URL=NOWHERE)
    assert answer.code == 1
    assert answer.is_one_line("127.0.0.1/nowhere does not answer")
