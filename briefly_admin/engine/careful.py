"""The careful batch, for what the fast one could not do: rows are locked, a faulty one is found and left out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import errors, sql

from briefly_admin.engine.batching import Work
from briefly_admin.engine.context import QuarantinedRow
from briefly_admin.engine.retry import Verdict, classify
from briefly_admin.engine.target import Connection, safe_message

_COMMA: Final = sql.SQL(", ")
_CAUSES: Final = {"22": "value", "23": "constraint", "44": "constraint", "P0": "trigger"}
REFUSED: Final = "refused"
"""The cause of a row whose change a trigger of the target swallowed."""

OnFailure = Callable[[QuarantinedRow], None]
"""Takes a row that cannot be changed: sets it aside, or raises."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows looked at and changed; `last_key` None where there were none."""

    looked: int
    changed: int
    last_key: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Change:
    """A row to change: its place and version, its key and the values of its repaired columns, all as texts."""

    tid: str
    version: str
    key: tuple[str, ...]
    values: tuple[str | None, ...]


class CarefulBatch:
    """Changes the rows of one page inside an open transaction, each row by its own right."""

    def __init__(
        self, connection: Connection, work: Work, *, left_alone: sql.Composable, on_failure: OnFailure
    ) -> None:
        self._connection = connection
        self._work = work
        self._left_alone = left_alone
        self._on_failure = on_failure
        self._types = self._bare_types()

    def run(self, where: sql.Composable, limit: int) -> Outcome:
        """The next `limit` rows that satisfy `where` (over `t`), or fewer where their values cannot be computed.

        Raises psycopg.Error for whatever is no row's own fault.
        """
        try:
            with self._connection.transaction():
                outcome, changes = self._read(where, limit)
        except psycopg.Error as error:
            if classify(error) is not Verdict.ROWS:
                raise
            return self._uncomputable(where, limit, error)
        return Outcome(outcome.looked, self._apply(changes), outcome.last_key)

    def _uncomputable(self, where: sql.Composable, limit: int, error: psycopg.Error) -> Outcome:
        """A repair itself fails on some row of the page: come nearer to it, down to the row."""
        if limit > 1:
            return self.run(where, limit // 2)
        query = sql.SQL("WITH {} SELECT {} FROM page").format(
            self._work.page(where, 1), self._work.numbered_texts
        )  # fmt: skip
        row = self._connection.execute(query).fetchone()
        if row is None:
            return Outcome(0, 0, None)
        self._on_failure(_failure(self._work.table.name, tuple(row[0]), error))
        return Outcome(1, 0, tuple(row[0]))

    def _read(self, where: sql.Composable, limit: int) -> tuple[Outcome, list[_Change]]:
        """Locks the rows in key order, then computes what is to change from their newest versions."""
        work = self._work
        reach = work.page(where, limit)
        self._connection.execute(
            sql.SQL(
                "WITH {} SELECT 1 FROM reach JOIN {} AS t ON t.ctid = reach.tid ORDER BY {} FOR NO KEY UPDATE OF t"
            ).format(reach, work.known.identifier, work.keys("t"))
        )
        values = _COMMA.join(sql.SQL("d.v{}::text").format(sql.Literal(n)) for n in range(len(work.columns)))
        rows = self._connection.execute(
            sql.SQL(
                "WITH {}, {} SELECT x.looked, x.last, d.tid::text, d.version::text, {}, ARRAY[{}] "
                "FROM (SELECT (SELECT count(*) FROM page) AS looked, {} AS last) AS x LEFT JOIN todo AS d ON true "
                "ORDER BY {}"
            ).format(
                reach, work.todo(self._left_alone), work.numbered_texts, values, work.last_of_page,
                work.numbered("k", "d"),
            )
        ).fetchall()  # fmt: skip
        looked, last = rows[0][:2]
        changes = [_Change(tid, version, tuple(key), tuple(v)) for _, _, tid, version, key, v in rows if tid]
        return Outcome(looked, 0, tuple(last) if last else None), changes

    def _apply(self, changes: Sequence[_Change]) -> int:
        """Changes all that can be changed, halving around what cannot; the number of rows changed."""
        if not changes:
            return 0
        try:
            with self._connection.transaction():
                missed = self._write(changes)
                # A deferred constraint would fail only at COMMIT, when nobody can tell the row.
                self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except psycopg.Error as error:
            if classify(error) is not Verdict.ROWS:
                raise
            if len(changes) > 1:
                middle = len(changes) // 2
                return self._apply(changes[:middle]) + self._apply(changes[middle:])
            self._on_failure(_failure(self._work.table.name, changes[0].key, error))
            return 0
        for change in missed:
            message = "A trigger of the table kept the row from being changed."
            self._on_failure(QuarantinedRow(self._work.table.name, change.key, REFUSED, message))
        return len(changes) - len(missed)

    def _write(self, changes: Sequence[_Change]) -> list[_Change]:
        """One UPDATE; the rows that it left as they were although nobody else had changed them."""
        sets = _COMMA.join(
            sql.SQL("{} = d.v{}::{}").format(sql.Identifier(name), sql.Literal(n), sql.SQL(self._types[name]))
            for n, name in enumerate(self._work.columns)
        )
        table = self._work.known.identifier
        written = self._connection.execute(
            sql.SQL(
                "UPDATE {} AS u SET {} FROM (VALUES {}) AS {} WHERE u.ctid = d.tid AND u.xmin = d.version RETURNING d.n"
            ).format(table, sets, self._listed(changes), self._names())
        ).fetchall()
        missed = sorted(set(range(len(changes))) - {n for (n,) in written})
        if missed:
            same = self._connection.execute(
                sql.SQL(
                    "SELECT count(*) FROM {} AS u JOIN (VALUES {}) AS {} ON u.ctid = d.tid AND u.xmin = d.version"
                ).format(table, self._listed([changes[n] for n in missed]), self._names())
            ).fetchone()
            if same is None or same[0] != len(missed):
                raise errors.SerializationFailure("a row was changed by somebody else meanwhile")
        return [changes[n] for n in missed]

    def _names(self) -> sql.Composed:
        values = [sql.SQL("v{}").format(sql.Literal(n)) for n in range(len(self._work.columns))]
        return sql.SQL("d(n, tid, version, {})").format(_COMMA.join(values))

    @staticmethod
    def _listed(changes: Sequence[_Change]) -> sql.Composed:
        return _COMMA.join(
            sql.SQL("({}, {}::tid, {}::xid, {})").format(
                sql.Literal(n), sql.Literal(change.tid), sql.Literal(change.version),
                _COMMA.join(sql.SQL("{}::text").format(sql.Literal(value)) for value in change.values),
            )
            for n, change in enumerate(changes)
        )  # fmt: skip

    def _bare_types(self) -> dict[str, str]:
        """The columns' types without their modifiers: a cast to varchar(3) would cut, an assignment refuses."""
        bare = {}
        for name in self._work.columns:
            column = self._work.known.column(name)
            row = self._connection.execute(
                "SELECT format_type(%s::oid, -1)", (column.type_oid if column else 25,)
            ).fetchone()
            bare[name] = str(row[0]) if row else "text"
        return bare


def _failure(table: str, key: tuple[str, ...], error: psycopg.Error) -> QuarantinedRow:
    """What the error says of the row, without its DETAIL and message, which may hold values."""
    cause = _CAUSES.get((error.sqlstate or "")[:2], "error")
    diag = error.diag
    return QuarantinedRow(
        table, key, cause, safe_message(error), error.sqlstate, diag.constraint_name, diag.column_name or ""
    )
