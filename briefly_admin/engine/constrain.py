"""The constrain phase: defaults, constraints and indexes of the plan, each recorded with its inverse first."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import RunFailed
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.batching import Work
from briefly_admin.engine.breaker import Announce
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.changes import (
    FIRST_CHANGE,
    INDEX_KINDS,
    Compiled,
    compile_change,
    free_name,
    positions,
    possible,
    stands,
)
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.ddl import SchemaSession
from briefly_admin.engine.indexes import build
from briefly_admin.engine.migrate import copy_quarantine, read_catalog
from briefly_admin.engine.retry import describe, lost_connection
from briefly_admin.engine.skipping import set_skipped_aside
from briefly_admin.engine.sweep import sweep
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import SchemaChange, Table

BY_REPLAY: Final = "made by a replay"
"""What the note of a migration's change begins with that waited, once a replay has made it."""
_VALID: Final = "SELECT convalidated FROM pg_constraint WHERE conrelid = %s::oid AND conname = %s"


def run(context: RunContext) -> dict[str, Any]:
    """Makes the plan's schema changes.

    `{"changes": [{table, kind, name, state, note}], "swept": {table: rows}, "waiting": n}`, n in changes.
    Raises RunFailed where rows break a constraint or a lock is not to be had, Stopped, Fenced.
    """
    with context.target.session(bulk=True) as connection:
        constrainer = _Constrainer(
            context, SchemaSession(context, connection, str(Phase.CONSTRAIN), _announcer(context))
        )
        _set_skipped_aside(context, connection, constrainer.catalog)
        swept = {table.name: constrainer.table(table) for table in context.plan.tables}
        for table in constrainer.catalog.values():
            constrainer.session.alone(sql.SQL("ANALYZE {}").format(table.identifier), wait_for_locks=True)
        copy_quarantine(context, connection)
        constrainer.settle()
    changes = [
        {k: v for k, v in asdict(change).items() if k in {"table", "kind", "name", "state", "note"}}
        for change in context.journal.changes()
    ]
    waiting = sum(change["state"] == "waiting" for change in changes)
    return {"changes": changes, "swept": {name: rows for name, rows in swept.items() if rows}, "waiting": waiting}


def _set_skipped_aside(context: RunContext, connection: Connection, catalog: Mapping[str, CatalogTable]) -> None:
    """What somebody decided to skip since the batches; a constraint that it breaks waits."""
    if context.journal.skipped():
        works = [Work(context.plan, table, catalog) for table in context.plan.tables]
        set_skipped_aside(context, connection, connection, works)


def _announcer(context: RunContext) -> Announce:
    def announce(text: str, until: str = "") -> None:
        context.report(Progress(str(Phase.CONSTRAIN), waiting=text, waiting_until=until))

    return announce


