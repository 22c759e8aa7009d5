"""Rows of any sort under record schemas of any sort: validation in SQL says of each what marshmallow says."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from briefly_admin.engine.target import Target
from briefly_admin.plans.unified import UNIFIED
from tests.engine.generated_cases import case, shipped, try_cases
from tests.engine.verdicts import Case, Difference
from tests.faults.databases import copy_database, drop_database
from tests.faults.ground import Ground
from tests.faults.random_layout import try_layout
from tests.faults.rows.row import Facts, Row, total

SMALL, LARGE = 90, 700
"""Rows of a table: with few of them every finding shows all of its rows, with many its count is what is compared."""
TABLES = 24
"""Tables with generated schemas, one in eight of them large; the shipped schemas come besides."""
LAYOUT = 200
"""Rows in each table of the plan, which are judged once more as its repairs leave them."""
_AT_ONCE = 8


def trial(
    ground: Ground, seed: int, tables: int = TABLES, small: int = SMALL, large: int = LARGE, layout: int = LAYOUT
) -> Facts:
    """Generated schemas and the shipped ones over columns of any type; then the plan's own tables, repairs and all."""
    dice = Random(seed)
    cases = [shipped(dice, f"shipped {n}", table, small) for n, table in enumerate(UNIFIED.tables)]
    cases += [case(dice, f"generated {n}", large if n % 8 == 0 else small) for n in range(tables)]
    url = copy_database(ground.servers, "template1")
    try:
        with Target(url).session(bulk=True) as connection:
            found = [each for group in _groups(cases) for each in try_cases(connection, group)]
            repaired, others = try_layout(connection, dice, layout)
    finally:
        drop_database(ground.servers, url)
    require_none([*found, *others])
    rows = [row for each in cases for row in each.rows]
    values = sum(map(len, rows))
    return {"count": len(rows) + repaired, "repaired": repaired, "values": values, "schemas": len(cases)}


def _groups(cases: Sequence[Case]) -> Sequence[Sequence[Case]]:
    return [cases[first : first + _AT_ONCE] for first in range(0, len(cases), _AT_ONCE)]


def require_none(differences: Sequence[Difference]) -> None:
    """Raises AssertionError with all differences, the shortest first."""
    lines = sorted(map(str, differences), key=len)
    assert not lines, "\n".join([f"{len(lines)} differences; the shortest: {lines[0]}", *lines[1:]])


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"0 differences in {total(trials):,} rows: {total(trials, 'values'):,} values in {total(trials, 'schemas'):,} tables "
        f"with shipped and generated schemas, {total(trials, 'repaired'):,} rows of the plan with its repairs"
    )


ROW = Row("verdict", 100_000, "rows", 6, trial, _says)
