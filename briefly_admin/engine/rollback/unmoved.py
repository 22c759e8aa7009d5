"""What the preview of a rollback found out about a table, and the proof under its lock that it holds still.

Comparing and digesting whole tables takes seconds a million rows. Done before the lock is taken, in the preview's
snapshot, they keep no writer waiting; under the lock, one look at the rows' transactions shows whether anything moved.

Nothing did where the table's file and columns are the same, as many rows are there, and no row was written by a
transaction that the snapshot did not yet know to be over: then every row is the one that the snapshot saw, in its
place. Transactions are compared by age, as VACUUM does; a row so old that its number has come round looks new, and
the table is compared anew. Decision 0016.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

from psycopg import sql

from briefly_admin.domain.digest import TableDigest
from briefly_admin.engine import scratch
from briefly_admin.engine.rollback.difference import Counts, Difference
from briefly_admin.engine.rollback.selection import Pair
from briefly_admin.engine.rollback.writing import digest as digest_rows
from briefly_admin.engine.rollback.writing import digest_beside
from briefly_admin.engine.target import Connection

_NOTE: Final = "seen"
"""A part of the scratch schema: a crash of the server that empties the differences takes it along."""
_IDENTITY: Final = """
SELECT jsonb_build_array(c.oid::bigint, pg_relation_filenode(c.oid)::bigint, jsonb_agg(
    jsonb_build_array(a.attname, a.attnum, a.atttypid::bigint, a.atttypmod, a.attcollation::bigint) ORDER BY a.attnum)),
  bool_and(t.typtype = 'b' AND coalesce(e.typtype, 'b') = 'b' AND a.attgenerated <> 'v') AND count(*) = %(wanted)s
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = ANY (%(columns)s)
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typelem <> 0
WHERE c.oid = %(table)s AND a.attnum > 0 AND NOT a.attisdropped GROUP BY c.oid
"""
"""And whether values change with their row alone: an enum's label, a virtual column's expression do so without."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A table in the preview's snapshot: its difference, and the digest of the rows that are not in it."""

    identity: Any
    """Its file and columns in the catalog, as JSON."""
    relation: int
    """The difference's oid."""
    horizon: int
    """The full number of the oldest transaction that was still under way, or to come."""
    counts: Counts
    columns: tuple[str, ...]
    """Those in which any row to be updated differs."""
    rest: TableDigest | None
    """Where it was asked for."""

    @property
    def rows(self) -> int:
        """Of the table."""
        return self.counts.same + self.counts.update + self.counts.delete

    def to_json(self) -> dict[str, Any]:
        """As the scratch schema has it."""
        return {
            "identity": self.identity, "relation": self.relation, "horizon": self.horizon,
            "counts": self.counts.to_json(), "columns": list(self.columns), "rest": self.rest and str(self.rest),
        }  # fmt: skip

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """The inverse."""
        rest = TableDigest.parse(found["rest"]) if found["rest"] else None
        counts, columns = Counts(**found["counts"]), tuple(found["columns"])
        return cls(found["identity"], found["relation"], found["horizon"], counts, columns, rest)


def note(connection: Connection, schema: str, found: Iterable[Difference], *, digests: bool) -> None:
    """Look at the tables in the snapshot in which their differences were made, and note it in the scratch schema."""
    looks = ((each.pair.name, _look(connection, each, digests=digests)) for each in found)
    seen = {name: look.to_json() for name, look in looks if look is not None}
    scratch.unmark(connection, schema, _NOTE, table=scratch.PARTS)
    scratch.mark(connection, schema, _NOTE, seen, table=scratch.PARTS)


def noted(connection: Connection, schema: str) -> dict[str, Seen]:
    """What `note` noted, by the plan's names of the tables; nothing where the server crashed meanwhile."""
    found = scratch.marked(connection, schema, _NOTE, table=scratch.PARTS) or {}
    return {name: Seen.from_json(each) for name, each in found.items()}


def still(connection: Connection, pair: Pair, seen: Seen) -> bool:
    """Whether the table is, row by row, the one that was seen; it must be locked, and not written by us yet."""
    # A leader that was believed dead may have looked again meanwhile: its note goes with its own difference.
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(pair.difference))
    if _relation(connection, pair) != seen.relation or _identity(connection, pair) != seen.identity:
        return False
    query = sql.SQL("SELECT count(*) FILTER (WHERE {older}), count(*) FROM ONLY {table} AS now").format(
        older=_older(sql.Literal(seen.horizon)), table=pair.current.identifier
    )
    return connection.execute(query).fetchone() == (seen.rows, seen.rows)


def digest(connection: Connection, pair: Pair, seen: Seen) -> TableDigest | None:
    """The digest of the table after this transaction wrote to it: of the rows that it left, and of those it wrote.

    None where others than the rows of the difference are gone, or not all of them: the parts would not add up.
    """
    if seen.rest is None:
        return None
    written, left = digest_beside(connection, pair, sql.SQL("NOT {}").format(_older(_MINE)))
    return seen.rest + written if left == seen.rest.count else None


_MINE: Final = sql.SQL("pg_catalog.pg_current_xact_id()")
"""Those of its savepoints are greater; nobody else writes to a locked table."""


def _look(connection: Connection, found: Difference, *, digests: bool) -> Seen | None:
    identity = _identity(connection, found.pair)
    if identity is None:
        return None
    row = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").fetchone()
    assert row is not None
    same = sql.SQL("NOT EXISTS (SELECT FROM {} AS d WHERE d.here = now.ctid)").format(found.pair.difference)
    rest = digest_rows(connection, found.pair, same) if digests else None
    return Seen(identity, _relation(connection, found.pair), int(row[0]), found.counts, found.columns, rest)


def _relation(connection: Connection, pair: Pair) -> int:
    name = sql.Literal(pair.difference.as_string(connection))
    row = connection.execute(sql.SQL("SELECT {}::regclass::oid::bigint").format(name)).fetchone()
    assert row is not None
    return int(row[0])


def _identity(connection: Connection, pair: Pair) -> Any:
    """None where the table could change without its rows, or lacks a column of the backup for now."""
    columns = [column.name for column in pair.staged.columns]
    row = connection.execute(
        _IDENTITY, {"columns": columns, "wanted": len(columns), "table": pair.current.oid}
    ).fetchone()
    return row[0] if row and row[1] else None


def _older(bound: sql.Composable) -> sql.Composable:
    """Whether `now` was written before the transaction of that full number; false where that cannot be told."""
    query = "pg_catalog.age(now.xmin) > (SELECT pg_catalog.age({}::text::pg_catalog.xid8::pg_catalog.xid))"
    return sql.SQL(query).format(bound)
