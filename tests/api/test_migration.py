"""The endpoints of the seed, from validation to rollback, as scripts call them."""

import json
import threading
import time
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.domain.config import FIELDS
from tests.serving import SETUP, ClientAs, TokenAs, csrf_of, lead, services_of

STATUS_FIELDS = {
    "id", "name", "status", "started_at", "completed_at", "error", "records_processed", "records_total",
    "backup_created", "rollback_available", "kind", "plan", "phase", "backup_id", "tables", "rate", "eta_seconds",
    "config",
}  # fmt: skip
PATH = "/api/migration"


@pytest.fixture
def script(app: Flask, token_as: TokenAs) -> FlaskClient:
    """A script with an admin's token."""
    return with_headers(app, token_as("admin"))


def with_headers(app: Flask, headers: dict[str, str]) -> FlaskClient:
    client = app.test_client()
    client.environ_base |= {"HTTP_AUTHORIZATION": headers["Authorization"]}
    return client


def data_of(answer: Any, status: int = 200) -> dict[str, Any]:
    body = answer.get_json()
    assert answer.status_code == status, body
    assert (answer.mimetype, body["success"], set(body)) == ("application/json", True, {"success", "data", "message"})
    data: dict[str, Any] = body["data"]
    return data


def error_of(answer: Any, status: int) -> dict[str, Any]:
    body: dict[str, Any] = answer.get_json()
    assert answer.status_code == status, body
    assert (body["success"], set(body)) == (False, {"success", "error", "message", "details"})
    assert all(isinstance(texts, list) for texts in body["details"].values())
    return body


def test_validate_run_watch_and_roll_back(app: Flask, script: FlaskClient, sample_data: dict[str, int]) -> None:
    rows = sum(sample_data.values())
    begun = script.post(PATH, json={"action": "run", "config": {"batchSize": 7, "onInvalid": "skip"}})
    run = data_of(begun, 202)
    assert set(run) == STATUS_FIELDS
    assert (run["status"], run["kind"], run["plan"]) == ("pending", "migration", "unified")
    assert (run["config"]["batchSize"], run["started_at"], run["completed_at"]) == (7, None, None)
    assert script.get(begun.headers["Location"]).get_json()["data"]["id"] == run["id"]

    lead(app, run["id"])
    (done,) = data_of(script.get(f"{PATH}?id={run['id']}"))["migrations"]
    assert set(done) == STATUS_FIELDS
    assert done["status"] == "completed", done["error"]
    assert (done["records_processed"], done["records_total"]) == (rows, rows)
    assert done["backup_created"]
    assert done["rollback_available"]
    assert done["backup_id"].startswith("backup_")
    assert done["completed_at"].endswith("Z")

    listed = data_of(script.get(f"{PATH}/rollback"))
    assert (listed["availableBackups"], listed["count"]) == ([done["backup_id"]], 1)
    assert (listed["backups"][0]["id"], listed["backups"][0]["rows"]) == (done["backup_id"], rows)

    preview = data_of(script.post(f"/api/v1/backups/{done['backup_id']}/preview"), 202)
    assert preview["kind"] == "preview"
    lead(app, preview["id"])
    details = data_of(script.get(f"/api/v1/runs/{preview['id']}"))
    assert details["status"] == "completed", details["error"]
    assert {"report", "phases", "sentence", "number"} <= set(details)

    wish = {"backupId": done["backup_id"], "confirm": True, "previewId": preview["id"], "reason": "a test"}
    rollback = data_of(script.post(f"{PATH}/rollback", json=wish), 202)
    assert set(rollback) == {"backupId", "id"}
    assert rollback["backupId"] == done["backup_id"]
    lead(app, rollback["id"])
    assert data_of(script.get(f"{PATH}?id={rollback['id']}"))["latest"]["status"] == "completed"
    (taken_back,) = data_of(script.get(f"{PATH}?id={run['id']}"))["migrations"]
    assert taken_back["status"] == "rolled_back"

    everything = data_of(script.post(PATH, json={"action": "status"}))
    assert [run["kind"] for run in everything["migrations"]] == ["rollback", "preview", "migration"]
    assert (everything["count"], everything["latest"]["id"]) == (3, rollback["id"])
    assert everything == data_of(script.get(PATH))


def test_nothing_yet(script: FlaskClient) -> None:
    assert data_of(script.get(PATH)) == {"migrations": [], "count": 0, "latest": None}
    assert data_of(script.post(PATH, json={"action": "status"})) == {"migrations": [], "count": 0, "latest": None}
    assert data_of(script.get(f"{PATH}/rollback")) == {"availableBackups": [], "backups": [], "count": 0}


