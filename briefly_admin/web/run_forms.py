"""The forms of runs, made from the one table of a run's settings (domain.config.FIELDS)."""

from collections.abc import Mapping
from typing import Any, Final

from flask_wtf import FlaskForm
from wtforms import BooleanField, IntegerField, RadioField, SelectField
from wtforms.fields import Field
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined] # newer than its stubs
from wtforms.widgets import TextInput

from briefly_admin.domain.config import AUTO, BY_NAME, FIELDS, ConfigField

LABELS: Final = {
    "batchSize": "Batch size", "maxRetries": "Retries", "retryDelay": "First wait before a retry",
    "validateData": "Validate first", "createBackup": "Back up first", "dryRun": "Rehearse",
    "sampleRows": "A rehearsal goes through", "onInvalid": "Rows that the repairs do not cure",
    "maxSkipped": "Skip at most", "workers": "Workers", "pause": "Pause between batches",
    "expectQuiet": "Nobody else writes", "debug": "Log each batch", "logLevel": "Log from level",
}  # fmt: skip
"""JSON name → what stands before the field."""
HELP: Final = {
    "batchSize": "Type auto, and the run finds by itself how many rows take about half a second.",
    "validateData": "Findings that the repairs do not cure stop the run, or are skipped.",
    "expectQuiet": "Any difference that the run does not explain fails its verification.",
    "sampleRows": "Rows of each table.",
    "createBackup": "A sealed backup is taken and proven first. Without one, rollback is not available.",
    "onInvalid": "Skipped rows stay as they are; the report lists each with its reason.",
}
"""Where a page says it better than the table of fields."""
CHOICES: Final = {
    "onInvalid": (("stop", "Stop the run"), ("skip", "Skip them into quarantine and go on")),
}
BY_BUTTON: Final = frozenset({"dryRun"})
"""Settings that a button decides: Rehearse or Start."""
LIVE: Final = tuple(field.name for field in FIELDS if field.live)
WHAT: Final = ("onInvalid", "maxSkipped", "validateData", "createBackup", "expectQuiet")
"""What the run does; the other settings say how."""
HOW: Final = tuple(field.name for field in FIELDS if not field.live and field.name not in {*BY_BUTTON, *WHAT})

_LONGEST: Final = 18
"""Digits; more is no number of rows or milliseconds."""


class WholeNumber(IntegerField):
    """An integer within the bounds of its setting, which its message names."""

    def __init__(self, setting: ConfigField, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._setting = setting

    def process_formdata(self, valuelist: list[str]) -> None:
        """Digits, as people write them: '10,000' and '10 000', too."""
        if valuelist:
            self.data = _whole(valuelist[0])
            self._judge()

    def _judge(self) -> None:
        fault = self._setting.fault(self.data)
        if fault:
            raise ValueError(fault)


def _whole(text: str) -> int | None:
    digits = text.replace(",", "").replace(" ", "").strip()
    plain = digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= _LONGEST
    return int(digits) if plain else None


class WholeNumberOrAuto(WholeNumber):
    """A whole number, or the word auto."""

    data: Any
    widget = TextInput()
    """A browser takes no word in a field for numbers."""

    def process_data(self, value: Any) -> None:
        """What the form is filled with."""
        if value == AUTO:
            self.data = AUTO
        else:
            super().process_data(value)

    def process_formdata(self, valuelist: list[str]) -> None:
        """'auto' in whatever case, else digits."""
        if valuelist and valuelist[0].strip().lower() == AUTO:
            self.data = AUTO
        else:
            super().process_formdata(valuelist)


class ConfigForm(FlaskForm):
    """Settings under their JSON names; `config()` is what a run is started or changed with."""

    def config(self) -> dict[str, Any]:
        """JSON name → value; what was not sent is left to the defaults."""
        return {field.name: field.data for field in self if field.name in BY_NAME and field.data is not None}

    def accept(self, details: Mapping[str, list[str]]) -> None:
        """Put what the service says against a field beside it."""
        for name, texts in details.items():
            field = self._fields.get(name)
            if field is not None:
                field.errors = [*field.errors, *texts]

    def say_who_listens(self, listening: int | None) -> None:
        """Beside the number of workers: how many listen now; None where nobody could say."""
        if listening is None:
            return
        verb = "listens" if listening == 1 else "listen"
        self["workers"].description += f" {listening:,} {verb} now; the run goes on with what there is."

    def live(self) -> list[Field]:
        """The fields that can be changed while a run is running or paused."""
        return [self[name] for name in LIVE if name in self]

    def what(self) -> list[Field]:
        """Fixed once a run has begun: what it does."""
        return [self[name] for name in WHAT if name in self]

    def how(self) -> list[Field]:
        """Fixed once a run has begun: how it goes about it."""
        return [self[name] for name in HOW if name in self]


def _field(setting: ConfigField) -> Any:
    label = LABELS[setting.name] + (f" ({setting.unit})" if setting.unit else "")
    words = HELP.get(setting.name, setting.help)
    if setting.kind == "integer":
        described = f"{words} {setting.minimum:,} to {setting.maximum:,}."
        limits = {"inputmode": "numeric", "autocomplete": "off"}
        return WholeNumber(setting, label=label, description=described, render_kw=limits)
    if setting.kind == "automatic":
        described = f"{words} {setting.minimum:,} to {setting.maximum:,}, or {AUTO}."
        limits = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
        return WholeNumberOrAuto(setting, label=label, description=described, render_kw=limits)
    if setting.kind == "boolean":
        return BooleanField(label, description=words)
    if setting.name in CHOICES:
        return RadioField(label, description=words, choices=[SelectChoice(*choice) for choice in CHOICES[setting.name]])
    return SelectField(label, description=words, choices=[SelectChoice(word) for word in setting.choices])


def _form(name: str, names: tuple[str, ...]) -> type[ConfigForm]:
    return type(name, (ConfigForm,), {field: _field(BY_NAME[field]) for field in names})


NewRunForm: Final = _form("NewRunForm", tuple(field.name for field in FIELDS if field.name not in BY_BUTTON))
"""All settings of a new run."""
LiveForm: Final = _form("LiveForm", LIVE)
"""The settings of a run that is running or paused."""
