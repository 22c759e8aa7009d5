"""What the database says to a correction, in words that name field and constraint and never a value."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.errors import BrieflyError, InvalidRequest, Refused, Unavailable
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.retry import lost_connection
from briefly_admin.engine.target import Connection, safe_message

MEANWHILE: Final = "The row was changed meanwhile by somebody else: look at it again."
_NOTHING: Final = "Nothing was changed."
_CONFLICTS: Final = (errors.LockNotAvailable, errors.DeadlockDetected)
_WORDS: Final[tuple[tuple[type[psycopg.Error], str], ...]] = (
    (errors.UniqueViolation, "another row has this value"),
    (errors.ExclusionViolation, "another row stands against this value"),
    (errors.ForeignKeyViolation, "there is no row that it refers to, or other rows refer to what it was"),
    (errors.NotNullViolation, "must not be missing"),
    (errors.CheckViolation, "is against a rule of the table"),
    (errors.StringDataRightTruncation, "is too long for its column"),
    (errors.NumericValueOutOfRange, "is out of its column's range"),
)


@contextmanager
def answering() -> Iterator[None]:
    """Raises what `told` makes of a database error."""
    try:
        yield
    except psycopg.Error as error:
        raise told(error) from None


@contextmanager
def reading_row(connection: Connection, *, seconds: int = 5) -> Iterator[None]:
    """A READ ONLY transaction that sees one instant; each statement ends after `seconds`. Raises as `told`."""
    with answering():
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            settle_session(connection, seconds)
            yield
        finally:
            if not connection.closed:
                connection.rollback()


def settle_session(connection: Connection, seconds: int) -> None:
    """Within a transaction: how long statements may take, and no compiling of hundreds of small expressions."""
    connection.execute(
        sql.SQL("SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = '1s'; SET LOCAL jit = off").format(
            sql.Literal(f"{seconds}s")
        )
    )


def told(error: psycopg.Error) -> BrieflyError:
    """An error of any statement: Unavailable where trying again can help, else Refused."""
    if lost_connection(error):
        return Unavailable(
            f"The connection to the target was lost: {safe_message(error)}.",
            remedy="Try again once the database answers.",
        )
    if isinstance(error, errors.SerializationFailure):
        return Refused("A row was changed meanwhile by somebody else: look again.", remedy=_NOTHING)
    if isinstance(error, _CONFLICTS):
        return Refused(
            "Somebody else holds the row, or what it refers to.", remedy=f"{_NOTHING} Try again in a moment."
        )
    if isinstance(error, errors.QueryCanceled):
        return Unavailable(
            "The database took too long to look at the row.",
            remedy=f"{_NOTHING} Try again; if it stays so, an index may be missing on what the row refers to.",
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return Refused(
            f"The role of TARGET_DATABASE_URL may not do this ({safe_message(error)}).",
            remedy=f"{_NOTHING} Grant it what is missing.",
        )
    return Refused(f"The database refuses it ({safe_message(error)}).", remedy=_NOTHING)


def refusal(error: psycopg.Error, catalog: CatalogTable, changed: Sequence[str]) -> BrieflyError:
    """An error of the change itself: InvalidRequest that names the fields where it is about them, else as `told`."""
    words = reason(error)
    fields = _fields(error, catalog, changed)
    if words is None or not fields:
        return told(error)
    return invalid({field: [words] for field in fields})


def reason(error: psycopg.Error) -> str | None:
    """Why the database does not take a value, with the constraint's name; None where it is about something else."""
    for known, words in _WORDS:
        if isinstance(error, known):
            name = error.diag.constraint_name
            return f"{words} (constraint {name})" if name else words
    if isinstance(error, psycopg.DataError):
        return f"does not fit its column ({safe_message(error)})"
    return None


def _fields(error: psycopg.Error, catalog: CatalogTable, changed: Sequence[str]) -> Sequence[str]:
    """The changed columns that the error is about; () where it is about another table."""
    diag = error.diag
    if diag.table_name and (diag.schema_name, diag.table_name) != (catalog.schema, catalog.name):
        return ()
    named = {diag.column_name} if diag.column_name else set()
    columns = {constraint.name: constraint.columns for constraint in catalog.constraints}
    columns |= {index.name: index.columns for index in catalog.indexes}
    named |= set(columns.get(diag.constraint_name or "", ()))
    return [name for name in changed if name in named] or list(changed)


def invalid(faults: Mapping[str, Sequence[str]]) -> InvalidRequest:
    """Nothing was changed, field by field."""
    said = "; ".join(f"{field}: {text}" for field, texts in faults.items() for text in texts)
    return InvalidRequest(f"Nothing was changed. {said}.", details=faults, remedy="Correct these values.")
