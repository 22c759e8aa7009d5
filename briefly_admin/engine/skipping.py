"""Rows that somebody decided to leave alone: which of them are there, and into quarantine with them."""

from collections.abc import Collection, Mapping, Sequence

import psycopg
from psycopg import sql

from briefly_admin.engine.batching import Work
from briefly_admin.engine.checkpoints import SKIPPED, quarantine
from briefly_admin.engine.context import QuarantinedRow, RunContext, SkippedRow
from briefly_admin.engine.fence import fenced
from briefly_admin.engine.target import Connection

_ANY_NUMBER = 2**62
"""Skipped rows do not count against maxSkipped."""


def skipped_rows(
    context: RunContext, connection: Connection, works: Collection[Work]
) -> Mapping[str, Sequence[QuarantinedRow]]:
    """Table → its rows that are to be skipped and that are there, as the quarantine holds them; none left out."""
    found: dict[str, list[QuarantinedRow]] = {}
    by_table: dict[str, list[SkippedRow]] = {}
    for row in context.journal.skipped():
        by_table.setdefault(row.table, []).append(row)
    for work in works:
        wanted = [row for row in by_table.get(work.table.name, ()) if len(row.key) == len(work.table.key)]
        there = existing(connection, work, [row.key for row in wanted])
        rows = [QuarantinedRow(row.table, row.key, SKIPPED, row.reason) for row in wanted if row.key in there]
        if rows:
            found[work.table.name] = rows
    return found


def skipped_keys(context: RunContext) -> dict[str, list[tuple[str, ...]]]:
    """Table → the keys that are to be skipped, whether or not there is such a row."""
    found: dict[str, list[tuple[str, ...]]] = {}
    columns = {table.name: len(table.key) for table in context.plan.tables}
    for row in context.journal.skipped():
        if len(row.key) == columns.get(row.table):
            found.setdefault(row.table, []).append(row.key)
    return found


def existing(connection: Connection, work: Work, keys: Sequence[Sequence[str]]) -> set[tuple[str, ...]]:
    """Those of these keys that a row of the table has."""
    if not keys:
        return set()
    query = sql.SQL("SELECT {} FROM {} AS t WHERE {}")
    names = work.key_texts("t"), work.known.identifier
    try:
        with connection.transaction():
            rows = connection.execute(query.format(*names, work.among(keys))).fetchall()
    except psycopg.DataError:
        # A text that is no value of the column's type names no row; the others are found without the index.
        texts = sql.SQL(", ").join(sql.SQL("{}::text[]").format(sql.Literal(list(key))) for key in keys)
        among = sql.SQL("{} IN ({})").format(work.key_texts("t"), texts)
        rows = connection.execute(query.format(*names, among)).fetchall()
    return {tuple(key) for (key,) in rows}


def set_skipped_aside(
    context: RunContext, reader: Connection, writer: Connection, works: Collection[Work]
) -> None:  # fmt: skip
    """Into the quarantine that the run heeds, once each. Raises Fenced."""
    rows = [row for each in skipped_rows(context, reader, works).values() for row in each]
    if rows:
        with fenced(writer, context.run_id, context.attempt):
            quarantine(writer, context.quarantine_of, rows, most=_ANY_NUMBER)
