"""Rows that somebody decided to leave alone: validated by nobody, repaired by nothing, waited for by constraints."""

from collections.abc import Callable

import pytest

from briefly_admin.domain.errors import BlockingFindings, RunFailed
from briefly_admin.domain.findings import blocking
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import constrain, expand, migrate, rehearse, validate
from briefly_admin.engine.context import RunContext
from tests.engine.shelved import BOOKS, NOTES, PLAN, Shelved, books, migration
from tests.engine.writing_bench import Bench

SOME = [*books(1, 2, 3, 4, 6, 7, 60), ("shelves", ("6",)), (NOTES.name, ("a,b", "1")), (NOTES.name, ("a", "2"))]


@pytest.fixture(scope="module")
def target_template(module_databases: Callable[[str], str]) -> str:
    return Shelved(module_databases("")).fill().dsn


@pytest.fixture
def shelved(target_database: str) -> Shelved:
    """Every bad row is to be skipped, a good one too, and some that are not there."""
    shelved = Shelved(target_database)
    for number, (table, key) in enumerate(SOME):
        shelved.skip(table, *key, reason=f"reason {number}")
    shelved.skip(BOOKS.name, "10", reason="good")
    shelved.skip(BOOKS.name, "4711")
    shelved.skip(BOOKS.name, "no number")
    shelved.skip(NOTES.name, "a")  # of an older version of the table
    shelved.skip("gone", "1")
    return shelved


def test_a_validation_leaves_them_aside_and_says_how_many(shelved: Shelved) -> None:
    bench = Bench(shelved.dsn, PLAN, RunKind.VALIDATION)
    bench.record.skips = shelved.skips
    result = validate.run(bench.context())
    assert result["valid"]
    assert result["skipped"] == {"shelves": 1, BOOKS.name: 8, NOTES.name: 2}
    assert not blocking(bench.record.findings[Phase.VALIDATE])
    bench.record.skips = shelved.skips[1:]
    assert not validate.run(bench.context())["valid"]


@pytest.mark.parametrize(
    "config", [{"on_invalid": "stop"}, {"max_skipped": 0}, {"validate_data": False, "on_invalid": "stop"}]
)
def test_a_migration_sets_them_aside_whatever_it_does_with_others(shelved: Shelved, config: dict[str, object]) -> None:
    before = shelved.rows('SELECT * FROM "boo""ks %" WHERE id IN (1, 2, 3, 4, 6, 7, 10, 60) ORDER BY id')
    report = shelved.migrate(lambda context: {"validate": validate.run(context), **migration(context)}, **config)
    assert report["migrate"]["skipped"] == 11
    assert set(shelved.record.quarantine) == {*SOME, *books(10)}
    assert {row.cause for row in shelved.record.quarantine.values()} == {"skipped"}
    assert shelved.record.quarantine[books(2)[0]].message == "reason 1"
    assert shelved.rows('SELECT * FROM "boo""ks %" WHERE id IN (1, 2, 3, 4, 6, 7, 10, 60) ORDER BY id') == before
    assert shelved.book(12)[1:3] == ("free", "c12")
    assert report["constrain"]["waiting"] == 6
    assert shelved.changes()["pages %"] == ("waiting", "waiting for 3 rows")


def test_others_still_count(shelved: Shelved) -> None:
    del shelved.skips[1:3]
    with pytest.raises(BlockingFindings):
        shelved.migrate(validate.run, on_invalid="stop")
    with pytest.raises(RunFailed, match="maxSkipped allows"):
        shelved.migrate(migrate.run, max_skipped=1)
    shelved.migrate(migrate.run, max_skipped=2)
    assert len(shelved.aside()) == 11
    assert shelved.aside()[books(2)[0]] == ("one_of", "tier")


def test_a_rehearsal_leaves_them_alone_without_a_trace(shelved: Shelved) -> None:
    bench = Bench(shelved.dsn, PLAN)
    bench.record.skips = shelved.skips
    report = rehearse.run(bench.context(dry_run=True, on_invalid="skip", validate_data=True))
    assert report["skipped"] == 11
    assert report["failed"] == 0
    assert shelved.rows("SELECT to_regnamespace('briefly_migration')") == [(None,)]
    bench.record.skips = []
    assert rehearse.run(bench.context(dry_run=True))["tables"][1]["changed"] == 60
    bench.record.skips = shelved.skips
    assert rehearse.run(bench.context(dry_run=True))["tables"][1]["changed"] == 52


def test_a_row_skipped_since_the_batches_keeps_constraints_waiting(shelved: Shelved) -> None:
    late, shelved.skips[:] = shelved.skips[6], [*shelved.skips[:6], *shelved.skips[7:]]

    def phases(context: RunContext) -> dict[str, object]:
        expand.run(context)
        migrate.run(context)
        shelved.skips.append(late)
        return constrain.run(context)

    shelved.migrate(phases, validate_data=False, on_invalid="stop")
    assert shelved.record.quarantine[late.table, late.key].cause == "skipped"
    assert shelved.changes()["books_code_key"] == ("waiting", "waiting for 1 row")
