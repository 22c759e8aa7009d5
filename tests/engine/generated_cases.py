"""Whole tables at random: a generated schema over columns of any type, rows near its borders, and repairs for some."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import psycopg
from marshmallow import fields

from briefly_admin.plans.base import Column, Repair, Table
from briefly_admin.plans.records import (
    PROCESSING_STATUSES,
    PROVIDERS,
    ROLES,
    SUBSCRIPTION_STATUSES,
    TIERS,
    Embedding,
    Identifier,
)
from tests.engine import generated_borders as borders
from tests.engine.generated_schemas import Part, mixed, record
from tests.engine.generated_values import COLUMN_TYPES, TYPES, ColumnType, Literal, anything
from tests.engine.verdicts import Case, Difference, differences, load

_TEXTS = ("text", "text", "varchar", 'text COLLATE "C"')
_REPAIRS = {
    "text": ("coalesce({%s}, '')", "nullif(btrim({%s}), '')", "lower({%s})", "coalesce({%s}, '1')", "replace({%s}, 'a', 'é')"),
    "jsonb": ("coalesce(nullif({%s}, 'null'), '{{}}')", "coalesce({%s}, '[]')", "coalesce(nullif({%s}, 'null'), '1')"),
    "integer": ("coalesce({%s}, 0)", "abs({%s}::bigint)", "greatest({%s}, 0)", "({%s}::bigint + 1)"),
    "bigint": ("coalesce({%s}, 1)", "nullif({%s}, 0)"), "numeric": ("coalesce({%s}, 1.50)", "round({%s}, 2)"), "boolean": ("coalesce({%s}, false)", "NOT {%s}"),
    "timestamptz": ("coalesce({%s}, '2000-01-01')", "date_trunc('day', {%s})"), "text[]": ("coalesce({%s}, '{{}}')", "nullif({%s}, '{{}}')"), "double precision": ("coalesce({%s}, 0.5)", "nullif({%s}, 'NaN')"),
}  # fmt: skip


def column_type(dice: Random, part: Part) -> ColumnType:
    """One that suits the field, a text or JSON that should hold it, or any."""
    chance = dice.random()
    if chance < 0.42 and part.homes:
        return COLUMN_TYPES[dice.choice(part.homes)]
    if chance < 0.66:
        return COLUMN_TYPES[dice.choice(_TEXTS)]
    if chance < 0.9:
        return COLUMN_TYPES["jsonb"]
    return COLUMN_TYPES[dice.choice(list(COLUMN_TYPES))]


def _repair(dice: Random, column: str, type_: str, part: Part) -> Repair:
    """One that changes NULL alone changes what is wrong alone, where the field does not take NULL."""
    expression = dice.choice(_REPAIRS[type_])
    only_wrong = expression.startswith("coalesce({%s}, ") and not part.field.allow_none and dice.random() < 0.7
    return Repair(column, expression.replace("%s", column), "repaired", only_wrong=only_wrong)


def _values(dice: Random, kind: ColumnType, part: Part, rows: int) -> list[str | None]:
    """A column: borders, each once, for two thirds of it at most; the others at random."""
    some = dice.sample(part.borders, min(len(part.borders), rows * 2 // 3))
    found: list[str | None] = [text for each in some if (text := kind.fit(each)) is not None]
    found += [kind.value(dice, part.near) for _ in range(rows - len(found))]
    dice.shuffle(found)
    return found


def case(dice: Random, name: str, rows: int, *, width: int = 8) -> Case:
    """A table of so many rows; one in four has repairs, one in eight lacks a column."""
    made, repaired = record(dice, width), dice.random() < 1 / 4
    kinds = {column: column_type(dice, part) for column, part in made.parts.items()}
    if dice.random() < 1 / 8 and len(kinds) > 1:
        del kinds[dice.choice(list(kinds))]
    repairs = [
        _repair(dice, column, kind.sql, made.parts[column])
        for column, kind in kinds.items() if repaired and not set("{.") & set(column) and kind.sql in _REPAIRS and dice.random() < 0.5
    ]  # fmt: skip
    columns = tuple(Column(column, "text", secret=dice.random() < 0.1) for column in made.parts)
    table = Table(name, made.record, columns, repairs=tuple(repairs))
    values = {column: _values(dice, kind, made.parts[column], rows) for column, kind in kinds.items()}
    filled = [{column: listed[row] for column, listed in values.items()} for row in range(rows)]
    sources = {column: part.source for column, part in made.parts.items()} | {"row": made.options}
    return Case(table, {column: kind.sql for column, kind in kinds.items()}, filled, sources)


_LIKE = {
    fields.Email: (borders.EMAILS, ("text", "varchar")), fields.String: ((*TIERS, *PROVIDERS, *PROCESSING_STATUSES, *ROLES, *SUBSCRIPTION_STATUSES, "FREE", "a/../b", "uploads/a", "/a"), ("text", "varchar", "public.verdict_mood")),
    fields.Integer: ((0, 1, -1, 2**31, -(2**31), Literal("1.0"), "1"), ("integer", "bigint", "smallint", "numeric")), Identifier: (("", "a", 0, True, 1.5), ("uuid", "text", "bigint")),
    fields.DateTime: (("2024-02-29T12:30:00Z", "2023-02-29", "infinity", ""), ("timestamptz", "timestamp", "date", "public.verdict_when")), fields.Dict: (({}, {"a": 1}, [], None), ("jsonb", "json", "public.verdict_object")),
    fields.List: ((["a"], [], ["a", 1], [None], {}), ("jsonb", "text[]", "public.verdict_words")), Embedding: (("[1,2]", [1, 2.5], [True], "]"), ("public.vector", "real[]", "jsonb")),
}  # fmt: skip
"""Of the shipped schemas' fields: values near their borders, and columns that suit them."""


def shipped(dice: Random, name: str, table: Table, rows: int) -> Case:
    """A table with a record schema that we ship, over columns of any type."""
    parts = {}
    for column, each in table.record().load_fields.items():
        near, homes = next(
            (like for kind, like in _LIKE.items() if isinstance(each, kind)), (("a", {}, 1), ("jsonb", "text"))
        )
        parts[column] = Part(
            each, f"{type(each).__name__} of {table.name}", mixed(lambda dice: anything(dice, 2), near), homes
        )
    kinds = {column: column_type(dice, part) for column, part in parts.items() if column != "id"}
    filled = [{column: kind.value(dice, parts[column].near) for column, kind in kinds.items()} for _ in range(rows)]
    bare = replace(table, name=name, repairs=(), foreign_keys=(), uniques=(), relations=())
    return Case(
        bare,
        {column: kind.sql for column, kind in kinds.items()},
        filled,
        {column: part.source for column, part in parts.items()},
    )


def try_cases(connection: psycopg.Connection[Any], cases: Sequence[Case]) -> list[Difference]:
    """What validation says of the tables otherwise than marshmallow; nothing of them is left behind."""
    with connection.transaction(force_rollback=True):
        connection.execute(TYPES.encode())
        for each in cases:
            load(connection, each)
        return differences(connection, cases)
