"""Rollbacks, previews and approvals by endpoint: what is taken, what is refused, and by whom."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin import create_app
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView
from briefly_admin.settings import Settings
from tests.serving import NOBODY, PASSWORD, SETUP, TokenAs, as_role, lead, services_of
from tests.steered import put

PATH = "/api/migration/rollback"
KEEP: dict[str, Any] = {"backupId": "backup_1", "confirm": True, "mode": "keep"}


@pytest.fixture
def admin(app: Flask, token_as: TokenAs) -> FlaskClient:
    return as_role(app, token_as, "admin")


@pytest.fixture
def migrated(app: Flask, sample_data: dict[str, int]) -> RunView:
    """A finished migration and its backup."""
    assert sample_data
    done = lead(app, services_of(app).runs.start(SETUP, RunKind.MIGRATION).id)
    assert done.backup_name, done.error
    return done


def settled(**row: Any) -> dict[str, Any]:
    return {"settled": {"users": [{"key": ["1"], "how": "keep"}, row]}}


OTHER = "settled.users.1"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"mode": "both"}, "mode"), ({"mode": None}, "mode"),
    ({"allowance": -1}, "allowance"), ({"allowance": 1.5}, "allowance"), ({"allowance": "1"}, "allowance"),
    ({"allowance": True}, "allowance"), ({"allowance": 10**10}, "allowance"), ({"allowance": None}, "allowance"),
    ({"allow": "public.x"}, "allow"), ({"allow": [1]}, "allow.0"), ({"allow": [""]}, "allow.0"),
    ({"allow": ["public.x"] * 1001}, "allow"), ({"allow": None}, "allow"),
    ({"rules": []}, "rules"), ({"rules": None}, "rules"), ({"rules": {"edited": "delete"}}, "rules.edited"),
    ({"rules": {"created": "restore"}}, "rules.created"), ({"rules": {"deleted": "bring-back"}}, "rules.deleted"),
    ({"rules": {"migrated": "keep"}}, "rules.migrated"), ({"rules": {"edited": None}}, "rules.edited"),
    ({"settled": []}, "settled"), ({"settled": None}, "settled"), ({"settled": {"users": {}}}, "settled.users"),
    ({"settled": {"users": [7]}}, "settled.users.0"), ({"settled": {"": []}}, "settled."),
    (settled(key=[], how="keep"), f"{OTHER}.key"), (settled(key="1", how="keep"), f"{OTHER}.key"),
    (settled(key=[1], how="keep"), f"{OTHER}.key.0"), (settled(key=[None], how="keep"), f"{OTHER}.key.0"),
    (settled(key=["\0"], how="keep"), f"{OTHER}.key.0"), (settled(key=["\ud800"], how="keep"), f"{OTHER}.key.0"),
    (settled(how="keep"), f"{OTHER}.key"), (settled(key=["2"]), f"{OTHER}.how"),
    (settled(key=["2"], how="delete"), f"{OTHER}.how"), (settled(key=["2"], how="edit"), f"{OTHER}.values"),
    (settled(key=["2"], how="edit", values={}), f"{OTHER}.values"),
    (settled(key=["2"], how="keep", values={"email": "x"}), f"{OTHER}.values"),
    (settled(key=["2"], how="edit", values={"email": 1}), f"{OTHER}.values.email.value"),
    (settled(key=["2"], how="edit", values={"email": "\0"}), f"{OTHER}.values.email.value"),
    (settled(key=["2"], how="keep", why="x"), f"{OTHER}.why"),
    (settled(key=["1"], how="restore"), "settled"),
    ({"settled": {"users": [{"key": [str(n)], "how": "keep"} for n in range(1001)]}}, "settled"),
    ({"mode": "exact", "rules": {"edited": "restore"}}, "rules"),
    ({"mode": "exact"} | settled(key=["2"], how="keep"), "settled"),
    ({"allowance": 1}, "allowance"), ({"reason": "a\x1b[31mb"}, "reason"), ({"reason": "x" * 501}, "reason"),
    ({"reason": None}, "reason"), ({"reason": ["x"]}, "reason"), ({"tables": []}, "tables"), ({"tables": "users"}, "tables"),
    ({"tables": [None]}, "tables.0"), ({"backupId": None}, "backupId"), ({"backupId": 7}, "backupId"), ({"previewId": 7}, "previewId"),
    ({"force": True}, "force"), ({"confirm": False}, "confirm"), ({"confirm": None}, "confirm"), ({"confirm": 1}, "confirm"), ({"confirm": [True]}, "confirm"),
    ({"previewId": ""}, "previewId"), ({"Rules": {}}, "Rules"), ({"confirm": "true"} | settled(key=["2"], how="keep"), "confirm"),
]  # fmt: skip


def test_each_fault_is_named_by_its_field_and_nothing_begins(admin: FlaskClient) -> None:
    for more, field in BAD:
        answer = admin.post(PATH, json=KEEP | more)
        body = answer.get_json()
        assert (answer.status_code, body["error"]) == (400, "bad_request"), (more, body)
        assert field in body["details"], (more, body)
    missing = admin.post(PATH, json={name: value for name, value in KEEP.items() if name != "confirm"})
    assert (missing.status_code, list(missing.get_json()["details"])) == (400, ["confirm"])
    assert admin.get("/api/migration").get_json()["data"]["count"] == 0


def outside(settings: Settings, what: str) -> None:
    with psycopg.connect(settings.target_database_url) as connection:
        connection.execute(what.encode())


def test_what_is_known_only_with_the_backup(
    app: Flask, admin: FlaskClient, migrated: RunView, settings: Settings
) -> None:
    outside(settings, "CREATE VIEW seen AS SELECT 1 AS id")
    wish = KEEP | {"backupId": migrated.backup_name}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"tables": ["nonsense"]}, 400, "tables"),
        ({"settled": {"nonsense": [{"key": ["1"], "how": "keep"}]}}, 400, "settled"),
        (
            {"settled": {"oauth_tokens": [{"key": ["1"], "how": "edit", "values": {"access_token": "x"}}]}},
            400,
            "secret",
        ),
        ({"previewId": "7"}, 404, "no such run to be the preview: '7'. Preview this backup"),
        ({"previewId": "../x"}, 404, "no such run to be the preview: '../x'"),
        ({"backupId": "backup_1' OR 1=1"}, 404, "no such backup"),
        ({"backupId": "\ud800"}, 404, "no such backup"),
        (settled(key=["2", "3"], how="keep"), 400, "users, row 2: key must have 1 of id"),
        (settled(key=["2"], how="edit", values={"nonsense": "x"}), 400, "row 2: nonsense cannot be edited here"),
        (settled(key=["2"], how="edit", values={"id": "x"}), 400, "it is of the key"),
        (
            settled(key=["2"], how="keep") | {"tables": ["user_settings"]},
            400,
            "users must be one of the tables that go",
        ),
        ({"allow": ["public.nothing"]}, 400, "no table public.nothing"),
        ({"allow": ["public.seen"]}, 409, "public.seen: it is a view"),
        ({"previewId": migrated.id}, 409, "no finished preview"),
    ]
    for more, status, word in cases:
        answer = admin.post(PATH, json=wish | more)
        assert answer.status_code == status, (more, answer.get_json())
        assert word in str(answer.get_json()), (more, answer.get_json())
    own = lead(app, services_of(app).runs.back_up(SETUP).id)
    answer = admin.post(PATH, json=wish | {"backupId": own.backup_name})
    assert answer.status_code == 409
    assert "not taken by a migration" in answer.get_json()["message"]
    assert admin.get("/api/migration").get_json()["data"]["count"] == 2

    counting = admin.post(f"/api/v1/backups/{migrated.backup_name}/preview", json={}).get_json()["data"]["id"]
    for backup, words in (
        (migrated.backup_name, "it is still pending. Wait until"),
        (own.backup_name, "a preview of "),
    ):
        answer = admin.post(PATH, json={"backupId": backup, "confirm": True, "previewId": counting})
        assert (answer.status_code, answer.get_json()["error"]) == (409, "refused")
        assert words in answer.get_json()["message"]
    key = {"Idempotency-Key": "twice"}
    begun = admin.post(PATH, json=wish | {"tables": ["users", "users"]}, headers=key)
    assert begun.status_code == 202
    for more, headers, code in (({}, {}, "busy"), ({"reason": "Another."}, key, "refused")):
        answer = admin.post(PATH, json=wish | {"tables": ["users", "users"]} | more, headers=headers)
        assert (answer.status_code, answer.get_json()["error"]) == (409, code), answer.get_json()
    assert "use a new key" in answer.get_json()["message"]


def test_all_that_is_wished_reaches_the_run_and_a_repeated_request_is_one(
    app: Flask, admin: FlaskClient, token_as: TokenAs, migrated: RunView, settings: Settings
) -> None:
    outside(settings, "CREATE TABLE invoices (id int)")
    operator = as_role(app, token_as, "operator")
    path = f"/api/v1/backups/{migrated.backup_name}/preview"
    wrong: tuple[dict[str, Any], ...] = (
        {"tables": []},
        {"tables": ["nonsense"]},
        {"tables": "users"},
        {"mode": "keep"},
    )
    for bad in wrong:
        answer = operator.post(path, json=bad)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, list(bad)), answer.get_json()
    begun = [
        operator.post(path, json={"tables": ["users"]}, headers={"Idempotency-Key": "look"}) for _ in range(2)
    ]  # fmt: skip
    assert [answer.status_code for answer in begun] == [202, 202]
    assert begun[0].get_json()["data"]["id"] == begun[1].get_json()["data"]["id"]
    preview = lead(app, begun[0].get_json()["data"]["id"])
    told = operator.get(begun[0].headers["Location"]).get_json()["data"]
    assert list(told["report"]["preview"]["tables"]) == ["users"]

    wish = KEEP | {
        "backupId": migrated.backup_name, "tables": ["users"], "reason": "why", "previewId": preview.id, "allowance": 3,
        "allow": ["public.invoices"], "rules": {"edited": "restore", "created": "delete", "deleted": "bring_back"},
        "settled": {"users": [{"key": ["1"], "how": "edit", "values": {"email": "ana@example.com", "stripe_customer_id": None}}]},
    }  # fmt: skip
    for role, status in (("viewer", 403), ("operator", 403), (NOBODY, 401)):
        assert as_role(app, token_as, role).post(PATH, json=wish).status_code == status, role
    answers = [admin.post(PATH, json=wish, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].get_json()
    ids = {answer.get_json()["data"]["id"] for answer in answers}
    options = services_of(app).runs.get(SETUP, ids.pop()).options
    assert not ids
    names = ("mode", "tables", "reason", "preview_id", "allowance", "allow", "rules", "settled")
    expected = wish | {"preview_id": preview.id}
    assert {name: options[name] for name in names} == {name: expected[name] for name in names}
    assert options["beyond"] == [["public", "invoices"]]
    assert options["origin"] == {"run_id": migrated.id, "number": migrated.number}


def late_or_cancelled(settings: Settings, bob: FlaskClient, ana: FlaskClient) -> None:
    """What waited too long, or was cancelled meanwhile, nobody approves any more."""
    path = "/api/v1/runs/1/approve"
    late = {"approval": {"asked_until": "2025-01-01T00:00:00+00:00", "asked_by": "x", "askers": [], "names": {}}}
    wished = {"allow": ["a.b"], "rules": {"created": "delete"}, "settled": {"users": [{}, {}]}}
    put(settings.database_url, RunState.AWAITING_APPROVAL, options=late | wished)
    told = bob.get("/api/v1/runs/1").get_json()["data"]["approval"]
    assert {name: told[name] for name in wished} == wished | {"settled": 2}
    answer = bob.post(path)
    assert (answer.status_code, answer.get_json()["error"]) == (409, "refused")
    assert "waited too long for an approval. Cancel it and start it again." in answer.get_json()["message"]
    assert ana.post("/api/v1/runs/1/cancel").get_json()["data"]["status"] == "cancelled"
    assert "Run 1 is cancelled: approve is not possible" in bob.post(path).get_json()["message"]


def test_another_admin_approves_and_nobody_else(
    settings: Settings, sample_data: dict[str, int], token_as: TokenAs
) -> None:
    assert sample_data
    strict = create_app(replace(settings, require_approval=True))
    tokens = services_of(strict).tokens
    path = "/api/v1/runs/1/approve"

    def as_token(name: str, *, of_nobody: bool = False) -> FlaskClient:
        owner = SETUP
        if not of_nobody:
            email = f"{name}@example.com"
            view = services_of(strict).admins.create(SETUP, email, "admin", PASSWORD)
            owner = Actor(email, Role.ADMIN, "page", "", view.id)
        bearer, _ = tokens.create(owner, name=name, role="admin")
        client = strict.test_client()
        client.environ_base |= {"HTTP_AUTHORIZATION": f"Bearer {bearer}"}
        return client

    ana, bob = as_token("ana"), as_token("bob")
    assert bob.post(path).status_code == 404
    begun = ana.post("/api/migration", json={"action": "run"})
    assert begun.get_json()["data"]["status"] == "awaiting_approval"
    for role, status in (("viewer", 403), ("operator", 403), (NOBODY, 401)):
        assert as_role(strict, token_as, role).post(path).status_code == status, role
    for nobody in (as_token("one", of_nobody=True), as_token("two", of_nobody=True)):
        refused = nobody.post(path)
        assert (refused.status_code, refused.get_json()["error"]) == (403, "not_allowed")
        assert "Approving needs a person, and behind the token" in refused.get_json()["message"]
        assert "token that you make under Me" in refused.get_json()["message"]
        assert "approve" not in nobody.get("/api/v1/runs/1").get_json()["data"]["actions"]
    own = ana.post(path)
    assert (own.status_code, own.get_json()["error"]) == (409, "refused")
    told = bob.get("/api/v1/runs/1").get_json()["data"]
    assert "approve" in told["actions"]
    assert told["sentence"].startswith("Waits until another admin approves it; asked by ")
    asked = told["approval"]
    assert (asked["kind"], asked["plan"], asked["backup"], asked["approved_by"]) == ("migration", "unified", None, None)
    assert asked["asked_by"] == "ana@example.com (token ana)"
    assert "askers" not in str(told)
    assert "approve" not in ana.get("/api/v1/runs/1").get_json()["data"]["actions"]
    approved = bob.post(path)
    assert (approved.status_code, approved.get_json()["data"]["status"]) == (200, "pending")
    asked = approved.get_json()["data"]["approval"]
    assert asked["approved_by"] == "bob@example.com (token bob)"
    assert asked["approved_at"] < asked["good_until"]
    for state in RunState:
        if state is not RunState.AWAITING_APPROVAL:
            put(settings.database_url, state)
            answer = bob.post(path)
            assert answer.status_code == 409, state
            assert f"Run 1 is {state.value}: approve is not possible" in answer.get_json()["message"]
    late_or_cancelled(settings, bob, ana)
    services_of(strict).close()


def test_a_person_who_signs_in_does_not_approve_with_a_token(settings: Settings, sample_data: dict[str, int]) -> None:
    assert sample_data
    strict = create_app(replace(settings, require_approval=True))
    services = services_of(strict)
    own = services.admins.create(SETUP, "ana@example.com", "admin", PASSWORD)
    ana = Actor("ana@example.com", Role.ADMIN, "page", "", own.id)
    run = services.runs.start(ana, RunKind.MIGRATION)
    bearer, _ = services.tokens.create(ana, name="scripts", role="admin")
    headers = {"Authorization": f"Bearer {bearer}"}
    client = strict.test_client()
    for _ in range(2):
        assert client.post(f"/api/v1/runs/{run.id}/approve", headers=headers).status_code == 409
        assert "approve" not in client.get(f"/api/v1/runs/{run.id}", headers=headers).get_json()["data"]["actions"]
        services.runs.cancel(SETUP, run.id)
        services.runs.resume(SETUP, run.id)
        assert services.runs.get(SETUP, run.id).state is RunState.AWAITING_APPROVAL
    services.close()
