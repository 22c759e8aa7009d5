"""Sessions on the target database: the same settings whatever the server's, the role's or the client's are."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from briefly_admin.domain.errors import SettingError, Unavailable

Connection = psycopg.Connection[tuple[Any, ...]]

SCHEMA: Final = "briefly_migration"
"""Our one schema in the target."""

_SESSION: Final[tuple[LiteralString, ...]] = (
    "SET client_encoding TO 'UTF8'",
    # Ours are qualified; the customer's trigger functions often rely on public, and must work as they do every day.
    "SET search_path TO pg_catalog, public",
    "SET TimeZone TO 'UTC'",
    "SET DateStyle TO 'ISO, YMD'",
    "SET IntervalStyle TO 'postgres'",
    "SET extra_float_digits TO 3",
    "SET bytea_output TO 'hex'",
    "SET lc_monetary TO 'C'",
    "SET array_nulls TO on",
    "SET xmloption TO content",
    "SET quote_all_identifiers TO off",
    "SET default_transaction_isolation TO 'read committed'",
    "SET default_transaction_read_only TO off",
    "SET row_security TO off",
    "SET client_min_messages TO warning",
    "SET client_connection_check_interval TO '5s'",
    "SET standard_conforming_strings TO on",
)
_BATCH: Final[tuple[LiteralString, ...]] = ("SET lock_timeout TO '1s'", "SET statement_timeout TO '5s'")
_BULK: Final[tuple[LiteralString, ...]] = (
    "SET lock_timeout TO '1s'",
    "SET statement_timeout TO 0",
    "SET idle_in_transaction_session_timeout TO 0",
)
_KEEPALIVE: Final = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}


@dataclass(frozen=True, slots=True)
class Target:
    """A database to work on: `dsn` is a libpq connection string or URI (a secret: never shown)."""

    dsn: str = field(repr=False)
    application_name: str = "briefly-admin"

    def connect(self, *, bulk: bool = False) -> Connection:
        """A new autocommit connection with our session settings.

        `bulk`: for COPY, index builds, VALIDATE, ANALYZE, staging and restore: no statement timeout. Otherwise
        lock_timeout 1 s and statement_timeout 5 s, as a batch needs. Raises Unavailable (no secret in its text).
        """
        try:
            connection = psycopg.connect(
                self.dsn, autocommit=True, prepare_threshold=None, application_name=self.application_name,
                **{k: v for k, v in _KEEPALIVE.items() if k not in conninfo_to_dict(self.dsn)},  # type: ignore[arg-type]
            )  # fmt: skip
        except psycopg.Error as error:
            raise Unavailable(
                f"The database {self.title} does not answer: {_first_line(error)}.",
                remedy="Check that it runs, that the connection string is right and that this machine may reach it.",
            ) from None
        statements = _SESSION + (_BULK if bulk else _BATCH)
        connection.execute("; ".join(statements))
        return connection

    @contextmanager
    def session(self, *, bulk: bool = False) -> Iterator[Connection]:
        """`connect`, closed at the end; a transaction left open is rolled back by the server."""
        connection = self.connect(bulk=bulk)
        try:
            yield connection
        finally:
            connection.close()

    @property
    def parts(self) -> dict[str, str]:
        """host, port and dbname of the DSN, without its secrets. Raises SettingError for a malformed one."""
        try:
            known = conninfo_to_dict(self.dsn)
        except psycopg.ProgrammingError:
            raise SettingError("TARGET_DATABASE_URL", "is not a PostgreSQL connection string.") from None
        host = str(known.get("host") or "localhost")
        return {
            "host": "local socket" if host.startswith("/") else host,
            "port": str(known.get("port") or "5432"),
            "dbname": str(known.get("dbname") or known.get("user") or ""),
        }

    @property
    def title(self) -> str:
        """'db.example.com/briefly': what people may see of the DSN."""
        return f"{self.parts['host']}/{self.parts['dbname']}"


@contextmanager
def server_cursor(connection: Connection, name: str, *, chunk: int) -> Iterator[psycopg.ServerCursor[tuple[Any, ...]]]:
    """A cursor of the server's, fetched `chunk` rows at a time; closed at the end, whatever became of its session.

    psycopg's own `with` leaves it open where the server refuses CLOSE, because it had ended the session just before.
    """
    cursor = connection.cursor(name=name)
    try:
        cursor.itersize = chunk
        yield cursor
    finally:
        try:
            cursor.close()
        except psycopg.Error:
            cursor.close()  # knows by now that there is nothing to be asked of the server
            raise


def safe_message(error: psycopg.Error) -> str:
    """What may be shown of a database error: SQLSTATE, its name and the constraint; never values of the data."""
    if error.sqlstate is None:
        return _first_line(error)
    parts = [type(error).__name__, f"SQLSTATE {error.sqlstate}"]
    if error.diag.constraint_name:
        parts.append(f"constraint {error.diag.constraint_name}")
    if error.diag.table_name:
        parts.append(f"table {error.diag.table_name}")
    if error.diag.column_name:
        parts.append(f"column {error.diag.column_name}")
    return ", ".join(parts)


def _first_line(error: psycopg.Error) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rstrip(".")


def qualified(schema: str, table: str) -> sql.Identifier:
    """A table's quoted, qualified name."""
    return sql.Identifier(schema, table)
