"""One instant of the plan's tables: locked, read in one transaction, described for a manifest."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import PreflightFailed, RunFailed, Unavailable
from briefly_admin.domain.manifest import ColumnManifest, ForeignKeyManifest, SequenceManifest, titles
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.target import Connection, Target, safe_message
from briefly_admin.engine.user_types import type_name
from briefly_admin.plans.base import Plan
from briefly_admin.vault.digest import SendColumn

_TRANSACTION_TIMEOUT: Final = 170_000
"""The first server that has it: a database's own setting would end a long backup."""
STREAM_BYTES: Final = 256 << 20
"""What one stream holds of a table, TOAST and all, about."""

_TYPES: Final = f"""
SELECT a.attnum::int, {type_name("t", "n")}
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An open transaction in which every query sees the same instant."""

    connection: Connection
    tables: Mapping[str, CatalogTable]
    """By title (domain.manifest.titles): the plan's by their names, in its order, then those beyond it."""
    keys: Mapping[str, Sequence[str]]
    """Title → the columns of its key: the plan's, or the primary key's; empty where a table beyond it has none."""
    exported: str
    """What `join_snapshot` takes: valid while the session that exported it lives."""


@contextmanager
def open_snapshot(target: Target, plan: Plan, beyond: Sequence[tuple[str, str]] = ()) -> Iterator[Snapshot]:
    """A repeatable-read, read-only transaction that holds ACCESS SHARE on the tables from before its snapshot: those of
    the plan, and those `beyond` it, (schema, name) each.

    Row-level security is off: a role that it would filter gets an error, never fewer rows. Raises PreflightFailed for
    a missing table, Unavailable, RunFailed; errors of the server carry no tenant data.
    """
    with _locked(target, plan, beyond) as connection:
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        yield _snapshot(connection, plan, beyond, str(row[0]) if row else "")


@contextmanager
def join_snapshot(
    target: Target, plan: Plan, exported: str, beyond: Sequence[tuple[str, str]] = ()
) -> Iterator[Snapshot]:
    """Another session of the same instant, for a worker beside the one that opened it; locked and read like that one.

    Locks come first: where the import succeeds, the exporter was alive and held its own, so there never was a moment in
    which somebody could have truncated or rewritten a table. Raises Unavailable where the exporter is gone (its worker
    ended or lost its session) or where somebody waits for a stronger lock; else as `open_snapshot`.
    """
    with _locked(target, plan, beyond) as connection:
        try:
            connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(exported)))
        except (psycopg.OperationalError, psycopg.InterfaceError):
            raise
        except psycopg.Error as error:
            raise Unavailable(
                f"The snapshot of the run's backup cannot be joined, its leader is gone ({safe_message(error)}).",
                remedy="Nothing is lost: the run goes on, or takes another backup.",
            ) from None
        yield _snapshot(connection, plan, beyond, exported)


@contextmanager
def _locked(target: Target, plan: Plan, beyond: Sequence[tuple[str, str]]) -> Iterator[Connection]:
    """A transaction that holds ACCESS SHARE on the tables and has not looked at anything yet."""
    with target.session(bulk=True) as connection, translated(plan.title):
        if connection.info.server_version >= _TRANSACTION_TIMEOUT:
            connection.execute("SET transaction_timeout TO 0")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name in _titles(plan, beyond).values():
            connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(sql.Identifier(*name)))
        yield connection


