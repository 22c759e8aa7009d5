"""The page that confirms a rollback: what it would do, counted by a preview run, then the typed words."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from flask import Blueprint, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from briefly_admin.domain.errors import BackupError, BrieflyError, Busy, InvalidRequest, NotFound, Refused, Unavailable
from briefly_admin.domain.permissions import Permission
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.plans import PLANS
from briefly_admin.services.access import polled, requires
from briefly_admin.services.views import BackupView, RunView
from briefly_admin.web.backup_view import BackupPart, part
from briefly_admin.web.formats import about
from briefly_admin.web.identity import services
from briefly_admin.web.paths import page_path
from briefly_admin.web.preview_view import Counted, counted_of
from briefly_admin.web.rollback_forms import ConfirmForm, PreviewForm, confirm_form, preview_form

blueprint: Final = Blueprint("rollback", __name__)
_WRITTEN_A_SECOND: Final = 10_000
_COMPARED_A_SECOND: Final = 200_000
"""Rows, on a small server: the page says "about"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewPart:
    """A preview run: what it counted once it is `done`, its error where it `failed`; else it is being counted."""

    id: str
    number: int
    url: str
    live: bool
    done: bool
    failed: bool
    sentence: str
    error: str
    remedy: str
    counted_at: datetime | None
    counted: Counted | None
    """Once it is done."""
    writers: str
    """For about how long others wait."""
    part: str
    """Which tables alone were counted, or ''."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the server did not begin: `run_url` leads to the run that holds the target."""

    text: str
    remedy: str
    run_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPage:
    """The backup, what restoring it would do, and why that was refused."""

    backup: BackupPart
    host: str
    database: str
    preview: PreviewPart | None
    poll_url: str
    chooser: PreviewForm
    """The tables to be counted, or counted anew."""
    before: RunView | None = None
    """An earlier rollback of this backup, whose wishes the form begins with."""
    refusal: Refusal | None = None


@blueprint.get("/backups/<name>/rollback")
@requires(Permission.ROLL_BACK)
def show(name: str) -> ResponseReturnValue:
    """The confirmation; `?preview=` names the run that counted, `?again=` a rollback whose wishes are kept."""
    page = _asked_page(name)
    code = 409 if page.backup.why_not else 200
    return render_template("backups/rollback.html", page=page, form=_form(page)), code


@blueprint.get("/backups/<name>/rollback/preview")
@requires(Permission.ROLL_BACK)
@polled
def progress(name: str) -> ResponseReturnValue:
    """The part of the page that changes while the preview counts."""
    page = _asked_page(name)
    return render_template("backups/_rollback.html", page=page, form=_form(page))


@blueprint.post("/backups/<name>/preview")
@requires(Permission.PREVIEW)
def preview(name: str) -> ResponseReturnValue:
    """Begin to count; who may not roll back reads the counts on the run's page."""
    view, again = services().backups.get(g.actor, name), request.form.get("again", "")
    chooser = preview_form(_names(view), (), request.form)
    if not chooser.validate():
        if not g.actor.may(Permission.ROLL_BACK):
            raise InvalidRequest("Choose at least one table, and only tables of the backup.")
        return _not_counted(replace(_page(view, "", again), chooser=chooser), 400)
    try:
        run = services().runs.preview(g.actor, name, tables=chooser.wanted())
    except (InvalidRequest, BackupError, Refused, Unavailable) as error:
        return _refused(replace(_page(view, "", again), chooser=chooser), error)
    if not g.actor.may(Permission.ROLL_BACK):
        return redirect(_run_url(run.number), 303)
    return redirect(url_for(".show", name=name, preview=run.number, again=again or None), 303)


@blueprint.post("/backups/<name>/rollback")
@requires(Permission.ROLL_BACK)
def start(name: str) -> ResponseReturnValue:
    """Begin the rollback if all is confirmed; else say beside each field what is missing."""
    view = services().backups.get(g.actor, name)
    page = _page(view, request.form.get("preview_id", ""), request.form.get("again", ""))
    form = _form(page, request.form)
    if not form.validate():
        return render_template("backups/rollback.html", page=page, form=form), 400
    try:
        run = services().runs.rollback(g.actor, view.name, confirm=True, **form.wish())
    except (InvalidRequest, BackupError, Refused, Unavailable) as error:
        return render_template("backups/rollback.html", page=_with(page, error), form=form), error.http_status
    return redirect(_run_url(run.number), 303)


