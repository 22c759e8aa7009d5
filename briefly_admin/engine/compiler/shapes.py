"""Lists, objects and nested schemas over jsonb, compiled into what is within them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from psycopg import sql

from briefly_admin.engine.compiler.answers import ALWAYS, FALSE, NEVER, TRUE, Answer, every
from briefly_admin.engine.compiler.literals import is_storable
from briefly_admin.engine.compiler.views import View, by_json_type
from briefly_admin.plans.judging import FieldKind, FieldSpec

Whole = Callable[[FieldSpec, View], Answer]
"""A field's answer for a value within another, null and rules included."""

SHAPES: Final[frozenset[FieldKind]] = frozenset({"list", "object", "tuple", "nested", "plucked"})
_TYPES: Final[dict[FieldKind, str]] = {"string": "string", "object": "object", "any": ""}
"""Kinds of items of which a JSON type is all that is asked."""


def shape(spec: FieldSpec, shown: View, whole: Whole) -> Answer:
    """Of a value that is not null."""
    if spec.kind == "plucked":
        return _plucked(spec, shown, whole)
    outer = "array" if spec.kind in {"list", "tuple"} or spec.many else "object"
    if outer not in shown.types:
        return NEVER
    return by_json_type(shown.json, lambda name: _within(spec, shown.json, whole) if name == outer else NEVER)


def _within(spec: FieldSpec, shown: View, whole: Whole) -> Answer:
    """Of an array or object."""
    if spec.kind == "list" and spec.item is not None:
        return _items(spec.item, shown, whole)
    if spec.kind == "tuple":
        return _tuple(spec, shown, whole)
    if spec.kind == "nested" and spec.many:
        return _items(replace(spec, many=False, allow_none=False, rules=()), shown, whole)
    if spec.kind == "nested":
        return _nested(spec, shown, whole)
    return _pairs(spec, shown, whole)


def _plucked(spec: FieldSpec, shown: View, whole: Whole) -> Answer:
    """The value is for the one field of a schema."""
    assert spec.item is not None
    item = spec.item
    if not spec.many:
        return whole(item, shown)
    if "array" not in shown.types:
        return NEVER
    return by_json_type(shown.json, lambda name: _items(item, shown.json, whole) if name == "array" else NEVER)


def _items(item: FieldSpec, shown: View, whole: Whole) -> Answer:
    simple = _simple_items(item, shown)
    if simple is not None:
        return simple
    rows = sql.Identifier(f"e{shown.depth}")
    inner = View("json", sql.SQL("{}.value").format(rows), "jsonb", depth=shown.depth + 1)
    answer = whole(item, inner)
    if answer.test is None:
        return answer
    if answer.test is FALSE:  # an empty one passes
        return replace(answer, test=shown.format("({v} = '[]'::jsonb)"), why="")
    form = "(NOT EXISTS (SELECT FROM jsonb_array_elements({v}) AS {rows}(value) WHERE ({test}) IS NOT TRUE))"
    return replace(answer, test=shown.format(form, rows=rows, test=answer.surely))


def _simple_items(item: FieldSpec, shown: View) -> Answer | None:
    """An array whose items are asked for their JSON type alone."""
    is_simple = item.kind in _TYPES and not item.rules and not item.members and not item.judges_null
    if not is_simple or item.item is not None or item.key is not None:
        return None
    wanted = _TYPES[item.kind]
    if item.kind == "any":
        if item.allow_none:
            return ALWAYS
        tests = ['@.type() == "null"']
    else:
        tests = [f'@.type() != "{wanted}"'] + (['@.type() != "null"'] if item.allow_none else [])
    path = sql.Literal(f"strict $[*] ? ({' && '.join(tests)})")
    return Answer(shown.format("(NOT jsonb_path_exists({v}, {path}))", path=path))


def _tuple(spec: FieldSpec, shown: View, whole: Whole) -> Answer:
    length = Answer(shown.format("(jsonb_array_length({v}) = {n})", n=sql.Literal(len(spec.items))))
    items = (whole(item, shown.inner("({v} -> {n})", n=sql.Literal(number))) for number, item in enumerate(spec.items))
    return every([length, *items])


def _pairs(spec: FieldSpec, shown: View, whole: Whole) -> Answer:
    """Of an object: its keys and its values."""
    rows = sql.Identifier(f"e{shown.depth}")
    parts = []
    if spec.key is not None:
        key = View("text", sql.SQL("{}.key").format(rows), "text", frozenset({"string"}), shown.depth + 1)
        parts.append(whole(spec.key, key))
    if spec.item is not None:
        value = View("json", sql.SQL("{}.value").format(rows), "jsonb", depth=shown.depth + 1)
        parts.append(whole(spec.item, value))
    answer = every(parts)
    if answer.test is None:
        return answer
    if answer.test is FALSE:  # an empty one passes
        return replace(answer, test=shown.format("({v} = '{{}}'::jsonb)"), why="")
    form = "(NOT EXISTS (SELECT FROM jsonb_each({v}) AS {rows}(key, value) WHERE ({test}) IS NOT TRUE))"
    return replace(answer, test=shown.format(form, rows=rows, test=answer.surely))


def _nested(spec: FieldSpec, shown: View, whole: Whole) -> Answer:
    parts = [_field(item, shown, whole) for item in spec.items]
    if spec.closed:
        names = [item.name for item in spec.items if is_storable(item.name)]
        form = "(({v} - {names}::text[]) = '{{}}'::jsonb)"
        parts.append(Answer(shown.format(form, names=sql.Literal(names))))
    return every(parts)


def _field(item: FieldSpec, shown: View, whole: Whole) -> Answer:
    """One key of an object: its value's answer, and whether the key may be missing."""
    if not is_storable(item.name):
        return NEVER if item.required else ALWAYS
    name = sql.Literal(item.name)
    answer = whole(item, shown.inner("({v} -> {name}::text)", name=name))
    if answer.test is None and not item.required:
        return answer
    form = "(CASE WHEN {v} ? {name} THEN {test} ELSE {missing} END)"
    missing = FALSE if item.required else TRUE
    return replace(answer, test=shown.format(form, name=name, test=answer.surely, missing=missing), why="")
