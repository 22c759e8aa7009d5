"""All rows of a cause: streamed as validation counts them, and one fix for all of them or for none."""

import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.corrections import Cause, Changes, Fixed
from briefly_admin.domain.errors import BrieflyError, Busy, InvalidRequest, NotFound, Refused
from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine import fence, sampledata
from briefly_admin.engine.correcting import fix, left_over, records, rows_of_cause, rows_of_keys
from briefly_admin.engine.correcting.causes import search
from briefly_admin.engine.correcting.place import find_place
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import examine
from briefly_admin.plans.unified import UNIFIED
from tests.engine.hand_made import COUNT, PLAN, SECRET, THINGS, Session, add, create, deed, target_of, trigger

RANGE = Cause(THINGS, COUNT, "range")
TABLE = sql.Identifier("public", THINGS)


@pytest.fixture(scope="module")
def target_template(module_databases: Callable[[str], str]) -> str:
    """Five things more than `create` makes."""
    url = module_databases("")
    with Target(url).session() as session:
        create(session)
        for number in range(10, 15):
            add(
                session,
                place="x%",
                number=number,
                tier="free",
                word="w" * number,
                mail=f"{number}@b.co",
                **{COUNT: -number},
            )
    return url


@pytest.fixture
def things(target_database: str) -> Iterator[Session]:
    with Target(target_database).session() as session:
        session.execute("SET search_path TO public")
        yield session


def _fix(
    connection: Session, changes: Changes, cause: Cause = RANGE, *, expected: int | None = None, **more: Any
) -> Fixed:
    return fix(target_of(connection), PLAN, cause, changes, deed=deed(cause), expected=expected, **more)


def _counts(connection: Session) -> list[int | None]:
    query = sql.SQL("SELECT {} FROM {} ORDER BY number").format(sql.Identifier(COUNT), TABLE)
    return [count for (count,) in connection.execute(query).fetchall()]


def _keys(connection: Session, cause: Cause, **how: Any) -> list[tuple[tuple[str, ...], str | None]]:
    return sorted((row.key, row.value) for row in rows_of_cause(connection, PLAN, cause, **how))


def test_each_finding_has_as_many_rows_as_it_counts(target_database: str) -> None:
    target = Target(target_database)
    sampledata.create(target, UNIFIED, dirty=30, embeddings=0)
    with target.session(bulk=True) as connection:
        findings = examine(connection, UNIFIED)
        assert {finding.finding_class for finding in findings} == set(FindingClass)
        places = {table.name: find_place(connection, UNIFIED, table.name) for table in UNIFIED.tables}
        for finding in findings:
            cause = Cause(finding.table, finding.field, finding.rule)
            with connection.transaction():
                found = list(
                    search(connection, places[finding.table], cause, {finding.finding_class}, ()).rows(connection)
                )
            assert len(found) == len({row.key for row in found}) == finding.count, finding
            values = {(", ".join(row.key), row.value) for row in found}
            assert {(sample["key"], sample.get("value")) for sample in finding.samples} <= values


def test_rows_of_a_rule_that_only_marshmallow_decides(things: Session) -> None:
    add(things, place="p", number=20, tier="free", word="Éa", **{COUNT: 1})
    assert _keys(things, Cause(THINGS, "word", "pattern")) == [(("d", "4"), "4")]
    assert _keys(things, Cause(THINGS, "secret", "length")) == [(("d", "4"), None)]
    assert _keys(things, Cause(THINGS, "mail", "repair")) == [(("c", "3"), "A@B.co")]
    assert _keys(things, Cause(THINGS, "mail", "repair"), classes={FindingClass.BLOCKING}) == []
    assert _keys(things, Cause(THINGS, "mail", "unique")) == [(("c", "3"), "a@b.co")]
    assert _keys(things, RANGE, excluded=[("b", "2"), ("x%", "10")], limit=2) == [
        (("x%", "11"), "-11"),
        (("x%", "12"), "-12"),
    ]


def test_rows_by_their_keys(things: Session) -> None:
    keys = [("a", "1"), ("gone", "1"), ("x%", "10"), ("a", "1")]
    found = {row.key: row.value for row in rows_of_keys(things, PLAN, RANGE, keys)}
    assert found == {("a", "1"): "0", ("x%", "10"): "-10"}
    for field in ("secret", "stranger", "", "nobody"):
        assert {row.value for row in rows_of_keys(things, PLAN, Cause(THINGS, field, "value"), keys)} == {None}
    assert list(rows_of_keys(things, PLAN, RANGE, [])) == []


@pytest.mark.parametrize(
    "cause", [Cause("nobody", "a", "b"), Cause(THINGS, "mail", "nobody"), Cause(THINGS, "nobody; --", "null")]
)
def test_causes_that_do_not_exist(things: Session, cause: Cause) -> None:
    with pytest.raises(NotFound):
        list(rows_of_cause(things, PLAN, cause))
    with pytest.raises(NotFound):
        _fix(things, {"mail": "x@y.co"}, cause)


