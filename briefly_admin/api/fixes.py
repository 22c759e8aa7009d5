"""One correction for all rows of a cause, below /api/v1: counted first, then made."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Response, g

from briefly_admin.api import examples
from briefly_admin.api.answers import success
from briefly_admin.api.requests import Blueprint, services
from briefly_admin.api.row_schemas import FixAnswer, FixPreviewRequest, FixRequest
from briefly_admin.api.schemas import Failure
from briefly_admin.domain.corrections import Cause
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.exporting import fixed_json

blueprint: Final = Blueprint(
    "fixes-v1", __name__, url_prefix="/api/v1/fixes", description="One correction for all rows of a cause."
)
_NOWHERE: Final = "There is no such run, table, field or rule."
_AWAY: Final = "The target does not answer."


@blueprint.route("/preview", methods=["POST"])
@requires(Permission.CORRECT)
@blueprint.arguments(FixPreviewRequest, example=examples.FIX_PREVIEW)
@blueprint.response(200, FixAnswer, example=examples.FIXED)
@blueprint.alt_response(404, schema=Failure, description=_NOWHERE)
@blueprint.alt_response(503, schema=Failure, description=_AWAY)
def preview_fix(body: Mapping[str, Any]) -> Response:
    """Count what the changes would do to all rows of a cause. Nothing is written."""
    return success(fixed_json(services().rows.preview_fix(g.actor, _cause(body), body["changes"])))


@blueprint.route("", methods=["POST"])
@requires(Permission.CORRECT)
@blueprint.arguments(FixRequest, example=examples.FIX)
@blueprint.response(200, FixAnswer, example=examples.FIXED)
@blueprint.alt_response(404, schema=Failure, description=_NOWHERE)
@blueprint.alt_response(
    409, schema=Failure, description="The count is another one than expected, a row would not be cured, or a run "
    "holds the target: nothing is changed.",
)  # fmt: skip
@blueprint.alt_response(503, schema=Failure, description=_AWAY)
def fix(body: Mapping[str, Any]) -> Response:
    """Make the changes in all rows of a cause, all of them or none."""
    found = services().rows.fix(g.actor, _cause(body), body["changes"], expected=body["expected"])
    return success(fixed_json(found), f"{found.cured:,} of {found.rows:,} rows are corrected.")


def _cause(body: Mapping[str, Any]) -> Cause:
    return Cause(body["table"], body["field"], body["rule"], body["run"])
