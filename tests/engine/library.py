"""A migration of two small tables, step by step: for the tests of the phase verify."""

from pathlib import Path
from typing import Any

import psycopg
from marshmallow import EXCLUDE, Schema, fields, validate

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import backup, before, fence, migrate, verify
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import AggregateRepair, Column, Plan, Repair, RepresentativeQuery, Table
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import RunRecord


class Book(Schema):
    class Meta:
        unknown = EXCLUDE

    id = fields.Integer(strict=True, required=True)
    title = fields.String(required=True)
    tier = fields.String(required=True, validate=validate.OneOf(["free", "pro"]))
    pages = fields.Integer(strict=True, required=True)


class Page(Schema):
    class Meta:
        unknown = EXCLUDE

    id = fields.Integer(strict=True, required=True)


BOOKS = Table(
    'books "100%"', Book, [Column("id", "integer"), Column("title", "text"), Column("tier", "text"), Column("pages", "integer")],
    repairs=[
        Repair("tier", "coalesce({tier}, 'free')", "a missing tier becomes free"),
        AggregateRepair("pages", "pages", "book_id", "count(*)", "0", "pages are counted", only_missing=False),
    ],
)  # fmt: skip
PAGES = Table("pages", Page, [Column("id", "integer"), Column("book_id", "integer")])
PLAN = Plan(
    "books", "Books", "Two tables.", [BOOKS, PAGES],
    queries=[
        RepresentativeQuery("A book's pages", "SELECT * FROM {pages} WHERE book_id = %(id)s", 'SELECT id FROM {books "100%"} LIMIT 1'),
        RepresentativeQuery("Nothing to ask", "SELECT 1 FROM {pages} WHERE id = %(id)s", "SELECT id FROM {pages} WHERE false"),
    ],
)  # fmt: skip
NAME = '"books ""100%"""'


class Library:
    """A migration of two small tables, step by step."""

    def __init__(self, dsn: str, store: Path, **config: Any) -> None:
        self.dsn = dsn
        self.record = RunRecord()
        self.config = RunConfig(batch_size=7, **config)
        self.context = RunContext(
            run_id=self.record.run_id, attempt=1, kind=RunKind.MIGRATION, plan=PLAN, target=Target(dsn),
            vault=Vault(open_store(f"file://{store}"), MasterKeys({"k1": bytes(32)})),
            journal=self.record.next_attempt(), report=lambda _progress: None, read_config=lambda: self.config,
        )  # fmt: skip

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode())

    def migrate(self) -> None:
        journal = self.context.journal
        if self.config.create_backup:
            journal.phase_finished(Phase.BACKUP, backup.run(self.context))
        journal.phase_finished(Phase.EXPAND, {"before": before.look(self.context)})
        lead = fence.take_over(self.context.target, self.record.run_id, 1)
        try:
            migrate.run(self.context)
        finally:
            lead.release()

    def verify(self) -> dict[str, Any]:
        return verify.run(self.context)

    def fill(self, pages: int = 250) -> None:
        """A hundred books, one in three without a tier, and their pages."""
        self.sql(
            f"CREATE TABLE {NAME} (id int PRIMARY KEY, title text, tier text, pages int, updated_at timestamptz DEFAULT '2020-01-01')"
        )
        self.sql("CREATE TABLE pages (id serial PRIMARY KEY, book_id int, body text)")
        self.sql(
            f"INSERT INTO {NAME} SELECT i, 'Book ' || i, CASE WHEN i % 3 > 0 THEN 'pro' END, i % 4 FROM generate_series(1, 100) i"
        )
        self.sql(f"INSERT INTO pages (book_id, body) SELECT i % 100 + 1, 'x' FROM generate_series(1, {pages}) i")
