"""Validators at random, for each domain of deserialized values: every one that marshmallow ships, and functions of ours.

`Made` is an object with the Python text that makes it, so that a difference can be written down and tried by hand.
"""

import datetime as dt
import decimal
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from marshmallow import ValidationError, validate

from briefly_admin.plans.records import StoragePath
from tests.engine import generated_borders as borders
from tests.engine.generated_values import Literal, anything, text


@dataclass(frozen=True)
class Made:
    """An object and the text that makes it."""

    text: str
    object: Any


def made(value: Any) -> Made:
    """Anything as a Made: containers of them become one."""
    if isinstance(value, Made):
        return value
    if type(value) in {list, tuple, set, dict}:
        if not isinstance(value, dict):
            parts = [made(each) for each in value]
            body = ", ".join(part.text for part in parts)
            shown = f"{type(value).__name__}([{body}])"
            return Made(shown, type(value)(part.object for part in parts))
        items = {key: made(each) for key, each in value.items()}
        body = ", ".join(f"{key!r}: {each.text}" for key, each in items.items())
        return Made(f"{{{body}}}", {key: each.object for key, each in items.items()})
    if callable(value):
        return Made(getattr(value, "__qualname__", repr(value)), value)
    return Made(repr(value), value)


def call(target: Callable[..., Any], *args: Any, **kwargs: Any) -> Made:
    """What the call gives; keywords that are None are left out."""
    given = [made(each) for each in args]
    named = {name: made(each) for name, each in kwargs.items() if each is not None}
    listed = ", ".join([*(each.text for each in given), *(f"{name}={each.text}" for name, each in named.items())])
    name = getattr(target, "__qualname__", str(target))
    found = target(*(each.object for each in given), **{name: each.object for name, each in named.items()})
    return Made(f"{name}({listed})", found)


@dataclass(frozen=True)
class Rule:
    """A validator and JSON values that lie near its border."""

    made: Made
    near: Sequence[Any] = ()


def not_a_palindrome(value: Any) -> None:
    """Refuses texts and lists that read the same backwards."""
    if list(value) == list(value)[::-1]:
        raise ValidationError("A palindrome.")


def picky(value: Any) -> None:
    """Refuses one value in three, by its looks."""
    if len(repr(value)) % 3 == 0:
        raise ValidationError("Not this one.")


def careless(value: Any) -> bool:
    """Gives False, which marshmallow does not heed."""
    return value is None


def clumsy(value: Any) -> None:
    """Breaks over every other value: no ValidationError."""
    if len(repr(value)) % 2 == 0:
        raise TypeError("Not prepared for this.")


_OWN: Sequence[Callable[[Any], Any]] = (picky, picky, careless, clumsy)


def own(dice: Random) -> Rule:
    """A function of ours."""
    return Rule(made(dice.choice(_OWN)))


def _bounds(dice: Random, values: Sequence[Any]) -> dict[str, Any]:
    low, high = sorted(dice.sample(list(values), 2)) if len(values) > 1 else (values[0], values[0])
    chosen: dict[str, Any] = dice.choice(
        ({"min": low}, {"max": high}, {"min": low, "max": high}, {"min": low, "max": low})
    )
    for option in ("min_inclusive", "max_inclusive"):
        if dice.random() < 0.4:
            chosen[option] = dice.random() < 0.2
    return chosen


def _range(dice: Random, values: Sequence[Any], near: Sequence[Any]) -> Rule:
    return Rule(call(validate.Range, **_bounds(dice, values)), near)


def _choices(dice: Random, values: Sequence[Any], near: Sequence[Any]) -> Rule:
    """OneOf, NoneOf or Equal over some of the values; choices in any container."""
    validator = dice.choice((validate.OneOf, validate.OneOf, validate.NoneOf, validate.Equal))
    if validator is validate.Equal:
        return Rule(call(validator, dice.choice(list(values))), near)
    some = dice.sample(list(values), dice.randint(0, min(4, len(values))))
    try:
        container: Any = dice.choice((list, tuple, set, frozenset, dict.fromkeys))(some)
    except TypeError:
        container = some
    if isinstance(container, frozenset):
        container = Made(f"frozenset({some!r})", container)
    return Rule(call(validator, container), near)


_LENGTHS = (0, 1, 2, 3, 5, 8)


