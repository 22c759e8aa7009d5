"""Sample rows of each class, before / migrated / now side by side: chosen, ordered and cut by PostgreSQL.

Values of secret columns, and of columns that the plan does not know, never leave the database. Rows that a secret tells
apart have no key here: they go by the rules, and cannot be settled one by one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from psycopg import sql

from briefly_admin.engine.rollback.classes import Classified
from briefly_admin.engine.rollback.difference import NOW, THEN
from briefly_admin.engine.rollback.selection import Pair
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan
from briefly_admin.vault.digest import SendColumn, row_bytes_sql

LIMITS: Final = {"edited": 100, "created": 20, "deleted": 20, "migrated": 20}
"""Rows of a table that are shown of each class."""
WIDTH: Final = 200
"""Characters of a value that are shown."""
_WHOLE: Final = frozenset({"created", "deleted"})
_ROWS: Final = sql.SQL(
    "SELECT ARRAY[{keys}]::text[], ARRAY[{before}]::text[], ARRAY[{migrated}]::text[], ARRAY[{now}]::text[],"
    " ARRAY[{differ}]::bool[] FROM (SELECT k.* FROM {relation} AS k {side} WHERE k.class = {what}"
    " ORDER BY {order} LIMIT {limit}) AS k"
    " LEFT JOIN ONLY {table} AS now ON now.ctid = k.here LEFT JOIN {staged} AS was ON was.ctid = k.there"
    " ORDER BY {order}"
)
_NOTHING: Final = sql.SQL("NULL")


def samples(connection: Connection, plan: Plan, classified: Classified) -> list[dict[str, Any]]:
    """[{"class", "key": [texts], "columns": [{"name", "before", "migrated", "now", "secret"}]}], edited rows first.

    Values are texts, cut; None is NULL, or no row, or a secret. Of rows on both sides only columns that differ. The key
    is empty where a column of it is secret.
    """
    table = plan.table(classified.pair.name)
    known = {column.name for column in table.columns}
    masked = {column.name for column in classified.counting if column.name not in known} | table.secrets
    rows = [row for what in LIMITS if classified.counts[what] for row in _rows(connection, classified, what, masked)]
    return [row | {"key": []} for row in rows] if has_secret_key(plan, classified.pair) else rows


def has_secret_key(plan: Plan, pair: Pair) -> bool:
    """Whether what tells the table's rows apart must not be shown."""
    return not plan.table(pair.name).secrets.isdisjoint(pair.staged.manifest.key)


def _rows(
    connection: Connection, classified: Classified, what: str, masked: set[str] | frozenset[str]
) -> Iterator[dict[str, Any]]:
    columns = classified.counting
    for key, *values, differ in connection.execute(_query(classified, what, masked)).fetchall():
        cells = (
            {"name": column.name, "before": before, "migrated": migrated, "now": now, "secret": column.name in masked}
            for column, before, migrated, now, differs in zip(columns, *values, differ, strict=True)
            if differs or what in _WHOLE
        )
        yield {"class": what, "key": key, "columns": list(cells)}


def _query(classified: Classified, what: str, masked: set[str] | frozenset[str]) -> sql.Composed:
    pair, columns = classified.pair, classified.counting
    alias, place, source = (
        (THEN, "there", pair.staged.identifier)
        if what == "deleted"
        else (NOW, "here", sql.SQL("ONLY {}").format(pair.current.identifier))
    )
    side = sql.SQL("JOIN {} AS {} ON {} = {}").format(
        source, sql.Identifier(alias), sql.Identifier(alias, "ctid"), sql.Identifier("k", place)
    )
    keys = [sql.Identifier(alias, name) for name in pair.staged.manifest.key]
    return _ROWS.format(
        keys=_list([sql.SQL("{}::text").format(key) for key in keys]), order=_list(keys), side=side,
        before=_texts(classified, columns, masked, THEN), now=_texts(classified, columns, masked, NOW),
        migrated=_texts(classified, columns, masked, "k") if what != "created" else _list([_NOTHING] * len(columns)),
        differ=_list([_differs(classified, column) for column in columns]), relation=classified.relation,
        what=sql.Literal(what), limit=sql.Literal(LIMITS[what]), table=pair.current.identifier,
        staged=pair.staged.identifier,
    )  # fmt: skip


def _texts(
    classified: Classified, columns: Sequence[SendColumn], masked: set[str] | frozenset[str], alias: str
) -> sql.Composable:
    return _list(
        [
            _NOTHING if column.name in masked else _cut(_value(classified, column, alias))
            for column in columns
        ]
    )  # fmt: skip


def _value(classified: Classified, column: SendColumn, alias: str) -> sql.Composable:
    """The column before, as migrated (`k`), or now."""
    if alias == "k":
        repaired = classified.values.get(column.name)
        return sql.Identifier("k", repaired) if repaired else sql.Identifier(THEN, column.name)
    if alias == NOW and classified.pair.current.column(column.name) is None:
        return _NOTHING  # it comes back with the schema changes
    return sql.Identifier(alias, column.name)


def _differs(classified: Classified, column: SendColumn) -> sql.Composable:
    before = row_bytes_sql([column], THEN)
    tests = []
    if (name := classified.values.get(column.name)) is not None:
        tests.append(sql.SQL("{} <> {}").format(row_bytes_sql([SendColumn(name, column.send)], "k"), before))
    if classified.pair.current.column(column.name) is None:
        tests.append(sql.SQL("{} IS NOT NULL").format(sql.Identifier(THEN, column.name)))
    else:
        tests.append(sql.SQL("{} <> {}").format(row_bytes_sql([column], NOW), before))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(tests))


def _cut(value: sql.Composable) -> sql.Composable:
    return sql.SQL("left({}::text, {})").format(value, sql.Literal(WIDTH))


def _list(parts: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)
