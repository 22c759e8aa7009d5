"""The page on which a run is begun: the plan over the target, and what stands against a start."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flask import url_for

from briefly_admin.domain.errors import BrieflyError, Busy, Unavailable
from briefly_admin.domain.permissions import Actor
from briefly_admin.services.views import PlanCheck, PlanTable, PlanView
from briefly_admin.web import formats
from briefly_admin.web.identity import services
from briefly_admin.web.run_forms import ConfigForm

_HOW: Final = {"exact": "", "sound": "unusual values are judged in Python", "python": "judged in Python, row by row"}


@dataclass(frozen=True, slots=True)
class Problem:
    """Why it could not be done, what to do, and where."""

    title: str
    text: str
    url: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """The checks of one field: each in words, and how it is decided where PostgreSQL alone does not do it, or ''."""

    field: str
    checks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class TableChecks:
    """A table's checks, a line a field."""

    name: str
    lines: tuple[CheckLine, ...]


@dataclass(frozen=True, slots=True)
class NewRunPage:
    """What `runs/new.html` prints beside its form; `plan` is None while the target does not answer."""

    plan: PlanView | None
    estimate: tuple[tuple[str, str], ...]
    problem: Problem | None
    checks: tuple[TableChecks, ...] = ()
    slow: tuple[str, ...] = ()
    """A sentence for each check that Python must decide, row by row."""


def new_run_page(actor: Actor, form: ConfigForm, *, keep: bool, error: BrieflyError | None = None) -> NewRunPage:
    """The page; unless `keep`, the form is filled with the installation's defaults."""
    try:
        plan = services().runs.plan_view(actor)
    except Unavailable as unavailable:
        return NewRunPage(None, (), problem_of(error or unavailable))
    if not keep:
        form.process(formdata=None, data=plan.config)
    form.say_who_listens(_listening())
    return NewRunPage(plan, _estimate(plan), problem_of(error) if error else None, checks_of(plan), slow_of(plan))


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


def checks_of(plan: PlanView) -> tuple[TableChecks, ...]:
    """What each table is held to; none for tables that are not there."""
    return tuple(TableChecks(table.name, tuple(_lines(table))) for table in plan.tables if table.checks)


def _lines(table: PlanTable) -> Iterator[CheckLine]:
    fields: dict[str, list[PlanCheck]] = {}
    for check in table.checks:
        fields.setdefault(check.field, []).append(check)
    for field, checks in fields.items():
        yield CheckLine(field, tuple((check.words, _HOW[check.how]) for check in checks))


def slow_of(plan: PlanView) -> tuple[str, ...]:
    """What only Python can decide, a sentence each."""
    return tuple(
        f"{_place(table.name, check.field)} ({check.rule}): {check.why}; each row of {table.name} is read for it."
        for table in plan.tables for check in table.checks if check.how == "python"
    )  # fmt: skip


def _place(table: str, field: str) -> str:
    return f"{table}.{field}" if field else f"{table} as a whole"


def _estimate(plan: PlanView) -> tuple[tuple[str, str], ...]:
    duration, backup = plan.estimate_seconds, plan.backup_bytes
    return (
        ("Rows, about", formats.number(plan.rows)),
        ("On disk", formats.size(plan.bytes)),
        ("Duration, about" if duration is not None else "Duration: told after a first run", formats.about(duration)),
        ("Backup, about" if backup is not None else "Backup: told after a first one", formats.size(backup)),
    )
