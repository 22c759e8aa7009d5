"""A field of a record schema over an SQL expression: conditions with marshmallow's verdict."""

from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.engine.compiler.answers import FALSE, TRUE, Answer, ask, every
from briefly_admin.engine.compiler.kinds import of_json_type, scalar
from briefly_admin.engine.compiler.rules import member, rule_over
from briefly_admin.engine.compiler.shapes import SHAPES, shape
from briefly_admin.engine.compiler.views import Typed, View, by_json_type, view
from briefly_admin.plans.judging import FieldSpec, Judge

_NOT_JSON_NULL: Final = {"string", "integer", "object", "list"}
"""Kinds whose exact test of a jsonb value is FALSE of JSON null."""
_SIMPLE: Final = {"string", "integer"}
"""Kinds whose rules of these names are NULL of NULL, and of nothing else:"""
_NEVER_NULL: Final = {"one_of", "none_of", "range", "length", "email", "url", "pattern"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing to hold: `test` is TRUE where the value passes, FALSE where it fails, NULL where it does not apply.

    It does not apply where an earlier condition failed, or the value is null. `test` None: it always holds. `judge`
    None: it is exact, a FALSE is final. Otherwise it is sound: a FALSE means "ask `judge`".
    """

    name: str
    words: str
    test: sql.Composable | None
    judge: Judge | None = None
    why: str = ""
    """Not empty: every value is for `judge`, and this is what SQL cannot know."""
    loose: sql.Composable | None = None
    """Cheaper than `test`: FALSE, too, wherever that is FALSE, unless another condition of the field is FALSE there."""

    @property
    def fails(self) -> sql.Composable:
        """TRUE where the condition is FALSE, else FALSE; never NULL."""
        return sql.SQL("(({}) IS FALSE)").format(self.test or TRUE)

    @property
    def suspect(self) -> sql.Composable:
        """Cheaper than `fails`; of a field's conditions one is TRUE here wherever one of them fails."""
        return sql.SQL("(({}) IS FALSE)").format(self.loose or self.test or TRUE)


def conditions(spec: FieldSpec, typed: Typed) -> tuple[Condition, ...]:
    """What must hold for `spec` of the value `typed`, in the order in which marshmallow asks."""
    shown = view(typed)
    found: list[Condition] = []
    if spec.allow_none and spec.judges_null:
        return (Condition("type", spec.words, FALSE, spec.judge, spec.why),)
    answer = _type(spec, shown)
    # What takes no JSON null need not be asked twice whether there is one: a glance at every row becomes cheaper.
    glance = shown.kind == "json" and answer.exact and answer.test is not None and spec.kind in _NOT_JSON_NULL
    glance = glance and not spec.allow_none
    if not spec.allow_none:
        there = shown.format("({v} IS NOT NULL)") if glance else None
        tested = sql.SQL("(NOT {})").format(shown.is_null)
        found.append(Condition("null", "must not be missing", tested, loose=there))
    if not answer.exact:
        surely = every([answer, *(rule_over(rule, spec, shown) for rule in spec.rules)])
        test = sql.SQL("(CASE WHEN NOT {} THEN coalesce({}, false) END)").format(shown.is_null, surely.surely)
        return (*found, Condition("type", spec.words, test, _whole(spec), surely.why))
    if answer.test is not None:
        test = sql.SQL("(CASE WHEN NOT {} THEN {} END)").format(shown.is_null, answer.test)
        found.append(Condition("type", spec.words, test, loose=answer.test if glance else None))
    if answer.is_never:
        return tuple(found)  # no value gets as far as the rules, nor do their operators exist for it
    return (*found, *_rules(spec, shown, answer))


def _rules(spec: FieldSpec, shown: View, of_type: Answer) -> list[Condition]:
    """The rules apply where the type, which is exact, holds."""
    applies = sql.SQL("(NOT {} AND {})").format(shown.is_null, of_type.surely)
    found = []
    for rule in spec.rules:
        answer = rule_over(rule, spec, shown)
        test = answer.surely
        simple = of_type.test is None and spec.kind in _SIMPLE and rule.kind in _NEVER_NULL and not answer.why
        if not simple or not (answer.exact or spec.kind == "string"):
            known = test if answer.exact or test is FALSE else sql.SQL("coalesce({}, false)").format(test)
            test = sql.SQL("(CASE WHEN {} THEN {} END)").format(applies, known)
        found.append(Condition(rule.name, rule.words, test, None if answer.exact else rule.judge, answer.why))
    return found


def _whole(spec: FieldSpec) -> Judge:
    return lambda value: spec.judge(value) and all(rule.judge(value) for rule in spec.rules)


def _type(spec: FieldSpec, shown: View) -> Answer:
    """Of a value that is not null: whether it is of the field's type."""
    if spec.kind == "opaque":
        return ask(spec.why)
    if spec.kind in SHAPES:
        return shape(spec, shown, _within)
    answer = scalar(spec, shown)
    if answer is None:
        shown = shown if len(shown.types) == 1 else shown.json
        answer = by_json_type(shown, lambda name: of_json_type(spec, shown, name))
    if spec.members is None or answer.is_never:
        return answer
    return every([answer, member(spec.members, spec, shown)])


def _within(spec: FieldSpec, shown: View) -> Answer:
    """Of a value in another one: null, type and rules in one. An exact one may be NULL where it is FALSE."""
    if spec.judges_null and spec.allow_none:
        return ask(spec.why)
    answer = every([_type(spec, shown), *(rule_over(rule, spec, shown) for rule in spec.rules)])
    null = TRUE if spec.allow_none else FALSE
    if answer.test is None:
        return answer if spec.allow_none else Answer(sql.SQL("(NOT {})").format(shown.is_null))
    if answer.test is FALSE and not spec.allow_none:
        return answer
    test = sql.SQL("(CASE WHEN {} THEN {} ELSE {} END)").format(shown.is_null, null, answer.surely)
    return Answer(test, answer.exact)
