"""When rows hold one another: inner keys, unique indexes and unproven checks step aside for the writes, and come back.

Most rollbacks need none of it: rows are deleted children first, inserted parents first, then updated. But unique values
may have been swapped between rows, foreign keys may form cycles, a child may have moved from a parent that is to go,
and a constraint that was never validated refuses the very rows that it let stand. Dropping and adding again inside the
transaction is exact, whatever the constraint, and checks every row anew; it costs ACCESS EXCLUSIVE and an index build,
so it is the second try.

What cannot be dropped (a view or a function depends on it, an outside table of somebody else refers to it) stays, and
so does what has to act: a foreign key that is away cascades nothing. It is named; only where the rows do need it out of
the way does the rollback end with `told`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.errors import Refused
from briefly_admin.engine.retry import describe
from briefly_admin.engine.rollback import asides
from briefly_admin.engine.rollback.asides import Aside, Key
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.target import Connection

_STAYS: Final = (errors.DependentObjectsStillExist, errors.InsufficientPrivilege, errors.InvalidTableDefinition)
"""Other objects depend on it; its table is another role's; it is inherited."""
_UNPROVEN: Final = """
SELECT EXISTS (SELECT FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = %s AND c.relname = %s AND o.contype IN ('c', 'n') AND NOT o.convalidated)
"""


def say_nothing(_: str) -> None:
    """Where nobody wants to know what stayed."""


@dataclass(slots=True)
class _Loosening:
    """What was taken away so far; `keys` come back after `others`: they need the unique indexes."""

    connection: Connection
    say: Callable[[str], None]
    acting: Collection[tuple[str, str]]
    others: list[sql.Composed] = field(default_factory=list)
    keys: list[sql.Composed] = field(default_factory=list)

    def away(self, *parts: Aside) -> bool:
        """All of them, or none; whether they are. Raises psycopg.Error but for what has to stay."""
        try:
            with self.connection.transaction():
                for part in parts:
                    for statement in part.away:
                        self.connection.execute(statement)
        except _STAYS as error:
            self.say(f"{parts[-1].title} does not step aside ({describe(error)}).")
            return False
        for part in parts:
            (self.keys if part.is_key else self.others).extend(part.back)
        return True


def loosen(
    connection: Connection,
    differences: Sequence[Difference],
    *,
    keep: bool = False,
    acting: Collection[tuple[str, str]] = (),
    say: Callable[[str], None] = say_nothing,
) -> list[sql.Composed]:
    """Take them away; the statements that put them back as they were, in the order to run them.

    `keep`: the rows are not to be those of one moment, so that a foreign key that was never validated is not dropped
    but deferred: no row that is written may break it. `acting`: (table, constraint), as `outside.acting` names them, of
    foreign keys whose actions are to touch rows of other tables. `say` is told what could not step aside, and why.
    """
    loosening = _Loosening(connection, say, acting)
    tables = [found.pair.current.oid for found in differences]
    away: set[int] = set()
    # Foreign keys first: they depend on the unique indexes of their parents.
    keys = asides.keys(connection, tables)
    for key in keys:
        if key.inner and key.enforced and loosening.away(asides.key(key, deferred=keep and not key.validated)):
            away.add(key.oid)
    for found in differences:
        if found.counts.update:
            _indexes(loosening, found, [key for key in keys if key.oid not in away or (keep and not key.validated)])
            loosening.others += _identities(connection, found)
        if found.counts.changes:
            for check in asides.unproven_checks(connection, found.pair.current):
                loosening.away(check)
    return loosening.others + loosening.keys


def cures(connection: Connection, error: psycopg.Error) -> bool:
    """Whether a second try with `loosen` may do what the first could not, after this error of it."""
    if not isinstance(error, errors.CheckViolation | errors.NotNullViolation):
        return True
    row = connection.execute(_UNPROVEN, (error.diag.schema_name, error.diag.table_name)).fetchone()
    return bool(row and row[0])


def told(error: Exception) -> Exception:
    """The error of a second try, in words where a unique value could not be freed for the row that had it."""
    if not isinstance(error, errors.UniqueViolation | errors.ExclusionViolation):
        return error
    return Refused(
        f"Rows of {error.diag.table_name} hold values that {error.diag.constraint_name} keeps apart for one another,"
        " and it cannot step aside: something else depends on it. Nothing was changed.",
        remedy="Drop what depends on it (the run's log says why it stays), roll back, and make it again;"
        " or give those rows other values first.",
    )


def always(difference: Difference) -> list[str]:
    """Columns GENERATED ALWAYS AS IDENTITY in which rows to be updated differ."""
    identities = {column.name for column in difference.pair.current.columns if column.identity == "a"}
    return [name for name in difference.columns if name in identities]


def _indexes(loosening: _Loosening, found: Difference, keys: Sequence[Key]) -> None:
    """Unique indexes and exclusions that stand on a column that some row will change; never the key's.

    A generated column changes with others. Foreign keys that stand on the index, of outside tables too, go with it.
    """
    table = found.pair.current
    changing = set(found.columns) | {column.name for column in table.columns if column.generated}
    for index in asides.indexes(loosening.connection, table.oid):
        if index.columns is not None and (
            not set(index.columns) & changing or set(index.columns) == set(found.pair.staged.manifest.key)
        ):
            continue
        holding = [key for key in keys if key.index == index.oid]
        if any(not key.validated and key.enforced and key.inner for key in holding):
            loosening.say(f"{index.name} does not step aside: a foreign key that is not valid stands on it.")
            continue
        if busy := [key for key in holding if (f"{key.schema}.{key.table}", key.name) in loosening.acting]:
            names = ", ".join(f"{key.name} of {key.table}" for key in busy)
            loosening.say(f"{index.name} does not step aside: rows go or change by what stands on it ({names}).")
            continue
        loosening.away(*map(asides.key, holding), asides.index(table, index))


def _identities(connection: Connection, difference: Difference) -> list[sql.Composed]:
    """GENERATED ALWAYS refuses an UPDATE, whatever it says; BY DEFAULT takes it."""
    table = difference.pair.current
    alter = "ALTER TABLE {} ALTER COLUMN {} SET GENERATED {}"
    back: list[sql.Composed] = []
    for name in always(difference):
        column = sql.Identifier(name)
        connection.execute(sql.SQL(alter).format(table.identifier, column, sql.SQL("BY DEFAULT")))
        back.append(sql.SQL(alter).format(table.identifier, column, sql.SQL("ALWAYS")))
    return back
