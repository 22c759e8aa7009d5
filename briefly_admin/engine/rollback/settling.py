"""Edited rows about which an admin decided one by one: kept, restored, or edited by hand, by key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused, VerificationFailed
from briefly_admin.engine.retry import describe
from briefly_admin.engine.rollback import holding, links
from briefly_admin.engine.rollback.classes import Classified
from briefly_admin.engine.rollback.links import Link
from briefly_admin.engine.rollback.samples import has_secret_key
from briefly_admin.engine.rollback.selection import Pair
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan

_NEW_PREVIEW = "Look at a new preview and decide again; nothing was changed."
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Settled:
    """A decision, and the ctid (as text) of the row as it is now. `how`: keep, restore, edit."""

    here: str
    key: tuple[str, ...]
    how: str
    values: Mapping[str, str | None]


def read(
    connection: Connection, plan: Plan, classified: Sequence[Classified], settled: Mapping[str, Sequence[Any]]
) -> dict[str, list[Settled]]:
    """Table → its decisions. Raises Refused for a table that is not restored or whose key is secret, a row that is not
    edited (any more), and a column that cannot be edited.
    """
    by_name = {each.pair.name: each for each in classified}
    unknown = sorted(name for name in settled if name not in by_name and settled[name])
    if unknown:
        raise Refused(f"Rows of {', '.join(unknown)} are settled, which is not restored.", remedy=_NEW_PREVIEW)
    return {name: _located(connection, plan, by_name[name], rows) for name, rows in settled.items() if rows}


def _located(connection: Connection, plan: Plan, each: Classified, rows: Sequence[Any]) -> list[Settled]:
    pair = each.pair
    key = pair.staged.manifest.key
    if has_secret_key(plan, pair):
        raise Refused(
            f"Rows of {pair.name} are told apart by what is secret ({', '.join(key)}): none can be settled alone.",
            remedy="Let the rules decide about them; nothing was changed.",
        )
    if any(len(row["key"]) != len(key) for row in rows):
        raise Refused(f"A settled row of {pair.name} has not the key {', '.join(key)}.", remedy=_NEW_PREVIEW)
    texts = [
        sql.SQL("{}::text[]").format(sql.Literal([str(row["key"][place]) for row in rows])) for place in range(len(key))
    ]
    match = (
        sql.SQL("{} = {}::text").format(sql.Identifier("s", f"k{place}"), sql.Identifier("now", name))
        for place, name in enumerate(key)
    )
    query = sql.SQL(
        "SELECT s.place, now.ctid::text FROM unnest({texts}) WITH ORDINALITY AS s({names}, place)"
        " JOIN ({relation} AS k JOIN ONLY {table} AS now ON now.ctid = k.here) ON {match} WHERE k.class = 'edited'"
    ).format(
        texts=sql.SQL(", ").join(texts), names=sql.SQL(", ").join(sql.Identifier(f"k{n}") for n in range(len(key))),
        relation=each.relation, table=pair.current.identifier, match=sql.SQL(" AND ").join(match),
    )  # fmt: skip
    places: dict[int, str] = dict(connection.execute(query).fetchall())
    gone = [", ".join(row["key"]) for place, row in enumerate(rows, start=1) if place not in places]
    if gone or len(set(places.values())) < len(rows):
        shown = "; ".join(gone[:_SHOWN]) + (" …" if len(gone) > _SHOWN else "")
        what = f"{len(gone):,} not edited any more ({shown})" if gone else "one twice"
        raise Refused(f"Of the settled rows of {pair.name} there is {what}.", remedy=_NEW_PREVIEW)
    found = [
        Settled(places[place], tuple(row["key"]), row["how"], dict(row.get("values") or {}))
        for place, row in enumerate(rows, start=1)
    ]
    acting = _acting(connection, pair) if any(row.values for row in found) else []
    for row in found:
        _require_editable(plan, pair, row)
        _require_unreferenced(connection, pair, row, acting)
    return found


def _acting(connection: Connection, pair: Pair) -> list[Link]:
    """Foreign keys that change rows when what those refer to changes."""
    found = links.onto(connection, sorted(links.lineage(connection, pair.current.oid)))
    return [link for link in found if link.on_update not in "ar"]


def _require_unreferenced(connection: Connection, pair: Pair, row: Settled, acting: Sequence[Link]) -> None:
    """Rows that an edit would change by a foreign key were in no preview. Of values that do not fit, `edit` says so."""
    for link in acting:
        changing, refer = [name for name in link.references if name in row.values], "refer"
        try:
            with connection.transaction():
                found = connection.execute(_referring(pair, row, link, changing)).fetchone() if changing else None
                rows = f"{found[0]:,} row{'' if found[0] == 1 else 's'}" if found and found[0] else ""
        except psycopg.DataError:
            continue
        except psycopg.errors.InsufficientPrivilege:
            rows, refer = "some rows", "may refer"
        if rows:
            raise Refused(
                f"{pair.name}, row {', '.join(row.key)}: {', '.join(changing)} cannot be edited, because {rows} of"
                f" {'.'.join(link.child)} {refer} to it, and would change with it (constraint {link.name}).",
                remedy="Settle the row in another way, or edit it after the rollback; nothing was changed.",
            )


def _referring(pair: Pair, row: Settled, link: Link, changing: Sequence[str]) -> sql.Composed:
    """How many rows refer to what the row's edit changes."""
    tests = (
        sql.SQL("NOT {}").format(_holds(pair, "p", name, row.values[name])) for name in changing
    )  # fmt: skip
    return sql.SQL("SELECT count(*) FROM {} AS o JOIN ONLY {} AS p ON {} WHERE p.ctid = {} AND ({})").format(
        link.child_source, pair.current.identifier, holding.refers(link), sql.Literal(row.here),
        sql.SQL(" OR ").join(tests),
    )  # fmt: skip


