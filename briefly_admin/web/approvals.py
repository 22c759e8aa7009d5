"""The page on which another admin approves a run, seeing just what begins by that."""

from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from flask import Blueprint, flash, g, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from briefly_admin.domain.actions import Action
from briefly_admin.domain.errors import Refused
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.approving import APPROVAL
from briefly_admin.services.views import RunView
from briefly_admin.web.identity import services
from briefly_admin.web.run_facts import BackupLink, backup_link, facts, subtitle

_SHORT: Final = 12
"""Characters of a plan's fingerprint that tell it from others."""
blueprint: Final = Blueprint("approvals", __name__)


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """A run that waits: who asked for what, and when."""

    number: int
    url: str
    subtitle: str
    asked_by: str
    asked_at: datetime
    target: str
    plan: str
    fingerprint: str
    backup: BackupLink | None
    preview_url: str
    """The counts that were confirmed, or ''."""
    facts: tuple[tuple[str, str], ...]


@blueprint.get("/runs/<run_id>/approve")
@requires(Permission.APPROVE)
def show(run_id: str) -> ResponseReturnValue:
    """What is to be approved; who may not, or where nothing waits, is led back to the run."""
    view = services().runs.get(g.actor, run_id)
    why_not = _why_not(view)
    if why_not:
        flash(why_not, "error")
        return _to(view)
    return render_template("runs/approve.html", page=_page(view))


@blueprint.post("/runs/<run_id>/approve")
@requires(Permission.APPROVE)
def approve(run_id: str) -> ResponseReturnValue:
    """Let it begin; whether that may be is the service's to say."""
    try:
        view = services().runs.approve(g.actor, run_id)
        flash(f"Run {view.number} is approved, and begins as soon as a worker takes it.", "success")
    except Refused as error:
        view = services().runs.get(g.actor, run_id)
        flash(str(error), "error")
    return _to(view)


def _why_not(view: RunView) -> str:
    for action in view.actions:
        if action.action is Action.APPROVE:
            return action.why_not
    return f"Run {view.number} waits for no approval."


def _page(view: RunView) -> ApprovalPage:
    return ApprovalPage(
        number=view.number, url=url_for("runs.show", run_id=view.number), subtitle=subtitle(view),
        asked_by=view.created_by, asked_at=view.created_at.astimezone(UTC), target=view.target_title,
        plan=view.plan_title, fingerprint=_fingerprint(view), backup=backup_link(view), facts=facts(view)[1:],
        preview_url=url_for("runs.show", run_id=view.options["preview_id"]) if view.options.get("preview_id") else "",
    )  # fmt: skip


def _fingerprint(view: RunView) -> str:
    names = (view.options.get(APPROVAL) or {}).get("names") or {}
    return str(names.get("fingerprint") or "")[:_SHORT]


def _to(view: RunView) -> ResponseReturnValue:
    return redirect(url_for("runs.show", run_id=view.number), HTTPStatus.SEE_OTHER)
