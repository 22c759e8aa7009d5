"""Who holds the locks that our sessions on the target wait for. Never what they say: a query's text may hold data."""

from collections.abc import Mapping
from typing import Final

import psycopg

from briefly_admin.domain.errors import Unavailable
from briefly_admin.engine.target import Connection, Target

_BLOCKERS: Final = """
SELECT DISTINCT b.pid, b.application_name, b.backend_type, extract(epoch FROM now() - b.xact_start)::int
FROM pg_stat_activity ours
CROSS JOIN LATERAL unnest(pg_blocking_pids(ours.pid)) AS blocking(pid)
JOIN pg_stat_activity b ON b.pid = blocking.pid
WHERE ours.datname = current_database() AND ours.application_name LIKE %s AND ours.wait_event_type = 'Lock'
ORDER BY b.pid LIMIT 20
"""
# A lock on a table bars ours by its mode. Rows of tables around it may be held, too: those are the less likely, the
# farther.
_HOLDERS: Final = """
WITH RECURSIVE wanted AS (
  SELECT c.oid AS relation, w.alone
  FROM unnest(%(schemas)s::text[], %(names)s::text[], %(alone)s::bool[]) AS w(schema, name, alone)
  JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
), children AS (
  SELECT relation FROM wanted
  UNION SELECT o.conrelid FROM children c JOIN pg_constraint o ON o.confrelid = c.relation AND o.contype = 'f'
), around AS (
  SELECT relation FROM children
  UNION SELECT o.confrelid FROM wanted w JOIN pg_constraint o ON o.conrelid = w.relation AND o.contype = 'f'
), held AS (
  SELECT l.pid, l.virtualtransaction, format('%%s.%%s', n.nspname, c.relname) AS name,
    CASE WHEN w.relation IS NOT NULL THEN 0 WHEN l.mode <> 'AccessShareLock' THEN 1 ELSE 2 END AS far
  FROM pg_locks l JOIN around USING (relation) LEFT JOIN wanted w USING (relation)
  JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (coalesce(w.alone, true) OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
)
SELECT h.pid, p.gid, nullif(a.application_name, ''), a.backend_type, coalesce(a.usename, p.owner),
  to_char(coalesce(a.xact_start, p.prepared) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
  string_agg(DISTINCT h.name, ', ' ORDER BY h.name)
FROM held h LEFT JOIN pg_stat_activity a ON a.pid = h.pid
LEFT JOIN pg_locks x ON h.pid IS NULL AND x.pid IS NULL AND x.locktype = 'transactionid' AND x.granted
  AND x.virtualtransaction = h.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE h.far = (SELECT min(far) FROM held)
GROUP BY h.pid, p.gid, a.application_name, a.backend_type, a.usename, p.owner, a.xact_start, p.prepared
ORDER BY coalesce(a.xact_start, p.prepared) NULLS LAST, h.pid LIMIT 20
"""


def blockers(target: Target) -> tuple[str, ...]:
    """'pid 8123 (psql, 14 s)' each; nothing where the target does not answer or nobody is in the way."""
    try:
        with target.session() as connection:
            rows = connection.execute(_BLOCKERS, (f"{target.application_name}%",)).fetchall()
    except (psycopg.Error, Unavailable):
        return ()
    return tuple(_words(*row) for row in rows)


def holders(connection: Connection, tables: Mapping[tuple[str, str], bool]) -> tuple[str, ...]:
    """Who holds locks that bar others from these (schema, table)s; True: from reading, too. The eldest come first.

    'pid 8123 (psql, user shop, since 2025-11-22 12:00:05 UTC) on public.users' each, 20 at most; or the prepared
    transaction. Where nobody holds one of the tables themselves: who may hold rows of those that foreign keys tie to
    them. Raises psycopg.Error.
    """
    wanted = {
        "schemas": [schema for schema, _ in tables], "names": [name for _, name in tables],
        "alone": list(tables.values()),
    }  # fmt: skip
    return tuple(_holder(*row) for row in connection.execute(_HOLDERS, wanted).fetchall())


def _holder(
    pid: int | None, prepared: str | None, application: str | None, kind: str | None, user: str | None,
    since: str | None, tables: str,
) -> str:  # fmt: skip
    who = f"pid {pid}" if pid is not None else f"prepared transaction {prepared or 'unknown'}"
    known = [application or kind or "unknown"] if pid is not None else []
    known += [f"user {user}"] if user else []
    known += [f"since {since} UTC"] if since else []
    return f"{who} ({', '.join(known)}) on {tables}" if known else f"{who} on {tables}"


def _words(pid: int, application: str | None, kind: str | None, seconds: int | None) -> str:
    known = [application or kind or "unknown"] + ([f"{seconds:,} s"] if seconds is not None else [])
    return f"pid {pid} ({', '.join(known)})"
