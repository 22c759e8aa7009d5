"""A correction of one row: one transaction that changes it, judges it, and records who did it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.corrections import Changes, Deed, ShownRow
from briefly_admin.domain.errors import Busy, InvalidRequest, Refused, Unavailable
from briefly_admin.engine import fence
from briefly_admin.engine.correcting import outbox
from briefly_admin.engine.correcting.answers import MEANWHILE, answering, invalid, refusal, settle_session, told
from briefly_admin.engine.correcting.columns import Asked, asked
from briefly_admin.engine.correcting.place import Place, find_key, find_place
from briefly_admin.engine.correcting.showing import VERSION, shown, stored, too_long
from briefly_admin.engine.correcting.values import require_changeable, typed, value_faults
from briefly_admin.engine.correcting.verdict import WHOLE_ROW_RULE, Fault, faults
from briefly_admin.engine.retry import lost_connection
from briefly_admin.engine.target import Connection, Target
from briefly_admin.plans.base import Plan
from briefly_admin.plans.judging import describe

_NOTHING: Final = "Nothing was changed."
_ALONE: Final = 0x62726965
"""Of the advisory locks by table; 'brie' in ASCII."""
_PATIENCE: Final = "5s"
"""How long a correction waits for another one of the same table."""


def correct_row(
    target: Target, plan: Plan, table: str, key: Sequence[str], *, version: str, changes: Changes, deed: Deed
) -> ShownRow:
    """Give the row these values, if it is still the one of `version` and they leave the changed columns right.

    The row as it stands then. Raises InvalidRequest (details: column → texts), NotFound, Busy beside a run, Refused
    where the row has changed or the database does not let it, Unavailable. No error leaves a change behind, but for
    Unavailable that says that nobody knows.
    """
    with target.session() as connection:
        with answering():
            outbox.ensure(connection)
            place = find_place(connection, plan, table)
        with alone(connection, place, changes), deed_of(target, connection, deed.id):
            settle_session(connection, 5)
            key = find_key(connection, place, key)
            columns = asked(connection, place.table, place.here)
            require_changeable(columns, changes)
            before = _lock(connection, place, key, columns, version)
            changes = _real_changes(connection, place, key, columns, changes)
            known = _of_whole_row(connection, place, key)
            _update(connection, place, key, changes)
            _judge(connection, place, key, changes, known)
            _record(connection, place, key, columns, before, changes, deed)
            return shown(connection, place, key, changes)


@contextmanager
def alone(connection: Connection, place: Place, changes: Changes) -> Iterator[None]:
    """No other correction of the table meanwhile, where the changes touch what the plan alone knows to be unique.

    To be entered before the transaction, so that its snapshot has what the one before committed. Raises Refused.
    """
    if not any(set(unique.columns) & set(changes) for unique in place.table.uniques):
        yield
        return
    name = f"{place.here.schema}.{place.here.name}"
    with answering():
        _wait_for(connection, place, name)
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # the session's end gives it back as well
            connection.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (_ALONE, name))


def _wait_for(connection: Connection, place: Place, name: str) -> None:
    try:
        with connection.transaction():
            connection.execute(
                sql.SQL("SET LOCAL lock_timeout = {0}; SET LOCAL statement_timeout = 0").format(sql.Literal(_PATIENCE))
            )
            connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (_ALONE, name))
    except errors.LockNotAvailable:
        raise Refused(
            f"Another correction of {place.table.name} is under way, of what must be unique there.",
            remedy=f"{_NOTHING} Try again in a moment.",
        ) from None


@contextmanager
def deed_of(
    target: Target, connection: Connection, deed: UUID, *, isolation: str = "READ COMMITTED", keep: bool = True
) -> Iterator[None]:
    """A transaction that changes rows beside no leader; a lost answer to its COMMIT is looked up by the deed.

    `keep` False: it is rolled back. Raises Busy, and what `told` makes of a database error.
    """
    committing = False
    try:
        connection.execute(sql.SQL("BEGIN ISOLATION LEVEL {}").format(sql.SQL(isolation)))
        connection.execute("SET LOCAL synchronous_commit TO on")
        if not fence.hold_off(connection):
            raise Busy(
                "A run is at work on the target: rows are not corrected beside it.",
                remedy=f"{_NOTHING} Try again when the run has ended, or pause it.",
            )
        outbox.begin(connection, deed)
        yield
        if keep:
            committing = True
            connection.execute("COMMIT")
    except psycopg.Error as error:
        if not (committing and lost_connection(error) and _was_made(target, deed)):
            raise told(error) from None
    finally:
        if not connection.closed:
            connection.rollback()


def _was_made(target: Target, deed: UUID) -> bool:
    """Raises Unavailable where nobody can tell."""
    try:
        with target.session() as connection:
            return outbox.is_recorded(connection, deed)
    except (psycopg.Error, Unavailable):
        raise Unavailable(
            "The connection to the target was lost at the very end: whether the change was made is not known.",
            remedy="Look at the row again once the database answers.",
        ) from None


def _lock(
    connection: Connection, place: Place, key: Sequence[str], columns: Sequence[Asked], version: str
) -> Mapping[str, str | None]:
    """The row's texts before, by column: of those that are recorded. Raises Refused where it is another one by now."""
    query = sql.SQL("SELECT {} FROM {} AS o WHERE {} FOR UPDATE OF o").format(
        sql.SQL(", ").join([VERSION, *texts(recorded(columns))]), place.here.identifier, place.is_row("o", key)
    )
    row = connection.execute(query).fetchone()
    if row is None:
        raise place.no_row(key)
    if row[0] != version:
        raise Refused(MEANWHILE, remedy=_NOTHING)
    return {column.name: text for column, text in zip(recorded(columns), row[1:], strict=True)}


