"""Which kind a marshmallow field is of, and what its options say."""

from decimal import Decimal
from enum import Enum, EnumMeta, Flag
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any, Final

from marshmallow import fields

from briefly_admin.plans.judging.specs import FieldKind
from briefly_admin.plans.records import Embedding, Identifier

OWN_CODE: Final = "a field of the plan's own code decides"

_KINDS: Final[tuple[tuple[type[fields.Field[Any]], FieldKind], ...]] = (
    (fields.Url, "string"),
    (fields.Email, "string"),
    (fields.String, "string"),
    (Identifier, "identifier"),
    (fields.UUID, "uuid"),
    (fields.Integer, "integer"),
    (fields.Float, "float"),
    (fields.Decimal, "decimal"),
    (fields.Boolean, "boolean"),
    (fields.AwareDateTime, "moment"),
    (fields.NaiveDateTime, "moment"),
    (fields.DateTime, "moment"),
    (fields.Date, "date"),
    (fields.Time, "time"),
    (fields.TimeDelta, "duration"),
    (fields.IPv4, "address"),
    (fields.IPv6, "address"),
    (fields.IP, "address"),
    (fields.IPv4Interface, "interface"),
    (fields.IPv6Interface, "interface"),
    (fields.IPInterface, "interface"),
    (fields.Dict, "object"),
    (fields.List, "list"),
    (fields.Tuple, "tuple"),
    (fields.Pluck, "plucked"),
    (fields.Nested, "nested"),
    (fields.Constant, "any"),
    (Embedding, "embedding"),
    (fields.Raw, "any"),
    (fields.Function, "any"),
    (fields.Method, "any"),
)
"""Subclasses first. An Enum is its own field by name or by value, and one of the members (see `kind_of`)."""
_DECIDING: Final = (
    "deserialize", "_deserialize", "_validated", "_validate", "_validate_missing", "_validate_all", "_format_num",
    "num_type", "_make_object_from_format", "DESERIALIZATION_FUNCS", "OBJ_TYPE", "DESERIALIZATION_CLASS",
    "mapping_type", "schema", "_load", "_test_collection", "_field_data_key", "make_error",
)  # fmt: skip
_PLAIN: Final = frozenset({str, int, bool, float, Decimal, type(None)})
"""What may be true or false; others may be equal to anything."""
_OF_MEMBERS: Final = {"any", "string", "integer", "loose_integer"}
"""Kinds that an Enum's names or values may be of."""
_WORDS: Final[dict[FieldKind, str]] = {
    "string": "must be a text",
    "identifier": "must be a non-empty text or an integer",
    "uuid": "must be a UUID",
    "integer": "must be an integer",
    "loose_integer": "must be an integer",
    "float": "must be a number",
    "decimal": "must be a decimal number",
    "boolean": "must be true or false",
    "moment": "must be a moment from year 1 to 9999",
    "date": "must be a date from year 1 to 9999",
    "time": "must be a time of day",
    "duration": "must be a period of time",
    "address": "must be an IP address",
    "interface": "must be an IP interface",
    "object": "must be a JSON object",
    "list": "must be a list of the right items",
    "tuple": "must be a list of just the right items",
    "nested": "must be a JSON object with the right fields",
    "embedding": "must be a vector",
}
_VERSIONS: Final[dict[type | None, int]] = {
    IPv4Address: 4, IPv4Interface: 4, IPv6Address: 6, IPv6Interface: 6,
}  # fmt: skip
_UNIT: Final = {
    "weeks": 10**8, "days": 9 * 10**8, "hours": 2 * 10**10, "minutes": 10**12, "seconds": 8 * 10**13,
    "milliseconds": 8 * 10**16, "microseconds": 8 * 10**19,
}  # fmt: skip
"""Numbers of each unit that surely fit into a timedelta, which has 999,999,999 days."""


def kind_of(field: fields.Field[Any]) -> FieldKind:
    """The kind of the class, or of the one that it inherits every deciding method from."""
    if type(field) is fields.Enum:
        inner = kind_of(field.field)
        return (
            inner if _is_usual_enum(field.enum) and inner in {"any", "string", "integer", "loose_integer"} else "opaque"
        )
    if type(field) is fields.Field:
        return "any"
    for known, kind in _KINDS:
        if isinstance(field, known) and all(
            getattr(type(field), name, None) is getattr(known, name, None) and name not in vars(field)
            for name in _DECIDING
        ):
            return _narrowed(field, kind)
    return "opaque"


def _narrowed(field: fields.Field[Any], kind: FieldKind) -> FieldKind:
    if isinstance(field, fields.Integer):
        return "integer" if field.strict else "loose_integer"
    if isinstance(field, fields.Function):
        return "opaque" if field.deserialize_func else kind
    if isinstance(field, fields.Method):
        return "opaque" if field.deserialize_method_name else kind
    if isinstance(field, fields.Boolean):
        return kind if all(type(choice) in _PLAIN for choice in (*field.truthy, *field.falsy)) else "opaque"
    return kind


def _is_usual_enum(enum: type[Enum]) -> bool:
    """Whether names are looked up as every Enum does it."""
    return type(enum).__getitem__ is EnumMeta.__getitem__ and type(enum).__call__ is EnumMeta.__call__


def is_closed_enum(enum: type[Enum]) -> bool:
    """Whether no value but its members' is one of it."""
    inherited = enum._missing_.__func__ is Enum._missing_.__func__  # type: ignore[attr-defined]
    return inherited and not issubclass(enum, Flag)


def words_of(kind: FieldKind) -> str:
    """What to say of a value that is not of the kind."""
    return _WORDS.get(kind, "is not valid")


def options_of(field: fields.Field[Any]) -> dict[str, Any]:  # noqa: PLR0911 - a table of cases
    """The field's own options, as FieldSpec has them."""
    if isinstance(field, fields.DateTime):
        return {"form": field.format or field.DEFAULT_FORMAT} | _awareness(field)
    if isinstance(field, fields.Date | fields.Time):
        return {"form": field.format or field.DEFAULT_FORMAT}
    if isinstance(field, fields.Boolean):
        return {"truthy": tuple(field.truthy), "falsy": tuple(field.falsy)}
    if isinstance(field, fields.Float):
        return {"special": bool(field.allow_nan)}
    if isinstance(field, fields.Decimal):
        places = None if field.places is None else -int(field.places.as_tuple().exponent)
        return {"special": bool(field.allow_nan), "places": places}
    if isinstance(field, fields.TimeDelta):
        return {"longest": _UNIT[field.precision]}
    if isinstance(field, fields.IP | fields.IPInterface):
        return {"version": _VERSIONS.get(field.DESERIALIZATION_CLASS)}
    return {}


def _awareness(field: fields.DateTime) -> dict[str, Any]:
    if isinstance(field, fields.AwareDateTime):
        return {"aware": True} if field.default_timezone is None else {"adapted": True}
    if isinstance(field, fields.NaiveDateTime):
        return {"aware": False} if field.timezone is None else {"adapted": True}
    return {}
