"""The rollback row: what a real worker needs to undo edits, against pg_restore of the same tables into an empty one.

Before both the database is as a migration leaves it, with all indexes, keys and checks of the plan. The dump holds the
rows that the rollback brings back; pg_restore makes tables, rows, indexes and constraints in its own, fastest order.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from benchmarks import peers
from benchmarks.ground import TABLE, Ground
from benchmarks.rows.row import Facts, Measured, Row
from benchmarks.runs import migrate, roll_back

ROWS = 1_000_000
MOST = 0.7
"""Of pg_restore's time."""
_EDITS = (
    "UPDATE public.usage_logs SET action = 'edited', metadata = '{\"by\": 7}' WHERE hashtext(id::text) & 1023 < 82",
    "DELETE FROM public.usage_logs WHERE hashtext(id::text) & 1023 BETWEEN 82 AND 91",
    """INSERT INTO public.usage_logs SELECT md5('new/' || id)::uuid, user_id, action, resource_type, resource_id,
    metadata, created_at FROM public.usage_logs WHERE hashtext(id::text) & 1023 BETWEEN 92 AND 101""",
)
"""Eight rows in a hundred edited, one deleted, one inserted, anywhere in the table."""


def edit(target: str) -> dict[str, int]:
    """The edits of a trial; rows by what an exact rollback does with them."""
    with psycopg.connect(target, autocommit=True) as connection:
        update, insert, delete = (connection.execute(sql.SQL(text)).rowcount for text in _EDITS)
    return {"update": update, "insert": insert, "delete": delete}


def trial(ground: Ground, seed: int, rows: int = ROWS) -> Facts:
    """Seconds of restore and verify (`ours`) and of pg_restore (`theirs`), ours first where the seed is odd.

    Beside them: of the rollback's other phases and its preview's, of the restore's parts, and of pg_dump.
    """
    source = ground.make_settled(rows, lambda url: migrate(ground, url, "auto"))
    facts: Facts = {"rows": rows}
    for ours in (True, False) if seed % 2 else (False, True):
        with ground.copied(source) as target:
            facts |= _ours(ground, target) if ours else _theirs(ground, target)
    return facts


def _ours(ground: Ground, target: str) -> Facts:
    edited: dict[str, int] = {}
    ran = roll_back(ground, target, lambda url: edited.update(edit(url)))
    written = {what: count for what, count in ran.written[TABLE].items() if what != "same"}
    assert written == edited, f"{written} instead of {edited}"
    return {
        **edited, "ours": round(ran.seconds["restore"] + ran.seconds["verify"], 3), "peak": ran.peak,
        "seconds": _rounded(ran.seconds), "preview": _rounded(ran.preview), "within": _rounded(ran.within),
    }  # fmt: skip


def _theirs(ground: Ground, target: str) -> Facts:
    file = ground.logs / "archive"
    try:
        dump = peers.archive(target, file)
        with ground.empty() as empty:
            return {"dump": round(dump, 3), "theirs": round(peers.restore(empty, file), 3)}
    finally:
        file.unlink(missing_ok=True)


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def weigh(facts: Sequence[Mapping[str, Any]]) -> Measured:
    """Our time over pg_restore's; beside it what comes before: the rollback's own backup, staging, the preview."""

    def middle(name: str, of: str = "") -> float:
        return median(float((each[of] if of else each)[name]) for each in facts)

    ours, theirs = middle("ours"), middle("theirs")
    backup, preview = middle("backup", "seconds"), middle("preview", "preview")
    said = f"{ours:.2f} s (backup {backup:.2f} s, stage {middle('stage', 'preview'):.2f} s, preview {preview:.2f} s)"
    return Measured(said, f"{theirs:.2f} s", round(ours / theirs, 3), ours <= MOST * theirs)


ROW = Row(
    "rollback", "rollback, 10 % of a million rows differ: restore and verify, staged", "pg_restore -j1, same tables",
    "≤ 0.7× its time", "rollback", 3, 6, 1, trial, weigh,
)  # fmt: skip
