"""Findings and quarantine below /api/v1: what is wrong, with which rows, and since when."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Response, g

from briefly_admin.api import examples
from briefly_admin.api.answers import success
from briefly_admin.api.finding_schemas import (
    CauseListAnswer,
    CausesQuery,
    FindingListAnswer,
    FindingsQuery,
    QuarantineListAnswer,
    QuarantineQuery,
    RowsOfFindingQuery,
)
from briefly_admin.api.requests import Blueprint, services
from briefly_admin.api.schemas import Failure
from briefly_admin.domain.corrections import Cause
from briefly_admin.domain.findings import FindingClass
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.exporting import FORMS, cause_json, finding_json, quarantined_json, rows_in

findings: Final = Blueprint("findings-v1", __name__, url_prefix="/api/v1/runs", description="What validation found.")
quarantine: Final = Blueprint(
    "quarantine-v1", __name__, url_prefix="/api/v1/quarantine", description="Rows that migrations left alone."
)


@findings.route("/<run_id>/findings", methods=["GET"])
@requires(Permission.READ)
@findings.arguments(FindingsQuery, location="query", unknown=None)
@findings.response(200, FindingListAnswer, example=examples.FINDINGS)
@findings.alt_response(404, schema=Failure, description="There is no such run.")
def list_findings(query: Mapping[str, Any], run_id: str) -> Response:
    """What a run found, beside what the newest run before it found of the same target by the same plan."""
    run, phase = services().runs.get(g.actor, run_id), query["phase"]
    found = services().findings.list(g.actor, run.id, phase=phase)
    trend = services().findings.trend(g.actor, run.id, phase)
    data = {
        "run": run.id, "number": run.number, "phase": phase, "findings": [finding_json(f, trend) for f in found],
        "count": len(found), "trend": {"run": trend.number, "gone": [f.to_json() for f in trend.gone]},
    }  # fmt: skip
    return success(data)


@findings.route("/<run_id>/findings/rows", methods=["GET"])
@requires(Permission.READ)
@findings.arguments(RowsOfFindingQuery, location="query", unknown=None)
@findings.response(200, description="A line a row, as long as there are any: key and value.")
@findings.alt_response(404, schema=Failure, description="There is no such run, table or rule.")
@findings.alt_response(503, schema=Failure, description="The target does not answer.")
def list_rows(query: Mapping[str, Any], run_id: str) -> Response:
    """Every row that has the finding now, streamed as NDJSON (`{"key": […], "value": …}`) or CSV.

    Values of secret fields are null. Where the target fails on the way, the transfer breaks off: ask again.
    """
    run = services().runs.get(g.actor, run_id)
    cause = Cause(query["table"], query["field"], query["rule"])
    classes = [query["in_class"]] if query["in_class"] else list(FindingClass)
    rows = services().rows.causes_rows(g.actor, cause, limit=query["limit"], classes=classes)
    name = f"rows-of-run-{run.number}.{query['format']}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    lines = rows_in(query["format"], rows)
    return Response(lines, headers=headers, content_type=FORMS[query["format"]])


@quarantine.route("", methods=["GET"])
@requires(Permission.READ)
@quarantine.arguments(QuarantineQuery, location="query", unknown=None)
@quarantine.response(200, QuarantineListAnswer, example=examples.QUARANTINE)
@quarantine.alt_response(404, schema=Failure, description="There is no such run.")
def list_quarantine(query: Mapping[str, Any]) -> Response:
    """The open rows of one cause, page by page; `after` is repeated for keys of several columns."""
    limit = query["limit"]
    found = services().findings.quarantine_rows(
        g.actor, query["run"], table=query["table"], field=query["field"], cause=query["cause"], after=query["after"],
        limit=limit,
    )  # fmt: skip
    rows = [quarantined_json(row) for row in found]
    following = list(found[-1].key) if len(found) == limit else None
    return success({"rows": rows, "count": len(rows), "next": following})


@quarantine.route("/causes", methods=["GET"])
@requires(Permission.READ)
@quarantine.arguments(CausesQuery, location="query", unknown=None)
@quarantine.response(200, CauseListAnswer, example=examples.CAUSES)
@quarantine.alt_response(404, schema=Failure, description="There is no such run.")
@quarantine.alt_response(503, schema=Failure, description="No run is named, and the target does not answer.")
def list_causes(query: Mapping[str, Any]) -> Response:
    """What is wrong with the rows in quarantine, with exact counts."""
    found = services().findings.causes(g.actor, query["run"])
    return success({"causes": [cause_json(cause) for cause in found], "count": len(found)})
