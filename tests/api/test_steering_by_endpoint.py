"""Pause, resume, cancel and change by endpoint: by whom, in which state, and what a live run tells."""

from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.settings import Settings
from tests.serving import NOBODY, SETUP, TokenAs, as_role, services_of
from tests.steered import RESULTS, cases, put

RUN = "/api/v1/runs/1"
BODIES: dict[str, Any] = {"change": {"batchSize": "auto", "workers": 4, "pause": 20}}


@pytest.fixture
def script(app: Flask, token_as: TokenAs) -> FlaskClient:
    services_of(app).runs.start(SETUP, RunKind.MIGRATION)
    return as_role(app, token_as, "operator")


def ask(client: FlaskClient, action: str) -> Any:
    return client.post(f"{RUN}/{action}", json=BODIES.get(action))


def test_each_action_in_each_state(script: FlaskClient, settings: Settings) -> None:
    for action, state, result in cases():
        put(settings.database_url, state)
        answer = ask(script, action)
        body = answer.get_json()
        if result:
            assert (answer.status_code, body["data"]["status"]) == (200, result.value), (action, state, body)
            wanted = "auto" if action == "change" else 100
            assert body["data"]["config"]["batchSize"] == wanted
        else:
            assert (answer.status_code, body["error"]) == (409, "refused"), (action, state, body)
            assert f"Run 1 is {state.value}: {action} is not possible" in body["message"]
            assert script.get(RUN).get_json()["data"]["status"] == state.value


def test_only_who_may_steer_does(app: Flask, script: FlaskClient, token_as: TokenAs, settings: Settings) -> None:
    put(settings.database_url, RunState.RUNNING)
    for role, status in (("viewer", 403), (NOBODY, 401)):
        client = as_role(app, token_as, role)
        for action in RESULTS:
            assert ask(client, action).status_code == status, (role, action)
    assert script.get(RUN).get_json()["data"]["status"] == "running"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"batchSize": "Auto"}, ["batchSize"]), ({"batchSize": 0}, ["batchSize"]), ({"workers": 65}, ["workers"]),
        ({"pause": -1, "workers": "2"}, ["pause", "workers"]), ({"maxRetries": 1}, ["maxRetries"]),
        ({"nonsense": 1}, ["nonsense"]), ({}, []),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_changes_nothing(
    script: FlaskClient, settings: Settings, body: dict[str, Any], fields: list[str]
) -> None:
    put(settings.database_url, RunState.RUNNING)
    answer = script.post(f"{RUN}/change", json=body)
    assert answer.status_code == 400
    assert sorted(answer.get_json()["details"]) == fields
    config = script.get(RUN).get_json()["data"]["config"]
    assert (config["batchSize"], config["workers"], config["pause"], config["maxRetries"]) == (100, 1, 0, 3)


def test_a_run_that_is_not_there(script: FlaskClient) -> None:
    for action in RESULTS:
        assert script.post(f"/api/v1/runs/7/{action}", json=BODIES.get(action)).status_code == 404
        assert script.get(f"{RUN}/{action}").status_code == 405


def test_a_run_whose_plan_has_changed_does_not_go_on(script: FlaskClient, settings: Settings) -> None:
    for state in RESULTS["resume"]:
        put(settings.database_url, state, plan_fingerprint="0123456789ab" + "c" * 52)
        answer = ask(script, "resume")
        message = answer.get_json()["message"]
        assert answer.status_code == 409
        assert "0123456789ab…" in message
        assert current_fingerprint()[:12] in message
        assert "start a new one" in message
        data = script.get(RUN).get_json()["data"]
        assert (data["status"], "resume" in data["actions"]) == (state.value, False)
    assert ask(script, "resume").status_code == 409
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("UPDATE briefly_admin.run SET plan_fingerprint = %s", (current_fingerprint(),))
    assert ask(script, "resume").status_code == 200


def current_fingerprint() -> str:
    from briefly_admin.plans import plan

    return plan("unified").fingerprint


def test_a_live_run_tells_how_it_goes(script: FlaskClient, settings: Settings) -> None:
    quiet = {"batch_size": None, "workers": None, "waiting": "", "waiting_until": None, "breaker": None}
    assert script.get(RUN).get_json()["data"].items() >= quiet.items()
    progress = {
        "phase": "migrate", "waiting": "Waiting for a lock.", "waiting_until": "2026-03-01T12:00:12Z",
        "batch_size": 640, "workers": 2,
    }  # fmt: skip
    held = {"breaker_state": "open", "breaker_failures": 3, "breaker_why": "connection refused",
            "breaker_until": "2026-03-01T12:03:20Z"}  # fmt: skip
    put(settings.database_url, RunState.RUNNING, progress=progress, **held)
    data = script.get(RUN).get_json()["data"]
    assert {name: data[name] for name in quiet} == {
        "batch_size": 640, "workers": 2, "waiting": "Waiting for a lock.", "waiting_until": "2026-03-01T12:00:12Z",
        "breaker": {"state": "open", "failures": 3, "why": "connection refused", "until": "2026-03-01T12:03:20Z"},
    }  # fmt: skip
    put(settings.database_url, RunState.PAUSED)
    assert script.get(RUN).get_json()["data"].items() >= quiet.items()


def test_the_batch_size_is_documented_as_number_or_word(app: Flask, script: FlaskClient) -> None:
    schemas = app.extensions["briefly.openapi"].to_dict()["components"]["schemas"]
    either = [{"type": "integer", "minimum": 1, "maximum": 10_000}, {"type": "string", "enum": ["auto"]}]
    for name in ("RunConfig", "LiveConfig"):
        assert schemas[name]["properties"]["batchSize"]["oneOf"] == either
    assert set(schemas["LiveConfig"]["properties"]) == {"batchSize", "workers", "pause"}
    assert 'integer from 1 to 10,000 or "auto"' in script.get("/api/docs").get_data(as_text=True).replace("&#34;", '"')
