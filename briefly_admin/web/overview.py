"""The first page: is the target healthy, what runs, what ran, what is kept, what needs somebody."""

from datetime import UTC, datetime
from typing import Final

from flask import Blueprint, g, render_template, request
from flask.typing import ResponseReturnValue

from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import polled, requires
from briefly_admin.web.identity import services
from briefly_admin.web.overview_view import active, overview_page, ready

blueprint: Final = Blueprint("overview", __name__)
_NEWEST: Final = 20
"""Runs among which those in progress are looked for."""


@blueprint.get("/")
@requires(Permission.READ)
def index() -> ResponseReturnValue:
    """The whole page."""
    page = overview_page(services().overview.view(g.actor), g.actor, datetime.now(UTC))
    return render_template("overview/index.html", page=page)


@blueprint.get("/active")
@requires(Permission.READ)
@polled
def active_runs() -> ResponseReturnValue:
    """The runs in progress alone; when there were some and the last one has ended, the page is asked for anew."""
    runs = tuple(run for run in services().runs.list(g.actor, limit=_NEWEST) if not run.finished)
    ended = request.args.get("had") == "some" and not runs
    part = render_template("overview/_active.html", active=active(runs, datetime.now(UTC)))
    return part, {"HX-Refresh": "true"} if ended else {}


@blueprint.post("/ready")
@requires(Permission.CHECK)
def check() -> ResponseReturnValue:
    """Look anew, as the page asks by itself where the newest checklist is old; the card alone."""
    services().checks.run(g.actor)
    part = ready(services().overview.view(g.actor), g.actor, datetime.now(UTC))
    return render_template("overview/_ready.html", ready=part)
