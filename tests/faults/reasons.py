"""Why a rollback must be refused, and what it leaves beside the plan's tables, from what brute force finds."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.faults import three_ways
from tests.faults.aftermath import UNCOUNTED, Migrated
from tests.faults.oracle import TABLES
from tests.faults.outsiders import Fate, Outsiders
from tests.faults.three_ways import Choice, Rows, ThreeWays

_LINKS = """
SELECT o.conname::text, c.relname::text, a.attname::text, p.relname::text FROM pg_constraint AS o
  JOIN pg_class AS c ON c.oid = o.conrelid JOIN pg_class AS p ON p.oid = o.confrelid
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = o.conkey[1]
  WHERE o.contype = 'f' AND o.connamespace = 'public'::regnamespace AND starts_with(c.relname, 'out_') IS FALSE
"""
_COLUMNS = """
SELECT c.relname::text, a.attname::text FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""
_TRIGGERS = """
SELECT t.tgrelid::regclass::text, t.tgname::text, t.tgenabled::text FROM pg_trigger AS t WHERE NOT t.tgisinternal
  AND t.tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace) ORDER BY 1, 2
"""
_SLOTS = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conname = 'users_slot_key')"
EXACT_COUNTS = ("update", "insert", "delete")


@dataclass(frozen=True)
class Wish:
    """What is asked of a rollback. `confirmed`: table → what → rows, of the preview that was confirmed."""

    mode: str
    tables: tuple[str, ...] = TABLES
    choice: Choice = field(default_factory=Choice)
    allow: frozenset[str] = frozenset()
    confirmed: Mapping[str, Mapping[str, int]] | None = None
    outside: Mapping[str, int] | None = None
    """"schema.table" → rows outside, of that preview."""
    allowance: int = 0
    fewer: bool = False
    """Whether the preview was of more tables."""


@dataclass(frozen=True)
class State:
    """All that a rollback may touch, and must leave as it is where it is refused."""

    rows: Rows
    outsiders: Outsiders
    links: tuple[tuple[str, str, str, str], ...]
    """(constraint, child, its column, parent), between the plan's tables."""
    columns: frozenset[tuple[str, str]]
    triggers: tuple[tuple[str, str, str], ...]
    sequence: tuple[int, bool]
    slots: bool
    """Whether users' slots must be unique."""

    @classmethod
    def read(cls, connection: psycopg.Connection[Any], default: bytes) -> "State":
        """What is there now, by a session outside a transaction; `default`: see Outsiders."""

        def ask(query: str) -> list[Any]:
            return connection.execute(query.encode()).fetchall()

        return cls(
            three_ways.read_by(connection), Outsiders.read(connection, default), tuple(sorted(ask(_LINKS))),
            frozenset(ask(_COLUMNS)), tuple(ask(_TRIGGERS)), ask("SELECT last_value, is_called FROM public.numbers")[0],
            ask(_SLOTS)[0][0],
        )  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a rollback of this state must do: refuse for `reasons`, or leave `rows` and `fate`."""

    ways: ThreeWays
    rows: Rows
    fate: Fate
    reasons: tuple[str, ...]
    early: tuple[str, ...]
    """Those that its own preview finds already."""
    blocking: frozenset[str]
    """"schema.table" of the rows that stand against it, whatever is allowed."""


def judge(place: Migrated, state: State, wish: Wish) -> Verdict:
    """By the rows alone."""
    columns = place.made("column")
    going = {
        table: frozenset(name for name in columns.get(table, ()) if (table, name) in state.columns)
        for table in wish.tables
    }
    ways = ThreeWays(place.before, place.after, state.rows, UNCOUNTED, wish.tables, going)
    final = ways.exactly() if wish.mode == "exact" else ways.kept(wish.choice)
    users = final["users"].keys()
    fate = state.outsiders.fate(state.rows["users"].keys() - users, users)
    moved = _moved(ways, wish)
    dangling = _dangling(place, state, wish, final, inner=False)
    blocking = {f"public.{table}" for table in (*fate.blocked, *dangling.values())}
    outside = [f"{table} stands against it" for table in sorted(blocking)]
    outside += [f"{table} is not allowed" for table in fate.touched.keys() - wish.allow]
    outside += _otherwise(fate, wish)
    inside = list(_dangling(place, state, wish, final, inner=True)) if wish.mode == "keep" else []
    inside += _doubled(state, final) + _unsettled(ways, wish)
    early = moved + (outside if wish.mode == "exact" else [])
    return Verdict(ways, final, fate, (*moved, *outside, *inside), tuple(early), frozenset(blocking))


def _otherwise(fate: Fate, wish: Wish) -> list[str]:
    """Of a confirmed preview's rows outside, what moved."""
    if wish.outside is None:
        return []
    more = {table: fate.touched.get(table, 0) - wish.outside.get(table, 0) for table in wish.allow}
    at_most = wish.mode == "keep" or wish.fewer
    return [
        f"{table}: {count} more"
        for table, count in more.items()
        if (max(count, 0) if at_most else abs(count)) > wish.allowance
    ]


def _moved(ways: ThreeWays, wish: Wish) -> list[str]:
    if wish.confirmed is None:
        return []
    counts = ways.exact() if wish.mode == "exact" else ways.counts()
    names = EXACT_COUNTS if wish.mode == "exact" else three_ways.CLASSES[1:]
    return [
        f"{table}: {name} moved"
        for table, confirmed in wish.confirmed.items()
        for name in names
        if table in counts and abs(counts[table][name] - confirmed[name]) > wish.allowance
    ]


def _dangling(place: Migrated, state: State, wish: Wish, final: Rows, *, inner: bool) -> dict[str, str]:
    """Foreign keys that stay and that rows would break which kept them before, and the tables that have them; `inner`:
    of the tables rolled back.
    """
    reverted = place.made("foreign_key")
    found = {}
    for name, child, column, parent in state.links:
        if (child in wish.tables) != inner or name in (reverted.get(child, ()) if child in wish.tables else ()):
            continue
        now, then = state.rows[parent].keys(), final[parent].keys()
        rows = (
            (row[column], state.rows[child].get(key, {}).get(column)) for key, row in final[child].items()
        )  # fmt: skip
        if any(ref is not None and ref not in then and (ref != was or ref in now) for ref, was in rows):
            found[name] = child
    return found


def _doubled(state: State, final: Rows) -> list[str]:
    slots = Counter(row["slot"] for row in final["users"].values() if row["slot"] is not None)
    return ["slots would be double"] if state.slots and slots and max(slots.values()) > 1 else []


def _unsettled(ways: ThreeWays, wish: Wish) -> list[str]:
    return [
        f"{table} {key.hex()} is not edited"
        for table, key in wish.choice.settled
        if ways.classes[table].get(key) != "edited"
    ]
