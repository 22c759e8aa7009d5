"""A field of a record schema over an SQL expression: conditions that PostgreSQL evaluates, with marshmallow's verdict.

A condition is TRUE where the value passes, FALSE where it fails, NULL where it does not apply (an earlier condition
failed, or the value is null). An exact condition's FALSE is final; of another it means "ask `judge`".
"""

from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.engine.compiler import patterns
from briefly_admin.plans.judging import FieldKind, FieldSpec, Judge, RuleSpec

_TRUE: Final = sql.SQL("true")
_FALSE: Final = sql.SQL("false")
_OPAQUE: Final = "the plan's own code decides"

_INTEGERS: Final = {"int2", "int4", "int8"}
_TEXTS: Final = {"text", "varchar"}
_MOMENTS: Final = {"timestamp", "timestamptz"}
_VECTORS: Final = {"vector", "halfvec"}


@dataclass(frozen=True, slots=True)
class Typed:
    """An SQL expression and pg_type.typname of its (base) type."""

    expression: sql.Composable
    type_name: str


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing to hold; `test` None: it always does. `judge` None: exact."""

    name: str
    words: str
    test: sql.Composable | None
    judge: Judge | None = None
    why: str = ""
    """Not empty: every value is for `judge`, and this is what SQL cannot know."""

    @property
    def fails(self) -> sql.Composable:
        """TRUE where the condition is FALSE, else FALSE; never NULL."""
        return sql.SQL("(({}) IS FALSE)").format(self.test or _TRUE)


@dataclass(frozen=True, slots=True)
class _View:
    """How PostgreSQL shows a value: `kind` of its type, `value` native or as jsonb."""

    kind: str
    value: sql.Composable

    def format(self, text: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(v=self.value, **parts)  # texts of this module

    @property
    def is_null(self) -> sql.Composable:
        """Whether its JSON is null."""
        if self.kind == "json":
            return self.format("(jsonb_typeof({v}) IS NULL OR jsonb_typeof({v}) = 'null')")
        return self.format("({v} IS NULL)")

    @property
    def text(self) -> sql.Composable | None:
        """The text that its JSON is, NULL where it is none; None where it never is one."""
        return {
            "text": self.format('({v} COLLATE "C")'),
            "uuid": self.format("({v}::text)"),
            "moment": self.format("(to_jsonb({v}) #>> '{{}}')"),
            "json": self.format("(CASE jsonb_typeof({v}) WHEN 'string' THEN {v} #>> '{{}}' END)"),
        }.get(self.kind)


def _view(typed: Typed) -> _View:
    name, value = typed.type_name, typed.expression
    for kind, names in (("integer", _INTEGERS), ("text", _TEXTS), ("moment", _MOMENTS), ("vector", _VECTORS)):
        if name in names:
            return _View(kind, value)
    if name in {"uuid", "bool", "jsonb"}:
        return _View("json" if name == "jsonb" else name, value)
    return _View("json", sql.SQL("to_jsonb({})").format(value))


def conditions(spec: FieldSpec, typed: Typed) -> tuple[Condition, ...]:
    """What must hold for `spec` of the value `typed`, in the order in which marshmallow asks."""
    view = _view(typed)
    found: list[Condition] = []
    if not spec.allow_none:
        found.append(Condition("null", "must not be missing", sql.SQL("(NOT {})").format(view.is_null)))
    passes, exact = _type(spec, view, typed.type_name)
    if not exact:
        rules = [_rule(rule, spec.kind, view, _TRUE)[0] for rule in spec.rules]
        surely = sql.SQL(" AND ").join([passes or _TRUE, *(sql.SQL("({})").format(rule) for rule in rules)])
        asked = sql.SQL("(CASE WHEN NOT {} THEN coalesce({}, false) END)").format(view.is_null, surely)
        return (*found, Condition("type", spec.words, asked, _whole(spec), _OPAQUE if passes is _FALSE else ""))
    if passes is not None:
        asked = sql.SQL("(CASE WHEN NOT {} THEN {} END)").format(view.is_null, passes)
        found.append(Condition("type", spec.words, asked))
    if passes is _FALSE:
        return tuple(found)  # no value gets as far as the rules, nor do their operators exist for it
    applies = sql.SQL("(NOT {} AND {})").format(view.is_null, passes or _TRUE)
    for rule in spec.rules:
        accepts, is_exact = _rule(rule, spec.kind, view, applies, always=passes is None)
        why = _OPAQUE if rule.kind == "opaque" else ""
        found.append(Condition(rule.name, rule.words, accepts, None if is_exact else rule.judge, why))
    return tuple(found)


def _whole(spec: FieldSpec) -> Judge:
    return lambda value: spec.judge(value) and all(rule.judge(value) for rule in spec.rules)


_Answer = tuple[sql.Composable | None, bool]
"""(condition over a value that is not null, None for always; exact)."""

_JSON_TYPES: Final[dict[FieldKind, str]] = {
    "string": "jsonb_typeof({v}) = 'string'",
    "integer": "(CASE jsonb_typeof({v}) WHEN 'number' THEN ({v} #>> '{{}}') ~ {integer} ELSE false END)",
    "object": "jsonb_typeof({v}) = 'object'",
    "identifier": (
        "(CASE jsonb_typeof({v}) WHEN 'string' THEN ({v} #>> '{{}}') <> '' "
        "WHEN 'number' THEN ({v} #>> '{{}}') ~ {integer} ELSE false END)"
    ),
    "embedding": (
        "(CASE jsonb_typeof({v}) WHEN 'string' THEN left({v} #>> '{{}}', 1) = '[' AND right({v} #>> '{{}}', 1) = ']' "
        "WHEN 'array' THEN NOT jsonb_path_exists({v}, 'strict $[*] ? (@.type() != \"number\")') ELSE false END)"
    ),
}
_JSON_GUESSES: Final[dict[FieldKind, str]] = {
    "float": "(jsonb_typeof({v}) = 'number' AND length({v} #>> '{{}}') < 300)",
    "boolean": "jsonb_typeof({v}) = 'boolean'",
    "uuid": "(CASE jsonb_typeof({v}) WHEN 'string' THEN ({v} #>> '{{}}') ~ {uuid} ELSE false END)",
}
_ITEMS: Final[dict[FieldKind, str]] = {"string": "string", "object": "object"}
_ALWAYS: Final[dict[str, frozenset[FieldKind]]] = {
    "integer": frozenset({"identifier", "integer", "float"}),
    "text": frozenset({"string"}),
    "uuid": frozenset({"string", "identifier", "uuid"}),
    "bool": frozenset({"boolean"}),
    "moment": frozenset({"string", "identifier"}),
    "vector": frozenset({"embedding", "string"}),
}
_NEVER: Final[dict[str, frozenset[FieldKind]]] = {
    "integer": frozenset({"string", "uuid", "moment", "object", "list", "embedding"}),
    "text": frozenset({"integer", "object", "list"}),
    "uuid": frozenset({"integer", "object", "list", "embedding"}),
    "bool": frozenset({"string", "identifier", "uuid", "integer", "float", "moment", "object", "list", "embedding"}),
    "moment": frozenset({"integer", "object", "list", "embedding"}),
    "vector": frozenset({"integer", "object", "list"}),
}


def _type(spec: FieldSpec, view: _View, type_name: str) -> _Answer:  # noqa: PLR0911 - a table of cases
    if spec.kind == "any" or spec.kind in _ALWAYS.get(view.kind, frozenset()):
        return None, True
    if spec.kind in _NEVER.get(view.kind, frozenset()):
        return _FALSE, True
    if view.kind == "json":
        return _json_type(spec, view)
    if view.kind == "moment" and spec.kind == "moment":
        return _moment(spec, view, type_name)
    if view.kind == "text" and spec.kind == "identifier":
        return view.format("({v} <> '')"), True
    if view.kind == "text" and spec.kind == "embedding":
        return view.format("(left({v}, 1) = '[' AND right({v}, 1) = ']')"), True
    if view.kind == "text" and spec.kind == "uuid":
        return view.format("({v} ~ {uuid})", uuid=sql.Literal(patterns.UUID)), False
    return _FALSE, False


def _json_type(spec: FieldSpec, view: _View) -> _Answer:
    if spec.kind == "list":
        if spec.item == "any":
            return _items(view, "null", "=="), True
        if spec.item in _ITEMS:
            return _items(view, _ITEMS[spec.item], "!="), True
        return view.format("({v} = '[]'::jsonb)"), False
    text = _JSON_TYPES.get(spec.kind)
    guess = _JSON_GUESSES.get(spec.kind, "false")
    parts = {"integer": sql.Literal(patterns.INTEGER), "uuid": sql.Literal(patterns.UUID)}
    return view.format(text or guess, **parts), text is not None


def _items(view: _View, name: str, operator: str) -> sql.Composable:
    """An array none of whose items has (`==`), or has not (`!=`), the JSON type `name`."""
    path = sql.Literal(f'strict $[*] ? (@.type() {operator} "{name}")')
    return view.format(
        "(CASE jsonb_typeof({v}) WHEN 'array' THEN NOT jsonb_path_exists({v}, {path}) ELSE false END)", path=path
    )


def _moment(spec: FieldSpec, view: _View, type_name: str) -> _Answer:
    """±infinity, BC and years above 9999 are no Python datetimes."""
    if spec.aware and type_name == "timestamp":
        return _FALSE, True
    low, high = ("0001-01-01 00:00:00+00", "10000-01-01 00:00:00+00")
    cast = sql.SQL(type_name)  # one of two names of this module
    return view.format(
        "({v} >= {low}::{cast} AND {v} < {high}::{cast})", low=sql.Literal(low), high=sql.Literal(high), cast=cast
    ), True


def _rule(
    rule: RuleSpec, kind: FieldKind, view: _View, applies: sql.Composable, *, always: bool = False
) -> tuple[sql.Composable, bool]:
    """The rule over a value of its field's kind, NULL where the value is none; and whether it is exact.

    `always`: every value that is not NULL is of the kind, and what is asked of NULL is NULL.
    """
    compiled = _text_rule(rule, view) if kind == "string" else _other_rule(rule, kind, view)
    if compiled is None:
        return sql.SQL("(CASE WHEN {} THEN false END)").format(applies), False
    condition, exact = compiled
    if always and rule.kind != "condition":
        return condition, exact
    return sql.SQL("(CASE WHEN {} THEN {} END)").format(applies, condition), exact


def _text_rule(rule: RuleSpec, view: _View) -> tuple[sql.Composable, bool] | None:  # noqa: PLR0911 - a table of cases
    text = view.text
    if text is None:
        return None
    if rule.kind in {"one_of", "none_of"}:
        return _choices(rule, text, [choice for choice in rule.choices if _is_storable(choice)]), True
    if rule.kind == "length":
        return _between(rule, sql.SQL("char_length({})").format(text)), True
    if rule.kind == "email":
        return sql.SQL("(char_length({v}) <= {n} AND {v} ~ {email})").format(
            v=text, n=sql.Literal(patterns.EMAIL_LENGTH), email=sql.Literal(patterns.EMAIL)
        ), False
    if rule.kind == "pattern" and rule.pattern is not None:
        pattern = patterns.narrower(rule.pattern)
        return (sql.SQL("({} ~ {})").format(text, sql.Literal(pattern)), False) if pattern else None
    if rule.kind == "condition":
        parts = [sql.SQL(part) for part in rule.condition.split("{value}")]  # a plan's SQL: code, not input
        return sql.SQL("({})").format(_joined(parts, text)), True
    return None


def _joined(parts: list[sql.SQL], between: sql.Composable) -> sql.Composed:
    pieces: list[sql.Composable] = []
    for position, part in enumerate(parts):
        pieces.extend([between, part] if position else [part])
    return sql.Composed(pieces)


def _other_rule(rule: RuleSpec, kind: FieldKind, view: _View) -> tuple[sql.Composable, bool] | None:
    if kind == "list" and rule.kind == "length" and view.kind == "json":
        length = view.format("(CASE jsonb_typeof({v}) WHEN 'array' THEN jsonb_array_length({v}) END)")
        return _between(rule, length), True
    if kind != "integer":
        return None
    number = view.value
    if view.kind == "json":
        number = view.format(
            "(CASE WHEN jsonb_typeof({v}) = 'number' AND ({v} #>> '{{}}') ~ {integer} THEN {v}::numeric END)",
            integer=sql.Literal(patterns.INTEGER),
        )
    if rule.kind == "range":
        return _between(rule, number), True
    if rule.kind in {"one_of", "none_of"}:
        return _choices(rule, number, [choice for choice in rule.choices if type(choice) is int]), True
    return None


def _is_storable(choice: object) -> bool:
    """Whether a PostgreSQL text can be equal to it."""
    return isinstance(choice, str) and "\0" not in choice and not any("\ud800" <= c <= "\udfff" for c in choice)


def _choices(rule: RuleSpec, value: sql.Composable, choices: list[object]) -> sql.Composable:
    wanted = rule.kind == "one_of"
    if not choices:
        return sql.SQL("({} <> {})").format(value, value) if wanted else _TRUE  # NULL of NULL
    listed = sql.SQL(", ").join(map(sql.Literal, choices))
    return sql.SQL("({} IN ({}))" if wanted else "({} NOT IN ({}))").format(value, listed)


def _between(rule: RuleSpec, number: sql.Composable) -> sql.Composable:
    tests = []
    if rule.minimum is not None:
        tests.append(sql.SQL("{} >= {}").format(number, sql.Literal(rule.minimum)))
    if rule.maximum is not None:
        tests.append(sql.SQL("{} <= {}").format(number, sql.Literal(rule.maximum)))
    return sql.SQL("({})").format(sql.SQL(" AND ").join(tests)) if tests else _TRUE
