"""The form of a row, made from its fields: what each is asked by, what was typed, and which of it is a change.

Browsers send every line end as CR LF and show every one as LF. So what is compared is the text with LF alone, against
the digest of the value that the form was filled with; and what is changed keeps the line ends that the value had.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from flask_wtf import FlaskForm
from wtforms import StringField
from wtforms.validators import DataRequired, Length

from briefly_admin.domain.corrections import Input, RowField, ShownRow

LONGEST_REASON: Final = 500
_BOTH: Final = "Either a value or NULL: take the tick away to keep what you typed."
_NUL: Final = "A text cannot hold the character NUL."
_HINTS: Final = {
    Input.MOMENT: "like 2025-11-22 14:05:00+00",
}
_LINE: Final = 80
_MOST_LINES: Final = 12
_SHOWN: Final = 300
"""Characters of a value that is not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A field as it is asked for. `widget`: 'line', 'box', 'choice', 'secret', 'secret_box', or 'fixed' (shown)."""

    name: str
    id: str
    widget: str
    type: str
    value: str
    null: bool
    """Whether the NULL tick is set."""
    nullable: bool
    """Whether there is a NULL tick."""
    was: str
    """The digest of the value that the form was filled with; '' for NULL."""
    options: tuple[tuple[str, str], ...] = ()
    """(value, words) of a choice."""
    lines: int = 1
    code: bool = False
    number: bool = False
    hints: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    repaired: str = ""
    """'a migration makes it: …', or ''."""
    now: str | None = None
    """What it is by now, where somebody else changed it since; None elsewhere."""


@dataclass(frozen=True, slots=True)
class Typed:
    """What a form sent: the changes, and per column what is wrong with the form itself; `texts` is all as typed."""

    changes: dict[str, str | None]
    faults: dict[str, list[str]]
    texts: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Column → (text, NULL ticked) of what differs from what the form was filled with."""


class SkipForm(FlaskForm):
    """Why a row is left alone."""

    reason = StringField(
        "Why it is left alone",
        [DataRequired("Say why: it stands beside the row in the quarantine."), Length(max=LONGEST_REASON)],
        description="Validations, migrations and replays leave the row alone until somebody takes this back.",
    )


def digest(value: str | None) -> str:
    """What tells a value from another one, whatever its line ends; '' for NULL."""
    return "" if value is None else sha256(as_lf(value).encode(errors="surrogatepass")).hexdigest()[:32]


def controls(row: ShownRow, typed: Typed | None = None, *, prefix: str = "f") -> tuple[Control, ...]:
    """The form's fields in the table's order; with `typed`, what was typed stands in place of what is there."""
    found = tuple(_control(each, f"{prefix}{number}") for number, each in enumerate(row.fields))
    return tuple(_with(each, typed) for each in found) if typed else found


def typed_in(row: ShownRow, sent: Mapping[str, Any]) -> Typed:
    """Which fields of the form somebody changed; what was left as it came is no change, whoever changed it since."""
    typed = Typed({}, {})
    for each in row.fields:
        text_name, null_name = f"value-{each.name}", f"null-{each.name}"
        if each.input is Input.FIXED or (text_name not in sent and null_name not in sent):
            continue
        was = "" if each.secret else sent.get(f"was-{each.name}", digest(each.value))
        _type(typed, each, as_lf(sent.get(text_name, "")), null=null_name in sent, was=was)
    return typed


def _type(typed: Typed, each: RowField, text: str, *, null: bool, was: str) -> None:
    same = digest(text) == was if was else not text
    if same and null is (not was and not each.secret):
        return
    typed.texts[each.name] = (text, null)
    if null and text and not same:
        typed.faults[each.name] = [_BOTH]
    elif "\0" in text:
        typed.faults[each.name] = [_NUL]
    else:
        typed.changes[each.name] = None if null else _as_ended(text, each.value)


def _control(each: RowField, html_id: str) -> Control:
    widget, value = _widget(each), each.value or ""
    hints = tuple(words for words in (*each.rules, _HINTS.get(each.input, "")) if words)
    return Control(
        name=each.name, id=html_id, widget=widget, type=each.type, value=_fixed(each) if widget == "fixed" else value,
        null=not each.secret and each.value is None, nullable=each.nullable or (each.value is None and not each.secret),
        was=digest(each.value), options=_options(each) if widget == "choice" else (), lines=_lines(value),
        code=each.input in {Input.JSON, Input.MOMENT}, number=each.input is Input.NUMBER, hints=hints,
        faults=each.faults,
        repaired="" if each.repaired is None else f"A migration makes it: {each.repaired[:_SHOWN]}",
    )  # fmt: skip


def _with(control: Control, typed: Typed) -> Control:
    """As it was typed, beside what it is by now."""
    if control.widget == "fixed" or control.name not in typed.texts:
        return control
    faults = tuple(typed.faults.get(control.name, control.faults))
    text, null = typed.texts[control.name]
    if control.widget.startswith("secret"):
        return replace(control, null=null, faults=faults)
    options = control.options
    if options and text not in dict(options):
        options = (*options, (text, text))
    return replace(control, value=text, null=null, options=options, lines=_lines(text), faults=faults, repaired="")


def with_now(form: tuple[Control, ...], row: ShownRow, typed: Typed, sent: Mapping[str, Any]) -> tuple[Control, ...]:
    """The form after somebody else changed the row: beside what was typed, what is there by now."""
    values = {each.name: each for each in row.fields}
    return tuple(
        replace(each, now=_shown(values[each.name]))
        if each.name in typed.texts and not values[each.name].secret and sent.get(f"was-{each.name}") != each.was
        else each
        for each in form
    )


def _shown(each: RowField) -> str:
    return "NULL" if each.value is None else each.value[:_SHOWN]


def _widget(each: RowField) -> str:
    if each.input is Input.FIXED:
        return "fixed"
    if each.secret:
        return "secret_box" if each.input in {Input.LONG_TEXT, Input.JSON} else "secret"
    if each.input in {Input.CHOICE, Input.TRUTH}:
        return "choice"
    # A line takes no line ends: with one in the value, saving something else would take it away.
    has_lines = bool(each.value) and ("\n" in str(each.value) or "\r" in str(each.value))
    return "box" if has_lines or each.input in {Input.LONG_TEXT, Input.JSON} else "line"


def _options(each: RowField) -> tuple[tuple[str, str], ...]:
    """What may be chosen; first, where it is none of these, what it is now."""
    allowed = each.choices or (("true", "false") if each.input is Input.TRUTH else ())
    kept = [(choice, choice) for choice in allowed]
    if each.value is None:
        return (("", "choose"), *kept)
    return tuple(kept) if each.value in allowed else ((each.value, f"{each.value[:_SHOWN]} (as it is)"), *kept)


def _fixed(each: RowField) -> str:
    if each.secret:
        return "hidden"
    text = _shown(each)
    return text if each.value is None or len(each.value) <= _SHOWN else f"{text}…"


def _lines(text: str) -> int:
    """Lines of a box that shows the whole text, within bounds."""
    return min(_MOST_LINES, max(2, sum(1 + len(line) // _LINE for line in text.split("\n")[:_MOST_LINES])))


def as_lf(text: str) -> str:
    """All line ends as LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _as_ended(text: str, before: str | None) -> str:
    """The text with the line ends that the value had: a browser shows all of them alike."""
    ends = before or ""
    if "\r\n" in ends and "\n" not in ends.replace("\r\n", ""):
        return text.replace("\n", "\r\n")
    return text.replace("\n", "\r") if "\r" in ends and "\n" not in ends else text
