"""The migrate phase: every table's repairs in batches, each exactly once.

A batch and its checkpoint are one transaction in the target; whatever is lost on the way, the checkpoint says where to
go on. See engine.md, "Migrate: exactly once".
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import RunFailed, Stopped, Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import validate
from briefly_admin.engine.batching import Work
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.checkpoints import (
    claim_partition,
    looked_at,
    mark_done,
    quarantine,
    quarantined_rows,
    set_aside,
)
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.fence import fenced, flush
from briefly_admin.engine.gauge import Gauge
from briefly_admin.engine.mover import Mover, batch_session
from briefly_admin.engine.retry import patiently
from briefly_admin.engine.target import Connection

T = TypeVar("T")
_EXACT_BELOW: Final = 2_000_000
"""Rows (estimated) up to which a table is counted before it is begun."""
_BLOCKED: Final = "blocked rows"
"""The partition -1 under which the checkpoint says that blocked rows were set aside."""


def run(context: RunContext) -> dict[str, Any]:
    """Repairs every table; `{"tables": [{table, looked, changed, skipped}], looked, changed, skipped}`, in rows.

    Raises RunFailed for a row that cannot be changed (onInvalid=stop) or too many of them, Stopped, Fenced.
    """
    works, gauge = _asked(context, lambda reader: _prepare(context, reader))
    try:
        tables = [Mover(context, work, gauge).move() for work in works]
    except (RunFailed, Stopped):
        # For the pages; the next attempt copies what this one cannot.
        with suppress(psycopg.Error, Unavailable), context.target.session(bulk=True) as reader:
            _copy_quarantine(context, reader)
        raise
    skipped = _asked(context, lambda reader: _copy_quarantine(context, reader))
    for table in tables:
        table["skipped"] = skipped.get(table["table"], 0)
    known = {table["table"] for table in tables}
    tables += [
        {"table": name, "looked": 0, "changed": 0, "skipped": n} for name, n in skipped.items() if name not in known
    ]
    return {"tables": tables} | {name: sum(t[name] for t in tables) for name in ("looked", "changed", "skipped")}


def _asked(context: RunContext, ask: Callable[[Connection], T]) -> T:
    """What `ask` finds in a session of its own, which is not held while batches run; safe to repeat."""

    def work() -> T:
        with context.target.session(bulk=True) as reader:
            return ask(reader)

    def announce(text: str) -> None:
        context.report(Progress(str(Phase.MIGRATE), waiting=text))

    return patiently(context, "A look at the target", announce, work)


def _prepare(context: RunContext, reader: Connection) -> tuple[list[Work], Gauge]:
    """The work to do, and how far earlier attempts have come; what validation blocks is set aside."""
    catalog = read_catalog(reader, context)
    works = [Work(context.plan, table, catalog) for table in context.plan.tables if table.repairs]
    works = [work for work in works if work.columns]
    _set_blocked_aside(context, reader)
    gauge = Gauge(context, Phase.MIGRATE, {work.table.name: count_rows(reader, work.known) for work in works})
    for table, rows in looked_at(reader, context.run_id).items():
        gauge.begin(table, rows)
    return works, gauge


def read_catalog(connection: Connection, context: RunContext) -> dict[str, CatalogTable]:
    """The plan's tables as they are now. Raises RunFailed for a missing one."""
    catalog = {}
    for table in context.plan.tables:
        found = read_table(connection, table.schema, table.name)
        if found is None:
            raise RunFailed(
                f"The table {table.schema}.{table.name} is gone from the target.",
                remedy="Restore it, or choose a plan that fits this database.",
            )
        catalog[table.name] = found
    return catalog


def count_rows(connection: Connection, table: CatalogTable) -> int:
    """Rows of a table: counted, or for a very large one as the statistics say."""
    if table.estimated_rows > _EXACT_BELOW:
        return table.estimated_rows
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchone()
    return int(row[0]) if row else 0


def _set_blocked_aside(context: RunContext, reader: Connection) -> None:
    """With onInvalid=skip: what validation found blocking goes into quarantine before the first batch, once a run."""
    config = context.config
    if config.on_invalid != "skip" or not config.validate_data:
        return
    with batch_session(context) as connection:
        state = claim_partition(
            connection, context.run_id, context.attempt, _BLOCKED, -1, sleep=context.sleep, monotonic=context.monotonic
        )
        if state.done:
            return
        most = config.max_skipped + 1
        rows = list(validate.blocked_rows(reader, context.plan, limit=most, should_stop=context.should_stop))
        with fenced(connection, context.run_id, context.attempt):
            quarantine(connection, context.run_id, rows, most=config.max_skipped)
            mark_done(connection, state.claim, {"rows": len(rows)})


def _copy_quarantine(context: RunContext, reader: Connection) -> dict[str, int]:
    """Into the app database, after it is surely on the target's disk; idempotent. Rows set aside by table."""
    flush(reader, context.run_id, context.attempt)
    context.journal.save_quarantine(quarantined_rows(reader, context.run_id))
    return set_aside(reader, context.run_id)
