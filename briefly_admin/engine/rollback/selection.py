"""What a rollback restores: the backup's tables, which must still fit the database, and the changes to revert."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from string import Formatter
from typing import Final

from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.manifest import Manifest, TableManifest
from briefly_admin.engine import staging
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.rollback import history
from briefly_admin.engine.rollback.history import History
from briefly_admin.engine.staged import StagedTable
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import AggregateRepair, Plan
from briefly_admin.vault.vault import BackupReader

_DATABASE: Final = (
    "SELECT current_database(), pg_encoding_to_char(encoding) FROM pg_database WHERE datname = current_database()"
)
_COLUMNS: Final = """
SELECT w.name, a.attname IS NOT NULL, to_regtype(w.type) = a.atttypid AND w.typmod = a.atttypmod,
  CASE WHEN w.collated = '' THEN t.typcollation ELSE coalesce(to_regcollation(w.collated)::oid, 0) END
    = a.attcollation, w.generated = a.attgenerated::text, w.type, format_type(a.atttypid, a.atttypmod)
FROM unnest(%s::text[], %s::text[], %s::int[], %s::text[], %s::text[]) WITH ORDINALITY
  AS w(name, type, typmod, collated, generated, place)
LEFT JOIN pg_attribute a ON a.attrelid = %s::oid AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_type t ON t.oid = a.atttypid ORDER BY w.place
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """The backup, its tables to restore in plan order (parents first), and what was done to the schema since."""

    reader: BackupReader
    tables: tuple[TableManifest, ...]
    history: History
    support: tuple[TableManifest, ...] = ()
    """Tables that the migration's aggregates read, and that are not to be restored."""

    @property
    def staged_tables(self) -> tuple[TableManifest, ...]:
        """What a preview, and a restore that heeds what the migration did, reads: `tables`, then `support`."""
        return (*self.tables, *self.support)

    @property
    def changes(self) -> tuple[ChangeRecord, ...]:
        """The changes to revert, in that order."""
        return self.history.changes

    @property
    def labels(self) -> frozenset[tuple[str, str]]:
        """(schema, name) of the tables."""
        return frozenset((table.schema, table.name) for table in self.tables)


@dataclass(frozen=True, slots=True)
class Pair:
    """A table as it is now, and as the backup has it; `difference` is the relation that says which rows differ."""

    current: CatalogTable
    staged: StagedTable
    difference: sql.Identifier

    @property
    def name(self) -> str:
        """The plan's name of the table."""
        return self.staged.manifest.name


def choose(context: RunContext, *, fit: bool = True) -> Selection:
    """What the run's options name. Raises BackupError, NotFound; Refused that names what does not fit.

    `fit`: whether the tables are looked at, too; `pair` does that with each of them.
    """
    reader = staging.open_backup(context)
    tables = staging.chosen_tables(context, reader.manifest)
    past = history.read(context, tables)
    with context.target.session(bulk=True) as connection:
        require_same(connection, context.plan, reader.manifest)
        returning = {(change.table, change.name) for change in past.changes}
        for table in tables if fit else ():
            _require_fit(connection, table, returning)
        read = _read_by_aggregates(context, {table.name for table in tables})
        by_title = reader.manifest.by_title
        support = tuple(by_title[each.name] for each in context.plan.tables if each.name in read)
        for table in support:
            _require_readable(context, connection, table, read[table.name], returning)
    return Selection(reader, tables, past, support)


def _read_by_aggregates(context: RunContext, chosen: Collection[str]) -> dict[str, set[str]]:
    """Child of an aggregate of these tables, itself not one of them → the columns that are read of it.

    None where no migration has computed any.
    """
    read: dict[str, set[str]] = {}
    for name in chosen if context.options.get("origin") else ():
        for repair in context.plan.table(name).repairs:
            if isinstance(repair, AggregateRepair) and repair.child not in chosen:
                columns = {column for _, column, _, _ in Formatter().parse(repair.aggregate) if column}
                read.setdefault(repair.child, set()).update(columns | {repair.child_key})
    return read