def test_a_preview_changes_nothing_and_the_fix_changes_what_it_showed(things: Session) -> None:
    before = _counts(things)
    seen = _fix(things, {COUNT: "7"})
    assert (seen.rows, seen.cured, seen.refused, seen.more) == (6, 6, {}, 0)
    assert seen.samples[0] == (("b", "2"), {COUNT: ("-1", "7")})
    assert _counts(things) == before
    done = _fix(things, {COUNT: "7"}, expected=6)
    assert done == seen
    assert _counts(things) == [0, 7, 3, 3, None, 7, 7, 7, 7, 7]
    (made,) = left_over(things)
    assert made.cause == RANGE
    rows = sorted((row for chunk in records(things, made.id, chunk=4) for row in chunk), key=lambda row: row.key)
    assert [(row.key, row.values) for row in rows][:2] == [
        (("b", "2"), {COUNT: ("-1", "7")}), (("x%", "10"), {COUNT: ("-10", "7")})
    ]  # fmt: skip
    assert len(rows) == 6
    assert _fix(things, {COUNT: "7"}) == Fixed(0, 0)
    with pytest.raises(Refused, match="No row has this any more"):
        _fix(things, {COUNT: "7"}, expected=0)


def test_a_fix_of_another_number_of_rows_is_refused(things: Session) -> None:
    before = _counts(things)
    with pytest.raises(Refused, match="There are 6 rows of this now"):
        _fix(things, {COUNT: "7"}, expected=5)
    assert _counts(things) == before
    assert not left_over(things)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({COUNT: "-3"}, {f"{COUNT}: must be at least 0": 6}),
        ({COUNT: None}, {f"{COUNT}: must not be missing": 6}),
        ({"mail": "n@b.co"}, {f"{COUNT}: must be at least 0": 6}),  # does not cure it
        ({COUNT: "1", "mail": "n@b.co"}, {"mail: another row has the same value once both are repaired": 6}),
        ({COUNT: "1", "mail": "A@b.co"}, {"mail: another row has the same value once both are repaired": 6}),
        ({COUNT: "1", "tier": "it's 100%"}, {}),
        ({COUNT: "1", "parent": "9"}, {"parent: no row of parents has this id": 6}),
        ({COUNT: "1", "word": "one", "tier": "free"},
         {"tier, word: another row has the same value once both are repaired": 6}),
    ],
)  # fmt: skip
def test_rows_that_would_not_be_right_are_counted_by_reason(
    things: Session, changes: Changes, refused: dict[str, int]
) -> None:
    before = _counts(things)
    seen = _fix(things, changes)
    assert (seen.rows, seen.cured, seen.refused) == (6, 6 - sum(refused.values()), refused)
    if refused:
        with pytest.raises(Refused, match="6 would not be right"):
            _fix(things, changes, expected=6)
        assert _counts(things) == before


def test_some_rows_are_refused_and_then_none_is_changed(things: Session) -> None:
    """A trigger that gives one row a wrong value, undoes another's change and swallows a third's."""
    trigger(things, "IF NEW.number = 10 THEN NEW.parent := 9; ELSIF NEW.number = 11 THEN RETURN OLD;"
                    " ELSIF NEW.number = 12 THEN RETURN NULL; END IF; RETURN NEW;")  # fmt: skip
    before = _counts(things)
    seen = _fix(things, {COUNT: "7", "parent": "1"})
    assert seen.rows == 6
    assert seen.refused == {
        "a trigger of the table undoes the change": 2, "parent: no row of parents has this id": 1
    }  # fmt: skip
    assert seen.cured == 3
    with pytest.raises(Refused, match="undoes the change"):
        _fix(things, {COUNT: "7", "parent": "1"}, expected=6)
    assert _counts(things) == before


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("CREATE UNIQUE INDEX own ON {} (short)", "another row has this value (constraint own)"),
        ("ALTER TABLE {} ADD CONSTRAINT own CHECK (short <> 's')", "is against a rule of the table (constraint own)"),
        (
            "ALTER TABLE {} ADD CONSTRAINT own UNIQUE (short) DEFERRABLE INITIALLY DEFERRED",
            "another row has this value",
        ),
    ],
)
def test_what_the_database_itself_refuses(things: Session, ddl: str, reason: str) -> None:
    things.execute(sql.SQL(ddl).format(TABLE))
    ((words, count),) = _fix(things, {"short": "s", COUNT: "1"}).refused.items()
    assert words.startswith(reason)
    assert count == 6


def test_a_trigger_that_refuses_tells_no_values(things: Session) -> None:
    trigger(things, "RAISE EXCEPTION '%', NEW.mail;")
    seen = _fix(things, {COUNT: "1"})
    assert (seen.cured, list(seen.refused.values())) == (0, [6])
    assert "b.co" not in repr(seen.refused)


