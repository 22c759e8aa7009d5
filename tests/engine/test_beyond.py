"""Tables beyond the plan: which there are, what people may call them, and what is never backed up smaller."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from marshmallow import Schema
from psycopg import sql

from briefly_admin.domain.errors import InvalidRequest, PreflightFailed, Refused, Unavailable
from briefly_admin.engine.beyond import Beyond, checked, tables_beyond, touchable
from briefly_admin.engine.snapshot import open_snapshot
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import Column, Plan, Table

PLAN = Plan("money", "Money", "One table.", [Table("accounts", Schema, [Column("id", "integer")])])
TABLES = """
CREATE TABLE accounts (id int PRIMARY KEY);
CREATE TABLE invoices (id serial, note text);
CREATE SCHEMA "a.b";
CREATE TABLE "a.b".c (id int);
CREATE SCHEMA a;
CREATE TABLE a."b.c" (id int);
CREATE TABLE a."odd ""100%" ();
CREATE TABLE parts (id int) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE VIEW seen AS SELECT 1 AS id;
CREATE MATERIALIZED VIEW kept AS SELECT 1 AS id;
CREATE SCHEMA briefly_migration;
CREATE TABLE briefly_migration.fence (id int);
CREATE SCHEMA briefly_admin;
CREATE TABLE briefly_admin.run (id int);
CREATE SCHEMA briefly_scratch_0123_1;
CREATE TABLE briefly_scratch_0123_1.t0 (id int);
CREATE TEMP TABLE passing (id int)
"""
ORDINARY = [("a", "b.c"), ("a", 'odd "100%'), ("a.b", "c"), ("public", "invoices"), ("public", "parts_1")]


@pytest.fixture
def target(target_database: str) -> Target:
    with psycopg.connect(target_database) as connection:
        connection.execute(TABLES.encode())
        connection.execute("INSERT INTO invoices (note) SELECT repeat('x', 100) FROM generate_series(1, 1000)")
        connection.execute("ANALYZE invoices")
    return Target(target_database)


def as_superuser(target: Target, superuser_database: Callable[[str], str], statement: str) -> None:
    role = sql.Identifier(urlsplit(target.dsn).username or "")
    with psycopg.connect(superuser_database(target.dsn)) as connection:
        connection.execute(sql.SQL(statement).format(role=role))


def test_ordinary_tables_are_listed_and_nothing_of_ours_or_the_systems(target: Target) -> None:
    with target.session() as connection:
        found = tables_beyond(connection, PLAN)
    assert [(table.schema, table.name) for table in found] == ORDINARY
    assert all(not table.why_not for table in found)
    invoices = found[3]
    assert invoices.rows == 1000
    assert 100_000 < invoices.bytes < 1_000_000


def test_what_a_table_is_called_names_it_alone(target: Target) -> None:
    with target.session() as connection:
        called = [table.label for table in tables_beyond(connection, PLAN)]
        assert checked(connection, PLAN, called) == ORDINARY


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["public.invoices"], [("public", "invoices")]),
        (['a."b.c"', '"a.b".c'], [("a", "b.c"), ("a.b", "c")]),
        (['a."odd ""100%"'], [("a", 'odd "100%')]),
        (['a.odd "100%'], [("a", 'odd "100%')]),
        (["public.invoices", "*", "public.invoices"], [ORDINARY[3], *ORDINARY[:3], ORDINARY[4]]),
        ([], []),
    ],
)
def test_names_are_found_plain_and_quoted(target: Target, names: list[str], expected: list[tuple[str, str]]) -> None:
    with target.session() as connection:
        found = checked(connection, PLAN, names)
    assert found == expected
    assert json.loads(json.dumps(found)) == [list(pair) for pair in expected]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["public.invoices", "public.nothing", "x"], r"no table public\.nothing, x\."),
        ([""], "no table"),
        (["invoices"], "no table invoices"),
        (["PUBLIC.INVOICES"], "no table"),
        (["briefly_migration.fence"], "no table"),
        (["pg_catalog.pg_class"], "no table"),
        (["a.b.c"], r'more than one table: a\."b\.c" or "a\.b"\.c'),
        (["public.accounts"], "is a table of the plan"),
    ],
)
def test_what_is_not_there_is_named(target: Target, names: list[str], what: str) -> None:
    with target.session() as connection, pytest.raises(InvalidRequest, match=what) as raised:
        checked(connection, PLAN, names)
    assert raised.value.details["beyond"]


@pytest.mark.parametrize(
    ("name", "what"),
    [("public.seen", "is a view"), ("public.kept", "materialised view"), ("public.parts", "partitioned table")],
)
def test_what_is_no_ordinary_table_is_refused(target: Target, name: str, what: str) -> None:
    with target.session() as connection, pytest.raises(Refused, match=what):
        checked(connection, PLAN, [name, "*"])


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("ALTER TABLE invoices OWNER TO postgres", "may not read it"),
        ("ALTER SCHEMA a OWNER TO postgres; ALTER TABLE invoices OWNER TO postgres", "may not read it"),
        ("ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "row-level security would hide"),
        (
            "ALTER TABLE invoices OWNER TO postgres; GRANT SELECT ON invoices TO {role}",
            r"may not read its sequence public\.invoices_id_seq",
        ),
    ],
)
def test_what_the_role_may_not_read_whole_is_refused(
    target: Target, superuser_database: Callable[[str], str], statement: str, what: str
) -> None:
    as_superuser(target, superuser_database, statement)
    with target.session() as connection:
        [listed] = [table for table in tables_beyond(connection, PLAN) if table.name == "invoices"]
        assert isinstance(listed, Beyond)
        with pytest.raises(Refused, match=what):
            checked(connection, PLAN, ["public.invoices"])
        assert ("public", "invoices") not in checked(connection, PLAN, ["*"])
    assert listed.why_not


@pytest.mark.parametrize(
    ("statement", "name", "what"),
    [
        ("ALTER TABLE invoices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "invoices", "row-level security"),
        ("SELECT 1", "parts", "no ordinary table"),
        ("SELECT 1", "seen", "no ordinary table"),
        ("DROP TABLE invoices", "invoices", "missing"),
    ],
)
def test_a_backup_finds_out_for_itself(
    target: Target, superuser_database: Callable[[str], str], statement: str, name: str, what: str
) -> None:
    """What became of the table since it was chosen never makes a smaller backup."""
    as_superuser(target, superuser_database, statement)
    with pytest.raises(PreflightFailed, match=what):
        copied(target, name)


def copied(target: Target, name: str) -> list[Any]:
    with open_snapshot(target, PLAN, [("public", name)]) as snapshot:
        table = snapshot.tables[name]
        with snapshot.connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(table.identifier)) as copy:
            return list(copy)


def test_a_table_that_is_locked_now_is_no_bug(target: Target) -> None:
    with target.session() as connection:
        connection.execute("SET lock_timeout TO '50ms'")
        with psycopg.connect(target.dsn) as other:
            other.execute("LOCK TABLE invoices IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Unavailable, match="cannot be listed now"):
                tables_beyond(connection, PLAN)


def test_what_a_rollback_may_touch_outside_is_backed_up_whole(target: Target) -> None:
    with psycopg.connect(target.dsn) as connection:
        connection.execute("CREATE TABLE a.parts_2 PARTITION OF parts FOR VALUES IN (2) PARTITION BY LIST (id)")
        connection.execute("CREATE TABLE a.parts_2_1 PARTITION OF a.parts_2 FOR VALUES IN (2)")
    with target.session() as connection:

        def found(*names: str) -> tuple[list[str], list[tuple[str, str]]]:
            return touchable(connection, PLAN, names)

        assert found("public.invoices", "public.invoices") == (["public.invoices"], [("public", "invoices")])
        assert found('a."odd ""100%"') == (['a.odd "100%'], [("a", 'odd "100%')])
        assert found("public.parts") == (["public.parts"], [("a", "parts_2_1"), ("public", "parts_1")])
        assert found("public.accounts") == (["public.accounts"], []), "every backup has the plan's"
        both = (["a.b.c"], [("a", "b.c"), ("a.b", "c")])
        assert found("a.b.c") == found('a."b.c"') == both, "a preview calls them the same"
        for names in (["public.invoices", "public.nothing"], ["*"], ["invoices"], ["briefly_migration.fence"]):
            with pytest.raises(InvalidRequest, match="The database has no table") as raised:
                found(*names)
            assert raised.value.details["allow"] == [f"{names[-1]}: there is no such table"]
        for name in ("public.seen", "public.kept"):
            with pytest.raises(Refused, match=f"{name}: it is a (materialised )?view"):
                found(name)


def test_a_rollback_must_not_touch_what_the_role_may_not_read_whole(
    target: Target, superuser_database: Callable[[str], str]
) -> None:
    as_superuser(
        target, superuser_database, "ALTER TABLE parts_1 OWNER TO postgres; ALTER TABLE invoices OWNER TO postgres"
    )
    with target.session() as connection:
        for name, which in (("public.invoices", "public.invoices"), ("public.parts", "public.parts_1")):
            with pytest.raises(Refused, match=rf"before their rows are touched: {which}: the role may not read it\."):
                touchable(connection, PLAN, [name])