def _require_readable(
    context: RunContext, connection: Connection, table: TableManifest, read: Collection[str],
    returning: Collection[tuple[str, str]],
) -> None:  # fmt: skip
    """Raises Refused where aggregates could not be computed over the table as it is now; only keep needs one at all."""
    current = read_table(connection, table.schema, table.name)
    columns = tuple(column for column in table.columns if column.name in read)
    if current is None:
        if context.options.get("mode") == "keep":
            raise Refused(
                f"{table.label} is gone, and aggregates of the tables to restore are over it.",
                remedy="Bring that table back, or roll back by exact; nothing was changed.",
            )
        return
    if faults := _column_faults(connection, replace(table, columns=columns), current, returning):
        raise Refused(
            f"{table.label}, which aggregates of the tables to restore are over, is not as it was when it was backed"
            f" up: {'; '.join(faults)}.",
            remedy="Bring the columns back as they were, then try again; nothing was changed.",
        )


def require_same(connection: Connection, plan: Plan, manifest: Manifest) -> None:
    """Raises Refused unless the backup is of this database and of this version of the plan."""
    row = connection.execute(_DATABASE).fetchone()
    assert row is not None
    facts = (
        ("database", manifest.database, row[0]),
        ("encoding", manifest.encoding, row[1]),
        ("plan", manifest.plan, plan.name),
        ("version of the plan", manifest.plan_fingerprint, plan.fingerprint),
    )
    other = [f"the {what} is {now}, the backup's is {then}" for what, then, now in facts if then != now]
    if other:
        raise Refused(f"The backup is not of this: {'; '.join(other)}.", remedy=_way_out(manifest, row[0], plan))


def _way_out(manifest: Manifest, database: str, plan: Plan) -> str:
    if manifest.database != database:
        now, then = (sql.Identifier(name).as_string() for name in (database, manifest.database))
        return (
            "Choose a backup of this database, or point TARGET_DATABASE_URL at the one that was backed up. If it was"
            f" only renamed, give it its name back (ALTER DATABASE {now} RENAME TO {then}) and try again."
        )
    if manifest.plan != plan.name:
        return f"Set MIGRATION_PLAN={manifest.plan}, or choose another backup."
    return "Choose a backup that this version took, or roll this one back with the version that took it."


def pair(
    connection: Connection, staged: StagedTable, schema: str, number: int, returning: Collection[tuple[str, str]] = ()
) -> Pair:
    """The staged table and its current one. Raises Refused where they do not fit (any more)."""
    return Pair(_require_fit(connection, staged.manifest, returning), staged, sql.Identifier(schema, f"d{number}"))


def _require_fit(connection: Connection, table: TableManifest, returning: Collection[tuple[str, str]]) -> CatalogTable:
    """The table's catalog; `returning`: (table, column) that are not there now, and will be before rows are."""
    current = read_table(connection, table.schema, table.name)
    if current is None or current.kind != "r" or current.has_children or current.has_rules:
        what = "is gone" if current is None else "is no plain table without children and rules any more"
        raise Refused(f"{table.label} {what}.", remedy="Bring the table back as it was, then roll back again.")
    faults = _column_faults(connection, table, current, returning)
    if not current.has_unique_index(table.key):
        faults.append(f"no unique index stands on its key ({', '.join(table.key)})")
    if faults:
        raise Refused(
            f"{table.label} is not as it was when it was backed up: {'; '.join(faults)}.",
            remedy="Bring the columns back as they were, then roll back again; nothing was changed.",
        )
    return current


def _column_faults(
    connection: Connection, table: TableManifest, current: CatalogTable, returning: Collection[tuple[str, str]]
) -> list[str]:
    columns = table.columns
    texts = (
        [getattr(column, field) for column in columns] for field in ("name", "type", "typmod", "collation", "generated")
    )
    faults = []
    for name, there, type_, collation, generated, then, now in connection.execute(_COLUMNS, (*texts, current.oid)):
        if not there:
            if not {(table.name, name), (table.label, name)} & set(returning):
                faults.append(f"column {name} is gone")
        elif not type_:
            faults.append(f"column {name} is {now}, and was {then}")
        elif not collation:
            faults.append(f"column {name} has another collation")
        elif not generated:
            faults.append(f"column {name} is generated in another way")
    return faults
