"""A small database as a migration leaves it, with what customers have beside the plan, to be copied for each round."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from psycopg import sql

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.runs import RunKind
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine import fence, sampledata
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.services import restoring
from briefly_admin.store.journal import DatabaseJournal
from tests.engine.journal_memory import RunRecord
from tests.faults import outsiders, three_ways
from tests.faults.databases import Contents, contents, copy_database, drop_database
from tests.faults.ground import Ground, name_of
from tests.faults.harness import ANA, Field
from tests.faults.oracle import TABLES
from tests.faults.three_ways import Rows

GENERATED = {"users": frozenset({"shout"})}
UNCOUNTED = {"users": frozenset({"shout", "updated_at"}), "conversations": frozenset({"updated_at"})}
"""Generated columns, and those that triggers write."""
SEQUENCE = 17
"""Where the sequence of the backup stands."""
_BEFORE = f"""
ALTER TABLE public.users DROP COLUMN usage_api_calls;
ALTER TABLE public.file_metadata DROP COLUMN embedding_count;
CREATE SEQUENCE public.numbers;
ALTER TABLE public.users ADD COLUMN balance numeric DEFAULT 1.0, ADD COLUMN score float8 DEFAULT '-0',
  ADD COLUMN slot int4 UNIQUE, ADD COLUMN number int8 DEFAULT nextval('public.numbers'),
  ADD COLUMN lead uuid CONSTRAINT users_lead REFERENCES public.users,
  ADD COLUMN shout text GENERATED ALWAYS AS (upper(coalesce(subscription_status, 'none'))) STORED;
