"""The rehearsal: tells what would happen, and commits nothing."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import RunFailed, Stopped, Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.engine import migrate, rehearse
from tests.engine.test_constrain import catalog
from tests.engine.test_migrate import LOUD, add_trigger, changed_rows, spoiled, stopping_after
from tests.engine.writing_bench import Bench, contents, fill, oracle, same


def by_table(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {table["table"]: table for table in result["tables"]}


@pytest.mark.parametrize("batch_size", [7, 100])
def test_tells_what_would_change_and_commits_nothing(target_database: str, batch_size: int) -> None:
    before = fill(target_database)
    shape = catalog(target_database)
    result = rehearse.run(Bench(target_database).context(dry_run=True, batch_size=batch_size))
    assert same(contents(target_database), before)
    assert catalog(target_database) == shape
    with psycopg.connect(target_database) as connection:
        assert connection.execute("SELECT to_regnamespace('briefly_migration')").fetchone() == (None,)
        assert connection.execute("SELECT count(*) FROM pg_class WHERE relname LIKE '%briefly%'").fetchone() == (0,)
    assert (result["looked"], result["changed"], result["failed"]) == (400, changed_rows(before), 0)
    after = oracle(before)
    users = by_table(result)['us "ers" 100%s']
    assert users["total"] == 60
    assert users["rows_per_second"] > 0
    tier, secret = users["repairs"]
    assert tier["count"] == sum(row[1] is None for row in before['us "ers" 100%s'])
    assert len(tier["samples"]) == min(20, tier["count"])
    assert {(s["before"], s["after"]) for s in tier["samples"]} == {(None, "free")}
    assert {(s["before"], s["after"]) for s in secret["samples"]} == {("•••", "•••")}
    numbers = {(row[0], str(row[1])): row[3] for row in after["chu%nks"]}
    for sample in by_table(result)["chu%nks"]["repairs"][0]["samples"]:
        part, number = sample["key"].split(", ")
        assert numbers[part, number] == int(sample["after"])


def test_missing_columns_are_rehearsed_by_query(target_database: str) -> None:
    fill(target_database)
    with psycopg.connect(target_database) as connection:
        connection.execute("ALTER TABLE files DROP COLUMN heavy, DROP COLUMN chunks")
    result = rehearse.run(Bench(target_database).context(dry_run=True))
    files = by_table(result)["files"]
    assert (files["looked"], files["changed"]) == (40, 40)
    assert [repair["count"] for repair in files["repairs"]] == [40, 40]
    assert files["repairs"][0]["samples"][0]["before"] is None


def test_failures_are_told_by_cause_without_their_data(target_database: str) -> None:
    before = fill(target_database, 5)
    add_trigger(target_database, LOUD)
    result = rehearse.run(Bench(target_database).context(dry_run=True, batch_size=11))
    (failure,) = by_table(result)['us "ers" 100%s']["failures"]
    assert (failure["cause"], failure["sqlstate"]) == ("trigger", "P0001")
    assert {int(key) for key in failure["keys"]} == spoiled(before)
    assert "for you" not in str(result)
    assert result["changed"] == changed_rows(before) - len(spoiled(before))
    assert same(contents(target_database), before)


def test_goes_through_sample_rows_only_and_stops_when_told(target_database: str) -> None:
    fill(target_database)
    bench = Bench(target_database)
    result = rehearse.run(bench.context(dry_run=True, sample_rows=25, batch_size=10))
    assert [table["looked"] for table in result["tables"]] == [25, 25, 25]
    assert result["projected_seconds"] > 0
    with pytest.raises(Stopped):
        rehearse.run(bench.context(dry_run=True, should_stop=lambda: "cancel"))


_RELATIONS = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' ORDER BY 1
"""
_CATALOGS = ("pg_namespace", "pg_attribute", "pg_constraint", "pg_trigger", "pg_proc", "pg_index", "pg_attrdef", "pg_policy",
             "pg_rewrite", "pg_depend", "pg_sequence", "pg_statistic_ext", "pg_extension", "pg_type")  # fmt: skip


