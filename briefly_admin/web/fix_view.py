"""One change for all rows of a cause: its form, made from one of them, and what it would do."""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from flask import url_for

from briefly_admin.domain.corrections import Cause, Changes, Fixed, Input, ShownRow
from briefly_admin.web.findings_view import cut
from briefly_admin.web.parts import Problem
from briefly_admin.web.row_forms import Control, Typed, as_lf, controls

_BOTH: Final = "Either a value or NULL, not both."
_NUL: Final = "A text cannot hold the character NUL."
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """What becomes of one value; None is NULL."""

    key: str
    column: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What the fix would do; `token` names this very preview, and `expected` the rows that it counted."""

    sentence: str
    refused: tuple[tuple[str, int], ...]
    samples: tuple[Sample, ...]
    more: str
    token: str
    expected: int
    appliable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FixPage:
    """What `rows/fix.html` prints; `control` is None until a column is chosen, and where no row has the cause."""

    title: str
    subtitle: str
    self_url: str
    back_url: str
    leave_url: str
    asked: tuple[tuple[str, str], ...]
    """The address's own words, for the form that chooses another column."""
    columns: tuple[tuple[str, bool], ...]
    control: Control | None
    preview: Preview | None = None
    problem: Problem | None = None


def fix_page(cause: Cause, row: ShownRow | None, column: str, *, back: str) -> FixPage:
    """The form over the columns of `row`, which has the cause; None: no row has it any more."""
    changeable = [each.name for each in row.fields if each.input is not Input.FIXED] if row else []
    asked = {"table": cause.table, "field": cause.field, "rule": cause.rule, "run": cause.run_id or "", "back": back}
    kept = {name: text for name, text in asked.items() if text or name == "field"}
    address: dict[str, Any] = {name: text for name, text in kept.items() if name != "back"}
    which = "left in quarantine for" if cause.run_id else "that now break the rule"
    return FixPage(
        title=f"Fix all: {cause.field or cause.table}",
        subtitle=f"One value for all rows of {cause.table} {which} {cause.rule}.",
        self_url=url_for("fix.apply", **address),
        back_url=back,
        leave_url=back or url_for("quarantine.index"),
        asked=tuple(kept.items()),
        columns=tuple((name, name == column) for name in changeable),
        control=_control(row, column) if row and column in changeable else None,
    )


def typed_value(control: Control, sent: Mapping[str, Any]) -> Typed:
    """The one change that was typed."""
    text, null = as_lf(sent.get(f"value-{control.name}", "")), f"null-{control.name}" in sent
    if text and null:
        return Typed({}, {control.name: [_BOTH]}, {control.name: (text, null)})
    if "\0" in text:
        return Typed({}, {control.name: [_NUL]}, {control.name: (text, null)})
    return Typed({control.name: None if null else text}, {}, {control.name: (text, null)})


def preview_of(fixed: Fixed, token: str) -> Preview:
    """The preview in words."""
    refused = sum(fixed.refused.values())
    have = "1 row has" if fixed.rows == 1 else f"{fixed.rows:,} rows have"
    more = f"{fixed.more:,} more rows have it: fix them afterwards, in the same way." if fixed.more else ""
    return Preview(
        sentence=f"{have} this cause; {fixed.cured:,} would be right, {refused:,} refused.",
        refused=tuple((why, count) for why, count in fixed.refused.items()),
        samples=tuple(
            Sample(", ".join(key), column, _cut(before), _cut(after))
            for key, values in fixed.samples for column, (before, after) in values.items()
        ),
        more=more, token=token, expected=fixed.rows, appliable=bool(fixed.rows) and not refused,
    )  # fmt: skip


def token_of(secret: str | bytes, cause: Cause, changes: Changes, rows: int) -> str:
    """What binds Apply to what was previewed. Keyed: the change may be a secret."""
    said = json.dumps([cause.table, cause.field, cause.rule, cause.run_id, dict(changes), rows], sort_keys=True)
    key = secret.encode() if isinstance(secret, str) else secret
    return hmac.new(key, b"fix:" + said.encode(), sha256).hexdigest()


def _control(row: ShownRow, column: str) -> Control:
    """Empty: what one of the rows has is no beginning for all of them."""
    nullable = next(each.nullable for each in row.fields if each.name == column)
    found = next(each for each in controls(row) if each.name == column)
    options = (("", "choose"), *(each for each in found.options if each[0] == each[1])) if found.options else ()
    widget = "line" if found.widget == "box" and not found.code else found.widget
    return replace(
        found, value="", null=False, nullable=nullable, was="", faults=(), repaired="", options=options, widget=widget
    )  # fmt: skip


def with_typed(control: Control, typed: Typed, faults: Mapping[str, Sequence[str]]) -> Control:
    """The field as it was typed; what is typed into a secret one is not sent back."""
    text, null = typed.texts[control.name]
    said = tuple(faults.get(control.name, ()))
    if control.widget.startswith("secret"):
        return replace(control, null=null, faults=said)
    known = {value for value, _ in control.options}
    options = (*control.options, (text, text)) if control.options and text not in known else control.options
    return replace(control, value=text, null=null, faults=said, options=options)


def _cut(value: str | None) -> str | None:
    return None if value is None else cut(value, _LONGEST)