def recorded(columns: Sequence[Asked]) -> list[Asked]:
    """Columns whose change is recorded, whoever made it: a trigger may change what nobody typed."""
    return [column for column in columns if not column.why_fixed]


def texts(columns: Sequence[Asked]) -> list[sql.Composable]:
    """The columns' texts; of a secret one what tells it from another, which stays in the database's transaction."""
    return [
        sql.SQL("md5(o.{}::text)" if column.secret else "o.{}::text").format(sql.Identifier(column.name))
        for column in columns
    ]


def _real_changes(
    connection: Connection, place: Place, key: Sequence[str], columns: Sequence[Asked], changes: Changes
) -> Changes:
    """The changes that are values and that the row has not already; a secret one always counts, lest it be guessed."""
    wrong = value_faults(connection, columns, changes) | too_long(connection, place, key, columns, changes)
    if wrong:
        raise invalid({name: [words] for name, words in wrong.items()})
    secret = {column.name for column in columns if column.secret}
    tests = [
        sql.SQL("true") if name in secret else sql.SQL("(o.{}::text IS DISTINCT FROM ({})::text)").format(
            sql.Identifier(name), typed(_column(columns, name).column, text)
        )
        for name, text in changes.items()
    ]  # fmt: skip
    query = sql.SQL("SELECT {} FROM {} AS o WHERE {}").format(
        sql.SQL(", ").join(tests), place.here.identifier, place.is_row("o", key)
    )
    found = connection.execute(query).fetchone() or ()
    real = {name: text for (name, text), differs in zip(changes.items(), found, strict=True) if differs}
    if not real:
        raise InvalidRequest("There is nothing to change: the row has these values already.")
    return real


def _column(columns: Sequence[Asked], name: str) -> Asked:
    return next(column for column in columns if column.name == name)


def sets(changes: Changes) -> sql.Composable:
    """For SET. Literals without a type: read by the column's own, so that too long a text is refused, not cut."""
    parts = (sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(text)) for name, text in changes.items())
    return sql.SQL(", ").join(parts)


def _update(connection: Connection, place: Place, key: Sequence[str], changes: Changes) -> None:
    query = sql.SQL("UPDATE {} AS o SET {} WHERE {}").format(
        place.here.identifier, sets(changes), place.is_row("o", key)
    )
    try:
        count = connection.execute(query).rowcount
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as error:
        raise refusal(error, place.here, list(changes)) from None
    if count != 1:
        raise Refused(
            "The database did not take the change: a trigger or a rule of the table keeps the row as it is.",
            remedy=_NOTHING,
        )


def _of_whole_row(connection: Connection, place: Place, key: Sequence[str]) -> frozenset[Fault]:
    """What a schema that looks at whole rows says before the change: nobody knows which columns had a part in it."""
    if not describe(place.table.record).has_hooks:
        return frozenset()
    return frozenset(fault for _, fault in faults(connection, stored(connection, place, key), about=(), changed=()))


def _judge(
    connection: Connection, place: Place, key: Sequence[str], changes: Changes, known: frozenset[Fault]
) -> None:  # fmt: skip
    """Raises InvalidRequest where a changed column would still block, or the whole row for what was not `known`."""
    found: dict[str, list[str]] = {}
    for _, fault in faults(connection, stored(connection, place, key), about=changes, changed=changes):
        if fault.field not in changes and fault in known:
            continue
        fields = _named(fault, changes)
        for field in fields or ([fault.field] if fault.rule == WHOLE_ROW_RULE else ()):
            found.setdefault(field, []).append(fault.words)
    if found:
        raise invalid(found)


def _named(fault: Fault, changes: Changes) -> list[str]:
    """Where a fault of changed columns is told: at its own field, if that was changed, else at those that touch it."""
    if fault.field in changes:
        return [fault.field]
    return [name for name in changes if name in fault.touches]


def _record(
    connection: Connection, place: Place, key: Sequence[str], columns: Sequence[Asked],
    before: Mapping[str, str | None], changes: Changes, deed: Deed,
) -> None:  # fmt: skip
    """Raises Refused where triggers undid the change, or took the row away."""
    query = sql.SQL("SELECT {} FROM {} AS o WHERE {}").format(
        sql.SQL(", ").join(texts(recorded(columns))), place.here.identifier, place.is_row("o", key)
    )
    row = connection.execute(query).fetchone()
    after = dict(zip(before, row, strict=True)) if row else {}
    secret = {column.name for column in columns if column.secret}
    undone = [name for name in changes if name not in secret and after.get(name) == before[name]]
    if row is None or undone:
        raise Refused(f"A trigger of the table undid the change of {', '.join(undone or changes)}.", remedy=_NOTHING)
    changed = [name for name in before if after[name] != before[name] or name in changes]
    parts = [
        outbox.change(name, sql.Literal(before[name]), sql.Literal(after[name]), secret=name in secret)
        for name in changed
    ]
    outbox.write(
        connection, deed, place.table.name, keys=place.key_array("o"),
        changes=sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(parts)),
        source=sql.SQL("{} AS o WHERE {}").format(place.here.identifier, place.is_row("o", key)),
    )  # fmt: skip
