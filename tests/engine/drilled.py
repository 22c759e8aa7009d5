"""A database with a backup of all its tables, and drills of it: for the tests of drills."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from psycopg import sql

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import backup, drill
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import MemoryJournal, RunRecord
from tests.engine.sealed_target import KEYS, plan_of

SCHEMA = """
CREATE TABLE parents (id int PRIMARY KEY, code text NOT NULL UNIQUE, v public.vector(3), acl aclitem);
CREATE TABLE children (id serial PRIMARY KEY, parent_id int REFERENCES parents, code text REFERENCES parents (code),
  up int REFERENCES children, pad text);
CREATE SCHEMA other;
CREATE TABLE other.parents (id bigint, "100%" jsonb);
CREATE TABLE other.orders (id int PRIMARY KEY, child int REFERENCES children, note int);
INSERT INTO parents SELECT i, 'c' || i, '[1,2,3]', NULL FROM generate_series(1, 200) i;
INSERT INTO children (parent_id, code, up, pad)
  SELECT nullif(i % 201, 0), 'c' || (1 + i % 200), nullif(1 + i / 2, i), repeat('x', 50) FROM generate_series(1, 1000) i;
INSERT INTO other.parents SELECT i, '{"a": 1}' FROM generate_series(1, 50) i;
INSERT INTO other.orders SELECT i, i, NULL FROM generate_series(1, 30) i;
"""
STREAM_BYTES = 20_000
"""So that children are several streams."""
_LOOK = (
    "SELECT oid, relname, relnamespace, relkind, relfilenode, relhastriggers, relhasindex FROM pg_class ORDER BY oid",
    "SELECT oid, nspname, nspowner FROM pg_namespace ORDER BY oid",
    "SELECT oid, conname, convalidated FROM pg_constraint ORDER BY oid",
    "SELECT oid, typname FROM pg_type ORDER BY oid",
    "SELECT attrelid, attname, atttypid FROM pg_attribute ORDER BY 1, 2",
    "SELECT oid, tgname, tgenabled FROM pg_trigger ORDER BY oid",
    "SELECT extname, extversion FROM pg_extension ORDER BY 1",
    "SELECT last_value, is_called FROM children_id_seq",
    "SELECT ctid, xmin, t::text FROM parents t ORDER BY 1",
    "SELECT ctid, xmin, t::text FROM children t ORDER BY 1",
    "SELECT ctid, xmin, t::text FROM other.parents t ORDER BY 1",
    "SELECT ctid, xmin, t::text FROM other.orders t ORDER BY 1",
)


class Drilled:
    """The database, its backup once `back_up` was called, and drills as runs of their own."""

    def __init__(self, dsn: str, root: Path) -> None:
        self.dsn = dsn
        self.root = root
        self.place = Target(dsn)
        self.vault = Vault(DirectoryStore(root), KEYS)
        self.backup, self.run = RunRecord(), RunRecord()
        self.progress: list[Progress] = []
        self.id = UUID(int=0)
        self.execute(SCHEMA)

    def execute(self, *statements: str, dsn: str = "") -> None:
        with psycopg.connect(dsn or self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.place.dsn) as connection:
            return connection.execute(statement.encode()).fetchall()

    def back_up(self, *also: tuple[str, str]) -> None:
        journal = self.backup.next_attempt()
        context = RunContext(
            self.backup.run_id, 1, RunKind.BACKUP, plan_of("parents", "children"), Target(self.dsn), self.vault,
            journal, lambda _: None, RunConfig, {"beyond": [["other", "parents"], ["other", "orders"], *also]},
        )  # fmt: skip
        self.id = UUID(backup.run(context, stream_bytes=STREAM_BYTES)["backup_id"])

    def context(self, **changes: Any) -> RunContext:
        """The next attempt at the drill."""
        journal = self.run.next_attempt({self.backup.run_id: self.backup})
        config = RunConfig(max_retries=1, retry_delay=1)
        context = RunContext(
            self.run.run_id, journal.attempt, RunKind.DRILL, plan_of("parents", "children"), self.place, self.vault,
            journal, self.progress.append, lambda: config,
            {"backup_id": str(self.id), "backup_name": "backup_1", "where": self.place.title},
            sleep=lambda seconds: time.sleep(min(seconds, 0.02)),
        )  # fmt: skip
        return replace(context, **changes)

    def helper(self, leader: RunContext, **changes: Any) -> RunContext:
        journal = MemoryJournal(self.run, leader.attempt, {self.backup.run_id: self.backup}, worker="test:2")
        return replace(leader, journal=journal, report=lambda _: None, **changes)

    def stage(self, context: RunContext) -> dict[str, Any]:
        from briefly_admin.domain.runs import Phase

        result = drill.stage(context)
        context.journal.phase_finished(Phase.STAGE, result)
        return result

    def drill(self, **changes: Any) -> dict[str, Any]:
        """Stage and verify."""
        context = self.context(**changes)
        self.stage(context)
        return drill.verify(context)

    @property
    def recorded(self) -> dict[str, Any]:
        return self.backup.backups[self.id]

    @property
    def scratches(self) -> list[str]:
        found = self.query("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'briefly%'")
        return [name for (name,) in found]

    def looks(self) -> list[Any]:
        """All that could have been touched in the database that was backed up."""
        with psycopg.connect(self.dsn) as connection:
            return [connection.execute(look.encode()).fetchall() for look in _LOOK]

    def file(self, number: int) -> Path:
        return self.root / str(self.id) / "streams" / f"{number}.bma"

    def flip(self, number: int) -> None:
        data = bytearray(self.file(number).read_bytes())
        data[len(data) // 2] ^= 1
        self.file(number).chmod(0o600)
        self.file(number).write_bytes(bytes(data))


class Watched(DirectoryStore):
    """A store that calls `seen` with a stream's number before it is read."""

    def __init__(self, root: Path, seen: Callable[[int], None]) -> None:
        super().__init__(root)
        self._seen = seen

    def open(self, key: str) -> BinaryIO:
        if "/streams/" in key:
            self._seen(int(key.rsplit("/", 1)[1].removesuffix(".bma")))
        return super().open(key)


@contextmanager
def another_database(superuser: str, dsn: str, *, encoding: str = "UTF8") -> Iterator[str]:
    """A second database of the same role."""
    name = f"drill_{secrets.token_hex(6)}"
    owner = str(psycopg.conninfo.conninfo_to_dict(dsn)["user"])
    create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} ENCODING {} LOCALE 'C'").format(
        sql.Identifier(name), sql.Identifier(owner), sql.Identifier("template0"), sql.Literal(encoding)
    )
    with psycopg.connect(superuser, autocommit=True) as connection:
        connection.execute(create)
        try:
            yield urlsplit(dsn)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
