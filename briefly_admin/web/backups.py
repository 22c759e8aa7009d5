"""The page Backups: what is kept, for how long, how it was proven; take one, and do with one what may be done."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from briefly_admin.domain.errors import BackupError, BrieflyError, InvalidRequest, Refused, Unavailable
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.views import BackupView, RunView
from briefly_admin.web.backup_forms import NOTES, BackUpForm, DeleteForm, VerifyForm
from briefly_admin.web.backup_view import BackUpPart, back_up_part, backup_page, backup_url, backups_page
from briefly_admin.web.identity import services
from briefly_admin.web.parts import Problem
from briefly_admin.web.paths import page_path
from briefly_admin.web.refusals import problem_of

blueprint: Final = Blueprint("backups", __name__)
_SEE_OTHER: Final = 303


@blueprint.get("/backups")
@requires(Permission.READ)
def index() -> ResponseReturnValue:
    """All backups."""
    return _list()


@blueprint.post("/backups")
@requires(Permission.BACK_UP)
def create() -> ResponseReturnValue:
    """Begin to take one, with the chosen tables beyond the plan."""
    wanted = BackUpForm(request.form).wanted()
    try:
        run = services().runs.back_up(g.actor, beyond=wanted)
    except (InvalidRequest, Refused, Unavailable) as error:
        return _list(error, wanted), error.http_status
    return _to_run(run)


@blueprint.get("/backups/<name>")
@requires(Permission.READ)
def show(name: str) -> ResponseReturnValue:
    """One backup."""
    return _page(services().backups.get(g.actor, name))


@blueprint.post("/backups/<name>/verify")
@requires(Permission.VERIFY_BACKUP)
def verify(name: str) -> ResponseReturnValue:
    """Begin to look whether all is there (L0) or to open every byte (L1)."""
    view = services().backups.get(g.actor, name)
    form = VerifyForm(request.form)
    if not form.validate():
        return _page(view, verify=form), InvalidRequest.http_status
    try:
        run = services().runs.verify_backup(g.actor, view.name, level=form.level.data)
    except (BackupError, Refused, Unavailable) as error:
        return _refused(view, error)
    return _to_run(run)


@blueprint.post("/backups/<name>/drill")
@requires(Permission.VERIFY_BACKUP)
def drill(name: str) -> ResponseReturnValue:
    """Begin to restore it into a scratch schema and to compare."""
    view = services().backups.get(g.actor, name)
    try:
        run = services().runs.drill(g.actor, view.name)
    except (BackupError, Refused, Unavailable) as error:
        return _refused(view, error)
    return _to_run(run)


@blueprint.post("/backups/<name>/pin")
@requires(Permission.PIN_BACKUP)
def pin(name: str) -> ResponseReturnValue:
    """Keep it until it is unpinned."""
    view = services().backups.pin(g.actor, name)
    flash(f"{view.name} is pinned: it is kept until somebody unpins it.", "success")
    return redirect(backup_url(view.name), _SEE_OTHER)


@blueprint.post("/backups/<name>/unpin")
@requires(Permission.PIN_BACKUP)
def unpin(name: str) -> ResponseReturnValue:
    """Let its time run again."""
    view = services().backups.unpin(g.actor, name)
    flash(f"{view.name} is no longer pinned: it expires when its time is over.", "success")
    return redirect(backup_url(view.name), _SEE_OTHER)


@blueprint.post("/backups/<name>/delete")
@requires(Permission.DELETE_BACKUP)
def delete(name: str) -> ResponseReturnValue:
    """Destroy its key, then its objects, if its name was typed."""
    view = services().backups.get(g.actor, name)
    form = DeleteForm(request.form, expected=view.name)
    if not form.validate():
        return _page(view, delete=form), InvalidRequest.http_status
    services().backups.delete(g.actor, view.name)
    flash(f"{view.name} is deleted: its key is destroyed, and nobody can read it any more.", "success")
    return redirect(url_for(".index"), _SEE_OTHER)


def _list(error: BrieflyError | None = None, chosen: Sequence[str] = ()) -> str:
    problem = problem_of(error) if error else None
    page = backups_page(
        services().backups.list(g.actor), _back_up(chosen), g.actor, datetime.now(UTC), problem
    )  # fmt: skip
    return render_template("backups/index.html", page=page)


def _back_up(chosen: Sequence[str]) -> BackUpPart:
    """The form; a target that does not answer takes no list of backups down."""
    if not g.actor.may(Permission.BACK_UP):
        return back_up_part((), g.actor)
    try:
        return back_up_part(services().backups.beyond(g.actor), g.actor, chosen=chosen)
    except Unavailable as error:
        return back_up_part((), g.actor, unknown=str(error))


def _page(
    view: BackupView, *, verify: VerifyForm | None = None, delete: DeleteForm | None = None,
    problem: Problem | None = None,
) -> str:  # fmt: skip
    page = backup_page(view, services().backups.log(g.actor, view.name), g.actor, datetime.now(UTC))
    return render_template(
        "backups/show.html", page=page, problem=problem, form=delete or DeleteForm(expected=view.name),
        verify=verify or VerifyForm(), notes=NOTES, scratch=_scratch(),
    )  # fmt: skip


def _scratch() -> str:
    """Where a drill restores to."""
    return services().servers.drill_place.title


def _refused(view: BackupView, error: BrieflyError) -> ResponseReturnValue:
    return _page(services().backups.get(g.actor, view.name), problem=problem_of(error)), error.http_status


def _to_run(run: RunView) -> ResponseReturnValue:
    return redirect(page_path(f"/runs/{run.number}"), _SEE_OTHER)
