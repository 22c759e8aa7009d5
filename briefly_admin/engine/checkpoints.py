"""Claims of partitions and the quarantine, in the target's schema briefly_migration."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from psycopg import errors
from psycopg.types.json import Jsonb

from briefly_admin.domain.errors import Fenced, RunFailed, Unavailable
from briefly_admin.domain.partitions import Count
from briefly_admin.engine.batching import Claim
from briefly_admin.engine.context import QuarantinedRow
from briefly_admin.engine.fence import TAKEOVER_PATIENCE, fenced
from briefly_admin.engine.target import Connection, server_cursor

_PLACE: Final = 'run_id = %(run)s AND "table" = %(table)s AND partition = %(partition)s'
_INSERT: Final = """
INSERT INTO briefly_migration.checkpoint (run_id, "table", partition) VALUES (%(run)s, %(table)s, %(partition)s)
ON CONFLICT DO NOTHING
"""
_END_HOLDER: Final = f"""
SELECT pg_terminate_backend(a.pid) FROM briefly_migration.checkpoint AS c
JOIN pg_stat_activity AS a ON a.pid = c.backend_pid AND a.backend_start = c.backend_start
WHERE {_PLACE} AND a.pid <> pg_backend_pid()
"""
_CLAIM: Final = f"""
UPDATE briefly_migration.checkpoint SET claim = claim + 1, backend_pid = pg_backend_pid(),
  backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
WHERE {_PLACE} RETURNING claim, last_key, counters, done
"""
_ADVANCE: Final = f"""
UPDATE briefly_migration.checkpoint SET last_key = %(last)s, counters = %(counters)s, done = %(done)s
WHERE {_PLACE} AND claim = %(claim)s
"""
_SAVE_QUARANTINE: Final = """
INSERT INTO briefly_migration.quarantine (run_id, "table", key, cause, sqlstate, "constraint", message, field)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_QUARANTINE: Final = """
SELECT "table", key, cause, message, sqlstate, "constraint", field FROM briefly_migration.quarantine
WHERE run_id = %s ORDER BY "table", key
"""
_COUNTS: Final = """
SELECT "table", partition, counters FROM briefly_migration.checkpoint WHERE run_id = %s AND partition >= 0
"""
SKIPPED: Final = "skipped"
"""The cause of rows that somebody decided to leave alone; their message is the reason."""
_COUNTED: Final = """
SELECT "table", count(*) FROM briefly_migration.quarantine WHERE run_id = %s AND cause <> %s GROUP BY 1
"""
_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(%s, hashtext(%s))"
_COUNTING: Final = 0x62726671
"""The advisory lock of those who add to a run's quarantine: 'brfq' in ASCII."""
_SET_ASIDE: Final = """
SELECT "table", count(*) FROM briefly_migration.quarantine WHERE run_id = %s GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a partition has come, as the target says; `last_key` as texts, None before the first batch."""

    claim: Claim
    last_key: tuple[str, ...] | None = None
    counters: Mapping[str, Any] = field(default_factory=dict)
    done: bool = False
    durable: bool = False
    """Surely on the target's disk."""


def counted(state: Checkpoint) -> Count:
    """Rows of the partition so far, as its checkpoint counts them."""
    return _count(state.counters)


def _count(counters: Mapping[str, Any]) -> Count:
    return Count(*(int(counters.get(name, 0)) for name in ("looked", "changed", "skipped")))


