"""One row by hand: its form made from the record schema, checked as somebody types; and the word to leave it alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from flask import Blueprint, flash, g, render_template, request, url_for
from flask.typing import ResponseReturnValue

from briefly_admin.domain.corrections import ShownRow
from briefly_admin.domain.errors import BrieflyError, InvalidRequest, NotFound, Refused, Unavailable
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.web.identity import services
from briefly_admin.web.parts import Problem
from briefly_admin.web.paths import row_url, way_back
from briefly_admin.web.redirects import go
from briefly_admin.web.refusals import problem_of
from briefly_admin.web.row_forms import Control, SkipForm, Typed, controls, typed_in, with_now
from briefly_admin.web.row_view import RowState, row_page

blueprint: Final = Blueprint("rows", __name__)
_HELD_BACK: Final = (InvalidRequest, Refused, Unavailable)


@blueprint.get("/rows/<table>")
@requires(Permission.READ)
def show(table: str) -> ResponseReturnValue:
    """The form; `key` once for each key column, `back` leads to the list that one came from."""
    try:
        row = services().rows.get(g.actor, table, _key())
    except (NotFound, InvalidRequest) as error:
        return _gone(table, error)
    return _page(row, controls(row))


@blueprint.post("/rows/<table>")
@requires(Permission.CORRECT)
def save(table: str) -> ResponseReturnValue:
    """Change what was changed in the form; what is wrong is said beside each field, and nothing typed is lost."""
    try:
        row = services().rows.get(g.actor, table, _key())
    except (NotFound, InvalidRequest) as error:
        return _gone(table, error)
    typed = typed_in(row, request.form)
    version = request.form.get("version", "")
    if version != row.version:
        return _moved(row, typed)
    if typed.faults or not typed.changes:
        return _nothing(row, typed)
    try:
        saved = services().rows.correct(g.actor, table, row.key, version=version, changes=typed.changes)
    except NotFound as error:
        return _gone(table, error)
    except _HELD_BACK as error:
        return _held_back(row, typed, error)
    flash(*_saved(saved))
    return go(way_back() or row_url(table, row.key))


@blueprint.post("/rows/<table>/check")
@requires(Permission.CORRECT)
def check(table: str) -> ResponseReturnValue:
    """What is wrong with the form as it is typed: the part below the field `field`, and what is left of the row."""
    name = request.args.get("field", "")
    try:
        row = services().rows.get(g.actor, table, _key())
        typed = typed_in(row, request.form)
        seen = services().rows.check(g.actor, table, row.key, typed.changes) if typed.changes else row
    except (NotFound, *_HELD_BACK) as error:
        return render_template("rows/_unchecked.html", text=str(error))
    faults = {each.name: typed.faults.get(each.name, list(each.faults)) for each in seen.fields}
    found = {each.name: each for each in controls(row)}
    if name not in found:
        raise InvalidRequest(f"There is no column '{name[:63]}' in {table}.")
    control = replace(found[name], faults=tuple(faults[name]))
    state = RowState(tuple(each for each, texts in faults.items() if texts), seen.faults, typed=bool(typed.texts))
    return render_template("rows/_checked.html", control=control, state=state)


@blueprint.post("/rows/<table>/skip")
@requires(Permission.CORRECT)
def skip(table: str) -> ResponseReturnValue:
    """Leave the row alone from now on, with a reason."""
    form, key = SkipForm(), _key()
    try:
        if not form.validate():
            row = services().rows.get(g.actor, table, key)
            return _page(row, controls(row), skipping=form), InvalidRequest.http_status
        services().rows.skip(g.actor, table, key, reason=(form.reason.data or "").strip())
    except NotFound as error:
        return _gone(table, error)
    except _HELD_BACK as error:
        return _again(table, key, error, form)
    flash(f"{table} {', '.join(key)} is left alone from now on.", "success")
    return go(way_back() or row_url(table, key))


@blueprint.post("/rows/<table>/unskip")
@requires(Permission.CORRECT)
def unskip(table: str) -> ResponseReturnValue:
    """Take that back."""
    key = _key()
    try:
        services().rows.unskip(g.actor, table, key)
    except NotFound as error:
        return _gone(table, error)
    except _HELD_BACK as error:
        return _again(table, key, error, SkipForm(formdata=None))
    flash(f"{table} {', '.join(key)} is no longer left alone: it can be corrected and replayed.", "success")
    return go(way_back() or row_url(table, key))


def _key() -> tuple[str, ...]:
    return tuple(request.args.getlist("key"))


def _page(
    row: ShownRow, form: Sequence[Control], *, problem: Problem | None = None, moved: bool = False,
    faults: dict[str, list[str]] | None = None, skipping: SkipForm | None = None,
) -> str:  # fmt: skip
    skipped = services().rows.skipped(g.actor, row.table, row.key)
    page = row_page(
        row, form, g.actor, skipped=skipped, back=way_back(), problem=problem, moved=moved, faults=faults
    )  # fmt: skip
    return render_template("rows/show.html", page=page, skipping=skipping or SkipForm(formdata=None))


def _gone(table: str, error: BrieflyError) -> ResponseReturnValue:
    """There is no such row, or not any more: lead on from here."""
    leave = way_back() or url_for("quarantine.index")
    page = render_template("rows/gone.html", table=table, text=str(error), leave_url=leave)
    return page, NotFound.http_status


def _moved(row: ShownRow, typed: Typed) -> ResponseReturnValue:
    """Somebody else changed the row since it was shown: it as it is, with what was typed in its place."""
    form = with_now(controls(_judged(row, typed), typed), row, typed, request.form)
    return _page(row, form, moved=True, faults=typed.faults), Refused.http_status


def _nothing(row: ShownRow, typed: Typed) -> ResponseReturnValue:
    """Nothing was changed, or what was sent cannot be told."""
    problem = None if typed.faults else Problem("No value was changed.", "Change one, or go back.")
    form = controls(_judged(row, typed), typed)
    return _page(row, form, problem=problem, faults=typed.faults), InvalidRequest.http_status


def _held_back(row: ShownRow, typed: Typed, error: BrieflyError) -> ResponseReturnValue:
    details: dict[str, list[str]] = getattr(error, "details", {})
    try:
        now = services().rows.get(g.actor, row.table, row.key)
    except (NotFound, *_HELD_BACK):
        now = row
    if now.version != row.version:
        return _moved(now, typed)
    said = replace(typed, faults={**typed.faults, **details})
    problem = None if details else problem_of(error)
    form = controls(_judged(row, said), said)
    return _page(row, form, problem=problem, faults=details), error.http_status


def _judged(row: ShownRow, typed: Typed) -> ShownRow:
    """The row with what is wrong with it as it is typed."""
    if not typed.changes:
        return row
    try:
        seen = services().rows.check(g.actor, row.table, row.key, typed.changes)
    except (NotFound, *_HELD_BACK):
        return row
    faults = {each.name: each.faults for each in seen.fields}
    return replace(row, fields=tuple(replace(each, faults=faults[each.name]) for each in row.fields))


def _again(table: str, key: tuple[str, ...], error: BrieflyError, form: SkipForm) -> ResponseReturnValue:
    row = services().rows.get(g.actor, table, key)
    details: dict[str, list[str]] = getattr(error, "details", {})
    form.reason.errors = [*form.reason.errors, *details.get("reason", ())]
    problem = None if details else problem_of(error)
    return _page(row, controls(row), problem=problem, skipping=form), error.http_status


def _saved(row: ShownRow) -> tuple[str, str]:
    """What to say of it, and how it sounds."""
    left = [f"{each.name} {text}" for each in row.fields for text in each.faults] + list(row.faults)
    if left:
        more = f", and {len(left) - 1:,} more" if len(left) > 1 else ""
        return f"Saved. Still to cure in this row: {left[0].rstrip('.')}{more}.", "warning"
    return "Saved: nothing is left to cure in this row. Validate again, or replay it if it is in quarantine.", "success"
