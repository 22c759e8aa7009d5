"""Leads a run through its phases."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import psycopg

from briefly_admin.domain.errors import BrieflyError, Fenced, RunFailed, Stopped, Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import EXCLUSIVE_KINDS, Phase, RunKind, phases
from briefly_admin.engine import (
    backup,
    before,
    constrain,
    drill,
    expand,
    migrate,
    preflight,
    rehearse,
    replay,
    verification,
    verify,
)
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.fence import Lead, flush, take_over
from briefly_admin.engine.retry import Verdict, classify, describe, patiently
from briefly_admin.engine.rollback import run_phase
from briefly_admin.engine.validate import run as validate

T = TypeVar("T")
PhaseFunction = Callable[[RunContext], Mapping[str, Any]]


def _expand(context: RunContext) -> Mapping[str, Any]:
    """What verification and report compare with is looked at last before the first change."""
    found = before.look(context)
    return {**expand.run(context), "before": found}


_PHASES: Final[Mapping[Phase, PhaseFunction]] = {
    Phase.PREFLIGHT: preflight.run,
    Phase.VALIDATE: validate,
    Phase.BACKUP: backup.run,
    Phase.EXPAND: _expand,
    Phase.MIGRATE: migrate.run,
    Phase.CONSTRAIN: constrain.run,
    Phase.VERIFY: verify.run,
}
_WRITING: Final = frozenset({Phase.EXPAND, Phase.MIGRATE, Phase.CONSTRAIN, Phase.STAGE, Phase.PREVIEW, Phase.RESTORE})
"""What may begin only after a takeover."""
_REPEATABLE: Final = frozenset({Phase.VALIDATE, Phase.BACKUP, Phase.EXPAND, Phase.CONSTRAIN, Phase.VERIFY})
"""Phases that only read, or go on from what is there, so that a lost connection costs a repetition and no more."""
_OF_A_BACKUP: Final[Mapping[RunKind, Mapping[Phase, PhaseFunction]]] = {
    RunKind.VERIFICATION: {Phase.VERIFY: verification.run},
    RunKind.DRILL: {Phase.PREFLIGHT: drill.preflight, Phase.STAGE: drill.stage, Phase.VERIFY: drill.verify},
}
"""Runs that look at a backup: every phase of them is their own, and may be repeated."""
_BY_ROLLBACK: Final = frozenset({RunKind.ROLLBACK, RunKind.PREVIEW})
_BEFORE_AND_AFTER: Final = frozenset({Phase.STAGE, Phase.PREVIEW, Phase.VERIFY})
"""A rollback's phases that may be repeated as a whole; its restore knows itself what it may try again."""


def lead(context: RunContext) -> dict[str, Any]:
    """Leads the run from where earlier attempts left it; `{phase: its result}`.

    Raises the phase's error; Fenced where a newer attempt took over, Stopped where somebody asked for it.
    """
    config = context.config
    planned = phases(
        context.kind, validate=config.validate_data, backup=config.create_backup, rehearse=_rehearsed(context)
    )
    finished = context.journal.finished_phases()
    report: dict[str, Any] = {}
    leading = _Leading(context)
    try:
        for phase in planned:
            if phase in finished and phase is not Phase.PREFLIGHT:
                report[str(phase)] = dict(finished[phase])
                continue
            context.check_stop()
            report[str(phase)] = _lead_phase(context, phase, leading)
    finally:
        leading.release()
    return report


def _rehearsed(context: RunContext) -> bool:
    return context.kind is RunKind.MIGRATION and context.config.dry_run


def _function(context: RunContext, phase: Phase) -> PhaseFunction:
    if context.kind in _OF_A_BACKUP:
        return _OF_A_BACKUP[context.kind][phase]
    if phase is Phase.MIGRATE and _rehearsed(context):
        return rehearse.run
    if phase is Phase.MIGRATE and context.kind is RunKind.REPLAY:
        return replay.run
    if context.kind in _BY_ROLLBACK and phase not in {Phase.PREFLIGHT, Phase.BACKUP}:
        return lambda context: run_phase(context, phase)
    return _PHASES[phase]


class _Leading:
    """The fence and the advisory lock, taken when the first phase needs them and taken again where they were lost."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._lead: Lead | None = None

    def need(self) -> None:
        """Raises Fenced where a newer attempt leads, Busy where another run holds the target."""
        if self._lead and self._lead.alive():
            return
        self.release()
        context = self._context
        self._lead = take_over(
            context.target, context.run_id, context.attempt, sleep=context.sleep, monotonic=context.monotonic
        )
        context.journal.log("info", f"Attempt {context.attempt} took the lead on {context.target.title}.")

    def flush(self) -> None:
        """What the target committed is on its disk before the app database says so."""
        if self._lead:
            self.need()
            flush(self._lead.connection, self._context.run_id, self._context.attempt)

    def release(self) -> None:
        """Ends the session that holds the lock."""
        if self._lead:
            self._lead.release()
        self._lead = None


def _lead_phase(context: RunContext, phase: Phase, leading: _Leading) -> dict[str, Any]:
    journal = context.journal
    journal.phase_started(phase)
    journal.log("info", f"The phase {phase} begins.", phase)
    started = context.monotonic()
    try:
        if phase in _WRITING and context.kind in EXCLUSIVE_KINDS and not _rehearsed(context):
            _again(context, phase, leading.need)
        function = _function(context, phase)
        repeatable = context.kind in _OF_A_BACKUP or (phase in _REPEATABLE and function is _PHASES.get(phase))
        repeatable = repeatable or (context.kind in _BY_ROLLBACK and phase in _BEFORE_AND_AFTER)
        result = dict(_again(context, phase, lambda: function(context)) if repeatable else function(context))
        _again(context, phase, leading.flush)
    except (Fenced, Stopped):
        raise
    except BrieflyError as error:
        journal.phase_failed(phase, str(error))
        journal.log("error", str(error), phase)
        raise
    except psycopg.Error as error:
        failure = _told(phase, error)
        journal.phase_failed(phase, str(failure))
        journal.log("error", str(failure), phase)
        raise failure from None
    journal.phase_finished(phase, result)
    journal.log("info", f"The phase {phase} is done after {context.monotonic() - started:.1f} s.", phase)
    return result


def _again(context: RunContext, phase: Phase, work: Callable[[], T]) -> T:
    def announce(text: str, until: str = "") -> None:
        context.report(Progress(str(phase), waiting=text, waiting_until=until))

    return patiently(context, f"The phase {phase}", announce, work)


def _told(phase: Phase, error: psycopg.Error) -> BrieflyError:
    """A database error that no phase expected, without values of the data."""
    if classify(error) is Verdict.AGAIN:
        return Unavailable(
            f"The database failed in the phase {phase}: {describe(error)}.",
            remedy="Look at the database server, then resume the run.",
        )
    return RunFailed(
        f"The phase {phase} failed: {describe(error)}.",
        remedy="Correct the cause in the target database, then resume the run.",
    )
