"""Which schema changes lead from the database as it is back to how it was at the backup."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from briefly_admin.domain.manifest import TableManifest
from briefly_admin.engine.context import ChangeRecord, RunContext

REVERTS: Final = "reverts"
"""The run's option: the ids of all runs that may have changed the schema since the backup, oldest first."""
_CONCURRENTLY: Final = re.compile(r"(\b(?:DROP|CREATE(?:\s+UNIQUE)?)\s+INDEX)\s+CONCURRENTLY\b", re.IGNORECASE)
_DONE: Final = frozenset({"planned", "made", "reverted"})


@dataclass(frozen=True, slots=True)
class History:
    """`changes`: those to take back, in that order; `positions`: of every run, all that is undone with them."""

    changes: tuple[ChangeRecord, ...]
    positions: Mapping[str, list[int]]


def read(context: RunContext, tables: Sequence[TableManifest]) -> History:
    """What the runs since the backup did to these tables, less what later ones of them took back.

    A migration makes a change, its rollback takes it back, the rollback of that makes it again: after an even number
    of steps it stands as it did at the backup, after an odd one the last step's inverse leads there.
    """
    names = {name: table.name for table in tables for name in (table.name, table.label)}
    steps: dict[tuple[str, str, str], list[tuple[int, ChangeRecord]]] = {}
    positions: dict[str, list[int]] = {}
    done = [
        (str(run_id), change)
        for run_id in context.options.get(REVERTS) or ()
        for change in context.journal.changes(UUID(str(run_id)))
        if change.state in _DONE and change.table in names
    ]
    for number, (run_id, change) in enumerate(done):
        positions.setdefault(run_id, []).append(change.position)
        chain = steps.setdefault((names[change.table], change.kind, change.name), [])
        # A run that stopped before it made what it had planned leaves it to the next one.
        if chain and plain(chain[-1][1].sql) == plain(change.sql):
            chain.pop()
        chain.append((number, change))
    last = sorted((chain[-1] for chain in steps.values() if len(chain) % 2), key=lambda step: -step[0])
    return History(tuple(change for _, change in last), positions)


def plain(statement: str) -> str:
    """The statement without CONCURRENTLY after DROP INDEX or CREATE [UNIQUE] INDEX."""
    return _CONCURRENTLY.sub(r"\1", statement, count=1)
