"""What a rollback's writes would do to rows of tables outside it, by foreign key and action; refused unless allowed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.rollback import holding
from briefly_admin.engine.rollback.cascades import BLOCK, DELETE, UPDATE, Cascades, Effect
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.rollback.links import ACTIONS, Link
from briefly_admin.engine.target import Connection

Entry = dict[str, Any]
"""{table, constraint, action, of, rows, blocks, text}, as a preview's result has it."""
_BY_HAND: Final = "Delete those rows or point them elsewhere, or restore their tables, too; nothing was changed."
# A row counts once for a table and action, with the foreign key that reached it first; one that goes is not changed.
_COUNTS: Final = """
SELECT effect, count(*) FROM (
  SELECT DISTINCT ON (e.rel, e.tid, e.event, e.action) e.effect FROM {reached} AS e
  WHERE e.event <> 'u' OR NOT EXISTS
    (SELECT FROM {reached} AS g WHERE g.rel = e.rel AND g.tid = e.tid AND g.event = 'd')
  ORDER BY e.rel, e.tid, e.event, e.action, e.step, e.effect
) AS once GROUP BY effect ORDER BY effect
"""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the foreign keys would do, and the rows that were held for it."""

    entries: list[Entry]
    cascades: Cascades

    def require_done(self) -> None:
        """Once all is written: raises Refused unless each row that was to go or to change by a foreign key did so.

        Triggers and rules of a table may hold its rows back, and a foreign key's own triggers may be switched off:
        PostgreSQL then leaves rows that refer to nothing, and says nothing.
        """
        cascades, left = self.cascades, list[str]()
        for number, effect in enumerate(cascades.effects if cascades.reached is not None else ()):
            if effect.event != BLOCK and (rows := cascades.run(effect.link, _left(cascades, effect, number))):
                left.append(f"{_rows(rows, '.'.join(effect.link.child))} (constraint {effect.link.name})")
        if left:
            raise Refused(
                f"Rows that were to go or to change by foreign keys did not: {'; '.join(left)}. Everything was undone.",
                remedy="Look at the triggers of those tables (one may hold rows back), whether the foreign keys' own"
                " are enabled, and for a second foreign key over the same columns.",
            )
        _drop(cascades)


def hold(connection: Connection, differences: Sequence[Difference]) -> Foreseen:
    """`consequences`; and the rows to be deleted, and those that go or change with them, are held.

    Nobody can refer to them between this count and the deletion. Raises Refused as that does.
    """
    return _foreseen(Cascades(connection, differences, (), lock=True))


def consequences(
    connection: Connection,
    differences: Sequence[Difference],
    *,
    without: Collection[tuple[str, str]] = (),
) -> list[Entry]:
    """What the foreign keys across the rollback's edge would do, or what stands against it; what blocks comes first.

    {table: "schema.table" whose rows are touched (of a key that misses its parent: the parent's), constraint, action:
    in SQL's words, of: the plan's title or the "schema.table" of the rows that go, rows, blocks: no tick allows it,
    text: the sentence}. A row counts once for its table and action. `differences` stand in the order in which they are
    inserted; the relations of the differences hold as long as nobody else may write. `without`: (table, constraint)
    that the rollback itself takes away first. Within a transaction; nothing of it stays. Raises Refused, naming the
    table, where the role must not read or hold the rows.
    """
    foreseen = _foreseen(Cascades(connection, differences, without, lock=False))
    _drop(foreseen.cascades)
    return foreseen.entries


def _foreseen(cascades: Cascades) -> Foreseen:
    if cascades.differences:
        cascades.walk()
    entries = _entries(cascades)
    entries += [entry for difference in cascades.differences for entry in _missed(cascades, difference)]
    entries.sort(key=lambda entry: (not entry["blocks"], entry["table"], entry["constraint"], entry["of"]))
    return Foreseen(entries, cascades)


def _left(cascades: Cascades, effect: Effect, number: int) -> sql.Composable:
    """How many of the effect's rows are where they were: one that went or changed is there no more."""
    assert cascades.reached is not None
    return sql.SQL(
        "SELECT count(*) FROM {} AS e JOIN {} AS o ON o.tableoid = e.rel AND o.ctid = e.tid WHERE e.effect = {}"
    ).format(cascades.reached, effect.link.child_source, sql.Literal(number))


def _drop(cascades: Cascades) -> None:
    if cascades.reached is not None:
        cascades.connection.execute(sql.SQL("DROP TABLE {}").format(cascades.reached))


def require_allowed(entries: Sequence[Mapping[str, Any]], allow: Collection[str]) -> dict[str, int]:
    """{"schema.table": rows touched}; raises Refused that lists what blocks, or touches a table not in `allow`."""
    against = [entry for entry in entries if entry["blocks"] or entry["table"] not in allow]
    if against:
        tables = sorted({entry["table"] for entry in against if not entry["blocks"]})
        remedies = [f"Allow rows of {', '.join(tables)} to be touched, if that is meant."] if tables else []
        remedies += [_BY_HAND] if any(entry["blocks"] for entry in against) else ["Nothing was changed."]
        raise Refused(
            f"Rows of tables outside this rollback stand against it: {' '.join(entry['text'] for entry in against)}",
            remedy=" ".join(remedies),
        )
    touched: dict[str, int] = {}
    for entry in entries:
        touched[entry["table"]] = touched.get(entry["table"], 0) + entry["rows"]
    return touched


def agreed(context: RunContext, entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """`require_allowed` by the run's options, and as many rows as the confirmed preview said (`expected_outside`).

    Raises Refused, also where a ticked table's number moved by more than the allowance. `keep`, and a rollback of fewer
    tables, write less than the exact rollback that a preview counts: of them, only more rows than confirmed refuse.
    """
    options = context.options
    allow = options.get("allow") or ()
    touched = require_allowed(entries, allow)
    expected: Mapping[str, Any] | None = options.get("expected_outside")
    allowance = int(options.get("allowance") or 0)
    fewer = options.get("tables") is not None and set(options["tables"]) < set(options.get("expected") or ())
    at_most = fewer or options.get("mode") == "keep"
    moved = []
    for table in sorted(set(allow)) if expected is not None else ():
        now, then = touched.get(table, 0), int((expected or {}).get(table, 0))
        if now - then > allowance or (then - now > allowance and not at_most):
            moved.append(f"{_rows(now, table)} would be touched instead of {then:,}")
    if moved:
        raise Refused(
            f"Tables outside this rollback changed since the preview was confirmed: {'; '.join(moved)}.",
            remedy="Look at a new preview and confirm that; nothing was changed.",
        )
    return touched


def acting(entries: Sequence[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
    """("schema.table", constraint) of the foreign keys that will touch rows: they have to be there when it is done."""
    return frozenset((entry["table"], entry["constraint"]) for entry in entries if not entry["blocks"])


def _entries(cascades: Cascades) -> list[Entry]:
    if cascades.reached is None:
        return []
    query = sql.SQL(_COUNTS).format(reached=cascades.reached)
    counts = cascades.connection.execute(query).fetchall()
    return [_entry(cascades, number, rows) for number, rows in counts]


def _entry(cascades: Cascades, number: int, rows: int) -> Entry:
    effect = cascades.effects[number]
    link, table = effect.link, ".".join(effect.link.child)
    if effect.own:
        current = next(each.pair.current for each in cascades.differences if each.pair.current.oid == effect.own)
        table = f"{current.schema}.{current.name}"
    what = "would be deleted" if effect.cause == DELETE else "would change"
    event = "DELETE" if effect.cause == DELETE else "UPDATE"
    text = (
        f"{_rows(rows, table)} refer{_s(rows)} to rows of {effect.of} that {what} (constraint {link.name}, ON {event}"
        f" {ACTIONS[effect.action]})."
    )
    broken = "" if effect.own else _broken(cascades, effect, number)
    if effect.own:
        text += f" {table} is a table of this rollback: nothing else may touch its rows."
    elif broken:
        text += f" {broken}"
    elif effect.event == DELETE:
        text += f" {'It' if rows == 1 else 'They'} would be deleted, too."
    elif effect.event == UPDATE:
        text += f" {'Its' if rows == 1 else 'Their'} {', '.join(effect.columns)} would {_BECOMES[effect.action]}."
    return {
        "table": table, "constraint": link.name, "action": ACTIONS[effect.action], "of": effect.of, "rows": rows,
        "blocks": bool(effect.own or broken or effect.action in "ar"), "text": text,
    }  # fmt: skip


_BECOMES: Final = {"n": "become NULL", "d": "become its default", "c": "change with them"}


def _broken(cascades: Cascades, effect: Effect, number: int) -> str:
    """Why the change that the action makes cannot stand, if so."""
    link = effect.link
    if effect.event != UPDATE or effect.action == "c":
        return ""
    defaults = dict(zip(link.columns, link.defaults, strict=True))
    nulls = [name for name in effect.columns if effect.action == "n" or defaults[name] is None]
    if required := [name for name in nulls if name in link.required]:
        return f"But {', '.join(required)} takes no NULL."
    if link.whole and 0 < len(nulls) < len(link.columns):
        return f"But MATCH FULL takes no row of which only {', '.join(nulls)} is NULL."
    if nulls or any("nextval(" in (defaults[name] or "") for name in effect.columns):
        return ""
    if cascades.run(link, _homeless(cascades, effect, number, defaults)):
        return f"But no row of {'.'.join(link.parent)} has that default."
    return ""


def _homeless(cascades: Cascades, effect: Effect, number: int, defaults: Mapping[str, str | None]) -> sql.Composable:
    """How many of the effect's rows would refer, by default, to a row that is not there."""
    link, reached = effect.link, cascades.reached
    assert reached is not None
    values = [
        sql.SQL("({})").format(sql.Composed([sql.SQL(_text(defaults[name]))]))
        if name in effect.columns
        else sql.Identifier("o", name)
        for name in link.columns
    ]
    stays: sql.Composable = holding.not_gone(reached, "p")
    for difference in cascades.differences:
        if difference.pair.current.oid == link.parent_oid:
            stays = sql.SQL("NOT EXISTS (SELECT FROM {} AS d WHERE d.here = p.ctid AND d.there IS NULL)").format(
                difference.pair.difference
            )
    return sql.SQL(
        "SELECT count(*) FROM {} AS e JOIN {} AS o ON o.tableoid = e.rel AND o.ctid = e.tid WHERE e.effect = {}"
        " AND {} AND NOT EXISTS (SELECT FROM {} AS p WHERE {} AND {})"
    ).format(
        reached, link.child_source, sql.Literal(number),
        sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(one) for one in values),
        link.parent_source, link.matches(holding.columns("p", link.references), values), stays,
    )  # fmt: skip


def _missed(cascades: Cascades, difference: Difference) -> list[Entry]:
    """Rows to be restored whose parent, in a table that is not restored, is not there (any more)."""
    counts = difference.counts
    if not counts.insert and not counts.update:
        return []
    names = {column.name for column in difference.pair.staged.columns}
    entries = []
    for link in cascades.of(difference):
        if cascades.inner(link.parent_oid) or not set(link.columns) <= names:
            continue
        if not counts.insert and not set(link.columns) & set(difference.columns):
            continue
        if rows := cascades.run(link, _orphans(cascades, link, difference)):
            parent = ".".join(link.parent)
            text = (
                f"{_rows(rows, difference.pair.name)} would refer to rows of {parent} that are not there (constraint"
                f" {link.name})."
            )
            entries.append(
                {"table": parent, "constraint": link.name, "action": ACTIONS["a"], "of": difference.pair.name,
                 "rows": rows, "blocks": True, "text": text}
            )  # fmt: skip
    return entries


def _orphans(cascades: Cascades, link: Link, difference: Difference) -> sql.Composable:
    pair = difference.pair
    present = sql.SQL(" AND ").join(
        sql.SQL("{} IS NOT NULL").format(sql.Identifier("was", column)) for column in link.columns
    )
    stays = sql.SQL("") if cascades.reached is None else sql.SQL(" AND ") + holding.not_gone(cascades.reached, "p")
    then = [holding.restored(difference, name) for name in link.columns]
    return sql.SQL(
        "SELECT count(*) FROM {} AS d JOIN {} AS was ON was.ctid = d.there LEFT JOIN ONLY {} AS now"
        " ON now.ctid = d.here WHERE {} AND (d.here IS NULL OR {}) AND NOT EXISTS (SELECT FROM {} AS p WHERE {}{})"
    ).format(
        pair.difference, pair.staged.identifier, pair.current.identifier, present,
        holding.differ(difference, link.columns, "now"), link.parent_source,
        link.matches(holding.columns("p", link.references), then), stays,
    )  # fmt: skip


def _text(expression: Any) -> Any:
    """What the catalog's own functions wrote: quoted by PostgreSQL."""
    return expression


def _rows(count: int, table: str) -> str:
    return f"{count:,} row{'' if count == 1 else 's'} of {table}"


def _s(count: int) -> str:
    return "s" if count == 1 else ""
