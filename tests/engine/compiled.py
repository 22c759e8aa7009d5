"""What the compiler's conditions say of values in PostgreSQL, beside what marshmallow says of their JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from marshmallow import Schema, fields
from psycopg import sql

from briefly_admin.engine.compiler import Condition, Typed, conditions
from briefly_admin.plans.judging import FieldSpec, describe

Session = psycopg.Connection[Any]


@dataclass(frozen=True)
class Seen:
    """One value."""

    json: Any
    failing: tuple[str, ...]
    """Conditions whose SQL is FALSE."""
    passes: bool
    """The verdict: SQL's, and marshmallow's where SQL asks."""
    asked: bool
    """SQL did not know."""


def spec_of(field: fields.Field[Any], **meta: Any) -> FieldSpec:
    """The field as data, bound to a schema."""
    attributes = {"f": field} | ({"Meta": type("Meta", (), meta)} if meta else {})
    (spec,) = describe(type("One", (Schema,), attributes)).fields
    return spec


def type_name(connection: Session, type_: str) -> str:
    """pg_type.typname, of a domain's base type."""
    query = (
        "WITH RECURSIVE t AS (SELECT oid, typname, typbasetype FROM pg_type WHERE oid = to_regtype(%s) "
        "UNION ALL SELECT b.oid, b.typname, b.typbasetype FROM t JOIN pg_type b ON b.oid = t.typbasetype) "
        "SELECT typname::text FROM t WHERE typbasetype = 0"
    )
    found = connection.execute(query, (type_,)).fetchone()
    assert found is not None, type_
    return str(found[0])


def compiled(connection: Session, field: fields.Field[Any], type_: str) -> tuple[Condition, ...]:
    """The field's conditions over the column `v` of such a type."""
    return conditions(spec_of(field), Typed(sql.Identifier("v"), type_name(connection, type_)))


def looks(
    connection: Session, made: Mapping[str, fields.Field[Any]], type_: str, values: Sequence[str | None]
) -> dict[str, list[Seen]]:
    """Name of a field → the verdict of each value (a text that the type reads), in one query."""
    found = {name: compiled(connection, field, type_) for name, field in made.items()}
    flags = (
        sql.SQL("ARRAY[{}]::bool[]").format(sql.SQL(", ").join(condition.fails for condition in conditions))
        for conditions in found.values()
    )
    query = sql.SQL(
        "SELECT to_jsonb(v)::text, {} FROM (SELECT t::{} AS v FROM unnest({}::text[]) AS t OFFSET 0) AS x"
    ).format(sql.SQL(", ").join(flags), sql.SQL(type_), sql.Literal(list(values)))
    seen: dict[str, list[Seen]] = {name: [] for name in made}
    for text, *hits in connection.execute(query).fetchall():
        value = None if text is None else json.loads(text)
        for (name, asked), flagged in zip(found.items(), hits, strict=True):
            seen[name].append(_seen(value, asked, flagged))
    return seen


def _seen(value: Any, found: Sequence[Condition], flags: Sequence[bool]) -> Seen:
    failing = [condition for condition, flag in zip(found, flags, strict=True) if flag]
    passes = all(condition.judge and condition.judge(value) for condition in failing)
    return Seen(value, tuple(c.name for c in failing), passes, any(condition.judge for condition in failing))


def look(connection: Session, field: fields.Field[Any], type_: str, values: Sequence[str | None]) -> list[Seen]:
    """The verdict of each value of one field."""
    return looks(connection, {"f": field}, type_, values)["f"]


def taker(field: fields.Field[Any]) -> Callable[[Any], bool]:
    """marshmallow's own verdict; breaking is no taking."""
    schema = type("One", (Schema,), {"f": field})()

    def takes(value: Any) -> bool:
        try:
            return not schema.validate({"f": value})
        except Exception:  # noqa: BLE001 - breaking is no taking
            return False

    return takes


def disputes(
    connection: Session, made: Mapping[str, fields.Field[Any]], type_: str, values: Sequence[str | None]
) -> list[str]:
    """Values of which the verdicts differ."""
    found = []
    for name, every in looks(connection, made, type_, values).items():
        takes = taker(made[name])
        found += [
            f"{name} over {type_} {seen.json!r}: SQL {seen.passes} {seen.failing}"
            for seen in every
            if seen.passes != takes(seen.json)
        ]
    return found
