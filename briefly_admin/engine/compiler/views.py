"""How PostgreSQL shows a value: natively where its type says enough, else as the jsonb that marshmallow gets."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from psycopg import sql

from briefly_admin.engine.compiler.answers import ALWAYS, FALSE, NEVER, Answer

ANY: Final = frozenset({"string", "number", "boolean", "array", "object"})
"""What jsonb_typeof says of values that are not null."""
_STRING: Final = frozenset({"string"})
_NUMBER: Final = frozenset({"number"})
_SPECIAL: Final = frozenset({"number", "string"})
"""NaN and the infinities are strings."""

_NATIVE: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "int2": ("integer", _NUMBER),
    "int4": ("integer", _NUMBER),
    "int8": ("integer", _NUMBER),
    "numeric": ("numeric", _SPECIAL),
    "float4": ("float", _SPECIAL),
    "float8": ("float", _SPECIAL),
    "bool": ("bool", frozenset({"boolean"})),
    "text": ("text", _STRING),
    "varchar": ("text", _STRING),
    "uuid": ("uuid", _STRING),
    "date": ("date", _STRING),
    "time": ("time", _STRING),
    "timetz": ("time", _STRING),
    "timestamp": ("moment", _STRING),
    "timestamptz": ("moment", _STRING),
    "interval": ("interval", _STRING),
    "inet": ("inet", _STRING),
    "cidr": ("inet", _STRING),
    "bytea": ("bytea", _STRING),
    "vector": ("vector", _STRING),
    "halfvec": ("vector", _STRING),
}
"""pg_type.typname → kind of view, and the JSON types that its values can have."""
_OTHER_STRINGS: Final = frozenset({"bpchar", "name", "char", "oid", "money", "macaddr", "macaddr8", "citext", "xml"})

# A json text may hold what no jsonb can: \u0000, half of a character in two, a number beyond all measure.
_HOLDS: Final = (
    r"((strpos({v}::text, '\u') = 0 OR (replace({v}::text, '\\', '') !~ '\\u0000' AND "
    r"regexp_replace(replace({v}::text, '\\', ''), '\\u[dD][89abAB]..\\u[dD][c-fC-F]', '', 'g') "
    r"!~ '\\u[dD][89a-fA-F]')) "
    r"AND ({v}::text !~ '[eE][+-]?[0-9]{{5}}' OR "
    r"""regexp_replace({v}::text, '"([^"\\]|\\.)*"', '', 'g') !~ '[eE][+-]?[0-9]{{5}}') """
    "AND (length({v}::text) < 100000 OR "
    "NOT EXISTS (SELECT FROM regexp_split_to_table({v}::text, '[^0-9]+') AS d WHERE length(d) > 100000)))"
)


@dataclass(frozen=True, slots=True)
class Typed:
    """An SQL expression and pg_type.typname of its (base) type."""

    expression: sql.Composable
    type_name: str


@dataclass(frozen=True, slots=True)
class View:
    """A value: `kind` says how to read `value`; of the kind `json` it is jsonb."""

    kind: str
    value: sql.Composable
    type_name: str
    types: frozenset[str] = ANY
    """JSON types that it can have where it is not null."""
    depth: int = 0
    """Of the subqueries around it, each of which names its own rows."""

    def format(self, text: str, **parts: sql.Composable) -> sql.Composed:
        """SQL with the value for `{v}`."""
        return sql.SQL(text).format(v=self.value, **parts)  # texts of this package

    @property
    def is_null(self) -> sql.Composable:
        """Whether its JSON is null."""
        if self.kind == "json":
            return self.format("(jsonb_typeof({v}) IS NULL OR jsonb_typeof({v}) = 'null')")
        return self.format("({v} IS NULL)")

    @property
    def text(self) -> sql.Composable | None:
        """The text that its JSON is, NULL where it is none; None where it never is one."""
        if "string" not in self.types:
            return None
        if self.kind == "json" and self.types != _STRING:
            return self.format("(CASE jsonb_typeof({v}) WHEN 'string' THEN {s} END)", s=self.string)
        return self.string

    @property
    def string(self) -> sql.Composable:
        """The text that its JSON is, where that is a string."""
        forms = {"text": '({v} COLLATE "C")', "uuid": "({v}::text)", "json": "(({v} #>> '{{}}') COLLATE \"C\")"}
        return self.format(forms.get(self.kind, "((to_jsonb({v}) #>> '{{}}') COLLATE \"C\")"))

    @property
    def number(self) -> sql.Composable:
        """The number that its JSON is, where that is a number."""
        forms = {"integer": "{v}", "numeric": "{v}", "json": "({v})::numeric"}
        return self.format(forms.get(self.kind, "(to_jsonb({v}))::numeric"))

    @property
    def json(self) -> "View":
        """The same as jsonb."""
        if self.kind == "json":
            return self
        return replace(self, kind="json", value=self.format("to_jsonb({v})"))

    def inner(self, text: str, **parts: sql.Composable) -> "View":
        """A jsonb within it, by an expression over `{v}`."""
        return View("json", self.format(text, **parts), "jsonb", depth=self.depth)


def view(typed: Typed) -> View:
    """The view of a column or an expression."""
    name, value = typed.type_name, typed.expression
    if name in _NATIVE:
        kind, types = _NATIVE[name]
        return View(kind, value, name, types)
    if name in {"json", "jsonb"}:
        return View("json", readable(typed), name)
    as_json = sql.SQL("to_jsonb({})").format(value)
    if name in _OTHER_STRINGS:
        return View("json", as_json, name, _STRING)
    return View("json", as_json, name, frozenset({"array"}) if name.startswith("_") else ANY)


def readable(typed: Typed) -> sql.Composable:
    """The expression; of a json, what jsonb can hold of it, or else its text as a JSON string: no value is an error."""
    if typed.type_name != "json":
        return typed.expression
    form = "(CASE WHEN " + _HOLDS + " THEN {v}::jsonb ELSE to_jsonb({v}::text) END)"
    return sql.SQL(form).format(v=typed.expression)  # texts of this module


def by_json_type(shown: View, of_type: Callable[[str], Answer]) -> Answer:
    """One answer from those for each JSON type that the value can have."""
    answers = {name: of_type(name) for name in sorted(shown.types)}
    if all(answer.test is None and answer.exact for answer in answers.values()):
        return ALWAYS
    exact = all(answer.exact for answer in answers.values())
    open_ones = {name: answer for name, answer in answers.items() if answer.test is not FALSE}
    why = "" if open_ones else next((answer.why for answer in answers.values() if answer.why), "")
    if not open_ones:
        return NEVER if exact else Answer(FALSE, exact=False, why=why)
    if len(answers) == 1:
        return next(iter(answers.values()))
    if len(open_ones) == 1:
        ((name, answer),) = open_ones.items()
        if answer.test is None:
            return Answer(shown.format("jsonb_typeof({v}) = {t}", t=sql.Literal(name)), exact)
    cases = sql.SQL(" ").join(
        sql.SQL("WHEN {} THEN {}").format(sql.Literal(name), answer.surely) for name, answer in open_ones.items()
    )
    return Answer(shown.format("(CASE jsonb_typeof({v}) {cases} ELSE false END)", cases=cases), exact)
