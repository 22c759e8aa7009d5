"""Single rows by endpoint: shown, tried and corrected; by whom, with which bodies, and beside somebody else's change."""

from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.settings import Settings
from tests.quarantined import break_emails, email_of, quarantine
from tests.serving import NOBODY, SETUP, TokenAs, as_role, services_of

ROWS = "/api/v1/rows"
GOOD = "cured@example.com"


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


def test_secret_values_are_taken_and_never_told(
    script: FlaskClient, settings: Settings, sample_data: dict[str, int]
) -> None:  # fmt: skip
    assert sample_data
    with psycopg.connect(settings.target_database_url) as target:
        found = target.execute("UPDATE oauth_tokens SET access_token = 'canary', provider = 'x' RETURNING id::text")
        key = (found.fetchone() or ("",))[0]
    path, row = f"{ROWS}/oauth_tokens", {"key": [key]}
    shown_row = script.get(path, query_string={"key": key})
    body = row | {"changes": {"access_token": "canary", "provider": "google"}}
    change = body | {"version": shown_row.get_json()["data"]["version"]}
    cause = {"table": "oauth_tokens", "field": "provider", "rule": "one_of", "changes": body["changes"]}
    answers = [
        shown_row,
        script.post(f"{path}/check", json=body),
        script.post("/api/v1/fixes/preview", json=cause),
        script.post(f"{path}/correct", json=change),
        script.post(f"{path}/correct", json=change),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 409]
    assert not [answer for answer in answers if "canary" in answer.get_data(as_text=True)]
    token = next(field for field in answers[3].get_json()["data"]["fields"] if field["name"] == "access_token")
    assert (token["secret"], token["value"]) == (True, None)
    with psycopg.connect(settings.target_database_url) as target:
        told = target.execute("SELECT access_token, provider FROM oauth_tokens WHERE id::text = %s", [key]).fetchone()
    assert told == ("canary", "google")


def test_a_row_is_left_alone_with_a_reason_and_treated_as_others_again(
    app: Flask, script: FlaskClient, settings: Settings, broken: str
) -> None:
    quarantine(services_of(app), settings.database_url, SETUP, [broken])
    body = {"key": [broken], "reason": "They asked for it."}
    answer = script.post(f"{ROWS}/users/skip", json=body)
    assert answer.status_code == 200, answer.get_json()
    assert answer.get_json()["data"] == {"table": "users", "key": [broken], "skipped": "They asked for it."}
    assert shown(script, broken)["skipped"] == "They asked for it."
    (cause,) = script.get("/api/v1/quarantine/causes").get_json()["data"]["causes"]
    assert (cause["rows"], cause["skipped"]) == (1, 1)
    events = services_of(app).audit.list(SETUP, action="row.skip")
    assert len(events) == 1

    answer = script.post(f"{ROWS}/users/unskip", json={"key": [broken]})
    assert answer.get_json()["data"] == {"table": "users", "key": [broken], "skipped": None}
    assert shown(script, broken)["skipped"] is None
    assert script.post(f"{ROWS}/users/unskip", json={"key": [broken]}).status_code == 404


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
        for deed, sent in (("check", body), ("correct", change), ("skip", {"key": [broken], "reason": "x"}),
                           ("unskip", {"key": [broken]})):  # fmt: skip
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
    ("skip", KEY, "reason"), ("skip", KEY | {"reason": ""}, "reason"), ("skip", KEY | {"reason": 7}, "reason"),
    ("skip", KEY | {"reason": "x" * 501}, "reason"), ("skip", {"reason": "x"}, "key"),
    ("unskip", {}, "key"), ("unskip", KEY | {"reason": "x"}, "reason"),
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
            script.post(f"{ROWS}/{table}/skip", json={"key": [key], "reason": "x"}),
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [404] * 4, (table, key)
    for keys in (["x"], ["", ""], [broken, broken], ["' OR true --"]):
        answer = script.get(f"{ROWS}/users", query_string={"key": keys})
        assert answer.status_code in {400, 404}, keys
    for changes in ({"id": "x"}, {"nowhere": "x"}, {"usage_documents": "many"}, {"created_at": "tomorrow-ish"}):
        body = {"key": [broken], "version": shown(script, broken)["version"], "changes": changes}
        answer = script.post(f"{ROWS}/users/correct", json=body)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, list(changes))


