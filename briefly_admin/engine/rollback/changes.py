"""Taking back the schema changes that a migration made, inside the restore's transaction."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from psycopg import errors

from briefly_admin.engine.context import ChangeRecord, RunContext
from briefly_admin.engine.rollback import links
from briefly_admin.engine.rollback.links import Label
from briefly_admin.engine.rollback.selection import Selection
from briefly_admin.engine.target import Connection, safe_message

_CONCURRENTLY: Final = re.compile(r"(\b(?:DROP|CREATE(?:\s+UNIQUE)?)\s+INDEX)\s+CONCURRENTLY\b", re.IGNORECASE)
_ABSENT: Final = (errors.UndefinedObject, errors.UndefinedColumn, errors.UndefinedTable)


def touched(connection: Connection, chosen: Selection) -> frozenset[Label]:
    """Tables that reverting needs alone: those of the changes, and the other end of foreign keys among them."""
    by_name = {name: (t.schema, t.name) for t in chosen.tables for name in (t.name, t.label)}
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
    """
    for change in changes:
        context.check_stop()
        if not change.inverse.strip():
            continue
        try:
            with connection.transaction():
                # As bytes: the text is ours, recorded before the change was made, and a % in it stays one.
                connection.execute(plain(change.inverse).encode())
        except _ABSENT as error:
            what = f"{change.table}: {change.kind} {change.name}"
            context.journal.log("info", f"Not there any more, so not taken back: {what} ({safe_message(error)}).")


def plain(statement: str) -> str:
    """The statement without CONCURRENTLY after DROP INDEX or CREATE [UNIQUE] INDEX."""
    return _CONCURRENTLY.sub(r"\1", statement, count=1)


def record(context: RunContext, changes: Sequence[ChangeRecord]) -> None:
    """Note in the run's own journal, before it is done, what it takes back and how that is undone in turn."""
    for position, change in enumerate(changes, start=1):
        swapped = replace(change, position=position, sql=change.inverse, inverse=plain(change.sql), note="")
        context.journal.record_change(replace(swapped, state="planned"))