def _length(dice: Random, sized: Callable[[Random, int], Any]) -> Rule:
    low, high = sorted(dice.sample(_LENGTHS, 2))
    given: dict[str, Any] = dice.choice(
        ({"min": low}, {"max": high}, {"min": low, "max": high}, {"equal": low}, {"min": high, "max": low})
    )
    near = [sized(dice, max(length + step, 0)) for length in (low, high) for step in (-1, 0, 1)]
    return Rule(call(validate.Length, **given), near)


def _text_of(dice: Random, length: int) -> str:
    unit = dice.choice(("a", "é", "e\u0301", "\U0001f600", "漢", " ", "\U0001f468\u200d"))
    return (unit * length)[:length] if dice.random() < 0.7 else unit * length


def _regexp(dice: Random) -> Rule:
    """With texts that match it, as they are and with something before or after."""
    pattern, flags = dice.choice(borders.PATTERNS), 0
    if dice.random() < 0.3:
        pattern, flags = dice.choice(borders.FLAGGED)
    compiled = call(validate.Regexp, re.compile(pattern, flags))
    matching = [each for each in borders.PATTERN_TEXTS if compiled.object.regex.match(each)]
    around = [form % each for each in matching for form in ("-%s", "%s\n", "%s-", "\n%s", "%s%%")]
    near = [*borders.PATTERN_TEXTS, *matching, *around]
    return Rule(dice.choice((compiled, call(validate.Regexp, pattern, int(flags)))), near)


def _url(dice: Random) -> Rule:
    return Rule(call(validate.URL, **url_options(dice)), borders.URLS)


def url_options(dice: Random) -> dict[str, Any]:
    """What a URL may be."""
    options: dict[str, Any] = dice.choice(({}, {}, {"relative": True}, {"relative": True, "absolute": False}))
    if dice.random() < 0.3:
        options = {**options, "require_tld": False}
    if dice.random() < 0.3:
        options = {**options, "schemes": dice.choice((["http"], {"https", "file"}, ["X", "ssh"]))}
    return options


def _predicate(dice: Random) -> Rule:
    return Rule(
        call(
            validate.Predicate, dice.choice(("isdigit", "isidentifier", "islower", "isascii", "strip", "isprintable"))
        ),
        ("a", "1", "²", "A", " ", "é", ""),
    )


def texts(dice: Random) -> Rule:
    """For texts."""
    words = list(borders.WORDS)
    return dice.choice(
        (
            lambda: _length(dice, _text_of), lambda: _length(dice, _text_of), lambda: _choices(dice, words, words), lambda: _choices(dice, words, words),
            lambda: _choices(dice, [*words, 1, True, None], words), lambda: Rule(call(validate.OneOf, dice.choice(("abc", "straße", ""))), ("a", "ab", "ac", "", "ß")),
            lambda: Rule(call(dice.choice((validate.ContainsOnly, validate.ContainsNoneOf)), dice.choice(("abc", ["a", "é"], set("01")))), ("abc", "", "a", "é", "e\u0301", "012")),
            lambda: _range(dice, ("a", "m", "z", "", "é", "Z", "\U0001f600", "\uffff"), ("a", "m", "mm", "Z", "z", "é", "\uffff", "\U00010000", "")),
            lambda: _regexp(dice), lambda: _regexp(dice), lambda: Rule(call(validate.Email), borders.EMAILS), lambda: _url(dice), lambda: _predicate(dice),
            lambda: Rule(made(not_a_palindrome), ("abba", "ab")), lambda: Rule(call(StoragePath), ("a/../b", "..", "a", "/a", "a..b", "\\x")), lambda: own(dice),
        )
    )()  # fmt: skip


_INTEGERS = (0, 1, -1, 2, 3, 10, 100, -5, 2**31 - 1, 2**53, 2**63 - 1, 10**25)


def integers(dice: Random) -> Rule:
    """For integers."""
    near: list[Any] = [n + step for n in dice.sample(_INTEGERS, 3) for step in (-1, 0, 1)]
    small: list[Any] = [*range(-6, 12), Literal("1.0"), 0.5, 2.5, True]
    return dice.choice(
        (
            lambda: _around(dice, _INTEGERS), lambda: _around(dice, _INTEGERS), lambda: _range(dice, (0, 1, 2.5, decimal.Decimal("9.5"), -0.0, float("inf")), small),
            lambda: _choices(dice, _INTEGERS, near + list(_INTEGERS)), lambda: _choices(dice, (1, 2.0, True, 0, "3", 2.5, decimal.Decimal(3)), small),
            lambda: Rule(call(validate.OneOf, dice.choice((range(-3, 9, 2), range(5)))), small), lambda: Rule(call(validate.Predicate, "bit_length"), (0, 1)), lambda: own(dice),
        )
    )()  # fmt: skip


