"""What requests about backups must look like, and what the documentation says of their answers."""

from typing import Final

from marshmallow import Schema, fields, validate

from briefly_admin.api.schemas import Request, envelope

_LONGEST: Final = 200
_MOST_TABLES: Final = 1000


class BackUpRequest(Request):
    """Body of `POST /api/v1/backups`."""

    beyond = fields.List(
        fields.String(validate=validate.Length(1, _LONGEST)),
        load_default=(), validate=validate.Length(max=_MOST_TABLES),
        metadata={"description": "Also these tables outside the plan, `schema.table` each; `*`: all of them."},
    )  # fmt: skip


class VerifyRequest(Request):
    """Body of `POST /api/v1/backups/<id>/verify`."""

    level = fields.String(
        load_default="L1",
        validate=validate.OneOf(("L0", "L1"), error="Must be one of: {choices}."),
        metadata={
            "description": "L0: every object is there, of its size and sum. L1, the default: every byte is opened, "
            "every row counted and hashed. L2 is a drill."
        },
    )


class NothingRequest(Request):
    """Body of what takes no fields."""


class BackupTableDetails(Schema):
    """A table of a backup."""

    table = fields.String()
    rows = fields.Integer()
    bytes = fields.Integer(metadata={"description": "As sealed."})
    digest = fields.String(metadata={"description": "Of all rows, whatever their order; see docs/backup-format.md."})


class ProofDetails(Schema):
    """One look at a backup."""

    level = fields.String(validate=validate.OneOf(("L0", "L1", "L2")))
    at = fields.DateTime()
    whole = fields.Boolean()
    damages = fields.Integer(metadata={"description": "How many."})
    rows = fields.Integer()
    seconds = fields.Float()
    run = fields.Integer(allow_none=True, metadata={"description": "The number of the run that looked."})
    by = fields.String()
    place = fields.String(metadata={"description": "The store, or the database of a drill."})


class BackupDetails(Schema):
    """A backup; sizes in bytes."""

    backup_id = fields.String(metadata={"description": "Its name, `backup_…`: what every endpoint takes."})
    id = fields.UUID(metadata={"description": "What it is called in the store; taken as well."})
    state = fields.String(validate=validate.OneOf(("proven", "damaged", "expired")))
    plan = fields.String()
    target = fields.String()
    created_at = fields.DateTime()
    rows = fields.Integer()
    bytes = fields.Integer()
    tables = fields.List(fields.Nested(BackupTableDetails))
    proofs = fields.List(fields.Nested(ProofDetails), metadata={"description": "Newest first."})
    expires_at = fields.DateTime(allow_none=True)
    pinned = fields.Boolean()
    escrowed_at = fields.DateTime(allow_none=True, metadata={"description": "When its escrow file was written last."})
    run = fields.Integer(allow_none=True, metadata={"description": "The number of the run that took it."})
    restorable = fields.Boolean()
    why_not = fields.String(metadata={"description": "Why it cannot be restored, or empty."})
    damage = fields.List(fields.String(), metadata={"description": "All that was found, a line each."})


class BackupList(Schema):
    """Data of `GET /api/v1/backups`."""

    backups = fields.List(fields.Nested(BackupDetails))
    count = fields.Integer()


BackupAnswer: Final = envelope(BackupDetails, "BackupAnswer")
BackupListAnswer: Final = envelope(BackupList, "BackupListAnswer")
