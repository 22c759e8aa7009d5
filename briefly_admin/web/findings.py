"""What validation found in a run, by table and rule, with its download; and the rows that the run left alone."""

from typing import Final, Literal

from flask import Blueprint, Response, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.views import RunView
from briefly_admin.web.findings_view import PHASES, Choice, as_csv, as_json, findings_page, narrowed
from briefly_admin.web.identity import services

blueprint: Final = Blueprint("findings", __name__)


@blueprint.get("/runs/<run_id>/findings")
@requires(Permission.READ)
def show(run_id: str) -> ResponseReturnValue:
    """The page, narrowed by `table`, `class` and `phase` of the address."""
    run, chosen = services().runs.get(g.actor, run_id), _chosen()
    page = findings_page(run, _findings(run, chosen), services().findings.quarantine(g.actor, run_id), chosen)
    return render_template("findings/index.html", page=page)


@blueprint.get("/runs/<run_id>/findings.<any(csv, json):form>")
@requires(Permission.READ)
def download(run_id: str, form: Literal["csv", "json"]) -> ResponseReturnValue:
    """The same as a file."""
    run, chosen = services().runs.get(g.actor, run_id), _chosen()
    kept = narrowed(_findings(run, chosen), chosen)
    answer = jsonify(as_json(run, kept)) if form == "json" else Response(as_csv(kept), mimetype="text/csv")
    answer.headers["Content-Disposition"] = f'attachment; filename="findings-of-run-{run.number}.{form}"'
    return answer


def _findings(run: RunView, chosen: Choice) -> tuple[Finding, ...]:
    return services().findings.list(g.actor, run.id, phase=chosen.phase)


def _chosen() -> Choice:
    phase, kind = request.args.get("phase", ""), request.args.get("class", "")
    return Choice(
        phase=phase if phase in PHASES else "validate",
        table=request.args.get("table", ""),
        kind=kind if kind in set(FindingClass) else "",
    )