def _asked_page(name: str) -> RollbackPage:
    view = services().backups.get(g.actor, name)
    return _page(view, request.args.get("preview", ""), request.args.get("again", ""))


def _page(view: BackupView, preview: str, again: str) -> RollbackPage:
    found, before = _run_of(view, preview, RunKind.PREVIEW), _run_of(view, again, RunKind.ROLLBACK)
    last = found or before
    kept = before.number if before else None
    host, _, database = (found.target_title if found else view.target_title).partition("/")
    return RollbackPage(
        backup=part(view, g.actor, datetime.now(UTC)), host=host, database=database,
        preview=_preview_part(found, view) if found else None,
        poll_url=url_for("rollback.progress", name=view.name, preview=preview, again=kept) if found and found.live
        else "",
        chooser=preview_form(_names(view), (last and last.options.get("tables")) or _names(view)), before=before,
    )  # fmt: skip


def _names(view: BackupView) -> list[str]:
    """The plan's tables of the backup: those that it holds beyond the plan, no rollback restores."""
    plan = PLANS.get(view.plan)
    known = {table.name for table in plan.tables} if plan else None
    names = [str(table["table"]) for table in view.tables]
    return [name for name in names if known is None or name in known]


def _run_of(view: BackupView, reference: str, kind: RunKind) -> RunView | None:
    """The run, if it is one of this kind and of this backup."""
    if not reference:
        return None
    try:
        run = services().runs.get(g.actor, reference)
    except NotFound:
        return None
    return run if run.kind is kind and run.options.get("backup_id") == view.id else None


def _preview_part(run: RunView, view: BackupView) -> PreviewPart:
    done = run.state is RunState.COMPLETED
    names, chosen = _names(view), run.options.get("tables")
    counted = counted_of((run.report or {}).get("preview", {}), names) if done else None
    return PreviewPart(
        id=run.id, number=run.number, url=_run_url(run.number), live=run.live, done=done,
        failed=not done and not run.live, sentence=run.sentence, error=run.error, remedy=run.remedy,
        counted_at=run.completed_at, counted=counted, writers=_writers(counted) if counted else "",
        part=f"{', '.join(chosen)} alone: {len(chosen):,} of the backup’s {len(names):,} tables" if chosen else "",
    )  # fmt: skip


def _writers(counted: Counted) -> str:
    seconds = 1 + counted.written / _WRITTEN_A_SECOND + (counted.same + counted.written) / _COMPARED_A_SECOND
    who = (
        "Everybody who reads or writes these tables waits"
        if counted.changes
        else "Whoever writes to these tables waits"
    )
    why = " (readers, too, because schema changes are reverted)" if counted.changes else "; readers do not"
    return f"{who} while the rows are compared again and put back: about {about(seconds)}{why}."


def _form(page: RollbackPage, data: Any = None) -> ConfirmForm:
    counted = page.preview.counted if page.preview else None
    names = counted.names if counted else [table.name for table in page.backup.tables]
    preview_id = page.preview.id if page.preview and counted else ""
    return confirm_form(
        data, counted=counted, tables=names, database=page.database, preview_id=preview_id,
        before=page.before.options if page.before else None,
    )  # fmt: skip


def _refused(asked: RollbackPage, error: BrieflyError) -> ResponseReturnValue:
    if not g.actor.may(Permission.ROLL_BACK):
        raise error
    return _not_counted(_with(asked, error), error.http_status)


def _not_counted(page: RollbackPage, code: int) -> ResponseReturnValue:
    """The first page again; the browser shows its address, which can be reloaded."""
    again = page.before.number if page.before else None
    headers = {"HX-Push-Url": url_for(".show", name=page.backup.name, again=again)}
    return render_template("backups/rollback.html", page=page, form=_form(page)), code, headers


def _with(page: RollbackPage, error: BrieflyError) -> RollbackPage:
    """The page with what the server said; nothing was changed."""
    url = _run_url(error.run_id) if isinstance(error, Busy) and error.run_id else ""
    return replace(page, refusal=Refusal(error.message, error.remedy, url))


def _run_url(reference: str | int) -> str:
    return page_path(f"/runs/{reference}")