def test_a_validation_in_time_answers_with_everything(
    app: Flask, script: FlaskClient, sample_data: dict[str, int]
) -> None:
    app.config["VALIDATION_WAIT_SECONDS"] = 30.0
    worker = threading.Thread(target=lead_the_next, args=(app,))
    worker.start()
    data = data_of(script.post(PATH, json={"action": "validate"}))
    worker.join()
    assert set(data) == {"valid", "errors", "findings", "id"}
    assert (data["valid"], data["errors"]) == (True, [])


def lead_the_next(app: Flask) -> None:
    for _ in range(200):
        waiting = services_of(app).runs.list(SETUP)
        if waiting:
            lead(app, waiting[0].id)
            return
        time.sleep(0.05)


def test_a_slow_validation_says_where_to_ask(app: Flask, script: FlaskClient, target_database: str) -> None:
    from briefly_admin.engine.sampledata import create
    from briefly_admin.engine.target import Target
    from briefly_admin.plans import plan

    create(Target(target_database), plan("unified"), dirty=5, embeddings=0)
    answer = script.post(PATH, json={"action": "validate"})
    data = data_of(answer, 202)
    assert (data["valid"], data["errors"]) == (None, [])
    place = answer.headers["Location"]
    assert data_of(script.get(place), 202)["valid"] is None
    lead(app, data["id"])
    whole = data_of(script.get(place))
    assert (whole["id"], whole["valid"]) == (data["id"], False)
    assert whole["errors"]
    assert {"blocking", "repairable"} <= {finding["class"] for finding in whole["findings"]}


def test_a_validation_that_could_not_be_done_is_neither_valid_nor_invalid(app: Flask, script: FlaskClient) -> None:
    """The target has none of the plan's tables."""
    answer = script.post(PATH, json={"action": "validate"})
    lead(app, answer.get_json()["data"]["id"])
    body = error_of(script.get(answer.headers["Location"]), 409)
    assert body["error"] == "preflight_failed"


BAD_BODIES: list[tuple[Any, str]] = [
    ({}, "action"),
    ({"action": "delete"}, "action"),
    ({"action": None}, "action"),
    ({"action": ["run"]}, "action"),
    ({"action": "run", "colour": "red"}, "colour"),
    ({"action": "run", "config": []}, "config"),
    ({"action": "run", "config": None}, "config"),
    ({"action": "run", "config": {"batchsize": 1}}, "batchsize"),
    ({"action": "run", "config": {"batchSize": 0}}, "batchSize"),
    ({"action": "run", "config": {"batchSize": 10_001}}, "batchSize"),
    ({"action": "run", "config": {"batchSize": "100"}}, "batchSize"),
    ({"action": "run", "config": {"batchSize": 1.5}}, "batchSize"),
    ({"action": "run", "config": {"batchSize": True}}, "batchSize"),
    ({"action": "run", "config": {"batchSize": None}}, "batchSize"),
    ({"action": "run", "config": {"batchSize": "Auto"}}, "batchSize"),
    ({"action": "run", "config": {"batchSize": ["auto"]}}, "batchSize"),
    ({"action": "run", "config": {"workers": "auto"}}, "workers"),
    ({"action": "run", "config": {"dryRun": "yes"}}, "dryRun"),
    ({"action": "run", "config": {"dryRun": 1}}, "dryRun"),
    ({"action": "run", "config": {"onInvalid": "ignore"}}, "onInvalid"),
    ({"action": "run", "config": {"workers": 65}}, "workers"),
    ({"action": "run", "config": {"\x00": 1}}, "\x00"),
    ({"action": "validate", "config": {"batchSize": 0}}, "batchSize"),
    ({"action": "status", "config": {"batchSize": 0}}, "batchSize"),
]


def test_bad_requests_name_the_field_and_start_nothing(script: FlaskClient) -> None:
    for body, field in BAD_BODIES:
        found = error_of(script.post(PATH, json=body), 400)
        assert (found["error"], list(found["details"])) == ("bad_request", [field]), body
        assert field in found["message"]
    assert data_of(script.get(PATH))["count"] == 0


def test_every_bound_is_named(script: FlaskClient) -> None:
    for field in FIELDS:
        if field.kind in {"integer", "automatic"}:
            config = {field.name: field.maximum + 1}
            (text,) = error_of(script.post(PATH, json={"action": "run", "config": config}), 400)["details"][field.name]
            assert f"{field.minimum:,} to {field.maximum:,}" in text
            for value in (None, 10**400):
                body = {"action": "run", "config": {field.name: value}}
                found = error_of(script.post(PATH, json=body), 400)["details"]
                assert f"{field.minimum:,} to {field.maximum:,}" in found[field.name][0]
                assert len(found[field.name][0]) < 100
    (text,) = error_of(script.post(PATH, json={"action": "run", "config": {"nope": 1}}), 400)["details"]["nope"]
    assert "batchSize" in text, "the known fields are listed"


