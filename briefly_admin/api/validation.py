"""A validation's answer: the whole once it is done, until then where to ask."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Response, g, url_for

from briefly_admin.api.answers import failure, success
from briefly_admin.domain import errors
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.domain.findings import blocking
from briefly_admin.domain.runs import RunState
from briefly_admin.services import Services
from briefly_admin.services.views import RunView

_MOST_ERRORS: Final = 100
_STATUS: Final[Mapping[str, int]] = {
    found.code: found.http_status
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, BrieflyError)
}


def answer_validation(services: Services, run_id: str, *, seconds: float) -> Response:
    """200 with everything if the run ends within so many seconds, 202 with a Location if not, else its error."""
    run = services.runs.wait(g.actor, run_id, seconds=seconds)
    if not run.finished:
        return success(
            {"valid": None, "errors": [], "findings": [], "id": run.id}, run.sentence, status=202,
            headers={"Location": url_for("runs-v1.get_validation", run_id=run.id), "Retry-After": "2"},
        )  # fmt: skip
    if run.state is not RunState.COMPLETED and run.error_code != errors.BlockingFindings.code:
        return _not_done(run)
    return success(_found(services, run), run.sentence)


def _found(services: Services, run: RunView) -> dict[str, Any]:
    findings = services.findings.list(g.actor, run.id)
    return {
        "valid": not blocking(findings),
        "errors": services.findings.errors_texts(findings, limit=_MOST_ERRORS),
        "findings": [finding.to_json() for finding in findings],
        "id": run.id,
    }


def _not_done(run: RunView) -> Response:
    """The validation itself stopped: that is neither valid nor invalid."""
    message = f"{run.error or run.sentence} {run.remedy}".strip()
    return failure(_STATUS.get(run.error_code, 409), run.error_code or run.state.value, message, {"id": [run.id]})
