"""A field's validators as data."""

import datetime as dt
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any, Final, Literal

from marshmallow import fields, validate

from briefly_admin.plans.base import SqlValidator
from briefly_admin.plans.judging.asking import judge_of_rule, passes, type_of
from briefly_admin.plans.judging.field_kinds import is_closed_enum
from briefly_admin.plans.judging.specs import FieldKind, Judge, RuleKind, RuleSpec, UrlForm

Validator = Callable[[Any], Any]

_OWN_VALIDATOR: Final = "a validator of the plan's own code decides"
_OF_MEMBERS: Final = "the rule is of an Enum's members, which only Python has"
_ONLY_PYTHON: Final = "only Python can ask this of a value"
_PLAIN: Final = frozenset({
    str, int, bool, float, Decimal, uuid.UUID, dt.date, dt.datetime, dt.time, type(None),
})  # fmt: skip
"""Choices and bounds of these types compare as their values say."""
_WHOLE: Final = {"integer", "loose_integer"}


def rules_of(field: fields.Field[Any], kind: FieldKind) -> tuple[RuleSpec, ...]:
    """The field's validators in their order; those of an And one by one."""
    rules = (_rule(field, kind, validator) for validator in _flat(field.validators))
    return tuple(rule for rule in rules if rule is not None)


def _flat(validators: Iterable[Validator]) -> Iterator[Validator]:
    for validator in validators:
        if type(validator) is validate.And:
            yield from _flat(validator.validators)
        else:
            yield validator


def members_of(field: fields.Field[Any]) -> RuleSpec | None:
    """Of an Enum: its names, or its members' values."""
    if not isinstance(field, fields.Enum):
        return None
    asked = type_of(field)

    def judge(value: Any) -> bool:
        return passes(asked, value)

    values = [member.value for member in field.enum] if field.by_value else list(field.enum.__members__)
    known = tuple(value for value in values if type(value) in _PLAIN)
    return RuleSpec(
        "one_of", "one_of", f"must be one of: {field.choices_text}", judge, choices=known,
        whole=len(known) == len(values) and (not field.by_value or is_closed_enum(field.enum)),
    )  # fmt: skip


def _rule(field: fields.Field[Any], kind: FieldKind, validator: Validator) -> RuleSpec | None:
    judge = judge_of_rule(field, validator)
    if isinstance(field, fields.Constant):
        return _of_constant(field, validator, judge)
    if isinstance(field, fields.Enum):
        return RuleSpec("opaque", snake(validator), "is not valid", judge, why=_OF_MEMBERS)
    if isinstance(validator, SqlValidator):
        words = (type(validator).__doc__ or "is not valid").splitlines()[0].rstrip(".")
        words = f"must be {words[:1].lower()}{words[1:]}"
        return RuleSpec("condition", snake(validator), words, judge, condition=validator.condition)
    maker = _MAKERS.get(type(validator))
    if maker:
        return maker(validator, kind, judge)
    why = _ONLY_PYTHON if type(validator) is validate.Predicate else _OWN_VALIDATOR
    return RuleSpec("opaque", snake(validator), "is not valid", judge, why=why)


def _of_constant(field: "fields.Constant[Any]", validator: Validator, judge: Judge) -> RuleSpec | None:
    """Whatever stands in the column, the validator gets the constant: it passes always or never."""
    if type(validator) not in _MAKERS:
        return RuleSpec("opaque", snake(validator), "is not valid", judge, why=_OWN_VALIDATOR)
    if judge(None):
        return None
    return RuleSpec("never", snake(validator), f"does not take the constant {field.constant!r}", judge)


def _choices(validator: Any, kind: FieldKind, judge: Judge) -> RuleSpec:
    del kind
    rule, choices, words = _chosen(validator)
    listed = isinstance(choices, list | tuple | set | frozenset | dict)
    text = f"{words}: {', '.join(map(str, choices)) if listed else '…'}"
    name = "one_of" if rule == "one_of" else rule
    if not listed or not all(type(choice) in _PLAIN for choice in choices):
        return RuleSpec("opaque", name, text, judge, why=_ONLY_PYTHON)
    return RuleSpec(rule, name, text, judge, choices=tuple(choices))


