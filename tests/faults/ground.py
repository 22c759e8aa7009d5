"""What all trials stand on: servers, a database of dirty data, and what an undisturbed run makes of a copy of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql

from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine import sampledata
from briefly_admin.engine.sampledata import BLOCKING_FAULTS, Shape
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.store.migrate import upgrade
from tests.faults import oracle
from tests.faults.databases import contents, copy_database, drop_database
from tests.faults.harness import LEASE, Field, Undisturbed, environment

SCALE = 20
"""2,780 rows, and the planted ones."""
SEED = 7
_RIGHT = {
    "users": ("updated_at", "usage_chat_messages", "usage_api_calls"),
    "file_metadata": ("file_type", "embedding_count"),
    "document_chunks": ("user_id",),
    "conversations": ("created_at", "updated_at"),
    "chat_messages": ("user_id", "created_at"),
    "oauth_tokens": ("user_id", "created_at", "updated_at"),
    "usage_logs": ("resource_type",),
    "user_settings": ("created_at", "updated_at"),
}
"""Columns without a planted fault, so that a constraint of each kind is made, and not all of them wait."""
PLANTED = {
    name: plant for name, plant in BLOCKING_FAULTS.items()
    if not {field for field, _ in plant.findings} & set(_RIGHT[plant.table]) or name.endswith(".not_owner")
}  # fmt: skip
"""The blocking faults of `make_dirty`, by name."""


def make_dirty(servers: EmbeddedServers, *, scale: int = SCALE) -> str:
    """A database of sample data, one row in twenty of it faulty; its name."""
    url = copy_database(servers, "template1")
    sampledata.create(Target(url), plan("unified"), scale=scale, dirty=5, seed=SEED, embeddings=0)
    shape = Shape(seed=SEED)
    with psycopg.connect(url) as connection:
        for name in BLOCKING_FAULTS.keys() - PLANTED.keys():
            table = BLOCKING_FAULTS[name].table
            row = {"table": sql.Identifier(table), "key": sql.Literal(str(shape.key(table, name)))}
            connection.execute(sql.SQL("DELETE FROM {table} WHERE id = {key}").format(**row))
            connection.execute(sql.SQL("DELETE FROM briefly_migration.sample WHERE key = {key}").format(**row))
    return name_of(url)


def make_app(servers: EmbeddedServers) -> str:
    """An app database with all revisions applied; its name."""
    url = copy_database(servers, "template1")
    upgrade(url)
    return name_of(url)


def name_of(url: str) -> str:
    """The database's name in a connection string."""
    return urlsplit(url).path[1:]


@dataclass
class Ground:
    """Databases to be copied (nobody is ever connected to them), the servers, and a directory for each trial's logs."""

    servers: EmbeddedServers
    dirty: str
    app: str
    logs: Path
    reference: Undisturbed | None = None

    @property
    def undisturbed(self) -> Undisturbed:
        """What a run leaves that nothing happens to; made when it is first asked for."""
        if self.reference is None:
            self.reference = self.run_undisturbed()
        return self.reference

    def run_undisturbed(self) -> Undisturbed:
        """A run in this process, against the oracle; its contents may then stand for the oracle's."""
        with self.field(lease=30) as field:
            url = field.environ["TARGET_DATABASE_URL"]
            before, verdict = contents(url), oracle.judge(oracle.read_rows(url))
            run = field.migrate(pause=0)
            field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
            left = Undisturbed.of(before, field, run)
            wrong = oracle.faults(verdict, url)
            assert not wrong, "\n".join(["An undisturbed run does not leave what the oracle says.", *wrong])
            return left

    @contextmanager
    def field(self, *, lease: int = LEASE) -> Iterator[Field]:
        """A copy of the dirty data, and nobody at work on it yet."""
        home = self.logs
        home.mkdir(parents=True, exist_ok=True)
        app = target = None
        with redis.Redis.from_url(self.servers.redis_url) as client:
            client.flushall()
        try:
            app, target = copy_database(self.servers, self.app), copy_database(self.servers, self.dirty)
            settings = environment(home, app=app, target=target, redis=self.servers.redis_url, lease=lease)
            with Field(settings, home).cleaned() as made:
                yield made
        finally:
            for url in (app, target):
                if url:
                    drop_database(self.servers, url)
