"""Replays by endpoint: of which run, of which rows, by whom; and what becomes of the migration."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.settings import Settings
from tests.quarantined import break_emails, quarantine
from tests.serving import NOBODY, SETUP, TokenAs, as_role, lead, services_of


@pytest.fixture
def script(app: Flask, token_as: TokenAs) -> FlaskClient:
    return as_role(app, token_as, "operator")


def replay(client: FlaskClient, run: object, *, repeated: str = "", **body: Any) -> Any:
    headers = {"Idempotency-Key": repeated} if repeated else {}
    return client.post(f"/api/v1/runs/{run}/replay", json=body, headers=headers)


def correct(client: FlaskClient, key: str) -> None:
    version = client.get("/api/v1/rows/users", query_string={"key": key}).get_json()["data"]["version"]
    body = {"key": [key], "version": version, "changes": {"email": f"{key}@example.com"}}
    assert client.post("/api/v1/rows/users/correct", json=body).status_code == 200


def test_what_was_corrected_is_replayed_until_nothing_is_left(
    app: Flask, script: FlaskClient, settings: Settings, sample_data: dict[str, int]
) -> None:
    assert sample_data
    first, second = break_emails(settings.target_database_url, 2)
    run = quarantine(services_of(app), settings.database_url, SETUP, [first, second])
    correct(script, first)
    (cause,) = script.get(f"/api/v1/quarantine/causes?run={run.number}").get_json()["data"]["causes"]
    assert (cause["rows"], cause["corrected"]) == (2, 1)

    correct(script, second)
    answer = replay(script, run.number, table="users", cause="email", repeated="once")
    assert answer.status_code == 202, answer.get_json()
    begun = answer.get_json()["data"]
    assert (begun["kind"], begun["status"]) == ("replay", "pending")
    assert answer.headers["Location"] == f"/api/v1/runs/{begun['id']}"
    again = replay(script, run.number, table="users", cause="email", repeated="once")
    assert (again.status_code, again.get_json()["data"]["id"]) == (202, begun["id"])
    assert replay(script, run.number, table="users", repeated="once").status_code == 409
    assert replay(script, run.number).get_json()["error"] == "busy"
    assert lead(app, begun["id"]).state == "completed"
    assert services_of(app).runs.get(SETUP, run.id).state == "completed"
    assert script.get("/api/v1/quarantine/causes").get_json()["data"]["count"] == 0
    assert (replay(script, run.id).status_code, replay(script, begun["id"]).status_code) == (409, 409)


def test_what_cannot_be_replayed_begins_nothing(
    app: Flask, token_as: TokenAs, script: FlaskClient, settings: Settings
) -> None:  # fmt: skip
    run = quarantine(services_of(app), settings.database_url, SETUP, ["a"]).number
    bad: list[tuple[dict[str, Any], str]] = [
        ({"table": ""}, "table"), ({"table": 7}, "table"), ({"table": "nowhere"}, "table"),
        ({"field": ["x"]}, "field"), ({"field": "\0"}, "field"), ({"cause": ""}, "cause"), ({"cause": "x" * 65}, "cause"),
        ({"key": ["a"]}, "key"), ({"table": "users", "key": "a"}, "key"), ({"table": "users", "key": []}, "key"),
        ({"table": "users", "key": ["a", "b"]}, "key"), ({"table": "users", "key": [7]}, "key.0"),
        ({"table": "users", "key": ["\ud800"]}, "key.0"), ({"rule": "email"}, "rule"), ({"confirm": True}, "confirm"),
    ]  # fmt: skip
    for body, field in bad:
        answer = replay(script, run, **body)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, [field]), body
    for body in ({"table": "conversations"}, {"table": "users", "cause": "null"}, {"field": "tier"}):
        assert replay(script, run, **body).status_code == 409, body
    assert replay(script, run, table="users", key=["b"]).status_code == 404
    for other in ("99", "nonsense", "00000000-0000-4000-8000-000000000000"):
        assert replay(script, other).status_code == 404, other
    for role, status in (("viewer", 403), (NOBODY, 401)):
        assert replay(as_role(app, token_as, role), run).status_code == status
    assert len(services_of(app).runs.list(SETUP)) == 1
