"""A scratch schema of the target: what an attempt at a run keeps there for a while, and notes of what was done in it.

It belongs to one attempt, so that an attempt that was believed dead cannot touch another's. It holds two tables:
`marks`, logged, and `parts`, unlogged. A crash of the server that empties the unlogged tables of the schema empties
`parts` with them: what a part says was done is there.
"""

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

from psycopg import errors, sql

from briefly_admin.domain.errors import Unavailable
from briefly_admin.engine.snapshot import translated
from briefly_admin.engine.target import Connection, Target, server_cursor

MARKS: Final = "marks"
"""The logged table: what was done in the schema as a whole, each with its result (JSON)."""
PARTS: Final = "parts"
"""The unlogged table: what the run's workers did, each with its result (JSON)."""

_NAME: Final = re.compile(r"^briefly_scratch_([0-9a-f]{32})_[0-9]+$")
_TRIES: Final = 50
_PAUSE: Final = 0.1
_GRANTED: Final = """
SELECT DISTINCT a.grantee = 0, CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END FROM (
  SELECT nspacl, nspowner FROM pg_namespace WHERE nspname = %(schema)s
  UNION ALL SELECT relacl, relowner FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s))
) AS o (acl, owner), LATERAL aclexplode(o.acl) AS a WHERE a.grantee <> o.owner
"""
_OURS: Final = """
AND a.usename = current_user AND a.application_name = current_setting('application_name')
AND a.pid <> pg_backend_pid()
"""
_END_HOLDERS: Final = f"""
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.pid IN (
  SELECT l.pid FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %s AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) {_OURS}
"""
_END_WORKER: Final = f"""
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.pid IN (
  SELECT l.pid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(%s, 0)) {_OURS}
"""


def scratch_prefix(run_id: UUID) -> str:
    """What the names of a run's scratch schemas begin with."""
    return f"briefly_scratch_{run_id.hex}_"


def scratch_schema(run_id: UUID, attempt: int) -> str:
    """The name of an attempt's scratch schema."""
    return f"{scratch_prefix(run_id)}{attempt}"


def scratch_schemas(connection: Connection, run_id: UUID, *, up_to_attempt: int | None = None) -> list[str]:
    """The run's scratch schemas, the newest attempt's first."""
    prefix = scratch_prefix(run_id)
    rows = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) AND substr(nspname, %s) ~ '^[0-9]+$'",
        (prefix, len(prefix) + 1),
    ).fetchall()
    attempts = sorted((int(name.removeprefix(prefix)) for (name,) in rows), reverse=True)
    return [f"{prefix}{attempt}" for attempt in attempts if up_to_attempt is None or attempt <= up_to_attempt]


def sweep(target: Target, over: Callable[[Collection[UUID]], Mapping[UUID, int]]) -> list[UUID]:
    """Drop what runs that are over have left, as one does whose worker died and that nobody leads any more; their ids.

    `over`: of these runs those that are, with their last attempt; what a newer one makes meanwhile stays.
    Raises Unavailable, RunFailed.
    """
    with target.session(bulk=True) as connection, translated("the scratch schemas"):
        rows = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname ~ %s", (_NAME.pattern,)).fetchall()
        owners = {UUID(match[1]) for (name,) in rows if (match := _NAME.fullmatch(name))}
        swept = over(owners) if owners else {}
        for run_id, attempt in swept.items():
            drop_scratch(connection, run_id, up_to_attempt=attempt)
    return list(swept)


def create_scratch(connection: Connection, run_id: UUID, attempt: int) -> str:
    """Make the attempt's scratch schema with its two tables, and drop what the run had before; its name."""
    drop_scratch(connection, run_id, up_to_attempt=attempt)
    schema = scratch_schema(run_id, attempt)
    with connection.transaction():
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        table = sql.SQL("CREATE {} {} (what text PRIMARY KEY, result jsonb NOT NULL)")
        connection.execute(table.format(sql.SQL("TABLE"), sql.Identifier(schema, MARKS)))
        connection.execute(table.format(sql.SQL("UNLOGGED TABLE"), sql.Identifier(schema, PARTS)))
        shut(connection, schema)
    return schema


