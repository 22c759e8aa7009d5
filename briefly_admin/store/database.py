"""Connections to the app database: one small pool a process, opened lazily, secrets kept out of every text."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, Row, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError  # noqa: A004 - SQLAlchemy's name for an exhausted pool
from sqlalchemy.pool import NullPool

from briefly_admin.domain.errors import Unavailable

__all__ = ["Connection", "Database", "Engine", "Row", "engine"]

_KEEPALIVE: Final = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_SESSION: Final = "-c TimeZone=UTC -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"

_OTHER_REVISION: Final = (
    psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.InvalidSchemaName,
)  # fmt: skip


def engine(database_url: str, *, pooled: bool = True) -> Engine:
    """An engine for a libpq URL or connection string; libpq itself reads it, so every form of it works."""

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(database_url, application_name="briefly-admin", options=_SESSION, **_KEEPALIVE)  # type: ignore[arg-type] # a mapping of options

    if not pooled:
        return create_engine("postgresql+psycopg://", creator=connect, hide_parameters=True, poolclass=NullPool)
    return create_engine(
        "postgresql+psycopg://", creator=connect, hide_parameters=True, pool_pre_ping=True, pool_size=4, max_overflow=8,
        pool_timeout=10,
    )  # fmt: skip


class Database:
    """The app database of this process."""

    def __init__(self, database_url: str) -> None:
        self.engine = engine(database_url)
        self._unpooled = engine(database_url, pooled=False)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction, committed at the end, rolled back by any error. Raises Unavailable."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A read-only transaction that sees one instant. Raises Unavailable."""
        with _translated(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """An autocommit connection outside the pool, for heartbeats and session locks. Raises Unavailable."""
        with _translated(), self._unpooled.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @staticmethod
    def was_lost(error: Unavailable) -> bool:
        """Whether it is this database that did not answer."""
        return isinstance(error.__cause__, DBAPIError)

    def close(self) -> None:
        """Forget all pooled connections."""
        self.engine.dispose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Unavailable("All connections to the app database are in use.", remedy="Try again in a moment.") from error
    except DBAPIError as error:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            raise Unavailable(
                "The app database does not answer.",
                remedy="Check that it runs and that DATABASE_URL is right; then try again.",
            ) from error
        if isinstance(error.orig, _OTHER_REVISION):
            raise Unavailable(
                "The app database is not at this version's revision.",
                remedy="Run `briefly-admin release`; `briefly-admin up` does so by itself.",
            ) from error
        if isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise Unavailable(
                "The role of DATABASE_URL may not do this in the app database.",
                remedy="It must own the schema briefly_admin, or be able to make it.",
            ) from error
        raise
