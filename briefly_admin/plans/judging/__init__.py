"""What a record schema says, in plain words and data, for whoever compiles it; and marshmallow's own verdict.

marshmallow is the judge of `to_jsonb(row)`. The description says of each field which values surely pass, so that a
database can decide most rows by itself; whatever the description cannot say is opaque and is left to `judge`. A field
or validator that breaks over a value (raises anything) does not take it.

A column that the database lacks is NULL, with one exception: where the field has a `load_default`, the default stands
for the column, as marshmallow has it for a missing key, and no rule is asked (`FieldSpec.has_default`).
"""

from briefly_admin.plans.judging.describing import describe
from briefly_admin.plans.judging.specs import (
    FieldKind,
    FieldSpec,
    Judge,
    RecordSchema,
    RecordSpec,
    RuleKind,
    RuleSpec,
    UrlForm,
)

__all__ = [
    "FieldKind", "FieldSpec", "Judge", "RecordSchema", "RecordSpec", "RuleKind", "RuleSpec", "UrlForm", "describe",
]  # fmt: skip
