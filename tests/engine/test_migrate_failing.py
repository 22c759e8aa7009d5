"""Batches that fail: halved after a timeout, bisected down to the rows, whatever the constraint and its time."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.config import BatchSize, RunConfig
from briefly_admin.domain.errors import RunFailed
from briefly_admin.engine import fence, migrate
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Connection, Target
from tests.engine.test_migrate import LOUD, add_trigger, changed_rows
from tests.engine.writing_bench import Bench, contents, fill, oracle, same


@dataclass(frozen=True, slots=True)
class HastyTarget(Target):
    """Its statements time out after 400 ms, so that a test need not wait for 5 s."""

    def connect(self, *, bulk: bool = False) -> Connection:
        connection = Target.connect(self, bulk=bulk)
        if not bulk:
            connection.execute("SET statement_timeout TO '400ms'")
        return connection


def led(context: RunContext) -> dict[str, Any]:
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    try:
        return migrate.run(context)
    finally:
        lead.release()


def sizes(bench: Bench) -> list[int]:
    """Rows of each batch of the users, as the debug log has them."""
    found = (re.fullmatch(r'us "ers" 100%s: (\d+) rows, \d+ changed', line) for _, line, _ in bench.record.lines)
    return [int(each[1]) for each in found if each]


def test_a_batch_that_takes_too_long_is_halved(target_database: str) -> None:
    before = fill(target_database)
    add_trigger(target_database, "PERFORM pg_sleep(0.02); RETURN NEW;", when="true")
    bench = Bench(target_database)
    context = bench.context(batch_size=60, retry_delay=1, debug=True)
    result = led(replace(context, target=HastyTarget(target_database)))
    assert same(contents(target_database), oracle(before))
    assert result["changed"] == changed_rows(before)
    assert any("SQLSTATE 57014" in line for level, line, _ in bench.record.lines if level == "warning")
    assert max(sizes(bench)) < 60
    assert {60, max(sizes(bench))} <= {each.batch_size for each in bench.progress} | {60}


def test_one_row_that_takes_too_long_fails_after_all_tries(target_database: str) -> None:
    before = fill(target_database)
    add_trigger(target_database, "PERFORM pg_sleep(2); RETURN NEW;", when="OLD.id = 7")
    with psycopg.connect(target_database) as connection:
        connection.execute('UPDATE "us ""ers"" 100%s" SET "ti er%" = NULL, secret = \'mine\' WHERE id = 6')
    bench = Bench(target_database)
    context = bench.context(batch_size=60, retry_delay=1, max_retries=2)
    assert before['us "ers" 100%s'][7] != oracle(before)['us "ers" 100%s'][7]
    with pytest.raises(RunFailed, match=r"failed 3 times in a row.*57014") as caught:
        led(replace(context, target=HastyTarget(target_database)))
    assert "mine" not in str(caught.value)
    assert caught.value.remedy


def test_a_deferred_constraint_that_fails_at_commit_is_told_by_its_name(target_database: str) -> None:
    before = fill(target_database, 3)
    with psycopg.connect(target_database) as connection:
        connection.execute("UPDATE files SET chunks = NULL")
        connection.execute(
            "ALTER TABLE files ADD CONSTRAINT one_each UNIQUE (user_id, chunks) DEFERRABLE INITIALLY DEFERRED"
        )
    before["files"] = [(id_, user % 4, None, heavy) for id_, user, _, heavy in before["files"]]
    with psycopg.connect(target_database) as connection:
        connection.execute("UPDATE files SET user_id = user_id % 4")
    wanted = {(row[1], row[2]) for row in oracle(before)["files"]}
    bench = Bench(target_database)
    result = bench.lead(migrate.run, batch_size=50, on_invalid="skip")
    assert result["skipped"] == len(before["files"]) - len(wanted) > 1
    assert {(row.table, row.cause, row.sqlstate, row.constraint) for row in bench.record.quarantine.values()} == {
        ("files", "constraint", "23505", "one_each")
    }
    assert not any("(" in row.message or "=" in row.message for row in bench.record.quarantine.values())
    filled = [(row[1], row[2]) for row in contents(target_database)["files"] if row[2] is not None]
    assert set(filled) == wanted
    assert len(filled) == len(wanted)


def test_more_bad_rows_than_max_skipped_lose_nothing_and_the_run_goes_on(target_database: str) -> None:
    before = fill(target_database, 5)
    add_trigger(target_database, LOUD)
    bench = Bench(target_database)
    with pytest.raises(RunFailed, match="maxSkipped"):
        bench.lead(migrate.run, batch_size=9, on_invalid="skip", max_skipped=0)
    assert not bench.record.quarantine
    with psycopg.connect(target_database) as connection:
        connection.execute('DROP TRIGGER refuse ON "us ""ers"" 100%s"')
    result = bench.lead(migrate.run, batch_size=9, on_invalid="skip", max_skipped=0)
    assert (result["looked"], result["changed"], result["skipped"]) == (400, changed_rows(before), 0)
    assert same(contents(target_database), oracle(before))


def test_the_batch_size_changes_while_it_runs_to_auto_and_back(target_database: str) -> None:
    before = fill(target_database, users=400)
    bench = Bench(target_database)
    wanted: Iterator[BatchSize] = iter([5] * 30 + ["auto"] * 20)

    def read() -> RunConfig:
        return RunConfig(batch_size=next(wanted, 3), validate_data=False, create_backup=False, debug=True)

    bench.lead(migrate.run, read_config=read)
    assert same(contents(target_database), oracle(before))
    assert 5 in sizes(bench)
    assert max(sizes(bench)) > 5
    assert sizes(bench)[-2] == 3
