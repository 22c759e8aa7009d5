"""Cuts tables into partitions by key, so that several workers can migrate one table at once."""

from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.domain.partitions import Partition
from briefly_admin.engine.batching import KeyRange, Work
from briefly_admin.engine.target import Connection

_SAMPLED_PAGES: Final = 1_000
"""Pages of a large table that are looked at: enough that each partition has some of them."""
_SAMPLED_ROWS: Final = 4_000
_ORDERLY: Final = 0.9
"""Correlation of key and place from which a table counts as ordered by its key."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How large partitions become, in rows: an eighth of the table, but not fewer and not more than these."""

    smallest: int = 5_000
    largest: int = 250_000
    by_place_from: int = 8_192
    """Pages (64 MB) from which a table whose keys lie scattered over it is cut by place."""

    def parts(self, rows: int) -> int:
        """Partitions of a table with so many rows."""
        return max(1, -(-rows // min(max(rows // 8, self.smallest), self.largest)))


def cut_by_key(connection: Connection, work: Work, rows: int, cut: Cut) -> list[Partition]:
    """The table's partitions, in key order; together they hold every key there can be, each in one of them.

    `rows`: how many the table has, about. The ranges are plain JSON: `{"after": texts or null, "to": texts or null}`.
    """
    bounds = _boundaries(connection, work, rows, cut.parts(rows))
    ranges = zip([None, *bounds], [*bounds, None], strict=True)
    return [
        Partition(work.table.name, number, KeyRange(after, to).to_json()) for number, (after, to) in enumerate(ranges)
    ]


def cut(connection: Connection, work: Work, rows: int, by: Cut) -> list[Partition]:
    """The table's partitions: by place where following the key would read and write a page a row, else by key."""
    if work.by_row and work.known.pages >= by.by_place_from and _scattered(connection, work):
        return _cut_by_place(connection, work, by.parts(rows))
    return cut_by_key(connection, work, rows, by)


def _cut_by_place(connection: Connection, work: Work, parts: int) -> list[Partition]:
    """Ranges of pages, up to the table's end as it is now: new versions that batches write behind it need no look."""
    row = connection.execute(
        sql.SQL(
            "SELECT pg_relation_size({}::regclass) / current_setting('block_size')::bigint, "
            "pg_current_xact_id()::xid::text"
        ).format(sql.Literal(work.known.identifier.as_string(connection)))
    ).fetchone()
    pages, since = (int(row[0]), str(row[1])) if row else (0, "0")
    bounds = [(f"({pages * part // parts},0)",) for part in range(parts + 1)]
    ranges = zip([None, *bounds[1:-1]], bounds[1:], strict=True)
    return [
        Partition(work.table.name, number, KeyRange(after, to, since).to_json())
        for number, (after, to) in enumerate(ranges)
    ]


def _scattered(connection: Connection, work: Work) -> bool:
    """Whether rows that follow each other by key lie on pages that do not, as far as the statistics know."""
    row = connection.execute(
        "SELECT abs(correlation) FROM pg_catalog.pg_stats WHERE schemaname = %s AND tablename = %s AND attname = %s",
        (work.table.schema, work.table.name, work.table.key[0]),
    ).fetchone()
    return row is not None and row[0] is not None and row[0] < _ORDERLY


def whole(work: Work) -> list[Partition]:
    """The table in one partition."""
    return [Partition(work.table.name, 0, KeyRange().to_json())]


def _boundaries(connection: Connection, work: Work, rows: int, parts: int) -> list[tuple[str, ...]]:
    """Keys that cut a sample into equal parts; sorted and picked by the server, by the order its index has."""
    if parts < 2:  # noqa: PLR2004 - one part has no boundary
        return []
    named = sql.SQL(", ").join(
        sql.SQL("t.{} AS k{}").format(sql.Identifier(name), sql.Literal(n)) for n, name in enumerate(work.table.key)
    )
    query = sql.SQL(
        "WITH sample AS MATERIALIZED (SELECT {named} FROM {table} AS t {sampled}), "
        "ranked AS (SELECT {keys}, row_number() OVER (ORDER BY {keys}) AS n, count(*) OVER () AS c FROM sample) "
        "SELECT {texts} FROM ranked WHERE n < c AND n * {parts} / c > (n - 1) * {parts} / c ORDER BY n"
    ).format(
        named=named, table=work.known.identifier, sampled=_sampled(work, rows),
        keys=work.numbered("k"), texts=work.numbered_texts, parts=sql.Literal(parts),
    )  # fmt: skip
    return [tuple(key) for (key,) in connection.execute(query).fetchall()]


def _sampled(work: Work, rows: int) -> sql.Composable:
    """Some pages of a large table, and of their rows so many that sorting them is nothing."""
    share = min(1.0, _SAMPLED_PAGES / max(work.known.pages, 1))
    thinned = min(1.0, _SAMPLED_ROWS / max(rows * share, 1))
    pages = sql.SQL("TABLESAMPLE SYSTEM ({})").format(sql.Literal(share * 100)) if share < 1 else sql.SQL("")
    # Random numbers need no seed: boundaries are laid down once a run, wherever they lie.
    return sql.SQL("{} {}").format(pages, sql.SQL("WHERE random() < {}").format(sql.Literal(thinned)))
