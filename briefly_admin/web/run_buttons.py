"""The buttons of a run's page: what may be done now, and why something may not."""

from typing import Final

from flask import url_for

from briefly_admin.domain.actions import Action, Allowed
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView
from briefly_admin.web.parts import Button
from briefly_admin.web.paths import page_path
from briefly_admin.web.proof_view import PROVING
from briefly_admin.web.report_view import is_rehearsal

STOPPED: Final = frozenset({RunState.FAILED, RunState.CANCELLED})
_WRITING: Final = frozenset({RunKind.MIGRATION, RunKind.ROLLBACK, RunKind.REPLAY})


def run_buttons(view: RunView, *, look_again: str = "") -> tuple[Button, ...]:
    """All but what has a form of its own; a rehearsal has nothing to roll back.

    `look_again`: where a rollback that stopped is asked for once more, on new counts.
    """
    left_out = {Action.CHANGE, Action.ROLL_BACK} if is_rehearsal(view) else {Action.CHANGE}
    listed = (_button(allowed, view) for allowed in view.actions if allowed.action not in left_out)
    return (*_look_again(look_again), *listed)


def _look_again(url: str) -> tuple[Button, ...]:
    return (Button("look_again", "Look at a new preview", url, "get", "primary", "eye"),) if url else ()


def _button(allowed: Allowed, view: RunView) -> Button:
    """The button of an action; what is not allowed shows why, and where it is solved."""
    act = url_for("runs.act", run_id=view.number)
    match allowed.action:
        case Action.APPROVE:
            url = url_for("approvals.show", run_id=view.number)
            button = Button("approve", "Approve", url, "get", "primary", "circle-check")
        case Action.PAUSE:
            button = Button("pause", "Pause", act, icon="player-pause")
        case Action.RESUME:
            button = _resume(view, act)
        case Action.CANCEL:
            stays = "rows done stay as they are" if view.kind in _WRITING else "no table is changed by it"
            confirm = f"Cancel run {view.number}? The batch in hand ends first; {stays}."
            button = Button("cancel", "Cancel", act, style="danger-quiet", icon="x", confirm=confirm)
        case Action.ROLL_BACK:
            url = page_path(f"/backups/{view.backup_name}/rollback") if view.backup_name else page_path("/backups")
            label = "Roll this rollback back" if view.kind is RunKind.ROLLBACK else "Roll back"
            button = Button("roll_back", label, url, "get", "danger-quiet", "arrow-back-up")
        case Action.VALIDATE:
            button = Button("validate", "Validate again", act, icon="clipboard-check")
        case Action.REPLAY:
            confirm = f"Replay what is in the quarantine of run {view.number}? Rows that are still wrong stay there."
            url = url_for("quarantine.replay", run_id=view.number)
            button = Button("replay", "Replay", url, icon="refresh", confirm=confirm)
        case Action.RUN_AGAIN:
            button = Button("run_again", "Run again", url_for("runs.new", like=view.number), "get", icon="refresh")
        case _:
            button = Button("report", "Report", "#report", "get", icon="list-check")
    if allowed.allowed:
        return button
    solved = {Action.ROLL_BACK: page_path("/backups"), Action.RESUME: url_for("runs.new")}
    why_url = "" if allowed.why_not.startswith("This needs the role") else solved.get(allowed.action, "")
    return Button(
        button.name, button.label, button.url, button.method, button.style, button.icon, allowed.why_not, why_url
    )


def _resume(view: RunView, url: str) -> Button:
    stopped = view.state in STOPPED
    batches = stopped and view.kind is RunKind.MIGRATION and not is_rehearsal(view)
    label = "Resume from the last batch" if batches else "Resume"
    if stopped and view.kind in PROVING:
        label = "Look again"
    # A rollback that goes on still compares with the old counts: a new preview is what helps more often.
    style = "" if view.kind is RunKind.ROLLBACK and stopped else "primary"
    return Button("resume", label, url, style=style, icon="player-play")
