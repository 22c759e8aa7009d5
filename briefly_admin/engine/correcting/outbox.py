"""The record of corrections in the target: written in the transaction that changes the rows, taken over afterwards."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import errors, sql

from briefly_admin.domain.corrections import Cause, CorrectedRow, Deed
from briefly_admin.domain.errors import Refused
from briefly_admin.engine.correcting.answers import answering
from briefly_admin.engine.target import Connection, safe_message, server_cursor

_DDL: Final = """
CREATE SCHEMA IF NOT EXISTS briefly_migration;
CREATE TABLE IF NOT EXISTS briefly_migration.correction (
  deed uuid NOT NULL, "table" text NOT NULL, key text[] NOT NULL, at timestamptz NOT NULL DEFAULT now(),
  by jsonb NOT NULL, changes jsonb NOT NULL, PRIMARY KEY (deed, "table", key));
"""
_PRESENT: Final = "SELECT to_regclass('briefly_migration.correction') IS NOT NULL"
# Two creators at once: one of them sees an object that IF NOT EXISTS did not.
_RACES: Final = (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateSchema, errors.DuplicateObject)
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('briefly correction ' || %s::text, 0))"


def ensure(connection: Connection) -> None:
    """Makes the table, and its schema, where they are missing. Raises Refused without the right."""
    for _ in range(5):
        if is_there(connection):
            return
        try:
            with connection.transaction():
                connection.execute(_DDL)
        except _RACES:
            continue
        except errors.InsufficientPrivilege as error:
            raise Refused(
                f"The role may not create the schema briefly_migration in the target ({safe_message(error)}).",
                remedy="GRANT CREATE ON DATABASE … TO the role of TARGET_DATABASE_URL. Nothing was changed.",
            ) from None


def is_there(connection: Connection) -> bool:
    """Whether there is an outbox at all."""
    row = connection.execute(_PRESENT).fetchone()
    return bool(row and row[0])


def begin(connection: Connection, deed: UUID) -> None:
    """Within the deed's transaction: whoever asks `is_recorded` waits for its end."""
    connection.execute(_LOCK, (deed,))


def is_recorded(connection: Connection, deed: UUID) -> bool:
    """Whether the deed was committed; waits while its session is still at it."""
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '10s'")
        connection.execute(_LOCK, (deed,))
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM briefly_migration.correction WHERE deed = %s)", (deed,)
        ).fetchone()
    return bool(row and row[0])


def write(
    connection: Connection, deed: Deed, table: str, *, keys: sql.Composable, changes: sql.Composable,
    source: sql.Composable,
) -> int:  # fmt: skip
    """A record of each row of `source`: `keys` is its key as text[], `changes` as jsonb. How many."""
    query = sql.SQL(
        'INSERT INTO briefly_migration.correction (deed, "table", key, by, changes) '
        "SELECT {deed}::uuid, {table}, {keys}, {by}::jsonb, {changes} FROM {source}"
    ).format(
        deed=sql.Literal(str(deed.id)), table=sql.Literal(table), keys=keys, by=sql.Literal(_by(deed)), changes=changes,
        source=source,
    )  # fmt: skip
    return connection.execute(query).rowcount


def _by(deed: Deed) -> str:
    cause = deed.cause
    facts: dict[str, Any] = {"by": deed.by, "role": deed.role, "via": deed.via, "address": deed.address}
    if cause is not None:
        facts["cause"] = {"table": cause.table, "field": cause.field, "rule": cause.rule, "run_id": cause.run_id}
    return json.dumps(facts)


def left_over(connection: Connection, *, limit: int = 100) -> tuple[Deed, ...]:
    """Deeds whose records nobody has taken over, the oldest first."""
    with answering():
        if not is_there(connection):
            return ()
        rows = connection.execute(
            "SELECT deed, by FROM (SELECT DISTINCT ON (deed) deed, by, at FROM briefly_migration.correction) AS d "
            "ORDER BY at, deed LIMIT %s",
            (limit,),
        ).fetchall()
    return tuple(_deed(deed, by) for deed, by in rows)


def _deed(deed: UUID, by: Any) -> Deed:
    """Whatever stands there: the database is not ours, and one odd record must not hold up others."""
    facts = by if isinstance(by, Mapping) else {}
    name, role, via, address = (str(facts.get(fact, "")) for fact in ("by", "role", "via", "address"))
    told = facts.get("cause")
    cause = None
    if isinstance(told, Mapping):
        table, field, rule = (str(told.get(part, "")) for part in ("table", "field", "rule"))
        run_id = told.get("run_id")
        cause = Cause(table, field, rule, None if run_id is None else str(run_id))
    return Deed(deed, name or "unknown", role, via, address, cause)


def records(connection: Connection, deed: UUID, *, chunk: int = 5000) -> Iterator[Sequence[CorrectedRow]]:
    """A deed's rows, `chunk` at a time. `connection`: idle, and busy until the iterator ends."""
    query = sql.SQL('SELECT "table", key, at, changes FROM briefly_migration.correction WHERE deed = {}').format(
        sql.Literal(deed)
    )
    with answering(), connection.transaction(), server_cursor(connection, "briefly_records", chunk=chunk) as cursor:
        cursor.execute(query)
        while rows := cursor.fetchmany(chunk):
            yield [_row(*row) for row in rows]


def _row(table: str, key: Sequence[str], at: datetime, changes: Any) -> CorrectedRow:
    given = changes if isinstance(changes, Mapping) else {}
    told = {name: change for name, change in given.items() if isinstance(change, Mapping) and "secret" not in change}
    values = {name: (_text(change.get("before")), _text(change.get("after"))) for name, change in told.items()}
    return CorrectedRow(table, tuple(map(str, key)), values, tuple(sorted(set(given) - set(told))), at)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def empty(connection: Connection, deed: UUID) -> None:
    """The app database has the deed's records."""
    with answering():
        connection.execute("DELETE FROM briefly_migration.correction WHERE deed = %s", (deed,))


def change(name: str, before: sql.Composable, after: sql.Composable, *, secret: bool) -> sql.Composable:
    """`name, {"before", "after"}` for jsonb_build_object; of a secret column its name alone."""
    if secret:
        return sql.SQL("{}::text, '{{\"secret\": true}}'::jsonb").format(sql.Literal(name))
    return sql.SQL("{}::text, jsonb_build_object('before', {}, 'after', {})").format(sql.Literal(name), before, after)
