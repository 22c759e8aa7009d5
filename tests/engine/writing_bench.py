"""A small plan with awkward names, its data, an oracle in Python, and runs over it, for the tests of writing phases."""

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from marshmallow import Schema

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import fence
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import AggregateRepair, Column, GroupedRepair, Plan, Repair, SchemaChange, Table
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import RunRecord

USERS = Table(
    'us "ers" 100%s', Schema,
    (Column("id", "integer"), Column("ti er%", "text", required=False, expand=True), Column("secret", "text", required=False, secret=True)),
    repairs=(Repair("ti er%", "coalesce({ti er%}, 'free')", "a missing tier becomes 'free'"), Repair("secret", "btrim({secret})", "trimmed")),
)  # fmt: skip
FILES = Table(
    "files", Schema,
    (Column("id", "uuid"), Column("user_id", "integer"), Column("chunks", "integer", required=False, expand=True), Column("heavy", "bigint", required=False, expand=True)),
    repairs=(
        AggregateRepair("chunks", "chu%nks", "file_id", "count(*)", "0", "a missing count is counted"),
        AggregateRepair("heavy", "chu%nks", "file_id", "count(*) FILTER (WHERE {created} > 5)", "0", "a wrong count is counted", only_missing=False),
    ),
)  # fmt: skip
CHUNKS = Table(
    "chu%nks", Schema,
    (Column("pa rt", "text"), Column('n"o', "integer"), Column("file_id", "uuid"), Column("idx", "integer", required=False), Column("created", "integer")),
    key=("pa rt", 'n"o'),
    repairs=(GroupedRepair("idx", "file_id", ("created", "pa rt", 'n"o'), "chunks are numbered"),),
)  # fmt: skip
CHANGES = (
    SchemaChange("default", USERS.name, ("ti er%",), "tier_default", "'free'"),
    SchemaChange("check", USERS.name, ("ti er%",), "tier known %", "{ti er%} IN ('free', 'pro')"),
    SchemaChange("not_null", USERS.name, ("ti er%",), "tier_not_null"),
    SchemaChange("check", CHUNKS.name, ("idx",), "idx_positive", "{idx} >= 0"),
    SchemaChange("not_null", CHUNKS.name, ("idx",), "idx_not_null"),
    SchemaChange("foreign_key", CHUNKS.name, ("file_id",), "chunks_file_fkey", references=("files", "id")),
    SchemaChange("foreign_key", "files", ("user_id",), "files_user_fkey", references=(USERS.name, "id")),
    SchemaChange("unique_index", CHUNKS.name, ("file_id", "idx"), 'chunks "unique" %'),
    SchemaChange("index", CHUNKS.name, ("file_id",), "chunks_file_idx"),
    SchemaChange("index", "files", ("user_id",), "files_user_idx"),
)
PLAN = Plan("small", "Small", "Three tables.", (USERS, FILES, CHUNKS), CHANGES)

_DDL = """
CREATE TABLE "us ""ers"" 100%s" (id int PRIMARY KEY, "ti er%" varchar(6), secret text);
CREATE TABLE files (id uuid PRIMARY KEY, user_id int, chunks int, heavy bigint);
CREATE TABLE "chu%nks" ("pa rt" text, "n""o" int, file_id uuid, idx int, created int, body text DEFAULT repeat('x', 50),
  PRIMARY KEY ("pa rt", "n""o"));
"""
Rows = dict[str, list[tuple[Any, ...]]]


