"""The migrate phase: every table's repairs in batches, each exactly once.

A batch and its checkpoint are one transaction in the target; whatever is lost on the way, the checkpoint says where to
go on. See engine.md, "Migrate: exactly once".
"""

from typing import Any, Final

from psycopg import sql

from briefly_admin.domain.errors import RunFailed, Stopped
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import validate
from briefly_admin.engine.batching import Work
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.checkpoints import claim_partition, mark_done, quarantine, quarantined_rows, set_aside
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.fence import fenced, flush
from briefly_admin.engine.gauge import Gauge
from briefly_admin.engine.mover import Mover, batch_session
from briefly_admin.engine.target import Connection

_EXACT_BELOW: Final = 2_000_000
"""Rows (estimated) up to which a table is counted before it is begun."""
_BLOCKED: Final = "blocked rows"
"""The partition -1 under which the checkpoint says that blocked rows were set aside."""


def run(context: RunContext) -> dict[str, Any]:
    """Repairs every table; `{"tables": [{table, looked, changed, skipped}], looked, changed, skipped}`, in rows.

    Raises RunFailed for a row that cannot be changed (onInvalid=stop) or too many of them, Stopped, Fenced.
    """
    with context.target.session(bulk=True) as reader:
        catalog = read_catalog(reader, context)
        works = [Work(context.plan, table, catalog) for table in context.plan.tables if table.repairs]
        works = [work for work in works if work.columns]
        gauge = Gauge(context, Phase.MIGRATE, {work.table.name: count_rows(reader, work.known) for work in works})
        try:
            _set_blocked_aside(context, reader)
            tables = [Mover(context, work, gauge).move() for work in works]
        except (RunFailed, Stopped):
            _copy_quarantine(context, reader)
            raise
        _copy_quarantine(context, reader)
        skipped = set_aside(reader, context.run_id)
    for table in tables:
        table["skipped"] = skipped.get(table["table"], 0)
    known = {table["table"] for table in tables}
    tables += [
        {"table": name, "looked": 0, "changed": 0, "skipped": n} for name, n in skipped.items() if name not in known
    ]
    return {"tables": tables} | {name: sum(t[name] for t in tables) for name in ("looked", "changed", "skipped")}


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


def _copy_quarantine(context: RunContext, reader: Connection) -> None:
    """Into the app database, after it is surely on the target's disk; idempotent."""
    flush(reader, context.run_id, context.attempt)
    context.journal.save_quarantine(quarantined_rows(reader, context.run_id))
