"""Taking back the schema changes that a migration made, inside the restore's transaction."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from psycopg import errors, sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.rollback import links
from briefly_admin.engine.rollback.history import plain
from briefly_admin.engine.rollback.links import Label
from briefly_admin.engine.rollback.selection import Selection
from briefly_admin.engine.target import Connection, safe_message

_BROKEN: Final = (errors.CheckViolation, errors.ForeignKeyViolation)
_NOT_VALID: Final = """
SELECT a.attname FROM pg_constraint o
JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = o.conkey[1]
WHERE n.nspname = %s AND c.relname = %s AND o.conname = %s AND NOT o.convalidated
"""
_COMES_NOT_VALID: Final = re.compile(r"\bADD\s+CONSTRAINT\b.*\bNOT\s+VALID\s*$", re.IGNORECASE | re.DOTALL)
_BUILDS: Final = re.compile(r"\s*CREATE\s+UNIQUE\s+INDEX\b", re.IGNORECASE)
_ABSENT: Final = (errors.UndefinedObject, errors.UndefinedColumn, errors.UndefinedTable)


def touched(connection: Connection, chosen: Selection) -> frozenset[Label]:
    """Tables that reverting needs alone: those of the changes, and the other end of foreign keys among them."""
    by_name = _labels(chosen)
    changed = {by_name[change.table] for change in chosen.changes}
    going = {(by_name[change.table], change.name) for change in chosen.changes}
    oids = connection.execute(
        "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
        ([schema for schema, _ in changed], [name for _, name in changed]),
    ).fetchall()
    keys = links.read(connection, [oid for (oid,) in oids])
    return frozenset(changed | {link.parent for link in keys if (link.child, link.name) in going})


def revert(context: RunContext, connection: Connection, changes: Sequence[ChangeRecord]) -> None:
    """Run the inverses in the order given; what is gone already is left at that.

    CONCURRENTLY cannot run in a transaction: with the table's lock held, the plain form waits for nobody.
    Raises Refused where something that others made since depends on what is to go.
    """
    for change in changes:
        context.check_stop()
        if not change.inverse.strip():
            continue
        what = f"{change.table}: {change.kind.replace('_', ' ')} {change.name}"
        try:
            with connection.transaction():
                # As bytes: the text is ours, recorded before the change was made, and a % in it stays one.
                connection.execute(plain(change.inverse).encode())
        except _ABSENT as error:
            context.journal.log("info", f"Not there any more, so not taken back: {what} ({safe_message(error)}).")
        except errors.DependentObjectsStillExist:
            raise Refused(
                f"{what} cannot be taken back: a view, a function or a constraint that was made since depends on it."
                " Nothing was changed.",
                remedy="Drop what depends on it, roll back, and make it again in another way.",
            ) from None


def late(changes: Sequence[ChangeRecord]) -> list[ChangeRecord]:
    """Those that are to be reverted when the rows are written: plain indexes, and unique ones that come back.

    Deleting parents without an index would read a child table once a row; and the rows as they are now may well be
    such that the index cannot be built.
    """
    return [change for change in changes if change.kind == "index" or _BUILDS.match(change.inverse)]


def complete(context: RunContext, connection: Connection, chosen: Selection) -> None:
    """Make the constraints that `revert` brought back as good as they were: they come NOT VALID, before the rows do.

    One that the rows break was not valid at the backup either: it stays so, like all that others left NOT VALID.
    """
    labels = _labels(chosen)
    for change in chosen.changes:
        context.check_stop()
        if not _COMES_NOT_VALID.search(change.inverse):
            continue
        label = labels[change.table]
        for (column,) in connection.execute(_NOT_VALID, (*label, change.name)).fetchall():
            statements = [sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}")]
            if change.kind == "not_null":
                statements.append(sql.SQL("ALTER TABLE {} ALTER COLUMN {column} SET NOT NULL"))
                statements.append(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}"))
            names = (sql.Identifier(*label), sql.Identifier(change.name))
            try:
                with connection.transaction():
                    for statement in statements:
                        connection.execute(statement.format(*names, column=sql.Identifier(column or "")))
            except _BROKEN as error:
                told = safe_message(error)
                context.journal.log("info", f"{change.table}: {change.name} stays not valid ({told}).")


def _labels(chosen: Selection) -> dict[str, Label]:
    """(schema, table) by what changes call the table."""
    return {name: (table.schema, table.name) for table in chosen.tables for name in (table.name, table.label)}


def record(context: RunContext, changes: Sequence[ChangeRecord]) -> None:
    """Note in the run's own journal, before it is done, what it takes back and how that is undone in turn."""
    for position, change in enumerate(changes, start=1):
        swapped = replace(change, position=position, sql=change.inverse, inverse=plain(change.sql), note="")
        context.journal.record_change(replace(swapped, state="planned"))
