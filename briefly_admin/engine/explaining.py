"""Which rows are not repair(before), found by joins of the staged rows with the current ones, shared among workers.

A large table is cut into ranges of its key's first column; comparisons are PostgreSQL's. A table whose repairs read
other rows stays whole: each range would compute them all again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from heapq import merge, nsmallest
from itertools import islice
from typing import Any, Final

from psycopg import sql

from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionView
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.before import read_tables
from briefly_admin.engine.catalog import CatalogColumn
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.digesting import LARGE, cuts
from briefly_admin.engine.expected import as_it_was, expected, image
from briefly_admin.engine.noting import while_noting
from briefly_admin.engine.repairs import compile_repairs
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, share
from briefly_admin.engine.staged import StagedTable
from briefly_admin.engine.tally import Tally
from briefly_admin.engine.target import Connection, server_cursor
from briefly_admin.plans.base import Repair, Table
from briefly_admin.vault.digest import SendColumn, row_bytes_sql

SAMPLES: Final = 20
_CHUNK: Final = 2000


@dataclass
class Unexplained:
    """Rows of a table that are not repair(before), by what happened to them: created, deleted, edited."""

    others: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    """{"key", "what"} of the rows whose keys come first as texts, however many workers there were."""

    def __add__(self, other: "Unexplained") -> "Unexplained":
        kinds = [*self.others, *(kind for kind in other.others if kind not in self.others)]
        others = {kind: self.others.get(kind, 0) + other.others.get(kind, 0) for kind in kinds}
        return Unexplained(others, list(islice(merge(self.samples, other.samples, key=_order), SAMPLES)))


def explain(
    context: RunContext, schema: str, staged: Sequence[StagedTable], suspects: Sequence[Table],
    known: Mapping[str, Sequence[str]], written: Mapping[str, Sequence[str]], *, large: int = LARGE,
) -> dict[str, Unexplained]:  # fmt: skip
    """Suspect table → its rows that this run does not explain.

    `staged`: the suspects and the children that their repairs read. `known`: table → columns that it had before;
    `written`: table → columns that triggers write, which do not count. Raises Stopped, Fenced, psycopg.Error.
    """
    names = {each.manifest.name: each.relation for each in staged}
    shared = {"schema": schema, "staged": names, "columns": dict(known), "written": dict(written)}
    rows = {each.manifest.name: each.manifest.rows for each in staged}
    with context.target.session(bulk=True) as connection:
        tables = read_tables(connection, context.plan)
        parts = [
            Partition(table.name, number, bounds)
            for table in suspects
            for number, bounds in enumerate(
                _ranges(connection, table, sql.Identifier(schema, names[table.name]), rows[table.name],
                        cuts(tables[table.name], context.config.workers, large))
            )
        ]  # fmt: skip
    totals = {table.name: rows[table.name] for table in suspects}
    views = share(context, STEP, parts, shared, show=Tally(context, Phase.VERIFY, totals))
    return _gathered(views, totals)


def _gathered(views: Sequence[PartitionView], tables: Mapping[str, int]) -> dict[str, Unexplained]:
    found = {name: Unexplained() for name in tables}
    for view in views:
        name = view.partition.table
        found[name] += Unexplained(dict(view.result["others"]), list(view.result["samples"]))
    return found


def _ranges(
    connection: Connection, table: Table, staged: sql.Identifier, rows: int, count: int
) -> list[dict[str, Any]]:
    """Ranges (above, up to] of the key's first column, as texts; None where there is no bound."""
    bounds: list[str] = []
    if count > 1 and rows > count and all(isinstance(repair, Repair) for repair in table.repairs):
        key = sql.Identifier(table.key[0])
        query = sql.SQL(
            "SELECT {key}::text FROM (SELECT {key}, row_number() OVER (ORDER BY {key}) AS place FROM {staged}) AS t "
            "WHERE place % {size} = 0 AND place < {rows} ORDER BY place"
        ).format(key=key, staged=staged, size=sql.Literal(-(-rows // count)), rows=sql.Literal(rows))
        bounds = list(dict.fromkeys(text for (text,) in connection.execute(query).fetchall()))
    low, high = [None, *bounds], [*bounds, None]
    share_of = rows // len(low)
    return [
        {"above": above, "up_to": up_to, "rows": share_of if up_to is not None else rows - share_of * len(bounds)}
        for above, up_to in zip(low, high, strict=True)
    ]


class _Explainer:
    """One worker: a session, and the catalog as the tables were before."""

    def __init__(self, context: RunContext, connection: Connection, shared: Mapping[str, Any]) -> None:
        self._context = context
        self._connection = connection
        schema = str(shared["schema"])
        self._relations = {name: sql.Identifier(schema, relation) for name, relation in shared["staged"].items()}
        self._written: Mapping[str, Sequence[str]] = shared["written"]
        known = shared["columns"]
        self._tables = {
            name: replace(table, columns=tuple(c for c in table.columns if c.name in known.get(name, ())))
            for name, table in read_tables(connection, context.plan).items()
        }
        self._staged = {
            name: as_it_was(relation, self._tables[name].columns) for name, relation in self._relations.items()
        }

    def work(self, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        """`{"others", "samples"}` of the range."""

        def alive() -> None:
            self._context.check_stop()
            note(Count())

        table, bounds = self._context.plan.table(claimed.partition.table), claimed.partition.range
        alone = {row.key for row in self._context.journal.quarantined(table.name)}
        self._context.check_stop()
        found = while_noting(self._connection, alive, lambda: self._compare(table, bounds, alone))
        return Count(done=int(bounds["rows"])), {"others": found.others, "samples": found.samples}

    def _compare(self, table: Table, bounds: Mapping[str, Any], alone: set[tuple[str, ...]]) -> Unexplained:
        found = Unexplained()
        with self._connection.transaction(), server_cursor(self._connection, "unexplained", chunk=_CHUNK) as cursor:
            # One session joins whole tables; and all of the answer is wanted, not its first rows soon.
            self._connection.execute("SET LOCAL work_mem TO '32MB'")
            self._connection.execute("SET LOCAL cursor_tuple_fraction TO 1")
            for kind, untouched, key in cursor.execute(self._query(table, bounds, alone=bool(alone))):
                if untouched and tuple(key) in alone:
                    continue
                found.others[kind] = found.others.get(kind, 0) + 1
                found.samples.append({"key": ", ".join(key), "what": kind})
                if len(found.samples) > _CHUNK:
                    found.samples = nsmallest(SAMPLES, found.samples, key=_order)
        found.samples = nsmallest(SAMPLES, found.samples, key=_order)
        return found

    def _query(self, table: Table, bounds: Mapping[str, Any], *, alone: bool) -> sql.Composed:
        here = self._tables[table.name]
        skipped = set(self._written.get(table.name, ())) - set(table.key)
        columns = [c for c in here.columns if c.name not in skipped and c.generated != "v"]
        repairs = compile_repairs(self._context.plan, table, self._tables, relation=lambda name: self._staged[name])
        then = [SendColumn(f"e{place}", c.send) for place, c in enumerate(columns)]
        now = [SendColumn(c.name, c.send) for c in columns]
        keys = [(then[[c.name for c in columns].index(name)].name, name) for name in table.key]
        before = sql.SQL(", sha256({}) AS before").format(row_bytes_sql(now, "t")) if alone else sql.SQL("")
        untouched = sql.SQL("e.before = sha256({})").format(row_bytes_sql(now, "c")) if alone else sql.SQL("false")
        return _UNEXPLAINED.format(
            expected=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(expected(repairs, column), sql.Identifier(each.name))
                for column, each in zip(columns, then, strict=True)
            ),
            before=before, untouched=untouched, staged=self._staged[table.name], joins=repairs.joins,
            table=here.identifier, e_range=_range("t", table.key[0], bounds), c_range=_range("c", table.key[0], bounds),
            match=_each("e.{0} = c.{1}", keys, " AND "), e_first=sql.Identifier("e", keys[0][0]),
            c_first=sql.Identifier("c", keys[0][1]), key_texts=_each("coalesce(e.{0}::text, c.{1}::text)", keys),
            differs=self._differs(table.name, columns, then, now),
        )  # fmt: skip

    def _differs(
        self, name: str, columns: Sequence[CatalogColumn], then: Sequence[SendColumn], now: Sequence[SendColumn]
    ) -> sql.Composable:
        """Whether the rows' bytes differ; equal images, which are cheaper to compare, are equal bytes."""
        bytes_differ = sql.SQL("{} <> {}").format(row_bytes_sql(then, "e"), row_bytes_sql(now, "c"))
        if not self._same_types(name, columns):
            return bytes_differ
        images = sql.SQL("NOT ({} OPERATOR(pg_catalog.*=) {})").format(image(then, "e"), image(now, "c"))
        return sql.SQL("{} AND {}").format(images, bytes_differ)

    def _same_types(self, name: str, columns: Sequence[CatalogColumn]) -> bool:
        """Images of rows of different types cannot be compared."""
        rows = self._connection.execute(
            "SELECT attname, atttypid::int8 FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0",
            (self._relations[name].as_string(self._connection),),
        ).fetchall()
        types: dict[str, int] = dict(rows)
        return all(types.get(column.name) == column.type_oid for column in columns if column.send)


_UNEXPLAINED: Final = sql.SQL(
    "SELECT CASE WHEN {c_first} IS NULL THEN 'deleted' WHEN {e_first} IS NULL THEN 'created' ELSE 'edited' END, "
    "coalesce({untouched}, false), ARRAY[{key_texts}] "
    "FROM (SELECT {expected}{before} FROM {staged} AS t {joins}{e_range}) AS e "
    "FULL JOIN (SELECT * FROM ONLY {table} AS c{c_range}) AS c ON {match} "
    "WHERE {c_first} IS NULL OR {e_first} IS NULL OR ({differs})"
)


def _order(sample: Mapping[str, Any]) -> str:
    return str(sample["key"])


def _range(alias: str, column: str, bounds: Mapping[str, Any]) -> sql.Composable:
    name = sql.Identifier(alias, column)
    tests: list[sql.Composable] = []
    if bounds["above"] is not None:
        tests.append(sql.SQL("{} > {}").format(name, sql.Literal(str(bounds["above"]))))
    if bounds["up_to"] is not None:
        tests.append(sql.SQL("{} <= {}").format(name, sql.Literal(str(bounds["up_to"]))))
    return sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(tests)) if tests else sql.SQL("")


def _each(form: str, pairs: Sequence[tuple[str, str]], between: str = ", ") -> sql.Composable:
    return sql.SQL(between).join(sql.SQL(form).format(*map(sql.Identifier, pair)) for pair in pairs)


@contextmanager
def _open(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
    with context.target.session(bulk=True) as connection:
        yield _Explainer(context, connection, shared).work


STEP: Final = Step("diff", Phase.VERIFY, _open)
