"""What requests about single rows and fixes must look like, and what the documentation says of their answers."""

from typing import Final

from marshmallow import Schema, fields, validate

from briefly_admin.api.finding_schemas import (
    LONGEST_NAME,
    LONGEST_RULE,
    MOST_COLUMNS,
    field_of_cause,
    key,
    name,
    optional,
)
from briefly_admin.api.schemas import ByName, Request, envelope, fits
from briefly_admin.domain.corrections import MOST_AT_ONCE, Input

_LONGEST_REASON: Final = 500
_LONGEST_VERSION: Final = 64


def _changes() -> ByName:
    return ByName(
        keys=fields.String(validate=[validate.Length(1, LONGEST_NAME), fits]),
        values=fields.String(allow_none=True, validate=fits),
        required=True, validate=validate.Length(1, MOST_COLUMNS),
        metadata={"description": "Column → its new value as a text that PostgreSQL reads, or null; of no key and no "
                  "generated column."},
    )  # fmt: skip


def _recorded() -> fields.Boolean:
    return fields.Boolean(metadata={"description": "false: the change stands, its record follows by itself."})


class RowQuery(Request):
    """Query of `GET /api/v1/rows/<table>`."""

    key = key("The row; repeated for a key of several columns.")


class CheckRequest(Request):
    """Body of `POST /api/v1/rows/<table>/check`."""

    key = key("The row.")
    changes = _changes()


class CorrectRequest(CheckRequest):
    """Body of `POST /api/v1/rows/<table>/correct`."""

    version = fields.String(
        required=True, validate=[validate.Length(1, _LONGEST_VERSION), fits],
        metadata={"description": "Of the row as it was shown: another one now is refused (409)."},
    )  # fmt: skip


class SkipRequest(Request):
    """Body of `POST /api/v1/rows/<table>/skip`."""

    key = key("The row.")
    reason = fields.String(
        required=True, validate=[validate.Length(1, _LONGEST_REASON), fits],
        metadata={"description": "Why it is to be left alone; told with the row."},
    )  # fmt: skip


class UnskipRequest(Request):
    """Body of `POST /api/v1/rows/<table>/unskip`."""

    key = key("The row.")


class FixPreviewRequest(Request):
    """Body of `POST /api/v1/fixes/preview`."""

    table = name("The cause's table.")
    field = field_of_cause("Its field; empty for one of the whole row.")
    rule = name("Its rule, as a finding's `rule` or a quarantined row's `cause`.", longest=LONGEST_RULE)
    run = optional(
        "Only rows of this migration's quarantine: its id or number. All that have the cause now without it."
    )
    changes = _changes()


class FixRequest(FixPreviewRequest):
    """Body of `POST /api/v1/fixes`."""

    expected = fields.Integer(
        required=True, strict=True, validate=validate.Range(0, MOST_AT_ONCE),
        metadata={"description": "`rows` of the preview: where it is another number now, nothing is changed (409)."},
    )  # fmt: skip


class ReplayRequest(Request):
    """Body of `POST /api/v1/runs/<id>/replay`; all that it names must hold of a row."""

    table = optional("Only rows of this table.")
    field = optional("Only rows whose cause is about this field; empty: about the row as a whole.", least=0)
    cause = optional("Only rows with this cause.", longest=LONGEST_RULE)
    key = key("Only this row of `table`.", required=False)


class FieldDetails(Schema):
    """A column of a row with what is wrong with it."""

    name = fields.String()
    input = fields.Enum(Input, by_value=True, metadata={"description": "How a form asks for it."})
    type = fields.String(metadata={"description": "In SQL."})
    value = fields.String(
        allow_none=True,
        metadata={
            "description": "As a text; null for NULL and of secret columns; a few words where no form can show it, or "
                           "where it is not read, because the plan does not know the column."
        },
    )  # fmt: skip
    secret = fields.Boolean()
    key = fields.Boolean()
    nullable = fields.Boolean()
    choices = fields.List(fields.String())
    rules = fields.List(fields.String(), metadata={"description": "In words."})
    faults = fields.List(fields.String(), metadata={"description": "What is wrong once repaired; these block."})
    repaired = fields.String(
        allow_none=True, metadata={"description": "What a migration makes of it, where that is another value."}
    )


class RowDetails(Schema):
    """A row as it was read, or as it would be."""

    table = fields.String()
    key = fields.List(fields.String())
    version = fields.String(metadata={"description": "For `correct`; empty of a row that is only typed."})
    fields_ = fields.List(fields.Nested(FieldDetails), data_key="fields")
    faults = fields.List(fields.String(), metadata={"description": "Of the row as a whole."})
    blocks = fields.Boolean(metadata={"description": "Whether something is left to cure."})
    recorded = _recorded()
    skipped = fields.String(
        allow_none=True, metadata={"description": "Of a row that is looked at: why it is to be left alone, or null."}
    )


class SkipDetails(Schema):
    """A row that is, or no more is, to be left alone."""

    table = fields.String()
    key = fields.List(fields.String())
    skipped = fields.String(allow_none=True, metadata={"description": "The reason; null: it is as others."})


class FixSample(Schema):
    """A row that a fix changes."""

    key = fields.List(fields.String())
    changes = fields.Dict(
        keys=fields.String(), values=fields.Dict(),
        metadata={"description": "Column → {before, after}; secret ones left out."},
    )  # fmt: skip


class FixDetails(Schema):
    """What a fix did, or would do; exact counts."""

    rows = fields.Integer(metadata={"description": "That have the cause."})
    cured = fields.Integer(metadata={"description": "Of these: right in the changed columns afterwards."})
    refused = fields.Dict(
        keys=fields.String(), values=fields.Integer(),
        metadata={"description": "Reason → rows that it would not cure or would break; a fix is made only without."},
    )  # fmt: skip
    samples = fields.List(fields.Nested(FixSample), metadata={"description": "At most 20."})
    more = fields.Integer(metadata={"description": f"Rows beyond {MOST_AT_ONCE:,}, for the next fix."})
    recorded = _recorded()


RowAnswer: Final = envelope(RowDetails, "RowAnswer")
SkipAnswer: Final = envelope(SkipDetails, "SkipAnswer")
FixAnswer: Final = envelope(FixDetails, "FixAnswer")
