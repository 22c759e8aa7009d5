"""Pace: lets replicas keep up and a slow server breathe between batches, and says what is waited for."""

from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from briefly_admin.engine.breaker import Announce, in_seconds
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Connection

MOST_LAG: Final = 10.0
"""Seconds that a standby may be behind."""
TARGET_SECONDS: Final = 0.5
"""What a batch should take."""
_SLOW: Final = 4
"""Times its target that a batch may take."""
_LONGEST_REST: Final = 10.0
_LOOK_EVERY: Final = 2.0
_AGAIN_EVERY: Final = 1.0

# A standby that has replayed everything is not behind, whatever it measured last. Logical consumers report at their
# own rhythm, and a role without pg_read_all_stats sees NULL everywhere: neither makes a run wait.
_LAG: Final = """
SELECT coalesce(nullif(r.application_name, ''), r.client_addr::text, 'a standby'),
  extract(epoch FROM r.replay_lag)::float8
FROM pg_catalog.pg_stat_replication AS r LEFT JOIN pg_catalog.pg_replication_slots AS s ON s.active_pid = r.pid
WHERE r.replay_lag IS NOT NULL AND s.slot_type IS DISTINCT FROM 'logical'
  AND r.replay_lsn < pg_catalog.pg_current_wal_lsn()
ORDER BY r.replay_lag DESC LIMIT 1
"""


class Pace:
    """What a worker waits for between its batches; `config.pause` is the caller's."""

    def __init__(self, context: RunContext, announce: Announce, *, most_lag: float = MOST_LAG) -> None:
        self._most_lag = most_lag
        self._context = context
        self._announce = announce
        self._look_at = float("-inf")

    def after(self, connection: Connection, seconds: float, target_seconds: float = TARGET_SECONDS) -> None:
        """Waits as needed after a batch that took `seconds` on `connection`, which is outside a transaction.

        Raises Stopped; a failure of the look at replication is the next batch's to meet, not this one's to raise.
        """
        if seconds > _SLOW * target_seconds:
            self._rest(seconds)
        if self._context.monotonic() >= self._look_at:
            self._let_replicas_catch_up(connection)
            self._look_at = self._context.monotonic() + _LOOK_EVERY

    def _rest(self, seconds: float) -> None:
        rest = min(seconds, _LONGEST_REST)
        told = f"The server is slow: a batch took {seconds:.1f} s; waiting {rest:.1f} s."
        self._announce(told, in_seconds(self._context, rest))
        self._context.sleep(rest)
        self._announce("")

    def _let_replicas_catch_up(self, connection: Connection) -> None:
        waited = False
        while (found := _lag(connection)) is not None and found[1] > self._most_lag:
            name, lag = found
            told = f"Replication lag is {lag:.0f} s ({name}); waiting until it is below {self._most_lag:.0f} s."
            self._announce(told)
            self._context.sleep(_AGAIN_EVERY)
            waited = True
        if waited:
            self._announce("")


def _lag(connection: Connection) -> tuple[str, float] | None:
    """The standby that is furthest behind, and by how many seconds; None where there is none that can be seen."""
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        return None
    try:
        return connection.execute(_LAG).fetchone()
    except psycopg.Error:
        return None
