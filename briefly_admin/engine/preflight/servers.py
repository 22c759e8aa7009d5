"""Checks of everything around the target's tables: keys, app database, target server, queue, store, runs, backups."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from psycopg import sql

from briefly_admin.domain.checks import Check, Colour
from briefly_admin.engine.preflight.inputs import PreflightInputs, amber, green, look, red
from briefly_admin.engine.preflight.kept import of_backups
from briefly_admin.engine.target import SCHEMA, Connection, Target

_KEY_SIZE: Final = 32
_OLDEST_SERVER: Final = 140000
_SLOW_SECONDS: Final = 0.25
_POOLER_PORT: Final = "6543"
_ROUNDS: Final = 5
_LONG_SECONDS: Final = 300
_MOST_LAG_BYTES: Final = 64 * 2**20


def around(inputs: PreflightInputs) -> Iterator[Check]:
    """The checks that need no target."""
    if inputs.key_sizes is not None:
        yield _keys(inputs.key_sizes)
    if inputs.ping_app_database is not None:
        ping = inputs.ping_app_database
        yield look("app_database", "The app database answers", lambda: _app_database(ping))
    if inputs.workers is not None:
        yield look("workers", "A worker listens", lambda: _workers(inputs), otherwise=Colour.AMBER)
    if inputs.active_run is not None:
        yield _active_run(inputs)
    if inputs.backups is not None:
        yield from of_backups(inputs.backups, inputs.now())
    if not inputs.store_is_kept:
        yield red(
            "store_kept", "The backups' store lasts", "The file: store is on a disk that the platform does not keep.",
            "Set BACKUP_STORE_URL to a store that lasts, or BACKUP_FILE_SHARED=1 if the directory is kept and shared.",
        )  # fmt: skip


def _keys(known: Mapping[str, int]) -> Check:
    title = "The backup keys are right"
    wrong = [f"{name} has {size} bytes" for name, size in known.items() if size != _KEY_SIZE]
    if not known or wrong:
        return red("backup_keys", title, f"{'; '.join(wrong) or 'There is no key'}; a key has {_KEY_SIZE} bytes.",
                   "Make one: echo key-1:$(openssl rand -base64 32), and set BACKUP_KEYS.")  # fmt: skip
    return green("backup_keys", title, f"{len(known)} of {_KEY_SIZE} bytes each: {', '.join(known)}.")


def _app_database(ping: Callable[[], object]) -> Check:
    began = time.monotonic()
    ping()
    return _timed("app_database", "The app database answers", time.monotonic() - began)


def _timed(name: str, title: str, seconds: float) -> Check:
    found = f"It answers in {seconds * 1000:.0f} ms."
    if seconds > _SLOW_SECONDS:
        return amber(name, title, found, "Run this program nearer to the database: every batch waits for such answers.")
    return green(name, title, found)


def _workers(inputs: PreflightInputs) -> Check:
    count = inputs.workers() if inputs.workers else 0
    if count:
        return green("workers", "A worker listens", f"{count} listening.")
    return amber("workers", "A worker listens", "No worker listens: a run waits until one does.",
                 "Start one: briefly-admin worker. The command briefly-admin run leads a run by itself.")  # fmt: skip


def _active_run(inputs: PreflightInputs) -> Check:
    title = "No other run holds the target"
    if not inputs.active_run:
        return green("active_run", title, "None is active.")
    found = f"{inputs.active_run} is active."
    remedy = "Wait until it ends, or cancel it."
    return (red if inputs.starting else amber)("active_run", title, found, remedy)


def target_reachable(target: Target) -> Check:
    """Whether a session can be had, and how fast a question is answered."""
    title = "The target database answers"

    def ask() -> Check:
        with target.session() as connection:
            began = time.monotonic()
            connection.execute("SELECT 1")
            return _timed("target_reachable", title, time.monotonic() - began)

    return look("target_reachable", title, ask)


def of_server(connection: Connection, target: Target) -> Iterator[Check]:
    """The checks of the target's server and of the role's rights on the database."""
    yield look("server_version", "The server is new enough", lambda: _version(connection))
    yield look("writable", "The target takes writes", lambda: _writable(connection))
    yield look("pooler", "No transaction pooler stands between", lambda: _pooler(connection, target))
    yield look("rights", f"The role may keep its schema {SCHEMA}", lambda: _rights(connection))
    title = "No transaction is open for long"
    yield look("long_transactions", title, lambda: _long_transactions(connection), otherwise=Colour.AMBER)
    title = "Replicas keep up"
    yield look("replication_lag", title, lambda: _replication(connection), otherwise=Colour.AMBER)


def _version(connection: Connection) -> Check:
    version = connection.info.server_version
    title = "The server is new enough"
    if version < _OLDEST_SERVER:
        return red("server_version", title, f"It is PostgreSQL {version // 10000}.", "Upgrade it to 14 or newer.")
    return green("server_version", title, f"PostgreSQL {version // 10000}.{version % 10000}.")


def _writable(connection: Connection) -> Check:
    ((standby,),) = connection.execute("SELECT pg_is_in_recovery()").fetchall()
    title = "The target takes writes"
    if standby:
        return red("writable", title, "It is a standby: it can only be read.", "Give the primary's connection string.")
    return green("writable", title, "It is a primary.")


def _pooler(connection: Connection, target: Target) -> Check:
    """A transaction pooler gives A another server process while B's transaction holds the one that A had."""
    title = "No transaction pooler stands between"
    remedy = (
        "Use the direct connection string, or the session pooler's where the direct host is IPv6 only "
        "(Supabase: port 5432 in place of 6543)."
    )
    by_port = target.parts["port"] == _POOLER_PORT
    with target.session() as other:
        for _ in range(_ROUNDS):
            before = _pid(connection)
            other.execute("BEGIN")
            _pid(other)
            after = _pid(connection)
            other.execute("ROLLBACK")
            if before != after:
                port = " (port 6543 is a transaction pooler's)" if by_port else ""
                return red("pooler", title, f"The session changes its server process{port}.", remedy)
    if by_port:
        return amber("pooler", title, "Port 6543 is that of a transaction pooler.", remedy)
    return green("pooler", title, f"The session kept its server process in {_ROUNDS} rounds.")


