"""A sweep for rows that came behind the cursor: the repairs once more, over whatever they would still change."""

from collections.abc import Iterator, Sequence
from contextlib import closing

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import RunFailed, Unavailable
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.batching import Work, quarantined
from briefly_admin.engine.breaker import Announce
from briefly_admin.engine.careful import CarefulBatch
from briefly_admin.engine.checkpoints import quarantine
from briefly_admin.engine.context import QuarantinedRow, RunContext
from briefly_admin.engine.fence import fenced
from briefly_admin.engine.mover import Line, refuse
from briefly_admin.engine.repairs import changed, compile_repairs
from briefly_admin.engine.retry import Patience, Verdict, classify, describe
from briefly_admin.engine.target import server_cursor

_PASSES = 3
"""Under constant traffic some row is always new; constraints that stand already keep the rest out."""
_CHUNK = 500


def sweep(context: RunContext, work: Work, announce: Announce) -> int:
    """Repairs what is still to be repaired in the table; the number of rows changed. Raises RunFailed, Fenced."""
    changed_rows = 0
    with closing(Line(context, "sweep")) as line:
        for _ in range(_PASSES):
            found = False
            for keys in _keys(context, work):
                found = True
                changed_rows += _repair(line, work, keys, announce)
            if not found:
                break
    return changed_rows


def _keys(context: RunContext, work: Work) -> Iterator[Sequence[Sequence[str]]]:
    """Keys, in chunks, of the rows that a repair would change: one scan of the table."""
    repairs = compile_repairs(context.plan, work.table, work.catalog, alias="t")
    query = sql.SQL("SELECT {} FROM {} AS t {} WHERE {} AND NOT {}").format(
        work.key_texts("t"), work.known.identifier, repairs.joins, changed(repairs.values, "t", work.known),
        quarantined(context.quarantine_of, work),
    )  # fmt: skip
    with (
        context.target.session(bulk=True) as reader,
        reader.transaction(),
        server_cursor(reader, "sweep", chunk=_CHUNK) as cursor,
    ):
        cursor.execute(query)
        while rows := cursor.fetchmany(_CHUNK):
            context.check_stop()
            yield [key for (key,) in rows]


def _repair(line: Line, work: Work, keys: Sequence[Sequence[str]], announce: Announce) -> int:
    patience = Patience(line.context, f"The sweep of {work.table.name}", announce)
    while True:
        patience.admit()
        try:
            done = _once(line, work, keys)
        except (psycopg.Error, Unavailable) as error:
            line.close()
            if classify(error) in {Verdict.STOP, Verdict.ROWS}:
                raise RunFailed(
                    f"The sweep of {work.table.name} failed: {describe(error)}.",
                    remedy="Correct the cause in the target database, then resume the run.",
                ) from None
            patience.failed(error)
        else:
            patience.succeeded()
            return done


def _once(line: Line, work: Work, keys: Sequence[Sequence[str]]) -> int:
    context, config = line.context, line.context.config
    failures: list[QuarantinedRow] = []

    def failed(row: QuarantinedRow) -> None:
        if config.on_invalid != "skip":
            raise refuse(row)
        failures.append(row)

    connection = line.open()
    with fenced(connection, context.run_id, context.attempt):
        careful = CarefulBatch(connection, work, left_alone=quarantined(context.quarantine_of, work), on_failure=failed)
        outcome = careful.run(work.among(keys), len(keys))
        if failures:
            quarantine(connection, context.quarantine_of, failures, most=config.max_skipped)
    for row in failures:
        context.journal.log("warning", f"Skipped {row.table} [{', '.join(row.key)}]: {row.message}", Phase.CONSTRAIN)
    return outcome.changed
