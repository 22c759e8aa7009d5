"""Nothing else changed: what the migration left must be repair(before), row by row where digests differ."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from psycopg import sql

from briefly_admin.domain.digest import BucketDigests
from briefly_admin.domain.manifest import TableManifest
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import scratch, staging
from briefly_admin.engine.catalog import CatalogColumn, CatalogTable
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.repairs import CompiledRepairs, as_stored, compile_repairs
from briefly_admin.engine.staged import create_staged
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import AggregateRepair, Table
from briefly_admin.vault.digest import SendColumn, bucket_sql, buckets_of, row_bytes_sql

SAMPLES: Final = 20
_CHUNK: Final = 2000


@dataclass
class Differences:
    """What differs from repair(before) in one table, and cannot be explained by this run."""

    rows_before: int = 0
    rows_now: int = 0
    buckets: int = 0
    """Buckets whose digest is another one than before."""
    others: dict[str, int] = field(default_factory=dict)
    """created, deleted, edited → rows; None of the three where there is no backup to compare with."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    compared: bool = True
    """False without a backup: the buckets say how many differ, no more."""

    @property
    def unexplained(self) -> int:
        """Rows that others must have changed."""
        return sum(self.others.values())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "rows_before": self.rows_before, "rows_now": self.rows_now, "buckets": self.buckets,
            "others": dict(self.others), "samples": list(self.samples), "compared": self.compared,
        }  # fmt: skip


class Comparison:
    """Compares the tables of one run with what they were; `known` are the columns that they had then."""

    def __init__(
        self, context: RunContext, connection: Connection, tables: Mapping[str, CatalogTable],
        known: Mapping[str, Sequence[str]], written: Mapping[str, Sequence[str]],
    ) -> None:  # fmt: skip
        self._context = context
        self._connection = connection
        self._tables = {
            name: replace(table, columns=tuple(c for c in table.columns if c.name in known.get(name, ())))
            for name, table in tables.items()
        }
        self._written = written

    def run(self) -> dict[str, Differences]:
        """Table → its differences. Only tables whose digests differ are staged from the backup, and their children."""
        found = {table.name: self._digests(table) for table in self._context.plan.tables}
        suspects = [table for table in self._context.plan.tables if found[table.name].buckets]
        backup_id = self._backup_id()
        if not suspects:
            return found
        if backup_id is None:
            for table in suspects:
                found[table.name].compared = False
            return found
        with self._staged(backup_id, suspects) as staged:
            for table in suspects:
                self._rows(table, staged, found[table.name])
        return found

    def _backup_id(self) -> UUID | None:
        result = self._context.journal.finished_phases().get(Phase.BACKUP)
        return UUID(str(result["backup_id"])) if result else None

    def _digests(self, table: Table) -> Differences:
        self._context.check_stop()
        self._context.report(Progress(Phase.VERIFY, (TableProgress(table.name),)))
        here = self._tables[table.name]
        columns = [SendColumn(column.name, column.send) for column in here.columns]
        key = [column for name in table.key for column in columns if column.name == name]
        now = buckets_of(self._connection.execute(bucket_sql(here.identifier, columns, key)).fetchall())
        stored = self._context.journal.baseline(table.name)
        before = BucketDigests.from_bytes(stored) if stored is not None else now
        return Differences(before.total().count, now.total().count, len(before.differing(now)))

    @contextmanager
    def _staged(self, backup_id: UUID, suspects: Sequence[Table]) -> Iterator[dict[str, sql.Identifier]]:
        """The suspects and the children their repairs read, as they were, in a scratch schema."""
        context = self._context
        reader = context.vault.open(backup_id, *context.journal.backup_keys(backup_id))
        names = {table.name for table in suspects}
        names |= {r.child for table in suspects for r in table.repairs if isinstance(r, AggregateRepair)}
        wanted: list[TableManifest] = [table for table in reader.manifest.tables if table.name in names]
        try:
            with context.target.session(bulk=True) as connection:
                schema = scratch.create_scratch(connection, context.run_id, context.attempt)
                staged = [create_staged(connection, reader.manifest, table, schema) for table in wanted]
            if not staging.load(context, Phase.VERIFY, reader, wanted, schema):
                raise staging.emptied()
            yield {each.manifest.name: each.identifier for each in staged}
        finally:
            staging.drop_after_failure(context, Phase.VERIFY)

    def _rows(self, table: Table, staged: Mapping[str, sql.Identifier], into: Differences) -> None:
        alone = {row.key for row in self._context.journal.quarantined(table.name)}
        with self._connection.transaction(), self._connection.cursor(name="unexplained") as cursor:
            cursor.itersize = _CHUNK
            for kind, untouched, key in cursor.execute(self._query(table, staged)):
                self._context.check_stop()
                if untouched and tuple(key) in alone:
                    continue
                into.others[kind] = into.others.get(kind, 0) + 1
                if len(into.samples) < SAMPLES:
                    into.samples.append({"key": ", ".join(key), "what": kind})

    def _query(self, table: Table, staged: Mapping[str, sql.Identifier]) -> sql.Composed:
        here = self._tables[table.name]
        skipped = set(self._written.get(table.name, ())) - set(table.key)
        columns = [SendColumn(c.name, c.send) for c in here.columns if c.name not in skipped and c.generated != "v"]
        repairs = compile_repairs(self._context.plan, table, self._tables, relation=lambda name: staged[name])
        expected = sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(_expected(repairs, column), sql.Identifier(column.name))
            for column in here.columns
        )  # fmt: skip
        keys = [sql.Identifier(name) for name in table.key]
        return _UNEXPLAINED.format(
            expected=expected, staged=staged[table.name], joins=repairs.joins, table=here.identifier,
            e_keys=_each("e.{0} AS {0}", keys), c_keys=_each("c.{0} AS {0}", keys),
            e_bytes=row_bytes_sql(columns, "e"), b_bytes=row_bytes_sql(columns, "b"),
            c_bytes=row_bytes_sql(columns, "c"),
            eb_match=_each("e.{0} = b.{0}", keys, " AND "), match=_each("e.{0} = c.{0}", keys, " AND "),
            first=keys[0], key_texts=_each("coalesce(e.{0}::text, c.{0}::text)", keys),
        )  # fmt: skip


_UNEXPLAINED: Final = sql.SQL(
    "SELECT CASE WHEN c.{first} IS NULL THEN 'deleted' WHEN e.{first} IS NULL THEN 'created' ELSE 'edited' END, "
    "coalesce(e.before = c.now, false), ARRAY[{key_texts}] "
    "FROM (SELECT {e_keys}, sha256({e_bytes}) AS expected, sha256({b_bytes}) AS before "
    "FROM (SELECT {expected} FROM {staged} AS t {joins}) AS e JOIN {staged} AS b ON {eb_match}) AS e "
    "FULL JOIN (SELECT {c_keys}, sha256({c_bytes}) AS now FROM ONLY {table} AS c) AS c ON {match} "
    "WHERE e.expected IS DISTINCT FROM c.now"
)


def _each(form: str, names: Sequence[sql.Identifier], between: str = ", ") -> sql.Composable:
    return sql.SQL(between).join(sql.SQL(form).format(name) for name in names)


def _expected(repairs: CompiledRepairs, column: CatalogColumn) -> sql.Composable:
    value = repairs.values.get(column.name)
    return sql.Identifier("t", column.name) if value is None else as_stored(value, column)
