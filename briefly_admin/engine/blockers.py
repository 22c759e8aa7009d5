"""Who holds the locks that our sessions on the target wait for."""

from typing import Final

import psycopg

from briefly_admin.domain.errors import Unavailable
from briefly_admin.engine.target import Target

_BLOCKERS: Final = """
SELECT DISTINCT b.pid, b.application_name, b.backend_type, extract(epoch FROM now() - b.xact_start)::int
FROM pg_stat_activity ours
CROSS JOIN LATERAL unnest(pg_blocking_pids(ours.pid)) AS blocking(pid)
JOIN pg_stat_activity b ON b.pid = blocking.pid
WHERE ours.datname = current_database() AND ours.application_name LIKE %s AND ours.wait_event_type = 'Lock'
ORDER BY b.pid LIMIT 20
"""


def blockers(target: Target) -> tuple[str, ...]:
    """'pid 8123 (psql, 14 s)' each; nothing where the target does not answer or nobody is in the way."""
    try:
        with target.session() as connection:
            rows = connection.execute(_BLOCKERS, (f"{target.application_name}%",)).fetchall()
    except (psycopg.Error, Unavailable):
        return ()
    return tuple(_words(*row) for row in rows)


def _words(pid: int, application: str | None, kind: str | None, seconds: int | None) -> str:
    known = [application or kind or "unknown"] + ([f"{seconds:,} s"] if seconds is not None else [])
    return f"pid {pid} ({', '.join(known)})"