def shut(connection: Connection, schema: str) -> None:
    """Take back what ALTER DEFAULT PRIVILEGES granted on the schema and on the tables that are in it by now.

    What is staged is tenants' data. The tables matter, too: pg_stats shows values of any table that one may read,
    whatever the privileges on its schema.
    """
    granted = connection.execute(_GRANTED, {"schema": schema}).fetchall()
    for public, role in granted:
        whose = sql.SQL("PUBLIC") if public else sql.Identifier(role)
        for what in ("ALL TABLES IN SCHEMA", "SCHEMA"):
            revoke = sql.SQL("REVOKE ALL ON {} {} FROM {} CASCADE")
            connection.execute(revoke.format(sql.SQL(what), sql.Identifier(schema), whose))


def drop_scratch(connection: Connection, run_id: UUID, *, up_to_attempt: int | None = None) -> None:
    """Drop the run's scratch schemas, those of newer attempts aside; nothing happens where there are none.

    Sessions of ours that are still at work in one are ended. Raises psycopg.Error.
    """
    for schema in scratch_schemas(connection, run_id, up_to_attempt=up_to_attempt):
        drop = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
        for left in range(_TRIES, 0, -1):
            connection.execute(_END_HOLDERS, (schema,))
            try:
                connection.execute(drop)
                break
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                if left == 1:
                    raise


def mark(connection: Connection, schema: str, what: str, result: Mapping[str, Any], *, table: str = MARKS) -> None:
    """Note in the scratch schema that `what` was done; part of the transaction at hand."""
    insert = sql.SQL("INSERT INTO {} (what, result) VALUES ({}, {})")
    connection.execute(insert.format(sql.Identifier(schema, table), sql.Literal(what), sql.Literal(json.dumps(result))))


def unmark(connection: Connection, schema: str, what: str, *, table: str = MARKS) -> None:
    """Forget that note, if it is there; part of the transaction at hand."""
    delete = sql.SQL("DELETE FROM {} WHERE what = {}")
    connection.execute(delete.format(sql.Identifier(schema, table), sql.Literal(what)))


def marked(connection: Connection, schema: str, what: str, *, table: str = MARKS) -> dict[str, Any] | None:
    """What `mark` noted in the scratch schema, or None."""
    known = connection.execute(
        "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (schema, table),
    ).fetchone()
    if known is None:
        return None
    query = sql.SQL("SELECT result FROM {} WHERE what = {}").format(sql.Identifier(schema, table), sql.Literal(what))
    row = connection.execute(query).fetchone()
    return dict(row[0]) if row else None


def once(
    connection: Connection, schema: str, what: str, work: Callable[[], Mapping[str, Any]],
    require: Callable[[], None] = lambda: None,
) -> Mapping[str, Any]:  # fmt: skip
    """Do a part of the work exactly once, whoever tries: in one transaction with its note; its result.

    Where the note is there, the result is the one that it has: a lost answer to COMMIT is resolved by asking again.
    The worker that holds the part already has lost its claim on it, and its session is ended. `require` comes first
    in the transaction. Raises Unavailable where the other does not end; psycopg.Error; whatever the two raise.
    """
    with connection.transaction():
        require()
        _alone(connection, f"{schema} {what}")
        done: Mapping[str, Any] | None = marked(connection, schema, what, table=PARTS)
        if done is None:
            done = work()
            mark(connection, schema, what, done, table=PARTS)
    return done


def parts(connection: Connection, schema: str, begins: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The parts done whose names begin so, with their results; memory is a few of them."""
    query = sql.SQL("SELECT what, result FROM {} WHERE starts_with(what, {})").format(
        sql.Identifier(schema, PARTS), sql.Literal(begins)
    )
    with connection.transaction(), server_cursor(connection, "parts", chunk=10) as cursor:
        for what, result in cursor.execute(query):
            yield what, dict(result)


def _alone(connection: Connection, what: str) -> None:
    """The part is this transaction's alone."""
    for _ in range(_TRIES):
        row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (what,)).fetchone()
        if row and row[0]:
            return
        connection.execute(_END_WORKER, (what,))
        time.sleep(_PAUSE)
    raise Unavailable(
        "Another session is at work on the same part of the backup, and does not end.",
        remedy="End it on the target (pg_stat_activity, application briefly-admin), then resume.",
    )
