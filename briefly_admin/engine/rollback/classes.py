"""Who changed a row since the backup: the three-way classes of the rows of a difference, found where the rows are.

B is the row in the backup, M as the migration left it, C as it is now: untouched (C = B), migrated (C = M: changed by
the migration alone), edited, created (no B), deleted (no C). Equality is of COPY bytes. Columns that triggers write and
generated columns do not count. An aggregate's column is derived: C counts as M when it equals B, the aggregate over B,
or the aggregate over C. A backup of no migration has no M of its own: there M is B.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.engine.catalog import CatalogColumn
from briefly_admin.engine.checkpoints import SKIPPED
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.expected import expected
from briefly_admin.engine.repairs import as_stored
from briefly_admin.engine.rollback import migrated
from briefly_admin.engine.rollback.difference import NOW, THEN, Difference, differs, require_unmoved
from briefly_admin.engine.rollback.migrated import Migration
from briefly_admin.engine.rollback.selection import Pair
from briefly_admin.engine.staged import StagedTable
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import AggregateRepair
from briefly_admin.vault.digest import SendColumn, row_bytes_sql

CLASSES: Final = ("untouched", "migrated", "edited", "created", "deleted")
_MOVED: Final = {what: what for what in CLASSES[1:]}
_CLASSIFY: Final = sql.SQL(
    "CREATE UNLOGGED TABLE {relation} WITH (autovacuum_enabled = off) AS"
    " SELECT e.here, e.there, CASE WHEN e.here IS NULL THEN 'deleted' WHEN e.there IS NULL THEN 'created'"
    " WHEN NOT {counted} THEN 'untouched' WHEN {migrated} THEN 'migrated' ELSE 'edited' END AS class,"
    " e.here IS NOT NULL AND e.there IS NOT NULL AND {undone} AS differs,"
    " e.here IS NOT NULL AND e.there IS NOT NULL AND {stale} AS stale{values}"
    " FROM {expected} AS e LEFT JOIN ONLY {table} AS now ON now.ctid = e.here"
    " LEFT JOIN {staged} AS was ON was.ctid = e.there"
)
_NULL_FIELD: Final = sql.SQL("'\\xffffffff'::pg_catalog.bytea")


@dataclass(frozen=True, slots=True)
class Classified:
    """A difference's rows by class, in a relation (here, there, class, differs, stale, …).

    `differs`: keep would write the row (if migrated): more than derived columns differ from the backup. `stale`: one
    that the backup had right is not the aggregate over the rows of now.
    """

    difference: Difference
    relation: sql.Identifier
    counts: Mapping[str, int]
    """By class, of all rows."""
    undone: int
    """Migrated rows that `differs`, or are `stale`: by the default rules keep changes them."""
    counting: tuple[SendColumn, ...]
    """The columns that count."""
    left_out: tuple[str, ...]
    """Those that triggers write."""
    values: Mapping[str, str]
    """Repaired column → the relation's column with M's value; M has B's in all others."""
    derived: Mapping[str, str]
    """Derived column → the relation's column that says whether B's value is the aggregate over B."""

    @property
    def pair(self) -> Pair:
        """The table, as it is now and as the backup has it."""
        return self.difference.pair


@dataclass(frozen=True, slots=True)
class _Derived:
    """The j-th derived column: its bytes now, in the backup, and as the aggregate over either."""

    name: str
    now: sql.Composable
    was: sql.Composable
    then: sql.Composable
    current: sql.Composable | None


