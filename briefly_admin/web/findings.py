"""What validation found in a run, by table and rule, with its downloads."""

from typing import Final, Literal

from flask import Blueprint, g, render_template, request
from flask.typing import ResponseReturnValue

from briefly_admin.domain.corrections import Cause
from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.views import RunView
from briefly_admin.web.findings_files import ROWS, as_csv, as_file, as_json, as_ndjson
from briefly_admin.web.findings_view import PHASES, Choice, findings_page, in_order, narrowed
from briefly_admin.web.identity import services
from briefly_admin.web.paths import here

blueprint: Final = Blueprint("findings", __name__)
_LAST_PAGE: Final = 10**6


@blueprint.get("/runs/<run_id>/findings")
@requires(Permission.READ)
def show(run_id: str) -> ResponseReturnValue:
    """The page, narrowed by `table`, `class` and `phase` of the address."""
    run, chosen, found = services().runs.get(g.actor, run_id), _chosen(), services().findings
    trend = found.trend(g.actor, run.id, phase=chosen.phase)
    quarantined = sum(cause.rows for cause in found.causes(g.actor, run.id))
    page = findings_page(run, _findings(run, chosen), chosen, trend, g.actor, quarantined=quarantined, back=here())
    return render_template("findings/index.html", page=page)


@blueprint.get("/runs/<run_id>/findings.<any(csv, json, ndjson):form>")
@requires(Permission.READ)
def download(run_id: str, form: Literal["csv", "json", "ndjson"]) -> ResponseReturnValue:
    """The same as a file."""
    run, chosen = services().runs.get(g.actor, run_id), _chosen()
    every = _findings(run, chosen)
    kept = in_order(narrowed(every, chosen), every)
    lines = as_json(run, kept) if form == "json" else as_csv(kept) if form == "csv" else as_ndjson(kept)
    return as_file(lines, f"findings-of-run-{run.number}", form)


@blueprint.get("/runs/<run_id>/findings/rows.<any(csv, ndjson):form>")
@requires(Permission.READ)
def rows(run_id: str, form: Literal["csv", "ndjson"]) -> ResponseReturnValue:
    """Every row that has one finding now."""
    run = services().runs.get(g.actor, run_id)
    cause = Cause(*(request.args.get(name, "") for name in ("table", "field", "rule")))
    kind = request.args.get("class", "")
    classes = [FindingClass(kind)] if kind in set(FindingClass) else list(FindingClass)
    found = services().rows.causes_rows(g.actor, cause, classes=classes)
    name = f"rows-of-{cause.table}-{cause.field}-{cause.rule}-run-{run.number}"
    return as_file(ROWS[form](found), name, form)


def _findings(run: RunView, chosen: Choice) -> tuple[Finding, ...]:
    return services().findings.list(g.actor, run.id, phase=chosen.phase)


def _chosen() -> Choice:
    phase, kind = request.args.get("phase", ""), request.args.get("class", "")
    return Choice(
        phase=phase if phase in PHASES else "validate",
        table=request.args.get("table", ""),
        kind=kind if kind in set(FindingClass) else "",
        page=min(max(request.args.get("page", 1, type=int), 1), _LAST_PAGE),
    )
