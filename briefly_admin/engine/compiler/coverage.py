"""Which rules of a record schema PostgreSQL decides by itself, and which marshmallow has to be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from psycopg import sql

from briefly_admin.engine.compiler.conditions import Condition, conditions
from briefly_admin.engine.compiler.views import Typed
from briefly_admin.plans.judging import FieldSpec, RecordSchema, describe

How = Literal["exact", "sound", "python"]


@dataclass(frozen=True, slots=True)
class RuleCoverage:
    """One rule of one field over the column that the database has.

    `how`: exact: SQL decides every value. sound: SQL accepts the usual values, marshmallow judges the others.
    python: marshmallow judges every value, and `why` says in words what SQL cannot know; otherwise `why` is empty.
    """

    field: str
    rule: str
    words: str
    how: How
    why: str = ""


def coverage(record: RecordSchema, types: Mapping[str, str]) -> tuple[RuleCoverage, ...]:
    """Every rule of `record`, in the schema's order; `types`: column → pg_type.typname, a missing column is absent."""
    spec = describe(record)
    if spec.has_hooks:
        why = "the schema looks at rows as a whole"
        return (RuleCoverage("row", "schema", "must satisfy the record schema", "python", why),)
    return tuple(
        RuleCoverage(field.name, _rule_name(condition, types, field), condition.words, _how(condition), condition.why)
        for field in spec.fields
        if field.name in types or not field.has_default
        for condition in conditions(field, Typed(sql.Identifier(field.name), types.get(field.name, "text")))
        if condition.test is not None and (field.name in types or condition.name == "null")
    )


def _rule_name(condition: Condition, types: Mapping[str, str], field: FieldSpec) -> str:
    """The one rule of a column that is not there is that it must be."""
    return condition.name if field.name in types else "required"


def _how(condition: Condition) -> How:
    if condition.judge is None:
        return "exact"
    return "python" if condition.why else "sound"
