"""The rehearsal: tells what would happen, and commits nothing."""

from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import Stopped
from briefly_admin.engine import rehearse
from tests.engine.test_constrain import catalog
from tests.engine.test_migrate import LOUD, add_trigger, changed_rows, spoiled
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
