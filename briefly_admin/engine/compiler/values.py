"""What Python makes of a value, as an SQL expression that its bounds and choices compare with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import sql

from briefly_admin.engine.compiler import forms, literals
from briefly_admin.engine.compiler.literals import is_storable, whole_number
from briefly_admin.engine.compiler.moments import text_form
from briefly_admin.engine.compiler.views import View
from briefly_admin.plans.judging import FieldSpec

_EXACT_DOUBLE: Final = 2**53
_SCALE: Final = 6
"""Decimal places that, below 1e9, a double carries through unharmed."""


@dataclass(frozen=True, slots=True)
class Value:
    """`expression` is NULL where SQL does not know the value; an exact one is so for values of another kind alone."""

    expression: sql.Composable
    literal: Callable[[Any], sql.Composable | None]
    """A choice or bound as SQL; None where no value is equal to it, or its order is Python's own."""
    exact: bool = True
    is_strict: bool = True
    """What has no literal is equal to no value."""


def deserialized(spec: FieldSpec, view: View) -> Value | None:
    """None where only Python has the value."""
    makers: dict[str, Callable[[FieldSpec, View], Value | None]] = {
        "integer": _integer, "loose_integer": _integer, "decimal": _decimal, "float": _float, "boolean": _boolean,
        "date": _date, "time": _time, "moment": _moment, "uuid": _uuid,
    }  # fmt: skip
    maker = makers.get(spec.kind)
    return maker(spec, view) if maker else None


def _number(value: Any) -> sql.Composable | None:
    found = literals.exactly(value)
    return None if found is None else literals.numeric(found)


def _when(condition: sql.Composable, then: sql.Composable) -> sql.Composable:
    return sql.SQL("(CASE WHEN {} THEN {} END)").format(condition, then)


def _by_type(shown: View, number: sql.Composable, text: sql.Composable | None) -> sql.Composable:
    """Of a jsonb."""
    texts = sql.SQL("WHEN 'string' THEN {} ").format(text) if text is not None else sql.SQL("")
    return shown.format("(CASE jsonb_typeof({v}) WHEN 'number' THEN {n} {t}END)", n=number, t=texts)


def _integer(spec: FieldSpec, view: View) -> Value | None:
    strict = spec.kind == "integer"
    if view.kind == "integer":
        return Value(view.value, _number)
    if view.kind == "numeric":
        return Value(_when(view.format("scale({v}) = 0"), view.value), _number, exact=strict)
    shaped = sql.SQL("(length({t}) <= 100 AND {t} ~ {p})").format(t=view.string, p=sql.Literal(forms.SIGNED))
    from_text = _when(shaped, sql.SQL("{}::numeric").format(view.string))
    if view.kind == "text":
        return None if strict else Value(from_text, _number, exact=False)
    shown = view.json
    if strict:
        form = "(CASE WHEN jsonb_typeof({v}) = 'number' AND ({v} #>> '{{}}') ~ {integer} THEN ({v})::numeric END)"
        return Value(shown.format(form, integer=sql.Literal(forms.INTEGER)), _number)
    whole = _when(shown.format("({v} #>> '{{}}') ~ {p}", p=sql.Literal(forms.INTEGER)), shown.number)
    return Value(_by_type(shown, whole, from_text), _number, exact=False)


def _decimal(spec: FieldSpec, view: View) -> Value | None:
    """A JSON fraction went through a double: only short ones are surely what they were."""
    if spec.places is not None and spec.places < 0:
        return None
    if view.kind == "integer":
        return Value(view.value, _number)
    places = _SCALE if spec.places is None else min(spec.places, _SCALE)
    form = "scale({n}) = 0 OR (scale({n}) <= {k} AND {n} > -1000000000 AND {n} < 1000000000)"

    def surely(number: sql.Composable) -> sql.Composable:
        return _when(sql.SQL(form).format(n=number, k=sql.Literal(places)), number)

    if view.kind == "numeric":
        return Value(surely(view.value), _number, exact=False)
    shaped = sql.SQL("(length({t}) <= 100 AND {t} ~ {p})").format(t=view.string, p=sql.Literal(forms.DECIMAL))
    as_number: sql.Composable = sql.SQL("({}::numeric)").format(view.string)
    if spec.places is not None:
        as_number = _when(sql.SQL("scale({}) <= {}").format(as_number, sql.Literal(spec.places)), as_number)
    from_text = _when(shaped, as_number)
    if view.kind == "text":
        return Value(from_text, _number, exact=False)
    return Value(_by_type(view.json, surely(view.json.number), from_text), _number, exact=False)


