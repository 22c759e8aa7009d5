"""The fence in the target: which attempt of a run may write there, and how a newer one takes over from an older one."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import psycopg
from psycopg import errors

from briefly_admin.domain.errors import Busy, Fenced, RunFailed
from briefly_admin.engine.target import Connection, Target, safe_message

TAKEOVER_PATIENCE: Final = 30.0
"""Seconds that a takeover keeps trying."""
CORRECTION_PATIENCE: Final = 120.0
"""Seconds that a takeover queues behind corrections by hand, which only hold it off: as long as a fix may take."""
_PAUSE: Final = 0.2
_SLICE: Final = 5.0
"""Seconds of queueing at a stretch: between them a run that is to stop can."""
_LOCK: Final = 0x62726965666C79
"""The advisory lock of the one exclusive run on a database: 'briefly' in ASCII."""
# Two creators at once: one of them sees an object that IF NOT EXISTS did not.
_RACES: Final = (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateSchema, errors.DuplicateObject)

_DDL: Final = """
CREATE SCHEMA IF NOT EXISTS briefly_migration;
CREATE TABLE IF NOT EXISTS briefly_migration.fence (
  run_id uuid PRIMARY KEY, attempt integer NOT NULL, backend_pid integer, backend_start timestamptz);
CREATE TABLE IF NOT EXISTS briefly_migration.checkpoint (
  run_id uuid NOT NULL, "table" text NOT NULL, partition integer NOT NULL, claim integer NOT NULL DEFAULT 0,
  backend_pid integer, backend_start timestamptz, last_key text[], counters jsonb NOT NULL DEFAULT '{}',
  done boolean NOT NULL DEFAULT false, PRIMARY KEY (run_id, "table", partition));
CREATE TABLE IF NOT EXISTS briefly_migration.quarantine (
  run_id uuid NOT NULL, "table" text NOT NULL, key text[] NOT NULL, cause text NOT NULL, sqlstate text,
  "constraint" text, message text NOT NULL, PRIMARY KEY (run_id, "table", key));
ALTER TABLE briefly_migration.quarantine ADD COLUMN IF NOT EXISTS field text NOT NULL DEFAULT '';
"""
_PRESENT: Final = """
SELECT to_regclass('briefly_migration.fence') IS NOT NULL AND to_regclass('briefly_migration.checkpoint') IS NOT NULL
   AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('briefly_migration.quarantine')
     AND attname = 'field' AND NOT attisdropped)
"""
_TERMINATE: Final = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN (
  SELECT backend_pid, backend_start FROM briefly_migration.fence WHERE run_id = %(run)s UNION
  SELECT backend_pid, backend_start FROM briefly_migration.checkpoint WHERE run_id = %(run)s
) r ON r.backend_pid = a.pid AND r.backend_start = a.backend_start WHERE a.pid <> pg_backend_pid()
"""
_RAISE: Final = """
UPDATE briefly_migration.fence SET attempt = %(attempt)s, backend_pid = pg_backend_pid(),
  backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) WHERE run_id = %(run)s
"""
_REGISTER: Final = """
INSERT INTO briefly_migration.checkpoint (run_id, "table", partition, claim, backend_pid, backend_start)
SELECT %(run)s, %(name)s, -1, 1, pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()
ON CONFLICT (run_id, "table", partition) DO UPDATE SET claim = checkpoint.claim + 1,
  backend_pid = excluded.backend_pid, backend_start = excluded.backend_start
"""
_UNRECORDED: Final = "SET LOCAL idle_in_transaction_session_timeout TO '20s'"
"""Nobody records the session yet: stopped in here, it must not hold the fence for longer than a takeover waits."""
_HOLDERS: Final = """
SELECT pid, mode = 'ShareLock' FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32) | objid::bigint = %s
"""


@dataclass(frozen=True, slots=True)
class Lead:
    """The leader's session on the target: it holds the advisory lock as long as it is open."""

    connection: Connection
    run_id: UUID
    attempt: int

    def alive(self) -> bool:
        """Whether the session, and with it the lock, still stands."""
        try:
            self.connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def release(self) -> None:
        """Ends the session; the lock goes with it."""
        self.connection.close()


def ensure_schema(connection: Connection) -> None:
    """Makes the schema briefly_migration and its tables where they are missing. Raises RunFailed without the right."""
    for _ in range(5):
        row = connection.execute(_PRESENT).fetchone()
        if row and row[0]:
            return
        try:
            with connection.transaction():
                connection.execute(_DDL)
        except _RACES:
            continue
        except errors.InsufficientPrivilege as error:
            raise RunFailed(
                f"The role may not create the schema briefly_migration in the target ({safe_message(error)}).",
                remedy="GRANT CREATE ON DATABASE … TO the role of TARGET_DATABASE_URL, then start the run again.",
            ) from None


def require(connection: Connection, run_id: UUID, attempt: int) -> None:
    """Inside a transaction: takes the fence FOR SHARE. Raises Fenced unless it stands at this attempt."""
    query = "SELECT attempt FROM briefly_migration.fence WHERE run_id = %s FOR SHARE"
    row = connection.execute(query, (run_id,)).fetchone()
    if row is None or row[0] != attempt:
        now = f"attempt {row[0]} leads it now" if row else "another run has begun since"
        raise Fenced(f"This is attempt {attempt} of run {run_id}, but {now}: it writes nothing more.")


@contextmanager
def fenced(connection: Connection, run_id: UUID, attempt: int) -> Iterator[None]:
    """A transaction that may write: committed at the end, undone by any error. Raises Fenced at its begin."""
    with connection.transaction():
        require(connection, run_id, attempt)
        yield


