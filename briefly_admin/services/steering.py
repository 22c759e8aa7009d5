"""Steering runs: paused, resumed, cancelled, approved, changed while they run."""

from collections.abc import Mapping
from typing import Any, Final

from briefly_admin.domain.actions import Action
from briefly_admin.domain.config import BY_NAME, FIELDS, RunConfig
from briefly_admin.domain.errors import InvalidRequest, Refused
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import BOUND_TO_PLAN, EXCLUSIVE_KINDS, RunKind, RunState
from briefly_admin.plans import plan as plan_of
from briefly_admin.services import approving
from briefly_admin.services.auditing import CLOCK, require
from briefly_admin.services.contexts import require_same_plan
from briefly_admin.services.reading import find_run, is_resumable, may
from briefly_admin.services.starting import refuse_if_busy
from briefly_admin.services.views import RunView
from briefly_admin.services.watching import Watching
from briefly_admin.store import runs
from briefly_admin.store.database import Connection, Row

_S: Final = RunState
_RESUMABLE: Final = frozenset({_S.PAUSED, _S.INTERRUPTED, _S.FAILED, _S.CANCELLED})
_CANCELLED_AT_ONCE: Final = frozenset({_S.AWAITING_APPROVAL, _S.PENDING, _S.PAUSED, _S.INTERRUPTED})
_CHANGEABLE: Final = frozenset({_S.RUNNING, _S.PAUSED})
_LIVE: Final = tuple(field.name for field in FIELDS if field.live)


class Steering(Watching):
    """State, change and audit event go in one transaction."""

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