def _float(spec: FieldSpec, view: View) -> Value | None:
    del spec
    if view.kind == "integer":
        return Value(view.value, _modest, is_strict=False)
    if view.kind == "float" and view.type_name == "float8":
        finite = view.format("{v} > '-Infinity' AND {v} < 'Infinity'")
        return Value(_when(finite, view.value), literals.double, exact=False)
    form = "{n} = 0 OR ({n} > 1e-200 AND {n} < 1e200) OR ({n} < -1e-200 AND {n} > -1e200)"

    def surely(number: sql.Composable) -> sql.Composable:
        return _when(sql.SQL(form).format(n=number), sql.SQL("({})::float8").format(number))

    if view.kind == "numeric":
        return Value(surely(view.value), literals.double, exact=False)
    shaped = sql.SQL("(length({t}) <= 100 AND {t} ~ {p})").format(t=view.string, p=sql.Literal(forms.DECIMAL))
    from_text = _when(shaped, sql.SQL("{}::float8").format(view.string))
    if view.kind == "text":
        return Value(from_text, literals.double, exact=False)
    return Value(_by_type(view.json, surely(view.json.number), from_text), literals.double, exact=False)


def _modest(value: Any) -> sql.Composable | None:
    """A bound of doubles that are integers: below 2^53 each is itself."""
    found = literals.exactly(value)
    return literals.numeric(found) if found is not None and abs(found) < _EXACT_DOUBLE else None


def _boolean(spec: FieldSpec, view: View) -> Value | None:
    def literal(choice: Any) -> sql.Composable | None:
        known = whole_number(choice)
        return sql.SQL("true" if known else "false") if known in {0, 1} else None

    if not spec.truthy:
        return None
    true, false = ({whole_number(c) for c in choices} for choices in (spec.truthy, spec.falsy))
    if view.kind == "bool" and 1 in true and 0 in false - true:
        return Value(view.value, literal)
    if view.kind == "integer":
        numbers = _either(view.value, [n for n in true if n is not None], [n for n in false if n is not None])
        return Value(numbers, literal)
    texts = _either(view.string, [c for c in spec.truthy if is_storable(c)], [c for c in spec.falsy if is_storable(c)])
    return Value(texts, literal) if view.kind == "text" else None


def _either(value: sql.Composable, true: list[Any], false: list[Any]) -> sql.Composable:
    cases = [
        sql.SQL("WHEN {} IN ({}) THEN {}").format(value, sql.SQL(", ").join(map(sql.Literal, sorted(found))), then)
        for found, then in ((true, sql.SQL("true")), (false, sql.SQL("false"))) if found
    ]  # fmt: skip
    return sql.SQL("(CASE {} END)").format(sql.SQL(" ").join(cases)) if cases else sql.SQL("NULL::bool")


def _date(spec: FieldSpec, view: View) -> Value | None:
    return _temporal(spec, view, "date", {"date"})


def _time(spec: FieldSpec, view: View) -> Value | None:
    return _temporal(spec, view, "time", {"time"})


def _moment(spec: FieldSpec, view: View) -> Value | None:
    """Naive and aware ones do not compare: a bound is for the one kind that it is of."""
    if spec.adapted:
        return None
    if view.type_name == "timestamptz" or (spec.aware and view.kind != "moment"):
        return _temporal(spec, view, "timestamptz", {"timestamptz"})
    if view.kind == "date":
        return None
    return _temporal(spec, view, "timestamp", {"timestamp"}) if view.kind == "moment" or spec.aware is False else None


def _temporal(spec: FieldSpec, view: View, type_name: str, native: set[str]) -> Value | None:
    def literal(value: Any) -> sql.Composable | None:
        return literals.temporal(value, type_name)

    if spec.form not in {"iso", "iso8601"}:
        return None
    if view.type_name in native:
        return Value(view.value, literal, exact=type_name != "time")
    text, form = view.text, text_form(spec)
    if text is None or form is None or view.kind in {"date", "time", "moment"}:
        return None
    cast = sql.SQL("{}::{}").format(text, sql.SQL(type_name))  # one of four names
    return Value(_when(sql.SQL("{} ~ {}").format(text, sql.Literal(form)), cast), literal, exact=False)


def _uuid(spec: FieldSpec, view: View) -> Value | None:
    del spec

    def literal(value: Any) -> sql.Composable | None:
        return sql.SQL("{}::uuid").format(sql.Literal(str(value))) if type(value) is UUID else None

    if view.kind == "uuid":
        return Value(view.value, literal)
    text = view.text
    if text is None:
        return None
    shaped = sql.SQL("{} ~ {}").format(text, sql.Literal(forms.ANY_UUID))
    return Value(_when(shaped, sql.SQL("{}::uuid").format(text)), literal, exact=False)