def _pid(connection: Connection) -> int:
    ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
    return int(pid)


def _rights(connection: Connection) -> Check:
    query = sql.SQL(
        "SELECT has_database_privilege(current_database(), 'CREATE'), "
        "(SELECT has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace n WHERE n.nspname = {})"
    ).format(sql.Literal(SCHEMA))
    ((may_create, has_schema),) = connection.execute(query).fetchall()
    title = f"The role may keep its schema {SCHEMA}"
    if has_schema or (has_schema is None and may_create):
        return green("rights", title, "It is there." if has_schema else "It may be made.")
    return red("rights", title, "The role may not create it, or not write in it.",
               "GRANT CREATE ON DATABASE to the role, or make it the schema's owner.")  # fmt: skip


def _long_transactions(connection: Connection) -> Check:
    ((count, oldest),) = connection.execute(
        "SELECT count(*), extract(epoch FROM max(now() - xact_start))::int FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - %s * interval '1 s'",
        (_LONG_SECONDS,),
    ).fetchall()
    title = "No transaction is open for long"
    if not count:
        return green("long_transactions", title, f"None that this role sees is older than {_LONG_SECONDS // 60} min.")
    return amber("long_transactions", title, f"{count} open for up to {oldest // 60} min.",
                 "Index builds and ALTERs wait for them: end them, or expect the run to wait.")  # fmt: skip


def _replication(connection: Connection) -> Check:
    ((count, seen, lag),) = connection.execute(
        "SELECT count(*), count(state), max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))::int8 "
        "FROM pg_stat_replication"
    ).fetchall()
    title = "Replicas keep up"
    if not count:
        return green("replication_lag", title, "There are none that this role sees.")
    if seen < count:
        return amber("replication_lag", title, f"{count} follow, but this role may not see how far behind they are.",
                     "GRANT pg_read_all_stats to the role: a run then waits while one is 10 s behind.")  # fmt: skip
    if lag is not None and lag > _MOST_LAG_BYTES:
        return amber("replication_lag", title, f"The slowest of {count} is {lag // 2**20} MB behind.",
                     "Wait until they have caught up, or set a pause between batches.")  # fmt: skip
    return green("replication_lag", title, f"{count}, at most {(lag or 0) // 2**20} MB behind.")
