"""Whatever is sent, the answer is in the envelope and never an error of ours."""

from typing import Any

from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from briefly_admin.domain.config import BY_NAME
from briefly_admin.domain.permissions import Actor, Role
from tests.serving import PASSWORD, SETUP, services_of

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CONFIG = st.dictionaries(st.sampled_from(list(BY_NAME)) | st.text(max_size=8), ANY, max_size=4)
MIGRATION = st.fixed_dictionaries(
    {"action": st.sampled_from(["validate", "run", "status"]) | ANY}, optional={"config": CONFIG | ANY, "id": ANY}
)
SETTLED = st.fixed_dictionaries(
    {"key": st.lists(st.text(max_size=8), max_size=2) | ANY, "how": st.sampled_from(["keep", "restore", "edit"]) | ANY},
    optional={"values": st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=8), max_size=2) | ANY},
)
ROLLBACK = st.fixed_dictionaries(
    {"backupId": st.text(max_size=30) | ANY, "confirm": st.just(True) | ANY},
    optional={
        "mode": st.just("keep") | ANY, "tables": st.lists(st.text(max_size=8), max_size=3) | ANY, "reason": ANY,
        "previewId": ANY, "allowance": st.integers() | ANY, "allow": st.lists(st.text(max_size=12), max_size=3) | ANY,
        "rules": st.dictionaries(st.sampled_from(["edited", "created"]), ANY, max_size=2) | ANY,
        "settled": st.dictionaries(st.text(max_size=8), st.lists(SETTLED | ANY, max_size=2) | ANY, max_size=2) | ANY,
    },
)  # fmt: skip
BACKUPS = st.fixed_dictionaries(
    {}, optional={"beyond": st.lists(st.text(max_size=12), max_size=3) | ANY, "level": ANY, "tables": ANY}
)
CHANGES = st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=8), max_size=2) | ANY
ROWS = st.fixed_dictionaries(
    {"key": st.lists(st.text(max_size=8), max_size=2) | ANY, "changes": CHANGES},
    optional={"version": st.text(max_size=8) | ANY, "reason": st.text(max_size=8) | ANY},
)
FIXES = st.fixed_dictionaries(
    {"table": st.sampled_from(["users", "nowhere"]) | ANY, "rule": st.text(max_size=8) | ANY, "changes": CHANGES},
    optional={"field": st.just("email") | ANY, "run": st.just("7") | ANY, "expected": st.integers() | ANY},
)
REPLAY = st.fixed_dictionaries({}, optional=dict.fromkeys(("table", "field", "cause", "key"), ANY))
NOWHERE = "/api/v1/backups/backup_1"


def test_no_body_breaks_an_endpoint(app: Flask) -> None:
    app.config["RATELIMIT_ENABLED"] = False
    app.config["API_REQUESTS_PER_MINUTE"] = 1_000_000
    services = services_of(app)
    person = services.admins.create(SETUP, "ana@example.com", "admin", PASSWORD)
    owner = Actor(person.email, Role.ADMIN, "page", "", person.id)  # a token of nobody would approve nothing
    bearer, _ = services.tokens.create(owner, name="any", role="admin")
    client, headers = app.test_client(), {"Authorization": f"Bearer {bearer}"}

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(MIGRATION | ANY, ROLLBACK | ANY, BACKUPS | ANY, ROWS | ANY, FIXES | ANY, REPLAY | ANY)
    def check(migration: Any, rollback: Any, backup: Any, row: Any, fix: Any, replay: Any) -> None:
        deeds = [(f"{NOWHERE}/{deed}", backup) for deed in ("verify", "drill", "pin", "unpin", "preview")]
        deeds.append(("/api/v1/runs/7/approve", backup))
        deeds += [(f"/api/v1/rows/users/{deed}", row) for deed in ("check", "correct", "skip", "unskip")]
        deeds += [("/api/v1/fixes/preview", fix), ("/api/v1/fixes", fix), ("/api/v1/runs/7/replay", replay)]
        first = [("/api/migration", migration), ("/api/migration/rollback", rollback), ("/api/v1/backups", backup)]
        for path, body in (*first, *deeds):
            answer = client.post(path, json=body, headers=headers)
            assert answer.status_code in {200, 202, 400, 404, 409}, (body, answer.get_json())
            assert answer.get_json()["success"] is (answer.status_code < 400)

    check()
