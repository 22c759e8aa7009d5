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


@dataclass(frozen=True, slots=True)
class Cut:
    """How large partitions become, in rows: an eighth of the table, but not fewer and not more than these."""

    smallest: int = 5_000
    largest: int = 250_000

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
