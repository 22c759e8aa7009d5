"""Why something was refused, for the page that it was asked on."""

from briefly_admin.domain.errors import BrieflyError
from briefly_admin.web.parts import Problem
from briefly_admin.web.paths import page_path


def problem_of(error: BrieflyError) -> Problem:
    """The error in words; Busy names the run that holds the target."""
    run_id = getattr(error, "run_id", "")
    return Problem(error.message, error.remedy, page_path(f"/runs/{run_id}") if run_id else "")
