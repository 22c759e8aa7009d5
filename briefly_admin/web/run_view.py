"""A run as its page shows it: one frozen value, made from the services' RunView; templates only print it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flask import url_for

from briefly_admin.domain.actions import Action
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import LED, Phase, RunKind, RunState
from briefly_admin.services.sentences import at_work, held_back
from briefly_admin.services.views import BackupView, LogLine, PhaseView, RunView
from briefly_admin.web import formats
from briefly_admin.web.parts import Bar, Button, Step
from briefly_admin.web.proof_view import PROVING
from briefly_admin.web.report_view import Report, report_of
from briefly_admin.web.run_buttons import STOPPED, run_buttons
from briefly_admin.web.run_facts import BackupLink, backup_link, facts, objects_alone, subtitle, what

_COUNTED: Final = frozenset(p.value for p in (Phase.VALIDATE, Phase.BACKUP, Phase.MIGRATE, Phase.STAGE, Phase.RESTORE))
"""Phases that count rows from the start: none to do means done."""
_TONES: Final = {
    RunState.COMPLETED: "good", RunState.COMPLETED_WITH_SKIPS: "warn", RunState.FAILED: "bad",
    RunState.CANCELLED: "warn", RunState.PAUSED: "warn", RunState.INTERRUPTED: "warn", RunState.PAUSING: "warn",
    RunState.CANCELLING: "warn",
}  # fmt: skip
_LOG_LINES: Final = 15
"""The others are folded away."""
_PICTURE_SECONDS: Final = 5
"""The picture of a live run is asked for anew this often."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A table in the current phase, in words."""

    name: str
    rows: str
    changed: str
    skipped: str
    rate: str
    bar: Bar


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """What `runs/_run.html` prints. `poll_url` is '' once nothing can change by itself."""

    id: str
    title: str
    subtitle: str
    backup: BackupLink | None
    """The backup that the run looks at or restores."""
    state: str
    sentence: str
    remedy: str
    poll_url: str
    action_url: str
    buttons: tuple[Button, ...]
    changeable: bool
    bar: Bar | None
    figures: str
    steps: tuple[Step, ...]
    tables: tuple[TableRow, ...]
    shows_changes: bool
    waiting: str
    next_try: datetime | None
    breaker: str
    blocking: tuple[str, ...]
    findings_url: str
    picture_url: str
    picture_text: str
    log: tuple[LogLine, ...]
    older_log: tuple[LogLine, ...]
    facts: tuple[tuple[str, str], ...]
    facts_first: bool
    """Who asked for it, when and why stand before what it did."""
    report: Report | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run in a list."""

    number: int
    url: str
    what: str
    state: str
    rows: str
    took: str
    by: str
    created_at: datetime
    bar: Bar | None
    sentence: str


def run_page(
    view: RunView, log: tuple[LogLine, ...], now: datetime, picture_text: str = "", backup: BackupView | None = None,
    *, look_again: str = "",
) -> RunPage:  # fmt: skip
    """The page of one run; `picture_text` says in words what its picture shows, `backup` is the one it looked at.

    `look_again`: where a rollback that stopped is asked for once more, on new counts.
    """
    progress = view.progress
    finished = view.finished
    return RunPage(
        id=view.id,
        title=f"Run {view.number}",
        subtitle=subtitle(view),
        backup=backup_link(view),
        state=view.state.value,
        sentence=view.sentence,
        remedy=view.remedy if finished and view.remedy not in view.sentence else "",
        poll_url=url_for("runs.progress", run_id=view.number) if _changes_by_itself(view) else "",
        action_url=url_for("runs.act", run_id=view.number),
        buttons=run_buttons(view, look_again=look_again),
        changeable=any(a.action is Action.CHANGE and a.allowed for a in view.actions),
        bar=overall_bar(view),
        figures=_figures(view, now),
        steps=tuple(_step(phase, view, now) for phase in view.phases),
        tables=_table_rows(progress) if _shows_tables(view) else (),
        shows_changes=progress is not None and progress.phase == Phase.MIGRATE,
        waiting=view.waiting,
        next_try=_next_try(progress) if view.waiting else None,
        breaker=held_back(view.breaker, view.waiting),
        blocking=view.blocking,
        findings_url=url_for("findings.show", run_id=view.number),
        picture_url=_picture_url(view, now),
        picture_text=picture_text or "Rows a second over time, phase by phase.",
        log=log[:_LOG_LINES],
        older_log=log[_LOG_LINES:],
        facts=facts(view),
        facts_first=finished and view.kind is RunKind.ROLLBACK,
        report=report_of(view, backup) if finished else None,
    )


def _changes_by_itself(view: RunView) -> bool:
    """Or by somebody else, who approves what another one looks at."""
    return view.live or view.state is RunState.AWAITING_APPROVAL


def _shows_tables(view: RunView) -> bool:
    """While it goes, and where it stopped; a look at a backup that found damage has come to its end."""
    if objects_alone(view) or (view.kind in PROVING and view.finished):
        return False
    return not view.finished or view.state in STOPPED


def run_row(view: RunView, now: datetime) -> RunRow:
    """A line of a list of runs."""
    return RunRow(
        number=view.number,
        url=url_for("runs.show", run_id=view.number),
        what=what(view),
        state=view.state.value,
        rows=formats.number(view.records_processed),
        took=formats.duration(_elapsed(view, now)),
        by=view.created_by,
        created_at=view.created_at,
        bar=overall_bar(view),
        sentence=view.sentence,
    )


def overall_bar(view: RunView) -> Bar | None:
    """How far the current phase is; None before a run begins and where there is nothing to measure."""
    label, tone = f"Run {view.number}", _TONES.get(view.state, "")
    if view.state in {RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS}:
        return Bar(label, 1, 1, "done", tone)
    if view.state in LED:
        return _live_bar(view.progress, label, tone)
    if view.state in {RunState.PENDING, RunState.AWAITING_APPROVAL, RunState.ROLLED_BACK}:
        return None
    # The last report of the leader is nearer to where it stopped than the run's own count.
    if view.progress and view.progress.total:
        return _rows_bar(f"{label}, phase {view.progress.phase}", view.progress.done, view.progress.total, tone)
    if not view.records_total:
        return None
    return _rows_bar(label, view.records_processed, view.records_total, tone)


def _live_bar(progress: Progress | None, label: str, tone: str) -> Bar:
    if progress is None:
        return Bar(label, None, 0, "starting…", tone)
    label = f"{label}, phase {progress.phase}"
    if progress.total or (progress.tables and progress.phase in _COUNTED):
        return _rows_bar(label, progress.done, progress.total, tone)
    return Bar(label, None, 0, "working…", tone)


def _rows_bar(label: str, done: int, total: int, tone: str) -> Bar:
    text = formats.percent(min(done / total, 1)) if total else "done"
    return Bar(label, min(done, total), total, text, tone)


def _figures(view: RunView, now: datetime) -> str:
    """'412,000 of 1,284,003 rows · 21,400 rows/s · about 2 min left · 640 rows a batch · begun 4 min ago'."""
    parts = []
    progress = view.progress if view.state in LED else None
    if progress and progress.total:
        parts.append(f"{progress.done:,} of {progress.total:,} {'objects' if objects_alone(view) else 'rows'}")
    if progress and round(progress.rate):
        parts.append(f"{progress.rate:,.0f} rows/s")
    if progress and progress.eta_seconds is not None and progress.total:
        parts.append(f"about {formats.about(progress.eta_seconds)} left")
    work = at_work(progress, int(view.config.get("workers", 1))) if progress else ""
    if work:
        parts.append(work)
    elapsed = _elapsed(view, now)
    if elapsed is not None:
        words = f"took {formats.duration(elapsed)}" if view.completed_at else f"begun {formats.about(elapsed)} ago"
        parts.append(words)
    return " · ".join(parts)


def _next_try(progress: Progress | None) -> datetime | None:
    """When what waits tries next; None where nobody knows."""
    try:
        return datetime.fromisoformat(progress.waiting_until) if progress else None
    except ValueError:
        return None


def _elapsed(view: RunView, now: datetime) -> float | None:
    if view.started_at is None:
        return None
    return ((view.completed_at or now) - view.started_at).total_seconds()


def _table_rows(progress: Progress | None) -> tuple[TableRow, ...]:
    return tuple(_table_row(table, progress.phase) for table in progress.tables) if progress else ()


def _table_row(table: TableProgress, phase: str) -> TableRow:
    label = f"Rows of {table.table}"
    if table.total or phase in _COUNTED:
        whole = table.done >= table.total
        text = "done" if whole else formats.percent(table.done / table.total)
        bar = Bar(label, table.done, table.total, text, "good" if whole else "")
    else:
        bar = Bar(label, None, 0, "working…")
    return TableRow(
        name=table.table,
        rows=f"{table.done:,} of {table.total:,}" if table.total else "0",
        changed=formats.number(table.changed),
        skipped=formats.number(table.skipped) if table.skipped else "",
        rate=formats.number(round(table.rate)) if table.rate else formats.UNKNOWN,
        bar=bar,
    )


def _step(phase: PhaseView, view: RunView, now: datetime) -> Step:
    state = {"waiting": "pending"}.get(phase.state, phase.state)
    if state == "running" and (view.waiting or view.state not in LED):
        state = "waiting" if view.state not in STOPPED else "failed"
    seconds = phase.seconds
    if seconds is None and phase.started_at and view.state in LED and phase.state == "running":
        seconds = (now - phase.started_at).total_seconds()
    return Step(
        label=phase.phase.value.capitalize(),
        state=state,
        duration="" if seconds is None else formats.duration(seconds),
        note=_note(phase.phase, phase.result) if phase.state == "done" else "",
    )


def _note(phase: Phase, result: Mapping[str, Any]) -> str:
    if phase is Phase.BACKUP and result.get("backup_id"):
        return "proven"
    if phase is Phase.VALIDATE and result.get("blocking"):
        return f"{result['blocking']:,} blocking"
    if phase is Phase.MIGRATE and result.get("skipped"):
        return f"{result['skipped']:,} {'stay' if 'replayed' in result else 'skipped'}"
    return ""


def _picture_url(view: RunView, now: datetime) -> str:
    """The picture's address changes with its content, so that a live page shows a new one."""
    if view.started_at is None:
        return ""
    seen = view.completed_at or now
    version = f"{view.state.value}-{int(seen.timestamp()) // _PICTURE_SECONDS}"
    return url_for("pictures.throughput", run_id=view.number, at=version)
