"""A small plan with every kind of rule, dirty rows for it, its migration and replays of that: for tests of replays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from marshmallow import EXCLUDE, Schema, fields, validate

from briefly_admin.domain.records import SkippedRow
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import constrain, expand, fence, migrate, replay, verify
from briefly_admin.engine.context import RunContext
from briefly_admin.plans.base import (
    AggregateRepair,
    Column,
    ForeignKey,
    GroupedRepair,
    Plan,
    Relation,
    Repair,
    SchemaChange,
    Table,
    Unique,
)
from tests.engine.journal_memory import RunRecord
from tests.engine.writing_bench import Bench


class _Schema(Schema):
    class Meta:
        unknown = EXCLUDE


class Shelf(_Schema):
    name = fields.String(required=True, validate=validate.Length(max=8))
    books = fields.Integer(required=True, strict=True)


class Book(_Schema):
    shelf_id = fields.Integer(required=True, strict=True)
    tier = fields.String(required=True, validate=validate.OneOf(["free", "pro"]))
    code = fields.String(required=True)
    pages = fields.Integer(required=True, strict=True, validate=validate.Range(min=0))


class Note(_Schema):
    body = fields.String(required=True, validate=validate.Length(max=5))


SHELVES = Table(
    "shelves", Shelf, (Column("id", "integer"), Column("name", "text"), Column("books", "integer")),
    repairs=(Repair("name", "btrim({name})", "trimmed"),
             AggregateRepair("books", 'boo"ks %', "shelf_id", "count(*)", "0", "counted", only_missing=False)),
)  # fmt: skip
BOOKS = Table(
    'boo"ks %', Book,
    (Column("id", "integer"), Column("shelf_id", "integer"), Column("tier", "text"), Column("code", "text"),
     Column("pages", "integer"), Column("place", "integer")),
    repairs=(Repair("tier", "coalesce({tier}, 'free')", "a tier"), Repair("code", "lower({code})", "lower"),
             GroupedRepair("place", "shelf_id", ("id",), "numbered")),
    foreign_keys=(ForeignKey("shelf_id", "shelves"),), uniques=(Unique(("code",)),),
    relations=(Relation("odd_one", "pages", "blocking", "must not be 13", {"books": 'boo"ks %'},
                        "SELECT id AS key FROM {books} WHERE pages = 13"),),
)  # fmt: skip
NOTES = Table(
    "no%tes", Note, (Column("pa rt", "text"), Column("no", "integer"), Column("body", "text")), key=("pa rt", "no")
)  # fmt: skip
CHANGES = (
    SchemaChange("check", "shelves", ("name",), "name_short", "length({name}) <= 8"),
    SchemaChange("not_null", BOOKS.name, ("tier",), "tier_not_null"),
    SchemaChange("check", BOOKS.name, ("pages",), "pages %", "{pages} >= 0"),
    SchemaChange("foreign_key", BOOKS.name, ("shelf_id",), "books_shelf_fkey", references=("shelves", "id")),
    SchemaChange("unique_index", BOOKS.name, ("code",), "books_code_key"),
    SchemaChange("check", NOTES.name, ("body",), "body_short", "length({body}) <= 5"),
)
PLAN = Plan("shelved", "Shelved", "Three tables.", (SHELVES, BOOKS, NOTES), CHANGES)
_FILL = (
    "CREATE TABLE shelves (id int PRIMARY KEY, name text, books int)",
    "INSERT INTO shelves SELECT i, ' s' || i, 0 FROM generate_series(1, 5) i",
    "INSERT INTO shelves VALUES (6, 'much too long', 0)",
    'CREATE TABLE "boo""ks %" (id int PRIMARY KEY, shelf_id int, tier text, code text, pages int, place int)',
    "INSERT INTO \"boo\"\"ks %\" SELECT i, i % 5 + 1, CASE WHEN i % 2 = 1 THEN 'pro' END, 'C' || i, i FROM generate_series(1, 60) i",
    'UPDATE "boo""ks %" SET shelf_id = 99 WHERE id = 1',
    'UPDATE "boo""ks %" SET tier = \'gold\' WHERE id = 2',
    'UPDATE "boo""ks %" SET pages = -1 WHERE id IN (3, 4)',
    'UPDATE "boo""ks %" SET code = \'c60\' WHERE id IN (5, 60)',
    'UPDATE "boo""ks %" SET pages = 13 WHERE id = 6',
    'UPDATE "boo""ks %" SET pages = 14 WHERE id = 13',
    'UPDATE "boo""ks %" SET pages = -2, shelf_id = 98 WHERE id = 7',
    'CREATE TABLE "no%tes" ("pa rt" text, no int, body text, PRIMARY KEY ("pa rt", no))',
    "INSERT INTO \"no%tes\" SELECT 'ü''', i, 'x' FROM generate_series(1, 5) i",
    "INSERT INTO \"no%tes\" VALUES ('a,b', 1, 'too long'), ('a', 2, 'too long')",
)
Phases = Callable[[RunContext], dict[str, Any]]


def migration(context: RunContext) -> dict[str, Any]:
    """The phases that matter here."""
    return {"expand": expand.run(context), "migrate": migrate.run(context), "constrain": constrain.run(context),
            "verify": _verified(context)}  # fmt: skip


def replaying(context: RunContext) -> dict[str, Any]:
    """Those of a replay."""
    return {"migrate": replay.run(context), "constrain": constrain.run(context), "verify": verify.run(context)}


def _verified(context: RunContext) -> dict[str, Any]:
    findings = verify._validated(context)
    verify._judge(context, findings, {})
    return {}


@dataclass
class Shelved:
    """A target with dirty rows; `migrate` and `replay` are runs with records of their own."""

    dsn: str
    skips: list[SkippedRow] = field(default_factory=list)
    record: RunRecord = field(default_factory=RunRecord)
    last: Bench | None = None

    def copied(self, dsn: str) -> "Shelved":
        """The same over a copy of its database; of the record, what later runs look at and change."""
        mine = self.record
        record = RunRecord(mine.run_id, quarantine=dict(mine.quarantine), changes=dict(mine.changes))
        return Shelved(dsn, record=record)

    def fill(self) -> "Shelved":
        self.sql(*_FILL)
        return self

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(query.encode()).fetchall()

    def book(self, number: int) -> tuple[Any, ...]:
        (row,) = self.rows(f'SELECT shelf_id, tier, code, pages FROM "boo""ks %" WHERE id = {number}')
        return row

    def aside(self) -> dict[tuple[str, tuple[str, ...]], tuple[str, str]]:
        """(table, key) → (cause, field), by the target."""
        query = 'SELECT "table", key, cause, field FROM briefly_migration.quarantine'
        return {(table, tuple(key)): (cause, name) for table, key, cause, name in self.rows(query)}

    def migrate(self, phases: Phases = migration, **config: Any) -> dict[str, Any]:
        self.record.skips = self.skips
        bench = Bench(self.dsn, PLAN, record=self.record)
        return bench.lead(phases, **({"on_invalid": "skip", "validate_data": True} | config))

    def replay(self, phases: Phases = replaying, *, bench: Bench | None = None, **options: Any) -> dict[str, Any]:
        """One attempt at a new replay, or at that of `bench`; names of contexts' fields go there."""
        self.last = bench = bench or Bench(self.dsn, PLAN, RunKind.REPLAY)
        bench.record.skips = self.skips
        extra = {
            name: options.pop(name) for name in ("report", "should_stop", "batch_size", "sleep") if name in options
        }
        context = self.context(bench, options, **extra)
        lead = fence.take_over(context.target, context.run_id, context.attempt)
        try:
            return phases(context)
        finally:
            lead.release()

    def context(self, bench: Bench, options: Mapping[str, Any], **extra: Any) -> RunContext:
        report = extra.pop("report", bench.progress.append)
        context = replace(bench.context(options={"of": str(self.record.run_id), **options}, **extra), report=report)
        context.journal.others[self.record.run_id] = self.record  # type: ignore[attr-defined]
        return context

    def skip(self, table: str, *key: str, reason: str = "asked for") -> None:
        self.skips.append(SkippedRow(table, key, reason, "ana"))

    def changes(self, record: RunRecord | None = None) -> Mapping[str, tuple[str, str]]:
        """Name → (state, note) of the record's schema changes."""
        changes = (record or self.record).changes.values()
        return {change.name: (change.state, change.note) for change in changes}


def books(*numbers: int) -> Sequence[tuple[str, tuple[str, ...]]]:
    return [(BOOKS.name, (str(number),)) for number in numbers]
