"""Partitions by key: together they hold every row once, whatever the key's type, order and number of columns."""

import psycopg
import pytest
from marshmallow import Schema
from psycopg import sql

from briefly_admin.engine.batching import KeyRange, Work
from briefly_admin.engine.catalog import read_table
from briefly_admin.engine.cutting import Cut, cut_by_key
from briefly_admin.plans.base import Column, Plan, Repair, Table

REPAIR = (Repair("body", "coalesce({body}, '')", "a missing body is empty"),)


def table(*key: str) -> Table:
    columns = (*(Column(name, "text") for name in key), Column("body", "text", required=False))
    return Table("cut me %s", Schema, columns, key=key, repairs=REPAIR)


def work_of(connection: psycopg.Connection, cut: Table) -> Work:
    known = read_table(connection, "public", cut.name)
    assert known
    return Work(Plan("p", "P", "p", (cut,)), cut, {cut.name: known})


def rows_in(connection: psycopg.Connection, work: Work, keys: KeyRange) -> set[str]:
    query = sql.SQL("SELECT {}::text FROM {} AS t WHERE {}").format(
        work.key_texts("t"), work.known.identifier, work.between(None, keys)
    )
    return {row[0] for row in connection.execute(query)}


@pytest.mark.parametrize(
    ("columns", "key", "values"),
    [
        ("id int PRIMARY KEY", ("id",), "SELECT n FROM generate_series(1, 2000) AS n"),
        ("id uuid PRIMARY KEY", ("id",), "SELECT gen_random_uuid() FROM generate_series(1, 2000)"),
        ('id text COLLATE "C" PRIMARY KEY', ("id",), "SELECT chr(65 + n % 60) || E'%\\'\"' || n FROM generate_series(1, 2000) AS n"),
        ('"a %" text, "b""" timestamptz, PRIMARY KEY ("a %", "b""")', ("a %", 'b"'),
         ("SELECT chr(97 + n % 3), 'infinity'::timestamptz FROM generate_series(0, 2) AS n UNION "
         "SELECT chr(97 + n % 3), '2020-01-01'::timestamptz + n * interval '1 microsecond' FROM generate_series(1, 1997) AS n")),
    ],
)  # fmt: skip
def test_every_key_is_in_one_partition(target_database: str, columns: str, key: tuple[str, ...], values: str) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute(f'CREATE TABLE "cut me %s" ({columns}, body text)'.encode())
        connection.execute(f'INSERT INTO "cut me %s" {values}'.encode())
        work = work_of(connection, table(*key))
        parts = cut_by_key(connection, work, 2000, Cut(smallest=100, largest=200))
        assert [part.number for part in parts] == list(range(len(parts)))
        ranges = [KeyRange.of(part.range) for part in parts]
        assert ranges[0].after is ranges[-1].to is None
        assert [each.to for each in ranges[:-1]] == [each.after for each in ranges[1:]]
        found = [rows_in(connection, work, each) for each in ranges]
        assert sum(map(len, found)) == len(set.union(*found)) == 2000
        assert len(parts) == 10
        assert all(150 <= len(each) <= 250 for each in found)


def test_a_large_table_is_sampled_and_a_small_one_is_whole(target_database: str) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute('CREATE TABLE "cut me %s" (id bigint PRIMARY KEY, body text)')
        assert len(cut_by_key(connection, work_of(connection, table("id")), 0, Cut())) == 1
        connection.execute("INSERT INTO \"cut me %s\" SELECT n, repeat('x', 1500) FROM generate_series(1, 20000) AS n")
        work = work_of(connection, table("id"))
        assert work.known.pages > 2000
        parts = cut_by_key(connection, work, 20_000, Cut())
        sizes = [len(rows_in(connection, work, KeyRange.of(part.range))) for part in parts]
        assert (len(parts), sum(sizes)) == (4, 20_000)
        assert all(3_000 < size < 7_000 for size in sizes)
        assert len(cut_by_key(connection, work, 4_999, Cut())) == 1


def test_far_fewer_rows_than_were_counted(target_database: str) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute('CREATE TABLE "cut me %s" (id int PRIMARY KEY, body text)')
        work = work_of(connection, table("id"))
        assert [part.range for part in cut_by_key(connection, work, 100_000, Cut())] == [{"after": None, "to": None}]
        connection.execute('INSERT INTO "cut me %s" VALUES (1), (2), (3)')
        parts = cut_by_key(connection, work, 3, Cut(smallest=1, largest=1))
        assert [part.range["to"] for part in parts] == [["1"], ["2"], None]
        assert len(cut_by_key(connection, work, 100, Cut(smallest=1, largest=1))) <= 3


@pytest.mark.parametrize(
    ("rows", "parts"), [(0, 1), (5_000, 1), (5_001, 2), (40_000, 8), (1_000_000, 8), (10_000_000, 40)]
)
def test_sizes(rows: int, parts: int) -> None:
    assert Cut().parts(rows) == parts