def claim_partition(
    connection: Connection, run_id: UUID, attempt: int, table: str, partition: int, *,
    sleep: Callable[[float], None] = time.sleep, monotonic: Callable[[], float] = time.monotonic,
) -> Checkpoint:  # fmt: skip
    """Takes a partition over from whoever held it: its recorded session is ended, its claim raised, what it left read.

    This is also how a lost answer to COMMIT is resolved: the checkpoint says whether the batch happened. Raises Fenced,
    and Unavailable where the former holder's lock stays for 30 s.
    """
    place = {"run": run_id, "table": table, "partition": partition}
    deadline = monotonic() + TAKEOVER_PATIENCE
    while True:
        try:
            with fenced(connection, run_id, attempt):
                # First of all: even ON CONFLICT DO NOTHING waits for whoever is changing the row.
                connection.execute(_END_HOLDER, place)
                # On disk with all that was committed before: how far it has come may be said elsewhere.
                connection.execute("SET LOCAL synchronous_commit TO on")
                connection.execute(_INSERT, place)
                row = connection.execute(_CLAIM, place).fetchone()
        except errors.LockNotAvailable:
            if monotonic() >= deadline:
                raise Unavailable(
                    f"A former session still holds the checkpoint of {table}.",
                    remedy="End it on the target (pg_stat_activity, application briefly-admin), then resume the run.",
                ) from None
            sleep(0.2)
            continue
        if row is None:
            raise RunFailed(f"The checkpoint of {table} is gone.", remedy="Roll back, then start a new run.")
        number, last_key, counters, done = row
        claim = Claim(run_id, attempt, table, partition, number)
        return Checkpoint(claim, tuple(last_key) if last_key else None, counters, done, durable=True)


def mark_done(connection: Connection, claim: Claim, counters: Mapping[str, Any]) -> None:
    """Inside a fenced transaction: the partition needs no more work."""
    place = {"run": claim.run_id, "table": claim.table, "partition": claim.partition}
    connection.execute(
        f"UPDATE briefly_migration.checkpoint SET done = true, counters = %(counters)s WHERE {_PLACE}",
        place | {"counters": Jsonb(dict(counters))},
    )


def quarantine(connection: Connection, run_id: UUID, rows: Iterable[QuarantinedRow], *, most: int) -> None:
    """Inside a transaction: sets rows aside, once each. Raises RunFailed where the run has more than `most` of them.

    Rows that somebody decided to skip do not count.
    """
    # Two who counted at once would not see each other's rows.
    connection.execute(_ONE_AT_A_TIME, (_COUNTING, str(run_id)))
    with connection.cursor() as cursor:
        cursor.executemany(
            _SAVE_QUARANTINE,
            ((run_id, r.table, list(r.key), r.cause, r.sqlstate, r.constraint, r.message, r.field) for r in rows),
        )
    aside: dict[str, int] = dict(connection.execute(_COUNTED, (run_id, SKIPPED)).fetchall())
    if sum(aside.values()) > most:
        counts = ", ".join(f"{table} {count:,}" for table, count in aside.items())
        raise RunFailed(
            f"More rows would be skipped than maxSkipped allows ({most:,}): {counts}.",
            remedy="Validate the data and correct it, or start a run with a higher maxSkipped.",
        )


def set_aside(connection: Connection, run_id: UUID) -> dict[str, int]:
    """Rows in quarantine by table."""
    return dict(connection.execute(_SET_ASIDE, (run_id,)).fetchall())


def counts(connection: Connection, run_id: UUID) -> dict[tuple[str, int], Count]:
    """How far each partition that was ever claimed has come, by table and number."""
    return {(table, number): _count(each) for table, number, each in connection.execute(_COUNTS, (run_id,))}


def quarantined_rows(connection: Connection, run_id: UUID) -> Iterator[QuarantinedRow]:
    """The run's quarantine, by table and key, in chunks from the server."""
    with connection.transaction(), server_cursor(connection, "quarantine", chunk=2000) as cursor:
        for table, key, cause, message, sqlstate, constraint, field in cursor.execute(_QUARANTINE, (run_id,)):
            yield QuarantinedRow(table, tuple(key), cause, message, sqlstate, constraint, field)


def advance(
    connection: Connection, claim: Claim, count: Count, *, last_key: Sequence[str] | None, done: bool = False
) -> Checkpoint:
    """Inside a fenced transaction: the partition has come this far. Raises Fenced where another claim owns it."""
    counters = {"looked": count.done, "changed": count.changed, "skipped": count.skipped}
    place = {"run": claim.run_id, "table": claim.table, "partition": claim.partition, "claim": claim.claim}
    last = list(last_key) if last_key else None
    written = connection.execute(_ADVANCE, place | {"last": last, "counters": Jsonb(counters), "done": done})
    if written.rowcount != 1:
        raise Fenced(f"Another worker has claimed {claim.table}: this one writes nothing more.")
    return Checkpoint(claim, tuple(last) if last else None, counters, done, durable=True)
