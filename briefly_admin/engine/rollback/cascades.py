"""Which rows a rollback's writes would touch beyond its tables, followed as PostgreSQL's foreign keys act.

The tables' rows are deleted one table after the other, then updated. Each statement is a wave: it takes or changes rows
of other tables, which are the next wave, until nothing new comes. Steps count the waves: PostgreSQL works through its
events in that order, so what has gone by a step cannot stand against a row that goes in it or later.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.rollback import holding, links
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.rollback.holding import Rows
from briefly_admin.engine.rollback.links import Link
from briefly_admin.engine.target import Connection, safe_message

DELETE, UPDATE, BLOCK = "d", "u", "b"
"""What happens to a row: it goes, it changes, or it stands against the rollback."""
_LAST: Final = 2**60
"""The step of rows that stand against it: they are no wave."""
_ALWAYS: Final = sql.SQL("true")
_PLACE: Final = """
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {}::regclass
"""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a foreign key does to rows that refer to rows of `of`, when those go or (`cause` UPDATE) change."""

    link: Link
    of: str
    cause: str
    own: int = 0
    """The rows are those of this table (an OID) of the rollback itself."""

    @property
    def action(self) -> str:
        """ON DELETE's or ON UPDATE's, a key of links.ACTIONS."""
        return self.link.on_delete if self.cause == DELETE else self.link.on_update

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it changes, where it changes any."""
        return self.link.columns if self.cause == UPDATE or self.action == "c" else self.link.sets

    @property
    def event(self) -> str:
        """What happens to the rows."""
        if self.own or self.action in "ar":
            return BLOCK
        return DELETE if self.cause == DELETE and self.action == "c" else UPDATE


@dataclass(slots=True)
class Cascades:
    """One walk over all consequences; `count` it once, within a transaction: its relation is made and dropped there."""

    connection: Connection
    differences: Sequence[Difference]
    without: Collection[tuple[str, str]]
    lock: bool
    effects: list[Effect] = field(default_factory=list)
    """Their places are the numbers in the relation."""
    reached: sql.Identifier | None = None
    """The relation (effect, rel, tid, event, action, step); None while nothing was reached."""
    _waiting: dict[tuple[Effect, tuple[int, ...]], Rows] = field(default_factory=dict)
    _first: dict[int, int] = field(default_factory=dict)
    _lineage: dict[int, frozenset[int]] = field(default_factory=dict)

    def walk(self) -> None:
        """Follow everything. Raises Refused where a table must not be read or held."""
        for difference in self.differences:
            self._lineage[self._oid(difference)] = links.lineage(self.connection, self._oid(difference))
        step = 0
        for difference in reversed(self.differences):
            self._first[self._oid(difference)] = step
            if difference.counts.delete:
                self._begin(difference, DELETE, step)
                step = self._spread(step + 1)
        for difference in self.differences:
            if difference.columns and difference.counts.update:
                self._begin(difference, UPDATE, step)
                step = self._spread(step + 1)
        for (effect, _), rows in self._waiting.items():
            self._stand_against(effect, rows)

    @property
    def own(self) -> list[int]:
        """The OIDs of the rollback's tables."""
        return [self._oid(difference) for difference in self.differences]

    def inner(self, oid: int) -> bool:
        """Whether it is a table of the rollback, or one that such a table is a partition of."""
        return any(oid in lineage for lineage in self._lineage.values())

    def going(self, link: Link) -> bool:
        """Whether the rollback itself takes the foreign key, or a column of it, away first."""
        names = {link.name, *self._foreign(link)}
        return any((label, name) in self.without for label in (link.child[1], ".".join(link.child)) for name in names)

    def _foreign(self, link: Link) -> set[str]:
        """Columns of it that the backup does not have of that table of the rollback: they do not come back."""
        for difference in self.differences:
            if self._oid(difference) == link.child_oid:
                return set(link.columns) - {column.name for column in difference.pair.staged.columns}
        return set()

    def of(self, difference: Difference) -> tuple[Link, ...]:
        """The foreign keys that the table's rows are held to, and that stay."""
        found = links.of(self.connection, sorted(self._lineage[self._oid(difference)]))
        return tuple(link for link in found if not self.going(link))

    def run(self, link: Link, query: sql.Composable) -> int:
        """The statement's one figure, or its row count. Raises Refused where the tables must not be read or held."""
        try:
            cursor = self.connection.execute(sql.Composed([query]))
        except psycopg.errors.InsufficientPrivilege as error:
            raise Refused(
                f"The foreign key {link.name} of {'.'.join(link.child)} onto {'.'.join(link.parent)} cannot be followed"
                f" ({safe_message(error)}).",
                remedy="GRANT SELECT and UPDATE (rows are held while they are counted) on both tables to the role of"
                " TARGET_DATABASE_URL, free of row-level security.",
            ) from None
        row = cursor.fetchone() if cursor.description else (cursor.rowcount,)
        return int(row[0]) if row else 0

    def _oid(self, difference: Difference) -> int:
        return difference.pair.current.oid

    def _begin(self, difference: Difference, cause: str, step: int) -> None:
        """The first wave of a statement on one of the rollback's tables.

        Keys between those are no matter of ours: what they hold comes back, but in columns that the backup has not.
        """
        keys = set(difference.pair.staged.manifest.key)
        held = False
        for link in links.onto(self.connection, sorted(self._lineage[self._oid(difference)])):
            changed = set(link.references) & set(difference.columns) - keys
            inner = link.child_oid in self.own
            if (inner and not self._foreign(link)) or self.going(link) or (cause == UPDATE and not changed):
                continue
            rows = holding.changed(difference, link, step) if cause == UPDATE else holding.deleted(difference, step)
            if inner:
                self._wait(Effect(link, difference.pair.name, cause, own=link.child_oid), rows, ())
                continue
            if self.lock and not (held and cause == DELETE):
                self.run(link, holding.hold(rows))
                held = True
            self._follow(Effect(link, difference.pair.name, cause), rows, ())

    def _spread(self, step: int) -> int:
        """Follow what the waves from this step on have reached; the step after the last one."""
        while self.reached is not None and (found := self._wave(self.reached, step)):
            for cause, numbers, relations in found:
                columns = {column for number in numbers for column in self.effects[number].columns}
                for link in links.onto(self.connection, sorted(relations)):
                    if self.going(link) or (cause == UPDATE and not columns & set(link.references)):
                        continue
                    effect = Effect(link, ".".join(link.parent), cause)
                    rows = holding.reached(self.reached, link, cause, numbers, step)
                    self._come_back(effect, rows, numbers)
                    self._follow(effect, rows, numbers)
            step += 1
        return step

    def _wave(self, reached: sql.Identifier, step: int) -> list[tuple[str, tuple[int, ...], set[int]]]:
        """(event, effects, OIDs of tables) of a step's rows: all that go (no effects), and by effect those changed."""
        query = sql.SQL("SELECT DISTINCT event, effect, rel::bigint FROM {} WHERE step = {}")
        rows = self.connection.execute(query.format(reached, sql.Literal(step))).fetchall()
        waves: dict[tuple[str, tuple[int, ...]], set[int]] = {}
        for event, number, oid in rows:
            of = waves.setdefault((event, () if event == DELETE else (number,)), set())
            of |= links.lineage(self.connection, oid)
        return [(event, numbers, oids) for (event, numbers), oids in waves.items()]

    def _follow(self, effect: Effect, rows: Rows, numbers: tuple[int, ...]) -> None:
        """Reach the rows that refer to those; what stands against the rollback is looked at in the end."""
        if effect.event == BLOCK:
            self._wait(effect, rows, numbers)
            return
        reached = self._relation()
        outer = holding.not_gone(reached, "o")
        if effect.event == UPDATE:
            outer += sql.SQL(" AND ") + holding.not_by(reached, self._number(effect))
        if self._reach(effect, rows, rows.next_step, outer) and not self.lock:
            self._require_holding(effect.link)

    def _wait(self, effect: Effect, rows: Rows, numbers: tuple[int, ...]) -> None:
        if rows.of is None and self.reached is not None:
            rows = holding.reached(self.reached, effect.link, effect.cause, numbers, None)
        self._waiting.setdefault((effect, numbers), rows)

    def _come_back(self, effect: Effect, rows: Rows, numbers: tuple[int, ...]) -> None:
        """Outside rows that go may be referred to by rows of the rollback's tables."""
        for oid, lineage in self._lineage.items():
            if effect.link.child_oid in lineage:
                self._wait(replace(effect, own=oid), rows, numbers)

    def _stand_against(self, effect: Effect, rows: Rows) -> None:
        """Count the rows that refuse, now that all that goes is known."""
        link = effect.link
        final = effect.action == "a" and (link.deferrable or effect.cause == UPDATE)
        outer: sql.Composable = _ALWAYS
        inner: sql.Composable = _ALWAYS
        if effect.own:
            own = next(each for each in self.differences if self._oid(each) == effect.own)
            first = self._first[effect.own] if rows.of is None else None
            inner = holding.stays(own, link, first, rows, final=final)
        elif self.reached is not None:
            inner = holding.not_gone(self.reached, "o", None if final else rows.step)
        if final and rows.of is not None:
            outer = holding.nobody_else(rows.of, link)
        self._reach(effect, rows, _LAST, outer, inner)

    def _reach(
        self, effect: Effect, rows: Rows, step: int, outer: sql.Composable, inner: sql.Composable = _ALWAYS
    ) -> int:
        """Note the outside (or own) rows that refer to `rows`; how many."""
        link = effect.link
        mine = sql.SQL("o.tableoid <> ALL ({}::oid[])").format(sql.Literal(self.own))
        if effect.own:
            mine = sql.SQL("o.tableoid = {}::oid").format(sql.Literal(effect.own))
        hold = self.lock and effect.event != BLOCK
        query = sql.SQL(
            "INSERT INTO {reached} SELECT {number}, o.tableoid, o.ctid, {event}, {action}, {step} FROM {child} AS o"
            " WHERE {mine} AND {outer} AND EXISTS (SELECT FROM {rows} AND {refers} AND {inner}){hold}"
        ).format(
            reached=self._relation(), number=sql.Literal(self._number(effect)), event=sql.Literal(effect.event),
            action=sql.Literal(effect.action), step=sql.Literal(step), child=link.child_source, mine=mine, outer=outer,
            rows=rows.source, refers=holding.refers(link), inner=inner,
            hold=sql.SQL(" FOR UPDATE OF o" if hold else ""),
        )  # fmt: skip
        return self.run(link, query)

    def _require_holding(self, link: Link) -> None:
        """A preview holds nothing, but says at once what the rollback could not hold."""
        query = sql.SQL("SELECT has_table_privilege({}::oid, 'UPDATE')::int").format(sql.Literal(link.child_oid))
        if not self.run(link, query):
            raise Refused(
                f"The rows of {'.'.join(link.child)} cannot be held while a rollback counts and takes them: the role"
                " may not UPDATE that table.",
                remedy="GRANT UPDATE on it to the role of TARGET_DATABASE_URL.",
            )

    def _number(self, effect: Effect) -> int:
        if effect not in self.effects:
            self.effects.append(effect)
        return self.effects.index(effect)

    def _relation(self) -> sql.Identifier:
        """The relation, beside the difference's own."""
        if self.reached is None:
            place = sql.Literal(self.differences[0].pair.difference.as_string(self.connection))
            row = self.connection.execute(sql.SQL(_PLACE).format(place)).fetchone()
            assert row is not None
            self.reached = sql.Identifier(row[0], "reached")
            self.connection.execute(
                sql.SQL(
                    "CREATE UNLOGGED TABLE {} (effect int, rel oid, tid tid, event text, action text, step bigint)"
                    " WITH (autovacuum_enabled = off)"
                ).format(self.reached)
            )
            self.connection.execute(sql.SQL("CREATE INDEX ON {} (tid, rel)").format(self.reached))
        return self.reached
