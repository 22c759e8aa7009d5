"""Restoring tables from a backup: staged, previewed, in one transaction, verified inside it.

`run_phase` is what the pipeline calls. A resumed attempt may begin at any phase: what is no longer whole is staged
again, and a restore that was committed is recognised by its mark in the scratch schema, never done twice.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import BrieflyError, Fenced, RunFailed, Stopped, Unavailable
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import retry, scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.rollback import preview, restore, reuse, selection
from briefly_admin.engine.target import Connection

__all__ = ["run_phase"]

_MUCH: Final = 10
"""One in so many rows of a table; PostgreSQL's own autovacuum_analyze_scale_factor."""


def run_phase(context: RunContext, phase: Phase) -> dict[str, Any]:
    """Do STAGE, PREVIEW, RESTORE or VERIFY of a rollback (or a preview); the phase's part of the report.

    Raises BackupError, Refused, VerificationFailed, RunFailed (then no scratch is left), and Unavailable, Stopped,
    Fenced (then a later attempt goes on with it). In every case the tables are as before, or wholly restored.
    """
    try:
        return _PHASES[phase](context)
    except BaseException as error:
        if _is_final(error):
            _clean(context)
        if isinstance(error, psycopg.Error):
            raise _told(error, phase) from None
        raise


def _stage(context: RunContext) -> dict[str, Any]:
    chosen = selection.choose(context)
    _, reused = reuse.stage(context, chosen.reader, chosen.staged_tables)
    tables = {table.name: {"rows": table.rows, "digest": str(table.digest)} for table in chosen.tables}
    return {"tables": tables, "reused": None if reused is None else str(reused)}


def _verify(context: RunContext) -> dict[str, Any]:
    """What the restore proved inside its transaction; the scratch goes, and what the preview had left of its own."""
    with context.target.session(bulk=True) as connection:
        done = restore.restored(connection, context.run_id) or context.journal.finished_phases().get(Phase.RESTORE)
        if done is None:
            raise RunFailed("Nothing was restored, so there is nothing to verify.", remedy="Start the rollback again.")
        _analyze(context, connection, done["tables"])
        scratch.drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)
        reuse.drop_lent(context, connection)
    return {"verified": True, "digests": done["digests"]}


def _analyze(context: RunContext, connection: Connection, written: Mapping[str, Mapping[str, int]]) -> None:
    """Statistics of what is there now, so that nothing is planned for the rows that were there before.

    Where less than a tenth was written, statistics that are there may stay: autovacuum leaves them, too.
    """
    for table in context.plan.tables:
        counts = written.get(table.name)
        if counts is None:
            continue
        much = (sum(counts.values()) - counts["same"]) * _MUCH > sum(counts.values())
        if much or not _is_analysed(connection, table.schema, table.name):
            try:
                connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table.schema, table.name)))
            except psycopg.errors.LockNotAvailable:
                context.journal.log("warning", f"{table.name} is locked; autovacuum will analyse it.", Phase.VERIFY)


def _is_analysed(connection: Connection, schema: str, name: str) -> bool:
    query = "SELECT reltuples >= 0 FROM pg_class WHERE oid = to_regclass(%s)"
    row = connection.execute(query, (sql.Identifier(schema, name).as_string(connection),)).fetchone()
    return row is not None and bool(row[0])


_PHASES: Final[Mapping[Phase, Callable[[RunContext], dict[str, Any]]]] = {
    Phase.STAGE: _stage,
    Phase.PREVIEW: preview.run,
    Phase.RESTORE: restore.run,
    Phase.VERIFY: _verify,
}


def _is_final(error: BaseException) -> bool:
    """Whether no later attempt will want the staged tables."""
    if isinstance(error, Stopped):
        return error.reason == "cancel"
    if isinstance(error, Unavailable | Fenced):
        return False
    if isinstance(error, psycopg.Error):
        return not retry.lost_connection(error)
    return isinstance(error, BrieflyError)


def _told(error: psycopg.Error, phase: Phase) -> BrieflyError:
    text = f"The database failed in phase {phase.value}: {retry.describe(error)}. The tables are as they were."
    if retry.lost_connection(error):
        return Unavailable(text, remedy="See that the database runs, then resume the run.")
    return RunFailed(text, remedy="Cure the cause in the target database, then roll back again.")


def _clean(context: RunContext) -> None:
    try:
        with context.target.session(bulk=True) as connection:
            scratch.drop_scratch(connection, context.run_id, up_to_attempt=context.attempt)
    except (psycopg.Error, Unavailable) as error:
        context.journal.log("warning", f"The scratch schema is still there: {retry.describe(error)}.")
