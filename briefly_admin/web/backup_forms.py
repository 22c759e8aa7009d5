"""The forms of backups: take one, prove one, delete one."""

from collections.abc import Sequence
from typing import Any, Final

from wtforms import Form, RadioField, SelectMultipleField, StringField, ValidationError
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its stubs

CHOICES: Final = (
    ("L1", "Open every byte, count and hash every row"),
    ("L0", "Look whether every object is there, of its size and sum"),
)
NOTES: Final = {
    "L1": "Level 1. Needs the keys, and takes about as long as the backup took. Nothing is restored.",
    "L0": "Level 0. Needs no key and is quick, but says nothing of what is inside.",
}
"""What each level costs and says."""


class BackUpForm(Form):
    """Tables beyond the plan, "schema.table" each; whether they are there is the service's to say."""

    beyond = SelectMultipleField("Also tables outside the plan", validate_choice=False)

    def wanted(self) -> Sequence[str]:
        """As they were sent."""
        return list(self.beyond.data or ())


class VerifyForm(Form):
    """How deep to look."""

    level = RadioField("How deep to look", choices=[SelectChoice(*each) for each in CHOICES], default="L1")


class DeleteForm(Form):
    """The backup's name, typed."""

    name = StringField("The backup's name")

    def __init__(self, formdata: Any = None, *, expected: str) -> None:
        super().__init__(formdata)
        self._expected = expected

    def validate_name(self, field: StringField) -> None:
        """Nothing but the whole name."""
        if field.data != self._expected:
            raise ValidationError(
                f"Type the backup's name, {self._expected}, exactly as it stands. Nothing was deleted."
            )
