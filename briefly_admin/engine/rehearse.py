"""The rehearsal of a migration (dryRun): the same batches, each rolled back; nothing is committed.

It costs WAL, dead tuples and sequence numbers. briefly_migration is neither made nor read.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import RunFailed, Unavailable
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import validate
from briefly_admin.engine.batching import Work, has_lookup, needed_lookups
from briefly_admin.engine.careful import CarefulBatch
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.context import QuarantinedRow, RunContext
from briefly_admin.engine.gauge import Gauge
from briefly_admin.engine.migrate import count_rows, read_catalog
from briefly_admin.engine.mover import batch_session
from briefly_admin.engine.pace import Pace
from briefly_admin.engine.retry import Patience, Verdict, classify, describe
from briefly_admin.engine.skipping import skipped_keys, skipped_rows
from briefly_admin.engine.steering import Steering
from briefly_admin.engine.target import Connection

SAMPLES: Final = 20
"""Before/after samples a repair."""
MASK: Final = "•••"
_LONGEST: Final = 200
"""Characters of a sampled value."""
_WITHOUT_INDEX: Final = 10_000
"""Rows a batch at least, where children are looked up without the index that the expand phase would build."""
_ASIDE: Final = "briefly.left_alone"
"""A setting of the session that holds the keys of blocked rows: no table is made for them."""


@dataclass
class _Tally:
    """What a table's rehearsal has seen."""

    total: int = 0
    looked: int = 0
    changed: int = 0
    seconds: float = 0.0
    by_repair: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: dict[tuple[str, str | None, str | None], dict[str, Any]] = field(default_factory=dict)


def run(context: RunContext) -> dict[str, Any]:
    """What the migration would do; times in seconds, the projection for the whole tables.

    `{"rehearsal": true, "tables": [{table, total, looked, changed, seconds, rows_per_second, projected_seconds,
    repairs: [{column, words, count, samples: [{key, before, after}]}], failures: [{cause, sqlstate, constraint,
    message, count, keys}]}], "looked", "changed", "failed", "skipped", "projected_seconds"}`.
    Raises Stopped, RunFailed.
    """
    with context.target.session(bulk=True) as reader:
        catalog = read_catalog(reader, context)
        works = [Work(context.plan, table, catalog) for table in context.plan.tables if table.repairs]
        totals = {work.table.name: count_rows(reader, work.known) for work in works}
        blocked = _left_alone(context, reader, catalog)
    most = context.config.sample_rows
    gauge = Gauge(context, Phase.MIGRATE, {name: min(rows, most) for name, rows in totals.items()})
    tables = [
        _Rehearsal(context, work, gauge, _Tally(totals[work.table.name])).run(blocked.get(work.table.name, []))
        for work in works
    ]
    context.journal.totals(gauge.done, gauge.total)
    report: dict[str, Any] = {"rehearsal": True, "tables": tables}
    report |= {name: sum(t[name] for t in tables) for name in ("looked", "changed", "failed", "projected_seconds")}
    return report | {"skipped": sum(map(len, blocked.values()))}


def _left_alone(
    context: RunContext, reader: Connection, catalog: Mapping[str, CatalogTable]
) -> dict[str, list[tuple[str, ...]]]:  # fmt: skip
    """Keys of the rows that the migration would set aside before its first batch: those to be skipped, and with
    onInvalid=skip those that validation blocks.
    """
    config = context.config
    works = [Work(context.plan, table, catalog) for table in context.plan.tables]
    found = {name: [row.key for row in rows] for name, rows in skipped_rows(context, reader, works).items()}
    if config.on_invalid == "skip" and config.validate_data:
        most = config.max_skipped + 1
        rows = list(
            validate.blocked_rows(
                reader, context.plan, limit=most, should_stop=context.should_stop, exclude=skipped_keys(context)
            )
        )
        if len(rows) == most:
            raise RunFailed(
                f"More rows would be skipped than maxSkipped allows ({config.max_skipped:,}).",
                remedy="Validate the data and correct it, or rehearse with a higher maxSkipped.",
            )
        for row in rows:
            found.setdefault(row.table, []).append(row.key)
    return found


