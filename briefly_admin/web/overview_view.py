"""The overview as its page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from flask import url_for

from briefly_admin.domain.checks import Colour
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.services.views import Attention, BackupView, OverviewView, RunView
from briefly_admin.web import formats
from briefly_admin.web.backup_view import backup_url
from briefly_admin.web.parts import Bar, Button
from briefly_admin.web.paths import page_path
from briefly_admin.web.run_view import RunRow, run_row

_STALE: Final = timedelta(minutes=15)
"""A checklist older than this is made anew by the page itself."""
_TITLES: Final = {
    Colour.GREEN: "Ready to migrate", Colour.AMBER: "Ready to migrate, with warnings",
    Colour.RED: "Not ready to migrate",
}  # fmt: skip
_NAMED: Final = 2
_RUNNING_OUT: Final = 0.2


@dataclass(frozen=True, slots=True)
class Ready:
    """The card that says whether a run could start; `check_url` is '' unless the page should look anew by itself."""

    title: str
    colour: str
    text: str
    worst: tuple[str, ...]
    at: datetime | None
    check_url: str
    buttons: tuple[Button, ...]
    checklist_url: str


@dataclass(frozen=True, slots=True)
class Matter:
    """Something that needs attention, and the page that helps."""

    text: str
    url: str
    label: str


@dataclass(frozen=True, slots=True)
class Active:
    """The runs in progress; `every` is how often the page asks for them anew."""

    runs: tuple[RunRow, ...]
    poll_url: str
    every: str


@dataclass(frozen=True, slots=True)
class BackupRow:
    """A backup in short; `left` is None where its time does not run."""

    name: str
    url: str
    at: datetime
    rows: str
    size: str
    state: str
    left: Bar | None
    left_words: str


@dataclass(frozen=True, slots=True)
class OverviewPage:
    """What `overview/index.html` prints."""

    subtitle: str
    ready: Ready
    matters: tuple[Matter, ...]
    active: Active
    recent: tuple[RunRow, ...]
    backups: tuple[BackupRow, ...]
    new_run_url: str


def overview_page(view: OverviewView, actor: Actor, now: datetime) -> OverviewPage:
    """The page for one person."""
    rows = "does not answer" if view.rows is None else f"about {view.rows:,} rows"
    return OverviewPage(
        subtitle=f"Target {view.target_title} · {view.tables} tables · {rows}",
        ready=ready(view, actor, now),
        matters=tuple(_matter(item) for item in view.attention),
        active=active(view.active, now),
        recent=tuple(run_row(run, now) for run in view.recent),
        backups=tuple(_backup(backup, now) for backup in view.backups),
        new_run_url=url_for("runs.new") if actor.may(Permission.VALIDATE) else "",
    )


def ready(view: OverviewView, actor: Actor, now: datetime) -> Ready:
    """The card of the newest checklist."""
    stale = view.checks_at is None or now - view.checks_at > _STALE
    return Ready(
        title=_TITLES[view.colour] if view.colour else "Not checked yet",
        colour=view.colour.value if view.colour else "",
        text=_counts(view) if view.colour else "The checklist says whether a run could start.",
        worst=tuple(f"{check.title}: {check.found}" for check in (*view.red, *view.amber)[:_NAMED]),
        at=view.checks_at,
        check_url=url_for("overview.check") if stale and actor.may(Permission.CHECK) else "",
        buttons=_buttons(actor),
        checklist_url=url_for("checks.index"),
    )


def active(runs: Sequence[RunView], now: datetime) -> Active:
    """The strips of the runs in progress; the next question says whether there were any."""
    every = "1s" if any(run.live for run in runs) else "10s"
    url = url_for("overview.active_runs", had="some" if runs else "none")
    return Active(tuple(run_row(run, now) for run in runs), url, every)


def _counts(view: OverviewView) -> str:
    counts = ((view.green, "green"), (len(view.amber), "amber"), (len(view.red), "red"))
    words = [f"{count} {colour}" for count, colour in counts if count]
    return f"Checks: {', '.join(words)}."


def _buttons(actor: Actor) -> tuple[Button, ...]:
    if not actor.may(Permission.VALIDATE):
        return ()
    return (
        Button("new", "New run", url_for("runs.new"), "get", "primary", "player-play"),
        Button("validate", "Validate", url_for("runs.begin"), icon="clipboard-check"),
    )


def _matter(item: Attention) -> Matter:
    match item.noun:
        case "quarantine":
            return Matter(item.text, url_for("quarantine.index", run=item.reference), "Open")
        case "backup":
            return Matter(item.text, backup_url(item.reference), "Open")
        case "backups":
            return Matter(item.text, page_path("/backups"), "Look")
        case _:
            return Matter(item.text, url_for("runs.show", run_id=item.reference), "Open")


def _backup(backup: BackupView, now: datetime) -> BackupRow:
    return BackupRow(
        name=backup.name,
        url=backup_url(backup.name),
        at=backup.completed_at or backup.created_at,
        rows=formats.number(backup.rows),
        size=formats.size(backup.bytes),
        state=backup.state,
        left=_left(backup, now),
        left_words="pinned" if backup.pinned else backup.why_not.rstrip(".") or formats.UNKNOWN,
    )


def _left(backup: BackupView, now: datetime) -> Bar | None:
    if backup.pinned or not backup.restorable or backup.expires_at is None:
        return None
    whole = (backup.expires_at - (backup.completed_at or backup.created_at)).total_seconds()
    left = max((backup.expires_at - now).total_seconds(), 0)
    tone = "warn" if left < whole * _RUNNING_OUT else ""
    return Bar(f"Time left of {backup.name}", left, max(whole, 1), formats.about(left), tone)
