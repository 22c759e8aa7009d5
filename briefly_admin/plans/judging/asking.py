"""Asking marshmallow itself."""

from collections.abc import Callable
from typing import Any

from marshmallow import fields

from briefly_admin.plans.judging.specs import Judge


def passes(check: Callable[[Any], Any], value: Any) -> bool:
    """Whether `check` takes the value. A validator that breaks over a value (`1 < 'a'`) does not take it."""
    try:
        check(value)
    except Exception:  # noqa: BLE001 - a plan's own code may raise anything; no run ends for that
        return False
    return True


def type_of(field: fields.Field[Any]) -> Callable[[Any], Any]:
    """The value as the field's type has it, without the validators."""
    return lambda value: field._deserialize(value, field.name, None)  # noqa: SLF001 - marshmallow has no public name for it


def judge_of_type(field: fields.Field[Any]) -> Judge:
    """Whether a value is of the field's type."""
    asked = type_of(field)
    return lambda value: passes(asked, value)


def judge_of_rule(field: fields.Field[Any], validator: Callable[[Any], Any]) -> Judge:
    """Whether a value is of the field's type and passes this validator."""
    asked = type_of(field)
    return lambda value: passes(lambda given: validator(asked(given)), value)


def judge_of_all(field: fields.Field[Any]) -> Judge:
    """Whether the field takes a value, whatever that needs."""
    return lambda value: passes(field.deserialize, value)
