"""Figures of a target for the report's before and after: sizes, and how the representative queries are answered."""

from collections.abc import Mapping
from string import Formatter
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.target import Connection, safe_message
from briefly_admin.plans.base import Plan, RepresentativeQuery

_LIMIT: Final = "10s"
_TIMES: Final = 3


def measure(connection: Connection, plan: Plan, tables: Mapping[str, CatalogTable]) -> dict[str, Any]:
    """{"tables": {name: {"rows", "bytes"}}, "queries": [{"name", "ms", "nodes"}]}; rows are the catalog's estimate.

    `ms` is the fastest of three executions, None where the query cannot be asked (yet); `nodes` names the plan's
    nodes from the top, with the indexes they use, and never a value of the data.
    """
    sizes = {name: {"rows": table.estimated_rows, "bytes": table.bytes} for name, table in tables.items()}
    return {"tables": sizes, "queries": [_ask(connection, query, tables) for query in plan.queries]}


def _ask(connection: Connection, query: RepresentativeQuery, tables: Mapping[str, CatalogTable]) -> dict[str, Any]:
    answer: dict[str, Any] = {"name": query.name, "ms": None, "nodes": [], "note": ""}
    try:
        with connection.transaction(force_rollback=True), connection.cursor(row_factory=dict_row) as cursor:
            connection.execute(sql.SQL("SET LOCAL statement_timeout TO {}").format(sql.Literal(_LIMIT)))
            picked = cursor.execute(_named(query.pick, tables)).fetchone()
            if picked is None:
                return answer | {"note": "there is no row to ask for"}
            explain = sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {}").format(_named(query.sql, tables, picked))
            plans = [connection.execute(explain).fetchone() for _ in range(_TIMES)]
    except psycopg.Error as error:
        return answer | {"note": safe_message(error)}
    found = [plan[0][0] for plan in plans if plan]
    return answer | {"ms": round(min(p["Execution Time"] for p in found), 3), "nodes": _nodes(found[-1]["Plan"])}


def _named(text: str, tables: Mapping[str, CatalogTable], values: Mapping[str, Any] | None = None) -> sql.Composed:
    """The plan's query with quoted table names, and literals for its `%(name)s`."""
    for name in values or {}:
        text = text.replace(f"%({name})s", f"{{value_{name}}}")
    parts: dict[str, sql.Composable] = {}
    for _, field, _, _ in Formatter().parse(text):
        if field and field.startswith("value_"):
            parts[field] = sql.Literal((values or {})[field.removeprefix("value_")])
        elif field:
            parts[field] = tables[field].identifier
    return sql.SQL(text).format(**parts)


def _nodes(plan: Mapping[str, Any]) -> list[str]:
    names = [" ".join(str(plan[k]) for k in ("Node Type", "Index Name") if k in plan)]
    for child in plan.get("Plans", ()):
        names += _nodes(child)
    return names
