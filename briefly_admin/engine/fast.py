"""The fast batch: locks, page, UPDATE, checkpoint and COMMIT as one text, for as long as no row makes trouble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.engine.batching import Claim, KeyRange, Work, here, quarantined
from briefly_admin.engine.target import Connection

_GUARD: Final = sql.SQL(
    "guard AS MATERIALIZED (SELECT c.last_key FROM briefly_migration.checkpoint AS c JOIN briefly_migration.fence AS f "
    "ON f.run_id = c.run_id WHERE {here} AND c.claim = {claim} AND f.attempt = {attempt} AND NOT c.done "
    "AND c.last_key IS {first})"
)
_FAST: Final = sql.SQL("""
WITH {guard}, {rows},
edge AS MATERIALIZED (SELECT count(*) AS looked, {meant} AS meant, {last} AS last FROM page),
changed AS ({update} RETURNING 1),
written AS MATERIALIZED (SELECT count(*) AS written FROM changed),
moved AS (UPDATE briefly_migration.checkpoint AS c SET
    last_key = coalesce(e.last, c.last_key), done = e.looked < {limit},
    counters = c.counters || jsonb_build_object(
      'looked', coalesce((c.counters->>'looked')::bigint, 0) + e.looked,
      'changed', coalesce((c.counters->>'changed')::bigint, 0) + w.written)
  FROM guard, edge AS e, written AS w WHERE {here})
SELECT e.looked, w.written, CASE WHEN e.looked < {limit} THEN set_config('synchronous_commit', 'on', true) END,
  1 / (e.meant = w.written AND EXISTS (SELECT FROM guard))::int
FROM edge AS e, written AS w
""")
_LOCKS: Final = (
    sql.SQL("SELECT attempt FROM briefly_migration.fence WHERE run_id = {run} FOR SHARE"),
    sql.SQL("SELECT claim FROM briefly_migration.checkpoint AS c WHERE {here} FOR UPDATE"),
)
_ORDER: Final = sql.SQL(
    "SELECT count(*) FROM (WITH {guard}, {page} SELECT 1 FROM reach JOIN {table} AS t ON t.ctid = reach.tid "
    "WHERE {numberless} ORDER BY {keys} FOR NO KEY UPDATE OF t) AS locked"
)
_LIMIT: Final = "\0"
"""Stands for the batch's size in a prepared text: no name and no literal of PostgreSQL can hold it."""


@dataclass(frozen=True, slots=True, eq=False)
class FastBatch:
    """The text of one whole batch, its COMMIT included: one round trip; composed once for batches of any size.

    Fence and checkpoint are locked by statements of their own, so that the batch's snapshot is taken after them. The
    last rows are one: rows looked at, rows changed. It divides by zero (a failure of class 22, so that the careful
    batch takes over) where this claim may not write, where `first` is wrong, or where fewer rows changed than were
    meant to; a batch that is not full waits for the disk.
    """

    statements: tuple[tuple[bytes, ...], ...]

    def of(self, limit: int, *, durable: bool) -> bytes:
        """The text for a batch of so many rows; `durable`: its COMMIT waits for the disk."""
        return _transaction(self._sized(limit), durable=durable)

    def prepare(self, limit: int) -> bytes:
        """The text that makes the session keep the plans of batches of so many rows, and no others."""
        prepared = [b"PREPARE briefly_%d AS %s" % pair for pair in enumerate(self._sized(limit))]
        return b"; ".join([b"DEALLOCATE ALL", *prepared])

    def execute(self, *, durable: bool) -> bytes:
        """The same batch as `of` gives, by the plans that `prepare` made."""
        return _transaction([b"EXECUTE briefly_%d" % n for n in range(len(self.statements))], durable=durable)

    def _sized(self, limit: int) -> list[bytes]:
        return [str(limit).encode().join(parts) for parts in self.statements]

    @classmethod
    def compose(
        cls, connection: Connection, work: Work, claim: Claim, keys: KeyRange, *, first: bool, ordered: bool
    ) -> "FastBatch":
        """For the partition's batches: its `first`, or all others.

        `ordered`: other workers may meet the same groups: their rows are locked in key order before they are numbered,
        so that two batches wait for each other once instead of undoing each other's work.
        """
        place = here(claim.run_id, claim.table, claim.partition)
        guard = _GUARD.format(
            here=place, claim=sql.Literal(claim.claim), attempt=sql.Literal(claim.attempt),
            first=sql.SQL("NULL") if first else sql.SQL("NOT NULL"),
        )  # fmt: skip
        last = [sql.SQL("(SELECT last_key[{}] FROM guard)").format(sql.Literal(n + 1)) for n in range(work.bounds)]
        begin = work.after_key(keys.after) if first else work.after(last)
        begin = sql.SQL("EXISTS (SELECT FROM guard) AND {}").format(begin)
        statements: list[sql.Composed] = [lock.format(run=sql.Literal(claim.run_id), here=place) for lock in _LOCKS]
        if ordered and work.numberless:
            page = work.page(sql.SQL("{} AND {}").format(begin, work.within(keys)), sql.SQL(_LIMIT))
            statements.append(_ORDER.format(guard=guard, page=page, table=work.known.identifier,
                                            numberless=work.numberless, keys=work.keys("t")))  # fmt: skip
        statements.append(_whole(work, claim, guard, begin, work.within(keys), place))
        texts = (statement.as_string(connection).split(_LIMIT) for statement in statements)
        return cls(tuple(tuple(part.encode() for part in parts) for parts in texts))


def _whole(
    work: Work, claim: Claim, guard: sql.Composed, begin: sql.Composable, within: sql.Composable, place: sql.Composed
) -> sql.Composed:  # fmt: skip
    """Page, UPDATE and checkpoint in one statement; rows whose repairs need no other row are read only twice."""
    left_alone, limit, last = quarantined(claim.run_id, work), sql.SQL(_LIMIT), work.last_of_page
    if work.by_place and work.by_row:
        rows = work.span(sql.SQL("{} AND {}").format(begin, within), limit, left_alone)
        meant, update = sql.SQL("count(*) FILTER (WHERE meant)"), work.update_span(begin, left_alone)
        last = sql.SQL("CASE WHEN count(*) > 0 THEN ARRAY[max(tid)::text] END")
    elif work.by_row:
        rows = work.marked_page(sql.SQL("{} AND {}").format(begin, within), limit, left_alone)
        meant, update = sql.SQL("count(*) FILTER (WHERE meant)"), work.update_marked
    else:
        page = work.page(sql.SQL("{} AND {}").format(begin, within), limit)
        rows = sql.SQL("{}, {}").format(page, work.todo(left_alone))
        meant, update = sql.SQL("(SELECT count(*) FROM todo)"), work.update
    return _FAST.format(
        guard=guard, here=place, rows=rows, meant=meant, update=update, last=last, limit=limit
    )  # fmt: skip


def _transaction(statements: Sequence[bytes], *, durable: bool) -> bytes:
    begin = b"BEGIN; SET LOCAL synchronous_commit TO on" if durable else b"BEGIN"
    return b"; ".join([begin, *statements, b"COMMIT"])