def digests(dsn: str) -> dict[str, str]:
    """MD5 of every table's rows, ours in briefly_migration among them, and of the catalog without its statistics."""
    with psycopg.connect(dsn) as connection:
        tables = [name for (name,) in connection.execute(_RELATIONS)]
        queries = {name: f"SELECT t::text FROM {name} AS t" for name in (*tables, *_CATALOGS)}
        queries["pg_class"] = """
            SELECT (to_jsonb(c) - ARRAY['relpages', 'reltuples', 'relallvisible', 'relallfrozen', 'relfrozenxid', 'relminmxid',
              'relhasindex'])::text FROM pg_class c"""
        return {
            name: connection.execute(
                f"SELECT coalesce(md5(string_agg(t, ' ' ORDER BY t)), '') FROM ({query}) AS q(t)".encode()
            ).fetchone()[0]  # type: ignore[index]  # an aggregate always gives a row
            for name, query in queries.items()
        }


def ending_sessions(dsn: str, chance: random.Random, ended: list[int]) -> Callable[[Progress], None]:
    """Ends the rehearsal's session now and then; notes how many were ended."""

    def report(_: Progress) -> None:
        if chance.random() < 0.3:
            with psycopg.connect(dsn, autocommit=True) as connection:
                query = (
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
                    "application_name = 'briefly-admin' AND datname = current_database()"
                )
                ended.append(len(connection.execute(query).fetchall()))

    return report


@pytest.mark.parametrize("begun", [False, True])
def test_commits_nothing_even_where_it_is_killed(target_database: str, begun: bool) -> None:
    fill(target_database, 5)
    add_trigger(target_database, LOUD)
    bench = Bench(target_database)
    if begun:
        with pytest.raises(RunFailed):
            bench.lead(migrate.run, batch_size=60)
    before = digests(target_database)
    assert ("briefly_migration.checkpoint" in before) is begun
    context = bench.context(dry_run=True, batch_size=5, on_invalid="skip", retry_delay=1, max_retries=10)
    undisturbed = rehearse.run(context)
    assert digests(target_database) == before
    ended: list[int] = []
    disturbed = rehearse.run(replace(context, report=ending_sessions(target_database, random.Random(1), ended)))
    assert sum(ended) > 1
    assert digests(target_database) == before
    assert [(t["looked"], t["changed"], t["failed"]) for t in disturbed["tables"]] == [
        (t["looked"], t["changed"], t["failed"]) for t in undisturbed["tables"]
    ]
    with pytest.raises(Stopped):
        rehearse.run(replace(context, should_stop=stopping_after(5)))
    assert digests(target_database) == before


def test_a_lost_leader_in_the_middle_of_a_batch_leaves_nothing(target_database: str) -> None:
    fill(target_database, 5)
    add_trigger(target_database, "PERFORM pg_sleep(0.05); RETURN NEW;", when="true")
    before, context = digests(target_database), Bench(target_database).context(dry_run=True, max_retries=0)
    failures: list[Exception] = []

    def work() -> None:
        try:
            rehearse.run(context)
        except (Unavailable, RunFailed) as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    with psycopg.connect(target_database, autocommit=True) as connection:
        ended, deadline = False, time.monotonic() + 20
        while not ended and time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep' "
                "AND datname = current_database()"
            ).fetchone()
            ended = bool(row and row[0])
    worker.join(30)
    assert ended
    assert failures
    assert digests(target_database) == before


def test_automatic_batches_grow(target_database: str) -> None:
    before = fill(target_database, users=900)
    bench = Bench(target_database)
    result = rehearse.run(bench.context(dry_run=True, batch_size="auto"))
    assert (result["looked"], result["changed"]) == (1240, changed_rows(before))
    assert max(each.batch_size for each in bench.progress) > 100
    assert same(contents(target_database), before)


def test_deferred_constraints_are_checked_inside_the_batch(target_database: str) -> None:
    fill(target_database, 3)
    with psycopg.connect(target_database) as connection:
        connection.execute("UPDATE files SET chunks = NULL, user_id = user_id % 4")
        connection.execute(
            "ALTER TABLE files ADD CONSTRAINT one_each UNIQUE (user_id, chunks) DEFERRABLE INITIALLY DEFERRED"
        )
    files = by_table(rehearse.run(Bench(target_database).context(dry_run=True)))["files"]
    (failure,) = files["failures"]
    assert (failure["cause"], failure["sqlstate"], failure["constraint"]) == ("constraint", "23505", "one_each")
    assert failure["count"] == files["failed"] == len(failure["keys"]) > 1
