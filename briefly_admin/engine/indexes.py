"""Indexes built without blocking writers; one that failed is dropped at once."""

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import BrieflyError, RunFailed
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.changes import Compiled
from briefly_admin.engine.ddl import SchemaSession
from briefly_admin.engine.retry import describe, lost_connection
from briefly_admin.engine.target import Connection


def build(session: SchemaSession, compiled: Compiled, table: CatalogTable) -> None:
    """CREATE INDEX CONCURRENTLY, unless it stands under its name and is valid.

    The run recorded the name before, so that an invalid index of that name is what an earlier try of ours left.
    Raises RunFailed where rows or the server refuse it.
    """
    connection = session.connection
    found = _find(connection, table, compiled.name)
    if found is True:
        return
    if found is False:
        _drop(session, table, compiled.name)
    try:
        session.alone(compiled.add, wait_for_locks=True)
    except psycopg.Error as error:
        if lost_connection(error):
            raise
        _drop(session, table, compiled.name)
        raise RunFailed(
            f"The index {compiled.name} on {table.name} could not be built: {describe(error)}.",
            remedy="Validate the data: equal values keep a unique index away. Then resume the run.",
        ) from None
    except BrieflyError:
        # Stopped: the build was cancelled. Its rest must not cost writers anything until the run goes on.
        if not connection.broken and _find(connection, table, compiled.name) is False:
            connection.execute("SET statement_timeout TO '3s'")
            try:
                connection.execute(_dropping(table, compiled.name))
            except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
                session.context.journal.log(
                    "warning", f"The index {compiled.name} is left invalid until the run goes on."
                )
        raise


def _find(connection: Connection, table: CatalogTable, name: str) -> bool | None:
    """Whether the table's index of that name is valid; None where there is none."""
    now = read_table(connection, table.schema, table.name)
    return next((index.valid for index in now.indexes if index.name == name), None) if now else None


def _dropping(table: CatalogTable, name: str) -> sql.Composed:
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(table.schema, name))


def _drop(session: SchemaSession, table: CatalogTable, name: str) -> None:
    session.alone(_dropping(table, name), wait_for_locks=True)