class _Constrainer:
    """The plan's changes on one database, table by table."""

    def __init__(self, context: RunContext, session: SchemaSession) -> None:
        self.session = session
        self._context = context
        self._connection = session.connection
        self.catalog = read_catalog(self._connection, context)
        self._recorded = {change.position: change for change in context.journal.changes()}
        replayed = context.kind is RunKind.REPLAY
        self._waited = {
            change.position: change
            for change in (context.journal.changes(context.quarantine_of) if replayed else ())
            if change.state == "waiting"
        }
        """What the migration that is replayed has left."""

    def table(self, table: Table) -> int:
        """All changes of one table, in the order that never lets a bad row in; the rows that its sweep repaired."""
        todo = [each for position, change in positions(self._context.plan, table.name)
                if (each := self._prepare(position, change))]  # fmt: skip
        for each in todo:
            if each.change.kind == "default":
                self._alter(each, each.add)
                self._made(each)
        constraints = [c for c in todo if c.change.kind in {"check", "not_null", "foreign_key"} and not self._waits(c)]
        for each in constraints:
            self._add_constraint(each)
        work = Work(self._context.plan, table, self.catalog)
        swept = sweep(self._context, work, _announcer(self._context)) if table.repairs and work.columns else 0
        # Rows that the sweep set aside break constraints, too.
        self._validate(table, [each for each in constraints if not (swept and self._waits(each, drop=True))])
        for each in todo:
            if each.change.kind in INDEX_KINDS and not self._waits(each):
                build(self.session, each, self.catalog[table.name])
                self._made(each)
        return swept

    def _prepare(self, position: int, change: SchemaChange) -> Compiled | None:
        """Recorded with its inverse, unless the database has it or this run made it already."""
        recorded = self._recorded.get(position)
        if not possible(change, self.catalog) or (recorded and recorded.state == "made"):
            return None
        if recorded is None and stands(self._connection, change, self.catalog):
            return None
        table = self.catalog[change.table]
        wanted = change.name + ("_check" if change.kind == "not_null" else "")
        name = recorded.name if recorded else free_name(self._connection, table, wanted)
        compiled = compile_change(position, change, self.catalog, name)
        if recorded is None or recorded.state == "reverted":
            self._context.journal.record_change(compiled.record(self._connection))
        return compiled

    def _waits(self, compiled: Compiled, *, drop: bool = False) -> bool:
        """Whether quarantined rows break it: then it is not made, and the record says how many rows it waits for."""
        rows = self._breaking(compiled)
        if not rows:
            return False
        if drop:
            self._alter(compiled, sql.SQL("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}").format(
                self.catalog[compiled.change.table].identifier, sql.Identifier(compiled.name)
            ))  # fmt: skip
        note = f"waiting for {rows:,} row{'s' if rows != 1 else ''}"
        self._context.journal.set_change_state(compiled.position, "waiting", note)
        message = f"{compiled.change.table}: {compiled.name} is not made, {note} in quarantine."
        self._context.journal.log("warning", message, Phase.CONSTRAIN)
        return True

    def _breaking(self, compiled: Compiled) -> int:
        if compiled.violated is None:
            return 0
        table = self._context.plan.table(compiled.change.table)
        work = Work(self._context.plan, table, self.catalog)
        query = sql.SQL(
            "SELECT count(*) FROM {} AS t WHERE {} IN (SELECT q.key FROM briefly_migration.quarantine AS q "
            'WHERE q.run_id = {} AND q."table" = {}) AND {}'
        ).format(
            work.known.identifier, work.key_texts("t"), sql.Literal(self._context.quarantine_of),
            sql.Literal(table.name), compiled.violated,
        )  # fmt: skip
        row = self._connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    def _add_constraint(self, compiled: Compiled) -> None:
        """NOT VALID: from now on no new row breaks it."""
        if self._validity(compiled) is None:
            self._alter(compiled, compiled.add)

    def _validity(self, compiled: Compiled) -> bool | None:
        """Whether the constraint is validated; None where it is not there."""
        oid = self.catalog[compiled.change.table].oid
        row = self._connection.execute(_VALID, (oid, compiled.name)).fetchone()
        return bool(row[0]) if row else None

    def _validate(self, table: Table, constraints: Sequence[Compiled]) -> None:
        """One scan for all checks, then one a foreign key; NOT NULL then needs no scan of its own."""
        identifier = self.catalog[table.name].identifier
        checks = [each for each in constraints if each.change.kind != "foreign_key"]
        keys = [each for each in constraints if each.change.kind == "foreign_key"]
        for group in [checks, *([each] for each in keys)]:
            steps = [sql.SQL("VALIDATE CONSTRAINT {}").format(sql.Identifier(each.name)) for each in group]
            if steps:
                statement = sql.SQL("ALTER TABLE {} {}").format(identifier, sql.SQL(", ").join(steps))
                self._alter(group[0], statement)
        for each in constraints:
            if each.change.kind == "not_null":
                column, name = sql.Identifier(each.change.columns[0]), sql.Identifier(each.name)
                self._alter(each, sql.SQL("ALTER TABLE {} ALTER COLUMN {} SET NOT NULL").format(identifier, column),
                            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(identifier, name))  # fmt: skip
            self._made(each)

    def settle(self) -> None:
        """Of a replay: the migration's record says what became of the changes that waited."""
        if not self._waited:
            return
        mine = {change.position: change for change in self._context.journal.changes()}
        states = {}
        for position, change in self._waited.items():
            if position not in mine:
                # Somebody else made it: nothing of ours, and nothing for a rollback to take back.
                if stands(self._connection, self._context.plan.changes[position - FIRST_CHANGE], self.catalog):
                    states[position] = ("other", "it stands already")
            elif mine[position].state == "waiting":
                states[position] = ("waiting", mine[position].note)
            else:
                # Under another name it is the replay's alone to take back.
                same = mine[position].name == change.name
                note = f"{BY_REPLAY}{'' if same else f' as {mine[position].name}'}"
                states[position] = ("made" if same else "other", note)
        self._context.journal.settle_changes(self._context.quarantine_of, states)

    def _alter(self, compiled: Compiled, *statements: sql.Composed) -> None:
        try:
            self.session.alter(*statements)
        except psycopg.Error as error:
            if lost_connection(error):
                raise
            raise self._failure(compiled, error) from None

    def _failure(self, compiled: Compiled, error: psycopg.Error) -> RunFailed:
        change = compiled.change
        if (error.sqlstate or "").startswith("23"):
            name = error.diag.constraint_name or compiled.name
            return RunFailed(
                f"Rows of {change.table} break {name} ({describe(error)}).",
                remedy="Validate the data to see which rows, correct them, then resume the run.",
            )
        return RunFailed(
            f"The schema change {compiled.name} of {change.table} failed: {describe(error)}.",
            remedy="Correct the cause in the target database, then resume the run; what was made stays recorded.",
        )

    def _made(self, compiled: Compiled) -> None:
        self._context.journal.set_change_state(compiled.position, "made")
        message = f"{compiled.change.table}: {compiled.change.kind} {compiled.name} is made."
        self._context.journal.log("info", message, Phase.CONSTRAIN)
