"""What a record schema says, in plain words and data, for whoever compiles it; and marshmallow's own verdict.

marshmallow is the judge of `to_jsonb(row)`. The description says of each field which values surely pass, so that a
database can decide most rows by itself; whatever the description cannot say is opaque and is left to `judge`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from marshmallow import Schema, ValidationError, decorators, fields, validate

from briefly_admin.plans.base import SqlValidator
from briefly_admin.plans.records import Embedding, Identifier

RecordSchema = type[Schema]
"""A record schema's class."""

Judge = Callable[[Any], bool]
"""From a JSON value as Python has it to whether marshmallow takes it."""

FieldKind = Literal[
    "any", "string", "identifier", "uuid", "integer", "float", "boolean", "moment", "object", "list", "embedding",
    "opaque",
]  # fmt: skip
RuleKind = Literal["one_of", "none_of", "range", "length", "email", "pattern", "condition", "opaque"]


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One validator of a field; `judge` runs the field's type and then this validator alone."""

    kind: RuleKind
    name: str
    words: str
    """'must be at least 0'."""
    judge: Judge
    choices: tuple[Any, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    pattern: re.Pattern[str] | None = None
    condition: str = ""
    """SQL over the text `{value}` that holds for exactly the values that pass."""


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field; of an opaque kind `judge` is the whole field's and `rules` is empty."""

    name: str
    kind: FieldKind
    allow_none: bool
    judge: Judge
    """The type alone; None is not asked."""
    rules: tuple[RuleSpec, ...] = ()
    words: str = "is not of the right type"
    item: FieldKind | None = None
    """Of a list: the kind of its items where that is all that is asked of them; None: only `judge` knows."""
    aware: bool | None = None
    """Of a moment: whether it must have an offset; None does not matter."""


@dataclass(frozen=True, slots=True)
class RecordSpec:
    """A record schema; `judge` gives marshmallow's faults of a whole row: field → texts, {} if it passes."""

    fields: tuple[FieldSpec, ...]
    judge: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    has_hooks: bool
    """The schema looks at rows as a whole (validates_schema, pre_load …): every row is for `judge`."""


def describe(record: type[Schema]) -> RecordSpec:
    """The schema as data. Columns that it does not declare are left out of the verdict."""
    schema = record()
    known = {field.data_key or name: field for name, field in schema.load_fields.items()}

    def judge(row: Mapping[str, Any]) -> Mapping[str, Any]:
        faults: Mapping[str, Any] = schema.validate({name: row.get(name) for name in known})
        return faults

    hooks = schema._hooks  # noqa: SLF001 - marshmallow has no public name for it
    tags = (decorators.PRE_LOAD, decorators.POST_LOAD, decorators.VALIDATES, decorators.VALIDATES_SCHEMA)
    return RecordSpec(
        fields=tuple(_describe_field(name, field) for name, field in known.items()),
        judge=judge,
        has_hooks=any(hooks[tag] for tag in tags),
    )


_WORDS: Final[dict[FieldKind, str]] = {
    "string": "must be a text",
    "identifier": "must be a non-empty text or an integer",
    "uuid": "must be a UUID",
    "integer": "must be an integer",
    "float": "must be a number",
    "boolean": "must be true or false",
    "moment": "must be a moment from year 1 to 9999",
    "object": "must be a JSON object",
    "list": "must be a list of the right items",
    "embedding": "must be a vector",
}


def _describe_field(name: str, field: fields.Field[Any]) -> FieldSpec:
    kind = _kind(field)
    if kind == "opaque" or field.pre_load or field.post_load:
        return FieldSpec(name, "opaque", field.allow_none, lambda value: _passes(field.deserialize, value))
    item = _kind(field.inner) if isinstance(field, fields.List) and _is_plain(field.inner) else None
    aware = isinstance(field, fields.AwareDateTime) and field.default_timezone is None
    return FieldSpec(
        name,
        kind,
        field.allow_none,
        lambda value: _passes(_type_of(field), value),
        tuple(_rule(field, validator) for validator in _flat(field.validators)),
        words=_WORDS.get(kind, "is not valid"),
        item=item,
        aware=True if aware else None,
    )


_KINDS: Final[tuple[tuple[type[fields.Field[Any]], FieldKind], ...]] = (
    (fields.String, "string"),
    (Identifier, "identifier"),
    (fields.UUID, "uuid"),
    (fields.Integer, "integer"),
    (fields.Float, "float"),
    (fields.Boolean, "boolean"),
    (fields.AwareDateTime, "moment"),
    (fields.DateTime, "moment"),
    (fields.Dict, "object"),
    (fields.List, "list"),
    (Embedding, "embedding"),
    (fields.Raw, "any"),
)
_DECIDING: Final = ("deserialize", "_deserialize", "_validated", "_validate", "_validate_missing")


def _kind(field: fields.Field[Any]) -> FieldKind:
    """The kind of the class, or of the one that it inherits every deciding method from."""
    for known, kind in _KINDS:
        if isinstance(field, known) and all(
            getattr(type(field), method, None) is getattr(known, method, None) for method in _DECIDING
        ):
            return kind if _is_usual(field) else "opaque"
    return "opaque"


def _is_usual(field: fields.Field[Any]) -> bool:
    """Whether the field's own options are those that its kind means."""
    if isinstance(field, fields.Integer):
        return field.strict
    if isinstance(field, fields.Float):
        return not field.allow_nan
    if isinstance(field, fields.DateTime):
        return (field.format or "iso") in {"iso", "iso8601"}
    if isinstance(field, fields.Boolean):
        return field.truthy is fields.Boolean.truthy and field.falsy is fields.Boolean.falsy
    if isinstance(field, fields.Dict):
        return field.key_field is None and field.value_field is None
    return True


def _is_plain(field: fields.Field[Any]) -> bool:
    """Whether the kind is all that is asked: no validators, no None."""
    return not (field.validators or field.allow_none or field.pre_load or field.post_load)


def _type_of(field: fields.Field[Any]) -> Callable[[Any], Any]:
    return lambda value: field._deserialize(value, field.name, None)  # noqa: SLF001 - the type without the validators


def _passes(check: Callable[[Any], Any], value: Any) -> bool:
    try:
        check(value)
    except ValidationError:
        return False
    return True


def _flat(validators: Iterable[Callable[[Any], Any]]) -> Iterator[Callable[[Any], Any]]:
    for validator in validators:
        if type(validator) is validate.And:
            yield from _flat(validator.validators)
        else:
            yield validator


def _rule(field: fields.Field[Any], validator: Callable[[Any], Any]) -> RuleSpec:
    type_of = _type_of(field)

    def judge(value: Any) -> bool:
        return _passes(lambda given: validator(type_of(given)), value)

    if isinstance(validator, SqlValidator):
        words = (type(validator).__doc__ or "is not valid").splitlines()[0].rstrip(".")
        return RuleSpec("condition", _snake(validator), f"must be: {words}", judge, condition=validator.condition)
    exact_class: object = type(validator)
    if exact_class in {validate.OneOf, validate.NoneOf, validate.Equal}:
        return _choice_rule(validator, judge)
    if exact_class in {validate.Range, validate.Length}:
        return _bounded_rule(validator, judge)
    if type(validator) is validate.Email:
        return RuleSpec("email", "email", "must be an e-mail address", judge)
    if type(validator) is validate.Regexp and isinstance(validator.regex.pattern, str):
        return RuleSpec("pattern", "pattern", "must have the right form", judge, pattern=validator.regex)
    return RuleSpec("opaque", _snake(validator), "is not valid", judge)


def _choice_rule(validator: Any, judge: Judge) -> RuleSpec:
    choices: Any
    if isinstance(validator, validate.Equal):
        choices, kind, words = (validator.comparable,), "one_of", "must be"
    elif isinstance(validator, validate.OneOf):
        choices, kind, words = validator.choices, "one_of", "must be one of"
    else:
        choices, kind, words = validator.iterable, "none_of", "must not be one of"
    listed = isinstance(choices, list | tuple | set | frozenset | dict)
    name, text = kind, f"{words}: {', '.join(map(str, choices)) if listed else '…'}"
    if not listed or not all(type(choice) in {str, int} for choice in choices):
        return RuleSpec("opaque", name, text, judge)
    return RuleSpec("none_of" if kind == "none_of" else "one_of", name, text, judge, choices=tuple(choices))


def _bounded_rule(validator: Any, judge: Judge) -> RuleSpec:
    is_range = isinstance(validator, validate.Range)
    name: Literal["range", "length"] = "range" if is_range else "length"
    low, high = validator.min, validator.max
    if not is_range and validator.equal is not None:
        low = high = validator.equal
    if any(bound is not None and type(bound) is not int for bound in (low, high)):
        return RuleSpec("opaque", name, f"must be from {low} to {high}", judge)
    if is_range:  # integers: an exclusive bound is the next inclusive one; of other kinds the compiler asks `judge`
        low = low if low is None or validator.min_inclusive else low + 1
        high = high if high is None or validator.max_inclusive else high - 1
    subject = "must be" if is_range else "must have a length of"
    words = (
        f"{subject} from {low} to {high}" if None not in {low, high}
        else f"{subject} at least {low}" if high is None else f"{subject} at most {high}"
    )  # fmt: skip
    return RuleSpec(name, name, words, judge, minimum=low, maximum=high)


def _snake(validator: object) -> str:
    name = getattr(validator, "__name__", type(validator).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).strip("<>").lower()
