"""One plain sentence a state, always with what happens next by itself (design: pages.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from briefly_admin.domain.breaker import BreakerState, BreakerView
from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import breaker as engine_breaker
from briefly_admin.services.rollback_result import RollbackResult, in_words

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_BREAKER: Final = "circuit breaker"
"""Whoever waits for it says so in these words."""

DOING: Final = {
    "preflight": "Checking that everything is ready", "validate": "Validating", "backup": "Backing up",
    "expand": "Adding missing columns", "migrate": "Migrating", "constrain": "Adding constraints and indexes",
    "stage": "Reading the backup", "preview": "Comparing with the backup", "restore": "Restoring",
    "verify": "Verifying",
}  # fmt: skip
_DOING_OF_KIND: Final = {
    (RunKind.DRILL, "stage"): "Restoring", (RunKind.DRILL, "verify"): "Comparing",
    (RunKind.ROLLBACK, "backup"): "Backing up what is there now", (RunKind.REPLAY, "migrate"): "Replaying",
}  # fmt: skip
"""What some kinds do in phases that others have, too."""
_KEEP: Final = "keep"
_DOING_BY_KEEP: Final = {
    "preview": "Comparing with the backup and with what the migration left",
    "restore": "Undoing what the migration changed",
}
"""What a rollback does that undoes the migration alone."""
_BEFORE_RESTORE: Final = frozenset({"preflight", "backup", "stage", "preview"})
"""Phases of a rollback that change nothing."""
_OBJECTS: Final = "L0"
"""The level that counts objects, not rows."""
_READING: Final = frozenset({RunKind.VALIDATION, RunKind.BACKUP, RunKind.VERIFICATION, RunKind.DRILL, RunKind.PREVIEW})
"""Kinds that leave the tables alone."""
_LOOKING: Final = frozenset({RunKind.VERIFICATION, RunKind.DRILL})
"""Kinds that find damage out: that is their result, and no accident."""
_DAMAGED: Final = BackupDamaged.code
_KEEPS_NOTHING: Final = {
    RunKind.BACKUP: "No backup was kept of it; resume takes a new one.",
    RunKind.VERIFICATION: "Nothing was found out about the backup; resume goes on.",
    RunKind.DRILL: "The backup and the tables stay as they were; resume goes on.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that a sentence may speak of."""

    kind: RunKind
    state: RunState
    now: datetime
    state_at: datetime
    state_by: str = ""
    phase: str = ""
    processed: int = 0
    changed: int | None = None
    quarantined: int = 0
    progress: Progress | None = None
    error: str = ""
    error_code: str = ""
    remedy: str = ""
    level: str = ""
    """Of a verification: L0 or L1."""
    backup: str = ""
    """The name of the backup that is looked at."""
    rehearsal: bool = False
    verified: bool = False
    resumable: bool = False
    rollback_until: datetime | None = None
    """Until when its backup can be restored; None if it cannot."""
    pinned: bool = False
    """Its backup stays until it is unpinned."""
    asked_by: str = ""
    """Who asked for it, or had it go on: another admin approves it."""
    approve_until: datetime | None = None
    """When it ends by itself if nobody has approved it."""
    mode: str = ""
    """Of a rollback: exact or keep."""
    result: RollbackResult | None = None
    """What a rollback wrote and left."""
    found: Mapping[str, int] | None = None
    """What a preview counted: rows that "exact" and "keep" (absent where it cannot be) would write, and "edited"."""
    of: int | None = None
    """The number of the migration that is replayed."""
    replayed: int | None = None
    """Rows that a replay took out of its quarantine."""
    left: int | None = None
    """Rows that were then left there."""
    workers: int | None = None
    """Workers that listen; None where nobody could say."""
    busy_with: int | None = None
    """The number of another run that is being led."""
    heals_within: int = 60
    """Seconds within which an interrupted run goes on."""


def sentence(facts: Facts) -> str:
    """What is, and what happens next by itself."""
    return _BY_STATE[facts.state](facts)


def _pending(facts: Facts) -> str:
    if facts.workers is None:
        return "Waiting for a worker; it begins by itself as soon as one is free."
    if not facts.workers:
        return "Waiting for a worker; none listens. It begins by itself as soon as one is started."
    listens = f"{facts.workers:,} {'listens' if facts.workers == 1 else 'listen'}"
    if facts.busy_with is not None:
        return f"Waiting for a worker; {listens}, busy with run {facts.busy_with}."
    return f"Waiting for a worker; {listens}. It begins by itself within seconds."


