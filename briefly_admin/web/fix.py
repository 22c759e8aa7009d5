"""One change for all rows of a cause: previewed with its count, and made only if that count still holds."""

import hmac
from dataclasses import dataclass, replace
from typing import Final

from flask import Blueprint, current_app, flash, g, render_template, request
from flask.typing import ResponseReturnValue

from briefly_admin.domain.corrections import Cause, Fixed
from briefly_admin.domain.errors import BrieflyError, InvalidRequest, NotFound, Refused, Unavailable
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.web.fix_view import FixPage, fix_page, preview_of, token_of, typed_value, with_typed
from briefly_admin.web.identity import services
from briefly_admin.web.parts import Problem
from briefly_admin.web.paths import way_back
from briefly_admin.web.redirects import go
from briefly_admin.web.refusals import problem_of
from briefly_admin.web.row_forms import Typed

blueprint: Final = Blueprint("fix", __name__)
_OTHER: Final = Problem(
    "This is not what was previewed, so nothing was changed.", "Look at the preview below, then apply it."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form sent, over its page."""

    cause: Cause
    page: FixPage
    typed: Typed


@blueprint.get("/fix")
@requires(Permission.CORRECT)
def show() -> ResponseReturnValue:
    """The form; `column` is the one to change, else the cause's own."""
    return _answer(_page(_cause(), request.args.get("column")))


@blueprint.post("/fix")
@requires(Permission.CORRECT)
def apply() -> ResponseReturnValue:
    """Preview the change; or make it, where the preview was of this very change and its count still holds."""
    cause = _cause()
    page = _page(cause, request.form.get("column"))
    if page.control is None:
        return _answer(page, InvalidRequest.http_status)
    asked = Asked(cause, page, typed_value(page.control, request.form))
    if asked.typed.faults:
        return _wrong(asked, InvalidRequest("Nothing was changed.", details=asked.typed.faults))
    if request.form.get("action") != "apply":
        return _preview(asked)
    return _apply(asked)


def _apply(asked: Asked) -> ResponseReturnValue:
    cause, expected = asked.cause, request.form.get("expected", -1, type=int)
    if not hmac.compare_digest(request.form.get("token", "").encode(), _token(asked, expected).encode()):
        return _preview(asked, _OTHER)
    try:
        fixed = services().rows.fix(g.actor, cause, asked.typed.changes, expected=expected)
    except InvalidRequest as error:
        return _wrong(asked, error)
    except (Refused, Unavailable) as error:
        return _preview(asked, problem_of(error))
    flash(_done(cause, fixed), "success")
    return go(asked.page.leave_url)


def _preview(asked: Asked, problem: Problem | None = None) -> ResponseReturnValue:
    try:
        fixed = services().rows.preview_fix(g.actor, asked.cause, asked.typed.changes)
    except (InvalidRequest, NotFound, Refused, Unavailable) as error:
        return _wrong(asked, error)
    preview = preview_of(fixed, _token(asked, fixed.rows))
    page = replace(_typed(asked), preview=preview, problem=problem)
    return _answer(page, Refused.http_status if problem else 200)


def _wrong(asked: Asked, error: BrieflyError) -> ResponseReturnValue:
    details: dict[str, list[str]] = getattr(error, "details", {})
    page = _typed(asked, details)
    beside = page.control is not None and page.control.faults
    return _answer(replace(page, problem=None if beside else problem_of(error)), error.http_status)


def _typed(asked: Asked, faults: dict[str, list[str]] | None = None) -> FixPage:
    control = asked.page.control
    return replace(asked.page, control=with_typed(control, asked.typed, faults or {}) if control else None)


def _page(cause: Cause, column: str | None) -> FixPage:
    back = way_back()
    rows = services().rows
    found = next(iter(rows.causes_rows(g.actor, cause, limit=1)), None)
    row = rows.get(g.actor, cause.table, found.key) if found else None
    return fix_page(cause, row, column or cause.field, back=back)


def _cause() -> Cause:
    table, field, rule = (request.args.get(name, "") for name in ("table", "field", "rule"))
    run = request.args.get("run")
    # The service knows runs by their id; the address may name the number.
    return Cause(table, field, rule, services().runs.get(g.actor, run).id if run else None)


def _token(asked: Asked, rows: int) -> str:
    return token_of(current_app.secret_key or b"", asked.cause, asked.typed.changes, rows)


def _answer(page: FixPage, code: int = 200) -> ResponseReturnValue:
    return render_template("rows/fix.html", page=page), code


def _done(cause: Cause, fixed: Fixed) -> str:
    rows = "1 row" if fixed.rows == 1 else f"{fixed.rows:,} rows"
    more = f" {fixed.more:,} more have it: fix them in the same way." if fixed.more else ""
    what = "Replay them." if cause.run_id else "Validate again."
    return f"Fixed: {rows} of {cause.table} changed.{more} {what}"