def _chosen(validator: Any) -> tuple[RuleKind, Any, str]:
    if isinstance(validator, validate.Equal):
        return "one_of", (validator.comparable,), "must be"
    if isinstance(validator, validate.ContainsOnly):
        return "contains_only", validator.choices, "must contain only"
    if isinstance(validator, validate.ContainsNoneOf):
        return "contains_none_of", validator.iterable, "must contain none of"
    if isinstance(validator, validate.OneOf):
        return "one_of", validator.choices, "must be one of"
    return "none_of", validator.iterable, "must not be one of"


def _bounded(validator: Any, kind: FieldKind, judge: Judge) -> RuleSpec:
    is_range = isinstance(validator, validate.Range)
    name: Literal["range", "length"] = "range" if is_range else "length"
    low, high = validator.min, validator.max
    above, below = (not validator.min_inclusive, not validator.max_inclusive) if is_range else (False, False)
    if not is_range and validator.equal is not None:
        low = high = validator.equal
    if kind in _WHOLE and is_range:  # an exclusive bound of integers is the next inclusive one
        if type(low) is int and above:
            low, above = low + 1, False
        if type(high) is int and below:
            high, below = high - 1, False
    words = _bounds_in_words(is_range, low, high, above=above, below=below)
    known = _PLAIN if is_range else {int, type(None)}
    if type(low) not in known or type(high) not in known:
        return RuleSpec("opaque", name, words, judge, why=_ONLY_PYTHON)
    return RuleSpec(name, name, words, judge, minimum=low, maximum=high, above=above, below=below)


def _bounds_in_words(is_range: bool, low: Any, high: Any, *, above: bool, below: bool) -> str:
    subject = "must be" if is_range else "must have a length of"
    if low is None and high is None:
        return f"{subject} anything"
    if low is not None and high is not None and not above and not below:
        return f"{subject} from {low} to {high}"
    parts = []
    if low is not None:
        parts.append(f"{'above' if above else 'at least'} {low}")
    if high is not None:
        parts.append(f"{'below' if below else 'at most'} {high}")
    return f"{subject} {' and '.join(parts)}"


def _email(validator: Any, kind: FieldKind, judge: Judge) -> RuleSpec:
    del validator, kind
    return RuleSpec("email", "email", "must be an e-mail address", judge)


def _url(validator: Any, kind: FieldKind, judge: Judge) -> RuleSpec:
    del kind
    form = UrlForm(
        tuple(sorted(validator.schemes)),
        bool(validator.relative),
        bool(validator.absolute),
        bool(validator.require_tld),
    )
    return RuleSpec("url", "url", "must be a URL", judge, url=form)


def _pattern(validator: Any, kind: FieldKind, judge: Judge) -> RuleSpec:
    del kind
    words = "must have the right form"
    if not isinstance(validator.regex, re.Pattern) or not isinstance(validator.regex.pattern, str):
        return RuleSpec("opaque", "pattern", words, judge, why=_ONLY_PYTHON)
    return RuleSpec("pattern", "pattern", words, judge, pattern=validator.regex)


_MAKERS: Final[dict[type[Any], Callable[[Any, FieldKind, Judge], RuleSpec]]] = {
    validate.OneOf: _choices,
    validate.NoneOf: _choices,
    validate.Equal: _choices,
    validate.ContainsOnly: _choices,
    validate.ContainsNoneOf: _choices,
    validate.Range: _bounded,
    validate.Length: _bounded,
    validate.Email: _email,
    validate.URL: _url,
    validate.Regexp: _pattern,
}
"""Only the very classes: a subclass may decide otherwise."""


def snake(validator: object) -> str:
    """'MinimumAge' → 'minimum_age'."""
    name = getattr(validator, "__name__", type(validator).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(name)).strip("<>").lower()
