"""Single rows by endpoint: shown, tried and corrected; by whom, with which bodies, and beside somebody else's change."""

from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.settings import Settings
from tests.quarantined import break_emails, email_of
from tests.serving import NOBODY, TokenAs

ROWS = "/api/v1/rows"
GOOD = "cured@example.com"


def as_role(app: Flask, token_as: TokenAs, role: str) -> FlaskClient:
    client = app.test_client()
    headers = token_as(role)
    if headers:
        client.environ_base |= {"HTTP_AUTHORIZATION": headers["Authorization"]}
    return client


@pytest.fixture
def script(app: Flask, token_as: TokenAs) -> FlaskClient:
    return as_role(app, token_as, "operator")


@pytest.fixture
def broken(settings: Settings, sample_data: dict[str, int]) -> str:
    """The key of a user whose e-mail is none."""
    assert sample_data
    return break_emails(settings.target_database_url, 1)[0]


def shown(client: FlaskClient, key: str) -> dict[str, Any]:
    answer = client.get(f"{ROWS}/users", query_string={"key": key})
    assert answer.status_code == 200, answer.get_json()
    data: dict[str, Any] = answer.get_json()["data"]
    return data


def email(row: dict[str, Any]) -> dict[str, Any]:
    return next(field for field in row["fields"] if field["name"] == "email")


def test_a_row_is_shown_tried_and_corrected(script: FlaskClient, settings: Settings, broken: str) -> None:
    row = shown(script, broken)
    assert (row["table"], row["key"], row["blocks"]) == ("users", [broken], True)
    assert email(row)["value"].startswith("nonsense")
    assert email(row)["faults"]
    assert [f["name"] for f in row["fields"] if f["key"]] == ["id"]

    body: dict[str, Any] = {"key": [broken], "changes": {"email": "still nonsense"}}
    tried = script.post(f"{ROWS}/users/check", json=body).get_json()["data"]
    assert (email(tried)["value"], bool(email(tried)["faults"]), tried["version"]) == ("still nonsense", True, "")
    refused = script.post(f"{ROWS}/users/correct", json=body | {"version": row["version"]})
    assert refused.status_code == 400
    assert list(refused.get_json()["details"]) == ["email"]

    body["changes"]["email"] = GOOD
    assert not email(script.post(f"{ROWS}/users/check", json=body).get_json()["data"])["faults"]
    assert email_of(settings.target_database_url, broken).startswith("nonsense"), "checks write nothing"
    answer = script.post(f"{ROWS}/users/correct", json=body | {"version": row["version"]})
    assert answer.status_code == 200, answer.get_json()
    corrected = answer.get_json()["data"]
    assert (email(corrected)["value"], corrected["blocks"]) == (GOOD, False)
    assert corrected["version"] not in {"", row["version"]}
    assert email_of(settings.target_database_url, broken) == GOOD


def test_a_row_that_somebody_else_changed_is_not_corrected(
    script: FlaskClient, settings: Settings, broken: str
) -> None:  # fmt: skip
    version = shown(script, broken)["version"]
    with psycopg.connect(settings.target_database_url) as somebody:
        somebody.execute("UPDATE users SET usage_documents = 7 WHERE id = %s::uuid", [broken])
    body = {"key": [broken], "version": version, "changes": {"email": GOOD}}
    answer = script.post(f"{ROWS}/users/correct", json=body)
    assert answer.status_code == 409
    assert "changed meanwhile by somebody else" in answer.get_json()["message"]
    assert email_of(settings.target_database_url, broken).startswith("nonsense")


def test_only_who_may_correct_does(
    app: Flask, token_as: TokenAs, script: FlaskClient, settings: Settings, broken: str
) -> None:  # fmt: skip
    body = {"key": [broken], "changes": {"email": GOOD}}
    change = body | {"version": shown(script, broken)["version"]}
    for role, read, write in (("viewer", 200, 403), (NOBODY, 401, 401)):
        client = as_role(app, token_as, role)
        assert client.get(f"{ROWS}/users", query_string={"key": broken}).status_code == read
        for deed, sent in (("check", body), ("correct", change)):
            assert client.post(f"{ROWS}/users/{deed}", json=sent).status_code == write, (role, deed)
    assert email_of(settings.target_database_url, broken).startswith("nonsense")


KEY: dict[str, Any] = {"key": ["1"]}
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("check", {"changes": {"a": "x"}}, "key"), ("check", KEY, "changes"), ("check", KEY | {"changes": {}}, "changes"),
    ("check", KEY | {"changes": []}, "changes"), ("check", KEY | {"changes": None}, "changes"),
    ("check", KEY | {"changes": {"email": 7}}, "changes.email"),
    ("check", KEY | {"changes": {"email": "\0"}}, "changes.email"),
    ("check", KEY | {"changes": {"": "x"}}, "changes."),
    ("check", {"key": "1", "changes": {"email": "x"}}, "key"), ("check", {"key": [], "changes": {"a": "x"}}, "key"),
    ("check", {"key": [1], "changes": {"a": "x"}}, "key.0"), ("check", {"key": [None], "changes": {"a": "x"}}, "key.0"),
    ("check", {"key": ["\ud800"], "changes": {"a": "x"}}, "key.0"),
    ("check", KEY | {"changes": {"a": "x"}, "version": "1"}, "version"),
    ("correct", KEY | {"changes": {"a": "x"}}, "version"),
    ("correct", KEY | {"changes": {"a": "x"}, "version": 1}, "version"),
    ("correct", KEY | {"changes": {"a": "x"}, "version": ""}, "version"),
    ("correct", KEY | {"changes": {"a": "x"}, "version": "1", "force": True}, "force"),
]  # fmt: skip


def test_each_fault_is_named_by_its_field(script: FlaskClient) -> None:
    for deed, body, field in BAD:
        answer = script.post(f"{ROWS}/users/{deed}", json=body)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, [field]), (deed, body)
    for query in ({}, {"key": ""} | {"nonsense": "1"}):
        answer = script.get(f"{ROWS}/users", query_string=query)
        assert answer.status_code == 400, query
    assert "nonsense" in answer.get_json()["details"]


def test_what_is_not_there_is_not_found(script: FlaskClient, broken: str) -> None:
    asked = [
        ("no_such_table", broken), ("pg_authid", "1"), ("users; DROP TABLE users", "1"), ("Users", broken),
        ("users", "00000000-0000-4000-8000-000000000000"),
    ]  # fmt: skip
    for table, key in asked:
        answers = [
            script.get(f"{ROWS}/{table}", query_string={"key": key}),
            script.post(f"{ROWS}/{table}/check", json={"key": [key], "changes": {"email": GOOD}}),
            script.post(f"{ROWS}/{table}/correct", json={"key": [key], "version": "1:(0,1)", "changes": {"email": GOOD}}),
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [404] * 3, (table, key)
    for keys in (["x"], ["", ""], [broken, broken], ["' OR true --"]):
        answer = script.get(f"{ROWS}/users", query_string={"key": keys})
        assert answer.status_code in {400, 404}, keys
    for changes in ({"id": "x"}, {"nowhere": "x"}, {"usage_documents": "many"}, {"created_at": "tomorrow-ish"}):
        body = {"key": [broken], "version": shown(script, broken)["version"], "changes": changes}
        answer = script.post(f"{ROWS}/users/correct", json=body)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, list(changes))
