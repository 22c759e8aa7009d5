"""What the documentation says is what is there, and the reverse."""

from typing import Any

from flask import Flask

from briefly_admin.domain.config import FIELDS
from tests.serving import ClientAs, TokenAs


def spec_of(app: Flask, token_as: TokenAs) -> dict[str, Any]:
    answer = app.test_client().get("/api/openapi.json", headers=token_as("viewer"))
    assert answer.status_code == 200
    spec: dict[str, Any] = answer.get_json()
    return spec


def test_every_endpoint_is_documented_and_every_documented_one_is_there(app: Flask, token_as: TokenAs) -> None:
    spec = spec_of(app, token_as)
    assert spec["openapi"] == "3.1.0"
    documented = {
        (path, verb.upper()) for path, verbs in spec["paths"].items() for verb in verbs if verb != "parameters"
    }
    own = {"/api/openapi.json", "/api/docs"}
    there = {
        (rule.rule.replace("<", "{").replace(">", "}"), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if rule.rule.startswith("/api/") and rule.rule not in own
    }
    assert documented == there


def test_the_config_is_documented_with_its_bounds(app: Flask, token_as: TokenAs) -> None:
    documented = spec_of(app, token_as)["components"]["schemas"]["RunConfig"]["properties"]
    assert list(documented) == [field.name for field in FIELDS]
    for field in FIELDS:
        if field.kind == "integer":
            found = documented[field.name]
            assert (found["type"], found["minimum"], found["maximum"]) == ("integer", field.minimum, field.maximum)
        assert field.help in documented[field.name]["description"]


def test_every_reference_leads_somewhere(app: Flask, token_as: TokenAs) -> None:
    spec = spec_of(app, token_as)
    found = list(references(spec))
    assert found
    for reference in found:
        place: Any = spec
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def references(node: Any) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from references(each)


def test_the_page_lists_all_of_it(app: Flask, client_as: ClientAs, token_as: TokenAs) -> None:
    page = client_as("viewer").get("/api/docs").get_data(as_text=True)
    for path in spec_of(app, token_as)["paths"]:
        assert path in page
    for field in FIELDS:
        assert f"config.{field.name}" in page
    assert "integer from 1 to 10,000" in page