def test_all_faults_are_named_at_once(script: FlaskClient) -> None:
    body = {"action": "run", "config": {"batchSize": 0, "workers": "many", "nope": 1}}
    assert set(error_of(script.post(PATH, json=body), 400)["details"]) == {"batchSize", "workers", "nope"}


def test_what_is_not_json(script: FlaskClient) -> None:
    json_type = {"Content-Type": "application/json"}
    for body in (b"{", b"[]", b"1", b"null", b'"run"', b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b"1" * 10_000, b""):
        error_of(script.post(PATH, data=body, headers=json_type), 400)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        found = error_of(script.post(PATH, data=b'{"action": "status"}', headers={"Content-Type": kind}), 415)
        assert "application/json" in found["message"]
    with_charset = {"Content-Type": "application/json; charset=utf-8"}
    assert script.post(PATH, data=b'{"action": "status"}', headers=with_charset).status_code == 200
    large = b'{"action": "status"}' + b" " * 1_100_000
    error_of(script.post(PATH, data=large, headers=json_type), 413)
    unmeasured = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    cut_off = script.post(PATH, input_stream=BytesIO(large), headers=json_type, environ_overrides=unmeasured)
    error_of(cut_off, 413)


def test_a_field_given_twice_is_refused(script: FlaskClient) -> None:
    twice = b'{"action": "run", "config": {"batchSize": 1, "batchSize": 9000}}'
    for body, field in ((b'{"action": "status", "action": "run"}', "action"), (twice, "batchSize")):
        found = error_of(script.post(PATH, data=body, content_type="application/json"), 400)
        assert found["details"] == {field: ["Given twice."]}
    assert data_of(script.get(PATH))["count"] == 0


def test_credentials_come_before_the_body(app: Flask, token_as: TokenAs) -> None:
    stranger = app.test_client()
    for method, path in (("GET", PATH), ("POST", PATH), ("GET", f"{PATH}/rollback"), ("POST", f"{PATH}/rollback")):
        found = error_of(stranger.open(path, method=method, data=b"{", content_type="application/json"), 401)
        assert found["error"] == "not_authenticated"
    viewer = with_headers(app, token_as("viewer"))
    error_of(viewer.post(f"{PATH}/rollback", data=b"{", content_type="application/json"), 403)


def test_the_wrong_verb_says_which_are_right(script: FlaskClient) -> None:
    for path, method in ((PATH, "PUT"), (f"{PATH}/rollback", "DELETE"), ("/api/v1/runs/1", "POST")):
        answer = script.open(path, method=method)
        assert error_of(answer, 405)["error"] == "method_not_allowed"
        assert "GET" in answer.headers["Allow"]
    assert error_of(script.get("/api/v2"), 404)["error"] == "not_found"


@pytest.mark.usefixtures("sample_data")
def test_roles(app: Flask, token_as: TokenAs) -> None:
    viewer, operator = (with_headers(app, token_as(role)) for role in ("viewer", "operator"))
    for action in ("validate", "run"):
        error_of(viewer.post(PATH, json={"action": action}), 403)
    assert viewer.post(PATH, json={"action": "status"}).status_code == 200
    assert viewer.get(f"{PATH}/rollback").status_code == 200
    assert operator.post(PATH, json={"action": "run"}).status_code == 202
    found = error_of(operator.post(f"{PATH}/rollback", json={"backupId": "backup_1", "confirm": True}), 403)
    assert found["error"] == "not_allowed"
    error_of(viewer.post("/api/v1/backups/backup_1/preview"), 403)


@pytest.mark.usefixtures("sample_data")
def test_a_signed_in_session_needs_the_secret(client_as: ClientAs) -> None:
    browser = client_as("operator")
    assert error_of(browser.post(PATH, json={"action": "run"}), 400)["error"] == "csrf_failed"
    assert browser.get(PATH).get_json()["data"]["count"] == 0
    headers = {"X-CSRFToken": csrf_of(browser)}
    assert browser.post(PATH, json={"action": "run"}, headers=headers).status_code == 202


