"""A fix of many rows, and corrections beside each other: what only the plan knows still holds when all have ended."""

from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.corrections import Cause, Changes, Fixed
from briefly_admin.domain.errors import BrieflyError, Refused, Unavailable
from briefly_admin.engine.correcting import correct_row, fix, fixing, left_over, outbox, read_row, records, writing
from briefly_admin.engine.correcting.columns import asked
from briefly_admin.engine.correcting.place import find_place
from briefly_admin.engine.target import Target
from tests.engine.hand_made import COUNT, PLAN, THINGS, Session, deed, filled, target_of, trigger

RANGE = Cause(THINGS, COUNT, "range")
TABLE = sql.Identifier("public", THINGS)


@pytest.fixture(scope="module")
def target_template(module_databases: Callable[[str], str]) -> str:
    """The tables of `create`, made once."""
    return filled(module_databases(""))


@pytest.fixture
def things(target_database: str) -> Iterator[Session]:
    with Target(target_database).session() as session:
        session.execute("SET search_path TO public")
        yield session


def _fix(connection: Session, changes: Changes, cause: Cause = RANGE, **more: Any) -> Fixed:
    return fix(target_of(connection), PLAN, cause, changes, deed=deed(cause), **more)


def _many(connection: Session, count: int, **columns: str) -> None:
    """Rows with a count below 0, in a table that nobody analyses."""
    connection.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(TABLE))
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    values = sql.SQL(", ").join(map(sql.SQL, columns.values()))
    connection.execute(
        sql.SQL("INSERT INTO {} (place, number, tier, {}, {c}) SELECT 'm', n, 'free', {}, -1"
                " FROM generate_series(1, {n}) AS n").format(
            TABLE, names, values, c=sql.Identifier(COUNT), n=sql.Literal(count)
        )
    )  # fmt: skip


def test_many_fresh_rows_of_unique_values_are_not_compared_one_by_one(things: Session) -> None:
    """The planner believes in a table of five rows: its nested loop would look at 400,000,000 pairs."""
    things.execute(sql.SQL("ANALYZE {}").format(TABLE))
    _many(things, 20_000, mail="'m' || n || '@b.co'", word="repeat('a', n % 150) || repeat('b', n / 150)")
    words = {"another row has the same value once both are repaired"}
    seen = _fix(things, {"mail": "x@y.co", COUNT: "1"})
    assert (seen.rows, seen.cured) == (20_001, 0)
    assert {reason.partition(": ")[2] for reason in seen.refused} == words
    assert _fix(things, {"tier": "it's 100%", COUNT: "1"}).cured == 20_001  # each has a word of its own


def test_a_fix_that_takes_too_long_says_so(things: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixing, "_SECONDS", 1)
    trigger(things, "PERFORM pg_sleep(3); RETURN NEW;")
    with pytest.raises(Unavailable, match=r"more than 1 s for one step .* ANALYZE"):
        _fix(things, {COUNT: "1"}, expected=1)
    assert _fix(things, {"word": "a"}, Cause(THINGS, "word", "nobody"), keys=[]).rows == 0


def test_what_triggers_change_beside_is_recorded_of_each_row(things: Session) -> None:
    """As a correction of one row does: a secret one by its name, and nothing of what stayed."""
    _many(things, 2, mail="'m' || n || '@b.co'", word="'Word'", secret="'canary-4711'", parent="NULL")
    trigger(things, "NEW.seen := '2024-01-01 00:00:00+00'; IF NEW.number = 1 THEN NEW.word := 'other';"
                    " NEW.secret := 'canary-new'; NEW.parent := 1; END IF; RETURN NEW;")  # fmt: skip
    cause = Cause(THINGS, COUNT, "range", "7")
    assert _fix(things, {COUNT: "1"}, cause, keys=[("m", "1"), ("m", "2")], expected=2).cured == 2
    ((one, two),) = records(things, left_over(things)[0].id)
    both = {COUNT: ("-1", "1"), "seen": (None, "2024-01-01 00:00:00+00")}
    assert (one.key, one.values) == (("m", "1"), both | {"word": ("Word", "other"), "parent": (None, "1")})
    assert (two.key, two.values) == (("m", "2"), both)
    assert (one.secrets, two.secrets) == (("secret",), ())
    assert "canary" not in repr(things.execute("SELECT c::text FROM briefly_migration.correction AS c").fetchall())


