"""Removing sample data: only rows listed in `briefly_migration.sample`, children first."""

from typing import Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.target import SCHEMA, Connection, Target, safe_message
from briefly_admin.plans.base import Plan, Table

SAMPLE: Final = sql.Identifier(SCHEMA, "sample")
"""The list of the rows that `create` made: ("table" text, key text)."""

_MANY: Final = 10_000
"""From so many rows on, tables that hold nothing else are truncated: a row's DELETE looks at every foreign key."""

_LISTED: Final = sql.SQL('FROM {sample} AS s WHERE s."table" = {name} AND s.key = t.{key}::text')


def sample_exists(connection: Connection) -> bool:
    """Whether the list of sample rows is there."""
    return read_table(connection, SCHEMA, "sample") is not None


def _listed(table: Table) -> sql.Composed:
    return _LISTED.format(sample=SAMPLE, name=sql.Literal(table.name), key=sql.Identifier(table.key[0]))


def _count(connection: Connection, query: sql.Composed) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def foreign_rows(connection: Connection, table: Table) -> int:
    """How many rows of an existing table are not sample data."""
    where = sql.SQL("NOT EXISTS (SELECT {})").format(_listed(table)) if sample_exists(connection) else sql.SQL("true")
    identifier = sql.Identifier(table.schema, table.name)
    return _count(connection, sql.SQL("SELECT count(*) FROM {} AS t WHERE {}").format(identifier, where))


def counts(target: Target, plan: Plan) -> dict[str, int]:
    """How many sample rows there are now, by table. Raises Unavailable."""
    with target.session(bulk=True) as connection:
        if not sample_exists(connection):
            return dict.fromkeys((table.name for table in plan.tables), 0)
        return {table.name: _count_sample(connection, table) for table in plan.tables}


def _count_sample(connection: Connection, table: Table) -> int:
    if read_table(connection, table.schema, table.name) is None:
        return 0
    identifier = sql.Identifier(table.schema, table.name)
    return _count(
        connection, sql.SQL("SELECT count(*) FROM {} AS t WHERE EXISTS (SELECT {})").format(identifier, _listed(table))
    )


def cleanup(target: Target, plan: Plan) -> dict[str, int]:
    """Sample rows removed, by table; all in one transaction. The tables stay; the list goes once it is empty.

    Raises Refused where other rows refer to sample rows, or where somebody holds the tables; Unavailable.
    """
    with target.session(bulk=True) as connection:
        try:
            with connection.transaction():
                return remove(connection, plan)
        except psycopg.errors.ForeignKeyViolation as error:
            raise Refused(
                f"Rows that are not sample data refer to sample rows ({safe_message(error)}).",
                remedy="Remove those rows first; nothing was changed.",
            ) from None
        except psycopg.errors.LockNotAvailable:
            raise Refused("Somebody else holds the tables.", remedy="Try again when they are done.") from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise Refused(
                f"The role may not remove the sample data ({safe_message(error)}).",
                remedy="Use the role that made them.",
            ) from None


def remove(connection: Connection, plan: Plan) -> dict[str, int]:
    """`cleanup` within the caller's transaction; database errors pass."""
    removed = dict.fromkeys((table.name for table in plan.tables), 0)
    if not sample_exists(connection):
        return removed
    found = {table.name: read_table(connection, table.schema, table.name) for table in plan.tables}
    tables = [table for table in plan.tables if found[table.name] is not None]
    if _may_truncate(connection, plan, [c for c in found.values() if c is not None]):
        removed |= {table.name: _count_sample(connection, table) for table in tables}
        identifiers = [sql.Identifier(table.schema, table.name) for table in tables]
        connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(identifiers)))
    else:
        for table in reversed(tables):
            identifier = sql.Identifier(table.schema, table.name)
            statement = sql.SQL("DELETE FROM {} AS t WHERE EXISTS (SELECT {})").format(identifier, _listed(table))
            removed[table.name] = connection.execute(statement).rowcount
    names = sql.SQL(", ").join(sql.Literal(table.name) for table in plan.tables)
    connection.execute(sql.SQL('DELETE FROM {} WHERE "table" IN ({})').format(SAMPLE, names))
    if _count(connection, sql.SQL("SELECT count(*) FROM {}").format(SAMPLE)) == 0:
        connection.execute(sql.SQL("DROP TABLE {}").format(SAMPLE))
    return removed


def _may_truncate(connection: Connection, plan: Plan, found: list[CatalogTable]) -> bool:
    """Many rows, all of them sample data, and no table outside the plan refers to them."""
    if _count(connection, sql.SQL("SELECT count(*) FROM {}").format(SAMPLE)) < _MANY:
        return False
    ours = {(table.schema, table.name) for table in plan.tables}
    outside = any(reference[:2] not in ours for table in found for reference in table.referenced_by)
    present = {(table.schema, table.name) for table in found}
    return not outside and all(
        foreign_rows(connection, table) == 0 for table in plan.tables if (table.schema, table.name) in present
    )
