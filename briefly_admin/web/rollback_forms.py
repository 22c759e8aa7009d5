"""What a rollback is asked by: tables to be counted, then mode, rules, edited rows one by one, reason, two words."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wtforms import (
    BooleanField,
    Form,
    HiddenField,
    IntegerField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
    ValidationError,
)
from wtforms.fields import Field
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its stubs
from wtforms.validators import InputRequired, Length, NumberRange

from briefly_admin.services.restoring import EXACT, KEEP, MOST_ALLOWANCE
from briefly_admin.web.preview_view import Consequence, Counted, relevant
from briefly_admin.web.samples_view import Sample, SampleColumn, SampleGroup

WORD: Final = "ROLLBACK"
FORM_ID: Final = "rollback-form"
"""Fields that stand among the counts name the form that they belong to."""
MODE_NOTES: Final = {
    EXACT: "The tables become what they were. Rows created since are deleted, edits made since are lost.",
    KEEP: "Only what the migration did is undone. What others wrote since stays, as the rules say.",
}
_NOTHING: Final = "Nothing was rolled back."
_LONGEST_VALUE: Final = 10_000
_LINE: Final = 24
"""Characters of a line in a narrow box."""
_MOST_LINES: Final = 10
_BY_RULE: Final = ""
_HOWS: Final = (
    (_BY_RULE, "As the rule says"), ("keep", "Keep it as it is now"), ("restore", "Restore it"), ("edit", "Edit it"),
)  # fmt: skip
_EDIT: Final = _HOWS[-1]
_WHOLE: Final = f"Must be a whole number from 0 to {MOST_ALLOWANCE:,}."


class PreviewForm(Form):
    """The tables to be counted: all, unless some were unticked. A button alone, which offers no choice, means all."""

    offered = HiddenField("Tables were offered")
    look_at = SelectMultipleField("Tables to look at", validate_choice=True)

    def validate_look_at(self, field: SelectMultipleField) -> None:
        """At least one, where they were offered."""
        if self.offered.data and not field.data:
            raise ValidationError("Choose at least one table.")

    def wanted(self) -> list[str] | None:
        """None for all of them."""
        return list(self.look_at.data or ()) if self.offered.data else None


def preview_form(tables: Sequence[str], chosen: Sequence[str], data: Any = None) -> PreviewForm:
    """The form over the backup's tables, with those ticked that are `chosen`."""
    form = PreviewForm(data, data={"look_at": list(chosen)})
    form.look_at.choices = [SelectChoice(name, name) for name in tables]
    return form