class _Rehearsal:
    """One table's batches; the cursor lives in memory."""

    def __init__(self, context: RunContext, work: Work, gauge: Gauge, tally: _Tally) -> None:
        self._context = context
        self._work = work
        self._gauge = gauge
        self._tally = tally
        self._missing = tuple(name for name in work.repairs.values if name not in work.columns)
        lookups = needed_lookups(work.plan, work.table)
        self._indexed = all(has_lookup(work.catalog[child], key) for child, key in lookups)

    def run(self, left_alone: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        """Up to sampleRows rows; the table's part of the report."""
        context, tally, name = self._context, self._tally, self._work.table.name
        most, last = context.config.sample_rows, None
        patience = Patience(context, f"A rehearsed batch of {name}", self._gauge.wait)
        pace = Pace(context, self._gauge.wait)
        connection: Connection | None = None
        self._gauge.begin(name)
        steering = Steering(context.config.batch_size)
        try:
            while tally.looked < most:
                context.check_stop()
                steering.want(context.config.batch_size)
                size = steering.size if self._indexed else max(steering.size, _WITHOUT_INDEX)
                size = min(size, patience.admit() or size, most - tally.looked)
                self._gauge.batch_size = size
                try:
                    connection = connection or self._open(left_alone)
                    begun = context.monotonic()
                    looked, last = self._batch(connection, last, size)
                    seconds = context.monotonic() - begun
                    steering.took(looked, seconds)
                except (psycopg.Error, Unavailable) as error:
                    if connection:
                        connection.close()
                    connection = None
                    if self._after_failure(error, patience) is Verdict.SMALLER:
                        steering.halve()
                    continue
                patience.succeeded()
                self._gauge.at(name, done=tally.looked, changed=tally.changed, skipped=len(tally.failures))
                if not looked:
                    break
                pace.after(connection, seconds)
                if context.config.pause:
                    context.sleep(context.config.pause / 1000)
        finally:
            if connection:
                connection.close()
        self._gauge.finish(name)
        return self._report()

    def _open(self, left_alone: Sequence[tuple[str, ...]]) -> Connection:
        connection = batch_session(self._context)
        if not self._indexed:
            connection.execute("SET statement_timeout TO '60s'; SET enable_seqscan TO on")
        connection.execute("SELECT set_config(%s, %s, false)", (_ASIDE, json.dumps([list(key) for key in left_alone])))
        return connection

    def _after_failure(self, error: Exception, patience: Patience) -> Verdict:
        """Waits, or gives up; what kind of failure it was."""
        verdict = classify(error)
        if verdict in {Verdict.STOP, Verdict.ROWS}:
            raise RunFailed(
                f"The rehearsal of {self._work.table.name} failed: {describe(error)}.",
                remedy="Correct the cause in the target database, then rehearse again.",
            ) from None
        patience.failed(error)
        return verdict

    @property
    def _left_alone(self) -> sql.Composable:
        return sql.SQL("(to_jsonb({}) IN (SELECT value FROM jsonb_array_elements(current_setting({})::jsonb)))").format(
            self._work.key_texts("t"), sql.Literal(_ASIDE)
        )

    def _batch(
        self, connection: Connection, last: tuple[str, ...] | None, limit: int
    ) -> tuple[int, tuple[str, ...] | None]:
        """One batch, rolled back whatever happens; rows looked at and the last key."""
        where, failures = self._work.after_key(last), dict[tuple[str, ...], QuarantinedRow]()
        try:
            with connection.transaction(force_rollback=True):
                wrong = self._observe(connection, where, limit)
        except psycopg.Error as error:
            if classify(error) is not Verdict.ROWS:
                raise
            if limit > 1:
                # A repair cannot be computed for some row: come nearer to it.
                return self._batch(connection, last, limit // 2)
            wrong = 0
        started = self._context.monotonic()
        looked, last_key = self._try(connection, where, limit, failures)
        self._tally.seconds += self._context.monotonic() - started
        self._tally.looked += looked
        self._tally.changed += max(0, wrong - len(failures))
        for failure in failures.values():
            self._failed(failure)
        return looked, last_key or last

    def _try(
        self, connection: Connection, where: sql.Composable, limit: int, failures: dict[tuple[str, ...], QuarantinedRow]
    ) -> tuple[int, tuple[str, ...] | None]:
        """The batch as the migration would send it; where that fails, row by row."""
        work = self._work
        if not work.columns:
            query = sql.SQL("WITH {} SELECT (SELECT count(*) FROM page), {}, 0, 0")
            row = connection.execute(query.format(work.page(where, limit), work.last_of_page)).fetchone() or (0, None)
            return row[0], tuple(row[1]) if row[1] else None
        try:
            with connection.transaction(force_rollback=True):
                row = connection.execute(
                    sql.SQL(
                        "WITH {}, {}, written AS ({} RETURNING 1) SELECT (SELECT count(*) FROM page), {}, "
                        "(SELECT count(*) FROM todo), (SELECT count(*) FROM written)"
                    ).format(work.page(where, limit), work.todo(self._left_alone), work.update, work.last_of_page)
                ).fetchone() or (0, None, 0, 0)
                connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            if row[2] == row[3]:
                return row[0], tuple(row[1]) if row[1] else None
        except psycopg.Error as error:
            if classify(error) is not Verdict.ROWS:
                raise
        with connection.transaction(force_rollback=True):
            careful = CarefulBatch(
                connection, work, left_alone=self._left_alone, on_failure=lambda row: failures.update({row.key: row})
            )
            outcome = careful.run(where, limit)
        return outcome.looked, outcome.last_key

    def _observe(self, connection: Connection, where: sql.Composable, limit: int) -> int:
        """Rows of the page that repairs would change, a missing column counted too; counts and samples are noted."""
        work, tally = self._work, self._tally
        names = (*work.columns, *self._missing)
        different = {name: self._different(name) for name in names}
        comma = sql.SQL(", ")
        flags = [sql.SQL("{} AS d{}").format(d, sql.Literal(n)) for n, d in enumerate(different.values())]
        shown = [sql.SQL("{} AS s{}").format(self._shown(name), sql.Literal(n)) for n, name in enumerate(names)]
        query = sql.SQL(
            "WITH {}, seen AS MATERIALIZED (SELECT {} AS key, {}, {} FROM page JOIN {} AS t ON t.ctid = page.tid {} "
            "WHERE ({}) AND NOT {}) SELECT count(*), {} FROM seen"
        ).format(
            work.page(where, limit), work.key_texts("t"), comma.join(flags), comma.join(shown), work.known.identifier,
            work.repairs.joins, sql.SQL(" OR ").join(different.values()), self._left_alone,
            comma.join(self._collected(n, name) for n, name in enumerate(names)),
        )  # fmt: skip
        rows = connection.execute(query).fetchone()
        if rows is None:
            return 0
        for number, name in enumerate(names):
            count, samples = rows[1 + 2 * number], rows[2 + 2 * number]
            tally.by_repair[name] += count
            kept = tally.samples.setdefault(name, [])
            kept.extend((samples or [])[: SAMPLES - len(kept)])
        return int(rows[0])

    def _different(self, name: str) -> sql.Composable:
        value = self._work.repairs.values[name]
        if name in self._missing:
            return sql.SQL("({}) IS NOT NULL").format(value)
        return sql.SQL("{} IS DISTINCT FROM ({})").format(sql.Identifier("t", name), value)

    def _shown(self, name: str) -> sql.Composable:
        """A sample of the repair; a secret column's values are masked before they leave the server."""
        after = sql.SQL("left(({})::text, {})").format(self._work.repairs.values[name], sql.Literal(_LONGEST))
        before: sql.Composable = sql.SQL("NULL::text")
        if name not in self._missing:
            before = sql.SQL("left({}::text, {})").format(sql.Identifier("t", name), sql.Literal(_LONGEST))
        if name in self._work.table.secrets:
            mask = sql.SQL("CASE WHEN {} IS NULL THEN NULL ELSE {} END")
            before, after = (mask.format(text, sql.Literal(MASK)) for text in (before, after))
        return sql.SQL("jsonb_build_object('key', array_to_string({}, ', '), 'before', {}, 'after', {})").format(
            self._work.key_texts("t"), before, after
        )

    def _collected(self, number: int, name: str) -> sql.Composable:
        """The repair's count and as many samples as are still wanted."""
        wanted = SAMPLES - len(self._tally.samples.get(name, ()))
        return sql.SQL(
            "count(*) FILTER (WHERE d{n}), ARRAY(SELECT s{n} FROM seen WHERE d{n} ORDER BY key LIMIT {wanted})"
        ).format(n=sql.Literal(number), wanted=sql.Literal(wanted))

    def _failed(self, row: QuarantinedRow) -> None:
        by_cause = self._tally.failures.setdefault(
            (row.cause, row.sqlstate, row.constraint),
            {"cause": row.cause, "sqlstate": row.sqlstate, "constraint": row.constraint, "message": row.message,
             "count": 0, "keys": []},
        )  # fmt: skip
        by_cause["count"] += 1
        if len(by_cause["keys"]) < SAMPLES:
            by_cause["keys"].append(", ".join(row.key))

    def _report(self) -> dict[str, Any]:
        tally, table = self._tally, self._work.table
        rate = tally.looked / tally.seconds if tally.seconds else 0.0
        return {
            "table": table.name, "total": tally.total, "looked": tally.looked, "changed": tally.changed,
            "failed": sum(each["count"] for each in tally.failures.values()),
            "seconds": round(tally.seconds, 3), "rows_per_second": round(rate, 1),
            "projected_seconds": round(tally.total / rate, 3) if rate else 0.0,
            "repairs": [
                {"column": repair.column, "words": repair.words, "count": tally.by_repair[repair.column],
                 "samples": tally.samples.get(repair.column, [])}
                for repair in table.repairs
            ],
            "failures": list(tally.failures.values()),
        }  # fmt: skip
