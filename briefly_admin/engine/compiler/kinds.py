"""Types of single values over a view: which of its values marshmallow's field takes."""

from collections.abc import Iterable
from typing import Any, Final

from psycopg import sql

from briefly_admin.engine.compiler import forms
from briefly_admin.engine.compiler.answers import ALWAYS, FALSE, NEVER, TRUE, Answer
from briefly_admin.engine.compiler.literals import is_storable, whole_number
from briefly_admin.engine.compiler.moments import moment_of_text, temporal
from briefly_admin.engine.compiler.views import View
from briefly_admin.plans.judging import FieldSpec

_MOST: Final = 2**1024 - 2**970
"""The least number that no double is near."""
_DIGITS: Final = 28
"""Of Python's decimals, when they are rounded to places."""
_LONGEST: Final = 100
_LAST_SECOND: Final = 253402300000
"""Some minutes before the year 10000, as a POSIX timestamp."""

_NUMBERS: Final = frozenset({"loose_integer", "float", "decimal", "duration"})
_NEVER_NUMBERS: Final = frozenset({"uuid", "time", "interval", "inet", "bytea", "vector"})
"""Views whose texts no Python number is read from."""


def scalar(spec: FieldSpec, view: View) -> Answer | None:
    """The answer of a native view that needs no look at its JSON; None: see `of_json_type`."""
    if spec.kind == "any" or (spec.kind == "boolean" and not spec.truthy):
        return ALWAYS
    native = {
        "integer": _of_integer, "numeric": _of_numeric, "float": _of_float, "inet": _of_inet, "date": temporal,
        "time": temporal, "moment": temporal,
    }.get(view.kind)  # fmt: skip
    if native:
        return native(spec, view)
    infinite = spec.special and view.kind == "interval"  # since PostgreSQL 17 one is
    if view.kind in _NEVER_NUMBERS and spec.kind in _NUMBERS and not infinite:
        return NEVER
    if (view.kind, spec.kind) in {("uuid", "uuid"), ("uuid", "identifier"), ("vector", "embedding")}:
        return ALWAYS
    return None


def of_json_type(spec: FieldSpec, view: View, json_type: str) -> Answer:
    """Of values whose JSON is of this type."""
    if spec.kind == "any" or (spec.kind == "boolean" and not spec.truthy):
        return ALWAYS
    if json_type == "string":
        return _of_string(spec, view)
    if json_type == "number":
        whole = view.format("(({v} #>> '{{}}') ~ {p})", p=sql.Literal(forms.INTEGER)) if view.kind == "json" else TRUE
        return _of_number(spec, view.number, whole)
    if json_type == "boolean":
        return _of_boolean(spec, view)
    if json_type == "array" and spec.kind == "embedding":
        path = sql.Literal('strict $[*] ? (@.type() != "number")')
        return Answer(view.format("(NOT jsonb_path_exists({v}, {path}))", path=path))
    return NEVER


def _of_integer(spec: FieldSpec, view: View) -> Answer | None:
    if spec.kind == "string":
        return NEVER
    return _of_number(spec, view.value, None)


def _of_numeric(spec: FieldSpec, view: View) -> Answer | None:
    """NaN and the infinities have no scale; their JSON is a string."""
    if spec.kind in {"string", "identifier"}:
        return None
    finite = _of_number(spec, view.value, view.format("(scale({v}) = 0)"))
    of_text = of_json_type(spec, view, "string") if spec.kind == "boolean" else NEVER
    special = ALWAYS if spec.special else of_text
    if finite.is_never and special.is_never:
        return NEVER
    form = "(CASE WHEN scale({v}) IS NULL THEN {special} ELSE {finite} END)"
    return Answer(view.format(form, special=special.surely, finite=finite.surely), finite.exact and special.exact)


def _of_float(spec: FieldSpec, view: View) -> Answer | None:
    if spec.kind == "float":
        infinite = view.format("({v} > '-Infinity' AND {v} < 'Infinity')")
        return ALWAYS if spec.special else Answer(infinite)
    of_text = spec.kind in {"date", "time", "uuid", "address", "interface"}
    return NEVER if of_text or (spec.kind == "moment" and spec.form in {"iso", "iso8601"}) else None


def _of_inet(spec: FieldSpec, view: View) -> Answer | None:
    """An inet's text has a mask where it is shorter than the address, a cidr's always."""
    if spec.kind not in {"address", "interface"}:
        return NEVER if spec.kind in _NUMBERS else None
    if spec.kind == "address" and view.type_name == "cidr":
        return NEVER
    tests = []
    if spec.kind == "address":
        tests.append(view.format("masklen({v}) = CASE family({v}) WHEN 4 THEN 32 ELSE 128 END"))
    if spec.version is not None:
        tests.append(view.format("family({v}) = {n}", n=sql.Literal(spec.version)))
    return Answer(sql.SQL("({})").format(sql.SQL(" AND ").join(tests))) if tests else ALWAYS


