"""REQUIRE_APPROVAL=1, on the pages: who may approve what another one asked for, seeing what that is."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask

from briefly_admin import create_app
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView
from briefly_admin.settings import Settings
from tests.serving import SETUP, ClientAs, services_of
from tests.web.browsing import look, send

pytestmark = pytest.mark.usefixtures("sample_data")


@pytest.fixture
def app(settings: Settings) -> Iterator[Flask]:
    """One that lets nothing begin that a second admin has not approved."""
    strict = create_app(replace(settings, require_approval=True))
    yield strict
    services_of(strict).close()


def asked(app: Flask, actor: Actor = SETUP) -> RunView:
    run = services_of(app).runs.start(actor, RunKind.MIGRATION, config={"onInvalid": "skip"})
    assert run.state is RunState.AWAITING_APPROVAL
    return run


def test_another_admin_sees_what_begins_and_approves_it(app: Flask, client_as: ClientAs) -> None:
    run, browser = asked(app), client_as("admin")
    page = look(browser, f"/runs/{run.number}")
    assert page.one("div", id="run").attributes["hx-trigger"] == "every 1s", "somebody else may approve it"
    assert page.one("a", href=f"/runs/{run.number}/approve").text == "Approve"
    assert "until" in page.one("section", id="facts").text

    confirmation = look(browser, f"/runs/{run.number}/approve").one("main").text
    for words in ("Asked for by", "setup", run.target_title, run.plan_title, "are skipped into quarantine"):
        assert words in confirmation
    after = send(browser, f"/runs/{run.number}/approve", action="approve")
    assert services_of(app).runs.get(SETUP, run.id).state is RunState.PENDING
    assert "is approved" in after.one("main").text
    facts = after.one("section", id="facts").text
    for words in ("Approved by", "admin@example.com", "good until", "What was approved", "plan unified"):
        assert words in facts


def test_who_asked_and_lesser_roles_cannot_approve(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("admin")
    own = asked(app, Actor("admin@example.com", Role.ADMIN, "page"))
    page = look(browser, f"/runs/{own.number}")
    assert "Another admin approves what you have asked for" in page.one("main").text
    assert not page.every("a", href=f"/runs/{own.number}/approve")
    for verb in (browser.get, browser.post):
        assert verb(f"/runs/{own.number}/approve").status_code in {303, 400}
    refused = send(browser, f"/runs/{own.number}/approve", action="approve")
    assert "another admin approves it" in refused.one("main").text
    for role in ("operator", "viewer"):
        lesser = client_as(role)
        assert "This needs the role admin" in look(lesser, f"/runs/{own.number}").one("main").text
        look(lesser, f"/runs/{own.number}/approve", 403)
        send(lesser, f"/runs/{own.number}/approve", 403, action="approve")
    assert services_of(app).runs.get(SETUP, own.id).state is RunState.AWAITING_APPROVAL


def test_what_waits_for_nothing_leads_back_to_its_run(app: Flask, client_as: ClientAs) -> None:
    run, browser = asked(app), client_as("admin")
    services_of(app).runs.cancel(SETUP, run.id)
    answer = browser.get(f"/runs/{run.number}/approve")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/runs/{run.number}")
    assert "waits for no approval" in look(browser, f"/runs/{run.number}").one("main").text
    assert "approve is not possible" in send(browser, f"/runs/{run.number}/approve").one("main").text
    assert services_of(app).runs.get(SETUP, run.id).state is RunState.CANCELLED
    look(browser, "/runs/999/approve", 404)
