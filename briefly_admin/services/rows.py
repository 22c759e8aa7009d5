"""Rows of the target by hand: shown, checked as somebody types, corrected, fixed by the cause, left alone."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Final
from uuid import UUID, uuid4

from briefly_admin.domain.corrections import Cause, Changes, Deed, Fixed, RowOfCause, ShownRow, told_key
from briefly_admin.domain.errors import BrieflyError, InvalidRequest, NotFound, Refused, RunFailed
from briefly_admin.domain.findings import FindingClass
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.engine import correcting
from briefly_admin.engine.identity import identify
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.config import Servers
from briefly_admin.services.reading import find_run
from briefly_admin.services.recording import Recorder
from briefly_admin.store import corrections, skips
from briefly_admin.store.database import Connection
from briefly_admin.store.texts import storable

LONGEST_REASON: Final = 500
"""Characters."""
_Keys = list[tuple[str, ...]]


class RowService:
    """One row, or all rows of a cause."""

    def __init__(self, servers: Servers, audit: AuditService, now: Callable[[], datetime]) -> None:
        self._servers = servers
        self._audit = audit
        self._recorder = Recorder(servers, audit, now)

    def get(self, actor: Actor, table: str, key: Sequence[str]) -> ShownRow:
        """The row with what blocks it. Raises NotAllowed, NotFound, InvalidRequest, Refused, Unavailable."""
        require(actor, Permission.READ)
        with self._servers.target.session() as connection:
            return correcting.read_row(connection, self._servers.plan, table, key)

    def check(self, actor: Actor, table: str, key: Sequence[str], changes: Changes) -> ShownRow:
        """The row as it would be; nothing is written. Raises as `get`, and InvalidRequest for columns that nobody may
        change.
        """
        require(actor, Permission.CORRECT)
        with self._servers.target.session() as connection:
            return correcting.check_row(connection, self._servers.plan, table, key, _texts(changes))

    def correct(self, actor: Actor, table: str, key: Sequence[str], *, version: str, changes: Changes) -> ShownRow:
        """The row, changed. Raises as `check`, with details {column: texts}; Refused where it has changed since
        `version`; Busy beside a run.
        """
        require(actor, Permission.CORRECT)
        changes = _texts(changes)
        self.settle()
        row = correcting.correct_row(
            self._servers.target, self._servers.plan, table, key, version=version, changes=changes, deed=_deed(actor)
        )
        return replace(row, recorded=self._recorded())

    def preview_fix(self, actor: Actor, cause: Cause, changes: Changes) -> Fixed:
        """What `fix` would do; triggers fire, and everything is rolled back. Raises as `fix`."""
        return self._fix(actor, cause, _texts(changes), expected=None)

    def fix(self, actor: Actor, cause: Cause, changes: Changes, *, expected: int) -> Fixed:
        """Gives all rows of the cause these values, if there are `expected` of them and each would be right.

        Raises NotAllowed, NotFound, InvalidRequest with details {column: texts}, Refused, Busy beside a run,
        Unavailable; nothing is changed then.
        """
        changes = _texts(changes)
        require(actor, Permission.CORRECT)
        self.settle()
        return replace(self._fix(actor, cause, changes, expected=expected), recorded=self._recorded())

    def _fix(self, actor: Actor, cause: Cause, changes: Changes, *, expected: int | None) -> Fixed:
        require(actor, Permission.CORRECT)
        keys = self._quarantined(cause, to_fix=True) if cause.run_id is not None else None
        excluded = self._skipped(cause.table) if keys is None else ()
        return correcting.fix(
            self._servers.target, self._servers.plan, cause, changes, deed=_deed(actor, cause), expected=expected,
            keys=keys, excluded=excluded,
        )  # fmt: skip

    def causes_rows(
        self, actor: Actor, cause: Cause, *, limit: int | None = None,
        classes: Collection[FindingClass] = frozenset(FindingClass),
    ) -> Iterator[RowOfCause]:  # fmt: skip
        """Every row that has the finding now (of these classes), or that the run left alone with this cause; streamed.

        Skipped rows are left aside. Raises NotAllowed, NotFound, Refused, Unavailable: before the first row, where the
        fault is the request's.
        """
        require(actor, Permission.READ)
        keys = self._quarantined(cause) if cause.run_id is not None else None
        excluded = self._skipped(cause.table) if keys is None else ()
        rows = self._stream(cause, limit, classes, keys, excluded)
        try:
            first = next(rows, None)
        except RunFailed as error:  # it is no run that fails here
            raise Refused(error.message, remedy=error.remedy) from None
        return _again(first, rows)

    def _stream(
        self, cause: Cause, limit: int | None, classes: Collection[FindingClass], keys: _Keys | None,
        excluded: Sequence[Sequence[str]],
    ) -> Iterator[RowOfCause]:  # fmt: skip
        plan = self._servers.plan
        with self._servers.target.session(bulk=True) as connection:
            if keys is None:
                yield from correcting.rows_of_cause(
                    connection, plan, cause, limit=limit, classes=classes, excluded=excluded
                )
            else:
                # A row that was removed since is none of the `limit`.
                yield from islice(correcting.rows_of_keys(connection, plan, cause, keys), limit)

    def skip(self, actor: Actor, table: str, key: Sequence[str], *, reason: str) -> None:
        """Leave the row alone from now on, in validations, migrations and replays. Raises NotAllowed, NotFound,
        InvalidRequest, Refused, Unavailable.
        """
        require(actor, Permission.CORRECT)
        reason = _reason(reason)
        key = self._key(table, key)
        target_id, plan = identify(self._servers.target), self._servers.plan.name
        with self._servers.database.begin() as connection:
            skips.put(connection, target_id=target_id, plan=plan, table=table, key=key, reason=reason, by=actor.name)
            self._write(connection, actor, "row.skip", table, key, reason=reason)

    def skipped(self, actor: Actor, table: str, key: Sequence[str]) -> str:
        """Why the row is left alone; '' where it is not. `key` is as ShownRow has it. Raises NotAllowed."""
        require(actor, Permission.READ)
        target_id = identify(self._servers.target)
        with self._servers.database.begin() as connection:
            found = skips.all_of(connection, target_id=target_id, plan=self._servers.plan.name, table=table)
        return next((str(row.reason) for row in found if json.loads(row.key) == list(key)), "")

    def unskip(self, actor: Actor, table: str, key: Sequence[str]) -> None:
        """Treat the row as others again; it need not be there any more. Raises NotAllowed, NotFound, InvalidRequest,
        Refused, Unavailable.
        """
        require(actor, Permission.CORRECT)
        try:
            key = self._key(table, key)
        except NotFound:
            if any(storable(text) != text for text in (table, *key)):
                raise
            key = tuple(key)
        target_id, plan = identify(self._servers.target), self._servers.plan.name
        with self._servers.database.begin() as connection:
            if not skips.remove(connection, target_id=target_id, plan=plan, table=table, key=key):
                raise NotFound(f"The row {told_key(key)} of {told_key([table])} is not one to be left alone.")
            self._write(connection, actor, "row.unskip", table, key)

    def settle(self) -> int:
        """Take over the records of corrections that a crash left in the target; how many deeds. The sweep's.

        Raises Unavailable, Refused.
        """
        return self._recorder.settle()

    def _recorded(self) -> bool:
        """The change stands, whatever becomes of its record now: the next correction, or the sweep, sees to that."""
        with suppress(BrieflyError):
            self._recorder.settle()
            return True
        return False

    def _key(self, table: str, key: Sequence[str]) -> tuple[str, ...]:
        with self._servers.target.session() as connection:
            return correcting.key_of_row(connection, self._servers.plan, table, key)

    def _write(
        self, connection: Connection, actor: Actor, action: str, table: str, key: Sequence[str], **facts: str
    ) -> None:
        details = {"table": table, "key": list(key)} | facts
        self._audit.write(connection, actor, action, f"{table}/{', '.join(key)}", details)

    def _skipped(self, table: str) -> _Keys:
        target_id = identify(self._servers.target)
        with self._servers.database.begin() as connection:
            found = skips.all_of(connection, target_id=target_id, plan=self._servers.plan.name, table=storable(table))
        return [tuple(json.loads(row.key)) for row in found]

    def _quarantined(self, cause: Cause, *, to_fix: bool = False) -> _Keys:
        """Keys of the cause's open rows, but for skipped ones; `to_fix`: nor those that somebody has corrected."""
        target_id = identify(self._servers.target)
        with self._servers.database.begin() as connection:
            run = find_run(connection, cause.run_id or "")
            if run.target_id != target_id:
                raise Refused(
                    f"Run {run.number} was on {run.target_title}, which is another database than the target now.",
                    remedy="Point TARGET_DATABASE_URL back at it.",
                )
            return corrections.quarantined_keys(
                connection, UUID(str(run.id)), table=storable(cause.table), field=storable(cause.field),
                cause=storable(cause.rule), target_id=target_id, plan=self._servers.plan.name,
                to_fix=to_fix,
            )  # fmt: skip


def _again(first: RowOfCause | None, rows: Iterator[RowOfCause]) -> Iterator[RowOfCause]:
    if first is not None:
        yield first
        yield from rows


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


def _reason(reason: str) -> str:
    """Raises InvalidRequest."""
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST_REASON or not reason.isprintable():
        text = f"Must have 1 to {LONGEST_REASON} printable characters, on one line."
        raise InvalidRequest(f"A row is left alone with a reason only: {text}", details={"reason": [text]})
    return reason
