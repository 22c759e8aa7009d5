"""A backup's rows in unlogged tables of a scratch schema of the target: what rollback, drill and verify compare with.

A scratch schema belongs to one attempt at one run, so that an attempt that was believed dead cannot touch another's.
The tables carry the manifest's types and collations, no constraints, and a unique index on the key. A crash of the
server empties unlogged tables, therefore `still_whole` compares digests again before they are relied on.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupDamaged, NotFound, Refused
from briefly_admin.domain.manifest import ColumnManifest, Manifest, TableManifest
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import fence
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Connection, safe_message
from briefly_admin.vault.digest import SendColumn, digest_of, digest_sql
from briefly_admin.vault.vault import BackupReader

MARKS: Final = "marks"
"""The logged table of a scratch schema: what was done in it, each with its result (JSON)."""
STAGED: Final = "staged"

_RESOLVE: Final = """
SELECT w.name, format_type(t.oid, w.typmod), ts.nspname, p.proname, cn.nspname, co.collname
FROM unnest(%s::text[], %s::text[], %s::int[], %s::text[]) WITH ORDINALITY AS w(name, type, typmod, collated, place)
LEFT JOIN pg_type t ON t.oid = to_regtype(w.type)
LEFT JOIN pg_proc p ON p.oid = t.typsend LEFT JOIN pg_namespace ts ON ts.oid = p.pronamespace
LEFT JOIN pg_collation co ON co.oid = to_regcollation(nullif(w.collated, '')) AND co.oid <> t.typcollation
LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
ORDER BY w.place
"""


@dataclass(frozen=True, slots=True)
class StagedTable:
    """One table of a backup, in a scratch schema; a column without a binary form stands there as its text."""

    manifest: TableManifest
    identifier: sql.Identifier
    columns: tuple[SendColumn, ...]
    """In manifest order, as `digest_sql` wants them."""


def scratch_prefix(run_id: UUID) -> str:
    """What the names of a run's scratch schemas begin with."""
    return f"briefly_scratch_{run_id.hex}_"


def scratch_schema(run_id: UUID, attempt: int) -> str:
    """The name of an attempt's scratch schema."""
    return f"{scratch_prefix(run_id)}{attempt}"


def open_backup(context: RunContext) -> BackupReader:
    """The backup that `options["backup_id"]` names. Raises NotFound, BackupExpired, BackupKeyMissing, BackupDamaged."""
    backup_id = UUID(str(context.options["backup_id"]))
    shred_key, manifest_sha256 = context.journal.backup_keys(backup_id)
    return context.vault.open(backup_id, shred_key, manifest_sha256)


def chosen_tables(context: RunContext, manifest: Manifest) -> tuple[TableManifest, ...]:
    """The backup's tables that `options["tables"]` names (None: all), in plan order. Raises NotFound."""
    by_name = {table.name: table for table in manifest.tables}
    names = context.options.get("tables")
    unknown = sorted(set(names or ()) - by_name.keys())
    if unknown:
        raise NotFound(f"The backup has no table {', '.join(unknown)}.", remedy=f"It has {', '.join(by_name)}.")
    order = {table.name: place for place, table in enumerate(context.plan.tables)}
    chosen = [table for name, table in by_name.items() if names is None or name in names]
    return tuple(sorted(chosen, key=lambda table: order.get(table.name, len(order))))


def stage(context: RunContext, reader: BackupReader, tables: Sequence[TableManifest]) -> tuple[StagedTable, ...]:
    """Load and check the tables in a fresh scratch schema; earlier ones of the run are dropped.

    Memory is a chunk. Raises BackupDamaged, Refused, Stopped, Unavailable, Fenced: then no scratch is left.
    """
    schema = scratch_schema(context.run_id, context.attempt)
    with context.target.session(bulk=True) as connection:
        if context.kind is RunKind.ROLLBACK:
            # A takeover ends this session, so that it cannot stand in the way of the next attempt's staging.
            fence.register(connection, context.run_id, context.attempt, "staging")
        drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        marks = sql.SQL("CREATE TABLE {} (what text PRIMARY KEY, result jsonb NOT NULL)")
        connection.execute(marks.format(sql.Identifier(schema, MARKS)))
        try:
            progress = _Progress(context, tables)
            staged = tuple(stage_table(connection, reader, table, schema, progress.of(table)) for table in tables)
            mark(connection, schema, STAGED, {"backup_id": str(reader.manifest.backup_id)})
        except BaseException:
            _drop_after_failure(context, connection)
            raise
    return staged


