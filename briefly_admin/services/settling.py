"""Rows edited since the migration that an admin settles one by one, as a request names them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.plans.base import Plan, Table
from briefly_admin.store.texts import storable

Settled = Mapping[str, Sequence[Mapping[str, Any]]]
"""{table: [{"key": [texts], "how": one of HOWS, "values": {column: text or None}}]}"""

HOWS: Final = ("keep", "restore", "edit")
MOST_SETTLED: Final = 1000
_FACTS: Final = frozenset({"key", "how", "values"})


def fault_of_settled(settled: Any) -> str:
    """What is wrong with rows settled one by one, whatever was given for them, or ''."""
    if not isinstance(settled, Mapping) or not all(_is_list(rows) for rows in settled.values()):
        return "Must be an object: table to a list of rows"
    if sum(len(rows) for rows in settled.values()) > MOST_SETTLED:
        return f"Must have at most {MOST_SETTLED:,} rows; decide about more of them by a rule"
    for table, rows in settled.items():
        seen: set[tuple[str, ...]] = set()
        for number, row in enumerate(rows, start=1):
            fault = _fault_of_row(row) or ("its key is there twice" if tuple(row["key"]) in seen else "")
            if fault:
                return f"{table}, row {number}: {fault}"
            seen.add(tuple(row["key"]))
    return ""


def _fault_of_row(row: Any) -> str:
    if not isinstance(row, Mapping) or set(row) - _FACTS:
        return "must be an object of key, how, and values where it is edited"
    key, how, values = row.get("key"), row.get("how"), row.get("values") or {}
    if not _is_list(key) or not key or not all(_is_text(each) for each in key):
        return "key must be a list of texts: the values of the row's key, in its order"
    if how not in HOWS:
        return f"how must be one of: {', '.join(HOWS)}"
    texts = (
        [*values, *(each for each in values.values() if each is not None)] if isinstance(values, Mapping) else [None]
    )
    if not all(map(_is_text, texts)):
        return "values must be column to text, as PostgreSQL reads it, or null"
    if (how == "edit") != bool(values):
        return "values belong to edit, and edit needs them"
    return ""


def _is_list(given: Any) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str)


def _is_text(given: Any) -> bool:
    """Whether PostgreSQL could hold it."""
    return isinstance(given, str) and storable(given) == given


def checked_settled(settled: Settled, plan: Plan, tables: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """As options of a rollback of these tables. Raises InvalidRequest that names table, row and column.

    Secret columns stand in no request, so that their values stand in no log of it. What only the database knows
    (generated columns, values that do not fit, rows not edited any more) the run finds out.
    """
    for name, rows in settled.items():
        if name not in tables:
            raise _wrong(f"{name} must be one of the tables that go back: {', '.join(tables)}.")
        for number, row in enumerate(rows, start=1):
            if fault := _fault_of_columns(plan.table(name), row):
                raise _wrong(f"{name}, row {number}: {fault}.")
    return {
        table: [{"key": list(row["key"]), "how": row["how"], "values": dict(row.get("values") or {})} for row in rows]
        for table, rows in settled.items()
    }


def _fault_of_columns(table: Table, row: Mapping[str, Any]) -> str:
    if secret := table.secrets & set(table.key):
        return f"{', '.join(sorted(secret))} of its key is secret: the rules decide about rows of {table.name}"
    if len(row["key"]) != len(table.key):
        return f"key must have {len(table.key)} of {', '.join(table.key)}, and has {len(row['key'])}"
    values = set(row.get("values") or {})
    for names, why in (
        (values - {column.name for column in table.columns}, "the plan has no such column"),
        (values & table.secrets, "it is secret"),
        (values & set(table.key), "it is of the key"),
    ):
        if names:
            return f"{', '.join(sorted(names))} cannot be edited here: {why}"
    return ""


def _wrong(fault: str) -> InvalidRequest:
    return InvalidRequest(f"Nothing was rolled back. settled: {fault}", details={"settled": [fault]})