def _titles(plan: Plan, beyond: Sequence[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return titles([*((table.schema, table.name) for table in plan.tables), *beyond])


def _snapshot(connection: Connection, plan: Plan, beyond: Sequence[tuple[str, str]], exported: str) -> Snapshot:
    tables = _tables(connection, plan, beyond)
    planned = {table.name: table.key for table in plan.tables}
    keys = {title: planned.get(title, table.key) for title, table in tables.items()}
    return Snapshot(connection, tables, keys, exported)


def _tables(connection: Connection, plan: Plan, beyond: Sequence[tuple[str, str]]) -> dict[str, CatalogTable]:
    found = {title: read_table(connection, *name) for title, name in _titles(plan, beyond).items()}
    missing = [name for name, table in found.items() if table is None]
    if missing:
        raise PreflightFailed(f"The tables {', '.join(missing)} are not there.", remedy="See the checklist.")
    others = [name for name, table in found.items() if table and table.kind != "r"]
    if others:  # ONLY a partitioned table would have no rows at all
        raise PreflightFailed(f"{', '.join(others)} is no ordinary table.", remedy="See the checklist.")
    return {name: table for name, table in found.items() if table}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Database errors as ours: a lost server is Unavailable, the rest RunFailed without tenant data."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise PreflightFailed(
            f"The role may not read all of {what} ({safe_message(error)}).",
            remedy="Use the role that owns the tables; row-level security must not filter it.",
        ) from None
    except psycopg.errors.UndefinedTable as error:
        raise PreflightFailed(f"A table of {what} is missing ({safe_message(error)}).") from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(f"The target database was lost: {safe_message(error)}.") from None
    except psycopg.Error as error:
        raise RunFailed(f"The target database refused: {safe_message(error)}.") from None


def copied_columns(table: CatalogTable) -> list[SendColumn]:
    """Every column, in order, as COPY and the digests take it."""
    return [SendColumn(column.name, column.send) for column in table.columns]


def key_columns(table: CatalogTable, key: Sequence[str]) -> list[SendColumn]:
    """The key's columns, in key order."""
    by_name = {column.name: column for column in table.columns}
    return [SendColumn(name, by_name[name].send) for name in key]


def column_list(table: CatalogTable) -> sql.Composable:
    """What COPY selects: each column, those without a binary form as text."""
    return sql.SQL(", ").join(
        sql.Identifier(column.name) if column.send else sql.SQL("{}::text").format(sql.Identifier(column.name))
        for column in table.columns
    )


def page_ranges(table: CatalogTable, *, stream_bytes: int = STREAM_BYTES) -> list[tuple[str, str]]:
    """Half-open ctid ranges of about `stream_bytes` each, '' for no bound; they cover the table however it grew."""
    per_page = max(table.bytes // table.pages, 1) if table.pages else 1
    step = max(stream_bytes // per_page, 1)
    bounds = [f"({page},0)" for page in range(step, table.pages, step)]
    return list(zip(["", *bounds], [*bounds, ""], strict=True))


def ctid_condition(ctid_from: str, ctid_to: str) -> sql.Composable:
    """The WHERE of a range."""
    tests: list[sql.Composable] = []
    if ctid_from:
        tests.append(sql.SQL("ctid >= {}::tid").format(sql.Literal(ctid_from)))
    if ctid_to:
        tests.append(sql.SQL("ctid < {}::tid").format(sql.Literal(ctid_to)))
    return sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(tests)) if tests else sql.SQL("")


def describe_columns(connection: Connection, table: CatalogTable) -> tuple[ColumnManifest, ...]:
    """The columns as the manifest names them: types qualified unless they are pg_catalog's."""
    rows = connection.execute(_TYPES.encode(), (table.oid,)).fetchall()
    types: dict[int, str] = dict(rows)
    return tuple(
        ColumnManifest(
            name=column.name, type=types[column.number], typmod=column.typmod, nullable=column.nullable,
            generated=column.generated, identity=column.identity, collation=column.collation or "",
            binary=column.send is not None,
        )
        for column in table.columns
    )  # fmt: skip


def describe_foreign_keys(table: CatalogTable) -> tuple[ForeignKeyManifest, ...]:
    """Those that compare for equality, by name."""
    return tuple(
        ForeignKeyManifest(
            each.name, each.columns, each.references[0], each.references[1], each.references[2], each.validated
        )
        for each in table.constraints
        if each.kind == "f" and each.references and not each.period
    )


def read_sequences(connection: Connection, tables: Mapping[str, CatalogTable]) -> tuple[SequenceManifest, ...]:
    """Where the sequences that the tables own stand."""
    found = []
    for schema, name in sorted({sequence for table in tables.values() for sequence in table.sequences}):
        row = connection.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name))
        ).fetchone()
        if row:
            found.append(SequenceManifest(schema, name, int(row[0]), bool(row[1])))
    return tuple(found)


def schema_fingerprint(tables: Mapping[str, CatalogTable]) -> str:
    """Hex SHA-256 over columns, constraints, indexes and triggers, so that a changed schema is noticed."""
    parts = [
        repr((
            table.schema, table.name,
            [(c.name, c.type, c.nullable, c.default, c.generated, c.identity, c.collation) for c in table.columns],
            [(c.name, c.definition, c.validated) for c in table.constraints],
            [(i.name, i.definition, i.valid) for i in table.indexes],
            [(t.name, t.enabled, t.definition) for t in table.triggers],
        ))
        for table in tables.values()
    ]  # fmt: skip
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def server_facts(connection: Connection) -> dict[str, Any]:
    """server_version, encoding, database, extensions (name → version) and WAL position."""
    row = connection.execute(
        "SELECT current_setting('server_version'), current_setting('server_encoding'), current_database()::text, "
        "(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text"
    ).fetchone()
    extensions = connection.execute("SELECT extname::text, extversion FROM pg_extension ORDER BY 1").fetchall()
    version, encoding, database, position = row or ("", "", "", "")
    return {
        "server_version": version, "encoding": encoding, "database": database, "wal_position": position or "",
        "extensions": dict(extensions),
    }  # fmt: skip
