"""What all trials stand on: servers, and sample databases of any size, made once and copied for each measurement."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import sql

from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine import sampledata
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.store.migrate import upgrade
from tests.faults.harness import Field, environment

SERVER = {"shared_buffers": "4GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum_naptime": "1h"}
"""As a server of this size would be set up: a table that is measured fits, and no checkpoint or vacuum falls into one
measurement but not into the other."""
SMALL_SERVER = {"shared_buffers": "128MB"}
"""For the tests."""
TABLE = "usage_logs"
_FILL = """
INSERT INTO public.usage_logs (id, user_id, action, resource_type, resource_id, metadata, created_at)
SELECT md5('bench/' || n)::uuid, (SELECT id FROM public.users ORDER BY id LIMIT 1), 'chat', 'conversation',
  md5('resource/' || n), NULL, timestamptz '2024-01-01 00:00:00+00' + n % 500000 * interval '1 minute'
FROM generate_series(1, {}) AS n
"""
"""Rows as the old system made them: random keys, in the order of time; every one lacks its metadata."""
_POOL = (
    sql.SQL("SELECT setseed(0.5)"),
    sql.SQL(
        "CREATE TEMP TABLE pool AS SELECT k, (SELECT array_agg(part)::real[] FROM "
        "(SELECT random_normal() + 0 * k AS part FROM generate_series(1, 1536)) AS parts)::public.vector AS v "
        "FROM generate_series(0, 511) AS k"
    ),
)
_FILL_CHUNKS = """
INSERT INTO public.document_chunks (id, file_id, user_id, chunk_text, chunk_index, embedding, created_at)
SELECT md5('chunk/' || n)::uuid, f.id, f.user_id,
  'Chunk ' || n || ': ' || (SELECT string_agg(md5(n || '/' || word), ' ') FROM generate_series(1, 6) AS word), n,
  public.l2_normalize(a.v OPERATOR(public.+) b.v),
  timestamptz '2024-01-01 00:00:00+00' + n % 500000 * interval '1 minute'
FROM generate_series(1, {}) AS n
JOIN pool AS a ON a.k = n % 512 JOIN pool AS b ON b.k = n / 512 % 512,
  (SELECT * FROM public.file_metadata ORDER BY id LIMIT 1) AS f
"""
"""Vectors of length 1, as embeddings are, whose numbers no compression finds again."""
_WARM = (
    sql.SQL("SELECT count(*), sum(length(resource_id)) FROM public.usage_logs"),
    sql.SQL("SET enable_seqscan TO off"),
    sql.SQL(
        "SELECT sum(length(resource_id)) FROM (SELECT resource_id FROM public.usage_logs ORDER BY id OFFSET 0) AS t"
    ),
)


@dataclass(frozen=True)
class Ground:
    """Servers, and a directory for what processes write."""

    servers: EmbeddedServers
    logs: Path

    def url(self, name: str) -> str:
        """A database of the target's owner."""
        return urlsplit(self.servers.target_url)._replace(path=f"/{name}").geturl()

    def make(self, rows: int) -> str:
        """The name of the database whose table has so many rows, all to be repaired; made where it is missing."""
        return self._made(f"bench_{rows}", [sql.SQL(_FILL).format(sql.Literal(rows))])

    def make_settled(self, rows: int, settle: Callable[[str], object]) -> str:
        """The same, and `settle` was given its URL: migrated, with all indexes and constraints of the plan."""
        return self._made(f"bench_settled_{rows}", [sql.SQL(_FILL).format(sql.Literal(rows))], settle)

    def make_dirty(self, scale: int) -> str:
        """The seed's rows times `scale`, five in a hundred to be repaired, every other fault once."""
        return self._made(f"bench_dirty_{scale}", [], scale=scale, dirty=5)

    def _made(
        self, name: str, fill: Sequence[sql.SQL | sql.Composed], settle: Callable[[str], object] = lambda _: None, *,
        scale: int = 1, dirty: int = 0,
    ) -> str:  # fmt: skip
        if name not in self._databases():
            unfinished = f"{name}_unfinished"
            self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", unfinished)
            self._do("CREATE DATABASE {} OWNER {}", unfinished, self._owner)
            sampledata.create(Target(self.url(unfinished)), plan("unified"), scale=scale, dirty=dirty, embeddings=0)
            with psycopg.connect(self.url(unfinished)) as connection:
                for statement in fill:
                    connection.execute(statement)
            settle(self.url(unfinished))
            with psycopg.connect(self.url(unfinished), autocommit=True) as connection:
                connection.execute("VACUUM (FREEZE, ANALYZE)")
            self._do("ALTER DATABASE {} RENAME TO {}", unfinished, name)
        return name

    def make_embedded(self, rows: int) -> str:
        """The same, whose chunks are so many, each with an embedding of its own."""
        return self._made(f"bench_embedded_{rows}", [*_POOL, sql.SQL(_FILL_CHUNKS).format(sql.Literal(rows))])

    @contextmanager
    def copied(self, name: str) -> Iterator[str]:
        """A warm copy of a database, with nothing left to be written of it; dropped afterwards."""
        copy = f"bench_copy_{secrets.token_hex(4)}"
        self._do("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy", copy, name, self._owner)
        try:
            with psycopg.connect(self.url(copy)) as connection:
                for query in _WARM:
                    connection.execute(query)
            self._do("CHECKPOINT")
            yield self.url(copy)
        finally:
            self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", copy)

    @contextmanager
    def empty(self) -> Iterator[str]:
        """A database in which nothing is, for its superuser; dropped afterwards."""
        name = f"bench_copy_{secrets.token_hex(4)}"
        self._do("CREATE DATABASE {} TEMPLATE template0", name)
        try:
            yield self.servers.superuser_url(name)
        finally:
            self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @contextmanager
    def field(self, target: str) -> Iterator[Field]:
        """An app database of its own, and nobody at work yet on the target."""
        app = f"bench_app_{secrets.token_hex(4)}"
        owner = urlsplit(self.servers.app_url)
        self._do("CREATE DATABASE {} OWNER {}", app, owner.username or "")
        try:
            url = owner._replace(path=f"/{app}").geturl()
            upgrade(url)
            with redis.Redis.from_url(self.servers.redis_url) as client:
                client.flushall()
            self.logs.mkdir(parents=True, exist_ok=True)
            settings = environment(self.logs, app=url, target=target, redis=self.servers.redis_url, lease=30)
            with Field(settings, self.logs).cleaned() as made:
                yield made
        finally:
            self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", app)

    def tidy(self) -> None:
        """Drop what trials that were killed have left."""
        for name in self._databases():
            if name.startswith(("bench_copy_", "bench_app_")) or name.endswith("_unfinished"):
                self._do("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @property
    def _owner(self) -> str:
        return urlsplit(self.servers.target_url).username or ""

    def _databases(self) -> set[str]:
        with psycopg.connect(self.servers.superuser_url()) as connection:
            return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}

    def _do(self, text: str, *names: str) -> None:
        with psycopg.connect(self.servers.superuser_url(), autocommit=True) as connection:
            connection.execute(sql.SQL(text).format(*map(sql.Identifier, names)))
