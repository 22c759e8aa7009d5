"""The program over HTTP, on real servers, and the cast: a viewer, an operator, an admin, and nobody."""

import html
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from briefly_admin import create_app, wiring
from briefly_admin.domain.errors import Refused
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.jobs.queue import RqQueue
from briefly_admin.services import Services, logs, passwords
from briefly_admin.services.views import RunView
from briefly_admin.settings import Settings, load

PASSWORD = "correct horse battery staple"
SETUP = Actor("setup", Role.ADMIN, "cli")
NOBODY = "nobody"
AppAt = Callable[..., Flask]
ClientAs = Callable[[str], FlaskClient]
TokenAs = Callable[[str], dict[str, str]]


class _Compiled(BytecodeCache):
    """The templates as this process has compiled them already, for every app; a changed one is compiled anew."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


_COMPILED = _Compiled()
_APPS: dict[tuple[str, int, str], Flask] = {}


@pytest.fixture
def settings(app_database: str, target_database: str, redis_url: str, tmp_path: Path) -> Settings:
    return load({
        "DATABASE_URL": app_database, "TARGET_DATABASE_URL": target_database, "REDIS_URL": redis_url,
        "BRIEFLY_HOME": str(tmp_path), "LOG_LEVEL": "warning",
    })  # fmt: skip


@pytest.fixture
def own_app() -> None:
    """For a test that changes the app itself: it has one of its own, which no other test gets."""


@pytest.fixture
def app(settings: Settings, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Flask]:
    # A hash costs next to nothing here; what it costs really is held in tests/services/test_passwords.py.
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    app = create_app(settings) if "own_app" in request.fixturenames else _shared_app(settings)
    app.jinja_env.bytecode_cache = _COMPILED
    app.config["VALIDATION_WAIT_SECONDS"] = 0.0
    before = dict(app.config)
    yield app
    services_of(app).close()
    app.config.clear()
    app.config.update(before)
    root.handlers, root.level = handlers, level


def _shared_app(settings: Settings) -> Flask:
    """The app of an earlier test with services of its own: its routes and templates are the same for every test."""
    known = (settings.base_url, settings.trusted_proxies, settings.redis_url)
    if known not in _APPS:
        _APPS[known] = create_app(settings)
        return _APPS[known]
    app = _APPS[known]
    logs.configure(settings.log_level)
    app.extensions["briefly"] = wiring.build(settings, queue=RqQueue(settings.redis_url))
    app.config["SECRET_KEY"] = settings.secret_key
    return app


@pytest.fixture
def client_as(app: Flask) -> ClientAs:
    """A browser in which somebody of this role has signed in, or nobody."""

    def client(role: str) -> FlaskClient:
        browser = app.test_client()
        if role != NOBODY:
            ensure_person(app, role)
            assert sign_in(browser, email_of(role)).status_code == 303
        return browser

    return client


@pytest.fixture
def token_as(app: Flask) -> TokenAs:
    """The header of a new token of this role; no header for nobody."""

    def headers(role: str) -> dict[str, str]:
        if role == NOBODY:
            return {}
        bearer, _ = services_of(app).tokens.create(SETUP, name=f"of {role}", role=role)
        return {"Authorization": f"Bearer {bearer}"}

    return headers


def services_of(app: Flask) -> Services:
    services: Services = app.extensions["briefly"]
    return services


def email_of(role: str) -> str:
    return f"{role}@example.com"


def ensure_person(app: Flask, role: str) -> None:
    try:
        services_of(app).admins.create(SETUP, email_of(role), role, PASSWORD)
    except Refused:
        return


def sign_in(browser: FlaskClient, email: str, password: str = PASSWORD, **more: Any) -> Any:
    form = {"email": email, "password": password, "csrf_token": csrf_of(browser, "/sign-in"), **more.pop("form", {})}
    return browser.post("/sign-in", data=form, **more)


def csrf_of(browser: FlaskClient, path: str = "/me") -> str:
    """The token that a page gives to its forms."""
    page = browser.get(path).get_data(as_text=True)
    found = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
    assert found, page
    return html.unescape(found[1])


def lead(app: Flask, run_id: str) -> RunView:
    """Do what a worker does with the run."""
    return services_of(app).leading.lead(run_id, report=lambda _: None, interrupted=lambda: False, leader="test")


def as_role(app: Flask, token_as: TokenAs, role: str) -> FlaskClient:
    """A script with a token of this role; without one for nobody."""
    client = app.test_client()
    headers = token_as(role)
    if headers:
        client.environ_base |= {"HTTP_AUTHORIZATION": headers["Authorization"]}
    return client