def fill(dsn: str, seed: int = 1, *, users: int = 60, files: int = 40, chunks: int = 300) -> Rows:
    """Makes the tables with faults in a third of their rows; what was put in, by table."""
    chance = random.Random(seed)
    ids = [UUID(int=chance.getrandbits(128)) for _ in range(files)]
    user_rows = [(n, chance.choice(["pro", "free", None]), chance.choice([" a ", "b", None])) for n in range(users)]
    file_rows = [(i, chance.randrange(users), chance.choice([None, 7]), chance.choice([None, 0, 2])) for i in ids]
    taken: dict[UUID, int] = dict.fromkeys(ids, 0)
    chunk_rows = []
    for n in range(chunks):
        file = ids[int(chance.random() ** 2 * files)]
        taken[file] += chance.choice([1, 1, 2])
        index = chance.choice([taken[file], None, None])
        chunk_rows.append((chance.choice(["a", "B", "ä", "%"]), n, file, index, chance.randrange(10)))
    rows: Rows = {USERS.name: user_rows, "files": file_rows, CHUNKS.name: chunk_rows}
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(_DDL)
        cursor.executemany('INSERT INTO "us ""ers"" 100%%s" VALUES (%s, %s, %s)', user_rows)
        cursor.executemany("INSERT INTO files VALUES (%s, %s, %s, %s)", file_rows)
        cursor.executemany('INSERT INTO "chu%%nks" VALUES (%s, %s, %s, %s, %s)', chunk_rows)
    return rows


def oracle(rows: Rows) -> Rows:
    """What the plan's repairs make of the rows, worked out row by row in Python."""
    users = [(n, tier or "free", secret.strip() if secret else secret) for n, tier, secret in rows[USERS.name]]
    files = []
    for id_, user, count, _ in rows["files"]:
        mine = [c for c in rows[CHUNKS.name] if c[2] == id_]
        files.append((id_, user, len(mine) if count is None else count, sum(c[4] > 5 for c in mine)))
    chunks = []
    for row in rows[CHUNKS.name]:
        mine = [c for c in rows[CHUNKS.name] if c[2] == row[2]]
        highest = max((c[3] for c in mine if c[3] is not None), default=-1)
        missing = sorted((c for c in mine if c[3] is None), key=lambda c: (c[4], c[0].encode(), c[1]))
        chunks.append(row if row[3] is not None else (*row[:3], highest + 1 + missing.index(row), row[4]))
    return {USERS.name: users, "files": files, CHUNKS.name: chunks}


def contents(dsn: str) -> Rows:
    """The tables as they are now, in the order of `fill`'s rows once sorted."""
    with psycopg.connect(dsn) as connection:
        return {
            USERS.name: connection.execute('SELECT id, "ti er%", secret FROM "us ""ers"" 100%s"').fetchall(),
            "files": connection.execute("SELECT id, user_id, chunks, heavy FROM files").fetchall(),
            CHUNKS.name: connection.execute('SELECT "pa rt", "n""o", file_id, idx, created FROM "chu%nks"').fetchall(),
        }


def same(first: Rows, second: Rows) -> bool:
    """Whether both hold the same rows, in any order."""
    return {t: sorted(map(str, r)) for t, r in first.items()} == {t: sorted(map(str, r)) for t, r in second.items()}


@dataclass
class Bench:
    """A run of a plan on a target: attempts share its record."""

    dsn: str
    plan: Plan = PLAN
    kind: RunKind = RunKind.MIGRATION
    record: RunRecord = field(default_factory=RunRecord)
    progress: list[Progress] = field(default_factory=list)
    seed: int = 0

    def context(self, *, read_config: Callable[[], RunConfig] | None = None, **extra: Any) -> RunContext:
        """The next attempt's context; names of RunConfig's fields go into its config, all else into the context."""
        ours = {k: extra.pop(k) for k in list(extra) if k in RunConfig.__dataclass_fields__}
        config = RunConfig(**({"validate_data": False, "create_backup": False, "retry_delay": 10} | ours))
        journal = self.record.next_attempt()
        store = open_store(f"file://{Path(tempfile.gettempdir()) / 'briefly-tests-unused'}")
        return RunContext(
            run_id=self.record.run_id, attempt=journal.attempt, kind=self.kind, plan=self.plan, target=Target(self.dsn),
            vault=Vault(store, MasterKeys({"k1": bytes(32)})), journal=journal, report=self.progress.append,
            read_config=read_config or (lambda: config), random=random.Random(self.seed), **extra,
        )  # fmt: skip

    def lead(self, phase: Callable[[RunContext], dict[str, Any]], **extra: Any) -> dict[str, Any]:
        """Takes over and runs one phase."""
        context = self.context(**extra)
        lead = fence.take_over(context.target, context.run_id, context.attempt)
        try:
            return phase(context)
        finally:
            lead.release()
