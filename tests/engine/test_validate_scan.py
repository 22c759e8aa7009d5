"""The one scan of a table finds what rule after rule would find, whatever the shortcuts."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import psycopg
import pytest
from marshmallow import Schema, fields
from psycopg import sql

from briefly_admin.domain.findings import Finding
from briefly_admin.engine.sampledata import create
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import blocked_rows, examine
from briefly_admin.engine.validate.across import in_one_scan
from briefly_admin.engine.validate.examine import read_catalog
from briefly_admin.plans.base import AggregateRepair, Column, ForeignKey, Plan, Relation, Repair, Table, Unique
from briefly_admin.plans.unified import CHUNKS, UNIFIED

Session = psycopg.Connection[Any]


@pytest.fixture
def connection(target_database: str) -> Iterator[Session]:
    with Target(target_database).session(bulk=True) as session:
        yield session


def _plainly(plan: Plan) -> Plan:
    """The same plan without what lets a scan spare work: each repair is computed, each relation is a query."""
    tables = []
    for table in plan.tables:
        repairs = [replace(r, only_wrong=False) if isinstance(r, Repair) else r for r in table.repairs]
        relations = [replace(relation, test="") for relation in table.relations]
        tables.append(replace(table, repairs=repairs, relations=relations))
    return replace(plan, tables=tables)


def _told(findings: list[Finding]) -> list[tuple[Any, ...]]:
    return [(f.table, f.field, f.rule, f.finding_class, f.count, f.message, f.samples) for f in findings]


def test_shortcuts_change_nothing(target_database: str, connection: Session) -> None:
    create(Target(target_database), UNIFIED, scale=6, dirty=40)
    found = examine(connection, UNIFIED)
    assert {("document_chunks", rule) for rule in ("owner", "hole", "dimension", "foreign_key")} <= {
        (f.table, f.rule) for f in found
    }
    assert _told(found) == _told(examine(connection, _plainly(UNIFIED)))
    connection.execute(
        "ALTER TABLE users DROP CONSTRAINT users_pkey"
    )  # nobody knows any more that a row has one parent
    without = examine(connection, UNIFIED)
    assert _told(without) == _told(found)
    keys = [number for number, _ in enumerate(CHUNKS.foreign_keys)]
    assert [n for n in keys if n in in_one_scan(CHUNKS, read_catalog(connection, UNIFIED))] == [0]


def test_holes_are_those_of_a_sorted_file(target_database: str, connection: Session) -> None:
    create(Target(target_database), UNIFIED, scale=4, embeddings=0)
    random, indexes = Random(7), defaultdict[str, list[tuple[int, str]]](list)
    rows = connection.execute("SELECT id::text, file_id::text FROM document_chunks ORDER BY id").fetchall()
    files = sorted({file for _, file in rows})[:8]
    for number, (key, _) in enumerate(rows):
        file, highest = files[number % 8], (3, 24, 60, 61, 62, 63, 64, 200)[number % 8]
        index = random.randint(-1, highest)
        indexes[file].append((index, key))
        connection.execute(
            "UPDATE document_chunks SET file_id = %s::uuid, chunk_index = %s WHERE id = %s::uuid", (file, index, key)
        )
    expected = 0
    for chunks in indexes.values():
        present = sorted({index for index, _ in chunks if index >= 0})
        expected += sum(index - before > 1 for before, index in zip([-1, *present], present, strict=False))
    holes = [f for f in examine(connection, UNIFIED) if f.rule == "hole"]
    assert sum(f.count for f in holes) == expected > 20


def test_one_index_is_missing_of_a_file(target_database: str, connection: Session) -> None:
    create(Target(target_database), UNIFIED, scale=2, embeddings=0)
    found = []
    for missing in (0, 1, 60, 61, 62, 63, 66):
        connection.execute(
            "UPDATE document_chunks AS c SET chunk_index = CASE WHEN n.n < 67 AND n.n <> %s THEN n.n END, "
            "file_id = (SELECT id FROM file_metadata ORDER BY id LIMIT 1) FROM "
            "(SELECT id, row_number() OVER (ORDER BY id) - 1 AS n FROM document_chunks) AS n WHERE n.id = c.id",
            (missing,),
        )
        found.append(sum(f.count for f in examine(connection, UNIFIED) if f.rule == "hole"))
    assert found == [1, 1, 1, 1, 1, 1, 0]


PARENT = Table("pa", Schema.from_dict({"id": fields.Integer(strict=True), "n": fields.Integer(strict=True),
                                       "s0": fields.String(), "p0": fields.Integer(allow_none=True, strict=True)}),
    (Column("id", "integer"), Column("n", "integer"), Column("s0", "text"), Column("p0", "integer")),
    repairs=(AggregateRepair("n", "ch", "up", "count(*)", "0", "a missing count is counted"),),
    foreign_keys=(ForeignKey("p0", "pa"),),
    relations=(Relation("self", "p0", "notice", "parents of themselves", {"pa": "pa"},
                        "SELECT a.id AS key FROM {pa} AS a WHERE a.p0 = a.id", test="{p0} = {id}"),),
)  # fmt: skip
CHILD = Table("ch", Schema.from_dict({"id": fields.Integer(strict=True), "up": fields.Integer(strict=True)}),
    (Column("id", "integer"), Column("up", "integer")),
    uniques=(Unique(("up",)),),
    relations=(Relation("big", "up", "notice", "big ones", {"ch": "ch"},
                        "SELECT c.id AS key FROM {ch} AS c WHERE c.up > 5000"),),
)  # fmt: skip
FAMILY = Plan("family", "Family", "", (PARENT, CHILD))


@pytest.fixture
def family(connection: Session) -> Session:
    """Columns have the names that the scan would like to give to its own."""
    connection.execute("CREATE TABLE public.pa (id int PRIMARY KEY, n int, s0 text, p0 int)")
    connection.execute("CREATE TABLE public.ch (id int PRIMARY KEY, up int)")
    return connection


def _counts(connection: Session) -> list[tuple[str, str, str, int, int]]:
    return [(f.table, f.field, f.rule, f.count, len(f.samples)) for f in examine(connection, FAMILY)]


def test_columns_may_have_any_name(family: Session) -> None:
    family.execute("INSERT INTO public.pa VALUES (1, NULL, 's', 1), (2, 0, NULL, 9), (3, -1, 's', NULL)")
    family.execute("INSERT INTO public.ch VALUES (1, 1)")
    assert _counts(family) == [
        ("pa", "n", "null", 1, 1), ("pa", "s0", "null", 1, 1), ("pa", "p0", "foreign_key", 1, 1), ("pa", "p0", "self", 1, 1),
    ]  # fmt: skip
    assert {row.cause for row in blocked_rows(family, FAMILY)} == {"null"}


@pytest.mark.parametrize("many", [1, 1000, 1001, 3000])
def test_many_rows_of_one_rule_are_counted_and_few_are_shown(family: Session, many: int) -> None:
    family.execute(sql.SQL("INSERT INTO public.pa SELECT n, 0, 's', -1 FROM generate_series(1, {}) AS n").format(many))
    family.execute(sql.SQL("INSERT INTO public.ch SELECT n, 6000 FROM generate_series(1, {}) AS n").format(many))
    shown = min(many, 100)
    found = _counts(family)
    assert found[0] == ("pa", "p0", "foreign_key", many, shown)
    assert found[-1] == ("ch", "up", "big", many, shown)
    assert found[1:-1] == ([("ch", "up", "unique", many - 1, min(many - 1, 100))] if many > 1 else [])
    (orphans,) = (f for f in examine(family, FAMILY) if f.rule == "foreign_key")
    assert sorted(int(sample["key"]) for sample in orphans.samples) == list(range(1, shown + 1))  # the table's first


def test_rows_left_aside_are_left_aside_by_every_rule(family: Session) -> None:
    family.execute("INSERT INTO public.pa VALUES (1, NULL, NULL, 9), (2, 0, 's', 2)")
    family.execute("INSERT INTO public.ch VALUES (1, 6000), (2, 6000)")
    assert examine(family, FAMILY, exclude={"pa": [("1",), ("2",)], "ch": [("1",), ("2",)]}) == []