@pytest.mark.usefixtures("sample_data")
def test_two_starts_at_once_begin_one_run(script: FlaskClient) -> None:
    first = data_of(script.post(PATH, json={"action": "run"}), 202)
    found = error_of(script.post(PATH, json={"action": "run"}), 409)
    assert (found["error"], found["details"]["id"]) == ("busy", [first["id"]])
    assert "Run 1" in found["message"]


@pytest.mark.usefixtures("sample_data")
def test_a_repeated_request_with_the_same_key_starts_one_run(script: FlaskClient) -> None:
    key = {"Idempotency-Key": "nightly-2025-11-22"}
    first = data_of(script.post(PATH, json={"action": "run"}, headers=key), 202)
    again = data_of(script.post(PATH, json={"action": "run"}, headers=key), 202)
    assert again["id"] == first["id"]
    error_of(script.post(PATH, json={"action": "validate"}, headers=key), 409)
    other = error_of(script.post(PATH, json={"action": "run", "config": {"batchSize": 7}}, headers=key), 409)
    assert "asked for something else" in other["message"]
    error_of(script.post(PATH, json={"action": "run"}, headers={"Idempotency-Key": "x" * 300}), 400)
    assert data_of(script.get(PATH))["count"] == 1


BAD_ROLLBACKS: list[tuple[dict[str, Any], str]] = [
    ({}, "backupId"),
    ({"confirm": True}, "backupId"),
    ({"backupId": "", "confirm": True}, "backupId"),
    ({"backupId": 5, "confirm": True}, "backupId"),
    ({"backupId": "backup_1"}, "confirm"),
    ({"backupId": "backup_1", "confirm": False}, "confirm"),
    ({"backupId": "backup_1", "confirm": "true"}, "confirm"),
    ({"backupId": "backup_1", "confirm": 1}, "confirm"),
    ({"backupId": "backup_1", "confirm": None}, "confirm"),
    ({"backupId": "backup_1", "confirm": [True]}, "confirm"),
    ({"backupId": "backup_1", "confirm": True, "mode": "both"}, "mode"),
    ({"backupId": "backup_1", "confirm": True, "tables": "users"}, "tables"),
    ({"backupId": "backup_1", "confirm": True, "tables": []}, "tables"),
    ({"backupId": "backup_1", "confirm": True, "reason": 1}, "reason"),
    ({"backupId": "backup_1", "confirm": True, "reason": "x" * 2000}, "reason"),
    ({"backupId": "backup_1", "confirm": True, "force": True}, "force"),
]


def test_a_rollback_not_confirmed_or_misspelt_does_nothing(script: FlaskClient) -> None:
    for body, field in BAD_ROLLBACKS:
        found = error_of(script.post(f"{PATH}/rollback", json=body), 400)
        assert field in found["details"], (body, found)
    assert data_of(script.get(PATH))["count"] == 0


def test_what_does_not_exist(script: FlaskClient) -> None:
    strange = ("backup_1", "../../etc/passwd", "\x00", "%2e%2e", "0b5c4b0c-9a9b-4a5e-8f5e-3f2a1b0c9d8e", "' OR 1=1 --")
    for name in strange:
        error_of(script.post(f"{PATH}/rollback", json={"backupId": name, "confirm": True}), 404)
        error_of(script.get(PATH, query_string={"id": name}), 404)
    for path in (
        "/api/v1/runs/7",
        "/api/v1/runs/%00",
        "/api/v1/runs/99999999999999999999",
        "/api/v1/runs/7/validation",
    ):
        error_of(script.get(path), 404)
    error_of(script.post("/api/v1/backups/backup_7/preview"), 404)
    error_of(script.get(PATH, query_string={"id": "x" * 100}), 400)


@pytest.mark.usefixtures("sample_data")
def test_only_a_validation_answers_as_one(script: FlaskClient) -> None:
    run = data_of(script.post(PATH, json={"action": "run"}), 202)
    error_of(script.get(f"/api/v1/runs/{run['id']}/validation"), 404)
    assert data_of(script.get("/api/v1/runs/1"))["id"] == run["id"], "a run's number will do"


def test_an_unreachable_target_is_told_without_its_password(app: Flask, script: FlaskClient, settings: Any) -> None:
    from dataclasses import replace

    from briefly_admin import create_app

    dead = create_app(replace(settings, target_database_url="postgresql://u:c4nary@127.0.0.1:1/target"))
    client = dead.test_client()
    client.environ_base |= {"HTTP_AUTHORIZATION": script.environ_base["HTTP_AUTHORIZATION"]}
    found = error_of(client.post(PATH, json={"action": "run"}), 503)
    assert "127.0.0.1" in found["message"]
    assert "c4nary" not in json.dumps(found)
    services_of(dead).close()