def _of_any_size(spec: FieldSpec, number: sql.Composable, whole: sql.Composable | None) -> Answer:
    """A JSON fraction out of a double's range is infinite; an integer has no such range, until it becomes a double."""
    if spec.places is not None:
        return _between(number, -_quantized(spec), _quantized(spec))
    if whole is None or (spec.kind == "decimal" and spec.special):
        return ALWAYS
    fits = sql.SQL("({n} > {low} AND {n} < {high})").format(n=number, low=sql.Literal(-_MOST), high=sql.Literal(_MOST))
    if spec.kind == "float":
        return Answer(sql.SQL("(NOT {} OR {})").format(whole, fits) if spec.special else fits)
    return Answer(sql.SQL("({} OR {})").format(whole, fits))


def _of_number(spec: FieldSpec, number: sql.Composable, whole: sql.Composable | None) -> Answer:  # noqa: PLR0911 - a table of cases
    """`whole`: whether the JSON has no fraction; None: it never has one."""
    if spec.kind in {"identifier", "integer"}:
        return ALWAYS if whole is None else Answer(whole)
    if spec.kind in {"float", "loose_integer", "decimal"}:
        return _of_any_size(spec, number, whole)
    if spec.kind == "duration":
        return _between(number, -spec.longest, spec.longest)
    if spec.kind == "boolean":
        return _of_choices(number, [*spec.truthy, *spec.falsy], exact=whole is None)
    if spec.kind == "moment" and spec.form in {"timestamp", "timestamp_ms"}:
        if spec.aware:
            return NEVER
        return _between(number, -1, _LAST_SECOND * (1 if spec.form == "timestamp" else 1000), lowest=0)
    return NEVER


def _quantized(spec: FieldSpec) -> int:
    """Below it a number surely has few enough digits once rounded; 0: none is known to."""
    left = _DIGITS - 1 - max(spec.places or 0, 0)
    return 10**left if left > 0 else 0


def _between(number: sql.Composable, low: int, high: int, *, lowest: int | None = None) -> Answer:
    """Surely inside; what is outside is marshmallow's to judge."""
    first = sql.SQL("{} > {}" if lowest is None else "{} >= {}")
    test = first.format(number, sql.Literal(low if lowest is None else lowest))
    return Answer(sql.SQL("({} AND {} < {})").format(test, number, sql.Literal(high)), exact=False)


def _of_choices(number: sql.Composable, choices: Iterable[Any], *, exact: bool) -> Answer:
    known = [whole_number(choice) for choice in choices]
    wanted = sorted({choice for choice in known if choice is not None})
    if not wanted:
        return Answer(FALSE, exact)
    listed = sql.SQL(", ").join(map(sql.Literal, wanted))
    return Answer(sql.SQL("({} IN ({}))").format(number, listed), exact)


def _of_boolean(spec: FieldSpec, view: View) -> Answer:
    if spec.kind == "duration":
        return ALWAYS  # float(True) is 1.0
    if spec.kind != "boolean":
        return NEVER
    known = {whole_number(choice) for choice in (*spec.truthy, *spec.falsy)}
    passing = [value for value in (True, False) if int(value) in known]
    if len(passing) == len({True, False}):
        return ALWAYS
    if not passing:
        return NEVER
    form = "({v} = {b}::jsonb)" if view.kind == "json" else "({v} = {b}::bool)"
    return Answer(view.format(form, b=sql.Literal(str(passing[0]).lower())))


def _of_string(spec: FieldSpec, view: View) -> Answer:  # noqa: PLR0911 - a table of cases
    text = view.string
    if spec.kind == "string":
        return ALWAYS
    if spec.kind == "identifier":
        return Answer(sql.SQL("({} <> '')").format(text))
    if spec.kind == "embedding":
        return Answer(sql.SQL("(left({t}, 1) = '[' AND right({t}, 1) = ']')").format(t=text))
    if spec.kind == "boolean":
        known = [choice for choice in (*spec.truthy, *spec.falsy) if is_storable(choice)]
        listed = sql.SQL(", ").join(map(sql.Literal, sorted(known)))
        return Answer(sql.SQL("({} IN ({}))").format(text, listed)) if known else NEVER
    if spec.kind == "decimal" and not _quantized(spec):
        return Answer(FALSE, exact=False)
    if spec.kind in {"moment", "date", "time"}:
        return moment_of_text(spec, text)
    form = _form(spec)
    return NEVER if form is None else shaped(text, form, _longest(spec))


def _longest(spec: FieldSpec) -> int | None:
    """Characters of a number that surely is none too large."""
    if spec.kind == "decimal" and spec.places is not None:
        return _DIGITS - 1 - max(spec.places, 0)
    return _LONGEST if spec.kind in _NUMBERS else None


def _form(spec: FieldSpec) -> str | None:
    if spec.kind == "address":
        return forms.ADDRESS[spec.version]
    if spec.kind == "interface":
        return forms.INTERFACE[spec.version]
    return {
        "uuid": forms.ANY_UUID, "loose_integer": forms.SIGNED, "float": forms.REAL, "decimal": forms.DECIMAL,
        "duration": forms.SHORT,
    }.get(spec.kind)  # fmt: skip


def shaped(text: sql.Composable, form: str, longest: int | None = None) -> Answer:
    """A text of this form surely passes; others are marshmallow's to judge."""
    test = sql.SQL("({} ~ {})").format(text, sql.Literal(form))
    if longest is not None:
        test = sql.SQL("(length({}) <= {} AND {})").format(text, sql.Literal(longest), test)
    return Answer(test, exact=False)