def test_bad_input_of_a_fix(things: Session) -> None:
    for changes, field in (({COUNT: "x"}, COUNT), ({"doubled": "1"}, "doubled"), ({"nobody": "1"}, "nobody")):
        with pytest.raises(InvalidRequest) as raised:
            _fix(things, changes)
        assert list(raised.value.details) == [field]
    with pytest.raises(InvalidRequest, match="no value is given"):
        _fix(things, {})


def test_secret_values_stand_nowhere(things: Session) -> None:
    cause = Cause(THINGS, "secret", "length")
    done = _fix(things, {"secret": "canary-new"}, cause, expected=1)
    assert done.samples == ((("d", "4"), {}),)
    ((record,),) = records(things, left_over(things)[0].id)
    assert (record.values, record.secrets) == ({}, ("secret",))
    outbox = repr(things.execute("SELECT c::text FROM briefly_migration.correction AS c").fetchall())
    assert SECRET not in outbox
    assert "canary-new" not in outbox


def test_rows_beyond_the_cap_are_told_and_left(things: Session) -> None:
    seen = _fix(things, {COUNT: "1"}, most=4)
    assert (seen.rows, seen.more) == (4, 2)
    assert _fix(things, {COUNT: "1"}, expected=4, most=4).more == 2
    assert _fix(things, {COUNT: "1"}).rows == 2

    cause = Cause(THINGS, "word", "pattern")  # which marshmallow decides
    things.execute(sql.SQL("UPDATE {} SET word = number::text").format(TABLE))
    seen = _fix(things, {"word": None}, cause, most=4)
    assert (seen.rows, seen.more, seen.refused) == (4, 6, {})


def test_only_the_quarantines_rows(things: Session) -> None:
    keys = [("x%", "10"), ("x%", "11"), ("gone", "1"), ("a", "1")]
    cause = Cause(THINGS, COUNT, "range", "7")
    seen = _fix(things, {COUNT: "1"}, cause, keys=keys)
    assert (seen.rows, seen.cured) == (3, 3)
    _fix(things, {COUNT: "1"}, cause, expected=3, keys=keys)
    assert _counts(things) == [1, -1, 3, 3, None, 1, 1, -12, -13, -14]
    assert _fix(things, {COUNT: "1"}, excluded=[("b", "2")]).rows == 3


def test_rows_of_the_quarantine_that_are_gone_take_no_place(things: Session) -> None:
    keys = [("a", "999"), ("x%", "12"), ("b", "999"), ("x%", "10"), ("x%", "11")]
    seen = _fix(things, {COUNT: "1"}, Cause(THINGS, COUNT, "range", "7"), keys=keys, most=2)
    assert (seen.rows, seen.more) == (2, 1)
    assert [key for key, _ in seen.samples] == [("x%", "10"), ("x%", "11")]


def test_others_at_work(things: Session, target_database: str) -> None:
    with psycopg.connect(target_database) as other:
        other.execute(sql.SQL("SELECT FROM {} WHERE number = 12 FOR UPDATE").format(TABLE))
        with pytest.raises(Refused, match="Somebody else holds the row"):
            _fix(things, {COUNT: "1"}, expected=6)
    lead = fence.take_over(Target(target_database), uuid4(), 1)
    for expected in (None, 6):
        with pytest.raises(Busy):
            _fix(things, {COUNT: "1"}, expected=expected)
    lead.release()
    assert _fix(things, {COUNT: "1"}, expected=6).cured == 6


def test_a_row_changed_just_then_undoes_the_fix(things: Session, target_database: str) -> None:
    """Somebody changes a row between the fix's look and its UPDATE, which waits for him."""
    with psycopg.connect(target_database) as other:
        other.execute(sql.SQL("UPDATE {} SET short = 'x' WHERE number = 12").format(TABLE))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        ended: list[str] = []

        def run() -> None:
            try:
                _fix(things, {COUNT: "1"}, expected=6)
                ended.append("fixed")
            except BrieflyError as error:
                ended.append(error.message)

        thread = Thread(target=run)
        thread.start()
        with psycopg.connect(target_database, autocommit=True) as watcher:
            until = time.monotonic() + 5
            while watcher.execute(waiting).fetchone() == (0,) and time.monotonic() < until:
                time.sleep(0.01)
        other.commit()
        thread.join()
    assert ended == ["A row was changed meanwhile by somebody else: look again."]
    assert -13 in _counts(things)


def test_thousands_of_rows_are_fixed_at_once(things: Session) -> None:
    things.execute(
        sql.SQL("INSERT INTO {} (place, number, tier, word, {c}) SELECT 'm', n, 'free', NULL, -n"
                " FROM generate_series(100, 8099) AS n").format(TABLE, c=sql.Identifier(COUNT))
    )  # fmt: skip
    done = _fix(things, {COUNT: "0"}, expected=6_000, most=6_000)
    assert (done.cured, done.more) == (6_000, 2_006)