class Classifier:
    """Classifies the tables of one rollback within one transaction; made once the schema is as it is to be read."""

    def __init__(
        self, context: RunContext, connection: Connection, schema: str, pairs: Sequence[Pair],
        staged: Sequence[StagedTable],
    ) -> None:  # fmt: skip
        self._context = context
        self._connection = connection
        self._schema = schema
        self._numbers = {pair.name: number for number, pair in enumerate(pairs)}
        self._aside: dict[str, sql.Identifier | None] = {}
        self.migration: Migration | None = migrated.of_backup(context, connection, pairs, staged)

    def classify(self, found: Difference, *, again: bool = False) -> Classified:
        """Make the relation; `again`: another one, for rows that were classified before."""
        self._context.check_stop()
        pair, number = found.pair, self._numbers[found.pair.name]
        relation = sql.Identifier(self._schema, f"{'l' if again else 'k'}{number}")
        columns = [c for c in pair.staged.columns if not _generated(pair, c.name)]
        left_out = self._left_out(pair)
        counting = [column for column in columns if column.name not in left_out]
        repaired = self._repaired(pair, counting)
        derived = self._derived(pair, repaired)
        self._create(found, relation, columns, counting, repaired, derived)
        counts, undone = self._count(found, relation)
        return Classified(
            found, relation, counts, undone, tuple(counting), left_out,
            {column.name: f"m{place}" for place, column in enumerate(repaired)},
            {each.name: f"b{place}" for place, each in enumerate(derived)},
        )  # fmt: skip

    def _left_out(self, pair: Pair) -> tuple[str, ...]:
        written = (self._context.options.get("trigger_columns") or {}).get(pair.name, ())
        return tuple(
            c.name
            for c in pair.staged.columns
            if c.name in written and c.name not in pair.staged.manifest.key and not _generated(pair, c.name)
        )

    def _repaired(self, pair: Pair, counting: Sequence[SendColumn]) -> list[CatalogColumn]:
        """Columns that count and that the migration may have changed."""
        if self.migration is None:
            return []
        names = {repair.column for repair in self.migration.plan.table(pair.name).repairs}
        names &= {column.name for column in counting} - set(pair.staged.manifest.key)
        return [column for column in self.migration.then[pair.name].columns if column.name in names]

    def _derived(self, pair: Pair, repaired: Sequence[CatalogColumn]) -> list[_Derived]:
        if self.migration is None or not repaired:
            return []
        repairs = [r for r in self.migration.plan.table(pair.name).repairs if isinstance(r, AggregateRepair)]
        child = {repair.column: repair.child for repair in repairs}
        found: list[_Derived] = []
        for column in repaired:
            if column.name in child:
                place = len(found)
                current = _bytes(f"g{place}", "e", column) if child[column.name] in self.migration.now else None
                now, was = _now(pair, column), _bytes(column.name, THEN, column)
                found.append(_Derived(column.name, now, was, _bytes(f"a{place}", "e", column), current))
        return found

    def _create(
        self, found: Difference, relation: sql.Identifier, columns: Sequence[SendColumn],
        counting: Sequence[SendColumn], repaired: Sequence[CatalogColumn], derived: Sequence[_Derived],
    ) -> None:  # fmt: skip
        pair = found.pair
        names = {column.name for column in repaired}
        by_aggregate = {each.name for each in derived}
        unrepaired = [column for column in counting if column.name not in names]
        tests: list[sql.Composable] = [sql.SQL("NOT {}").format(differs(pair, unrepaired))]
        if not repaired:  # M is B, and C is not
            tests = [sql.SQL("false")]
        for place, column in enumerate(repaired):
            if column.name not in by_aggregate:
                tests.append(sql.SQL("{} = {}").format(_now(pair, column), _bytes(f"m{place}", "e", column)))
        undone = [differs(pair, [column for column in columns if column.name not in by_aggregate])]
        stale: list[sql.Composable] = []
        values = [sql.SQL(", e.{}").format(sql.Identifier(f"m{place}")) for place in range(len(repaired))]
        for place, each in enumerate(derived):
            tests.append(_among(each))
            undone.append(sql.SQL("({} <> {} AND {} <> {})").format(each.now, each.was, each.was, each.then))
            if each.current is not None:
                stale.append(sql.SQL("({} = {} AND {} <> {})").format(each.was, each.then, each.now, each.current))
            values.append(sql.SQL(", {} = {} AS {}").format(each.was, each.then, sql.Identifier(f"b{place}")))
        self._connection.execute(
            _CLASSIFY.format(
                relation=relation, counted=differs(pair, counting), migrated=_all(tests), undone=_any(undone),
                stale=_any(stale), values=sql.SQL("").join(values), expected=self._expected(pair, repaired, derived),
                table=pair.current.identifier, staged=pair.staged.identifier,
            )
        )  # fmt: skip
        self._connection.execute(sql.SQL("ANALYZE {}").format(relation))

    def _expected(self, pair: Pair, repaired: Sequence[CatalogColumn], derived: Sequence[_Derived]) -> sql.Composable:
        """The difference with M's values of the repaired columns, and both aggregates of the derived ones."""
        if self.migration is None or not repaired:
            return pair.difference
        migration, scope = self.migration, _scope(pair)
        table = migration.table(pair.name, {column.name for column in repaired})
        repairs, current = migration.repairs(table, scope), migration.aggregates(table, scope)
        aside = self.set_aside(pair)
        alone = sql.SQL("d.there IS NULL") if aside is None else sql.SQL("(d.there IS NULL OR q.aside)")
        values: list[sql.Composable] = [
            sql.SQL("CASE WHEN {} THEN {}::{} ELSE {} END AS {}").format(
                alone, sql.Identifier("t", column.name), sql.SQL(column.type), expected(repairs, column),
                sql.Identifier(f"m{place}"),
            )
            for place, column in enumerate(repaired)
        ]  # fmt: skip
        types = {column.name: column for column in repaired}
        for place, each in enumerate(derived):
            column = types[each.name]
            values.append(_aliased(as_stored(repairs.aggregates[each.name], column), f"a{place}"))
            if each.current is not None:
                values.append(_aliased(as_stored(current.aggregates[each.name], column), f"g{place}"))
        # OFFSET 0: each value is computed once, and not again wherever it is compared.
        return sql.SQL(
            "(SELECT d.here, d.there, {values} FROM {difference} AS d LEFT JOIN {source} AS t ON t.ctid = d.there"
            " {repairs} {current} {aside} OFFSET 0)"
        ).format(
            values=sql.SQL(", ").join(values), difference=pair.difference, source=migration.staged[pair.name],
            repairs=repairs.joins, current=current.joins, aside=join_aside(pair, aside),
        )  # fmt: skip

    def set_aside(self, pair: Pair) -> sql.Identifier | None:
        """A relation of the keys, as texts, that the migration left alone; None where there are none."""
        assert self.migration is not None
        if pair.name not in self._aside:
            self._aside[pair.name] = self._copy_aside(pair, self.migration)
        return self._aside[pair.name]

    def _copy_aside(self, pair: Pair, migration: Migration) -> sql.Identifier | None:
        key = pair.staged.manifest.key
        # A row may have been skipped after the migration had changed it; one that it never touched still equals B.
        aside = self._context.journal.quarantined(pair.name, migration.run_id)
        rows = {row.key for row in aside if row.cause != SKIPPED and len(row.key) == len(key)}
        if not rows:
            return None
        relation = sql.Identifier(self._schema, f"q{self._numbers[pair.name]}")
        columns = sql.SQL(", ").join(
            sql.SQL("{} text").format(sql.Identifier(f"k{place}")) for place in range(len(key))
        )
        create = sql.SQL("CREATE UNLOGGED TABLE {} ({}, aside bool NOT NULL DEFAULT true)")
        self._connection.execute(create.format(relation, columns))
        names = sql.SQL(", ").join(sql.Identifier(f"k{place}") for place in range(len(key)))
        with self._connection.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(relation, names)) as copy:
            for row in sorted(rows):
                copy.write_row(row)
        self._connection.execute(sql.SQL("ANALYZE {}").format(relation))
        return relation

    def _count(self, found: Difference, relation: sql.Identifier) -> tuple[dict[str, int], int]:
        query = sql.SQL("SELECT class, count(*), count(*) FILTER (WHERE differs OR stale) FROM {} GROUP BY class")
        rows = self._connection.execute(query.format(relation)).fetchall()
        counts = dict.fromkeys(CLASSES, 0) | {name: count for name, count, _ in rows}
        counts["untouched"] = found.pair.staged.manifest.rows - sum(
            counts[name] for name in ("migrated", "edited", "deleted")
        )
        return counts, next((differing for name, _, differing in rows if name == "migrated"), 0)


