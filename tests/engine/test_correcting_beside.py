"""A fix of many rows, and corrections beside each other: what only the plan knows still holds when all have ended."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from briefly_admin.domain.corrections import Cause, Changes, Fixed
from briefly_admin.domain.errors import Unavailable
from briefly_admin.engine.correcting import fix, fixing
from briefly_admin.engine.target import Target
from tests.engine.hand_made import COUNT, PLAN, THINGS, Session, create, deed, trigger

RANGE = Cause(THINGS, COUNT, "range")
TABLE = sql.Identifier("public", THINGS)


@pytest.fixture(scope="module")
def target_template(module_databases: Callable[[str], str]) -> str:
    """The tables of `create`, made once."""
    url = module_databases("")
    with Target(url).session() as session:
        create(session)
    return url


@pytest.fixture
def things(target_database: str) -> Iterator[Session]:
    with Target(target_database).session() as session:
        session.execute("SET search_path TO public")
        yield session


def _target(connection: Session) -> Target:
    return Target(make_conninfo(connection.info.dsn, password=connection.info.password))


def _fix(connection: Session, changes: Changes, cause: Cause = RANGE, **more: Any) -> Fixed:
    return fix(_target(connection), PLAN, cause, changes, deed=deed(cause), **more)


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
