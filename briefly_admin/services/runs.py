"""Runs as people deal with them: start, look, steer, roll back."""

import builtins
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from briefly_admin.domain.actions import Action
from briefly_admin.domain.config import BY_NAME, FIELDS, RunConfig
from briefly_admin.domain.errors import BackupExpired, Busy, InvalidRequest, Refused
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import BOUND_TO_PLAN, EXCLUSIVE_KINDS, RunKind, RunState
from briefly_admin.engine.beyond import checked, touchable
from briefly_admin.engine.blockers import blockers
from briefly_admin.engine.identity import identify
from briefly_admin.plans import plan as plan_of
from briefly_admin.services import approving, restoring
from briefly_admin.services.auditing import CLOCK, AuditService, require
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.contexts import require_same_plan
from briefly_admin.services.planning import plan_view
from briefly_admin.services.reading import Reader, find_backup, find_run, is_resumable, may
from briefly_admin.services.starting import Request, Starter, refuse_if_busy
from briefly_admin.services.views import LogLine, PlanView, RunView, ThroughputPoint
from briefly_admin.store import details, runs
from briefly_admin.store.database import Connection, Row

_S: Final = RunState
_RESUMABLE: Final = frozenset({_S.PAUSED, _S.INTERRUPTED, _S.FAILED, _S.CANCELLED})
_CANCELLED_AT_ONCE: Final = frozenset({_S.AWAITING_APPROVAL, _S.PENDING, _S.PAUSED, _S.INTERRUPTED})
_CHANGEABLE: Final = frozenset({_S.RUNNING, _S.PAUSED})
_LIVE: Final = tuple(field.name for field in FIELDS if field.live)
_POLL: Final = 0.2
_POINTS: Final = 2000
_LEVELS: Final = ("L0", "L1")
_OF_A_BACKUP: Final = frozenset({RunKind.VERIFICATION, RunKind.DRILL, RunKind.ROLLBACK})
"""Each has a method of its own."""


