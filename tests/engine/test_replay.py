"""Replays: what was corrected is repaired and leaves the quarantine once; what waited for it is made."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.errors import Fenced, RunFailed, VerificationFailed
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import replay
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import blocked_among, blocked_rows
from tests.engine.shelved import BOOKS, NOTES, PLAN, Shelved, books
from tests.engine.writing_bench import Bench

N1, N2 = (NOTES.name, ("a,b", "1")), (NOTES.name, ("a", "2"))
SHELF = ("shelves", ("6",))
CURES = (
    'UPDATE "boo""ks %" SET shelf_id = 2 WHERE id IN (1, 7)', 'UPDATE "boo""ks %" SET tier = NULL WHERE id = 2',
    'UPDATE "boo""ks %" SET pages = 7 WHERE id IN (3, 4, 6, 7)', 'UPDATE "boo""ks %" SET code = \'SIXTY\' WHERE id = 60',
    "UPDATE shelves SET name = ' short ' WHERE id = 6", "UPDATE \"no%tes\" SET body = 'ok' WHERE no < 3",
)  # fmt: skip


@pytest.fixture(scope="module")
def migrated(module_databases: Callable[[str], str]) -> Shelved:
    """Migrated once; each test has a copy of the database and of the run's record."""
    shelved = Shelved(module_databases("")).fill()
    shelved.migrate()
    return shelved


@pytest.fixture(scope="module")
def target_template(migrated: Shelved) -> str:
    return migrated.dsn


@pytest.fixture
def shelved(migrated: Shelved, target_database: str) -> Shelved:
    return migrated.copied(target_database)


def test_a_migration_names_the_fields_of_what_it_sets_aside(shelved: Shelved) -> None:
    assert shelved.aside() == {
        books(1)[0]: ("foreign_key", "shelf_id"), books(2)[0]: ("one_of", "tier"), books(3)[0]: ("range", "pages"),
        books(4)[0]: ("range", "pages"), books(60)[0]: ("unique", "code"), books(6)[0]: ("odd_one", "pages"),
        books(7)[0]: ("range", "pages"), N1: ("length", "body"), N2: ("length", "body"), SHELF: ("length", "name"),
    }  # fmt: skip
    assert {row.field for row in shelved.record.quarantine.values()} >= {"shelf_id", "name"}


def test_a_few_rows_are_judged_as_all_of_them_are(target_database: str) -> None:
    anew = Shelved(target_database)
    anew.sql('DROP TABLE "boo""ks %", shelves, "no%tes"')
    anew.fill()
    with Target(target_database).session(bulk=True) as connection:
        every = list(blocked_rows(connection, PLAN))
        for table in PLAN.tables:
            keys = [tuple(key) for (key,) in connection.execute(_keys(table.name))]
            found = list(blocked_among(connection, PLAN, table, keys, beside=sql.SQL("true")))
            assert found == [row for row in every if row.table == table.name]
            some = [row.key for row in found[:2]] + [keys[-1]]
            beside = sql.SQL("true")
            expected = [row for row in found if row.key in some]
            assert list(blocked_among(connection, PLAN, table, some, beside=beside)) == expected
            assert list(blocked_among(connection, PLAN, table, [], beside=beside)) == []
        with pytest.raises(RunFailed):
            list(blocked_among(connection, PLAN, BOOKS, [("x",)], beside=sql.SQL("true")))
        assert list(blocked_among(connection, PLAN, BOOKS, [("4711",)], beside=sql.SQL("true"))) == []


def _keys(table: str) -> bytes:
    columns = '"pa rt", no::text' if table == NOTES.name else "id::text"
    return f"SELECT ARRAY[{columns}] FROM {sql.Identifier(table).as_string()}".encode()