def _holds(pair: Pair, alias: str, name: str, text: str | None) -> sql.Composable:
    """Whether the row's column has that value; read by PostgreSQL, as it is written."""
    column = pair.current.column(name)
    return sql.SQL("({name}::text IS NOT DISTINCT FROM {value}::{type}::text)").format(
        name=sql.Identifier(alias, name), value=sql.Literal(text), type=sql.SQL(column.type if column else "text")
    )


def _require_editable(plan: Plan, pair: Pair, row: Settled) -> None:
    table = plan.table(pair.name)
    known, key = {column.name for column in table.columns}, pair.staged.manifest.key
    for name in row.values:
        column = pair.current.column(name)
        if column is None or name not in known:
            why = "the plan and the table do not both have it"
        elif name in table.secrets:
            why = "it is secret"
        elif name in key:
            why = "it is of the key"
        elif column.generated or column.identity == "a":
            why = "it is generated"
        else:
            continue
        raise Refused(
            f"{pair.name}, row {', '.join(row.key)}: {name} cannot be edited, because {why}.",
            remedy="Settle the row in another way; nothing was changed.",
        )


def edit(connection: Connection, pair: Pair, row: Settled) -> str:
    """Give the row its values, as PostgreSQL reads their texts; its ctid then.

    Raises Refused that names table, key and column where a value does not fit; VerificationFailed where a foreign key
    was at the row first.
    """
    try:
        with connection.transaction():
            return _edit(connection, pair, row, row.values)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        alone = [name for name in row.values if len(row.values) > 1 and not _fits(connection, pair, row, name)]
        raise Refused(
            f"{pair.name}, row {', '.join(row.key)}: the value of {', '.join(alone or row.values)} does not fit"
            f" ({describe(error)}).",
            remedy="Correct it, or settle the row in another way; nothing was changed.",
        ) from None


def _fits(connection: Connection, pair: Pair, row: Settled, name: str) -> bool:
    try:
        with connection.transaction(force_rollback=True):
            _edit(connection, pair, row, {name: row.values[name]})
    except (psycopg.DataError, psycopg.IntegrityError):
        return False
    return True


def _edit(connection: Connection, pair: Pair, row: Settled, values: Mapping[str, str | None]) -> str:
    # Literals without a type: they are read by the column's own type, and too long a text is refused, not cut.
    sets = (sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(text)) for name, text in values.items())
    query = sql.SQL("UPDATE ONLY {} AS now SET {} WHERE now.ctid = {} RETURNING now.ctid::text").format(
        pair.current.identifier, sql.SQL(", ").join(sets), sql.Literal(row.here)
    )
    found = connection.execute(query).fetchone()
    if found is None:  # in a second try, with the keys between the tables away, the edit may well lead it out of it
        raise VerificationFailed(
            f"{pair.name}, row {', '.join(row.key)}: it was changed by a foreign key before it could be edited.",
            remedy="Settle the row in another way; nothing was changed.",
        )
    return str(found[0])


def stands(connection: Connection, pair: Pair, row: Settled, here: str) -> bool:
    """Whether the edited row, which is at `here` now, has its values; read by PostgreSQL, as they were written."""
    tests = (_holds(pair, "now", name, text) for name, text in row.values.items())
    query = sql.SQL("SELECT {} FROM ONLY {} AS now WHERE now.ctid = {}").format(
        sql.SQL(" AND ").join(tests), pair.current.identifier, sql.Literal(here)
    )
    found = connection.execute(query).fetchone()
    return bool(found and found[0])
