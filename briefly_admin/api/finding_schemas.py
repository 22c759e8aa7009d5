"""What requests about findings and quarantine must look like, and what the documentation says of their answers."""

from typing import Final

from marshmallow import Schema, fields, validate

from briefly_admin.api.schemas import Request, envelope, fits
from briefly_admin.domain.findings import FindingClass
from briefly_admin.services.exporting import FORMS
from briefly_admin.services.findings import MOST_ROWS

LONGEST_NAME: Final = 200
LONGEST_RULE: Final = 64
MOST_COLUMNS: Final = 1600
"""PostgreSQL's own limit of a table."""
_ONE_OF: Final = "Must be one of: {choices}."
_PHASES: Final = ("validate", "verify")


def name(description: str, *, longest: int = LONGEST_NAME) -> fields.String:
    """A table, a column, a rule or a run, which must be given."""
    return fields.String(
        required=True, validate=[validate.Length(1, longest), fits], metadata={"description": description}
    )


def optional(
    description: str, *, default: str | None = None, least: int = 1, longest: int = LONGEST_NAME
) -> fields.String:  # fmt: skip
    """The same, where it may be left out."""
    return fields.String(
        load_default=default, validate=[validate.Length(least, longest), fits], metadata={"description": description}
    )


def field_of_cause(description: str) -> fields.String:
    """A column; '', the default, for a cause of the whole row."""
    return optional(description, default="", least=0)


def key(description: str, *, required: bool = True) -> fields.List[str]:
    """The values of a row's key as texts."""
    options = {"required": True} if required else {"load_default": None}
    return fields.List(
        fields.String(validate=fits), validate=validate.Length(1, MOST_COLUMNS),
        metadata={"description": f"{description} The values of its key as texts, in the key's order."}, **options,
    )  # fmt: skip


class FindingsQuery(Request):
    """Query of `GET /api/v1/runs/<id>/findings`."""

    phase = fields.String(
        load_default=_PHASES[0], validate=validate.OneOf(_PHASES, error=_ONE_OF),
        metadata={"description": "validate, the default: before a migration. verify: what is left after it."},
    )  # fmt: skip


class RowsOfFindingQuery(Request):
    """Query of `GET /api/v1/runs/<id>/findings/rows`."""

    table = name("The finding's table.")
    field = field_of_cause("Its field; empty for one of the whole row.")
    rule = name("Its rule.", longest=LONGEST_RULE)
    format = fields.String(
        load_default="ndjson", validate=validate.OneOf(tuple(FORMS), error=_ONE_OF),
        metadata={"description": "ndjson, the default, or csv."},
    )  # fmt: skip
    in_class = fields.Enum(
        FindingClass, by_value=True, data_key="class", load_default=None, allow_none=False,
        metadata={"description": "Only of this class; of all by default."},
    )  # fmt: skip
    limit = fields.Integer(
        load_default=None, allow_none=False, validate=validate.Range(min=1),
        metadata={"description": "At most so many rows; all by default."},
    )  # fmt: skip


class CausesQuery(Request):
    """Query of `GET /api/v1/quarantine/causes`."""

    run = optional("Only of this migration: its id or number. All of the target without it.")


class QuarantineQuery(Request):
    """Query of `GET /api/v1/quarantine`."""

    run = name("The migration: its id or number.")
    table = name("As `causes` names it, like `field` and `cause`.")
    field = field_of_cause("Empty for a cause of the whole row.")
    cause = name("What is wrong with the rows.", longest=LONGEST_RULE)
    after = key("Only rows after this one: `next` of the page before.", required=False)
    limit = fields.Integer(
        load_default=50, validate=validate.Range(1, MOST_ROWS), metadata={"description": "Rows of the page; 50."}
    )


class FindingSample(Schema):
    """One row that has a finding."""

    key = fields.String()
    value = fields.String(allow_none=True, metadata={"description": "Not there for secret fields."})


class GoneDetails(Schema):
    """One rule broken in one table, as it was found then."""

    table = fields.String()
    field = fields.String(metadata={"description": "Empty for a rule of the whole row."})
    rule = fields.String()
    in_class = fields.Enum(FindingClass, by_value=True, data_key="class")
    count = fields.Integer(metadata={"description": "Rows; exact."})
    message = fields.String()
    samples = fields.List(fields.Nested(FindingSample), metadata={"description": "At most 100."})


class FindingDetails(GoneDetails):
    """One rule broken in one table, beside the validation before."""

    before = fields.Integer(
        allow_none=True, metadata={"description": "Rows at the validation before; null where there was none."}
    )


class TrendDetails(Schema):
    """The validation before, of the same plan and target."""

    run = fields.Integer(allow_none=True, metadata={"description": "Its number; null: there was none."})
    gone = fields.List(fields.Nested(GoneDetails), metadata={"description": "Not found now."})


class FindingList(Schema):
    """Findings of a run: blocking, then repairable, then notices."""

    run = fields.UUID()
    number = fields.Integer()
    phase = fields.String(validate=validate.OneOf(_PHASES))
    findings = fields.List(fields.Nested(FindingDetails))
    count = fields.Integer()
    trend = fields.Nested(TrendDetails)


class CauseDetails(Schema):
    """Open rows of one migration's quarantine that have one thing wrong."""

    run = fields.UUID()
    number = fields.Integer(metadata={"description": "Of the run."})
    table = fields.String()
    field = fields.String()
    cause = fields.String()
    message = fields.String(metadata={"description": "Of one of the rows."})
    rows = fields.Integer()
    corrected = fields.Integer(metadata={"description": "Of these: changed by hand since."})
    skipped = fields.Integer(metadata={"description": "Of these: to be left alone."})
    replayable = fields.Boolean(metadata={"description": "Whether the migration can be replayed."})


class CauseList(Schema):
    """Causes, the newest migration first."""

    causes = fields.List(fields.Nested(CauseDetails))
    count = fields.Integer()


class QuarantinedDetails(Schema):
    """A row that a migration left alone."""

    table = fields.String()
    key = fields.List(fields.String())
    field = fields.String()
    cause = fields.String()
    message = fields.String()
    sqlstate = fields.String(allow_none=True, metadata={"description": "Where the database refused it."})
    constraint = fields.String(allow_none=True)
    closed = fields.Boolean(metadata={"description": "It is in the quarantine no more."})
    corrected_at = fields.DateTime(allow_none=True, metadata={"description": "When it was changed by hand."})
    skipped = fields.String(allow_none=True, metadata={"description": "Why it is to be left alone."})


class QuarantineList(Schema):
    """A page of a cause's open rows, in the order of their keys' texts."""

    rows = fields.List(fields.Nested(QuarantinedDetails))
    count = fields.Integer(metadata={"description": "On this page."})
    next = fields.List(
        fields.String(), allow_none=True, metadata={"description": "Ask with it as `after`; null: last."}
    )


FindingListAnswer: Final = envelope(FindingList, "FindingListAnswer")
CauseListAnswer: Final = envelope(CauseList, "CauseListAnswer")
QuarantineListAnswer: Final = envelope(QuarantineList, "QuarantineListAnswer")