def test_nothing_corrected_nothing_changed(shelved: Shelved) -> None:
    before, aside = shelved.rows('SELECT * FROM "boo""ks %" ORDER BY id'), shelved.aside()
    report = shelved.replay()["migrate"]
    assert {name: report[name] for name in ("looked", "changed", "skipped", "replayed", "left")} == {
        "looked": 10, "changed": 0, "skipped": 10, "replayed": 0, "left": 10,
    }  # fmt: skip
    assert shelved.rows('SELECT * FROM "boo""ks %" ORDER BY id') == before
    assert shelved.aside() == aside
    assert not shelved.record.closed


def test_corrected_rows_are_repaired_and_the_rest_stays(shelved: Shelved) -> None:
    (before,) = shelved.rows("SELECT books FROM shelves WHERE id = 2")
    shelved.sql(
        CURES[0], 'UPDATE "boo""ks %" SET pages = 3 WHERE id = 3', "UPDATE \"no%tes\" SET body = 'ok' WHERE no = 1"
    )
    # A new row of the group of a row that stays in quarantine: the sweep numbers it alone.
    shelved.sql("INSERT INTO \"boo\"\"ks %\" VALUES (101, 5, 'free', 'c101', 1, NULL)")
    report = shelved.replay()
    migrated = report["migrate"]
    assert migrated["tables"] == [
        {"table": "shelves", "looked": 1, "changed": 0, "skipped": 1},
        {"table": BOOKS.name, "looked": 7, "changed": 2, "skipped": 5},
        {"table": NOTES.name, "looked": 2, "changed": 0, "skipped": 1},
    ]
    assert (migrated["replayed"], migrated["left"]) == (3, 7)
    assert shelved.book(1) == (2, "pro", "c1", 1)
    assert shelved.book(3) == (4, "pro", "c3", 3)
    assert shelved.rows('SELECT count(*) FROM "boo""ks %" WHERE place IS NULL') == [(5,)]
    # Both corrected books count for their shelf: the sweep saw to it.
    assert shelved.rows("SELECT books FROM shelves WHERE id = 2") == [(before[0] + 2,)]
    assert set(shelved.record.closed) == {*books(1, 3), N1}
    assert shelved.last
    assert (shelved.last.record.processed, shelved.last.record.total) == (10, 10)
    moved = [each for each in shelved.last.progress if each.phase == "migrate"][-1]
    assert [(t.table, t.total, t.done, t.changed, t.skipped) for t in moved.tables] == [
        ("shelves", 1, 1, 0, 1), (BOOKS.name, 7, 7, 2, 5), (NOTES.name, 2, 2, 0, 1),
    ]  # fmt: skip
    assert set(shelved.record.closed.values()) == {shelved.last.record.run_id if shelved.last else None}
    assert shelved.changes()["pages %"] == ("waiting", "waiting for 2 rows")
    assert report["verify"]["replay"]


def test_once_all_are_cured_what_waited_is_made(shelved: Shelved) -> None:
    waited = {name for name, (state, _) in shelved.changes().items() if state == "waiting"}
    assert waited == {
        "name_short",
        "pages %",
        "books_shelf_fkey",
        "books_code_key",
        "body_short",
        "tier_not_null_check",
    }
    shelved.sql(*CURES)
    report = shelved.replay()
    assert (report["migrate"]["replayed"], report["migrate"]["left"], report["constrain"]["waiting"]) == (10, 0, 0)
    assert shelved.aside() == {}
    assert len(shelved.record.closed) == 10
    assert {shelved.changes()[name] for name in waited} == {("made", "made by a replay")}
    assert shelved.last
    mine = shelved.last.record.changes.values()
    assert {change.name for change in mine} == waited
    assert all(change.inverse and change.state == "made" for change in mine)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        shelved.sql('UPDATE "boo""ks %" SET shelf_id = 77 WHERE id = 9')
    assert shelved.rows("SELECT name, books FROM shelves WHERE id = 6") == [("short", 0)]
    assert shelved.replay()["migrate"] == {
        "tables": [],
        "looked": 0,
        "changed": 0,
        "skipped": 0,
        "replayed": 0,
        "left": 0,
    }


