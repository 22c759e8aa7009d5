"""What requests about rollbacks must look like."""

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import ValidationError, fields, validate, validates, validates_schema

from briefly_admin.api.schemas import ByName, Request, fits
from briefly_admin.services.restoring import MODES, MOST_ALLOWANCE, RULES
from briefly_admin.services.settling import HOWS, MOST_SETTLED

_LONGEST: Final = 200
_LONGEST_REASON: Final = 500
_MOST_TABLES: Final = 1000
_MOST_COLUMNS: Final = 1600
"""PostgreSQL's own limit of a table."""
_ONE_OF: Final = "Must be one of: {choices}."
_OTHERS: Final = "keep alone. "


def _names(description: str, **options: Any) -> fields.List[Any]:
    return fields.List(
        fields.String(validate=validate.Length(1, _LONGEST)),
        validate=validate.Length(options.pop("fewest", None), _MOST_TABLES), metadata={"description": description},
        **options,
    )  # fmt: skip


def _rule(name: str, description: str) -> fields.String:
    default = f"{RULES[name][0]} by default."
    return fields.String(
        validate=validate.OneOf(RULES[name], error=_ONE_OF), metadata={"description": f"{description}; {default}"}
    )


class Rules(Request):
    """What becomes of all rows that others wrote since the migration, unless one is settled."""

    edited = _rule("edited", "Rows edited since: as they are now, or as in the backup")
    created = _rule("created", "Rows created since")
    deleted = _rule("deleted", "Rows deleted since")


class SettledRow(Request):
    """What becomes of one row that was edited since."""

    key = fields.List(
        fields.String(validate=fits),
        required=True, validate=validate.Length(1, _MOST_COLUMNS),
        metadata={"description": "The values of its key as texts, in the key's order; as `samples` tells them."},
    )  # fmt: skip
    how = fields.String(
        required=True, validate=validate.OneOf(HOWS, error=_ONE_OF),
        metadata={"description": "keep: as it is now; restore: as in the backup; edit: as it is now with `values`."},
    )  # fmt: skip
    values = fields.Dict(
        keys=fields.String(validate=[validate.Length(1, _LONGEST), fits]),
        values=fields.String(allow_none=True, validate=fits),
        validate=validate.Length(max=_MOST_COLUMNS),
        metadata={"description": "Of edit: column → text as PostgreSQL reads it, or null; of no key, no generated and "
                  "no secret column."},
    )  # fmt: skip

    @validates_schema
    def _values_are_of_edit(self, data: Mapping[str, Any], **_: Any) -> None:
        if (data.get("how") == "edit") != bool(data.get("values")):
            raise ValidationError("Belong to edit, and edit needs them.", "values")


class RollbackRequest(Request):
    """Body of `POST /api/migration/rollback`."""

    backupId = fields.String(  # noqa: N815 - the contract's name
        required=True,
        validate=validate.Length(1, _LONGEST),
        metadata={"description": "The backup's name, `backup_…`."},
    )
    confirm = fields.Raw(
        metadata={"type": "boolean", "enum": [True], "description": "Must be true, or nothing happens."},
    )
    mode = fields.String(
        load_default="exact",
        validate=validate.OneOf(MODES, error=_ONE_OF),
        metadata={
            "description": "exact, the default: every table is what it was at the backup, and newer rows and edits go. "
            "keep: undo only what the migration did, for a backup that a migration took."
        },
    )
    tables = _names("Only these tables; all of the backup without it.", load_default=None, allow_none=True, fewest=1)
    reason = fields.String(
        load_default="",
        validate=validate.Length(max=_LONGEST_REASON),
        metadata={"description": "For the audit log: plain text, of control characters line breaks and tabs alone."},
    )
    previewId = fields.String(  # noqa: N815 - the contract's name
        load_default=None, allow_none=True, validate=validate.Length(1, _LONGEST),
        metadata={"description": "A finished preview of this backup: it stops if the counts moved since."},
    )  # fmt: skip
    allowance = fields.Integer(
        strict=True, load_default=0, validate=validate.Range(0, MOST_ALLOWANCE),
        metadata={"description": "By how many rows each count of a table may have moved since `previewId`; refused "
                  "without it."},
    )  # fmt: skip
    allow = _names(
        "Tables outside, `schema.table` each, whose rows CASCADE, SET NULL or SET DEFAULT may touch. The backup "
        "taken first has them, too: `briefly-admin backup open` gets them out, for a rollback brings back tables "
        "of the plan alone.",
        load_default=(),
    )
    rules = fields.Nested(
        Rules, load_default=dict, metadata={"description": f"With {_OTHERS}What becomes of what others wrote since."}
    )
    settled = ByName(
        keys=fields.String(validate=validate.Length(1, _LONGEST)), values=fields.List(fields.Nested(SettledRow)),
        load_default=dict,
        metadata={"description": f"With {_OTHERS}Table → its rows that are settled one by one, before the rules: at "
                  f"most {MOST_SETTLED:,} in all, and each edited since."},
    )  # fmt: skip

    @validates("settled")
    def _not_too_many(self, value: Mapping[str, list[Any]], **_: Any) -> None:
        if sum(map(len, value.values())) > MOST_SETTLED:
            raise ValidationError(f"Must have at most {MOST_SETTLED:,} rows; decide about more of them by a rule.")


class PreviewRequest(Request):
    """Body of `POST /api/v1/backups/<id>/preview`."""

    tables = _names("Only these tables; all of the backup without it.", load_default=None, allow_none=True, fewest=1)
