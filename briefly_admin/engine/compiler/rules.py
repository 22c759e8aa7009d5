"""A field's validators over a value of the field's kind."""

import json
from dataclasses import replace
from typing import Any, Final

from psycopg import sql

from briefly_admin.engine.compiler import literals, patterns
from briefly_admin.engine.compiler.answers import ALWAYS, FALSE, NEVER, TRUE, Answer, ask
from briefly_admin.engine.compiler.urls import LONGEST_HOST, url_form
from briefly_admin.engine.compiler.values import Value, deserialized
from briefly_admin.engine.compiler.views import View
from briefly_admin.plans.judging import FieldSpec, RuleSpec

_NO_SQL: Final = "SQL does not ask this of such a value"
_LONGEST_URL: Final = 2000


def rule_over(rule: RuleSpec, spec: FieldSpec, view: View) -> Answer:  # noqa: PLR0911 - a table of cases
    """TRUE where a value of the kind surely passes, FALSE (an inexact one: or NULL) where it does not."""
    if rule.kind == "never":
        return NEVER
    if rule.kind == "opaque":
        return ask(rule.why or _NO_SQL)
    if spec.kind == "string" and not spec.members:
        return _text_rule(rule, view) or ask(_NO_SQL)
    if rule.kind == "length":
        return _length(rule, spec, view) or ask(_NO_SQL)
    if rule.kind in {"contains_only", "contains_none_of"}:
        return _contains(rule, spec, view) or ask(_NO_SQL)
    value = deserialized(spec, view) if not spec.members else None
    if rule.kind == "range" and value:
        return _range(rule, value) or ask(_NO_SQL)
    if rule.kind in {"one_of", "none_of"} and value:
        return _choices(rule, value) or ask(_NO_SQL)
    if rule.kind == "one_of" and spec.kind == "any":
        return member(rule, spec, view)
    return ask(_NO_SQL)


def member(rule: RuleSpec, spec: FieldSpec, view: View) -> Answer:
    """Whether a raw value is one of the choices; a number may be equal to others in Python than in SQL."""
    if spec.kind == "string":
        return replace(_text_rule(rule, view) or NEVER, exact=rule.whole)
    texts = [choice for choice in rule.choices if literals.is_storable(choice) and spec.kind == "any"]
    numbers = [n for choice in rule.choices if (n := literals.whole_number(choice)) is not None]
    if view.kind == "text":
        return Answer(_in(view.string, texts), rule.whole and spec.kind == "any")
    if view.kind == "integer":
        return Answer(_in(view.value, numbers), rule.whole)
    shown = view.json
    form = "(CASE jsonb_typeof({v}) WHEN 'string' THEN {texts} WHEN 'number' THEN {numbers} ELSE false END)"
    return Answer(shown.format(form, texts=_in(shown.string, texts), numbers=_in(shown.number, numbers)), exact=False)


def _text_rule(rule: RuleSpec, view: View) -> Answer | None:  # noqa: PLR0911 - a table of cases
    text = view.text
    if text is None:
        return None
    if rule.kind in {"one_of", "none_of"}:
        return Answer(_among(rule, text, [choice for choice in rule.choices if literals.is_storable(choice)]))
    if rule.kind == "length":
        return _bounded(rule, sql.SQL("char_length({})").format(text))
    if rule.kind == "email":
        test = sql.SQL("(char_length({v}) <= {n} AND {v} ~ {email})").format(
            v=text, n=sql.Literal(patterns.EMAIL_LENGTH), email=sql.Literal(patterns.EMAIL)
        )
        return Answer(test, exact=False)
    if rule.kind == "url" and rule.url:
        form = url_form(rule.url)
        return _url(text, form) if form else None
    if rule.kind == "pattern" and rule.pattern is not None:
        pattern = patterns.narrower(rule.pattern)
        if pattern is None:
            return ask("the regular expression is Python's own")
        return _matches(text, pattern)
    if rule.kind == "condition":
        parts = [sql.SQL(part) for part in rule.condition.split("{value}")]  # a plan's SQL: code, not input
        return Answer(sql.SQL("({})").format(_joined(parts, text)))
    return None


def _matches(text: sql.Composable, form: str) -> Answer:
    return Answer(sql.SQL("({} ~ {})").format(text, sql.Literal(form)), exact=False)