def _around(dice: Random, values: Sequence[Any]) -> Rule:
    rule = _range(dice, values, ())
    bounds = [bound for bound in (rule.made.object.min, rule.made.object.max) if bound is not None]
    return Rule(rule.made, [bound + step for bound in bounds for step in (-1, 0, 1)])


_REALS = (0, 1, 0.1, -0.5, 1e300, 2.5, -1, 100, 1e-9)


def reals(dice: Random) -> Rule:
    """For floats."""
    near = (
        0,
        Literal("-0.0"),
        0.1,
        Literal("0.10"),
        Literal("0.1000000000000000055511151231257827"),
        Literal("0.09999999999999999"),
        1,
        -1,
        2.5,
        Literal("2.500000000000000000000001"),
        1e300,
        -0.5,
        100,
    )
    return dice.choice(
        (lambda: _range(dice, _REALS, near), lambda: _range(dice, _REALS, near), lambda: _choices(dice, _REALS, near), lambda: Rule(call(validate.Predicate, "is_integer"), near), lambda: own(dice))
    )()  # fmt: skip


_DECIMALS = tuple(map(decimal.Decimal, ("0", "0.01", "1.10", "-0.5", "100", "1E+20", "2.5", "9.995")))


def decimals(dice: Random) -> Rule:
    """For decimals; bounds of other numeric types compare with them, too."""
    near = (
        "0.01", "0.009", "0.0100", 0.01, 1.1, "1.1", "1.10", Literal("1.100"), "9.995", "9.994", "-0.5", 100, "100.00", "1e20", "100.005", "-0",
        *(Literal(f"{bound}{'0' * 30}1") for bound in ("0.", "0.01", "2.5", "100.0")),
        Literal("2.4999999999999999999999999999999999"), Literal("99.9999999999999999999999999999999999"), Literal("0.0099999999999999999999999999999999999"),
    )  # fmt: skip
    return dice.choice(
        (
            lambda: _range(dice, _DECIMALS, near), lambda: _range(dice, _DECIMALS, near), lambda: _range(dice, (0, 1, 100), near), lambda: _range(dice, (0.5, 2.5, 0.1), near),
            lambda: _choices(dice, [*_DECIMALS, 100, 2.5], near), lambda: Rule(call(validate.Predicate, "is_signed"), near), lambda: own(dice),
            lambda: Rule(call(validate.Range, max=decimal.Decimal("2.5"), max_inclusive=False), near),
        )
    )()  # fmt: skip


def _ordered(kind: Callable[[], Sequence[Any]]) -> Callable[[Random], Rule]:
    def rule(dice: Random) -> Rule:
        values = kind()
        near = [_shown(value) for value in values]
        return dice.choice(
            (
                lambda: _range(dice, values, near),
                lambda: _range(dice, values, near),
                lambda: _choices(dice, values, near),
                lambda: own(dice),
            )
        )()

    return rule


def _shown(value: Any) -> Any:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, dt.timedelta) else str(value)


def _days() -> Sequence[Any]:
    return (dt.date(2000, 1, 1), dt.date(2024, 2, 29), dt.date.min, dt.date.max, dt.date(1970, 1, 1))


_NAIVE = (
    "2000-01-01T00:00:00", "2024-02-29T12:30:00.100000", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "1999-12-31T23:59:59.999999",
)  # fmt: skip


def _naive() -> Sequence[Any]:
    return tuple(map(dt.datetime.fromisoformat, _NAIVE))


def _aware() -> Sequence[Any]:
    zones = (dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), dt.UTC, dt.UTC)
    return tuple(moment.replace(tzinfo=zone) for moment, zone in zip(_naive(), zones, strict=False))


def _either(dice: Random) -> Rule:
    """Naive bounds over moments that may be aware: marshmallow itself breaks over some."""
    return dice.choice((moments_aware, moments_naive))(dice)


