"""The bucket digests of the plan's tables at one instant, shared among the run's workers.

Digests of disjoint rows add up, so a large table is cut into ctid ranges. A part's digests stay in the scratch schema:
they are 160 KB, too much for a row that is read twice a second.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, Final

from psycopg import sql

from briefly_admin.domain.digest import BucketDigests
from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.partitions import Claimed, Count, Partition
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import scratch
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.noting import while_noting
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.engine.snapshot import Snapshot, ctid_condition, join_snapshot, open_snapshot, page_ranges
from briefly_admin.engine.tally import Tally
from briefly_admin.engine.target import Connection
from briefly_admin.vault.digest import SendColumn, bucket_sql, buckets_of

LARGE: Final = 64 << 20
"""Bytes of a table, indexes and all, from which on several workers share it."""
_RANGES_A_WORKER: Final = 3


def digest_tables(
    context: RunContext, schema: str, known: Mapping[str, Sequence[str]], *, large: int = LARGE
) -> dict[str, BucketDigests]:
    """Table → its digests over the `known` columns, all from one snapshot.

    `schema`: the attempt's scratch schema. Raises PreflightFailed where a table is missing, Stopped, Fenced,
    Unavailable, RunFailed.
    """
    shared: dict[str, Any] = {"schema": schema, "columns": {name: list(columns) for name, columns in known.items()}}
    with open_snapshot(context.target, context.plan) as snapshot, context.target.session(bulk=True) as notes:
        shared["snapshot"] = snapshot.exported
        digester = _Digester(context, snapshot, notes, shared)
        # The leader reads from the very transaction that exports: where it is lost, the leader's work ends with it.
        mine = replace(STEP, open=lambda _context, _shared: nullcontext(digester.work))
        totals = {name: table.estimated_rows for name, table in snapshot.tables.items()}
        parts = [
            Partition(name, number, {"ctid_from": low, "ctid_to": high})
            for name, table in snapshot.tables.items()
            for number, (low, high) in enumerate(ranges(table, context.config.workers, large))
        ]
        share(context, mine, parts, shared, show=Tally(context, Phase.VERIFY, totals))
    found = {name: BucketDigests() for name in totals}
    count = 0
    with context.target.session(bulk=True) as connection:
        for _, result in scratch.parts(connection, schema, _PREFIX):
            table = str(result["table"])
            found[table] = found[table] + BucketDigests.from_bytes(b64decode(result["digests"]))
            count += 1
    if count != len(parts):
        raise Unavailable(
            "PostgreSQL crashed and emptied the digests of this verification.",
            remedy="Look at the database server's log, then resume the run.",
        )
    return found


def ranges(table: CatalogTable, workers: int, large: int) -> Sequence[tuple[str, str]]:
    """The table's ctid ranges: one for one worker, so that PostgreSQL may read it in parallel by itself."""
    if workers == 1 or table.bytes < large:
        return [("", "")]
    return page_ranges(table, stream_bytes=max(table.bytes // cuts(table, workers, large), 1))


def cuts(table: CatalogTable, workers: int, large: int) -> int:
    """Into how many parts a table is cut for so many workers."""
    if workers == 1 or table.bytes < large:
        return 1
    return min(workers * _RANGES_A_WORKER, max(4 * table.bytes // max(large, 1), 1))


_PREFIX: Final = "digest "


class _Digester:
    """One worker: a transaction that has the snapshot, and a session for the notes."""

    def __init__(self, context: RunContext, snapshot: Snapshot, notes: Connection, shared: Mapping[str, Any]) -> None:
        self._context = context
        self._snapshot = snapshot
        self._notes = notes
        self._schema = str(shared["schema"])
        self._known: Mapping[str, Sequence[str]] = shared["columns"]

    def work(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """Rows of the range; their digests are noted in the scratch schema."""
        name, number = claimed.partition.table, claimed.partition.number
        buckets = self._digest(name, claimed.partition.range, note)
        result = {"table": name, "digests": b64encode(buckets.to_bytes()).decode()}
        scratch.once(self._notes, self._schema, f"{_PREFIX}{name} {number}", lambda: result)
        return Count(done=buckets.total().count), {}

    def _digest(self, name: str, bounds: Mapping[str, Any], note: Note) -> BucketDigests:
        here = self._snapshot.tables[name]
        columns = [SendColumn(c.name, c.send) for c in here.columns if c.name in self._known.get(name, ())]
        key = [column for part in self._context.plan.table(name).key for column in columns if column.name == part]
        condition = ctid_condition(str(bounds["ctid_from"]), str(bounds["ctid_to"]))
        source = sql.SQL("(SELECT * FROM {}{})").format(here.identifier, condition)
        connection, query = self._snapshot.connection, bucket_sql(source, columns, key)

        def alive() -> None:
            self._context.check_stop()
            note(Count())

        self._context.check_stop()
        return while_noting(connection, alive, lambda: buckets_of(connection.execute(query).fetchall()))


@contextmanager
def _open(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    """A helper's."""
    with (
        join_snapshot(context.target, context.plan, str(shared["snapshot"])) as snapshot,
        context.target.session(bulk=True) as notes,
    ):
        yield _Digester(context, snapshot, notes, shared).work


STEP: Final = Step("digest", Phase.VERIFY, _open)