def test_only_what_is_in_scope_is_taken(shelved: Shelved) -> None:
    scopes: list[tuple[dict[str, Any], Sequence[object]]] = [
        ({}, [SHELF, *books(1, 2, 3, 4, 6, 60, 7), N2, N1]),
        ({"table": "shelves"}, [SHELF]),
        ({"table": BOOKS.name, "field": "pages"}, books(3, 4, 6, 7)),
        ({"field": "pages", "cause": "range"}, books(3, 4, 7)),
        ({"table": NOTES.name, "key": ["a,b", "1"]}, [N1]),
        ({"table": NOTES.name, "key": ["a", "1"]}, []),
        ({"table": BOOKS.name, "key": ["1' OR true --%s"]}, []),
        ({"field": ""}, []),
    ]
    with Target(shelved.dsn).session() as connection:
        for options, expected in scopes:
            context = shelved.context(Bench(shelved.dsn, PLAN, RunKind.REPLAY), options)
            found = replay._scopes(context, connection)
            keys = [(scope.work.table.name, key) for scope in found for key in scope.keys(connection, None, 100)]
            assert keys == list(expected)
            assert sum(scope.count(connection) for scope in found) == len(expected)
            assert [key for scope in found for key in scope.keys(connection, ("60",), 100)] == [
                key for _, key in keys if key > ("60",)
            ]
    shelved.sql(*CURES)
    report = shelved.replay(replay.run, cause="unique")
    assert set(shelved.record.closed) == set(books(60))
    assert (report["looked"], report["replayed"], report["left"]) == (1, 1, 9)


def test_a_row_that_blocks_for_another_reason_now_has_that_cause(shelved: Shelved) -> None:
    shelved.sql('UPDATE "boo""ks %" SET pages = 7 WHERE id = 7', 'UPDATE "boo""ks %" SET tier = \'no\' WHERE id = 1')
    report = shelved.replay(cause="range")
    assert report["migrate"]["looked"] == 3
    assert shelved.aside()[books(7)[0]] == ("foreign_key", "shelf_id")
    assert shelved.record.quarantine[books(7)[0]].message.endswith("no row of shelves has this id")
    assert shelved.aside()[books(1)[0]] == ("foreign_key", "shelf_id")  # was not looked at


def test_equal_rows_leave_one_of_them(shelved: Shelved) -> None:
    shelved.sql(
        'UPDATE "boo""ks %" SET pages = 7, code = \'Same\' WHERE id = 3',
        'UPDATE "boo""ks %" SET pages = 7, code = \'sAME\' WHERE id = 4',
        'UPDATE "boo""ks %" SET pages = 7, code = \'C20\', shelf_id = 1 WHERE id = 7',
    )
    shelved.replay(replay.run)
    assert shelved.aside()[books(4)[0]] == shelved.aside()[books(7)[0]] == ("unique", "code")
    assert set(shelved.record.closed) == set(books(3))
    shelved.sql('UPDATE "boo""ks %" SET code = \'other\' WHERE id = 3')
    assert shelved.replay(cause="unique")["migrate"]["replayed"] == 1
    assert shelved.book(4)[2] == "same"


def test_what_is_still_in_quarantine_does_not_stand_against_others(shelved: Shelved) -> None:
    """Book 4 keeps its fault, and a code that book 3 may have; the unique index waits for it."""
    shelved.sql(
        'UPDATE "boo""ks %" SET code = \'Same\' WHERE id IN (3, 4)', 'UPDATE "boo""ks %" SET pages = 1 WHERE id = 3'
    )
    report = shelved.replay(table=BOOKS.name, key=["3"])
    assert report["migrate"]["replayed"] == 1
    assert shelved.changes()["books_code_key"][0] == "waiting"


