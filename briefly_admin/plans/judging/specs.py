"""A record schema as data."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from marshmallow import Schema

RecordSchema = type[Schema]
"""A record schema's class."""

Judge = Callable[[Any], bool]
"""From a JSON value as Python has it to whether marshmallow takes it."""

FieldKind = Literal[
    "any", "string", "identifier", "uuid", "integer", "loose_integer", "float", "decimal", "boolean", "moment", "date",
    "time", "duration", "address", "interface", "object", "list", "tuple", "nested", "plucked", "embedding", "opaque",
]  # fmt: skip
RuleKind = Literal[
    "one_of", "none_of", "contains_only", "contains_none_of", "range", "length", "email", "url", "pattern", "condition",
    "never", "opaque",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class UrlForm:
    """The options of a rule of the kind `url`."""

    schemes: tuple[str, ...]
    relative: bool
    absolute: bool
    require_tld: bool


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """One validator of a field; `judge` runs the field's type and then this validator alone."""

    kind: RuleKind
    name: str
    words: str
    """'must be at least 0'."""
    judge: Judge
    choices: tuple[Any, ...] = ()
    whole: bool = True
    """False: others than `choices` may pass as well."""
    minimum: Any = None
    maximum: Any = None
    above: bool = False
    """`minimum` itself does not pass; integers are told the next one instead."""
    below: bool = False
    """`maximum` itself does not pass."""
    pattern: re.Pattern[str] | None = None
    url: UrlForm | None = None
    condition: str = ""
    """SQL over the text `{value}` that holds for exactly the values that pass."""
    why: str = ""
    """Of an opaque one: what nobody but marshmallow can know."""


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field; of an opaque kind `judge` is the whole field's and `rules` is empty."""

    name: str
    """The column's, or the key's in an object (marshmallow's data_key)."""
    kind: FieldKind
    allow_none: bool
    judge: Judge
    """The type alone; None is asked of it only where `judges_null`."""
    rules: tuple[RuleSpec, ...] = ()
    words: str = "is not of the right type"
    why: str = ""
    """Of an opaque one: what nobody but marshmallow can know."""
    judges_null: bool = False
    """A null is for `judge`, too: a function of the plan's sees it first."""
    required: bool = False
    """Inside an object: its key must be there."""
    has_default: bool = False
    """Where the value is missing altogether, a default stands for it and nothing is asked."""
    members: RuleSpec | None = None
    """Of an Enum: its names or values; whoever is none of them is not of the type."""
    item: "FieldSpec | None" = None
    """Of a list: its items; of an object: its values; of a plucked one: the field that the value is for."""
    key: "FieldSpec | None" = None
    """Of an object: its keys."""
    items: "tuple[FieldSpec, ...]" = ()
    """Of a tuple and of a nested schema: the fields."""
    many: bool = False
    """Of a nested or plucked one: a list of them."""
    closed: bool = False
    """Of a nested schema: other keys than those of `items` fail."""
    form: str = "iso"
    """Of a moment, date or time: iso, rfc, timestamp, timestamp_ms or a format of strptime."""
    aware: bool | None = None
    """Of a moment: whether its text must have an offset (True) or must not (False); None: it does not matter."""
    adapted: bool = False
    """Of a moment: what lacks an offset is given one, or what has one loses it."""
    truthy: tuple[Any, ...] = ()
    """Of a boolean: what is true; empty: any value is a boolean."""
    falsy: tuple[Any, ...] = ()
    special: bool = False
    """Of a float or decimal: NaN and the infinities pass."""
    places: int | None = None
    """Of a decimal: it is rounded to so many places."""
    longest: int = 0
    """Of a duration: a number that surely fits, in its own unit."""
    version: int | None = None
    """Of an address or interface: 4, 6 or either."""


@dataclass(frozen=True, slots=True)
class RecordSpec:
    """A record schema; `judge` gives marshmallow's faults of a whole row: field → texts, {} if it passes.

    A row's missing key is null, or the default of a field that has one.
    """

    fields: tuple[FieldSpec, ...]
    judge: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    has_hooks: bool
    """The schema looks at rows as a whole (validates, validates_schema, pre_load …): every row is for `judge`."""
