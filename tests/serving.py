"""The program over HTTP, on real servers, and the cast: a viewer, an operator, an admin, and nobody."""

import html
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin import create_app
from briefly_admin.domain.errors import Refused
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.services import Services
from briefly_admin.services.views import RunView
from briefly_admin.settings import Settings, load

PASSWORD = "correct horse battery staple"
SETUP = Actor("setup", Role.ADMIN, "cli")
NOBODY = "nobody"
AppAt = Callable[..., Flask]
ClientAs = Callable[[str], FlaskClient]
TokenAs = Callable[[str], dict[str, str]]


@pytest.fixture
def settings(app_database: str, target_database: str, redis_url: str, tmp_path: Path) -> Settings:
    return load({
        "DATABASE_URL": app_database, "TARGET_DATABASE_URL": target_database, "REDIS_URL": redis_url,
        "BRIEFLY_HOME": str(tmp_path), "LOG_LEVEL": "warning",
    })  # fmt: skip


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    app = create_app(settings)
    app.config["VALIDATION_WAIT_SECONDS"] = 0.0
    yield app
    services_of(app).close()
    root.handlers, root.level = handlers, level


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


@pytest.fixture
def sample_data(target_database: str) -> dict[str, int]:
    """The plan's tables with the seed's rows; rows by table."""
    from briefly_admin.engine.sampledata import create

    return create(Target(target_database), plan("unified"), embeddings=0)


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


def csrf_of(browser: FlaskClient, path: str = "/api/docs") -> str:
    """The token that a page gives to its forms."""
    page = browser.get(path).get_data(as_text=True)
    found = re.search(r'name="csrf_token"[^>]* value="([^"]+)"', page)
    assert found, page
    return html.unescape(found[1])


def lead(app: Flask, run_id: str) -> RunView:
    """Do what a worker does with the run."""
    return services_of(app).leading.lead(run_id, report=lambda _: None, interrupted=lambda: False, leader="test")