class RunService:
    """Every method checks permission first; state, change and audit event go in one transaction."""

    def __init__(
        self,
        servers: Servers,
        config: ServiceConfig,
        audit: AuditService,
        reader: Reader,
        now: Callable[[], datetime],
    ) -> None:
        self._servers = servers
        self._database = servers.database
        self._config = config
        self._audit = audit
        self._reader = reader
        self._starter = Starter(servers, config, audit, now)
        self._now = now

    def start(
        self,
        actor: Actor,
        kind: RunKind,
        *,
        config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Begin a migration, a validation or a backup. A preview takes `options["backup"]`; a rollback has a method.

        Raises NotAllowed, InvalidRequest (field by field), Busy (naming the other run), Refused, Unavailable.
        """
        asked = dict(options or {})
        if kind is RunKind.PREVIEW:
            return self.preview(actor, str(asked.pop("backup", "")), idempotency_key=idempotency_key)
        if kind in _OF_A_BACKUP or asked:
            text = f"A {kind} is not started so: it needs a backup, or takes no options."
            raise InvalidRequest(text, details={"kind": [text]})
        request = Request(kind=kind, config=config or {}, idempotency_key=idempotency_key)
        return self._view(self._starter.start(actor, request), actor)

    def rollback(
        self,
        actor: Actor,
        backup: str,
        *,
        confirm: bool,
        mode: str = "exact",
        tables: builtins.list[str] | None = None,
        reason: str = "",
        preview_id: str | None = None,
        rules: Mapping[str, str] | None = None,
        settled: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        allow: Sequence[str] = (),
        allowance: int = 0,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Begin to restore a backup (its name or id). Nothing happens unless `confirm` is True; see restoring.Wish.

        Raises NotAllowed, InvalidRequest, NotFound, BackupExpired, BackupDamaged, Refused, Busy, Unavailable.
        """
        require(actor, Permission.ROLL_BACK)
        wish = restoring.Wish(
            backup=backup, mode=mode, tables=tables, reason=reason, preview_id=preview_id, rules=rules or {},
            settled=settled or {}, allow=tuple(allow), allowance=allowance,
        )  # fmt: skip
        restoring.check_form(wish, confirm=confirm)
        repeated = self._starter.repeated(RunKind.ROLLBACK, idempotency_key)
        if repeated is not None:
            return self._view(repeated, actor)
        with self._database.begin() as connection:
            options, target_id = restoring.options_of(connection, wish, self._servers.plan, self._now())
        if wish.allow:
            options |= self._touched(wish.allow)
        request = Request(
            kind=RunKind.ROLLBACK, options=options, target_id=target_id, idempotency_key=idempotency_key
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def _touched(self, allow: Sequence[str]) -> dict[str, Any]:
        """The tables whose rows may go or change; what the plan's backup would lack of them, the rollback's takes."""
        with self._servers.target.session() as connection:
            allowed, outside = touchable(connection, self._servers.plan, allow)
        return {"allow": allowed} | ({"beyond": outside} if outside else {})

    def preview(
        self,
        actor: Actor,
        backup: str,
        *,
        tables: builtins.list[str] | None = None,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Begin to count what restoring the backup, or some of its tables, would do. Raises as `rollback`."""
        require(actor, Permission.PREVIEW)
        with self._database.begin() as connection:
            wish = restoring.Wish(backup=backup, tables=tables)
            options, target_id = restoring.options_of(connection, wish, self._servers.plan, self._now())
        request = Request(kind=RunKind.PREVIEW, options=options, target_id=target_id, idempotency_key=idempotency_key)
        return self._view(self._starter.start(actor, request), actor)

    def back_up(self, actor: Actor, *, beyond: Sequence[str] = (), idempotency_key: str | None = None) -> RunView:
        """Begin a backup of its own: the plan's tables, and those `beyond` it, "schema.table" each ("*": all others).

        Raises NotAllowed, InvalidRequest, Refused (naming tables that cannot be read), Unavailable.
        """
        require(actor, Permission.BACK_UP)
        options: dict[str, Any] = {}
        if beyond:
            with self._servers.target.session() as connection:
                options["beyond"] = checked(connection, self._servers.plan, beyond)
        request = Request(kind=RunKind.BACKUP, options=options, idempotency_key=idempotency_key)
        return self._view(self._starter.start(actor, request), actor)

    def verify_backup(
        self, actor: Actor, reference: str, *, level: str = "L1", idempotency_key: str | None = None
    ) -> RunView:
        """Begin to look through a backup: L0, all objects are there; L1, every byte. Raises NotAllowed, NotFound,
        InvalidRequest, BackupExpired, Busy.
        """
        require(actor, Permission.VERIFY_BACKUP)
        if level not in _LEVELS:
            text = f"Must be one of: {', '.join(_LEVELS)}."
            raise InvalidRequest(f"There is no level '{level}'.", details={"level": [text]})
        repeated = self._starter.repeated(RunKind.VERIFICATION, idempotency_key)
        if repeated is not None:
            return self._view(repeated, actor)
        backup = self._kept(reference, RunKind.VERIFICATION)
        options = {"backup_id": str(backup.id), "backup_name": backup.name, "level": level}
        place = (backup.target_id, backup.target_title)
        request = Request(
            kind=RunKind.VERIFICATION, options=options, place=place, idempotency_key=idempotency_key
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def drill(self, actor: Actor, reference: str, *, idempotency_key: str | None = None) -> RunView:
        """Begin to restore a backup into a scratch schema of the target, or of DRILL_DATABASE_URL, and compare.

        Raises NotAllowed, NotFound, BackupExpired, Busy, Unavailable.
        """
        require(actor, Permission.VERIFY_BACKUP)
        repeated = self._starter.repeated(RunKind.DRILL, idempotency_key)
        if repeated is not None:
            return self._view(repeated, actor)
        backup = self._kept(reference, RunKind.DRILL)
        where = self._servers.drill_place
        options = {"backup_id": str(backup.id), "backup_name": backup.name, "place": where.title}
        request = Request(
            kind=RunKind.DRILL, options=options, place=(identify(where), where.title), idempotency_key=idempotency_key
        )  # fmt: skip
        return self._view(self._starter.start(actor, request), actor)

    def _kept(self, reference: str, kind: RunKind) -> Row[Any]:
        """A backup that can still be read, and that no run of the kind looks at just now."""
        with self._database.begin() as connection:
            backup = find_backup(connection, reference)
            if backup.shred_key is None:
                raise BackupExpired(
                    f"{backup.name} has expired: nobody can read it any more.",
                    remedy="`briefly-admin backup list` and the page Backups name those that can be read.",
                )
            other = runs.looking_at(connection, kind.value, backup.id)
        if other is not None:
            raise Busy(
                f"Run {other.number} is a {kind} of {backup.name} already ({other.state}).", run_id=str(other.id),
                remedy="Look at it, or wait until it ends.",
            )  # fmt: skip
        return backup

    def pause(self, actor: Actor, run_id: str) -> RunView:
        """Ask the leader to stop after the batch in hand. Raises NotAllowed, NotFound, Refused."""
        require(actor, Permission.STEER)
        with self._database.begin() as connection:
            row = find_run(connection, run_id)
            moved = runs.transition(connection, row.id, _S.PAUSING, before={_S.RUNNING}, by=actor.name)
            return self._steered(connection, actor, row, Action.PAUSE, moved=moved)

    def cancel(self, actor: Actor, run_id: str) -> RunView:
        """End the run: at once where nobody leads it, else after the batch in hand."""
        require(actor, Permission.STEER)
        with self._database.begin() as connection:
            row = find_run(connection, run_id)
            moved = runs.transition(
                connection, row.id, _S.CANCELLED, before=_CANCELLED_AT_ONCE, by=actor.name, completed_at=self._now()
            ) or runs.transition(connection, row.id, _S.CANCELLING, before={_S.RUNNING}, by=actor.name)
            return self._steered(connection, actor, row, Action.CANCEL, moved=moved)

    def approve(self, actor: Actor, run_id: str) -> RunView:
        """Let a run begin that another admin has asked for. Raises NotAllowed, NotFound, Refused."""
        require(actor, Permission.APPROVE)
        approving.require_person(actor)
        with self._database.begin() as connection:
            row = find_run(connection, run_id)
            waits = RunState(row.state) is _S.AWAITING_APPROVAL
            option = approving.approved(row, actor, self._now()) if waits else {}
            moved = runs.transition(
                connection, row.id, _S.PENDING, before={_S.AWAITING_APPROVAL}, by=actor.name, enqueued_at=None
            )
            if moved:
                runs.add_options(connection, row.id, {approving.APPROVAL: option})
            facts = {"approval": option, "asked_by": row.created_by, "reason": row.options.get("reason", "")}
            view = self._steered(connection, actor, row, Action.APPROVE, moved=moved, details=facts)
        self._starter.enqueue(row)
        return view

    def give_up_unapproved(self) -> int:
        """Cancel the runs that nobody approved in time; how many. The clock's."""
        with self._database.begin() as connection:
            late = [
                row
                for row in runs.active(connection)
                if RunState(row.state) is _S.AWAITING_APPROVAL and approving.is_too_late(row, self._now())
            ]
            for row in late:
                runs.transition(
                    connection, row.id, _S.CANCELLED, before={_S.AWAITING_APPROVAL}, by=CLOCK.name,
                    completed_at=self._now(), error="Nobody approved it in time.", error_code="not_approved",
                    remedy="Start it again, and ask another admin to approve it.",
                )  # fmt: skip
                self._audit.write(connection, CLOCK, "run.cancel", f"run {row.number}", {"why": "not approved in time"})
        return len(late)

    def resume(self, actor: Actor, run_id: str) -> RunView:
        """Queue the run again; it goes on from its last batch.

        Raises Busy; Refused where another run began since, or where the plan is another one now.
        """
        require(actor, Permission.STEER)
        with self._database.begin() as connection:
            row = find_run(connection, run_id)
            if RunKind(row.kind) is RunKind.ROLLBACK:
                require(actor, Permission.ROLL_BACK)
            runs.lock_target(connection, row.target_id)
            if RunKind(row.kind) in EXCLUSIVE_KINDS:
                refuse_if_busy(connection, row.target_id, but=row.id)
            if not is_resumable(row, runs.newest_exclusive(connection)):
                raise Refused("Another run has begun since; this one cannot go on.", remedy="Start a new one.")
            if RunState(row.state) in _RESUMABLE and RunKind(row.kind) in BOUND_TO_PLAN:
                require_same_plan(row, plan_of(row.plan))
            waits = self._starter.waits_again(row)
            moved = runs.transition(
                connection, row.id, _S.AWAITING_APPROVAL if waits else _S.PENDING, before=_RESUMABLE, by=actor.name,
                enqueued_at=None, completed_at=None, error=None, error_code=None, remedy=None,
            )  # fmt: skip
            if moved and waits:
                option = approving.asked(row._asdict(), self._now(), by=actor)
                runs.add_options(connection, row.id, {approving.APPROVAL: option})
            view = self._steered(connection, actor, row, Action.RESUME, moved=moved)
        if not waits:
            self._starter.enqueue(row)
        return view

    def change(self, actor: Actor, run_id: str, config: Mapping[str, Any]) -> RunView:
        """Change batch size, pause or workers of a running or paused run. Raises InvalidRequest for other fields."""
        require(actor, Permission.STEER)
        if not config:
            raise InvalidRequest(f"There is nothing to change; what can be changed: {', '.join(_LIVE)}.")
        fixed = [name for name in config if name in BY_NAME and not BY_NAME[name].live]
        if fixed:
            texts = {name: ["Cannot be changed once a run has begun."] for name in fixed}
            raise InvalidRequest(f"{', '.join(fixed)} cannot be changed once a run has begun.", details=texts)
        with self._database.begin() as connection:
            row = find_run(connection, run_id)
            new = RunConfig().with_json(row.config).with_json(config).to_json()
            moved = runs.set_config(connection, row.id, new, old=row.config, states=_CHANGEABLE)
            return self._steered(connection, actor, row, Action.CHANGE, moved=moved, details=dict(config))

    def _steered(
        self,
        connection: Connection,
        actor: Actor,
        row: Row[Any],
        action: Action,
        *,
        moved: bool,
        details: Mapping[str, Any] | None = None,
    ) -> RunView:
        now_row = runs.get(connection, row.id) or row
        view = self._reader.run(connection, now_row, actor)
        if not moved:
            possible = ", ".join(allowed.action for allowed in view.actions if allowed.allowed) or "nothing"
            held = "" if may(view, action) else f" Possible now: {possible}."
            raise Refused(f"Run {row.number} is {now_row.state}: {action} is not possible.{held}", remedy="Look again.")
        self._audit.write(connection, actor, f"run.{action}", f"run {row.number}", details or {})
        return view

    def get(self, actor: Actor, run_id: str) -> RunView:
        """A run by its id or number. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            view = self._reader.run(connection, find_run(connection, run_id), actor)
        return replace(view, blocking=blockers(self._servers.target)) if view.waiting else view

    def list(
        self, actor: Actor, *, limit: int = 50, before: int | None = None, kind: RunKind | None = None
    ) -> tuple[RunView, ...]:
        """Runs, newest first; `before` is a run number."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            return self._reader.runs(connection, runs.newest(connection, limit=limit, before=before, kind=kind), actor)

    def count(self, actor: Actor) -> int:
        """How many runs there are."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            return runs.count(connection)

    def log(self, actor: Actor, run_id: str, limit: int = 200) -> tuple[LogLine, ...]:
        """The newest lines of the run's log, newest first."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            rows = details.log(connection, find_run(connection, run_id).id, limit=limit)
        return tuple(LogLine(row.at, row.level, row.phase or "", row.message) for row in rows)

    def throughput(self, actor: Actor, run_id: str) -> tuple[ThroughputPoint, ...]:
        """Points of the throughput picture, oldest first."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            rows = details.throughput(connection, find_run(connection, run_id).id, limit=_POINTS)
        return tuple(ThroughputPoint(row.at, row.phase, row.done, row.rate) for row in rows)

    def wait(self, actor: Actor, run_id: str, *, seconds: float) -> RunView:
        """The run once it is finished, or as it is when the time is over."""
        end = time.monotonic() + seconds
        while True:
            view = self.get(actor, run_id)
            left = end - time.monotonic()
            if view.finished or left <= 0:
                return view
            time.sleep(min(_POLL, left))

    def plan_view(self, actor: Actor) -> PlanView:
        """The plan over the target, with an estimate. Raises NotAllowed, Unavailable."""
        require(actor, Permission.READ)
        return plan_view(self._servers, self._config)

    def _view(self, row: Row[Any], actor: Actor) -> RunView:
        with self._database.begin() as connection:
            return self._reader.run(connection, row, actor)
