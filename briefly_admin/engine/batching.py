"""A batch of one table as SQL: which rows it reaches, what the repairs make of them, and the one statement of both.

Names inside: `page` the next rows by key, `reach` the page and the rows of groups that it meets, `todo` the rows that
a repair changes, `edge` what the page comes to, k0, k1 … the key columns, v0, v1 … the repaired values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from psycopg import sql

from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.repairs import CompiledRepairs, changed, compile_repairs
from briefly_admin.plans.base import AggregateRepair, GroupedRepair, Plan, Repair, Table

_COMMA: Final = sql.SQL(", ")


def has_lookup(table: CatalogTable, column: str) -> bool:
    """Whether a valid, whole index begins with the column."""
    return any(index.valid and not index.partial and index.columns[:1] == (column,) for index in table.indexes)


def needed_lookups(plan: Plan, table: Table) -> list[tuple[str, str]]:
    """(table, column) pairs that the table's aggregates and groups look up by."""
    wanted = [(r.child, r.child_key) for r in table.repairs if isinstance(r, AggregateRepair)]
    wanted += [(table.name, r.group_by) for r in table.repairs if isinstance(r, GroupedRepair)]
    known = {each.name for each in plan.tables}
    return [pair for pair in dict.fromkeys(wanted) if pair[0] in known]


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys of a partition: beyond `after` and up to `to`, key columns as texts; None where there is no bound.

    `since`: where these are not keys but places of rows in the heap (ctid, as text), the transaction from which on new
    versions of rows need no look unless a repair would change them.
    """

    after: tuple[str, ...] | None = None
    to: tuple[str, ...] | None = None
    since: str = ""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "KeyRange":
        """The inverse of `to_json`."""
        after, to = (tuple(data[name]) if data.get(name) else None for name in ("after", "to"))
        return cls(after, to, str(data.get("since", "")))

    def to_json(self) -> dict[str, Any]:
        """`{"after": [texts] or null, "to": [texts] or null}`, and `"since": text` where it has one."""
        bounds = {"after": list(self.after) if self.after else None, "to": list(self.to) if self.to else None}
        return {**bounds, "since": self.since} if self.since else bounds


@dataclass(frozen=True)
class Work:
    """One table of a plan as the catalog knows it, with what its batches are made of.

    `by_place`: its batches follow the heap, not the key; see docs/decisions/0008-batches-by-place.md.
    """

    plan: Plan
    table: Table
    catalog: Mapping[str, CatalogTable]
    by_place: bool = False

    @cached_property
    def known(self) -> CatalogTable:
        """The table in the catalog."""
        return self.catalog[self.table.name]

    @cached_property
    def repairs(self) -> CompiledRepairs:
        """The repairs over `t`, reading of children and groups only what `reach` needs."""
        scope = sql.SQL("SELECT {} FROM reach").format(self.numbered("k"))
        return compile_repairs(self.plan, self.table, self.catalog, relation=self._near, alias="t", scope=scope)

    def _near(self, name: str) -> sql.Composable:
        """Of a child, or of the table itself, the rows near `reach`: by index, whatever the statistics say."""
        groups = [r for r in self.table.repairs if isinstance(r, GroupedRepair)]
        keys = {r.child_key for r in self.table.repairs if isinstance(r, AggregateRepair) and r.child == name}
        owners: sql.Composable = sql.SQL("SELECT k0 AS owner FROM reach")
        if name == self.table.name:
            keys |= {repair.group_by for repair in groups}
            owners = self._groups_met(groups[0]) if groups else owners
        if len(keys) != 1 or not has_lookup(self.catalog[name], min(keys)):
            return self.catalog[name].identifier
        # OFFSET 0 keeps the planner from turning the look-ups into a join that reads the whole table.
        return sql.SQL(
            "(SELECT n.* FROM ({}) AS o CROSS JOIN LATERAL (SELECT * FROM {} AS f WHERE f.{} = o.owner OFFSET 0) AS n)"
        ).format(owners, self.catalog[name].identifier, sql.Identifier(keys.pop()))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The repaired columns that the table has, in the order of v0, v1 …"""
        return tuple(name for name in self.repairs.values if self.known.column(name))

    def numbered(self, letter: str, alias: str = "") -> sql.Composed:
        """k0, k1 … or alias.k0, alias.k1 …"""
        names = [f"{letter}{number}" for number in range(len(self.table.key))]
        return _COMMA.join(sql.Identifier(alias, name) if alias else sql.Identifier(name) for name in names)

    def keys(self, alias: str) -> sql.Composed:
        """The key columns of an alias, for a comparison or an order."""
        return _COMMA.join(sql.Identifier(alias, name) for name in self.table.key)

    @property
    def _way(self) -> dict[str, str]:
        """What batches go along: the key columns, or the rows' places, each with its type."""
        return {"ctid": "tid"} if self.by_place else self._key_types

    @cached_property
    def _key_types(self) -> dict[str, str]:
        columns = {name: self.known.column(name) for name in self.table.key}
        return {name: column.type if column else "text" for name, column in columns.items()}

    @property
    def bounds(self) -> int:
        """How many values say where on the way a row is."""
        return len(self._way)

    def _on_way(self, alias: str) -> sql.Composed:
        return _COMMA.join(sql.Identifier(alias, name) for name in self._way)

    @property
    def _in_order(self) -> sql.Composable:
        """A scan of places gives them in their order; to sort them it would have to read the partition to its end."""
        return sql.SQL("") if self.by_place else sql.SQL("ORDER BY {}").format(self.keys("t"))

    def key_texts(self, alias: str) -> sql.Composed:
        """The key of an alias as text[]."""
        return sql.SQL("ARRAY[{}]").format(
            _COMMA.join(sql.SQL("{}::text").format(sql.Identifier(alias, name)) for name in self.table.key)
        )

    @cached_property
    def numbered_texts(self) -> sql.Composed:
        """k0, k1 … as text[]."""
        names = (sql.Identifier(f"k{number}") for number in range(len(self.table.key)))
        return sql.SQL("ARRAY[{}]").format(_COMMA.join(sql.SQL("{}::text").format(name) for name in names))

    @cached_property
    def last_of_page(self) -> sql.Composable:
        """Where the page ends on the way, as text[]; NULL for an empty page."""
        if self.by_place:
            return sql.SQL("(SELECT ARRAY[max(tid)::text] FROM page HAVING count(*) > 0)")
        order = _COMMA.join(sql.SQL("k{} DESC").format(sql.Literal(n)) for n in range(len(self.table.key)))
        return sql.SQL("(SELECT {} FROM page ORDER BY {} LIMIT 1)").format(self.numbered_texts, order)

    def after(self, bounds: Sequence[sql.Composable]) -> sql.Composed:
        """Rows beyond a key, given as one text expression a key column; compared by the server as the column's type."""
        return sql.SQL("({}) > ({})").format(self._on_way("t"), _typed(self._way, bounds))

    def among(self, keys: Sequence[Sequence[str]]) -> sql.Composed:
        """Rows with one of these keys, given as texts."""
        listed = _COMMA.join(
            sql.SQL("({})").format(_typed(self._key_types, [sql.Literal(k) for k in key])) for key in keys
        )
        return sql.SQL("({}) IN ({})").format(self.keys("t"), listed)

    def after_key(self, last: Sequence[str] | None) -> sql.Composable:
        """Rows beyond a key that was read, or all rows."""
        return self.after([sql.Literal(text) for text in last]) if last else sql.SQL("true")

    def up_to(self, last: Sequence[str] | None) -> sql.Composable:
        """Rows up to a key that was read, or all rows."""
        if not last:
            return sql.SQL("true")
        return sql.SQL("({}) <= ({})").format(
            self._on_way("t"), _typed(self._way, [sql.Literal(text) for text in last])
        )  # fmt: skip

    def between(self, last: Sequence[str] | None, keys: KeyRange) -> sql.Composable:
        """Rows of a partition beyond the key that was read last, or from its begin."""
        return sql.SQL("{} AND {}").format(self.after_key(last or keys.after), self.within(keys))

    def within(self, keys: KeyRange) -> sql.Composable:
        """Rows up to the partition's end; of places, but for the versions that the run's own batches left there."""
        if not keys.since:
            return self.up_to(keys.to)
        return sql.SQL("{} AND (age(t.xmin) >= age({}::xid) OR {})").format(
            self.up_to(keys.to), sql.Literal(keys.since), self.changes
        )

    @cached_property
    def by_row(self) -> bool:
        """Whether each repair is a function of its row alone."""
        return all(isinstance(repair, Repair) for repair in self.table.repairs)

    @cached_property
    def changes(self) -> sql.Composable:
        """Whether a repair changes the row `t`."""
        return changed(self.repairs.values, "t", self.known)

    def _value(self, name: str) -> sql.Composed:
        """The column's repaired value; the dead branch gives a bare literal the column's type."""
        return sql.SQL("CASE WHEN false THEN t.{} ELSE {} END").format(sql.Identifier(name), self.repairs.values[name])

    @cached_property
    def _numbered_keys(self) -> sql.Composed:
        """t.key AS k0, …"""
        return _COMMA.join(
            sql.SQL("t.{} AS k{}").format(sql.Identifier(name), sql.Literal(n)) for n, name in enumerate(self.table.key)
        )

    def marked_page(self, where: sql.Composable, limit: sql.Composable, left_alone: sql.Composable) -> sql.Composed:
        """The CTE `page` where repairs go by row: `meant` says which of its rows a repair changes."""
        return sql.SQL(
            "page AS MATERIALIZED (SELECT t.ctid AS tid, {}, ({} AND NOT {}) AS meant FROM {} AS t WHERE {} "
            "{} LIMIT {})"
        ).format(
            self._numbered_keys, self.changes, left_alone, self.known.identifier, where, self._in_order, limit
        )  # fmt: skip

    def page(self, where: sql.Composable, limit: int | sql.Composable) -> sql.Composed:
        """The CTEs `page` and `reach`; `where` is over `t`."""
        numbered = self._numbered_keys
        page = sql.SQL(
            "page AS MATERIALIZED (SELECT t.ctid AS tid, {} FROM {} AS t WHERE {} {} LIMIT {})"
        ).format(
            numbered, self.known.identifier, where, self._in_order,
            sql.Literal(limit) if isinstance(limit, int) else limit,
        )  # fmt: skip
        met = [self._group(r, numbered) for r in self.table.repairs if isinstance(r, GroupedRepair)]
        met = [each for each in met if each]
        mine = sql.SQL("SELECT tid, {} FROM page").format(self.numbered("k"))
        return sql.SQL("{}, reach AS MATERIALIZED ({})").format(page, sql.SQL(" UNION ").join([mine, *met]))

    def _group(self, repair: GroupedRepair, numbered: sql.Composable) -> sql.Composed:
        """The rows without a number of the groups of which the page has such a row."""
        barrier = sql.SQL("OFFSET 0" if has_lookup(self.known, repair.group_by) else "")
        return sql.SQL(
            "SELECT t.tid, {numbered} FROM ({owners}) AS o CROSS JOIN LATERAL (SELECT f.ctid AS tid, f.* "
            "FROM {table} AS f WHERE f.{group} = o.owner AND f.{column} IS NULL {barrier}) AS t"
        ).format(
            barrier=barrier,
            numbered=numbered, owners=self._groups_met(repair), table=self.known.identifier,
            column=sql.Identifier(repair.column), group=sql.Identifier(repair.group_by),
        )  # fmt: skip

    def _groups_met(self, repair: GroupedRepair) -> sql.Composed:
        return sql.SQL(
            "SELECT DISTINCT m.{} AS owner FROM page JOIN {} AS m ON m.ctid = page.tid WHERE m.{} IS NULL"
        ).format(sql.Identifier(repair.group_by), self.known.identifier, sql.Identifier(repair.column))

    @cached_property
    def numberless(self) -> sql.Composable | None:
        """Whether a group is still to give the row `t` a number; None where the plan numbers no rows."""
        columns = [r.column for r in self.table.repairs if isinstance(r, GroupedRepair) and r.column in self.columns]
        tests = [sql.SQL("{} IS NULL").format(sql.Identifier("t", column)) for column in columns]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(tests)) if tests else None

    def todo(self, left_alone: sql.Composable) -> sql.Composed:
        """The CTE `todo`; `left_alone` says over `t` which rows nobody may touch."""
        values = [sql.SQL("{} AS v{}").format(self._value(name), sql.Literal(n)) for n, name in enumerate(self.columns)]
        return sql.SQL(
            "todo AS MATERIALIZED (SELECT t.ctid AS tid, t.xmin AS version, {keys}, {values} FROM reach "
            "JOIN {table} AS t ON t.ctid = reach.tid {joins} WHERE {changed} AND NOT {left_alone})"
        ).format(
            keys=self.numbered("k", "reach"), values=_COMMA.join(values), table=self.known.identifier,
            joins=self.repairs.joins, changed=self.changes, left_alone=left_alone,
        )  # fmt: skip

    @cached_property
    def update(self) -> sql.Composed:
        """The UPDATE from `todo`: only rows that are still the version that the values were computed from."""
        sets = _COMMA.join(
            sql.SQL("{} = todo.v{}").format(sql.Identifier(name), sql.Literal(n)) for n, name in enumerate(self.columns)
        )
        return sql.SQL("UPDATE {} AS u SET {} FROM todo WHERE u.ctid = todo.tid AND u.xmin = todo.version").format(
            self.known.identifier, sets
        )

    def span(self, where: sql.Composable, limit: sql.Composable, left_alone: sql.Composable) -> sql.Composed:
        """The CTE `page` by place: it is read once, only to count its rows and to know where it ends."""
        return sql.SQL(
            "page AS (SELECT t.ctid AS tid, ({} AND NOT {}) AS meant FROM {} AS t WHERE {} LIMIT {})"
        ).format(self.changes, left_alone, self.known.identifier, where, limit)  # fmt: skip

    def update_span(self, where: sql.Composable, left_alone: sql.Composable) -> sql.Composed:
        """The UPDATE of the rows between the last batch and where `edge` ends, in the heap's order.

        `where` says where it begins. See `update_marked` for what becomes of rows that others change meanwhile.
        """
        return sql.SQL(
            "UPDATE {} AS t SET {} WHERE {} AND t.ctid <= (SELECT last[1]::tid FROM edge) AND {} AND NOT {}"
        ).format(self.known.identifier, self._sets, where, self.changes, left_alone)  # fmt: skip

    @cached_property
    def _sets(self) -> sql.Composed:
        return _COMMA.join(sql.SQL("{} = {}").format(sql.Identifier(name), self._value(name)) for name in self.columns)

    @cached_property
    def update_marked(self) -> sql.Composed:
        """The UPDATE of the rows that `marked_page` means, each fetched once, by its place and in the heap's order.

        Page and UPDATE have one snapshot, so the place still holds the version that was looked at. Where somebody else
        changed it since, the server passes the row over (fewer rows than meant), or, before its TID scans looked
        again, computes the repair anew from the newest version.
        """
        return sql.SQL(
            "UPDATE {} AS t SET {} WHERE t.ctid = ANY (ARRAY(SELECT tid FROM page WHERE meant)) AND {}"
        ).format(self.known.identifier, self._sets, self.changes)


