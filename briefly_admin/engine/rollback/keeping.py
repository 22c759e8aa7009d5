"""Mode `keep`: undo what the migration did, and leave alone, or settle by rules and row by row, what others did since.

Migrated rows become what they were, but for derived columns: one that the backup had right becomes the aggregate over
the rows as they are in the end. A row that is restored or brought back becomes what it was wholly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from psycopg import errors, sql

from briefly_admin.domain.errors import Refused, VerificationFailed
from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.repairs import as_stored
from briefly_admin.engine.retry import describe
from briefly_admin.engine.rollback import classes, difference, settling
from briefly_admin.engine.rollback.classes import Classified, Classifier
from briefly_admin.engine.rollback.difference import Counts, Difference, key_join
from briefly_admin.engine.rollback.selection import Pair, Selection
from briefly_admin.engine.rollback.settling import Settled
from briefly_admin.engine.staged import StagedTable
from briefly_admin.engine.target import Connection
from briefly_admin.vault.digest import SendColumn, row_bytes_sql

KEEP: Final = "keep"
_DEFAULTS: Final = {"edited": "keep", "created": "keep", "deleted": "leave"}
_ACTS: Final = {"edited": "restore", "created": "delete", "deleted": "bring_back"}
_HELD: Final = (
    errors.ForeignKeyViolation, errors.RestrictViolation, errors.UniqueViolation, errors.ExclusionViolation,
    errors.CheckViolation, errors.NotNullViolation,
)  # fmt: skip


def is_keep(context: RunContext) -> bool:
    """Whether the run is to undo the migration alone."""
    return context.options.get("mode") == KEEP


def require_origin(context: RunContext) -> None:
    """Raises Refused where there is no migration that could be undone alone."""
    if is_keep(context) and not context.options.get("origin"):
        raise Refused(
            "The backup is of no migration: there is nothing that could be undone alone.",
            remedy="Roll back by exact, or choose the backup that a migration took.",
        )


def without_indexes(context: RunContext, chosen: Selection) -> Selection:
    """The selection with plain indexes left out of what is reverted: they do no harm, and help what stays."""
    indexes = {
        run_id: {change.position for change in context.journal.changes(UUID(run_id)) if _is_index(change)}
        for run_id in chosen.history.positions
    }
    positions = {
        run_id: [position for position in taken if position not in indexes[run_id]]
        for run_id, taken in chosen.history.positions.items()
    }
    changes = tuple(change for change in chosen.changes if not _is_index(change))
    return replace(chosen, history=replace(chosen.history, changes=changes, positions=positions))


def told(error: Exception) -> Exception:
    """The error of a last try, in words where rows that stay stand against those that go back."""
    if not isinstance(error, _HELD):
        return error
    return Refused(
        f"Rows that stay as they are stand against rows that go back ({describe(error)}). Nothing was changed.",
        remedy="Settle the rows that hold one another: restore those edited since, bring back those deleted, delete"
        " those created; or roll back by exact.",
    )


@dataclass
class Keep:
    """What a `keep` writes, within the transaction of one restore; `resolve` comes first."""

    context: RunContext
    connection: Connection
    schema: str
    classifier: Classifier
    classified: list[Classified] = field(default_factory=list)
    settled: Mapping[str, Sequence[Settled]] = field(default_factory=dict)
    writes: list[Difference] = field(default_factory=list)
    edited: dict[str, list[str]] = field(default_factory=dict)
    """Table → where its rows edited by hand are now (ctids as texts)."""
    recomputed: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, context: RunContext, connection: Connection, schema: str, pairs: Sequence[Pair],
        staged: Sequence[StagedTable],
    ) -> "Keep":  # fmt: skip
        """`staged`: the tables of `pairs`, and those that aggregates read."""
        return cls(context, connection, schema, Classifier(context, connection, schema, pairs, staged))

    def resolve(self, found: Sequence[Difference]) -> list[Difference]:
        """What is to be written, by classes, rules and settled rows. Raises Refused where the rows moved."""
        options = self.context.options
        self.classified = [self.classifier.classify(each) for each in found]
        classes.require_expected(self.classified, options.get("expected_classes"), int(options.get("allowance") or 0))
        self.settled = settling.read(self.connection, self.context.plan, self.classified, options.get("settled") or {})
        self._require_children()
        self.writes = [self._resolved(number, each) for number, each in enumerate(self.classified)]
        return self.writes

    def _require_children(self) -> None:
        migration = self.classifier.migration
        assert migration is not None
        for each in self.classified:
            table = migration.table(each.pair.name, each.derived)
            missing = each.derived.keys() - migration.aggregates(table).aggregates.keys()
            if missing:
                raise Refused(
                    f"{each.pair.name}: {', '.join(sorted(missing))} cannot be computed, the table it counts is gone.",
                    remedy="Bring that table back, or roll back by exact.",
                )

    def _resolved(self, number: int, each: Classified) -> Difference:
        settled = self.settled.get(each.pair.name, ())
        relation = sql.Identifier(self.schema, f"w{number}")
        decided = sql.SQL("here = ANY ({})").format(_places([row.here for row in settled]))
        restored = sql.SQL("here = ANY ({})").format(_places([row.here for row in settled if row.how == "restore"]))
        edited = sql.SQL("CASE WHEN {} THEN {} ELSE {} END").format(decided, restored, self._rule("edited"))
        query = sql.SQL(
            "CREATE UNLOGGED TABLE {} WITH (autovacuum_enabled = off) AS SELECT here, there FROM {} WHERE {}"
        )
        chosen = self._chosen(sql.SQL("differs"), edited)
        self.connection.execute(query.format(relation, each.relation, chosen))
        return difference.found(self.connection, replace(each.pair, difference=relation))

    def _chosen(self, migrated: sql.Composable, edited: sql.Composable) -> sql.Composable:
        return sql.SQL(
            "CASE class WHEN 'migrated' THEN {} WHEN 'edited' THEN {} WHEN 'created' THEN {} WHEN 'deleted' THEN {}"
            " ELSE false END"
        ).format(migrated, edited, self._rule("created"), self._rule("deleted"))

    def _rule(self, name: str) -> sql.Composable:
        rules: Mapping[str, Any] = self.context.options.get("rules") or {}
        return sql.SQL("true" if rules.get(name, _DEFAULTS[name]) == _ACTS[name] else "false")

    def finish(self) -> None:
        """After the rows of `writes`: the edits by hand, then the derived columns, children first.

        Raises Refused for a value that does not fit.
        """
        for each in self.classified:
            for row in self.settled.get(each.pair.name, ()):
                if row.how == "edit":
                    self.context.check_stop()
                    here = settling.edit(self.connection, each.pair, row)
                    self.edited.setdefault(each.pair.name, []).append(here)
        for each in reversed(self.classified):
            for name, right in each.derived.items():
                self.context.check_stop()
                count = self._recompute(each, name, right)
                self.recomputed[each.pair.name] = self.recomputed.get(each.pair.name, 0) + count

    def _recompute(self, each: Classified, name: str, right: str) -> int:
        """Give migrated rows whose value was the aggregate over the backup's rows the one over those of now."""
        migration, pair = self.classifier.migration, each.pair
        assert migration is not None
        column = next(column for column in migration.then[pair.name].columns if column.name == name)
        whose = sql.SQL("k.class = 'migrated' AND k.{}").format(sql.Identifier(right))
        scope = sql.SQL("SELECT s.{} FROM {} AS k JOIN {} AS s ON s.ctid = k.there WHERE {}").format(
            sql.Identifier(pair.staged.manifest.key[0]), each.relation, pair.staged.identifier, whose
        )
        confined = scope if len(pair.staged.manifest.key) == 1 else None
        repairs = migration.aggregates(migration.table(pair.name, {name}), confined)
        query = sql.SQL(
            "UPDATE ONLY {table} AS now SET {column} = f.value FROM {staged} AS was, (SELECT k.there, {value} AS value"
            " FROM {relation} AS k JOIN {source} AS t ON t.ctid = k.there {joins} WHERE {whose}) AS f"
            " WHERE f.there = was.ctid AND {match} AND {now} <> {right}"
        ).format(
            table=pair.current.identifier, column=sql.Identifier(name), staged=pair.staged.identifier,
            value=as_stored(repairs.aggregates[name], column), relation=each.relation,
            source=migration.staged[pair.name], joins=repairs.joins, whose=whose, match=key_join(pair),
            now=row_bytes_sql([SendColumn(name, column.send)], "now"),
            right=row_bytes_sql([SendColumn("value", column.send)], "f"),
        )  # fmt: skip
        return self.connection.execute(query).rowcount

    def counts(self, each: Difference) -> Counts:
        """What was written of a table's rows, those edited by hand among them."""
        edited = len(self.edited.get(each.pair.name, ()))
        return replace(each.counts, same=each.counts.same - edited, update=each.counts.update + edited)

    def verify(self) -> None:
        """Find and classify once more: what is left alone stands, and nothing is left to be written.

        Raises VerificationFailed, and Refused where foreign keys touched what was to stay.
        """
        for number, (each, written) in enumerate(zip(self.classified, self.writes, strict=True)):
            self.context.check_stop()
            self._require_standing(each, written)
            pair = replace(each.pair, difference=sql.Identifier(self.schema, f"f{number}"))
            again = self.classifier.classify(difference.find(self.connection, pair), again=True)
            left = self._left(again, each, written)
            if left:
                raise VerificationFailed(
                    f"{pair.name}: {left:,} rows would have to be written once more. Everything was undone.",
                    remedy="Look whether others change the table's data besides its rows (rules, generated columns).",
                )

    def _left(self, again: Classified, before: Classified, written: Difference) -> int:
        """Rows that would be written, but for those that were left alone before, or edited by hand."""
        # A migrated row that went back and was counted anew is neither B nor M: what it was decides how it is judged.
        # And one that was restored or brought back, but wrongly, would pass for edited since.
        query = sql.SQL(
            "SELECT count(*) FROM {again} AS a WHERE CASE WHEN EXISTS (SELECT FROM {before} AS b"
            " WHERE b.there = a.there AND b.class = 'migrated') THEN differs OR stale"
            " WHEN EXISTS (SELECT FROM {written} AS w WHERE w.there = a.there) THEN differs ELSE {chosen} END"
            " AND (here IS NULL OR here <> ALL ({edited}))"
            " AND NOT EXISTS (SELECT FROM {alone} AS alone WHERE alone.here = a.here)"
        ).format(
            again=again.relation, before=before.relation, written=written.pair.difference,
            chosen=self._chosen(sql.SQL("(differs OR stale)"), self._rule("edited")),
            edited=_places(self.edited.get(before.pair.name, ())), alone=_left_alone(before, written),
        )  # fmt: skip
        row = self.connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _require_standing(self, each: Classified, written: Difference) -> None:
        """Raises Refused where a row that was to stay was deleted or changed by a foreign key's action."""
        settled = self.settled.get(each.pair.name, ())
        edits = [row for row in settled if row.how == "edit"]
        query = sql.SQL(
            "SELECT count(*) FROM {alone} AS alone WHERE alone.here <> ALL ({edited}) AND NOT EXISTS"
            " (SELECT FROM ONLY {table} AS now WHERE now.ctid = alone.here)"
        ).format(
            alone=_left_alone(each, written), edited=_places([row.here for row in edits]),
            table=each.pair.current.identifier,
        )  # fmt: skip
        gone = self.connection.execute(query).fetchone()
        if gone and gone[0]:
            raise Refused(
                f"{gone[0]:,} rows of {each.pair.name} that were to stay would go, or change, by foreign keys onto rows"
                " that are deleted.",
                remedy="Keep the rows created since, or settle those that refer to them; nothing was changed.",
            )
        for row, here in zip(edits, self.edited.get(each.pair.name, ()), strict=True):
            if not settling.stands(self.connection, each.pair, row, here):
                raise VerificationFailed(
                    f"{each.pair.name}, row {', '.join(row.key)}: it is not as it was edited. Everything was undone.",
                    remedy="Look whether rules or foreign keys of the table change it.",
                )


def _left_alone(each: Classified, written: Difference) -> sql.Composed:
    """A query of the rows (here) that others changed, and that are not written."""
    return sql.SQL(
        "(SELECT k.here FROM {} AS k WHERE k.here IS NOT NULL AND k.class <> 'migrated'"
        " AND NOT EXISTS (SELECT FROM {} AS w WHERE w.here = k.here))"
    ).format(each.relation, written.pair.difference)


def _places(ctids: Sequence[str]) -> sql.Composable:
    return sql.SQL("{}::tid[]").format(sql.Literal(list(ctids)))


def _is_index(change: ChangeRecord) -> bool:
    return change.kind == "index"
