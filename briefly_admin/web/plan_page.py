"""The page on which a run is begun: the plan over the target, and what stands against a start."""

from dataclasses import dataclass

from flask import url_for

from briefly_admin.domain.errors import BrieflyError, Busy, Unavailable
from briefly_admin.domain.permissions import Actor
from briefly_admin.services.views import PlanView
from briefly_admin.web import formats
from briefly_admin.web.identity import services
from briefly_admin.web.run_forms import ConfigForm


@dataclass(frozen=True, slots=True)
class Problem:
    """Why it could not be done, what to do, and where."""

    title: str
    text: str
    url: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class NewRunPage:
    """What `runs/new.html` prints beside its form; `plan` is None while the target does not answer."""

    plan: PlanView | None
    estimate: tuple[tuple[str, str], ...]
    problem: Problem | None


def new_run_page(actor: Actor, form: ConfigForm, *, keep: bool, error: BrieflyError | None = None) -> NewRunPage:
    """The page; unless `keep`, the form is filled with the installation's defaults."""
    try:
        plan = services().runs.plan_view(actor)
    except Unavailable as unavailable:
        return NewRunPage(None, (), problem_of(error or unavailable))
    if not keep:
        form.process(formdata=None, data=plan.config)
    form.say_who_listens(_listening())
    return NewRunPage(plan, _estimate(plan), problem_of(error) if error else None)


def _listening() -> int | None:
    try:
        return services().queue.workers()
    except Unavailable:
        return None


def problem_of(error: BrieflyError) -> Problem:
    """An error for the top of a form, with the way to where it is solved."""
    if isinstance(error, Busy) and error.run_id:
        url = url_for("runs.show", run_id=error.run_id)
        return Problem("Another run holds the target", str(error), url, "Look at that run")
    if isinstance(error, Unavailable):
        return Problem("The target does not answer", str(error), url_for("checks.index"), "Look at the checklist")
    return Problem("This could not be started", str(error))


def _estimate(plan: PlanView) -> tuple[tuple[str, str], ...]:
    duration, backup = plan.estimate_seconds, plan.backup_bytes
    return (
        ("Rows, about", formats.number(plan.rows)),
        ("On disk", formats.size(plan.bytes)),
        ("Duration, about" if duration is not None else "Duration: told after a first run", formats.about(duration)),
        ("Backup, about" if backup is not None else "Backup: told after a first one", formats.size(backup)),
    )
