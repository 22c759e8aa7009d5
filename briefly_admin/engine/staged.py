"""The tables of a scratch schema that hold a backup's rows: unlogged, of the manifest's types and collations."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import errors, sql

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import Refused
from briefly_admin.domain.manifest import ColumnManifest, Manifest, TableManifest
from briefly_admin.domain.manifest_schema import is_built_in
from briefly_admin.engine.staged_types import create_types, resolve_types
from briefly_admin.engine.target import Connection
from briefly_admin.vault.digest import SendColumn, digest_of, digest_sql

__all__ = ["StagedTable", "copy_into", "create_staged", "create_types", "is_whole", "staged_digest", "staged_table"]

_RESOLVE: Final = """
SELECT w.name, format_type(t.oid, w.typmod), ts.nspname, p.proname, cn.nspname, co.collname
FROM unnest(%s::text[], %s::text[], %s::oid[], %s::int[], %s::text[])
  WITH ORDINALITY AS w(name, type, known, typmod, collated, place)
LEFT JOIN pg_type t ON t.oid = coalesce(w.known, to_regtype(w.type))
LEFT JOIN pg_proc p ON p.oid = t.typsend LEFT JOIN pg_namespace ts ON ts.oid = p.pronamespace
LEFT JOIN pg_collation co ON co.oid = to_regcollation(nullif(w.collated, '')) AND co.oid <> t.typcollation
LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
ORDER BY w.place
"""


@dataclass(frozen=True, slots=True)
class StagedTable:
    """One table of a backup, in a scratch schema; a column without a binary form stands there as its text."""

    manifest: TableManifest
    schema: str
    relation: str
    columns: tuple[SendColumn, ...]
    """In manifest order, as `digest_sql` wants them."""

    @property
    def identifier(self) -> sql.Identifier:
        """Quoted and qualified."""
        return sql.Identifier(self.schema, self.relation)


def staged_table(connection: Connection, manifest: Manifest, table: TableManifest, schema: str) -> StagedTable:
    """Where the table stands, or would stand, in the schema. Raises Refused where the database lacks a type."""
    return _staged(manifest, table, schema, _resolve(connection, manifest, table, schema))


def _staged(manifest: Manifest, table: TableManifest, schema: str, resolved: Sequence[tuple[Any, ...]]) -> StagedTable:
    columns = tuple(
        SendColumn(column.name, (send_schema, send) if column.binary else None)
        for column, (_, _, send_schema, send, _, _) in zip(table.columns, resolved, strict=True)
    )
    return StagedTable(table, schema, f"t{manifest.tables.index(table)}", columns)


def create_staged(connection: Connection, manifest: Manifest, table: TableManifest, schema: str) -> StagedTable:
    """Make the table, empty. Raises Refused where the database lacks a type: see `create_types`, for a drill."""
    resolved = _resolve(connection, manifest, table, schema)
    staged = _staged(manifest, table, schema, resolved)
    definitions = []
    for name, type_name, _, _, collation_schema, collation in resolved:
        definition = sql.SQL("{} ").format(sql.Identifier(name)) + sql.SQL(type_name)  # as format_type quoted it
        if collation:
            definition += sql.SQL(" COLLATE {}").format(sql.Identifier(collation_schema, collation))
        definitions.append(definition)
    # Nobody vacuums what lives for minutes and is analysed once it is filled.
    create = sql.SQL("CREATE UNLOGGED TABLE {} ({}) WITH (autovacuum_enabled = off)")
    connection.execute(create.format(staged.identifier, sql.SQL(", ").join(definitions)))
    return staged


def copy_into(staged: StagedTable) -> sql.Composed:
    """The COPY that takes a stream of the backup."""
    if not staged.columns:  # COPY takes no empty list
        return sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(staged.identifier)
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in staged.manifest.columns)
    return sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(staged.identifier, names)


def staged_digest(connection: Connection, staged: StagedTable) -> TableDigest:
    """The digest of the staged rows, as PostgreSQL computes it."""
    query = digest_sql(staged.identifier, staged.columns, server=connection.info.server_version)
    row = connection.execute(query).fetchone()
    assert row is not None
    return digest_of(row)


def is_whole(connection: Connection, staged: StagedTable) -> bool:
    """Whether the table stands there with the backup's rows, byte for byte; not within a transaction."""
    try:
        return staged_digest(connection, staged) == staged.manifest.digest
    except errors.UndefinedTable:
        return False


def is_full(connection: Connection, staged: StagedTable) -> bool:
    """Whether the table that was found whole before still has its rows: a crash of the server takes all or none."""
    try:
        row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(staged.identifier)).fetchone()
    except errors.UndefinedTable:
        return False
    return row is not None and row[0] == bool(staged.manifest.rows)


def _resolve(connection: Connection, manifest: Manifest, table: TableManifest, schema: str) -> list[tuple[Any, ...]]:
    """(name, type, send function's schema and name, collation's schema and name where not the type's) a column."""
    columns: Collection[ColumnManifest] = table.columns
    own = any(column.binary and not is_built_in(column.type) for column in columns)
    known = resolve_types(connection, manifest, schema) if own else {}
    rows = connection.execute(
        _RESOLVE,
        (
            [column.name for column in columns],
            [column.type if column.binary else "pg_catalog.text" for column in columns],
            [known.get(column.type) if column.binary else None for column in columns],
            [column.typmod if column.binary else -1 for column in columns],
            [column.collation for column in columns],
        ),
    ).fetchall()
    gone = [f"{column.name} ({column.type})" for column, row in zip(columns, rows, strict=True) if row[1] is None]
    if gone:
        raise Refused(
            f"The database lacks the types of these columns of {table.label}: {', '.join(gone)}.",
            remedy="Create the types (or the extension that brings them) again, or use another backup.",
        )
    return rows