def _url(text: sql.Composable, form: str) -> Answer:
    test = sql.SQL("(char_length({v}) <= {most} AND char_length(split_part({v}, '/', 3)) <= {host} AND {v} ~ {form})")
    return Answer(
        test.format(v=text, most=sql.Literal(_LONGEST_URL), host=sql.Literal(LONGEST_HOST), form=sql.Literal(form)),
        exact=False,
    )


def _joined(parts: list[sql.SQL], between: sql.Composable) -> sql.Composed:
    pieces: list[sql.Composable] = []
    for position, part in enumerate(parts):
        pieces.extend([between, part] if position else [part])
    return sql.Composed(pieces)


def _length(rule: RuleSpec, spec: FieldSpec, view: View) -> Answer | None:
    """Of lists and of objects whose keys stay apart."""
    shown = view.json
    if spec.kind in {"list", "tuple"}:
        form = "(CASE jsonb_typeof({v}) WHEN 'array' THEN jsonb_array_length({v}) END)"
    elif spec.kind == "object" and (spec.key is None or spec.key.kind == "string"):
        form = "(CASE jsonb_typeof({v}) WHEN 'object' THEN (SELECT count(*) FROM jsonb_object_keys({v})) END)"
    else:
        return None
    return _bounded(rule, shown.format(form))


def _contains(rule: RuleSpec, spec: FieldSpec, view: View) -> Answer | None:
    """Of lists of texts or of integers: equal in JSON is equal in Python."""
    kinds: dict[str, type] = {"string": str, "integer": int}
    item = spec.item
    if spec.kind != "list" or item is None or item.kind not in kinds or item.members:
        return None
    wanted = kinds[item.kind]
    if item.allow_none and any(choice is None for choice in rule.choices):
        return None
    choices: list[Any] = []
    for choice in rule.choices:
        known = literals.whole_number(choice) if wanted is int else choice
        if type(known) is wanted and (wanted is int or literals.is_storable(known)):
            choices.append(known)
    return Answer(_containment(rule, view.json, choices))


def _containment(rule: RuleSpec, shown: View, choices: list[Any]) -> sql.Composable:
    if rule.kind == "contains_only":
        test = shown.format("{v} <@ {array}", array=_array(choices))
    else:
        tests = [shown.format("{v} @> {array}", array=_array([choice])) for choice in choices]
        test = sql.SQL("NOT ({})").format(sql.SQL(" OR ").join(tests)) if tests else sql.Composed([TRUE])
    return shown.format("(CASE jsonb_typeof({v}) WHEN 'array' THEN {test} END)", test=test)


def _array(choices: list[Any]) -> sql.Composable:
    return sql.SQL("{}::jsonb").format(sql.Literal(json.dumps(choices)))


def _choices(rule: RuleSpec, value: Value) -> Answer | None:
    known = [value.literal(choice) for choice in rule.choices]
    if not value.is_strict and any(literal is None for literal in known):
        return None  # some choice may be equal in Python to what SQL has no literal for
    return Answer(_among(rule, value.expression, [each for each in known if each is not None]), value.exact)


def _range(rule: RuleSpec, value: Value) -> Answer | None:
    tests = []
    for bound, operator in ((rule.minimum, ">" if rule.above else ">="), (rule.maximum, "<" if rule.below else "<=")):
        if bound is None:
            continue
        literal = value.literal(bound)
        if literal is None:
            return None
        tests.append(sql.SQL("{} {} {}").format(value.expression, sql.SQL(operator), literal))
    return Answer(sql.SQL("({})").format(sql.SQL(" AND ").join(tests)), value.exact) if tests else ALWAYS


def _bounded(rule: RuleSpec, number: sql.Composable) -> Answer:
    answer = _range(rule, Value(number, sql.Literal))
    assert answer is not None
    return answer


def _in(value: sql.Composable, choices: list[Any]) -> sql.Composable:
    if not choices:
        return FALSE
    return sql.SQL("({} IN ({}))").format(value, sql.SQL(", ").join(map(sql.Literal, choices)))


def _among(rule: RuleSpec, value: sql.Composable, choices: list[Any]) -> sql.Composable:
    wanted = rule.kind == "one_of"
    if not choices:
        return sql.SQL("({} <> {})").format(value, value) if wanted else TRUE  # NULL of NULL
    listed = sql.SQL(", ").join(c if isinstance(c, sql.Composable) else sql.Literal(c) for c in choices)
    return sql.SQL("({} IN ({}))" if wanted else "({} NOT IN ({}))").format(value, listed)
