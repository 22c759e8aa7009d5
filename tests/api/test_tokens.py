"""Bearers of tokens: good, expired, revoked, and of somebody who was disabled."""

import psycopg
from flask import Flask

from briefly_admin.domain.permissions import Actor, Role
from tests.serving import PASSWORD, SETUP, services_of


def status(app: Flask, bearer: str) -> int:
    return app.test_client().get("/api/migration", headers={"Authorization": f"Bearer {bearer}"}).status_code


def test_a_token_opens_until_it_is_revoked(app: Flask) -> None:
    tokens = services_of(app).tokens
    bearer, view = tokens.create(SETUP, name="nightly", role="viewer")
    assert status(app, bearer) == 200
    assert status(app, bearer + "x") == status(app, bearer[:-1]) == 401
    lower = app.test_client().get("/api/migration", headers={"authorization": f"bearer {bearer}"})
    assert lower.status_code == 200, "the scheme's case does not matter"
    tokens.revoke(SETUP, view.id)
    assert status(app, bearer) == 401


def test_an_expired_token_is_refused(app: Flask, app_database: str) -> None:
    bearer, _ = services_of(app).tokens.create(SETUP, name="short", role="viewer", expires_in_days=1)
    assert status(app, bearer) == 200
    with psycopg.connect(app_database) as connection:
        connection.execute("UPDATE briefly_admin.token SET expires_at = now() - interval '1 second'")
    assert status(app, bearer) == 401


def test_a_disabled_owner_takes_the_token_along(app: Flask) -> None:
    services = services_of(app)
    olga = services.admins.create(SETUP, "olga@example.com", "operator", PASSWORD)
    owner = Actor(olga.email, Role.OPERATOR, "page", admin_id=olga.id)
    bearer, _ = services.tokens.create(owner, name="hers", role="operator")
    assert status(app, bearer) == 200
    services.admins.disable(SETUP, olga.id)
    assert status(app, bearer) == 401


def test_a_token_sinks_with_its_owners_role(app: Flask) -> None:
    services = services_of(app)
    olga = services.admins.create(SETUP, "olga@example.com", "operator", PASSWORD)
    owner = Actor(olga.email, Role.OPERATOR, "page", admin_id=olga.id)
    bearer, _ = services.tokens.create(owner, name="hers", role="operator")
    services.admins.set_role(SETUP, olga.id, "viewer")
    answer = app.test_client().post(
        "/api/migration", json={"action": "run"}, headers={"Authorization": f"Bearer {bearer}"}
    )
    assert answer.status_code == 403


def test_the_app_database_keeps_no_token(app: Flask, app_database: str) -> None:
    bearer, _ = services_of(app).tokens.create(SETUP, name="nightly", role="admin")
    with psycopg.connect(app_database) as connection:
        rows = connection.execute("SELECT to_jsonb(t)::text FROM briefly_admin.token t").fetchall()
    assert rows
    assert not [row for row in rows if bearer.removeprefix("bra_") in row[0]]
