"""The confirmation of a rollback: mode, tables, reason, and two typed words."""

from collections.abc import Sequence
from typing import Any, Final

from wtforms import Form, HiddenField, SelectMultipleField, StringField, TextAreaField, ValidationError
from wtforms.validators import AnyOf, InputRequired, Length

WORD: Final = "ROLLBACK"
_NOTHING: Final = "Nothing was rolled back."


class RollbackForm(Form):
    """Valid only if it names a finished preview, at least one table, a reason, and both words are typed exactly."""

    preview_id = HiddenField("Preview")
    mode = HiddenField("Mode", [AnyOf(["exact"], "Must be exact.")], default="exact")
    tables = SelectMultipleField("Tables to restore", validate_choice=True)
    reason = TextAreaField("Reason", [InputRequired("Say why: it goes into the audit log."), Length(max=500)])
    word = StringField("The word ROLLBACK")
    database = StringField("The database's name")

    def __init__(self, formdata: Any = None, *, tables: Sequence[str], database: str, preview_id: str) -> None:
        super().__init__(formdata, data={"tables": list(tables), "preview_id": preview_id})
        self.tables.choices = {name: name for name in tables}
        self._all = tuple(tables)
        self._database = database
        self._preview_id = preview_id

    def chosen(self) -> list[str] | None:
        """The tables to restore; None for all of them."""
        chosen = [name for name in self._all if name in (self.tables.data or ())]
        return None if chosen == list(self._all) else chosen

    def validate_preview_id(self, field: HiddenField) -> None:
        """What is confirmed is what was counted."""
        if not self._preview_id or field.data != self._preview_id:
            raise ValidationError(f"Look first at what this rollback would do. {_NOTHING}")

    def validate_tables(self, field: SelectMultipleField) -> None:
        """At least one."""
        if not field.data:
            raise ValidationError("Choose at least one table.")

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
        if not self._database or field.data != self._database:
            raise ValidationError(f"Type the database's name, {self._database}. {_NOTHING}")
