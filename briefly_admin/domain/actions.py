"""What may be done with a run in which state, by whom: the only place that knows; templates never test states."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from briefly_admin.domain.permissions import GRANTS, Permission, Role
from briefly_admin.domain.runs import RunKind, RunState


class Action(StrEnum):
    """A button of the run page, and the same deed by endpoint and command."""

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    CHANGE = "change"
    ROLL_BACK = "roll_back"
    VALIDATE = "validate"
    REPLAY = "replay"
    RUN_AGAIN = "run_again"
    REPORT = "report"


_S, _A = RunState, Action
BY_STATE: Final[dict[RunState, tuple[Action, ...]]] = {
    _S.AWAITING_APPROVAL: (_A.APPROVE, _A.CANCEL),
    _S.PENDING: (_A.CANCEL,),
    _S.RUNNING: (_A.PAUSE, _A.CANCEL, _A.CHANGE),
    _S.PAUSING: (),
    _S.PAUSED: (_A.RESUME, _A.CANCEL, _A.CHANGE),
    _S.INTERRUPTED: (_A.RESUME, _A.CANCEL),
    _S.CANCELLING: (),
    _S.FAILED: (_A.RESUME, _A.ROLL_BACK, _A.VALIDATE, _A.REPORT),
    _S.CANCELLED: (_A.RESUME, _A.ROLL_BACK, _A.VALIDATE, _A.REPORT),
    _S.COMPLETED: (_A.REPORT, _A.ROLL_BACK, _A.RUN_AGAIN),
    _S.COMPLETED_WITH_SKIPS: (_A.REPORT, _A.REPLAY, _A.ROLL_BACK, _A.RUN_AGAIN),
    _S.ROLLED_BACK: (_A.REPORT,),
}
PERMISSION: Final[dict[Action, Permission]] = {
    _A.APPROVE: Permission.APPROVE,
    _A.PAUSE: Permission.STEER,
    _A.RESUME: Permission.STEER,
    _A.CANCEL: Permission.STEER,
    _A.CHANGE: Permission.STEER,
    _A.ROLL_BACK: Permission.ROLL_BACK,
    _A.VALIDATE: Permission.VALIDATE,
    _A.REPLAY: Permission.RUN,
    _A.RUN_AGAIN: Permission.RUN,
    _A.REPORT: Permission.READ,
}
_MIGRATION_ONLY: Final = frozenset({_A.RUN_AGAIN, _A.VALIDATE, _A.REPLAY})
_BACKING_UP: Final = frozenset({RunKind.MIGRATION, RunKind.ROLLBACK})
"""Kinds that take a backup first; a replay is undone by its migration's."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """An action that the state allows, and whether the role does; `why_not` says why a shown button is off."""

    action: Action
    allowed: bool
    why_not: str = ""


def allowed_actions(
    state: RunState, role: Role, *, kind: RunKind = RunKind.MIGRATION, has_backup: bool = True, resumable: bool = True,
    same_plan: bool = True, unapprovable: str = "", replayable: bool = True,
) -> tuple[Allowed, ...]:  # fmt: skip
    """The actions of a state, in the order of their buttons.

    `has_backup`: an unexpired backup of the run is there; `resumable`: nothing else began since it stopped;
    `same_plan`: the plan is the one that the run began with, or the run is not bound to it; `unapprovable`: why whoever
    looks does not approve it, or ''; `replayable`: something of its quarantine is left, or of a replay to be finished.
    """
    listed = []
    for action in BY_STATE[state]:
        if action in _MIGRATION_ONLY and kind is not RunKind.MIGRATION:
            continue
        if action is Action.ROLL_BACK and kind not in _BACKING_UP:
            continue
        why = _why_not(
            action, role, has_backup=has_backup, resumable=resumable, same_plan=same_plan, replayable=replayable
        )
        if action is Action.APPROVE:
            why = why or unapprovable
        listed.append(Allowed(action, allowed=not why, why_not=why))
    return tuple(listed)


def _why_not(
    action: Action, role: Role, *, has_backup: bool, resumable: bool, same_plan: bool, replayable: bool
) -> str:  # fmt: skip
    permission = PERMISSION[action]
    if permission not in GRANTS[role]:
        needed = next(r for r in Role if permission in GRANTS[r])
        return f"This needs the role {needed}; yours is {role}."
    reasons = {
        Action.ROLL_BACK: ((has_backup, "There is no backup of this run that can be restored."),),
        Action.RESUME: (
            (resumable, "Another run has begun since; start a new one."),
            (same_plan, "The plan has changed since it began; start a new run."),
        ),
        Action.REPLAY: (
            (same_plan, "The plan has changed since it ran; start a new migration."),
            (replayable, "Nothing is left in its quarantine."),
        ),
    }
    return next((why for holds, why in reasons.get(action, ()) if not holds), "")
