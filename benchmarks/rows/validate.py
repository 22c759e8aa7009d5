"""The validate rows: our validation against marshmallow row by row, and against SELECT count(*) of the same tables.

The plan's tables as `selftest create-data --dirty 5` makes them: no foreign keys, five rows in a hundred to repair and
each other fault once. All is measured on one warm database with the server's own setting of parallel workers, which is
the same for ours and for count(*). Ours is one worker's session; what two workers need stands beside.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from psycopg import sql

from benchmarks.ground import Ground
from benchmarks.rows.row import Facts, Measured, Row
from benchmarks.runs import validate
from briefly_admin.engine.target import Connection, Target, server_cursor
from briefly_admin.engine.validate import examine_tables
from briefly_admin.engine.validate.across import in_one_scan, row_rules
from briefly_admin.engine.validate.examine import read_catalog
from briefly_admin.engine.validate.reading import Reading, reading
from briefly_admin.engine.validate.record import CompiledTable, compile_table
from briefly_admin.engine.validate.scan import count_rows, scan_parts
from briefly_admin.plans import plan
from briefly_admin.plans.base import Table

SCALE = 10_000
"""1,390,000 rows: 50,000 users, 100,000 files, 500,000 chunks (400 bytes each, no embeddings), 300,000 messages …"""
SAMPLE = 20_000
"""Rows of each table that marshmallow is tried on."""
ROUNDS = 5
_CHUNK = 2_000
_PLAN = plan("unified")


def marshmallow(connection: Connection, table: Table, sample: int) -> float:
    """Seconds a row: `to_jsonb(row)` fetched in chunks of 2,000 by a server's cursor, JSON parsed, each row validated.

    The best we could give it: one schema object, no look at what it found, nothing written down.
    """
    schema, query = table.record(), sql.SQL("SELECT to_jsonb(t) FROM {} AS t LIMIT {}")
    began, rows = time.perf_counter(), 0
    with connection.transaction(), server_cursor(connection, "row_by_row", chunk=_CHUNK) as cursor:
        cursor.execute(query.format(sql.Identifier(table.schema, table.name), sql.Literal(sample)))
        for (row,) in cursor:
            schema.validate(row)
            rows += 1
    return (time.perf_counter() - began) / rows


def counted(connection: Connection) -> float:
    """Seconds of SELECT count(*) of each of the plan's tables."""
    began = time.perf_counter()
    for table in _PLAN.tables:
        connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.schema, table.name))
        ).fetchone()
    return time.perf_counter() - began


def whole(connection: Connection) -> float:
    """Seconds of a validation: records, foreign keys, uniqueness, relations."""
    began = time.perf_counter()
    examine_tables(connection, _PLAN)
    return time.perf_counter() - began


@contextmanager
def _compiled(connection: Connection) -> Iterator[tuple[Reading, list[tuple[CompiledTable, Sequence[int]]]]]:
    """The plan's tables, and of each the rules that its one scan answers: foreign keys above all."""
    with reading(connection) as session:
        catalog = read_catalog(connection, _PLAN)
        yield (
            session,
            [(compile_table(connection, _PLAN, table, catalog), in_one_scan(table, catalog)) for table in _PLAN.tables],
        )


def scanned(connection: Connection, *, keys: bool) -> dict[str, tuple[int, float]]:
    """Table → its rows, and seconds to count and to judge them by their record rules; `keys`: and foreign keys."""
    found = {}
    with _compiled(connection) as (session, tables):
        catalog = {compiled.table.name: compiled.catalog for compiled, _ in tables}
        for compiled, numbers in tables:
            began = time.perf_counter()
            rows = count_rows(session, compiled)
            scan_parts(session, compiled, row_rules(compiled, catalog, numbers) if keys else ())
            found[compiled.table.name] = rows, time.perf_counter() - began
    return found


def _unsure(connection: Connection) -> set[str]:
    """The tables with a rule of which SQL knows only what surely passes."""
    with _compiled(connection) as (_, tables):
        return {each.table.name for each, _ in tables if any(check.is_unsure for check in each.fields)}