def _running(facts: Facts) -> str:
    progress = facts.progress
    doing = _doing(facts, progress.phase if progress else facts.phase) or "Starting"
    if progress is None:
        return f"{doing}."
    if progress.waiting:
        return f"{doing}: {progress.waiting.rstrip('.')}."
    table = next((t for t in progress.tables if t.done < t.total and t.rate > 0), None) or next(
        (t for t in progress.tables if t.done < t.total), None
    )
    if table is None:
        return f"{doing}: {rows(progress.done)} done." if progress.done else f"{doing}."
    if facts.level == _OBJECTS:
        return f"Comparing the objects in the store: {table.done:,} of {table.total:,}."
    parts = [f"{table.done:,} of {table.total:,} rows"]
    if round(progress.rate):
        parts.append(f"{progress.rate:,.0f} rows/s")
    if table.rate > 0:
        parts.append(f"about {duration((table.total - table.done) / table.rate)} left in this table")
    if progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} in all")
    place = f"{doing}, {table.table}" if " " in doing else f"{doing} {table.table}"
    return f"{place}: {', '.join(parts)}."


def _doing(facts: Facts, phase: str) -> str:
    """'Migrating'; '' before the first phase."""
    by_keep = facts.kind is RunKind.ROLLBACK and facts.mode == _KEEP
    own = (_DOING_BY_KEEP.get(phase) if by_keep else "") or _DOING_OF_KIND.get((facts.kind, phase))
    return own or DOING.get(phase, "")


def _awaiting_approval(facts: Facts) -> str:
    parts = [f"asked by {facts.asked_by} {_ago(facts)}"] if facts.asked_by else []
    if facts.approve_until is not None:
        parts.append(f"until {_moment(facts.approve_until, facts.now)}")
    return f"Waits until another admin approves it{'; ' if parts else ''}{', '.join(parts)}."


def _paused(facts: Facts) -> str:
    return f"Paused {_by_whom(facts)} at {_rows(facts)}; nothing is locked. It goes on when somebody resumes it."


def _interrupted(facts: Facts) -> str:
    return f"Interrupted by a restart {_ago(facts)}; it goes on by itself within {facts.heals_within} s."


def _cancelled(facts: Facts) -> str:
    if facts.error:
        return f"Cancelled {_ago(facts)}: {facts.error[0].lower()}{facts.error[1:].rstrip('.')}. {facts.remedy}".strip()
    ending = _KEEPS_NOTHING.get(facts.kind, "Rows done are safe; resume goes on from there.")
    return f"Cancelled {_by_whom(facts)} at {_rows(facts)}.{f' {ending}' if facts.resumable else ''}"


def _cancelling(facts: Facts) -> str:
    after = "no table is changed by it" if facts.kind in _READING else "rows done stay as they are"
    return f"Cancelling: the batch in hand ends first; {after}."


def _failed(facts: Facts) -> str:
    doing = _doing(facts, facts.phase)
    error = facts.error.rstrip(".") or "it failed"
    if facts.error_code == _DAMAGED and facts.kind in _LOOKING:
        return f"{error}. {facts.remedy}".strip()
    parts = [f"Stopped while {doing[0].lower()}{doing[1:]}: {error}." if doing else f"Stopped: {error}."]
    if facts.remedy:
        parts.append(facts.remedy)
    if facts.kind is RunKind.ROLLBACK and facts.phase in _BEFORE_RESTORE:
        parts.append("Nothing was rolled back.")
    if facts.resumable and facts.kind is RunKind.MIGRATION and facts.processed and not facts.rehearsal:
        parts.append(f"Rows done are safe; resume goes on from row {facts.processed:,}.")
    if facts.resumable and facts.kind is RunKind.REPLAY:
        parts.append("Rows replayed are safe; resume goes on with the others.")
    return " ".join(parts)


def _completed(facts: Facts) -> str:
    looked = f"{_rows(facts)} looked at"
    if facts.kind is not RunKind.MIGRATION:
        return {
            RunKind.VALIDATION: f"Done: {looked}; the findings say what is wrong and what the repairs will cure.",
            RunKind.BACKUP: f"Done: {_rows(facts)} sealed and proven{_until(facts)}.",
            RunKind.REPLAY: f"{_replayed(facts)}.",
            RunKind.ROLLBACK: f"{_put_back(facts)}; verified{_until(facts)}.",
            RunKind.PREVIEW: f"Done: {_previewed(facts)}.",
            RunKind.VERIFICATION: f"Done: {_looked(facts)}.",
            RunKind.DRILL: f"Done: {_backup(facts)} can be restored: it was, into a scratch schema, and {_rows(facts)} "
            "compared equal; the scratch schema is gone again.",
        }.get(facts.kind, f"Done: {looked}.")
    if facts.rehearsal:
        return f"Rehearsed: {looked}{_changed(facts, 'would change')}; nothing was committed."
    verified = "; verified" if facts.verified else ""
    return f"Done: {looked}{_changed(facts, 'changed')}{_quarantined(facts)}{verified}{_until(facts)}."


