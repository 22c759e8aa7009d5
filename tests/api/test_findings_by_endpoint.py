"""Findings with their trend, causes and pages of the quarantine by endpoint; the seed's errors, capped."""

import csv
import json
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin import create_app
from briefly_admin.domain.runs import RunKind
from briefly_admin.services.views import RunView
from briefly_admin.settings import Settings
from tests.quarantined import FAULT, break_emails, quarantine
from tests.serving import NOBODY, SETUP, TokenAs, as_role, lead, services_of

QUARANTINE = "/api/v1/quarantine"
OF: dict[str, Any] = {"table": "users", "field": "email", "cause": "email"}


@pytest.fixture
def viewer(app: Flask, token_as: TokenAs) -> FlaskClient:
    return as_role(app, token_as, "viewer")


def validated(app: Flask) -> RunView:
    return lead(app, services_of(app).runs.start(SETUP, RunKind.VALIDATION).id)


def asked(client: FlaskClient, path: str, **query: Any) -> dict[str, Any]:
    answer = client.get(path, query_string=query)
    assert answer.status_code == 200, answer.get_json()
    data: dict[str, Any] = answer.get_json()["data"]
    return data


def test_findings_stand_beside_those_of_the_validation_before(
    app: Flask, viewer: FlaskClient, settings: Settings, sample_data: dict[str, int]
) -> None:
    assert sample_data
    keys = break_emails(settings.target_database_url, 3)
    first = validated(app)
    found = asked(viewer, f"/api/v1/runs/{first.number}/findings")
    assert (found["run"], found["number"], found["phase"], found["count"]) == (first.id, first.number, "validate", 1)
    assert found["trend"] == {"run": None, "gone": []}
    (finding,) = found["findings"]
    assert (finding["class"], finding["count"], finding["before"]) == ("blocking", 3, None)
    assert {sample["key"] for sample in finding["samples"]} == set(keys)

    with psycopg.connect(settings.target_database_url) as target:
        target.execute("UPDATE users SET email = id || '@example.com' WHERE id = %s::uuid", [keys[0]])
    second = validated(app)
    found = asked(viewer, f"/api/v1/runs/{second.id}/findings")
    assert (found["findings"][0]["count"], found["findings"][0]["before"]) == (2, 3)
    assert found["trend"] == {"run": first.number, "gone": []}

    with psycopg.connect(settings.target_database_url) as target:
        target.execute("UPDATE users SET email = id || '@example.com', usage_documents = -1")
    found = asked(viewer, f"/api/v1/runs/{validated(app).id}/findings")
    (finding,) = found["findings"]
    assert (finding["field"], finding["count"], finding["before"]) == ("usage_documents", sample_data["users"], 0)
    (gone,) = found["trend"]["gone"]
    assert (found["trend"]["run"], gone["field"], gone["rule"], gone["count"]) == (second.number, "email", "email", 2)
    assert asked(viewer, f"/api/v1/runs/{first.id}/findings", phase="verify")["findings"] == []


def test_causes_and_their_rows_are_told_page_by_page(
    app: Flask, viewer: FlaskClient, settings: Settings, sample_data: dict[str, int]
) -> None:
    assert sample_data
    keys = break_emails(settings.target_database_url, 3)
    run = quarantine(services_of(app), settings.database_url, SETUP, keys)
    cause = {
        "run": run.id, "number": run.number, "table": "users", "field": "email", "cause": "email", "message": FAULT,
        "rows": 3, "corrected": 0, "skipped": 0, "replayable": True,
    }  # fmt: skip
    for query in ({}, {"run": run.id}, {"run": str(run.number)}):
        assert asked(viewer, f"{QUARANTINE}/causes", **query) == {"causes": [cause], "count": 1}
    page = asked(viewer, QUARANTINE, run=run.number, **OF, limit=2)
    assert ([row["key"] for row in page["rows"]], page["next"]) == ([[keys[0]], [keys[1]]], [keys[1]])
    assert page["rows"][0]["message"] == FAULT
    assert page["rows"][0]["corrected_at"] is page["rows"][0]["skipped"] is None
    page = asked(viewer, QUARANTINE, run=run.id, **OF, limit=2, after=page["next"])
    assert ([row["key"] for row in page["rows"]], page["count"], page["next"]) == ([[keys[2]]], 1, None)
    assert asked(viewer, QUARANTINE, run=run.id, table="nowhere", cause="email")["rows"] == []


def test_every_row_of_a_finding_is_streamed(
    app: Flask, viewer: FlaskClient, settings: Settings, sample_data: dict[str, int]
) -> None:
    assert sample_data
    keys = break_emails(settings.target_database_url, 3)
    with psycopg.connect(settings.target_database_url) as target:
        target.execute("UPDATE users SET email = '=1+1' WHERE id = %s::uuid", [keys[0]])
    run = services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    path = f"/api/v1/runs/{run.number}/findings/rows"
    query = {"table": "users", "field": "email", "rule": "email"}
    answer = viewer.get(path, query_string=query)
    assert (answer.status_code, answer.mimetype) == (200, "application/x-ndjson")
    rows = [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]
    assert sorted(row["key"][0] for row in rows) == keys
    assert {row["value"] for row in rows if row["key"] == [keys[0]]} == {"=1+1"}
    answer = viewer.get(path, query_string=query | {"format": "csv"})
    assert answer.mimetype == "text/csv"
    lines = list(csv.reader(answer.get_data(as_text=True).splitlines()))
    assert lines[0] == ["key", "value"]
    assert [keys[0], "'=1+1"] in lines[1:]
    assert len(viewer.get(path, query_string=query | {"limit": "2"}).get_data().splitlines()) == 2
    assert viewer.get(path, query_string=query | {"class": "notice"}).get_data() == b""
    for wrong in ({"table": "nowhere"}, {"table": "pg_authid"}):
        answer = viewer.get(path, query_string=query | wrong)
        assert (answer.status_code, answer.get_json()["error"]) == (404, "not_found")


