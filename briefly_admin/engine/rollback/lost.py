"""Columns that go with the schema changes, and in how many rows something else stands than the migration put there."""

from collections.abc import Sequence
from typing import Any

from psycopg import sql

from briefly_admin.engine.catalog import CatalogColumn
from briefly_admin.engine.expected import expected
from briefly_admin.engine.repairs import as_stored
from briefly_admin.engine.rollback.classes import Classifier, join_aside
from briefly_admin.engine.rollback.difference import key_join
from briefly_admin.engine.rollback.selection import Pair, Selection
from briefly_admin.engine.target import Connection
from briefly_admin.vault.digest import SendColumn, row_bytes_sql


def lost(
    connection: Connection, chosen: Selection, pairs: Sequence[Pair], classifier: Classifier
) -> list[dict[str, Any]]:
    """[{"table", "column", "rows"}], before anything is reverted.

    A row that the backup has should hold what the repairs make of a missing value; another one, and one that the
    migration left alone, should hold nothing.
    """
    going = {(change.table, change.name) for change in chosen.changes if change.kind == "column"}
    found = []
    for pair in pairs:
        there = {column.name for column in pair.staged.columns}
        for column in pair.current.columns:
            if column.name not in there and {(pair.name, column.name), (pair.current.label, column.name)} & going:
                rows = _rows(connection, pair, column, classifier)
                found.append({"table": pair.name, "column": column.name, "rows": rows})
    return found


def _rows(connection: Connection, pair: Pair, column: CatalogColumn, classifier: Classifier) -> int:
    migration = classifier.migration
    table = migration.table(pair.name, {column.name}) if migration is not None else None
    if migration is None or table is None or not table.repairs:
        query = sql.SQL("SELECT count(*) FROM ONLY {} AS now WHERE {} IS NOT NULL").format(
            pair.current.identifier, sql.Identifier("now", column.name)
        )
    else:
        repairs, current = migration.repairs(table), migration.aggregates(table)
        aside = classifier.set_aside(pair)
        values = [expected(repairs, column)]
        values += [as_stored(each.aggregates[column.name], column) for each in (current,) if each.aggregates]
        query = sql.SQL(
            "SELECT count(*) FROM ONLY {table} AS now LEFT JOIN (SELECT t.ctid AS place, {alone} AS alone, {values}"
            " FROM {source} AS t {repairs} {current} {aside}) AS m JOIN {staged} AS was ON was.ctid = m.place"
            " ON {match} WHERE {name} IS NOT NULL AND (m.place IS NULL OR m.alone OR {now} NOT IN ({right}))"
        ).format(
            table=pair.current.identifier, source=migration.staged[pair.name], repairs=repairs.joins,
            values=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(value, sql.Identifier(f"m{place}")) for place, value in enumerate(values)
            ),
            alone=sql.SQL("false" if aside is None else "q.aside IS NOT NULL"), aside=join_aside(pair, aside),
            current=current.joins, staged=pair.staged.identifier, match=key_join(pair),
            name=sql.Identifier("now", column.name), now=row_bytes_sql([SendColumn(column.name, column.send)], "now"),
            right=sql.SQL(", ").join(
                row_bytes_sql([SendColumn(f"m{place}", column.send)], "m") for place in range(len(values))
            ),
        )  # fmt: skip
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
