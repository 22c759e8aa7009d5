"""The migrate rows: batches against one UPDATE for the whole table, and against row by row as the old system did."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import psycopg

from benchmarks.ground import Ground
from benchmarks.rows.row import Facts, Measured, Row
from benchmarks.runs import migrate

ROWS = 1_000_000
SAMPLE = 2_000
"""Rows that the old way is tried on."""
_REPAIRED = "coalesce(nullif(metadata, 'null'), '{}')"
_ONE_UPDATE = f"UPDATE public.usage_logs SET metadata = {_REPAIRED} WHERE metadata IS DISTINCT FROM {_REPAIRED}"


def one_update(target: str) -> float:
    """Rows a second of the plan's repairs in one statement and one transaction, commit included."""
    with psycopg.connect(target) as connection:
        began = time.monotonic()
        changed = connection.execute(_ONE_UPDATE).rowcount
        connection.commit()
        return changed / (time.monotonic() - began)


def row_by_row(target: str, sample: int) -> float:
    """Rows a second of a SELECT, an UPDATE and a COMMIT for each of `sample` rows, over ordinary settings."""
    with psycopg.connect(target) as connection:
        keys = connection.execute(
            "SELECT id FROM public.usage_logs ORDER BY md5(id::text) LIMIT %s", (sample,)
        ).fetchall()
        connection.commit()
        began = time.monotonic()
        for key in keys:
            connection.execute("SELECT * FROM public.usage_logs WHERE id = %s", key).fetchone()
            connection.execute("UPDATE public.usage_logs SET metadata = '{}' WHERE id = %s", key)
            connection.commit()
        return len(keys) / (time.monotonic() - began)


def trial(ground: Ground, seed: int, batch: int | str, theirs: Callable[[str], float], rows: int = ROWS) -> Facts:
    """Both ways over warm copies of one database, ours first where the seed is odd; rows a second of each."""
    source = ground.make(rows)
    facts: Facts = {"rows": rows, "batch": batch}
    for ours in (True, False) if seed % 2 else (False, True):
        with ground.copied(source) as target:
            if ours:
                ran = migrate(ground, target, batch)
                assert ran.changed == rows, f"{ran.changed} of {rows} rows were changed"
                facts["ours"] = round(ran.migrated, 1)
            else:
                facts["theirs"] = round(theirs(target), 1)
    return facts


def weigh(facts: Sequence[Mapping[str, Any]], least: float) -> Measured:
    """The medians, and their ratio."""
    ours, theirs = (median(float(each[name]) for each in facts) for name in ("ours", "theirs"))
    return Measured(f"{ours:,.0f} rows/s", f"{theirs:,.0f} rows/s", round(ours / theirs, 3), ours / theirs >= least)


BATCH_100 = Row(
    "migrate", "migrate, every row changes, batch 100", "one UPDATE for the whole table", "≥ 0.4 of its rows/s",
    "migrate", 3, 6, 1, lambda ground, seed: trial(ground, seed, 100, one_update), lambda facts: weigh(facts, 0.4),
)  # fmt: skip
AUTO = Row(
    "auto", "migrate, batch auto", "one UPDATE for the whole table", "≥ 0.85 of its rows/s",
    "auto", 3, 5, 1, lambda ground, seed: trial(ground, seed, "auto", one_update), lambda facts: weigh(facts, 0.85),
)  # fmt: skip
ROW_BY_ROW = Row(
    "row_by_row", "migrate, batch 100", f"row by row, as the old system did, on {SAMPLE:,} of them", "≥ 30×",
    "row_by_row", 3, 5, 1, lambda ground, seed: trial(ground, seed, 100, lambda target: row_by_row(target, SAMPLE)),
    lambda facts: weigh(facts, 30),
)  # fmt: skip
