"""Runs: begin one, watch it, steer it."""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

from briefly_admin.domain.config import BY_NAME
from briefly_admin.domain.errors import BrieflyError, InvalidRequest, NotFound, Refused, Unavailable
from briefly_admin.domain.permissions import Permission
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.access import polled, requires
from briefly_admin.services.views import BackupView, RunView
from briefly_admin.web.identity import services
from briefly_admin.web.pictures import describe
from briefly_admin.web.plan_page import new_run_page
from briefly_admin.web.run_forms import ConfigForm, LiveForm, NewRunForm
from briefly_admin.web.run_view import run_page, run_row

blueprint: Final = Blueprint("runs", __name__)
_A_PAGE: Final = 50
_LOG_LINES: Final = 200
_LOG_LINES_LIVE: Final = 30
_LARGEST: Final = 2**62
Answer = str | Response | tuple[str, int]


@blueprint.get("/runs")
@requires(Permission.READ)
def index() -> Answer:
    """All runs, newest first, a page at a time."""
    before = request.args.get("before", type=int)
    views = services().runs.list(
        g.actor, limit=_A_PAGE + 1, before=before if before and 0 < before < _LARGEST else None
    )
    now = datetime.now(UTC)
    rows = tuple(run_row(view, now) for view in views[:_A_PAGE])
    older = url_for("runs.index", before=rows[-1].number) if len(views) > _A_PAGE else ""
    return render_template(
        "runs/index.html", rows=rows, older=older, newest=url_for("runs.index") if before else "",
        count=services().runs.count(g.actor),
    )  # fmt: skip


@blueprint.get("/runs/new")
@requires(Permission.VALIDATE)
def new() -> Answer:
    """The plan, and the form of a new run; `like` takes over the settings of another one."""
    like = request.args.get("like")
    form = NewRunForm(formdata=None, data=services().runs.get(g.actor, like).config if like else None)
    return render_template("runs/new.html", page=new_run_page(g.actor, form, keep=bool(like)), form=form)


@blueprint.post("/runs")
@requires(Permission.VALIDATE)
def begin() -> Answer:
    """Validate, rehearse or start; what stands against it is said on the form again."""
    form = NewRunForm()
    if _has_settings(form) and not form.validate():
        return _again(form, InvalidRequest("Some settings are out of bounds.")), HTTPStatus.BAD_REQUEST
    try:
        view = _start(request.form.get("action", ""), form)
    except (InvalidRequest, Refused, Unavailable) as error:
        form.accept(getattr(error, "details", {}))
        return _again(form, error), error.http_status
    return _to(view)


@blueprint.get("/runs/<run_id>")
@requires(Permission.READ)
def show(run_id: str) -> Answer:
    """One run: live while it goes, then its report."""
    return render_template("runs/show.html", **_shown(run_id))


@blueprint.get("/runs/<run_id>/progress")
@requires(Permission.READ)
@polled
def progress(run_id: str) -> Answer:
    """The changing part of the page alone."""
    return render_template("runs/_run.html", **_shown(run_id))


@blueprint.post("/runs/<run_id>")
@requires(Permission.STEER)
def act(run_id: str) -> Answer:
    """A button of the page; whether it may be pressed is the service's to say."""
    action = request.form.get("action", "")
    if action == "change":
        return _change(run_id)
    if action not in _DEEDS:
        raise InvalidRequest(
            f"There is no action '{action[:40]}'.", details={"action": [f"Known: {', '.join(_DEEDS)}."]}
        )
    try:
        return _to(_DEEDS[action](run_id))
    except Refused as error:
        flash(str(error), "error")
        return _to(services().runs.get(g.actor, run_id))


_DEEDS: Final[dict[str, Callable[[str], RunView]]] = {
    "pause": lambda run_id: services().runs.pause(g.actor, run_id),
    "resume": lambda run_id: services().runs.resume(g.actor, run_id),
    "cancel": lambda run_id: services().runs.cancel(g.actor, run_id),
    "validate": lambda _: services().runs.start(g.actor, RunKind.VALIDATION),
}


def _change(run_id: str) -> Answer:
    form = LiveForm()
    if not form.validate():
        return render_template("runs/show.html", **_shown(run_id, form)), HTTPStatus.BAD_REQUEST
    try:
        view = services().runs.change(g.actor, run_id, form.config())
        flash("The settings hold from the next batch on.", "success")
    except Refused as error:
        view = services().runs.get(g.actor, run_id)
        flash(str(error), "error")
    return _to(view)


def _start(action: str, form: ConfigForm) -> RunView:
    runs = services().runs
    if action == "validate":
        return runs.start(g.actor, RunKind.VALIDATION)
    if action not in {"start", "rehearse"}:
        raise InvalidRequest("Choose what to do: validate, rehearse or start.")
    config = form.config() if _has_settings(form) else {}
    return runs.start(g.actor, RunKind.MIGRATION, config=config | {"dryRun": action == "rehearse"})


def _has_settings(form: ConfigForm) -> bool:
    """A button without any field of the form asks for the defaults, not for every box unticked."""
    return any(field.name in request.form for field in form if field.name in BY_NAME)


def _again(form: ConfigForm, error: BrieflyError) -> str:
    page = new_run_page(g.actor, form, keep=True, error=error)
    return render_template("runs/new.html", page=page, form=form)


def _shown(run_id: str, form: ConfigForm | None = None) -> dict[str, Any]:
    view = services().runs.get(g.actor, run_id)
    log = services().runs.log(g.actor, run_id, _LOG_LINES_LIVE if view.live else _LOG_LINES)
    live = form or LiveForm(formdata=None, data=view.config)
    # While it is live, the figures stand beside the picture; so polls need not read its points.
    text = "" if view.live else describe(services().runs.throughput(g.actor, run_id))
    now, again = datetime.now(UTC), _look_again(view)
    return {"run": run_page(view, log, now, text, _looked_at(view), look_again=again), "form": live}


def _look_again(view: RunView) -> str:
    """Where a rollback that did not come to its end is asked for once more."""
    stopped = view.kind is RunKind.ROLLBACK and view.state in {RunState.FAILED, RunState.CANCELLED}
    if not stopped or not g.actor.may(Permission.ROLL_BACK):
        return ""
    return url_for("rollback.show", name=view.options.get("backup_name"), again=view.number)


def _looked_at(view: RunView) -> BackupView | None:
    """The backup that a finished run looked at, which knows its damage."""
    reference = view.options.get("backup_id")
    if not view.finished or not reference:
        return None
    try:
        return services().backups.get(g.actor, str(reference))
    except NotFound:
        return None


def _to(view: RunView) -> Response:
    return redirect(url_for("runs.show", run_id=view.number), HTTPStatus.SEE_OTHER)