def register(connection: Connection, run_id: UUID, attempt: int, name: str) -> None:
    """Records a writing session that no partition's claim records, so that a takeover can end it. Raises Fenced."""
    with connection.transaction():
        connection.execute(_UNRECORDED)
        require(connection, run_id, attempt)
        connection.execute(_REGISTER, {"run": run_id, "name": name})


def flush(connection: Connection, run_id: UUID, attempt: int) -> None:
    """One synchronous commit: all that was committed before it is on disk after it. Raises Fenced."""
    with connection.transaction():
        connection.execute(f"SET LOCAL synchronous_commit TO on; {_UNRECORDED}")
        require(connection, run_id, attempt)


def take_over(
    target: Target,
    run_id: UUID,
    attempt: int,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    patience: float = TAKEOVER_PATIENCE,
    courtesy: float = CORRECTION_PATIENCE,
) -> Lead:
    """Ends the run's earlier sessions, raises the fence to this attempt and takes the advisory lock.

    It tries each for `patience` s, and queues behind corrections by hand for `courtesy` s. Raises Fenced where a newer
    attempt is recorded, Busy where another run, or corrections, hold the database.
    """
    connection = target.connect(bulk=True)

    def until(step: Callable[[], bool], failed: Callable[[], Busy]) -> None:
        deadline = monotonic() + patience
        while not step():
            if monotonic() >= deadline:
                raise failed()
            sleep(_PAUSE)

    try:
        connection.execute("SET idle_session_timeout TO 0")
        ensure_schema(connection)
        until(lambda: _raised(connection, run_id, attempt), lambda: _held(run_id))
        _take_lock(connection, patience=patience, courtesy=courtesy, sleep=sleep, monotonic=monotonic)
        until(lambda: _others_gone(connection, run_id), lambda: _occupied(_holders(connection)))
    except BaseException:
        connection.close()
        raise
    return Lead(connection, run_id, attempt)


def _raised(connection: Connection, run_id: UUID, attempt: int) -> bool:
    """One try to raise the fence; False while somebody holds it."""
    connection.execute(_TERMINATE, {"run": run_id})
    try:
        with connection.transaction():
            connection.execute(_UNRECORDED)
            connection.execute(
                "INSERT INTO briefly_migration.fence (run_id, attempt) VALUES (%s, 0) ON CONFLICT DO NOTHING", (run_id,)
            )
            query = "SELECT attempt FROM briefly_migration.fence WHERE run_id = %s FOR UPDATE"
            row = connection.execute(query, (run_id,)).fetchone()
            if row is None or row[0] > attempt:
                raise Fenced(f"A newer attempt leads run {run_id}: attempt {attempt} gives way.")
            connection.execute(_RAISE, {"run": run_id, "attempt": attempt})
    except errors.LockNotAvailable:
        return False
    return True


def _take_lock(
    connection: Connection, *, patience: float, courtesy: float, sleep: Callable[[float], None],
    monotonic: Callable[[], float],
) -> None:  # fmt: skip
    """A killed leader's backend may need seconds to notice that it is alone; a fix of many rows needs its time."""
    began = monotonic()
    while not _locked(connection):
        holders = _holders(connection)
        by_hand = all(shared for _, shared in holders)
        left = began + (courtesy if by_hand else patience) - monotonic()
        if left <= 0:
            raise _corrected(holders) if by_hand else _occupied(holders)
        if by_hand and _queued(connection, min(left, _SLICE)):
            return
        sleep(0 if by_hand else _PAUSE)


def _locked(connection: Connection) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
    return bool(row and row[0])


def _queued(connection: Connection, seconds: float) -> bool:
    """Waits for the lock: whoever would share it meanwhile is refused, so that short holders do not take turns."""
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{max(int(seconds * 1000), 1)}ms",))
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    except errors.LockNotAvailable:
        return False
    return True


def _holders(connection: Connection) -> list[tuple[int, bool]]:
    """(server process, whether it shares the lock) of each."""
    return [(pid, shared) for pid, shared in connection.execute(_HOLDERS, (_LOCK,))]


def _others_gone(connection: Connection, run_id: UUID) -> bool:
    """Whoever held the database before cannot go on: a run is not resumed once another has begun."""
    try:
        connection.execute("DELETE FROM briefly_migration.fence WHERE run_id <> %s", (run_id,))
    except errors.LockNotAvailable:
        return False
    return True


def hold_off(connection: Connection) -> bool:
    """Until the transaction ends no leader begins; False, at once, where one leads. A leader waits for such holders.

    For what is short and must not be done beside a run: many may hold leaders off at once.
    """
    row = connection.execute("SELECT pg_try_advisory_xact_lock_shared(%s)", (_LOCK,)).fetchone()
    return bool(row and row[0])


def _held(run_id: UUID) -> Busy:
    return Busy(
        f"An earlier attempt of run {run_id} holds its fence and could not be ended.", run_id=str(run_id),
        remedy="End its session on the target (pg_stat_activity, application briefly-admin), then resume.",
    )  # fmt: skip


def _occupied(holders: Sequence[tuple[int, bool]]) -> Busy:
    pid = next((pid for pid, shared in holders if not shared), "unknown")
    return Busy(
        f"Another run holds the target database (its server process is {pid}).",
        remedy="Wait until it ends, or cancel it; one migration or rollback runs at a time.",
    )


def _corrected(holders: Sequence[tuple[int, bool]]) -> Busy:
    pids = ", ".join(str(pid) for pid, _ in holders) or "unknown"
    return Busy(
        f"A correction by hand is under way in the target database (server process {pids}).",
        remedy="Start or resume the run again when it has ended.",
    )
