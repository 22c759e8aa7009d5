"""What the documentation says of a run's report: of its preview and of what its restore wrote."""

from collections.abc import Mapping
from typing import Any, Final

from marshmallow import INCLUDE, Schema, fields, validate

from briefly_admin.services.restoring import MODES

_CLASSES: Final = ("untouched", "migrated", "edited", "created", "deleted")
_ACTIONS: Final = ("CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION")


def _by_table(value: fields.Field[Any], description: str, **options: Any) -> fields.Dict:
    return fields.Dict(keys=fields.String(), values=value, metadata={"description": description}, **options)


def _counts(name: str, meanings: Mapping[str, str]) -> type[Schema]:
    counts: dict[str, fields.Field[Any]] = {
        what: fields.Integer(metadata={"description": text}) for what, text in meanings.items()
    }
    made: type[Schema] = Schema.from_dict(counts, name=name)
    return made


Written: Final = _counts(
    "Written", {"same": "Equal.", "update": "Put back.", "insert": "Brought back.", "delete": "Removed."}
)
Classes: Final = _counts(
    "Classes",
    {
        "untouched": "As in the backup.",
        "migrated": "Changed by the migration alone.",
        "edited": "Edited since by others.",
        "created": "Created since.",
        "deleted": "Deleted since.",
    },
)
WrittenByKeep: Final = _counts("WrittenByKeep", {"update": "Put back."})


class SampleColumn(Schema):
    """A column of a sample; null: NULL, or there is no such row. Texts are cut at 200 characters."""

    name = fields.String()
    before = fields.String(allow_none=True, metadata={"description": "In the backup."})
    migrated = fields.String(allow_none=True, metadata={"description": "As the migration left it."})
    now = fields.String(allow_none=True)
    secret = fields.Boolean(metadata={"description": "Its values are not told."})


class Sample(Schema):
    """A row that is not untouched."""

    in_class = fields.String(data_key="class", validate=validate.OneOf(_CLASSES))
    key = fields.List(fields.String(), metadata={"description": "As `settled` takes it."})
    columns = fields.List(fields.Nested(SampleColumn))


class Lost(Schema):
    """A column that goes with the schema changes."""

    table = fields.String()
    column = fields.String()
    rows = fields.Integer(metadata={"description": "Rows with something in it that the migration did not put there."})


class Outside(Schema):
    """What foreign keys would do to rows of tables that are not restored."""

    table = fields.String(metadata={"description": "`schema.table`, as `allow` takes it."})
    constraint = fields.String()
    action = fields.String(validate=validate.OneOf(_ACTIONS))
    of = fields.String(metadata={"description": "The table whose rows go."})
    rows = fields.Integer()
    blocks = fields.Boolean(metadata={"description": "Nothing can allow it."})
    text = fields.String(metadata={"description": "All of it in a sentence."})


class PreviewReport(Schema):
    """What a rollback would do, whether `exact` or `keep`; by table."""

    tables = _by_table(fields.Nested(Written), "What exact would write.")
    classes = _by_table(fields.Nested(Classes), "What became of the backup's rows.")
    keep = _by_table(
        fields.Nested(WrittenByKeep),
        "What keep would write without rules; null where it cannot be.", allow_none=True,
    )  # fmt: skip
    left_out = _by_table(fields.List(fields.String()), "Columns that triggers write: they are not compared.")
    derived = _by_table(fields.List(fields.String()), "Columns that keep computes anew.")
    lost = fields.List(fields.Nested(Lost))
    samples = _by_table(fields.List(fields.Nested(Sample)), "At most 100 edited rows a table, 20 of other classes.")
    outside = fields.List(fields.Nested(Outside))
    schema_changes = fields.List(fields.String(), metadata={"description": "Schema changes that would be undone."})


class RestoreReport(Schema):
    """What a rollback wrote."""

    mode = fields.String(validate=validate.OneOf(MODES))
    tables = _by_table(fields.Nested(Written), "What was written.")
    recomputed = _by_table(fields.Integer(), "Of keep: values computed anew.")
    outside = _by_table(fields.Integer(), "Rows of tables outside that foreign keys touched.")
    digests = _by_table(fields.String(), "Of all rows now, whatever their order.")
    seconds = _by_table(fields.Float(), "How long it took, by step.")


class Report(Schema):
    """What each phase that is done told, by its name."""

    class Meta:
        """marshmallow's options: other phases have reports, too."""

        unknown = INCLUDE

    preview = fields.Nested(PreviewReport, metadata={"description": "Of a preview or a rollback."})
    restore = fields.Nested(RestoreReport, metadata={"description": "Of a rollback."})