class ConfirmForm(Form):
    """Valid only if it names a finished preview, a mode, tables and a reason, and both words are typed exactly."""

    preview_id = HiddenField("Preview")
    mode = RadioField("Mode", [InputRequired("Choose exact or keep.")])
    edited = RadioField(
        "Rows edited since", choices={"keep": "Keep them as they are", "restore": "Restore them"}, default="keep"
    )
    created = RadioField("Rows created since", choices={"keep": "Keep them", "delete": "Delete them"}, default="keep")
    deleted = RadioField(
        "Rows deleted since", choices={"leave": "Leave them out", "bring_back": "Bring them back"}, default="leave"
    )
    tables = SelectMultipleField("Tables to restore", validate_choice=True)
    allow = SelectMultipleField("Rows of other tables that may go or change", validate_choice=True)
    allowance = IntegerField(
        "How many rows may have moved since", [NumberRange(0, MOST_ALLOWANCE, _WHOLE)], default=0,
        render_kw={"inputmode": "numeric", "autocomplete": "off"},
    )  # fmt: skip
    reason = TextAreaField("Reason", [InputRequired("Say why: it goes into the audit log."), Length(max=500)])
    word = StringField("The word ROLLBACK")
    database = StringField("The database's name")

    html_id = FORM_ID
    counted: Counted | None
    _all: tuple[str, ...]
    expected_database: str
    expected_preview: str

    def bind(self, counted: Counted | None, tables: Sequence[str], database: str, preview_id: str) -> None:
        """Tell it what was counted, and what is to be typed."""
        self.counted, self._all = counted, tuple(tables)
        self.expected_database, self.expected_preview = database, preview_id
        self.tables.choices = [SelectChoice(name, name) for name in tables]
        self.mode.choices = [_mode(EXACT), _mode(KEEP, self.keep_why_not)]
        ticks = {each.table: each.table for each in counted.outside if each.allowable} if counted else {}
        self.allow.choices = [SelectChoice(name, f"Allow it for {name}", render_kw={"form": FORM_ID}) for name in ticks]

    @property
    def keep_why_not(self) -> str:
        """Why the mode keep is off, or ''."""
        return self.counted.keep_why_not if self.counted else "Look first at what a rollback would do."

    def notes(self) -> Mapping[str, str]:
        """What each mode means, what it needs, or why it is off."""
        needs = {EXACT: f"{MODE_NOTES[EXACT]} {self._needs()}".strip()}
        return MODE_NOTES | needs | ({KEEP: f"Not here. {self.keep_why_not}"} if self.keep_why_not else {})

    def created_notes(self) -> Mapping[str, str]:
        """What deleting rows under keep needs."""
        return {"delete": self._needs()} if self._needs() else {}

    def _needs(self) -> str:
        """What rows of other tables ask for, all tables being restored."""
        outside = self.counted.outside if self.counted else ()
        against = dict.fromkeys(each.table for each in outside if not each.allowable and each.table)
        ticks = dict.fromkeys(each.table for each in outside if each.allowable)
        found = [f"As counted it would be refused: rows of {', '.join(against)} stand against it."] if against else []
        return " ".join([*found, *([f"Needs the ticks above: {', '.join(ticks)}."] if ticks else [])])

    def how(self, sample: Sample) -> Field:
        """What is to be done with an edited row."""
        return self[f"how_{sample.name}"]

    def values(self, sample: Sample) -> list[tuple[Field, Field]]:
        """The fields of a row's values that may be edited, each with its NULL tick."""
        return [(self[text], self[null]) for text, null, _ in _names(sample)]

    def mistaken(self, group: SampleGroup) -> bool:
        """Whether something is wrong with, or already decided about, one of its rows: it then stands open."""
        return any(self.how(sample).errors or self.how(sample).data for sample in group.samples)

    def validate_preview_id(self, field: HiddenField) -> None:
        """What is confirmed is what was counted."""
        if not self.expected_preview or field.data != self.expected_preview:
            raise ValidationError(f"Look first at what this rollback would do. {_NOTHING}")

    def validate_mode(self, field: RadioField) -> None:
        """Keep undoes a migration; exact leaves nothing to be settled."""
        if field.data == KEEP and self.keep_why_not:
            raise ValidationError(self.keep_why_not)
        if field.data == EXACT and any(self.how(sample).data for sample in self._edited()):
            raise ValidationError("Exact restores every row: choose keep, or leave the edited rows to the rule.")

    def validate_tables(self, field: SelectMultipleField) -> None:
        """At least one; and nothing outside may stand against it."""
        if not field.data:
            raise ValidationError("Choose at least one table.")
        against = [each.text for each in self._following() if not each.allowable and each.table]
        if against:
            raise ValidationError(f"{' '.join(against)} Leave that table out, or solve it and count again.")

    def validate_allow(self, field: SelectMultipleField) -> None:
        """Rows outside go, or change, only where that was ticked."""
        missing = dict.fromkeys(
            each.table for each in self._following() if each.allowable and each.table not in (field.data or ())
        )
        if missing:
            names = ", ".join(missing)
            raise ValidationError(f"Rows of {names} would go or change: allow it, or leave out the tables.")

    def validate_reason(self, field: TextAreaField) -> None:
        """More than blanks."""
        if field.data and not field.data.strip():
            raise ValidationError("Say why: it goes into the audit log.")

    def validate_word(self, field: StringField) -> None:
        """In capitals, without blanks."""
        if field.data != WORD:
            raise ValidationError(f"Type {WORD} in capitals. {_NOTHING}")

    def validate_database(self, field: StringField) -> None:
        """The target's, as it is written above the form."""
        if not self.expected_database or field.data != self.expected_database:
            raise ValidationError(f"Type the database's name, {self.expected_database}. {_NOTHING}")

    def validate(self, extra_validators: Any = None) -> bool:
        """Each field alone, then each row that is settled by itself."""
        super().validate(extra_validators)
        for sample in self._edited():
            fault = self._fault(sample)
            if fault:
                how = self.how(sample)
                how.errors = [*how.errors, fault]
        return not self.errors

    def wish(self) -> dict[str, Any]:
        """What the service is asked for."""
        chosen = [name for name in self._all if name in (self.tables.data or ())]
        keep = self.mode.data == KEEP
        return {
            "mode": self.mode.data, "tables": chosen,
            "reason": (self.reason.data or "").strip(), "preview_id": self.preview_id.data,
            "allow": tuple(self.allow.data or ()), "allowance": self.allowance.data,
            "rules": {name: self[name].data for name in ("edited", "created", "deleted")} if keep else None,
            "settled": self._settled() if keep else None,
        }  # fmt: skip

    def _edited(self) -> tuple[Sample, ...]:
        return self.counted.settleable if self.counted else ()

    def _following(self) -> tuple[Consequence, ...]:
        """What happens outside when rows of the chosen tables are deleted."""
        deletes = self.mode.data == EXACT or (self.mode.data == KEEP and self.created.data == "delete")
        return relevant(self.counted.outside, self.tables.data or ()) if self.counted and deletes else ()

    def _settled(self) -> dict[str, list[dict[str, Any]]]:
        settled: dict[str, list[dict[str, Any]]] = {}
        for sample in self._edited():
            how = self.how(sample).data
            if how:
                row: dict[str, Any] = {"key": list(sample.key), "how": how}
                values = self._changed(sample)
                settled.setdefault(sample.table, []).append(row | ({"values": values} if how == "edit" else {}))
        return settled

    def _changed(self, sample: Sample) -> dict[str, str | None]:
        """The values that were typed, or made NULL: what was left as it came is left out."""
        found: dict[str, str | None] = {}
        for text, null, column in _names(sample):
            if not self[text].raw_data:
                continue
            value = None if self[null].data else _lines(self[text].data or "")
            came = None if column.raw is None else _lines(column.raw)
            if value != came:
                found[column.name] = value
        return found

    def _fault(self, sample: Sample) -> str:
        how, changed = self.how(sample).data, self._changed(sample)
        if how and sample.table not in (self.tables.data or ()):
            return f"Choose the table {sample.table}, too, or leave this row to the rule."
        for text, null, column in _names(sample):
            typed = _lines(self[text].data or "")
            if self[null].data and typed and typed != _lines(column.raw or ""):
                return f"{column.name}: either NULL or a text."
            if "\x00" in typed:
                return f"{column.name}: a text cannot hold the character NUL."
        if how == "edit" and not changed:
            return "Nothing was edited: change a value, or choose something else."
        if how != "edit" and changed:
            return f"A value was typed ({', '.join(changed)}): choose “Edit it”, or put it back."
        return ""