def require_expected(
    classified: Sequence[Classified], confirmed: Mapping[str, Mapping[str, int]] | None, allowance: int = 0
) -> None:
    """Raises Refused, naming tables and classes, where more than `allowance` rows moved since they were confirmed."""
    require_unmoved({each.pair.name: each.counts for each in classified}, confirmed, _MOVED, allowance)


def _generated(pair: Pair, name: str) -> bool:
    return any(column.generated for column in pair.staged.manifest.columns if column.name == name)


def _scope(pair: Pair) -> sql.Composable | None:
    """A query of the keys at hand; none where an aggregate could not be confined by it."""
    if len(pair.staged.manifest.key) != 1:
        return None
    return sql.SQL("SELECT s.{} FROM {} AS d JOIN {} AS s ON s.ctid = d.there").format(
        sql.Identifier(pair.staged.manifest.key[0]), pair.difference, pair.staged.identifier
    )


def join_aside(pair: Pair, aside: sql.Identifier | None) -> sql.Composable:
    """Whether row `t` of the staged table was left alone, as q.aside (or NULL); nothing where no row was."""
    if aside is None:
        return sql.SQL("")
    tests = (
        sql.SQL("{} = {}::text").format(sql.Identifier("q", f"k{place}"), sql.Identifier("t", name))
        for place, name in enumerate(pair.staged.manifest.key)
    )
    return sql.SQL("LEFT JOIN {} AS q ON {}").format(aside, sql.SQL(" AND ").join(tests))


def _now(pair: Pair, column: CatalogColumn) -> sql.Composable:
    """Its bytes as it is now; a column that comes back with the schema changes is NULL till then."""
    return _NULL_FIELD if pair.current.column(column.name) is None else _bytes(column.name, NOW, column)


def _bytes(name: str, alias: str, column: CatalogColumn) -> sql.Composable:
    return row_bytes_sql([SendColumn(name, column.send)], alias)


def _among(each: _Derived) -> sql.Composable:
    known = [part for part in (each.was, each.then, each.current) if part is not None]
    return sql.SQL("{} IN ({})").format(each.now, sql.SQL(", ").join(known))


def _aliased(value: sql.Composable, name: str) -> sql.Composable:
    return sql.SQL("{} AS {}").format(value, sql.Identifier(name))


def _all(tests: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(" AND ").join(tests))


def _any(tests: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(" OR ").join(tests)) if tests else sql.SQL("false")
