"""Kinds, phases and states of runs, and the one table of their transitions."""

from enum import StrEnum
from typing import Final


class RunKind(StrEnum):
    """What a run is for."""

    MIGRATION = "migration"
    VALIDATION = "validation"
    BACKUP = "backup"
    VERIFICATION = "verification"
    """Of a backup: L0 or L1."""
    DRILL = "drill"
    PREVIEW = "preview"
    ROLLBACK = "rollback"
    REPLAY = "replay"


class Phase(StrEnum):
    """The steps of a run."""

    PREFLIGHT = "preflight"
    VALIDATE = "validate"
    BACKUP = "backup"
    EXPAND = "expand"
    MIGRATE = "migrate"
    CONSTRAIN = "constrain"
    STAGE = "stage"
    PREVIEW = "preview"
    RESTORE = "restore"
    VERIFY = "verify"


class RunState(StrEnum):
    """Where a run stands; the words of the JSON field `status`."""

    AWAITING_APPROVAL = "awaiting_approval"
    PENDING = "pending"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    COMPLETED = "completed"
    COMPLETED_WITH_SKIPS = "completed_with_skips"
    ROLLED_BACK = "rolled_back"


_S = RunState

TRANSITIONS: Final[dict[RunState, frozenset[RunState]]] = {
    _S.AWAITING_APPROVAL: frozenset({_S.PENDING, _S.CANCELLED}),
    # A worker takes it; or it is cancelled before one does.
    _S.PENDING: frozenset({_S.RUNNING, _S.CANCELLED, _S.FAILED}),
    _S.RUNNING: frozenset(
        {
            _S.RUNNING,  # another leader takes over: the attempt rises
            _S.PAUSING,
            _S.CANCELLING,
            _S.INTERRUPTED,
            _S.FAILED,
            _S.COMPLETED,
            _S.COMPLETED_WITH_SKIPS,
        }
    ),
    # The batch in flight may still be the last one, or fail.
    _S.PAUSING: frozenset({_S.PAUSED, _S.CANCELLING, _S.INTERRUPTED, _S.FAILED, _S.COMPLETED, _S.COMPLETED_WITH_SKIPS}),
    # What needs an approval and has none that is still good waits for another one when it is to go on.
    _S.PAUSED: frozenset({_S.PENDING, _S.AWAITING_APPROVAL, _S.CANCELLED}),
    _S.INTERRUPTED: frozenset({_S.RUNNING, _S.PENDING, _S.AWAITING_APPROVAL, _S.PAUSED, _S.CANCELLED, _S.FAILED}),
    _S.CANCELLING: frozenset({_S.CANCELLED, _S.FAILED, _S.COMPLETED, _S.COMPLETED_WITH_SKIPS}),
    # Resume from the last batch, or roll back.
    _S.CANCELLED: frozenset({_S.PENDING, _S.AWAITING_APPROVAL, _S.ROLLED_BACK}),
    _S.FAILED: frozenset({_S.PENDING, _S.AWAITING_APPROVAL, _S.ROLLED_BACK}),
    # A rollback that undoes a replay alone opens the migration's quarantine again.
    _S.COMPLETED: frozenset({_S.COMPLETED_WITH_SKIPS, _S.ROLLED_BACK}),
    _S.COMPLETED_WITH_SKIPS: frozenset({_S.COMPLETED, _S.ROLLED_BACK}),
    # Rolling the rollback back restores the former state.
    _S.ROLLED_BACK: frozenset({_S.COMPLETED, _S.COMPLETED_WITH_SKIPS, _S.FAILED, _S.CANCELLED}),
}

ACTIVE: Final = frozenset(
    {_S.AWAITING_APPROVAL, _S.PENDING, _S.RUNNING, _S.PAUSING, _S.PAUSED, _S.INTERRUPTED, _S.CANCELLING}
)
"""A migration, rollback or replay in one of these holds the target."""

LED: Final = frozenset({_S.RUNNING, _S.PAUSING, _S.CANCELLING})
"""A leader is, or should be, at work: its heartbeat is watched."""

EXCLUSIVE_KINDS: Final = frozenset({RunKind.MIGRATION, RunKind.ROLLBACK, RunKind.REPLAY})
"""One of these at a time per target; the others may run beside them."""

BOUND_TO_PLAN: Final = frozenset({RunKind.MIGRATION, RunKind.REPLAY})
"""These go on with the plan that they began with, or not at all."""


def phases(kind: RunKind, *, validate: bool = True, backup: bool = True, rehearse: bool = False) -> tuple[Phase, ...]:
    """The phases of a run of this kind, in order; the flags are those of its RunConfig."""
    p = Phase
    if kind is RunKind.MIGRATION:
        wanted: tuple[Phase | None, ...]
        if rehearse:
            wanted = (p.PREFLIGHT, p.VALIDATE if validate else None, p.MIGRATE)
        else:
            wanted = (
                p.PREFLIGHT, p.VALIDATE if validate else None, p.BACKUP if backup else None,
                p.EXPAND, p.MIGRATE, p.CONSTRAIN, p.VERIFY,
            )  # fmt: skip
        return tuple(phase for phase in wanted if phase)
    return {
        RunKind.VALIDATION: (p.PREFLIGHT, p.VALIDATE),
        RunKind.BACKUP: (p.PREFLIGHT, p.BACKUP),
        RunKind.VERIFICATION: (p.VERIFY,),
        RunKind.DRILL: (p.PREFLIGHT, p.STAGE, p.VERIFY),
        RunKind.PREVIEW: (p.PREFLIGHT, p.STAGE, p.PREVIEW),
        RunKind.ROLLBACK: (p.PREFLIGHT, p.BACKUP, p.STAGE, p.PREVIEW, p.RESTORE, p.VERIFY),
        RunKind.REPLAY: (p.PREFLIGHT, p.MIGRATE, p.CONSTRAIN, p.VERIFY),
    }[kind]


def may_become(state: RunState, new: RunState) -> bool:
    """Whether the table of transitions allows `state` → `new`."""
    return new in TRANSITIONS[state]


def states_before(new: RunState) -> frozenset[RunState]:
    """The states that may become `new`: the WHERE of a conditional UPDATE."""
    return frozenset(state for state, after in TRANSITIONS.items() if new in after)