def confirm_form(
    data: Any = None, *, counted: Counted | None, tables: Sequence[str], database: str, preview_id: str,
    before: Mapping[str, Any] | None = None,
) -> ConfirmForm:  # fmt: skip
    """The form for what was counted, with fields for each edited row that the page shows.

    `before`: the options of an earlier rollback of this backup, which it begins with; the words are typed anew.
    """
    fields: dict[str, Any] = {}
    for sample in counted.settleable if counted else ():
        fields |= _row(sample)
    bound = type("ConfirmForm", (ConfirmForm,), fields)
    start = {"tables": list(tables), "preview_id": preview_id, "mode": None} | _begun(before or {}, counted, tables)
    if counted and counted.keep_why_not:
        start["mode"] = EXACT
    # `bind` gives the choices, which are looked at only when something is validated or printed.
    form: ConfirmForm = bound(data, data=start)
    form.bind(counted, tables, database, preview_id)
    return form


def _begun(before: Mapping[str, Any], counted: Counted | None, tables: Sequence[str]) -> dict[str, Any]:
    """Field → what it begins with, as an earlier rollback was asked."""
    if not before or counted is None:
        return {}
    chosen = before.get("tables")
    begun: dict[str, Any] = {
        name: before[name] for name in ("mode", "allow", "allowance", "reason") if before.get(name)
    }
    begun |= {
        name: how for name, how in (before.get("rules") or {}).items() if name in ("edited", "created", "deleted")
    }
    begun["tables"] = [name for name in tables if chosen is None or name in chosen]
    settled = {
        (table, tuple(row["key"])): row for table, rows in (before.get("settled") or {}).items() for row in rows
    }  # fmt: skip
    for sample in counted.settleable:
        row = settled.get((sample.table, sample.key))
        if row is None:
            continue
        begun[f"how_{sample.name}"] = row["how"]
        values = row.get("values") or {}
        for text, null, column in _names(sample):
            if column.name in values:
                begun |= {text: values[column.name] or "", null: values[column.name] is None}
    return begun


def _row(sample: Sample) -> dict[str, Any]:
    mine = {"form": FORM_ID}
    choices = [SelectChoice(*each) for each in _HOWS if _names(sample) or each != _EDIT]
    fields: dict[str, Any] = {
        f"how_{sample.name}": SelectField(
            f"What becomes of {sample.table} {sample.title}", choices=choices, default=_BY_RULE, render_kw=mine
        )
    }
    for text, null, column in _names(sample):
        limit = Length(max=_LONGEST_VALUE)
        fields[text] = TextAreaField(
            column.name, [limit], default=column.raw or "", render_kw=mine | {"rows": _rows(column.raw)}
        )
        fields[null] = BooleanField(f"{column.name} is NULL", default=column.raw is None, render_kw=mine)
    return fields


def _rows(value: str | None) -> int:
    """Lines of a box that shows the whole of what may be edited."""
    return sum(1 + len(line) // _LINE for line in (value or "").split("\n")[:_MOST_LINES]) if value else 1


def _names(sample: Sample) -> list[tuple[str, str, SampleColumn]]:
    """(name of the text's field, name of the NULL tick, column) of each value that may be edited."""
    return [
        (f"value_{sample.name}_{number}", f"null_{sample.name}_{number}", column)
        for number, column in enumerate(sample.columns)
        if column.editable
    ]


def _mode(name: str, why_not: str = "") -> SelectChoice:
    attributes: dict[str, Any] = {"data-missing": "choose a mode", "required": True}
    return SelectChoice(name, name.capitalize(), render_kw={"disabled": True} if why_not else attributes)


def _lines(text: str) -> str:
    """Browsers send CR LF."""
    return text.replace("\r\n", "\n")