def test_without_triggers_no_other_text_is_kept(things: Session) -> None:
    trigger(things, "RETURN NEW;", when="BEFORE INSERT")
    things.execute(sql.SQL("CREATE TRIGGER off AFTER UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION act();"
                           " ALTER TABLE {t} DISABLE TRIGGER off").format(t=TABLE))  # fmt: skip
    place = find_place(things, PLAN, THINGS)
    columns = asked(things, place.table, place.here)
    assert fixing._beside(things, place, columns, {COUNT: "1"}) == ()
    things.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER off").format(TABLE))
    assert {"word", "secret"} < {column.name for column in fixing._beside(things, place, columns, {COUNT: "1"})}


def _correct(connection: Session, *key: str, **changes: str) -> None:
    row = read_row(connection, PLAN, THINGS, key)
    correct_row(target_of(connection), PLAN, THINGS, key, version=row.version, changes=changes, deed=deed())


def _mails(connection: Session) -> list[str]:
    query = sql.SQL("SELECT mail FROM {} WHERE number IN (4, 5) ORDER BY number").format(TABLE)
    return [mail for (mail,) in connection.execute(query).fetchall()]


@pytest.mark.parametrize("second", ["row", "fix"])
def test_of_two_corrections_to_one_value_that_must_be_unique_one_wins(
    things: Session, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    """The first has judged and not committed when the second begins; no constraint of the database helps."""
    judged, goes_on, ended = Event(), Event(), list[str]()
    write = outbox.write

    def held(*args: Any, **how: Any) -> int:
        if not judged.is_set():
            judged.set()
            goes_on.wait(10)
        return write(*args, **how)

    monkeypatch.setattr(outbox, "write", held)

    def run(work: Callable[[], object]) -> None:
        try:
            work()
            ended.append("won")
        except BrieflyError as error:
            ended.append(error.message)

    first = Thread(target=run, args=(lambda: _correct(things, "d", "4", mail="same@b.co"),))
    first.start()
    assert judged.wait(10)
    with target_of(things).session() as other:
        if second == "row":
            late = Thread(target=run, args=(lambda: _correct(other, "e", "5", mail="SAME@b.co"),))
        else:
            cause = Cause(THINGS, "mail", "value", "7")
            late = Thread(
                target=run, args=(lambda: _fix(other, {"mail": "SAME@b.co"}, cause, keys=[("e", "5")], expected=1),)
            )
        late.start()
        late.join(0.5)
        assert late.is_alive()
        goes_on.set()
        first.join()
        late.join()
    assert ended[0] == "won"
    assert "another row has the same value" in ended[1]
    assert _mails(things) == ["same@b.co", "e@b.co"]


def test_a_correction_does_not_wait_for_ever_and_not_for_what_it_does_not_touch(
    things: Session, monkeypatch: pytest.MonkeyPatch, target_database: str
) -> None:
    monkeypatch.setattr(writing, "_PATIENCE", "200ms")
    with psycopg.connect(target_database, autocommit=True) as other:
        query = "SELECT pg_advisory_lock(%s, hashtext(%s))"
        other.execute(query, (writing._ALONE, f"public.{THINGS}"))
        with pytest.raises(Refused, match=r"Another correction of .* is under way"):
            _correct(things, "e", "5", mail="x@b.co")
        with pytest.raises(Refused, match=r"Another correction of .* is under way"):
            _fix(things, {"mail": "x@b.co"}, Cause(THINGS, "mail", "value", "7"), keys=[("e", "5")], expected=1)
        assert _fix(things, {"mail": "x@b.co"}, Cause(THINGS, "mail", "value", "7"), keys=[("e", "5")]).cured == 1
        _correct(things, "e", "5", short="abc")
    _correct(things, "e", "5", mail="x@b.co")
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2"
    assert things.execute(query).fetchone() == (0,)