days = _ordered(_days)
moments_naive = _ordered(_naive)
moments_aware = _ordered(_aware)
clocks = _ordered(lambda: (dt.time(0), dt.time(12), dt.time.max, dt.time(23, 59, 59)))
spans = _ordered(
    lambda: (
        dt.timedelta(0),
        dt.timedelta(seconds=5),
        dt.timedelta(days=-1),
        dt.timedelta.max,
        dt.timedelta(seconds=1.5),
    )
)
uuids = _ordered(
    lambda: tuple(
        map(
            uuid.UUID,
            (
                "6f2c1d0e-0000-4000-8000-000000000000",
                "00000000-0000-0000-0000-000000000000",
                "ffffffff-ffff-ffff-ffff-ffffffffffff",
            ),
        )
    )
)
addresses = _ordered(lambda: tuple(map(ipaddress.ip_address, ("127.0.0.1", "10.0.0.1", "255.255.255.255"))))


def booleans(dice: Random) -> Rule:
    """For booleans."""
    return dice.choice((lambda: _choices(dice, (True, False, 1, 0), (True, False)), lambda: own(dice)))()


def _list_of(dice: Random, length: int) -> list[Any]:
    unit: Any = dice.choice(("a", 1, None, {}, "1", 1.5, True))
    return [unit] * length


def lists(dice: Random) -> Rule:
    """For lists of anything."""
    some: list[Any] = dice.sample(
        dice.choice((["a", "b", 1, 2, True, None, 1.0, "1"], ["a", "b", "é", "1"], [0, 1, 2, 3])), 3
    )
    near = [
        [],
        some,
        some[:1],
        some[1:],
        some[2:],
        some * 2,
        [*some, "zz"],
        [some],
        [1],
        [True],
        [1.0],
        ["a"],
        ["a", "a"],
        ["é"],
    ]
    return dice.choice(
        (
            lambda: _length(dice, _list_of), lambda: _length(dice, _list_of), lambda: Rule(call(dice.choice((validate.ContainsOnly, validate.ContainsNoneOf)), some), near),
            lambda: Rule(call(dice.choice((validate.ContainsOnly, validate.ContainsNoneOf)), ["a", "b", "é"]), near), lambda: Rule(call(validate.Equal, some), near),
            lambda: Rule(call(validate.OneOf, [some, [1], []]), near), lambda: Rule(made(not_a_palindrome), near), lambda: own(dice),
        )
    )()  # fmt: skip


def mappings(dice: Random) -> Rule:
    """For objects."""
    near: list[Mapping[str, Any]] = [{}, {"a": 1}, {"a": 1, "b": 2}, {"a": 1.0}, {"é": None}, {"a": True}]
    return dice.choice(
        (
            lambda: _length(dice, lambda _, length: {str(n): n for n in range(length)}), lambda: Rule(call(dice.choice((validate.ContainsOnly, validate.ContainsNoneOf)), ["a", "b"]), near),
            lambda: Rule(call(validate.Equal, dice.choice(({}, {"a": 1}))), near), lambda: own(dice),
        )
    )()  # fmt: skip


def any_value(dice: Random) -> Rule:
    """For values of no known type: validators that take any."""
    near = [None, True, 1, Literal("1.0"), 1.0, "1", "a", "", [], {}, [1], 0, False, text(dice), anything(dice)]
    return dice.choice(
        (
            lambda: _choices(dice, (1, "a", True, 0, "", 1.5), near),
            lambda: Rule(call(validate.Equal, dice.choice((1, "a", True, [1], {}))), near),
            lambda: own(dice),
        )
    )()


DOMAINS: Mapping[str, Callable[[Random], Rule]] = {
    "text": texts, "integer": integers, "real": reals, "decimal": decimals, "boolean": booleans, "day": days, "moment": _either, "naive": moments_naive,
    "aware": moments_aware, "clock": clocks, "span": spans, "uuid": uuids, "address": addresses, "list": lists, "object": mappings, "any": any_value,
    "email": lambda dice: Rule(call(validate.Length, max=dice.choice((6, 20))), borders.EMAILS), "url": lambda dice: Rule(call(validate.Length, max=dice.choice((12, 20))), borders.URLS),
}  # fmt: skip
"""Validators by what they are given."""


def rule(dice: Random, domain: str) -> Rule:
    """A validator for the domain; one in six is an And of some."""
    if dice.random() < 1 / 6:
        parts = [rule(dice, domain) for _ in range(dice.randint(1, 3))]
        return Rule(
            call(validate.And, *(part.made for part in parts)), [value for part in parts for value in part.near]
        )
    return DOMAINS[domain](dice)