def fix(client: FlaskClient, deed: str = "", **body: Any) -> Any:
    cause = {"table": "users", "field": "email", "rule": "email"}
    return client.post(f"/api/v1/fixes{deed}", json=cause | body)


def test_one_correction_is_counted_then_made_for_all_rows_of_a_cause(
    app: Flask, script: FlaskClient, settings: Settings, sample_data: dict[str, int]
) -> None:
    target = settings.target_database_url
    with psycopg.connect(target) as connection:
        connection.execute("UPDATE users SET subscription_tier = 'gold' WHERE ctid IN (SELECT ctid FROM users LIMIT 3)")
    of: dict[str, Any] = {"field": "subscription_tier", "rule": "one_of"}
    preview = fix(script, "/preview", **of, changes={"subscription_tier": "platinum"}).get_json()["data"]
    assert (preview["cured"], sum(preview["refused"].values())) == (0, 3)
    assert fix(script, **of, changes={"subscription_tier": "platinum"}, expected=3).status_code == 409
    preview = fix(script, "/preview", **of, changes={"subscription_tier": "free"}).get_json()["data"]
    assert (preview["rows"], preview["cured"], preview["refused"], preview["more"]) == (3, 3, {}, 0)
    assert preview["samples"][0]["changes"] == {"subscription_tier": {"before": "gold", "after": "free"}}
    tiers = "SELECT count(*) FROM users WHERE subscription_tier = 'gold'"
    for expected in (2, 4, 0):
        answer = fix(script, **of, changes={"subscription_tier": "free"}, expected=expected)
        assert (answer.status_code, answer.get_json()["error"]) == (409, "refused")
    with psycopg.connect(target) as connection:
        assert connection.execute(tiers).fetchone() == (3,)
    answer = fix(script, **of, changes={"subscription_tier": "free"}, expected=3)
    assert (answer.status_code, answer.get_json()["data"]["cured"]) == (200, 3), answer.get_json()
    with psycopg.connect(target) as connection:
        assert connection.execute(tiers).fetchone() == (0,)
    assert fix(script, "/preview", **of, changes={"subscription_tier": "free"}).get_json()["data"]["rows"] == 0
    run = quarantine(services_of(app), settings.database_url, SETUP, break_emails(target, sample_data["users"])[:1])
    for number, rows in ((None, sample_data["users"]), (str(run.number), 1)):
        body = {"changes": {"email": GOOD}} | ({"run": number} if number else {})
        told = fix(script, "/preview", **body).get_json()["data"]
        assert (told["rows"], bool(told["refused"])) == (rows, rows > 1), "one e-mail for one user"


def test_what_is_no_fix_is_refused_field_by_field(app: Flask, token_as: TokenAs, script: FlaskClient) -> None:
    good: dict[str, Any] = {"changes": {"email": GOOD}}
    bad: list[tuple[dict[str, Any], str]] = [
        ({}, "changes"), ({"changes": {}}, "changes"), (good | {"table": ""}, "table"), (good | {"rule": None}, "rule"),
        (good | {"field": 7}, "field"), (good | {"run": ""}, "run"), (good | {"class": "notice"}, "class"),
    ]  # fmt: skip
    for body, field in bad:
        answer = fix(script, "/preview", **body)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, [field]), body
        assert fix(script, **body, expected=1).status_code == 400
    for expected in (None, -1, 1.5, "3", True, 10**9):
        answer = fix(script, **good, expected=expected)
        assert (answer.status_code, list(answer.get_json()["details"])) == (400, ["expected"]), expected
    assert list(fix(script, **good).get_json()["details"]) == ["expected"]
    for body in ({"table": "nowhere"}, {"run": "99"}):
        assert fix(script, "/preview", **good | body).status_code == 404, body
        assert fix(script, **good | body, expected=1).status_code == 404, body
    for role, status in (("viewer", 403), (NOBODY, 401)):
        client = as_role(app, token_as, role)
        assert fix(client, "/preview", **good).status_code == status
        assert fix(client, **good, expected=1).status_code == status