def stage_table(
    connection: Connection,
    reader: BackupReader,
    table: TableManifest,
    schema: str,
    advance: Callable[[float], None] = lambda _: None,
) -> StagedTable:
    """Load one table of the backup into `schema`, and check its rows and digest; `advance` is told the part done, 0…1.

    Raises BackupDamaged (the caller drops the schema), and what `advance` raises.
    """
    staged = _create(connection, reader.manifest, table, schema)
    size = max(sum(stream.plaintext_size for stream in table.streams), 1)
    done = 0
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(staged.identifier, _names(table.columns))
    for stream in table.streams:
        cursor = connection.cursor()
        with cursor.copy(copy) as loading:
            for piece in reader.read_table_stream(stream):
                loading.write(piece)
                done += len(piece)
                advance(done / size)
        if cursor.rowcount != stream.rows:
            raise _damaged(table, f"stream {stream.number} has {cursor.rowcount} rows instead of {stream.rows}")
    if table.key:
        index = sql.SQL("CREATE UNIQUE INDEX ON {} ({})")
        connection.execute(index.format(staged.identifier, sql.SQL(", ").join(map(sql.Identifier, table.key))))
    connection.execute(sql.SQL("ANALYZE {}").format(staged.identifier))
    if staged_digest(connection, staged) != table.digest:
        raise _damaged(table, "its rows are not those that were backed up")
    return staged


def staged_digest(connection: Connection, staged: StagedTable) -> TableDigest:
    """The digest of the staged rows, as PostgreSQL computes it."""
    row = connection.execute(digest_sql(staged.identifier, staged.columns)).fetchone()
    assert row is not None
    return digest_of(row)


def still_whole(
    connection: Connection, run_id: UUID, manifest: Manifest, tables: Sequence[TableManifest]
) -> tuple[str, tuple[StagedTable, ...]] | None:
    """The newest scratch schema of the run that holds these tables of this backup whole, and them; or None."""
    for schema in scratch_schemas(connection, run_id):
        found = marked(connection, schema, STAGED)
        if found is None or found.get("backup_id") != str(manifest.backup_id):
            continue
        staged = tuple(_staged(connection, manifest, table, schema) for table in tables)
        if all(_is_whole(connection, each) for each in staged):
            return schema, staged
    return None


def _is_whole(connection: Connection, staged: StagedTable) -> bool:
    try:
        return staged_digest(connection, staged) == staged.manifest.digest
    except psycopg.errors.UndefinedTable:
        return False


def scratch_schemas(connection: Connection, run_id: UUID, *, up_to_attempt: int | None = None) -> list[str]:
    """The run's scratch schemas, the newest attempt's first."""
    prefix = scratch_prefix(run_id)
    rows = connection.execute(
        "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) AND substr(nspname, %s) ~ '^[0-9]+$'",
        (prefix, len(prefix) + 1),
    ).fetchall()
    attempts = sorted((int(name.removeprefix(prefix)) for (name,) in rows), reverse=True)
    return [f"{prefix}{attempt}" for attempt in attempts if up_to_attempt is None or attempt <= up_to_attempt]


def drop_scratch(connection: Connection, run_id: UUID, *, up_to_attempt: int | None = None) -> None:
    """Drop the run's scratch schemas, those of newer attempts aside; nothing happens where there are none."""
    for schema in scratch_schemas(connection, run_id, up_to_attempt=up_to_attempt):
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def mark(connection: Connection, schema: str, what: str, result: dict[str, Any]) -> None:
    """Note in the scratch schema that `what` was done; part of the transaction at hand."""
    insert = sql.SQL("INSERT INTO {} (what, result) VALUES ({}, {})")
    connection.execute(insert.format(sql.Identifier(schema, MARKS), sql.Literal(what), sql.Literal(json.dumps(result))))


