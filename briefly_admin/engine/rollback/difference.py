"""Which rows differ between a table and its staged copy: found by one join, judged by the bytes that COPY would write.

A difference is a relation (here, there): the ctid of the row as it is now, and of the staged one. No `there`: created
since, to be deleted; no `here`: missing, to be inserted; both: to be updated. Equal rows are not in it. ctids hold as
long as nobody else may write: for a preview the snapshot, for a restore the table's lock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.rollback.selection import Pair
from briefly_admin.engine.target import Connection
from briefly_admin.vault.digest import SendColumn, row_bytes_sql

NOW, THEN = "now", "was"
"""Aliases of the table and of its staged copy in all statements."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of a table by what an exact rollback does with them."""

    same: int
    update: int
    insert: int
    delete: int

    def to_json(self) -> dict[str, int]:
        """As the preview, the page and `expected` write it."""
        return {"same": self.same, "update": self.update, "insert": self.insert, "delete": self.delete}

    @property
    def changes(self) -> int:
        """Rows that will be written."""
        return self.update + self.insert + self.delete


@dataclass(frozen=True, slots=True)
class Difference:
    """A table's difference: counts, and the columns in which any row to be updated differs."""

    pair: Pair
    counts: Counts
    columns: tuple[str, ...]


def value(column: SendColumn, alias: str) -> sql.Composable:
    """The column of either side, as comparable: a type without a binary form as its text, as it is staged."""
    name = sql.Identifier(alias, column.name)
    return name if column.send is not None or alias == THEN else sql.SQL("{}::pg_catalog.text").format(name)


def key_join(pair: Pair) -> sql.Composable:
    """now.key = was.key"""
    columns = {column.name: column for column in pair.staged.columns}
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(value(columns[name], NOW), value(columns[name], THEN))
        for name in pair.staged.manifest.key
    )


def find(connection: Connection, pair: Pair) -> Difference:
    """Make the difference's relation, anew where there is one, and count it. Memory is PostgreSQL's work_mem.

    A column that the table lacks just now, and that comes back with the schema changes, counts as NULL. Its rows are in
    the order of the table's: what follows them goes through the table's pages one after another.
    """
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(pair.difference))
    query = sql.SQL(
        "CREATE UNLOGGED TABLE {difference} WITH (autovacuum_enabled = off) AS"
        " SELECT now.ctid AS here, was.ctid AS there FROM ONLY {table} AS now FULL JOIN {staged} AS was ON {join}"
        " WHERE now.ctid IS NULL OR was.ctid IS NULL OR {differs} ORDER BY here"
    ).format(
        difference=pair.difference, table=pair.current.identifier, staged=pair.staged.identifier,
        join=key_join(pair), differs=differs(pair, pair.staged.columns),
    )  # fmt: skip
    connection.execute(query)
    return found(connection, pair)


def found(connection: Connection, pair: Pair) -> Difference:
    """The difference whose relation is there."""
    connection.execute(sql.SQL("ANALYZE {}").format(pair.difference))
    counts = _count(connection, pair)
    return Difference(pair, counts, _changed_columns(connection, pair) if counts.update else ())


def differs(pair: Pair, columns: Sequence[SendColumn]) -> sql.Composable:
    """Whether `now` and `was`, both there, differ in any of the columns.

    One that the table lacks just now, and that comes back with the schema changes, counts as NULL.
    """
    present = [column for column in columns if pair.current.column(column.name) is not None]
    tests = [sql.SQL("{} IS NOT NULL").format(sql.Identifier(THEN, c.name)) for c in columns if c not in present]
    if present:
        images = sql.SQL("NOT ({} OPERATOR(pg_catalog.*=) {})").format(_row(present, NOW), _row(present, THEN))
        # Different images can still be the same bytes to COPY (an array's flags, say): the second look decides.
        unequal = sql.SQL("{} <> {}").format(row_bytes_sql(present, NOW), row_bytes_sql(present, THEN))
        tests.insert(0, sql.SQL("({} AND {})").format(images, unequal))
    return sql.SQL("({})").format(sql.SQL(" OR ").join(tests)) if tests else sql.SQL("false")


def _row(columns: Sequence[SendColumn], alias: str) -> sql.Composable:
    return sql.SQL("ROW({})::pg_catalog.record").format(sql.SQL(", ").join(value(column, alias) for column in columns))


def _count(connection: Connection, pair: Pair) -> Counts:
    query = sql.SQL(
        "SELECT count(*) FILTER (WHERE here IS NOT NULL AND there IS NOT NULL), count(*) FILTER (WHERE here IS NULL),"
        " count(*) FILTER (WHERE there IS NULL) FROM {}"
    ).format(pair.difference)
    row = connection.execute(query).fetchone()
    assert row is not None
    update, insert, delete = row
    return Counts(pair.staged.manifest.rows - update - insert, update, insert, delete)


def _present(pair: Pair) -> list[SendColumn]:
    return [column for column in pair.staged.columns if pair.current.column(column.name) is not None]


def _changed_columns(connection: Connection, pair: Pair) -> tuple[str, ...]:
    columns = _present(pair)
    tests = sql.SQL(", ").join(
        sql.SQL("bool_or(NOT ({} OPERATOR(pg_catalog.*=) {}))").format(_row([column], NOW), _row([column], THEN))
        for column in columns
    )
    query = sql.SQL("SELECT {} FROM {}").format(tests, both(pair))
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(column.name for column, differs in zip(columns, row, strict=True) if differs)


def both(pair: Pair) -> sql.Composable:
    """What stands behind FROM for the rows to be updated, `now` and `was`."""
    return sql.SQL("{} AS d JOIN ONLY {} AS now ON now.ctid = d.here JOIN {} AS was ON was.ctid = d.there").format(
        pair.difference, pair.current.identifier, pair.staged.identifier
    )


def require_expected(
    differences: Sequence[Difference], expected: Mapping[str, Mapping[str, int]] | None, allowance: int = 0
) -> None:
    """Raises Refused, naming tables and counts, where more than `allowance` rows moved since they were confirmed."""
    counts = {each.pair.name: each.counts.to_json() for each in differences}
    require_unmoved(counts, expected, {"update": "to update", "insert": "to insert", "delete": "to delete"}, allowance)


def require_unmoved(
    counts: Mapping[str, Mapping[str, int]],
    expected: Mapping[str, Mapping[str, int]] | None,
    words: Mapping[str, str],
    allowance: int,
) -> None:
    """Compare each of a table's counts that `words` names with the one confirmed; tables not confirmed do not count.

    Raises Refused.
    """
    moved = [
        f"{name}: {counts[name][what]:,} {said} instead of {confirmed.get(what, 0):,}"
        for name, confirmed in (expected or {}).items()
        for what, said in words.items()
        if name in counts and abs(counts[name][what] - int(confirmed.get(what, 0))) > allowance
    ]
    if moved:
        raise Refused(
            f"The data changed since the preview was confirmed: {'; '.join(moved)}.",
            remedy="Look at a new preview and confirm that; nothing was changed.",
        )
