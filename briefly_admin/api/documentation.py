"""OpenAPI 3.1 at /api/openapi.json, and the same to read at /api/docs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, Response, current_app, jsonify, render_template

from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires

blueprint: Final = Blueprint("documentation", __name__, url_prefix="/api")
_METHODS: Final = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field of a request or an answer; `name` of a nested one is dotted."""

    name: str
    type: str
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Example:
    """A body as it could be; `text` is JSON, to be read."""

    summary: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer by its status."""

    status: str
    description: str
    fields: tuple[Parameter, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint."""

    anchor: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Parameter, ...]
    body: tuple[Parameter, ...]
    examples: tuple[Example, ...]
    answers: tuple[Answer, ...]


@blueprint.get("/openapi.json")
@requires(Permission.READ)
def openapi() -> Response:
    """For programs."""
    return jsonify(_spec())


@blueprint.get("/docs")
@requires(Permission.READ)
def docs() -> str:
    """For people."""
    return render_template("api/docs.html", operations=tuple(_operations(_spec())))


def _spec() -> dict[str, Any]:
    found: dict[str, Any] = current_app.extensions["briefly.openapi"].to_dict()
    return found


def _operations(spec: Mapping[str, Any]) -> Iterator[Operation]:
    schemas = spec["components"]["schemas"]
    for path, verbs in spec["paths"].items():
        for method in _METHODS:
            if method in verbs:
                yield _operation(path, method, verbs[method], schemas)


def _operation(path: str, method: str, found: Mapping[str, Any], schemas: Mapping[str, Any]) -> Operation:
    body = found.get("requestBody", {}).get("content", {}).get("application/json", {})
    return Operation(
        anchor=f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}",
        method=method.upper(),
        path=path,
        summary=found.get("summary", ""),
        description=found.get("description", ""),
        parameters=tuple(
            Parameter(p["name"], _type(p.get("schema", {})), p.get("required", False), p.get("description", ""))
            for p in found.get("parameters", ())
        ),
        body=tuple(_fields(body.get("schema", {}), schemas)),
        examples=tuple(_examples(body)),
        answers=tuple(
            answer
            for status, each in sorted(found.get("responses", {}).items())
            if status != "default"
            for answer in _answers(status, _named(each), schemas)
        ),
    )  # fmt: skip


def _named(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the answers that all endpoints share, only the name is shown: they are errors."""
    name = answer.get("$ref", "").rsplit("/", 1)[-1]
    return {"description": name.replace("_", " ").capitalize()} if name else answer


def _answers(status: str, found: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[Answer]:
    """A status may have several answers, told apart by what was asked."""
    content = found.get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    for each in schema.get("oneOf", [schema]):
        yield Answer(status, found.get("description", ""), tuple(_fields(each, schemas)), tuple(_examples(content)))


def _examples(content: Mapping[str, Any]) -> Iterator[Example]:
    if "example" in content:
        yield Example("", _pretty(content["example"]))
    for each in content.get("examples", {}).values():
        yield Example(each.get("summary", ""), _pretty(each["value"]))


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _fields(schema: Mapping[str, Any], schemas: Mapping[str, Any], prefix: str = "") -> Iterator[Parameter]:
    resolved = _resolved(schema, schemas)
    for name, each in resolved.get("properties", {}).items():
        required = name in resolved.get("required", ())
        yield Parameter(f"{prefix}{name}", _type(each), required, each.get("description", ""))
        yield from _within(each, schemas, f"{prefix}{name}")


def _within(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str) -> Iterator[Parameter]:
    """What a field holds, however deep: `tables.*.rows` for what stands under any name, `tables[].rows` in a list."""
    yield from _fields(schema, schemas, f"{name}.")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _within(schema["additionalProperties"], schemas, f"{name}.*")
    if "items" in schema:
        yield from _within(schema["items"], schemas, f"{name}[]")


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    for each in (schema, *schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        if "$ref" in each:
            found: Mapping[str, Any] = schemas[each["$ref"].rsplit("/", 1)[-1]]
            return found
    return schema


def _type(schema: Mapping[str, Any]) -> str:
    """In words: 'integer from 1 to 10,000', 'one of stop, skip', 'integer from 1 to 10,000 or "auto"'."""
    if "type" not in schema and schema.get("oneOf") and not any("$ref" in each for each in schema["oneOf"]):
        return " or ".join(_type(each) for each in schema["oneOf"])
    if schema.get("type") == "string" and len(schema.get("enum", ())) == 1:
        return f'"{schema["enum"][0]}"'
    if "enum" in schema:
        return "one of " + ", ".join(str(value).lower() for value in schema["enum"] if value is not None)
    kind = schema.get("type", "object")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']:,} to {schema['maximum']:,}"
    return words
