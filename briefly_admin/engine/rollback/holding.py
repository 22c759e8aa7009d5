"""Rows that go or change, and the conditions under which others that refer to them are touched: as SQL.

In all of it `p` is a row that goes or changes, `o` one that refers to it, `d` the difference, `was` the staged row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from briefly_admin.engine.rollback.difference import THEN, Difference, value
from briefly_admin.engine.rollback.links import Link


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that go or change."""

    source: sql.Composable
    """What stands behind FROM, with its WHERE."""
    step: sql.Composable
    """When they go: an expression over `source`."""
    next_step: int
    of: Difference | None = None
    """The rollback's table that they are rows of; None: they are outside rows."""


def deleted(difference: Difference, step: int) -> Rows:
    """The table's rows that the rollback deletes."""
    return _rows(difference, sql.SQL("WHERE d.there IS NULL"), step)


def changed(difference: Difference, link: Link, step: int) -> Rows:
    """The table's rows whose referenced values the rollback changes; bytes decide, as for the foreign key's trigger."""
    differs = sql.SQL("JOIN {} AS was ON was.ctid = d.there WHERE {}").format(
        difference.pair.staged.identifier, differ(difference, link.references, "p")
    )
    return _rows(difference, differs, step)


def _rows(difference: Difference, rest: sql.Composable, step: int) -> Rows:
    pair = difference.pair
    source = sql.SQL("{} AS d JOIN ONLY {} AS p ON p.ctid = d.here {}")
    return Rows(
        source.format(pair.difference, pair.current.identifier, rest), sql.Literal(step), step + 1, of=difference
    )


def reached(relation: sql.Identifier, link: Link, event: str, numbers: Sequence[int], step: int | None) -> Rows:
    """Outside rows that go or change, by these effects (none: by any), in that step (None: in any)."""
    wanted: sql.Composable = sql.SQL("e.event = {}").format(sql.Literal(event))
    if numbers:
        wanted = sql.SQL("{} AND e.effect = ANY ({}::int[])").format(wanted, sql.Literal(list(numbers)))
    if step is not None:
        wanted = sql.SQL("{} AND e.step = {}").format(wanted, sql.Literal(step))
    source = sql.SQL("{} AS e JOIN {} AS p ON p.tableoid = e.rel AND p.ctid = e.tid WHERE {}")
    return Rows(source.format(relation, link.parent_source, wanted), sql.SQL("e.step"), (step or 0) + 1)


def hold(rows: Rows) -> sql.Composed:
    """Hold them, so that nobody can refer to them any more."""
    return sql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} FOR UPDATE OF p) AS held").format(rows.source)


def refers(link: Link) -> sql.Composable:
    """`o` refers to `p`."""
    return link.matches(columns("p", link.references), columns("o", link.columns))


def columns(alias: str, names: Sequence[str]) -> list[sql.Identifier]:
    """The columns of that alias."""
    return [sql.Identifier(alias, name) for name in names]


def not_gone(relation: sql.Identifier, alias: str, until: sql.Composable | None = None) -> sql.Composed:
    """The row does not go, or not until that step."""
    gone = sql.SQL("SELECT FROM {} AS g WHERE g.rel = {}.tableoid AND g.tid = {}.ctid AND g.event = 'd'").format(
        relation, sql.Identifier(alias), sql.Identifier(alias)
    )
    if until is not None:
        gone = sql.SQL("{} AND g.step <= {}").format(gone, until)
    return sql.SQL("NOT EXISTS ({})").format(gone)


def not_by(relation: sql.Identifier, number: int) -> sql.Composed:
    """`o` was not reached by this very effect."""
    query = "NOT EXISTS (SELECT FROM {} AS g WHERE g.rel = o.tableoid AND g.tid = o.ctid AND g.effect = {})"
    return sql.SQL(query).format(relation, sql.Literal(number))


def stays(difference: Difference, link: Link, first: int | None, rows: Rows, *, final: bool) -> sql.Composed:
    """`o`, a row of the rollback's own table, has not been deleted when `rows` go; `final`: nor points elsewhere then.

    `first`: the step of the table's own deletion; None: it does not matter when that is.
    """
    pair = difference.pair
    gone: sql.Composable = sql.SQL("mine.there IS NULL")
    if final:
        gone = sql.SQL("({} OR {})").format(gone, differ(difference, link.columns, "o"))
    elif first is not None:
        gone = sql.SQL("{} AND {} <= {}").format(gone, sql.Literal(first), rows.step)
    return sql.SQL(
        "NOT EXISTS (SELECT FROM {} AS mine LEFT JOIN {} AS was ON was.ctid = mine.there"
        " WHERE mine.here = o.ctid AND {})"
    ).format(pair.difference, pair.staged.identifier, gone)


def nobody_else(difference: Difference, link: Link) -> sql.Composed:
    """No row of the table holds, after the rollback, what `o` refers to."""
    pair = difference.pair
    names = {column.name for column in pair.staged.columns}
    mine = columns("o", link.columns)
    none = sql.SQL(
        "NOT EXISTS (SELECT FROM ONLY {} AS k WHERE {} AND NOT EXISTS (SELECT FROM {} AS d WHERE d.here = k.ctid))"
    ).format(pair.current.identifier, link.matches(columns("k", link.references), mine), pair.difference)
    if set(link.references) <= names:
        then = [restored(difference, name) for name in link.references]
        none += sql.SQL(" AND NOT EXISTS (SELECT FROM {} AS d JOIN {} AS was ON was.ctid = d.there WHERE {})").format(
            pair.difference, pair.staged.identifier, link.matches(then, mine)
        )
    return none


def restored(difference: Difference, name: str) -> sql.Composable:
    """The staged value, cast back where it had to be staged as its text."""
    pair = difference.pair
    column = next(column for column in pair.staged.columns if column.name == name)
    current = pair.current.column(name)
    value_then = sql.Identifier(THEN, name)
    if column.send is not None or current is None:
        return value_then
    return sql.SQL("{}::{}").format(value_then, sql.SQL(current.type))  # as format_type quoted it


def differ(difference: Difference, names: Sequence[str], alias: str) -> sql.Composable:
    """The columns that the backup has differ between `alias` and `was`."""
    known = [column for column in difference.pair.staged.columns if column.name in names]
    sides = (sql.SQL(", ").join(value(column, side) for column in known) for side in (alias, THEN))
    now, then = sides
    return sql.SQL("NOT (ROW({})::pg_catalog.record OPERATOR(pg_catalog.*=) ROW({})::pg_catalog.record)").format(
        now, then
    )