def _replayed(facts: Facts) -> str:
    of = f" of run {facts.of}" if facts.of is not None else ""
    left = facts.left or 0
    stay = f"{left:,} {'is' if left == 1 else 'are'}" if left else "nothing is"
    return f"Replayed {rows(facts.replayed or 0)}{of}; {stay} left in quarantine"


def _put_back(facts: Facts) -> str:
    if facts.result is None:
        return "Done: the data is as it was at the backup"
    return in_words(facts.result)


def _previewed(facts: Facts) -> str:
    found = facts.found
    if found is None:
        return "the preview says what a rollback would do now"
    would = f"exact would write {rows(found['exact'])}"
    if _KEEP in found:
        would += f", keep {found[_KEEP]:,}"
    return f"{would}; {found['edited']:,} edited since" if "edited" in found else would


def _rolled_back(facts: Facts) -> str:
    by = f" by {facts.state_by}" if facts.state_by else ""
    return f"Rolled back {_ago(facts)}{by}; what this run did is undone."


def _backup(facts: Facts) -> str:
    return facts.backup or "the backup"


def _looked(facts: Facts) -> str:
    if facts.level == _OBJECTS:
        return f"nothing of {_backup(facts)} is missing: every object is there, of its size and sum. None was opened"
    return f"{_backup(facts)} is whole: every byte was opened, {_rows(facts)} counted and hashed"


_BY_STATE: Final[dict[RunState, Callable[[Facts], str]]] = {
    RunState.AWAITING_APPROVAL: _awaiting_approval,
    RunState.PENDING: _pending,
    RunState.RUNNING: _running,
    RunState.PAUSING: lambda _: "Pausing: the batch in hand ends first.",
    RunState.PAUSED: _paused,
    RunState.INTERRUPTED: _interrupted,
    RunState.CANCELLING: _cancelling,
    RunState.CANCELLED: _cancelled,
    RunState.FAILED: _failed,
    RunState.COMPLETED: _completed,
    RunState.COMPLETED_WITH_SKIPS: _completed,
    RunState.ROLLED_BACK: _rolled_back,
}


def next_try(progress: Progress, now: datetime) -> str:
    """'next try in 12 s' of what waits; '' where nobody knows when."""
    try:
        until = datetime.fromisoformat(progress.waiting_until)
    except ValueError:
        return ""
    left = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
    return f"next try in {duration(left)}" if round(left) > 0 else "next try now"


def at_work(progress: Progress, wanted: int) -> str:
    """'2 of 4 workers · 640 rows a batch', without what is not known, or is no news: that one worker does it."""
    parts = []
    if progress.workers and max(wanted, progress.workers) > 1:
        of = f" of {wanted:,}" if wanted > progress.workers else ""
        parts.append(f"{progress.workers:,}{of} workers")
    if progress.batch_size:
        parts.append(f"{rows(progress.batch_size)} a batch")
    return " · ".join(parts)


def held_back(breaker: BreakerView, waiting: str) -> str:
    """Why the circuit breaker holds the run back, and when it tries; '' while it is closed, or `waiting` tells it."""
    if breaker.state is BreakerState.CLOSED or _BREAKER in waiting:
        return ""
    return engine_breaker.sentence(breaker)


def duration(seconds: float) -> str:
    """'8 s', '4 min', '3 h', '2 days'."""
    if seconds < _MINUTE:
        return f"{max(0, round(seconds))} s"
    if seconds < _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    if seconds < 2 * _DAY:
        return f"{round(seconds / _HOUR)} h"
    return f"{round(seconds / _DAY)} days"


def rows(number: int) -> str:
    """'1 row', '2,000 rows'."""
    return f"{number:,} {'row' if number == 1 else 'rows'}"


def _ago(facts: Facts) -> str:
    return f"{duration((facts.now - facts.state_at).total_seconds())} ago"


def _by_whom(facts: Facts) -> str:
    return f"by {facts.state_by} {_ago(facts)}" if facts.state_by else _ago(facts)


def _rows(facts: Facts) -> str:
    return rows(facts.processed)


def _changed(facts: Facts, word: str) -> str:
    return "" if facts.changed is None else f", {facts.changed:,} {word}"


def _quarantined(facts: Facts) -> str:
    return f", {facts.quarantined:,} in quarantine" if facts.quarantined else ""


def _until(facts: Facts) -> str:
    if facts.rollback_until is None:
        return ""
    if facts.pinned:
        return "; can be rolled back"
    return f"; can be rolled back until {_moment(facts.rollback_until, facts.now)}"


def _moment(at: datetime, now: datetime) -> str:
    """'today 14:00 UTC', '10 March 2026 12:00 UTC'."""
    moment, today = at.astimezone(UTC), now.astimezone(UTC).date()
    days = (moment.date() - today).days
    when = {0: "today", 1: "tomorrow"}.get(days, f"{moment:%d %B %Y}".lstrip("0"))
    return f"{when} {moment:%H:%M} UTC"
