"""What requests must look like, and what the documentation says of answers. RunConfig comes from the domain's table."""

import json
from collections.abc import Callable
from typing import Any, Final

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from briefly_admin.api.report_schemas import Report
from briefly_admin.domain.breaker import BreakerState
from briefly_admin.domain.config import AUTO, FIELDS, ConfigField, RunConfig
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.store.texts import storable


class Request(Schema):
    """Base of requests: an unknown field is an error that names the known ones."""

    class Meta:
        """marshmallow's options."""

        unknown = RAISE

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        known = f"known are {', '.join(self.fields)}" if self.fields else "there are none"
        self.error_messages = self.error_messages | {"unknown": f"Unknown field; {known}."}


def fits(value: str | None) -> None:
    """A validator: PostgreSQL can hold the text."""
    if value is not None and storable(value) != value:
        raise ValidationError("Must be a text that PostgreSQL can hold: without NUL and half characters.")


class ByName(fields.Dict):
    """Name → value, of tables or columns; faults under the name itself, as in `settled.users.0.how`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return super()._deserialize(value, attr, data, **kwargs)  # type: ignore[no-untyped-call] # marshmallow leaves it so
        except ValidationError as error:
            if not isinstance(error.messages, dict):
                raise
            found = {name: inner.get("value", inner.get("key")) for name, inner in error.messages.items()}
            raise ValidationError(found) from None


class _Whole(fields.Integer):
    """A JSON integer within bounds; faults in the domain's words."""

    def __init__(self, field: ConfigField, **options: Any) -> None:
        super().__init__(strict=True, validate=validate.Range(field.minimum, field.maximum), **options)
        self._field = field

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - marshmallow's signature
        return _checked(self._field, value)


class _Automatic(fields.Raw):
    """A JSON integer within bounds, or "auto"."""

    def __init__(self, field: ConfigField, *, metadata: dict[str, Any], **options: Any) -> None:
        whole = {"type": "integer", "minimum": field.minimum, "maximum": field.maximum}
        either = {"oneOf": [whole, {"type": "string", "enum": [AUTO]}]}
        super().__init__(metadata=metadata | either, **options)
        self._field = field

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - as above
        return _checked(self._field, value)


class _Flag(fields.Boolean):
    """true or false; 'yes' and 1 are faults."""

    def __init__(self, field: ConfigField, **options: Any) -> None:
        super().__init__(**options)
        self._field = field

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - as above
        return _checked(self._field, value)


class _Choice(fields.String):
    """One of some words."""

    def __init__(self, field: ConfigField, **options: Any) -> None:
        super().__init__(validate=validate.OneOf(field.choices), **options)
        self._field = field

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - as above
        return _checked(self._field, value)


def _checked(field: ConfigField, value: Any) -> Any:
    fault = field.fault(value)
    if fault:
        raise ValidationError(fault)
    return value


_KINDS: Final[dict[str, Callable[..., fields.Field[Any]]]] = {
    "integer": _Whole, "automatic": _Automatic, "boolean": _Flag, "choice": _Choice,
}  # fmt: skip
_DEFAULTS: Final = RunConfig().to_json()


def _config_field(field: ConfigField) -> fields.Field[Any]:
    unit = " In milliseconds." if field.unit == "ms" else ""
    metadata = {"description": f"{field.help}{unit} Default: {json.dumps(_DEFAULTS[field.name])}."}
    return _KINDS[field.kind](field, metadata=metadata, error_messages={"null": field.fault(None)})


RunConfigRequest: Final[type[Schema]] = Request.from_dict({f.name: _config_field(f) for f in FIELDS}, name="RunConfig")


LiveConfigRequest: Final[type[Schema]] = Request.from_dict(
    {f.name: _config_field(f) for f in FIELDS if f.live}, name="LiveConfig"
)
"""What may be changed while a run is running or paused."""


class MigrationRequest(Request):
    """Body of `POST /api/migration`."""

    action = fields.String(
        required=True,
        validate=validate.OneOf(("validate", "run", "status"), error="Must be one of: {choices}."),
        error_messages={"required": "Must be one of: validate, run, status."},
        metadata={"description": "What to do."},
    )
    config = fields.Nested(
        RunConfigRequest, metadata={"description": "Of a run or a validation; the settings' defaults hold beside it."}
    )


class StatusQuery(Schema):
    """Query of `GET /api/migration`."""

    id = fields.String(metadata={"description": "Only this run: its id or number."}, validate=validate.Length(1, 64))


class MigrationStatus(Schema):
    """A run, exactly as the endpoints of the seed name its fields."""

    id = fields.UUID()
    name = fields.String()
    status = fields.Enum(RunState, by_value=True)
    started_at = fields.DateTime(allow_none=True)
    completed_at = fields.DateTime(allow_none=True)
    error = fields.String(allow_none=True)
    records_processed = fields.Integer()
    records_total = fields.Integer()
    backup_created = fields.Boolean()
    rollback_available = fields.Boolean()
    kind = fields.Enum(RunKind, by_value=True)
    plan = fields.String()
    phase = fields.String(allow_none=True)
    backup_id = fields.String(allow_none=True)
    tables = fields.List(fields.Dict())
    rate = fields.Float(metadata={"description": "Rows a second."})
    eta_seconds = fields.Float(allow_none=True)
    config = fields.Nested(RunConfigRequest)