def _typed(types: Mapping[str, str], texts: Sequence[sql.Composable]) -> sql.Composed:
    """The texts as values of these types, the catalog's own words."""
    return _COMMA.join(
        sql.SQL("{}::{}").format(text, sql.SQL(type_)) for text, type_ in zip(texts, types.values(), strict=True)
    )


def quarantined(run_id: UUID, work: Work) -> sql.Composed:
    """Whether the row `t` is in the target's quarantine.

    Scalar subqueries: whether the table has any row there is asked once, and of single rows only where it has.
    """
    here = sql.SQL('q.run_id = {} AND q."table" = {}').format(sql.Literal(run_id), sql.Literal(work.table.name))
    return sql.SQL(
        "((SELECT EXISTS (SELECT FROM briefly_migration.quarantine AS q WHERE {here})) AND "
        "(SELECT count(*) FROM briefly_migration.quarantine AS q WHERE {here} AND q.key = {key}) > 0)"
    ).format(here=here, key=work.key_texts("t"))


def here(run_id: UUID, table: str, partition: int) -> sql.Composed:
    """The partition's row of briefly_migration.checkpoint AS c."""
    return sql.SQL('c.run_id = {} AND c."table" = {} AND c.partition = {}').format(
        sql.Literal(run_id), sql.Literal(table), sql.Literal(partition)
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """Who works on a partition: the numbers that every batch must still find in the target."""

    run_id: UUID
    attempt: int
    table: str
    partition: int
    claim: int
