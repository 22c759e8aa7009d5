"""How a run begins: permission, target, idempotency, one exclusive run a target, audit, then the queue."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

from briefly_admin.domain.canonical import plain
from briefly_admin.domain.errors import Busy, InvalidRequest, Refused, Unavailable
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import EXCLUSIVE_KINDS, RunKind, RunState
from briefly_admin.engine.identity import identify
from briefly_admin.services import approving
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.store import runs
from briefly_admin.store.database import Connection, Row

_PERMISSION: Final = {
    RunKind.MIGRATION: Permission.RUN,
    RunKind.VALIDATION: Permission.VALIDATE,
    RunKind.BACKUP: Permission.BACK_UP,
    RunKind.VERIFICATION: Permission.VERIFY_BACKUP,
    RunKind.DRILL: Permission.VERIFY_BACKUP,
    RunKind.PREVIEW: Permission.PREVIEW,
    RunKind.ROLLBACK: Permission.ROLL_BACK,
    RunKind.REPLAY: Permission.RUN,
}
"""The kinds that can be started, and what that needs."""
_LONGEST_KEY: Final = 200
_ASKED: Final = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked for; `options` are checked by the caller."""

    kind: RunKind
    config: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    idempotency_key: str | None = None
    asked: Any = None
    """What a repeated request must ask for, too: plain values, as they were given."""
    target_id: str | None = None
    """Of the backup to restore, or the migration to replay: the run is refused on another target."""
    place: tuple[str, str] | None = None
    """(id, title) of where the run works, where that is not the target."""


class Starter:
    """Begins runs."""

    def __init__(
        self, servers: Servers, config: ServiceConfig, audit: AuditService, now: Callable[[], datetime]
    ) -> None:
        self._servers = servers
        self._config = config
        self._audit = audit
        self._now = now

    def start(self, actor: Actor, request: Request) -> Row[Any]:
        """The new run, or the one that a request with the same key began. Raises NotAllowed, InvalidRequest, Busy,
        Refused, Unavailable.
        """
        permit(actor, request.kind)
        config = self._config.defaults.with_json(request.config)
        key = checked_key(request.idempotency_key)
        repeated = self.repeated(request.kind, key, request.asked)
        if repeated is not None:
            return repeated
        target_id, title = request.place or (identify(self._servers.target), self._servers.target.title)
        if request.target_id not in {None, target_id}:
            what, then = ("migration", "migrated") if request.kind is RunKind.REPLAY else ("backup", "backed up")
            raise Refused(
                f"The {what} is of another database than {self._servers.target.title}.",
                remedy=f"Point TARGET_DATABASE_URL at the database that was {then}."
                " If it was only renamed since, give it its name back.",
            )
        plan = self._servers.plan
        options = dict(request.options) | _mark(request.asked, key)
        values = {
            "id": uuid4(), "kind": request.kind.value, "state": RunState.PENDING.value, "plan": plan.name,
            "plan_fingerprint": plan.fingerprint, "target_id": target_id, "target_title": title,
            "config": config.to_json(), "options": options, "created_by": actor.name,
            "state_by": actor.name, "idempotency_key": key,
        }  # fmt: skip
        if self._config.require_approval and approving.needed(request.kind, config.to_json()):
            values["state"] = RunState.AWAITING_APPROVAL.value
            options[approving.APPROVAL] = approving.asked(values, self._now(), by=actor)
        return self._begin(actor, request, values)

    def _begin(self, actor: Actor, request: Request, values: Mapping[str, Any]) -> Row[Any]:
        key, kind = values["idempotency_key"], request.kind
        with self._servers.database.begin() as connection:
            runs.lock_target(connection, values["target_id"])
            repeated = _same_request(connection, kind, key, request.asked)
            if repeated is not None:
                return repeated
            if kind in EXCLUSIVE_KINDS:
                refuse_if_busy(connection, values["target_id"])
            if not runs.begin(connection, values):
                raise Busy("Another run began at the same moment.", remedy="Look at the runs, then try again.")
            row = runs.get(connection, values["id"])
            assert row is not None
            facts = {"id": str(row.id), "kind": kind.value, "plan": row.plan, "target": row.target_title}
            facts |= {"config": row.config, "options": row.options}
            self._audit.write(connection, actor, "run.start", f"run {row.number}", facts)
        if RunState(row.state) is RunState.PENDING:
            self.enqueue(row)
        return row

    def repeated(self, kind: RunKind, key: str | None, asked: Any) -> Row[Any] | None:
        """The run that the same request with the same key began, or None. Raises InvalidRequest, Refused."""
        key = checked_key(key)
        with self._servers.database.begin() as connection:
            return _same_request(connection, kind, key, asked)

    def waits_again(self, row: Row[Any]) -> bool:
        """Whether a run that is to go on needs an approval first: its own has expired, or it never had one."""
        wanted = self._config.require_approval and approving.needed(RunKind(row.kind), row.config)
        return wanted and not approving.is_good(row, self._now())

    def enqueue(self, row: Row[Any]) -> None:
        """Ask for a worker, after the commit; where the queue does not answer, the sweeper asks again."""
        with suppress(Unavailable):
            self._servers.queue.enqueue(str(row.id))
            with self._servers.database.begin() as connection:
                runs.enqueued(connection, row.id)


def permit(actor: Actor, kind: RunKind) -> None:
    """Raises NotAllowed, or InvalidRequest for a kind that nobody starts."""
    if kind not in _PERMISSION:
        text = f"Must be one of: {', '.join(_PERMISSION)}."
        raise InvalidRequest(f"A run of kind {kind} cannot be started.", details={"kind": [text]})
    require(actor, _PERMISSION[kind])


def refuse_if_busy(connection: Connection, target_id: str, **but: Any) -> None:
    """Raises Busy, naming the run that holds the target."""
    other = runs.holder(connection, target_id, **but)
    if other is not None:
        raise Busy(
            f"Run {other.number} ({other.kind}, {other.state}) holds the target.", run_id=str(other.id),
            remedy="Wait until it ends, or cancel it.",
        )  # fmt: skip


def checked_key(key: str | None) -> str | None:
    """An Idempotency-Key. Raises InvalidRequest."""
    if key is None:
        return None
    if not 1 <= len(key) <= _LONGEST_KEY or not key.isprintable():
        text = f"Must have 1 to {_LONGEST_KEY} printable characters."
        raise InvalidRequest(f"The Idempotency-Key cannot be used: {text}", details={"Idempotency-Key": [text]})
    return key


def _same_request(connection: Connection, kind: RunKind, key: str | None, asked: Any) -> Row[Any] | None:
    row = runs.by_idempotency_key(connection, key) if key else None
    if row is None:
        return None
    if row.kind != kind:
        raise Refused(
            f"This Idempotency-Key began run {row.number}, which is a {row.kind}.", remedy="Use a new key."
        )  # fmt: skip
    mark = _mark(asked, key)
    if row.options.get(_ASKED, mark[_ASKED]) != mark[_ASKED]:
        raise Refused(
            f"This Idempotency-Key began run {row.number} by a request that asked for something else.",
            remedy="Repeat that request as it was, or use a new key.",
        )
    return row


def _mark(asked: Any, key: str | None) -> dict[str, str]:
    """The option by which a request with the key is known again; nothing where there is no key."""
    return {_ASKED: sha256(json.dumps(plain(asked), sort_keys=True).encode()).hexdigest()} if key else {}
