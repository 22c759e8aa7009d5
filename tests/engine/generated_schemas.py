"""Record schemas at random: every field that marshmallow ships, in every form, with any validators, over any column.

`record(dice)` gives a schema with a few fields; each says what text makes it (`Part.source`), which columns usually hold
it, and values near its borders. The same dice give the same schema.
"""

import datetime as dt
import decimal
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from marshmallow import EXCLUDE, INCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validates, validates_schema

from briefly_admin.plans.records import Embedding, Identifier
from tests.engine import generated_borders as borders
from tests.engine import generated_rules as rules
from tests.engine.generated_rules import Made, call, made
from tests.engine.generated_values import HOSTILE, MOODS, Literal, anything, as_json, changed, text

Near = Callable[[Random], Any]
_DEEPEST = 2
_UNKNOWN = (None, RAISE, EXCLUDE, INCLUDE)


@dataclass(frozen=True)
class Part:
    """A field: its object, the text that makes it, JSON values near its borders, and the columns that suit it."""

    field: fields.Field[Any]
    source: str
    near: Near
    homes: Sequence[str]
    borders: Sequence[Any] = ()
    """Values that lie near its own and its validators' borders, all of them."""


@dataclass(frozen=True)
class _Draft:
    """A field without the options that every field has."""

    target: Callable[..., Any]
    near: Near
    domain: str
    homes: Sequence[str] = ()
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] | None = None


_Drafter = Callable[[Random, int], _Draft]


@dataclass(frozen=True)
class _Some:
    """One of these."""

    values: tuple[Any, ...]

    def __call__(self, dice: Random) -> Any:
        return dice.choice(self.values)


def _some(*values: Any) -> _Some:
    return _Some(values)


class Mood(enum.Enum):
    """Members of all kinds of values."""

    sad = "so so"
    GREEN = 1
    FINE = 'it\'s "fine" 100%'
    NOTHING = "null"
    HALF = 0.5
    MANY = (1, 2)


class Level(enum.IntEnum):
    """Integers."""

    LOW = 1
    HIGH = 10


