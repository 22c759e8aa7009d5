"""Backups below /api/v1: taken, looked at, proven, kept, deleted; by whom, and what is refused."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.serving import NOBODY, SETUP, TokenAs, lead, services_of

BASE = "/api/v1/backups"
FIELDS = {
    "backup_id", "id", "state", "plan", "target", "created_at", "rows", "bytes", "tables", "proofs", "expires_at",
    "pinned", "escrowed_at", "run", "restorable", "why_not", "damage",
}  # fmt: skip
Script = Callable[[str], FlaskClient]


@pytest.fixture
def script(app: Flask, token_as: TokenAs) -> Script:
    def client(role: str) -> FlaskClient:
        made, headers = app.test_client(), token_as(role)
        if headers:
            made.environ_base |= {"HTTP_AUTHORIZATION": headers["Authorization"]}
        return made

    return client


@pytest.fixture
def backup(app: Flask, script: Script, sample_data: dict[str, int]) -> str:
    """The name of a backup that an operator took."""
    begun = script("operator").post(BASE, json={})
    assert begun.status_code == 202
    return str(lead(app, begun.get_json()["data"]["id"]).backup_name)


def data_of(client: FlaskClient, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.get_json()
    return answer.get_json()["data"]


def test_a_backup_is_taken_and_told_whole(app: Flask, script: Script, sample_data: dict[str, int]) -> None:
    client = script("operator")
    answer = client.post(BASE)
    body = answer.get_json()
    assert (answer.status_code, body["data"]["kind"], body["data"]["status"]) == (202, "backup", "pending")
    assert answer.headers["Location"] == f"/api/v1/runs/{body['data']['id']}"
    name = lead(app, body["data"]["id"]).backup_name
    assert data_of(client, answer.headers["Location"])["backup_id"] == name
    listed = data_of(script("viewer"), BASE)
    assert listed["count"] == 1
    (found,) = listed["backups"]
    assert set(found) == FIELDS
    assert (found["backup_id"], found["state"], found["run"], found["restorable"]) == (name, "proven", 1, True)
    assert found["rows"] == sum(sample_data.values())
    assert {table["table"]: table["rows"] for table in found["tables"]} == sample_data
    assert found["created_at"].endswith("Z")
    for reference in (found["backup_id"], found["id"]):
        assert data_of(script("viewer"), f"{BASE}/{reference}") == found


def test_tables_beyond_the_plan_are_taken_along(
    app: Flask, script: Script, sample_data: dict[str, int], target_database: str
) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute("CREATE TABLE invoices (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE other (id int PRIMARY KEY)")
    client = script("operator")
    for beyond, titles in ((["public.invoices"], {"invoices"}), (["*"], {"invoices", "other"})):
        lead(app, client.post(BASE, json={"beyond": beyond}).get_json()["data"]["id"])
        newest = data_of(client, BASE)["backups"][0]
        assert {table["table"] for table in newest["tables"]} - set(sample_data) == titles


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"beyond": "public.users"}, "beyond"), ("", {"beyond": [1]}, "beyond.0"), ("", {"beyond": [""]}, "beyond.0"),
        ("", {"beyond": ["x" * 201]}, "beyond.0"), ("", {"beyond": None}, "beyond"), ("", {"tables": []}, "tables"),
        ("/{}/verify", {"level": "L2"}, "level"), ("/{}/verify", {"level": 1}, "level"), ("/{}/verify", {"depth": 1}, "depth"),
        ("/{}/drill", {"level": "L1"}, "level"), ("/{}/pin", {"until": "2030"}, "until"), ("/{}/unpin", {"now": True}, "now"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named_and_nothing_begins(
    app: Flask, script: Script, backup: str, path: str, body: dict[str, Any], field: str
) -> None:
    answer = script("operator").post(BASE + path.format(backup), json=body)
    assert answer.status_code == 400
    assert list(answer.get_json()["details"]) == [field]
    assert services_of(app).runs.count(SETUP) == 1


def test_tables_that_are_not_there_are_refused(app: Flask, script: Script, sample_data: dict[str, int]) -> None:
    for beyond in (["public.nowhere"], ["nonsense"], ["public.users; DROP TABLE users"], ["public.\x00"]):
        answer = script("operator").post(BASE, json={"beyond": beyond})
        assert (answer.status_code, answer.get_json()["success"]) == (400, False), beyond
    assert services_of(app).runs.count(SETUP) == 0


@pytest.mark.parametrize(
    ("deed", "body", "kind", "level"),
    [
        ("verify", None, "verification", "L1"),
        ("verify", {"level": "L0"}, "verification", "L0"),
        ("drill", {}, "drill", "L2"),
    ],
)
def test_looking_is_a_run_and_a_proof(
    app: Flask, script: Script, backup: str, deed: str, body: dict[str, Any] | None, kind: str, level: str
) -> None:
    client = script("operator")
    answer = (
        client.post(f"{BASE}/{backup}/{deed}", json=body)
        if body is not None
        else client.post(f"{BASE}/{backup}/{deed}")
    )
    begun = answer.get_json()["data"]
    assert (answer.status_code, begun["kind"]) == (202, kind)
    lead(app, begun["id"])
    run = data_of(client, answer.headers["Location"])
    assert (run["status"], run["error"]) == ("completed", None)
    proof = data_of(client, f"{BASE}/{backup}")["proofs"][0]
    assert (proof["level"], proof["whole"], proof["damages"], proof["run"]) == (level, True, 0, run["number"])


def test_the_same_key_begins_one_run(app: Flask, script: Script, backup: str) -> None:
    client = script("operator")
    for path in (BASE, f"{BASE}/{backup}/verify", f"{BASE}/{backup}/drill"):
        headers = {"Idempotency-Key": path}
        first, second = (client.post(path, json={}, headers=headers) for _ in range(2))
        assert (first.status_code, second.status_code) == (202, 202)
        assert first.get_json()["data"]["id"] == second.get_json()["data"]["id"]
    other = client.post(f"{BASE}/{backup}/drill", headers={"Idempotency-Key": BASE})
    assert (other.status_code, other.get_json()["error"]) == (409, "refused")
    other = client.post(
        f"{BASE}/{backup}/verify", json={"level": "L0"}, headers={"Idempotency-Key": f"{BASE}/{backup}/verify"}
    )
    assert other.status_code == 409
    assert "asked for something else" in other.get_json()["message"]
    assert client.post(BASE, headers={"Idempotency-Key": "x" * 201}).status_code == 400


def test_two_looks_of_a_kind_at_once_are_refused_naming_the_first(script: Script, backup: str) -> None:
    client = script("operator")
    for deed in ("verify", "drill"):
        first = client.post(f"{BASE}/{backup}/{deed}").get_json()["data"]["id"]
        second = client.post(f"{BASE}/{backup}/{deed}")
        assert (second.status_code, second.get_json()["error"]) == (409, "busy")
        assert second.get_json()["details"]["id"] == [first]


def test_pin_unpin_and_delete(script: Script, backup: str) -> None:
    operator, admin = script("operator"), script("admin")
    path = f"{BASE}/{backup}"
    assert operator.post(f"{path}/pin").get_json()["data"]["pinned"] is True
    refused = admin.delete(path)
    assert (refused.status_code, refused.get_json()["error"]) == (409, "refused")
    assert operator.post(f"{path}/unpin").get_json()["data"]["pinned"] is False
    gone = admin.delete(path)
    assert (gone.status_code, gone.get_json()["data"]["state"]) == (200, "expired")
    assert "nobody can read it" in gone.get_json()["message"]
    assert data_of(admin, path)["restorable"] is False
    for deed, code in (("verify", "backup_expired"), ("drill", "backup_expired"), ("pin", "refused")):
        answer = operator.post(f"{path}/{deed}")
        assert (answer.status_code, answer.get_json()["error"]) == (409, code)


def test_damage_is_told_by_the_backup(app: Flask, script: Script, backup: str, app_database: str) -> None:
    with psycopg.connect(app_database) as connection:
        connection.execute(
            "UPDATE briefly_admin.backup SET state = 'damaged', damage = '[\"users: stream 1\", \"users: stream 2\"]'"
        )
    found = data_of(script("viewer"), f"{BASE}/{backup}")
    assert (found["state"], found["restorable"], found["why_not"]) == ("damaged", False, "It is damaged.")
    assert found["damage"] == ["users: stream 1", "users: stream 2"]


def test_each_role_may_what_it_may(script: Script, backup: str) -> None:
    deeds = [("POST", "", 202), ("POST", f"/{backup}/verify", 202), ("POST", f"/{backup}/drill", 202),
             ("POST", f"/{backup}/pin", 200), ("POST", f"/{backup}/unpin", 200)]  # fmt: skip
    for role, refused in ((NOBODY, 401), ("viewer", 403)):
        for method, path, _ in [*deeds, ("DELETE", f"/{backup}", 0)]:
            assert script(role).open(BASE + path, method=method).status_code == refused, (role, path)
    for method, path, status in deeds:
        assert script("operator").open(BASE + path, method=method).status_code == status, path
    assert script("operator").delete(f"{BASE}/{backup}").status_code == 403
    assert script(NOBODY).get(BASE).status_code == script(NOBODY).get(f"{BASE}/{backup}").status_code == 401


def test_what_is_not_there_is_not_found(script: Script) -> None:
    client = script("admin")
    for reference in ("backup_1", str(uuid4()), str(UUID(int=0)), "%00", "..%2f..", "%3Cscript%3E"):
        assert client.get(f"{BASE}/{reference}").status_code == 404, reference
        assert client.delete(f"{BASE}/{reference}").status_code == 404, reference
        for deed in ("verify", "drill", "pin", "unpin", "preview"):
            answer = client.post(f"{BASE}/{reference}/{deed}")
            assert (answer.status_code, answer.get_json()["success"]) == (404, False), (reference, deed)
