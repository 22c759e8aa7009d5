"""A marshmallow schema as data."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from marshmallow import EXCLUDE, INCLUDE, RAISE, Schema, decorators, fields, missing

from briefly_admin.plans.judging.asking import judge_of_all, judge_of_type
from briefly_admin.plans.judging.field_kinds import OWN_CODE, kind_of, options_of, words_of
from briefly_admin.plans.judging.rules import members_of, rules_of
from briefly_admin.plans.judging.specs import FieldSpec, RecordSchema, RecordSpec

_TAGS: Final = (decorators.PRE_LOAD, decorators.POST_LOAD, decorators.VALIDATES, decorators.VALIDATES_SCHEMA)
_LOADING: Final = ("load", "_do_load", "_deserialize", "validate")
_DEEPEST: Final = 6
"""Schemas in schemas; below, and where a schema holds itself, marshmallow is asked."""


def describe(record: RecordSchema) -> RecordSpec:
    """The schema as data. Columns that it does not declare are left out of the verdict."""
    schema = record()
    known = {_key(name, field): field for name, field in schema.load_fields.items()}
    described = tuple(_describe(name, field, (record,)) for name, field in known.items())
    defaults = {field.name for field in described if field.has_default}

    def judge(row: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            asked = {name: row.get(name) for name in known if name in row or name not in defaults}
            faults: Mapping[str, Any] = schema.validate(asked)
        except Exception:  # noqa: BLE001 - a plan's own code may raise anything; no run ends for that
            return {"_schema": ["The schema cannot judge this row."]}
        return faults

    return RecordSpec(described, judge, has_hooks=_has_hooks(schema))


def _has_hooks(schema: Schema) -> bool:
    hooks = schema._hooks  # noqa: SLF001 - marshmallow has no public name for it
    return any(hooks[tag] for tag in _TAGS) or any(
        getattr(type(schema), name) is not getattr(Schema, name) for name in _LOADING
    )


def _key(name: str, field: fields.Field[Any]) -> str:
    return name if field.data_key is None else field.data_key


def _describe(name: str, field: fields.Field[Any], above: tuple[RecordSchema, ...], partial: Any = None) -> FieldSpec:
    """`above`: the schemas that the field is in; `partial`: what they say of missing keys."""
    common: dict[str, Any] = {
        "required": field.required and not isinstance(field, fields.Constant),
        "has_default": field.load_default is not missing,
    }
    if field.pre_load or field.post_load:
        why = "functions of the plan change the value before it is judged or afterwards"
        return FieldSpec(
            name, "opaque", field.allow_none, judge_of_all(field), why=why, judges_null=bool(field.pre_load), **common
        )
    kind = kind_of(field)
    inner = None if kind == "opaque" else _inner(field, above, partial)
    if inner is None:
        why = OWN_CODE if kind == "opaque" else "the schema within it does more than its fields say"
        return FieldSpec(name, "opaque", field.allow_none, judge_of_all(field), why=why, **common)
    members = members_of(field)
    words = members.words if members else words_of(kind)
    return FieldSpec(
        name, kind, field.allow_none, judge_of_type(field), rules_of(field, kind), words=words, members=members,
        **common, **options_of(field), **inner,
    )  # fmt: skip


def _inner(field: fields.Field[Any], above: tuple[RecordSchema, ...], partial: Any) -> dict[str, Any] | None:
    """What the field says of what is in its values; None where only marshmallow knows."""

    def described(inside: fields.Field[Any]) -> FieldSpec:
        return _describe(inside.name or "", inside, above, partial)

    if isinstance(field, fields.Nested):
        return _nested(field, above, partial)
    if isinstance(field, fields.List):
        return {"item": described(field.inner)}
    if isinstance(field, fields.Tuple):
        return {"items": tuple(map(described, field.tuple_fields))}
    if isinstance(field, fields.Mapping):
        return {
            "key": described(field.key_field) if field.key_field else None,
            "item": described(field.value_field) if field.value_field else None,
        }
    return {}


def _nested(field: fields.Nested, above: tuple[RecordSchema, ...], partial: Any) -> dict[str, Any] | None:
    schema = field.schema
    partial = schema.partial if partial is None else partial
    unknown = schema.unknown if field.unknown is None else field.unknown
    usual = partial is None or isinstance(partial, bool)
    dotted = any("." in (each.attribute or "") for each in schema.load_fields.values())
    if (
        _has_hooks(schema) or dotted or not usual or unknown not in {RAISE, EXCLUDE, INCLUDE}
        or type(schema) in above or len(above) > _DEEPEST
    ):  # fmt: skip
        return None
    items = tuple(_within(schema.load_fields.items(), (*above, type(schema)), partial))
    if not isinstance(field, fields.Pluck):
        return {"items": items, "closed": unknown == RAISE, "many": bool(schema.many)}
    # The one key that is given must be the schema's; a dump_only field's is unknown to it.
    if len(items) != 1 or bool(schema.many) != bool(field.many):
        return None
    return {"item": items[0], "many": bool(schema.many)}


def _within(
    known: Iterable[tuple[str, fields.Field[Any]]], above: tuple[RecordSchema, ...], partial: Any
) -> Iterator[FieldSpec]:
    for name, field in known:
        spec = _describe(_key(name, field), field, above, partial)
        yield replace(spec, required=spec.required and not partial)
