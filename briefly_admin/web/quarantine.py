"""The rows that migrations left alone: why, how many, and replaying those that are right by now."""

from typing import Final

from flask import Blueprint, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from briefly_admin.domain.errors import InvalidRequest, NotFound, Refused, Unavailable
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.finding_views import QuarantineCause
from briefly_admin.web.identity import services
from briefly_admin.web.paths import here
from briefly_admin.web.quarantine_view import QuarantinePage, quarantine_page, rows_page, with_problem
from briefly_admin.web.refusals import problem_of

blueprint: Final = Blueprint("quarantine", __name__)
_A_PAGE: Final = 50
_SCOPE: Final = ("table", "field", "cause")


@blueprint.get("/quarantine")
@requires(Permission.READ)
def index() -> ResponseReturnValue:
    """The causes, of all migrations or of `run`; with `table`, `field` and `cause` the rows of one, from `after` on."""
    if "cause" in request.args:
        return _rows()
    return render_template("quarantine/index.html", page=_page(request.args.get("run") or None))


@blueprint.post("/runs/<run_id>/replay")
@requires(Permission.RUN)
def replay(run_id: str) -> ResponseReturnValue:
    """Take up the rows that are right by now: one (`key`), those of a cause, or all."""
    scope = {name: request.form.get(name) or None for name in _SCOPE}
    if request.form.get("cause"):
        # A cause without a field is a scope, too.
        scope["field"] = request.form.get("field", "")
    key = request.form.getlist("key")
    try:
        run = services().runs.replay(g.actor, run_id, **scope, key=tuple(key) or None)
    except (InvalidRequest, NotFound, Refused, Unavailable) as error:
        page = with_problem(_page(run_id), problem_of(error))
        return render_template("quarantine/index.html", page=page), error.http_status
    return redirect(url_for("runs.show", run_id=run.number), 303)


def _page(run_id: str | None) -> QuarantinePage:
    causes = services().findings.causes(g.actor, run_id)
    return quarantine_page(causes, g.actor, all_url=url_for("quarantine.index") if run_id else "")


def _rows() -> ResponseReturnValue:
    run_id = request.args.get("run", "")
    cause = _cause(run_id)
    after = tuple(request.args.getlist("after")) or None
    found = services().findings.quarantine_rows(
        g.actor, run_id, table=cause.table, field=cause.field, cause=cause.cause, after=after, limit=_A_PAGE + 1
    )
    page = rows_page(cause, found, g.actor, here=here(), limit=_A_PAGE, paged=after is not None)
    return render_template("quarantine/rows.html", page=page)


def _cause(run_id: str) -> QuarantineCause:
    wanted = tuple(request.args.get(name, "") for name in _SCOPE)
    for cause in services().findings.causes(g.actor, run_id):
        if (cause.table, cause.field, cause.cause) == wanted:
            return cause
    raise NotFound(
        "No row of this run is in quarantine for that cause, or not any more.",
        remedy="Open the quarantine to see what is left.",
    )