def test_rows_that_are_gone_are_taken_out(shelved: Shelved) -> None:
    shelved.sql('DELETE FROM "boo""ks %" WHERE id IN (3, 4)')
    report = shelved.replay()["migrate"]
    assert (report["replayed"], report["changed"]) == (2, 0)
    assert set(shelved.record.closed) == set(books(3, 4))


def test_a_row_that_cannot_be_changed_stays_with_that_cause(shelved: Shelved) -> None:
    shelved.sql(
        *CURES,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'secret'; END $$",
        'CREATE TRIGGER refuse BEFORE UPDATE ON "boo""ks %" FOR EACH ROW WHEN (OLD.id = 4) EXECUTE FUNCTION refuse()',
    )
    report = shelved.replay()["migrate"]
    assert (report["replayed"], report["left"]) == (9, 1)
    assert set(shelved.aside()) == set(books(4))
    row = shelved.record.quarantine[books(4)[0]]
    assert (row.cause, row.sqlstate) == ("trigger", "P0001")
    assert "secret" not in row.message
    assert books(4)[0] not in shelved.record.closed


def test_skipped_rows_are_never_replayed(shelved: Shelved) -> None:
    shelved.sql(*CURES)
    shelved.skip(BOOKS.name, "3")
    shelved.skip(BOOKS.name, "20", reason="since")  # is migrated: from now on it is left alone
    report = shelved.replay()
    assert (report["migrate"]["looked"], report["migrate"]["left"]) == (9, 1)
    assert shelved.aside() == {books(3)[0]: ("range", "pages"), books(20)[0]: ("skipped", "")}
    assert shelved.book(3)[2] == "C3"
    shelved.skips.clear()
    assert shelved.replay()["migrate"]["replayed"] == 2
    assert shelved.book(3)[2] == "c3"
    assert shelved.aside() == {}


def test_the_app_database_says_which_rows_are_open(shelved: Shelved) -> None:
    """A rollback has reopened two rows, another run has cured one."""
    shelved.sql("DELETE FROM briefly_migration.quarantine WHERE key[1] IN ('1', '2')")
    shelved.record.closed[books(3)[0]] = shelved.record.run_id
    shelved.sql(CURES[0], 'UPDATE "boo""ks %" SET pages = 1, code = \'c3\', place = 3 WHERE id = 3')
    report = shelved.replay()["migrate"]
    assert (report["looked"], report["replayed"]) == (9, 1)
    assert shelved.aside().keys() >= {*books(2), N2}
    assert set(shelved.record.closed) == {*books(1, 3)}


def test_new_faults_fail_its_verification(shelved: Shelved) -> None:
    shelved.sql(*CURES[:-1], "INSERT INTO \"boo\"\"ks %\" VALUES (100, 1, 'gold', 'x', 1, 50)")
    with pytest.raises(VerificationFailed, match="After the replay 1 findings"):
        shelved.replay()
    assert shelved.last
    shelved.sql('UPDATE "boo""ks %" SET tier = \'pro\' WHERE id = 100')
    assert shelved.replay(bench=shelved.last)["verify"]["replay"]


def test_an_older_attempt_and_a_repair_that_fails(shelved: Shelved) -> None:
    shelved.sql(*CURES)
    shelved.replay(lambda _: {})
    assert shelved.last
    old = shelved.context(shelved.last, {})
    shelved.replay(lambda _: {}, bench=shelved.last)
    with pytest.raises(Fenced):
        replay.run(old)
    assert len(shelved.aside()) == 10
    shelved.sql('ALTER TABLE "boo""ks %" ADD CONSTRAINT low CHECK (code <> lower(code)) NOT VALID')
    report = shelved.replay(replay.run)
    assert shelved.aside()[books(2)[0]] == ("constraint", "")
    assert report["left"] == 7
    assert isinstance(shelved.record.quarantine[books(2)[0]], QuarantinedRow)
