"""The oracle against an undisturbed run: two ways to the same data; and that it sees what is wrong."""

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest

from tests.faults import oracle
from tests.faults.databases import copy_database, drop_database
from tests.faults.ground import PLANTED, Ground, name_of
from tests.faults.harness import Field


@pytest.fixture(scope="module")
def done(common_ground: Ground) -> Iterator[tuple[oracle.Verdict, Field]]:
    """An undisturbed run's field, and what the oracle said before it."""
    with common_ground.field(lease=30) as field:
        verdict = oracle.judge(oracle.read_rows(field.environ["TARGET_DATABASE_URL"]))
        run = field.migrate(pause=0)
        field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
        yield verdict, field


def test_an_undisturbed_run_does_what_the_oracle_says(done: tuple[oracle.Verdict, Field], ground: Ground) -> None:
    verdict, field = done
    wrong = oracle.faults(verdict, field.environ["TARGET_DATABASE_URL"])
    assert wrong == [], "\n".join(wrong)
    changed = {table: counts["changed"] for table, counts in ground.undisturbed.migrate["tables"].items()}
    assert changed == {table: count for table, count in verdict.changed.items() if table in changed}
    assert sum(verdict.changed.values()) == ground.undisturbed.migrate["changed"] > 100
    assert sum(map(len, verdict.skipped.values())) == len(PLANTED)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM usage_logs WHERE id = (SELECT max(id::text)::uuid FROM usage_logs)", "is lost"),
        (
            "UPDATE usage_logs SET action = 'x' WHERE id = (SELECT max(id::text)::uuid FROM usage_logs)",
            "action: 'x', not '",
        ),
        (
            "INSERT INTO user_settings (id, user_id, key, value, created_at, updated_at) SELECT gen_random_uuid(), "  # noqa: ISC004 - one statement
            "user_id, 'new', '{}', created_at, updated_at FROM user_settings LIMIT 1",
            "came from nowhere",
        ),
        ("DELETE FROM briefly_migration.quarantine WHERE \"table\" = 'users'", "should have been skipped"),
        (
            "UPDATE briefly_migration.quarantine SET \"table\" = 'oauth_tokens' WHERE \"table\" = 'usage_logs'",
            "should not have been skipped",
        ),
    ],
)
def test_the_oracle_sees(
    done: tuple[oracle.Verdict, Field], ground: Ground, statement: LiteralString, says: str
) -> None:
    verdict, field = done
    field.services.close()
    url = copy_database(ground.servers, name_of(field.environ["TARGET_DATABASE_URL"]))
    with psycopg.connect(url) as connection:
        assert connection.execute(statement).rowcount
    found = oracle.faults(verdict, url)
    drop_database(ground.servers, url)
    assert any(says in line for line in found), found