class Upper(fields.String):
    """A field of ours that decides for itself."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> str:
        found = super()._deserialize(value, attr, data, **kwargs)
        if found != found.upper():
            raise ValidationError("Not in capitals.")
        return found


class Quiet(fields.Integer):
    """A field of ours that is an integer by another name."""


def _string(_dice: Random, _depth: int) -> _Draft:
    return _Draft(fields.String, text, "text", borders.TEXT_HOMES)


def _number(dice: Random, _depth: int) -> _Draft:
    strict = dice.random() < 0.6 or None
    return dice.choice(
        (
            _Draft(dice.choice((fields.Integer, fields.Integer, Quiet)), _some(*borders.INTS), "integer", borders.INT_HOMES, kwargs={"strict": strict, "as_string": dice.random() < 0.2 or None}),
            _Draft(fields.Integer, _some(*borders.INTS), "integer", borders.INT_HOMES, kwargs={"strict": strict}),
            _Draft(fields.Float, _some(*borders.FLOATS), "real", borders.REAL_HOMES, kwargs={"allow_nan": dice.random() < 0.4 or None}),
            _Draft(
                fields.Decimal, _some(*borders.DECIMALS), "decimal", borders.REAL_HOMES,
                kwargs={"places": dice.choice((None, None, 0, 2, -2)), "rounding": dice.choice((None, decimal.ROUND_UP, decimal.ROUND_HALF_EVEN)), "allow_nan": dice.random() < 0.3 or None},
            ),
        )
    )  # fmt: skip


def _whole(_dice: Random, _depth: int) -> _Draft:
    return _Draft(
        fields.Integer, _some(0, 1, 2, 3, Literal("1.0"), "1"), "integer", borders.INT_HOMES, kwargs={"strict": True}
    )


def _boolean(dice: Random, _depth: int) -> _Draft:
    truthy = dice.choice((None, None, None, {"ja", 1}, ["ja", "t", True, 2], set()))
    falsy = dice.choice((None, None, {"nein", 0}, {0.5}))
    return _Draft(
        fields.Boolean,
        _some(*borders.BOOLS),
        "boolean",
        ("boolean", "integer", "numeric", "text"),
        kwargs={"truthy": truthy, "falsy": falsy},
    )


def _temporal(dice: Random, _depth: int) -> _Draft:
    form = dice.choice((*([None] * 5), "iso", "iso8601", "rfc", "timestamp", "timestamp_ms", "%d/%m/%Y %H:%M", "%Y"))
    near = _some(
        *borders.MOMENTS,
        *borders.MOMENTS,
        0,
        -1,
        1709209800,
        1e18,
        Literal("1e400"),
        253402300800,
        1709209800000.5,
        True,
    )
    zone = Made("dt.UTC", dt.UTC) if dice.random() < 0.4 else None
    return dice.choice(
        (
            _Draft(fields.DateTime, near, "moment" if dice.random() < 0.4 else "any", borders.MOMENT_HOMES, kwargs={"format": form}),
            _Draft(fields.NaiveDateTime, near, "naive", borders.MOMENT_HOMES, kwargs={"format": form, "timezone": zone}),
            _Draft(fields.AwareDateTime, near, "aware", borders.MOMENT_HOMES, kwargs={"format": form, "default_timezone": zone}),
            _Draft(fields.Date, _some(*borders.DAYS), "day", ("date", "date", "timestamp"), kwargs={"format": dice.choice((None, None, "iso", "%d.%m.%Y", "%Y-%m-%d"))}),
            _Draft(fields.Time, _some(*borders.CLOCKS), "clock", ("time", "time", "timetz", "interval"), kwargs={"format": dice.choice((None, None, "iso", "%H:%M"))}),
            _Draft(fields.TimeDelta, _some(*borders.FLOATS), "span", ("double precision", "integer", "interval", "numeric"), kwargs={"precision": dice.choice((None, "weeks", "microseconds", "days"))}),
        )
    )  # fmt: skip


def _texts_of_a_kind(dice: Random, _depth: int) -> _Draft:
    network = ("inet", "inet", "cidr")
    return dice.choice(
        (
            _Draft(fields.Email, _some(*borders.EMAILS), "email", borders.TEXT_HOMES), _Draft(fields.Email, _some(*borders.EMAILS), "text", borders.TEXT_HOMES),
            _Draft(fields.Url, _some(*borders.URLS), "url", borders.TEXT_HOMES, kwargs=rules.url_options(dice)), _Draft(fields.UUID, _some(*borders.UUIDS), "uuid", ("uuid", "uuid", "text", "bytea")),
            _Draft(dice.choice((fields.IP, fields.IPv4, fields.IPv6)), _some(*borders.IPS), "address", network),
            _Draft(dice.choice((fields.IPInterface, fields.IPv4Interface, fields.IPv6Interface)), _some(*borders.IPS), "any", network, kwargs={"exploded": dice.random() < 0.5 or None}),
            _Draft(Identifier, _some("", "a", 1, 0, True, Literal("1.0"), "6f2c"), "any", ("uuid", "text", "bigint", "integer")),
            _Draft(Embedding, _some("[1,2]", "[", "]", "[]", [1, 2.5], [True], [None], [], ["1"], "[x]", "[1]\n"), "any", ("public.vector", "public.halfvec", "real[]", "jsonb", "text", "public.sparsevec")),
        )
    )  # fmt: skip


def _enumeration(dice: Random, _depth: int) -> _Draft:
    kind = dice.choice((Mood, Level))
    inner = (fields.String,) if kind is Mood else (fields.Integer, fields.Float, fields.Decimal)
    by_value = dice.choice((None, True, call(dice.choice(inner), allow_none=True)))
    values = (
        *kind.__members__,
        *(member.value for member in kind),
        "sAd",
        1,
        Literal("1.0"),
        True,
        "1",
        2,
        10.0,
        [1, 2],
        None,
        *MOODS,
    )
    return _Draft(
        fields.Enum,
        _some(*values),
        "any",
        ("public.verdict_mood", "public.verdict_mood", "text", "integer"),
        (kind,),
        {"by_value": by_value},
    )


def _shout(value: Any) -> str:
    if not isinstance(value, str):
        raise ValidationError("No text.")
    return value.upper()


def _whatever(dice: Random, _depth: int) -> _Draft:
    return dice.choice(
        (
            _Draft(fields.Raw, anything, "any", borders.OBJECT_HOMES), _Draft(fields.Raw, anything, "any", ("text", "integer", "boolean", "bytea", "interval")),
            _Draft(fields.Constant, anything, "any", ("text", "jsonb"), (dice.choice(("a", 1, None)),)), _Draft(fields.Function, anything, "text", ("text", "jsonb"), kwargs={"deserialize": _shout}),
            _Draft(fields.Function, anything, "any", ("text", "jsonb")), _Draft(Upper, text, "text", borders.TEXT_HOMES),
        )
    )  # fmt: skip


def _mutated(dice: Random, value: dict[str, Any]) -> Any:
    """An object, now and then with a key too few or too many, or another value."""
    if value and dice.random() < 0.2:
        value.pop(dice.choice(list(value)))
    if dice.random() < 0.2:
        value[dice.choice(("zz", "", "A", "a ", "é", "e\u0301", "0"))] = anything(dice, 2)
    if value and dice.random() < 0.15:
        value[dice.choice(list(value))] = anything(dice, 2)
    return value if dice.random() < 0.93 else dice.choice(([value], None, "", as_twice(value)))


def as_twice(value: Mapping[str, Any]) -> Any:
    """The object with a key that stands in it twice."""
    return Literal(as_json(value)[:-1] + (", " if value else "") + '"a": 1, "a": null}')


def _listed(dice: Random, depth: int) -> _Draft:
    if dice.random() < 0.2:
        parts = [part(dice, depth + 1) for _ in range(dice.randint(0, 3))]
        return _Draft(
            fields.Tuple,
            lambda dice: [p.near(dice) for p in parts][: dice.choice((9, 9, 9, 1))],
            "any",
            borders.LIST_HOMES,
            ([Made(p.source, p.field) for p in parts],),
        )
    inner = part(dice, depth + 1)

    def near(dice: Random) -> Any:
        return (
            [inner.near(dice) for _ in range(dice.choice((0, 1, 1, 2, 3, 9)))]
            if dice.random() < 0.92
            else inner.near(dice)
        )

    return _Draft(fields.List, near, "list", borders.LIST_HOMES, (Made(inner.source, inner.field),))


def _mapped(dice: Random, depth: int) -> _Draft:
    keys = part(dice, _DEEPEST + 1) if dice.random() < 0.4 else None
    values = part(dice, depth + 1) if dice.random() < 0.5 else None

    def near(dice: Random) -> Any:
        made_keys = [
            str(keys.near(dice)) if keys else dice.choice((*HOSTILE, "a", "b"))
            for _ in range(dice.choice((0, 1, 2, 3)))
        ]
        found = {key: values.near(dice) if values else anything(dice, 2) for key in made_keys}
        return found if dice.random() < 0.92 else dice.choice(([found], None, "{}", as_twice(found)))

    options = {"keys": keys and Made(keys.source, keys.field), "values": values and Made(values.source, values.field)}
    return _Draft(fields.Dict, near, "object", borders.OBJECT_HOMES, kwargs=options)


def _nested(dice: Random, depth: int) -> _Draft:
    names = dice.sample(["a", "b", "c d", "é", "null", ""], dice.randint(1, 3))
    inner = {name: part(dice, depth + 1, nested=True) for name in names}
    meta = dice.choice((None, None, EXCLUDE, INCLUDE))
    bases: dict[str, Any] = {name: each.field for name, each in inner.items()}
    if meta:
        bases["Meta"] = type("Meta", (), {"unknown": meta})
    shown = f"{{{', '.join(f'{name!r}: {each.source}' for name, each in inner.items())}}}{f' unknown={meta}' if meta else ''}"
    schema = Made(f"Schema({shown})", type("Inner", (Schema,), bases))
    many = dice.random() < 0.25 or None

    def single(dice: Random) -> Any:
        return _mutated(dice, {each.field.data_key or name: each.near(dice) for name, each in inner.items()})

    def near(dice: Random) -> Any:
        return [single(dice) for _ in range(dice.choice((0, 1, 2)))] if many and dice.random() < 0.9 else single(dice)

    if dice.random() < 0.15:
        name = dice.choice(names)
        each = inner[name]
        plucked = (lambda dice: [each.near(dice) for _ in range(dice.choice((0, 1, 2)))]) if many else each.near
        return _Draft(fields.Pluck, plucked, "any", borders.OBJECT_HOMES, (schema, name), {"many": many})
    options: dict[str, Any] = {"many": many, "unknown": dice.choice(_UNKNOWN)}
    if dice.random() < 0.2:
        options[dice.choice(("only", "exclude"))] = tuple(dice.sample(names, dice.randint(1, len(names))))
    return _Draft(fields.Nested, near, "any", (*borders.OBJECT_HOMES, "jsonb[]"), (schema,), options)


_FLAT = (
    *([_string] * 3), *([_number] * 3), _boolean, *([_temporal] * 4), *([_texts_of_a_kind] * 3), _enumeration, _whatever,
)  # fmt: skip
_DEEP = (*_FLAT, _listed, _listed, _listed, _mapped, _mapped, _nested, _nested)


def _strip(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def part(dice: Random, depth: int = 0, *, nested: bool = False, kinds: Sequence[_Drafter] = ()) -> Part:
    """A field of any kind, or of these. Containers nest up to three deep; `nested`: in an object, where it may be missing."""
    draft = dice.choice(kinds or (_DEEP if depth < _DEEPEST else _FLAT))(dice, depth)
    chosen = [
        rules.rule(dice, draft.domain)
        for _ in range(dice.choice((0, 0, 1, 1, 1, 2, 3)) if depth == 0 else dice.choice((0, 0, 0, 1)))
    ]
    options = dict(draft.kwargs or {})
    if chosen:
        options["validate"] = (
            [each.made for each in chosen] if len(chosen) > 1 or dice.random() < 0.3 else chosen[0].made
        )
    options["allow_none"] = dice.choice((None, None, True, True, False))
    if dice.random() < 0.3:
        options["required"] = True
    elif dice.random() < 0.15 and draft.target is not fields.Constant:
        options["load_default"] = made(dice.choice((0, "x", list)))
    if nested and dice.random() < 0.1:
        options["data_key"] = f"%s {dice.getrandbits(40)}"
    if dice.random() < 0.04:
        options["pre_load"] = _strip
    if dice.random() < 0.04:
        options["post_load"] = rules.picky
    if options["allow_none"] is False:
        options["allow_none"] = Made("False", False)
    found = call(draft.target, *draft.args, **options)
    hints = [value for each in chosen for value in each.near]
    own = draft.near.values if isinstance(draft.near, _Some) else ()
    return Part(found.object, found.text.replace("fields.", ""), mixed(draft.near, hints), draft.homes, [*hints, *own])


def mixed(near: Near, hints: Sequence[Any]) -> Near:
    """Mostly values near the field's or its validators' borders, now and then a changed one or any at all."""

    def value(dice: Random) -> Any:
        chance = dice.random()
        if chance < 0.03:
            return None
        if chance < 0.1:
            return anything(dice)
        found = dice.choice(hints) if hints and chance < 0.65 else near(dice)
        if isinstance(found, str) and dice.random() < 0.15:
            return changed(dice, found)
        if isinstance(found, int | float) and not isinstance(found, bool) and dice.random() < 0.15:
            return dice.choice((str(found), [found], float(found) if abs(found) < 1e15 else found, -found))
        return found

    return value


def _hook(dice: Random) -> Any:
    """A method that looks at rows as a whole, or at a field by name."""

    @validates_schema
    def quarrelsome(_self: Schema, data: Mapping[str, Any], **_: Any) -> None:
        if len(repr(data)) % 3 == 0:
            raise ValidationError("Not together.")

    @pre_load
    def tidy(_self: Schema, data: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return {name: _strip(value) for name, value in data.items()}

    @validates("c")
    def odd(_self: Schema, value: Any, **_: Any) -> None:
        rules.picky(value)

    return dice.choice((quarrelsome, tidy, odd))


@dataclass(frozen=True)
class Generated:
    """A record schema and what its fields are made of."""

    record: type[Schema]
    parts: Mapping[str, Part]
    """Column → field."""
    options: str
    """The schema's own options, in words."""