def marked(connection: Connection, schema: str, what: str) -> dict[str, Any] | None:
    """What `mark` noted in the scratch schema, or None."""
    known = connection.execute(
        "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
        (schema, MARKS),
    ).fetchone()
    if known is None:
        return None
    query = sql.SQL("SELECT result FROM {} WHERE what = {}").format(sql.Identifier(schema, MARKS), sql.Literal(what))
    row = connection.execute(query).fetchone()
    return dict(row[0]) if row else None


def _create(connection: Connection, manifest: Manifest, table: TableManifest, schema: str) -> StagedTable:
    staged = _staged(connection, manifest, table, schema)
    definitions = []
    for name, type_name, _, _, collation_schema, collation in _resolve(connection, table):
        definition = sql.SQL("{} ").format(sql.Identifier(name)) + sql.SQL(type_name)  # as format_type quoted it
        if collation:
            definition += sql.SQL(" COLLATE {}").format(sql.Identifier(collation_schema, collation))
        definitions.append(definition)
    # Nobody vacuums what lives for minutes and is analysed below.
    create = sql.SQL("CREATE UNLOGGED TABLE {} ({}) WITH (autovacuum_enabled = off)")
    connection.execute(create.format(staged.identifier, sql.SQL(", ").join(definitions)))
    return staged


def _staged(connection: Connection, manifest: Manifest, table: TableManifest, schema: str) -> StagedTable:
    columns = tuple(
        SendColumn(column.name, (send_schema, send) if column.binary else None)
        for column, (_, _, send_schema, send, _, _) in zip(table.columns, _resolve(connection, table), strict=True)
    )
    return StagedTable(table, sql.Identifier(schema, f"t{manifest.tables.index(table)}"), columns)


def _resolve(connection: Connection, table: TableManifest) -> list[tuple[Any, ...]]:
    """(name, type, send function's schema and name, collation's schema and name where not the type's) a column."""
    columns = table.columns
    rows = connection.execute(
        _RESOLVE,
        (
            [column.name for column in columns],
            [column.type if column.binary else "pg_catalog.text" for column in columns],
            [column.typmod if column.binary else -1 for column in columns],
            [column.collation for column in columns],
        ),
    ).fetchall()
    gone = [f"{column.name} ({column.type})" for column, row in zip(columns, rows, strict=True) if row[1] is None]
    if gone:
        raise Refused(
            f"The database no longer has the types of these columns of {table.label}: {', '.join(gone)}.",
            remedy="Create the types (or the extension that brings them) again, or use another backup.",
        )
    return rows


def _names(columns: Collection[ColumnManifest]) -> sql.Composable:
    return sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)


def _damaged(table: TableManifest, what: str) -> BackupDamaged:
    return BackupDamaged(
        f"The backup is damaged: {table.label}: {what}.",
        damages=[f"{table.label}: {what}"],
        remedy="Nothing was restored. Use another backup.",
    )


def _drop_after_failure(context: RunContext, connection: Connection) -> None:
    """Leave nothing; a server that does not answer now keeps it until the next attempt drops it."""
    try:
        if connection.closed:
            with context.target.session(bulk=True) as another:
                drop_scratch(another, context.run_id, up_to_attempt=context.attempt)
        else:
            drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)
    except Exception as error:  # noqa: BLE001 - the failure that brought us here is the one to tell
        text = safe_message(error) if isinstance(error, psycopg.Error) else str(error)
        context.journal.log("warning", f"The scratch schema is still there: {text}.", Phase.STAGE)


class _Progress:
    """Tells how far staging has come, in rows, and looks whether it should stop."""

    def __init__(self, context: RunContext, tables: Sequence[TableManifest]) -> None:
        self._context = context
        self._tables = {table.label: TableProgress(table.name, total=table.rows) for table in tables}

    def of(self, table: TableManifest) -> Callable[[float], None]:
        def advance(part: float) -> None:
            self._context.check_stop()
            done = int(table.rows * part)
            self._tables[table.label] = TableProgress(table.name, total=table.rows, done=done)
            self._context.report(Progress(Phase.STAGE.value, tuple(self._tables.values())))

        return advance