def trial(ground: Ground, seed: int, scale: int = SCALE, sample: int = SAMPLE) -> Facts:
    """Medians over rounds that take turns; the order of a round's measurements turns with the seed.

    Seconds of `count`, `keys` (record rules and foreign keys), `whole`, `two` (whole, by two workers); µs a row of
    `ours` (record rules) and `theirs` (marshmallow), each for tables with (`email`) and without a sound rule.
    """
    url = ground.url(ground.make_dirty(scale))
    with Target(url).session(bulk=True) as connection:
        unsure = _unsure(connection)
        whole(connection)  # reads all of it once, so that nobody is the first to
        counted(connection)
        records: list[Mapping[str, tuple[int, float]]] = []
        seconds: dict[str, list[float]] = {"count": [], "keys": [], "whole": []}
        steps: list[Callable[[], object]] = [
            lambda: seconds["count"].append(counted(connection)),
            lambda: records.append(scanned(connection, keys=False)),
            lambda: seconds["keys"].append(sum(time for _, time in scanned(connection, keys=True).values())),
            lambda: seconds["whole"].append(whole(connection)),
        ]
        for turn in range(ROUNDS):
            first = (seed + turn) % len(steps)
            for step in steps[first:] + steps[:first]:
                step()
        theirs = {table.name: marshmallow(connection, table, sample) for table in _PLAN.tables}
        (parallel,) = connection.execute("SHOW max_parallel_workers_per_gather").fetchone() or ("",)
    rows = {name: count for name, (count, _) in records[0].items()}
    ours = {name: median(each[name][1] for each in records) / count for name, count in rows.items()}
    groups = {"email": unsure, "other": rows.keys() - unsure}
    facts: Facts = {name: round(median(values), 4) for name, values in seconds.items()}
    facts |= {"two": round(validate(ground, url, 2), 3), "rows": sum(rows.values()), "parallel": parallel}
    for whose, costs in (("ours", ours), ("theirs", theirs)):
        facts[whose] = {group: round(1e6 * _a_row(costs, rows, names), 4) for group, names in groups.items()}
    return facts


def _a_row(costs: Mapping[str, float], rows: Mapping[str, int], names: set[str]) -> float:
    """The mean over all rows of these tables."""
    return sum(costs[name] * rows[name] for name in names) / sum(rows[name] for name in names)


def weigh_rows(facts: Sequence[Mapping[str, Any]], group: str, least: float) -> Measured:
    """marshmallow's time a row over ours, by the same rules."""
    ours, theirs = (median(float(each[whose][group]) for each in facts) for whose in ("ours", "theirs"))
    return Measured(f"{ours:.3f} µs a row", f"{theirs:.1f} µs a row", round(theirs / ours, 1), theirs >= least * ours)


def weigh_count(facts: Sequence[Mapping[str, Any]], most: float) -> Measured:
    """A whole validation's time over count(*)'s; beside it record rules and foreign keys alone, and two workers."""
    count, keys, all_of_it, two = (
        median(float(each[name]) for each in facts) for name in ("count", "keys", "whole", "two")
    )
    said = f"{all_of_it:.2f} s (without uniqueness and relations {keys:.2f} s; two workers {two:.2f} s)"
    return Measured(said, f"{count:.3f} s", round(all_of_it / count, 2), all_of_it <= most * count)


_MARSHMALLOW = "marshmallow row by row on a sample, per row"
PLAIN = Row(
    "validate", "validate, tables without sound rules", _MARSHMALLOW, "≥ 200×",
    "validate", 5, 3, 1, trial, lambda facts: weigh_rows(facts, "other", 200),
)  # fmt: skip
EMAIL = Row(
    "validate_email", "validate, tables with an e-mail rule", "the same", "≥ 30×",
    "validate", 5, 3, 1, trial, lambda facts: weigh_rows(facts, "email", 30),
)  # fmt: skip
COUNT = Row(
    "validate_count", "validate, rules and foreign keys", "SELECT count(*) of the same tables", "≤ 12× its time",
    "validate", 5, 3, 1, trial, lambda facts: weigh_count(facts, 12),
)  # fmt: skip