_NAMES = tuple("abcdefghijklmno") + tuple(f"{letter}_{letter}" for letter in "abcdefghijklmno")
_HOSTILE_NAMES = ('we"ird %s {x}', "ключ", "a.b", "SELECT", "c'd", " ", "t", "key", "value", "flags", "%")


def record(dice: Random, width: int = 8) -> Generated:
    """A schema of so many fields; one in ten looks at rows as a whole, one in three has columns of odd names."""
    parts = {name: part(dice) for name in _NAMES[:width]}
    odd = dice.sample(_HOSTILE_NAMES, 2) if dice.random() < 1 / 3 else []
    attributes: dict[str, Any] = {name: each.field for name, each in parts.items()}
    columns = dict(parts)
    for name, column in zip(_NAMES, odd, strict=False):
        parts[name].field.data_key = column
        columns[column] = columns.pop(name)
    if dice.random() < 0.1:
        attributes["hook"] = _hook(dice)
    meta: dict[str, Any] = {"unknown": dice.choice((RAISE, EXCLUDE, INCLUDE))}
    if dice.random() < 0.15:
        meta["datetimeformat"] = dice.choice(("rfc", "timestamp", "iso"))
    if dice.random() < 0.15:
        meta["dateformat"] = "%d.%m.%Y"
    attributes["Meta"] = type("Meta", (), meta)
    return Generated(type("Generated", (Schema,), attributes), columns, str(meta))
