"""The quarantine of a migration in the target, as its replay reads and writes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from briefly_admin.engine.batching import Work, quarantined
from briefly_admin.engine.checkpoints import claim_partition, mark_done
from briefly_admin.engine.context import QuarantinedRow, RunContext
from briefly_admin.engine.fence import fenced
from briefly_admin.engine.mover import batch_session
from briefly_admin.engine.skipping import skipped_keys
from briefly_admin.engine.target import Connection

_PUT_BACK: Final = "open rows"
"""The partition -1 under which the checkpoint says that the target's quarantine is what the app database says."""
_COPY: Final = (
    'COPY briefly_migration.quarantine (run_id, "table", key, cause, sqlstate, "constraint", message, field) FROM STDIN'
)
_SAVE: Final = """
INSERT INTO briefly_migration.quarantine AS q (run_id, "table", key, cause, sqlstate, "constraint", message, field)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (run_id, "table", key) DO UPDATE SET cause = excluded.cause,
  sqlstate = excluded.sqlstate, "constraint" = excluded."constraint", message = excluded.message, field = excluded.field
WHERE (q.cause, q.sqlstate, q."constraint", q.message, q.field) IS DISTINCT FROM
  (excluded.cause, excluded.sqlstate, excluded."constraint", excluded.message, excluded.field)
"""


def _values(context: RunContext, row: QuarantinedRow) -> tuple[Any, ...]:
    return (
        context.quarantine_of, row.table, list(row.key), row.cause, row.sqlstate, row.constraint, row.message,
        row.field,
    )  # fmt: skip


def put_back(context: RunContext) -> None:
    """The target's quarantine of the migration becomes what the app database says is open; once a run.

    What a rollback has reopened comes back, what another run has cured goes. Later attempts go on from what is there.
    """
    with batch_session(context) as connection:
        state = claim_partition(
            connection, context.run_id, context.attempt, _PUT_BACK, -1, sleep=context.sleep,
            monotonic=context.monotonic,
        )  # fmt: skip
        if state.done:
            return
        rows = context.journal.quarantined(None, context.quarantine_of)
        with fenced(connection, context.run_id, context.attempt):
            connection.execute("SET LOCAL statement_timeout TO 0")  # as many rows as maxSkipped allowed
            connection.execute(
                "DELETE FROM briefly_migration.quarantine WHERE run_id = %s", (context.quarantine_of,)
            )  # fmt: skip
            with connection.cursor().copy(_COPY) as copy:
                for row in rows:
                    copy.write_row(_values(context, row))
            mark_done(connection, state.claim, {"rows": len(rows)})


@dataclass(frozen=True, slots=True)
class Scope:
    """Which quarantined rows of one table a replay takes: those of its options that nobody decided to skip."""

    context: RunContext
    work: Work

    def keys(self, connection: Connection, after: Sequence[str] | None, limit: int) -> list[tuple[str, ...]]:
        """The next keys in their order in the quarantine."""
        query = sql.SQL(
            'SELECT q.key FROM briefly_migration.quarantine AS q WHERE {} ORDER BY q.key COLLATE "C" LIMIT {}'
        )
        rows = connection.execute(query.format(self._beyond(after), sql.Literal(limit))).fetchall()
        return [tuple(key) for (key,) in rows]

    def count(self, connection: Connection, after: Sequence[str] | None = None) -> int:
        """How many there are beyond that key."""
        query = sql.SQL("SELECT count(*) FROM briefly_migration.quarantine AS q WHERE {}").format(self._beyond(after))
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _beyond(self, after: Sequence[str] | None) -> sql.Composable:
        if not after:
            return self._all
        return sql.SQL('{} AND q.key COLLATE "C" > {}').format(self._all, _array(after))

    @property
    def _all(self) -> sql.Composable:
        options, table = self.context.options, self.work.table
        if options.get("table") not in {None, table.name}:
            return sql.SQL("false")
        tests = [
            sql.SQL('q.run_id = {} AND q."table" = {}').format(
                sql.Literal(self.context.quarantine_of), sql.Literal(table.name)
            ),
            *(
                sql.SQL("{} = {}").format(sql.Identifier("q", name), sql.Literal(options[name]))
                for name in ("field", "cause")
                if options.get(name) is not None
            ),
        ]
        if options.get("key") is not None:
            tests.append(sql.SQL("q.key = {}").format(_array(options["key"])))
        skipped = skipped_keys(self.context).get(table.name)
        if skipped:
            tests.append(sql.SQL("q.key NOT IN ({})").format(sql.SQL(", ").join(map(_array, skipped))))
        return sql.SQL(" AND ").join(tests)

    @property
    def beside(self) -> sql.Composable:
        """Over the row `t`: whether it counts as migrated, so that others must be unique beside it."""
        tests = [sql.SQL("NOT {}").format(quarantined(self.context.quarantine_of, self.work))]
        skipped = skipped_keys(self.context).get(self.work.table.name)
        if skipped:
            listed = sql.SQL(", ").join(map(_array, skipped))
            tests.append(sql.SQL("{} NOT IN ({})").format(self.work.key_texts("t"), listed))
        return sql.SQL("({})").format(sql.SQL(" AND ").join(tests))

    def save(self, connection: Connection, rows: Sequence[QuarantinedRow]) -> None:
        """Inside a fenced transaction: these are in quarantine, for these causes."""
        with connection.cursor() as cursor:
            cursor.executemany(_SAVE, [_values(self.context, row) for row in rows])

    def take_out(self, connection: Connection, keys: Sequence[Sequence[str]]) -> None:
        """Inside a fenced transaction: these are no longer in quarantine."""
        query = sql.SQL(
            'DELETE FROM briefly_migration.quarantine AS q WHERE q.run_id = {} AND q."table" = {} AND q.key IN ({})'
        )
        if keys:
            of, table = sql.Literal(self.context.quarantine_of), sql.Literal(self.work.table.name)
            connection.execute(query.format(of, table, sql.SQL(", ").join(map(_array, keys))))


def _array(key: Sequence[str]) -> sql.Composable:
    return sql.SQL("{}::text[]").format(sql.Literal(list(key)))