ALTER SEQUENCE public.numbers OWNED BY public.users.number;
SELECT setval('public.numbers', {SEQUENCE});
UPDATE public.users SET slot = hashtext(id::text) & 65535, lead = (SELECT id FROM public.users ORDER BY id LIMIT 1);
CREATE TYPE public.mood AS ENUM ('glad', 'sad');
ALTER TABLE public.user_settings ADD COLUMN raw json DEFAULT '{{"a":1,"b":2}}', ADD COLUMN tags text[] DEFAULT '{{}}';
ALTER TABLE public.usage_logs ADD COLUMN mood public.mood DEFAULT 'glad';
UPDATE public.usage_logs SET metadata = '{{"cost": 1.0}}' WHERE hashtext(id::text) & 3 = 0 AND metadata IS NOT NULL;
CREATE FUNCTION public.stamped() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END';
CREATE TRIGGER stamp BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.stamped();
CREATE TRIGGER stamp BEFORE UPDATE ON public.conversations FOR EACH ROW EXECUTE FUNCTION public.stamped();
"""
"""What customers' databases have beside the plan's columns, and lack of them."""


@dataclass(frozen=True)
class Migrated:
    """A database that was backed up and migrated, to be copied; nobody is connected to `template`."""

    url: str
    template: str
    target: Target
    vault: Any
    backup_id: UUID
    record: RunRecord
    options: Mapping[str, Any]
    before: Rows
    after: Rows
    contents: Contents
    """Of the database before the migration."""

    def made(self, kind: str) -> dict[str, frozenset[str]]:
        """Table → names of the schema changes of that kind that the migration made."""
        names: dict[str, set[str]] = {}
        for change in self.record.changes.values():
            if change.kind == kind:
                names.setdefault(change.table, set()).add(change.name)
        return {table: frozenset(found) for table, found in names.items()}

    @property
    def default(self) -> bytes:
        """Whom rows outside refer to by default."""
        return min(self.before["users"])


class Copy:
    """A fresh copy of the migrated database, or of `template`, and the runs of it; journals are kept in memory."""

    def __init__(self, place: Migrated, servers: EmbeddedServers, *, template: str | None = None) -> None:
        self.place = place
        drop_database(servers, place.url)
        name, owner = sql.Identifier(name_of(place.url)), sql.Identifier(urlsplit(place.url).username or "")
        with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
            copied = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
            connection.execute(copied.format(name, sql.Identifier(template or name_of(place.template)), owner))
            # A restore sets its own.
            connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit TO off").format(name))
        # A rollback marks the changes that it takes back; nothing else of the record is written.
        self.others = {place.record.run_id: replace(place.record, changes=dict(place.record.changes))}

    def context(self, kind: RunKind, record: RunRecord, **options: Any) -> RunContext:
        """Of the run's next attempt, which leads from now on. A later rollback takes earlier ones' changes back, too."""
        journal = record.next_attempt(self.others)
        options = {**self.place.options, "reverts": [str(run_id) for run_id in self.others], **options}
        context = RunContext(
            record.run_id, journal.attempt, kind, plan("unified"), self.place.target, self.place.vault, journal,
            lambda _: None, lambda: RunConfig(max_retries=0, retry_delay=1), options, sleep=lambda _: None,
            random=Random(1),
        )  # fmt: skip
        if kind is RunKind.ROLLBACK:
            fence.take_over(context.target, record.run_id, journal.attempt).release()
        return context


@contextmanager
def migrated(ground: Ground, seed: int) -> Iterator[Migrated]:
    """A small database, half of its rows dirty, as a real migration leaves it."""
    servers, small, template = ground.servers, None, None
    try:
        small = copy_database(servers, "template1")
        sampledata.create(Target(small), plan("unified"), scale=1, dirty=50, seed=seed, embeddings=0)
        with psycopg.connect(small) as connection:
            connection.execute(_BEFORE.encode())
            connection.execute(outsiders.SETUP.encode())
            _copy_into(connection, "was")
        with replace(ground, dirty=name_of(small)).field(lease=30) as field:
            url = field.environ["TARGET_DATABASE_URL"]
            before, held = three_ways.read(url), contents(url)
            run = field.migrate(pause=0, batchSize=100)
            field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
            field.ends(run)
            after = three_ways.read(url)
            with psycopg.connect(url) as connection:
                _copy_into(connection, "became")
            template = copy_database(servers, name_of(url))
            record, options, backup_id = _told(field, UUID(run.id))
            vault = field.services.servers.vault
            yield Migrated(url, template, Target(url), vault, backup_id, record, options, before, after, held)
    finally:
        for each in (small, template):
            if each:
                drop_database(servers, each)


def _copy_into(connection: psycopg.Connection[Any], schema: str) -> None:
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    for table in TABLES:
        copy = sql.SQL("CREATE TABLE {} AS TABLE {}")
        connection.execute(copy.format(sql.Identifier(schema, table), sql.Identifier("public", table)))


def _told(field: Field, run_id: UUID) -> tuple[RunRecord, dict[str, Any], UUID]:
    """What the app database says of the migration, for journals in memory; and the options of its rollback."""
    servers, backup = field.services.servers, field.services.backups.list(ANA)[0]
    journal = DatabaseJournal(
        servers.database, run_id, 1, retention=timedelta(days=1), record=lambda *_: None, worker="test:1",
        lease=timedelta(seconds=30),
    )  # fmt: skip
    record = RunRecord(run_id=run_id)
    record.changes = {change.position: change for change in journal.changes(run_id)}
    record.quarantine = {(row.table, row.key): row for row in journal.quarantined(None, run_id)}
    record.results = {phase: dict(result) for phase, result in journal.finished_phases().items()}
    record.phases = dict.fromkeys(record.results, "done")
    shred_key, sha256 = journal.backup_keys(UUID(backup.id))
    record.backups[UUID(backup.id)] = {"shred_key": shred_key, "manifest_sha256": sha256, "state": "proven"}
    wish = restoring.Wish(backup=backup.id, mode="keep", tables=None, reason="", preview_id=None)
    with servers.database.begin() as connection:
        options, _ = restoring.options_of(connection, wish, plan("unified"), datetime.now(UTC))
    return record, options, UUID(backup.id)