ROWS_OF = "/api/v1/runs/1/findings/rows"
RULE = {"table": "users", "field": "email", "rule": "email"}
PATHS = ["/api/v1/runs/1/findings", f"{QUARANTINE}/causes", QUARANTINE]
BAD: list[tuple[str, dict[str, Any], str]] = [
    (PATHS[0], {"phase": "migrate"}, "phase"), (PATHS[0], {"phase": ""}, "phase"), (PATHS[0], {"x": "1"}, "x"),
    (PATHS[1], {"run": ""}, "run"), (PATHS[1], {"run": "x" * 201}, "run"), (PATHS[1], {"table": "users"}, "table"),
    (PATHS[2], {"run": "1", "table": "users"}, "cause"), (PATHS[2], OF, "run"),
    (PATHS[2], OF | {"run": "1", "table": ""}, "table"), (PATHS[2], OF | {"run": "1", "table": "\0"}, "table"),
    (PATHS[2], OF | {"run": "1", "limit": "0"}, "limit"), (PATHS[2], OF | {"run": "1", "limit": "1001"}, "limit"),
    (PATHS[2], OF | {"run": "1", "limit": "many"}, "limit"), (PATHS[2], OF | {"run": "1", "after": "\0"}, "after.0"),
    (PATHS[2], OF | {"run": "1", "order": "key"}, "order"), (ROWS_OF, {"table": "users"}, "rule"),
    (ROWS_OF, {"rule": "email"}, "table"), (ROWS_OF, RULE | {"format": "xml"}, "format"),
    (ROWS_OF, RULE | {"limit": "0"}, "limit"), (ROWS_OF, RULE | {"class": "x"}, "class"),
    (ROWS_OF, RULE | {"run": "1"}, "run"), (ROWS_OF, RULE | {"rule": "x" * 65}, "rule"),
]  # fmt: skip


def test_each_fault_is_named_by_its_field(viewer: FlaskClient) -> None:
    for path, query, field in BAD:
        answer = viewer.get(path, query_string=query)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, [field]), (path, query)


def test_what_is_not_there_is_not_found_and_nobody_is_not_answered(app: Flask, token_as: TokenAs) -> None:
    for role, status in (("viewer", 404), (NOBODY, 401)):
        client = as_role(app, token_as, role)
        for path, query in (
            (PATHS[0], {}),
            (PATHS[1], {"run": "1"}),
            (ROWS_OF, RULE),
            (PATHS[2], OF | {"run": "no-run"}),
        ):
            assert client.get(path, query_string=query).status_code == status, (role, path)


def test_what_needs_the_target_says_that_it_is_away(app: Flask, token_as: TokenAs, settings: Settings) -> None:
    run = quarantine(services_of(app), settings.database_url, SETUP, ["a"])
    headers = token_as("operator")
    away = create_app(replace(settings, target_database_url="postgresql://nobody@127.0.0.1:1/nowhere"))
    client = away.test_client()
    assert client.get(f"{QUARANTINE}/causes?run={run.id}", headers=headers).get_json()["data"]["count"] == 1
    body = {"key": ["a"], "changes": {"email": "a@b.example"}}
    answers = [
        client.get(f"{QUARANTINE}/causes", headers=headers),
        client.get("/api/v1/rows/users?key=a", headers=headers),
        client.post("/api/v1/rows/users/check", json=body, headers=headers),
        client.post("/api/v1/rows/users/correct", json=body | {"version": "1"}, headers=headers),
    ]
    assert [(answer.status_code, answer.get_json()["error"]) for answer in answers] == [(503, "unavailable")] * 4
    services_of(away).close()


def test_errors_of_the_seed_are_capped_and_say_the_total(app: Flask, token_as: TokenAs, settings: Settings) -> None:
    done = services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    with psycopg.connect(settings.database_url) as database:
        database.execute(
            'INSERT INTO briefly_admin.finding (run_id, phase, "table", field, rule, class, count, message)'
            " SELECT %s, 'validate', 'users', 'f' || n, 'null', 'blocking', n, 'users.f' || n || ' must not be missing.'"
            " FROM generate_series(1, 130) n", [done.id],
        )  # fmt: skip
        database.execute("UPDATE briefly_admin.run SET state = 'completed' WHERE id = %s", [done.id])
    answer = app.test_client().get(f"/api/v1/runs/{done.id}/validation", headers=token_as("viewer"))
    data = answer.get_json()["data"]
    assert set(data) == {"valid", "errors", "findings", "id"}
    assert (data["valid"], len(data["errors"]), len(data["findings"]) >= 130) == (False, 101, True)
    assert data["errors"][-1].startswith("… and ")
    assert data["errors"][-1].endswith(" in all.")
    assert "users.f1 must not be missing (1 row)" in data["errors"]
