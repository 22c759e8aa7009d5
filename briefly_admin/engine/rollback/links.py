"""Foreign keys at the edge of a rollback: rows of other tables that it would touch, or that its rows would miss."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.retry import describe
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.target import Connection

Label = tuple[str, str]
"""(schema, table)"""

_ACTIONS: Final = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_LINKS: Final = """
SELECT o.conname, cn.nspname, c.relname, pn.nspname, p.relname,
  ARRAY(SELECT a.attname::text FROM unnest(o.conkey) WITH ORDINALITY k(n, i)
        JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.n ORDER BY k.i),
  ARRAY(SELECT a.attname::text FROM unnest(o.confkey) WITH ORDINALITY k(n, i)
        JOIN pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.n ORDER BY k.i),
  o.confdeltype::text, pg_get_constraintdef(o.oid), obj_description(o.oid, 'pg_constraint')
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = o.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
WHERE o.contype = 'f' AND o.conparentid = 0
  AND (o.conrelid = ANY (%(oids)s::oid[]) OR o.confrelid = ANY (%(oids)s::oid[]))
ORDER BY cn.nspname, c.relname, o.conname
"""


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key: `columns` of `child` refer to `references` of `parent`."""

    name: str
    child: Label
    parent: Label
    columns: tuple[str, ...]
    references: tuple[str, ...]
    on_delete: str
    definition: str
    comment: str | None

    @property
    def action(self) -> str:
        """ON DELETE, in SQL's words."""
        return _ACTIONS.get(self.on_delete, self.on_delete)


def read(connection: Connection, oids: Sequence[int]) -> tuple[Link, ...]:
    """All foreign keys from or onto these tables."""
    rows = connection.execute(_LINKS, {"oids": list(oids)}).fetchall()
    return tuple(
        Link(name, (cs, ct), (ps, pt), tuple(columns), tuple(references), action, definition, comment)
        for name, cs, ct, ps, pt, columns, references, action, definition, comment in rows
    )


def outside(
    connection: Connection,
    differences: Sequence[Difference],
    *,
    without: Collection[tuple[str, str]] = (),
    lock: bool = False,
) -> list[str]:
    """A sentence for each foreign key across the edge with rows that stand against the rollback.

    `without`: (table, constraint) that the rollback itself takes away first. `lock`: hold the rows to be deleted, so
    that nobody can refer to them between this count and the deletion.
    """
    chosen = {_label(difference): difference for difference in differences}
    found = []
    for link in read(connection, [difference.pair.current.oid for difference in differences]):
        parent, child = chosen.get(link.parent), chosen.get(link.child)
        names = {(link.child[1], link.name), (_text(link.child), link.name)}
        if (parent is None) == (child is None) or names & set(without):
            continue
        if parent is not None and parent.counts.delete + parent.counts.update:
            found.append(_touched(connection, link, parent, lock=lock))
        elif child is not None and child.counts.insert + child.counts.update:
            found.append(_missed(connection, link, child))
    return [sentence for sentence in found if sentence]


def require_none(sentences: Sequence[str]) -> None:
    """Raises Refused that lists them."""
    if sentences:
        raise Refused(
            f"Rows of tables outside this rollback stand against it: {' '.join(sentences)}",
            remedy="Delete those rows or point them elsewhere, or restore their tables, too; nothing was changed.",
        )


def _label(difference: Difference) -> Label:
    return difference.pair.current.schema, difference.pair.current.name


def _text(label: Label) -> str:
    return ".".join(label)


def _touched(connection: Connection, link: Link, parent: Difference, *, lock: bool) -> str:
    """Rows of the child table that refer to rows to be deleted, or whose referenced values will change."""
    pair = parent.pair
    of_key = set(link.references) <= set(pair.staged.manifest.key)
    if of_key and not parent.counts.delete:
        return ""
    gone: sql.Composable = sql.SQL("d.there IS NULL")
    if not of_key:
        gone = sql.SQL("(d.there IS NULL OR {} IS DISTINCT FROM {})").format(
            _row("now", link.references), _row("was", link.references)
        )
    rows = sql.SQL(
        "FROM {} AS d JOIN ONLY {} AS now ON now.ctid = d.here LEFT JOIN {} AS was ON was.ctid = d.there WHERE {}"
    ).format(pair.difference, pair.current.identifier, pair.staged.identifier, gone)
    if lock:
        connection.execute(sql.SQL("SELECT count(*) FROM (SELECT 1 {} FOR UPDATE OF now) AS held").format(rows))
    count = _count(connection, link, sql.SQL("SELECT count(*) FROM {} AS o WHERE EXISTS (SELECT {} AND {})").format(
        sql.Identifier(*link.child), rows, _equal("o", link.columns, "now", link.references)
    ))  # fmt: skip
    if not count:
        return ""
    return (
        f"{count:,} row{'s' if count > 1 else ''} of {_text(link.child)} refer to rows of {pair.name} that would be"
        f" deleted (constraint {link.name}, ON DELETE {link.action})."
    )


def _missed(connection: Connection, link: Link, child: Difference) -> str:
    """Rows to be restored whose parent, in a table that is not restored, is not there."""
    pair = child.pair
    if not set(link.columns) <= {column.name for column in pair.staged.columns}:
        return ""
    present = sql.SQL(" AND ").join(
        sql.SQL("{} IS NOT NULL").format(sql.Identifier("was", column)) for column in link.columns
    )
    query = sql.SQL(
        "SELECT count(*) FROM {} AS d JOIN {} AS was ON was.ctid = d.there"
        " LEFT JOIN ONLY {} AS now ON now.ctid = d.here WHERE {} AND (d.here IS NULL OR {} IS DISTINCT FROM {})"
        " AND NOT EXISTS (SELECT FROM {} AS p WHERE {})"
    ).format(
        pair.difference, pair.staged.identifier, pair.current.identifier, present, _row("now", link.columns),
        _row("was", link.columns), sql.Identifier(*link.parent), _equal("p", link.references, "was", link.columns),
    )  # fmt: skip
    count = _count(connection, link, query)
    if not count:
        return ""
    return (
        f"{count:,} row{'s' if count > 1 else ''} of {pair.name} would refer to rows of {_text(link.parent)} that are"
        f" not there (constraint {link.name})."
    )


def _count(connection: Connection, link: Link, query: sql.Composed) -> int:
    try:
        row = connection.execute(query).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise Refused(
            f"The foreign key {link.name} of {_text(link.child)} onto {_text(link.parent)} cannot be checked"
            f" ({describe(error)}).",
            remedy="GRANT SELECT on both tables to the role of TARGET_DATABASE_URL, free of row-level security.",
        ) from None
    return int(row[0]) if row else 0


def _row(alias: str, columns: Sequence[str]) -> sql.Composable:
    return sql.SQL("ROW({})").format(sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns))


def _equal(left: str, left_columns: Sequence[str], right: str, right_columns: Sequence[str]) -> sql.Composable:
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(left, one), sql.Identifier(right, other))
        for one, other in zip(left_columns, right_columns, strict=True)
    )