class BreakerDetails(Schema):
    """A circuit breaker that holds a run back."""

    state = fields.String(validate=validate.OneOf((BreakerState.OPEN.value, BreakerState.HALF_OPEN.value)))
    failures = fields.Integer(metadata={"description": "In a row, of all workers."})
    why = fields.String()
    until = fields.DateTime(allow_none=True, metadata={"description": "When one batch may probe."})


class Approval(Schema):
    """What one admin has asked for and another approves."""

    kind = fields.String()
    target = fields.String()
    plan = fields.String()
    fingerprint = fields.String(metadata={"description": "Of the plan."})
    backup = fields.String(allow_none=True, metadata={"description": "Of a rollback, as its mode and tables."})
    mode = fields.String(allow_none=True)
    tables = fields.List(fields.String(), allow_none=True, metadata={"description": "null: all of the backup."})
    allow = fields.List(fields.String(), metadata={"description": "Tables outside whose rows may be touched."})
    rules = fields.Dict(metadata={"description": "Of keep, where they are not the usual ones."})
    settled = fields.Integer(metadata={"description": "Of keep: rows that are settled one by one."})
    reason = fields.String()
    asked_by = fields.String()
    asked_until = fields.DateTime(metadata={"description": "When the run is cancelled if nobody has approved it."})
    approved_by = fields.String(allow_none=True)
    approved_at = fields.DateTime(allow_none=True)
    good_until = fields.DateTime(allow_none=True, metadata={"description": "By when a worker must begin."})


class RunDetails(MigrationStatus):
    """A run with its phases and its report."""

    number = fields.Integer()
    sentence = fields.String(metadata={"description": "How it stands, and what happens next by itself."})
    batch_size = fields.Integer(allow_none=True, metadata={"description": "Rows a batch now, also of `auto`."})
    workers = fields.Integer(allow_none=True, metadata={"description": "Workers that are at it now."})
    waiting = fields.String(metadata={"description": "Why it waits, in a sentence; empty while it works."})
    waiting_until = fields.DateTime(allow_none=True, metadata={"description": "When it tries next."})
    breaker = fields.Nested(BreakerDetails, allow_none=True, metadata={"description": "null while it is closed."})
    blocking = fields.List(fields.String(), metadata={"description": "Who holds the locks that it waits for."})
    approval = fields.Nested(Approval, allow_none=True, metadata={"description": "null where it needs none."})
    phases = fields.List(fields.Dict())
    report = fields.Nested(Report, allow_none=True, metadata={"description": "null while it is not done."})
    error_code = fields.String(allow_none=True)
    remedy = fields.String(allow_none=True)
    actions = fields.List(fields.String(), metadata={"description": "What you may do with it now."})


class MigrationList(Schema):
    """Data of the status answers: the newest hundred runs."""

    migrations = fields.List(fields.Nested(MigrationStatus))
    count = fields.Integer()
    latest = fields.Nested(MigrationStatus, allow_none=True)


class Validation(Schema):
    """Data of a validation's answer; `valid` is null while it is not done."""

    valid = fields.Boolean(allow_none=True)
    errors = fields.List(fields.String())
    findings = fields.List(fields.Dict())
    id = fields.UUID()


class RollbackStarted(Schema):
    """Data of a rollback's answer; `id` is its run."""

    backupId = fields.String()  # noqa: N815 - the contract's name
    id = fields.UUID()


class AvailableBackups(Schema):
    """Data of `GET /api/migration/rollback`."""

    availableBackups = fields.List(fields.String())  # noqa: N815 - the contract's name
    backups = fields.List(fields.Dict())
    count = fields.Integer()


class Failure(Schema):
    """The envelope of every error."""

    success = fields.Boolean(metadata={"enum": [False]})
    error = fields.String(metadata={"description": "A short stable word."})
    message = fields.String()
    details = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


def envelope(data: type[Schema], name: str) -> type[Schema]:
    """The schema of a successful answer with such data."""
    made: type[Schema] = Schema.from_dict(
        {"success": fields.Boolean(metadata={"enum": [True]}), "data": fields.Nested(data), "message": fields.String()},
        name=name,
    )
    return made


MigrationStatusAnswer: Final = envelope(MigrationStatus, "MigrationStatusAnswer")
MigrationListAnswer: Final = envelope(MigrationList, "MigrationListAnswer")
ValidationAnswer: Final = envelope(Validation, "ValidationAnswer")
RollbackAnswer: Final = envelope(RollbackStarted, "RollbackAnswer")
AvailableBackupsAnswer: Final = envelope(AvailableBackups, "AvailableBackupsAnswer")
RunAnswer: Final = envelope(RunDetails, "RunAnswer")
