"""Rows of the target by hand: shown, checked as somebody types, corrected, and left alone with a reason."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from uuid import uuid4

from briefly_admin.domain.corrections import Cause, Changes, Deed, ShownRow
from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.engine import correcting
from briefly_admin.engine.target import Connection
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.config import Servers


class RowService:
    """One row, or all rows of a cause."""

    def __init__(self, servers: Servers, audit: AuditService, now: Callable[[], datetime]) -> None:
        self._servers = servers
        self._audit = audit
        self._now = now

    def get(self, actor: Actor, table: str, key: Sequence[str]) -> ShownRow:
        """The row with what blocks it. Raises NotAllowed, NotFound, InvalidRequest, Refused, Unavailable."""
        require(actor, Permission.READ)
        with self._target() as connection:
            return correcting.read_row(connection, self._servers.plan, table, key)

    def check(self, actor: Actor, table: str, key: Sequence[str], changes: Changes) -> ShownRow:
        """The row as it would be; nothing is written. Raises as `get`, and InvalidRequest for columns that nobody may
        change.
        """
        require(actor, Permission.CORRECT)
        with self._target() as connection:
            return correcting.check_row(connection, self._servers.plan, table, key, _texts(changes))

    def correct(
        self, actor: Actor, table: str, key: Sequence[str], *, version: str, changes: Changes
    ) -> ShownRow:  # fmt: skip
        """The row, changed. Raises as `check`, with details {column: texts}; Refused where it has changed since
        `version`; Busy beside a run.
        """
        require(actor, Permission.CORRECT)
        return correcting.correct_row(
            self._servers.target, self._servers.plan, table, key, version=version, changes=_texts(changes),
            deed=_deed(actor),
        )  # fmt: skip

    @contextmanager
    def _target(self) -> Iterator[Connection]:
        with self._servers.target.session() as connection:
            yield connection


def _deed(actor: Actor, cause: Cause | None = None) -> Deed:
    return Deed(uuid4(), actor.name, actor.role.value, actor.via, actor.address, cause)


def _texts(changes: Changes) -> Changes:
    """Raises InvalidRequest where a value is neither a text nor None."""
    faults = {
        str(name): ["Must be a text, or null for no value."]
        for name, text in changes.items()
        if not (text is None or isinstance(text, str))
    }
    if faults:
        raise InvalidRequest("Nothing was changed: a value is no text.", details=faults)
    return dict(changes)
