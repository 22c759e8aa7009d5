"""The checklist: preflight, as a list that refreshes by itself."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final

from flask import Blueprint, g, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from htmx_flask import request

from briefly_admin.domain.checks import Check, Colour, worst
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import polled, requires
from briefly_admin.web.identity import services
from briefly_admin.web.parts import Button

blueprint: Final = Blueprint("checks", __name__)
_STALE: Final = timedelta(minutes=1)
"""An older list is made anew by the page itself, when it is opened."""
_ORDER: Final = {Colour.RED: 0, Colour.AMBER: 1, Colour.GREEN: 2}
_SUMMARIES: Final = {
    Colour.GREEN: "All is well: a run can start.",
    Colour.AMBER: "A run can start; look at what is amber first.",
    Colour.RED: "A run would be refused until what is red is solved.",
}


@dataclass(frozen=True, slots=True)
class Checklist:
    """What `checks/_checklist.html` prints, red first; `check_url` is '' unless the page should look anew by itself."""

    checks: tuple[Check, ...]
    at: datetime | None
    colour: str
    summary: str
    poll_url: str
    check_url: str
    button: Button | None


@blueprint.get("/checks")
@requires(Permission.READ)
def index() -> ResponseReturnValue:
    """The newest list; an old one is replaced as soon as the page is there."""
    return render_template("checks/index.html", checklist=_checklist(renew=True))


@blueprint.get("/checks/list")
@requires(Permission.READ)
@polled
def part() -> ResponseReturnValue:
    """The newest list alone, without looking again: cheap to ask for."""
    return render_template("checks/_checklist.html", checklist=_checklist())


@blueprint.post("/checks")
@requires(Permission.CHECK)
def check() -> ResponseReturnValue:
    """Look again, now."""
    services().checks.run(g.actor)
    if request.htmx and not request.htmx.boosted:
        return part()
    return redirect(url_for("checks.index"), HTTPStatus.SEE_OTHER)


def _checklist(*, renew: bool = False) -> Checklist:
    at, checks = services().checks.cached(g.actor) or (None, ())
    may = g.actor.may(Permission.CHECK)
    old = at is None or datetime.now(UTC) - at > _STALE
    colour = worst(checks) if checks else None
    return Checklist(
        checks=tuple(sorted(checks, key=lambda found: _ORDER[found.colour])),
        at=at,
        colour=colour.value if colour else "",
        summary=_SUMMARIES[colour] if colour else "",
        poll_url=url_for("checks.part"),
        check_url=url_for("checks.check") if renew and may and old else "",
        button=Button("check", "Re-check", url_for("checks.check"), icon="refresh") if may else None,
    )
