"""The overview: ready or not, what runs, what ran, what is kept, what needs somebody."""

import pytest
from flask import Flask

from briefly_admin.domain.runs import RunKind
from tests.serving import NOBODY, SETUP, ClientAs, csrf_of, lead, services_of
from tests.web.browsing import look
from tests.web.rendering import Page

pytestmark = pytest.mark.usefixtures("sample_data")


def test_a_new_installation_says_what_to_do_first(client_as: ClientAs) -> None:
    page = look(client_as("operator"), "/")
    ready = page.one("section", id="ready")
    assert "Not checked yet" in ready.text
    assert (ready.attributes["hx-post"], ready.attributes["hx-trigger"]) == ("/ready", "load")
    assert "No run yet" in page.one("main").text
    assert page.every("a", href="/runs/new")


def test_a_viewer_is_offered_nothing_that_the_role_forbids(client_as: ClientAs) -> None:
    viewer = client_as("viewer")
    page = look(viewer, "/")
    assert "hx-post" not in page.one("section", id="ready").attributes
    assert not page.every("a", href="/runs/new")
    assert viewer.post("/ready", data={"csrf_token": csrf_of(viewer)}).status_code == 403
    assert client_as(NOBODY).get("/").status_code in {302, 303}


def test_the_card_looks_anew_by_itself(client_as: ClientAs) -> None:
    browser = client_as("operator")
    answer = browser.post("/ready", data={"csrf_token": csrf_of(browser)})
    card = Page(answer.get_data(as_text=True)).all[0]
    assert card.attributes["id"] == "ready"
    assert "hx-post" not in card.attributes
    # No worker listens in this test.
    assert "Ready to migrate, with warnings" in card.text
    assert "worker" in card.text


def test_an_active_run_is_shown_live_and_then_no_more(app: Flask, client_as: ClientAs) -> None:
    run, browser = services_of(app).runs.start(SETUP, RunKind.VALIDATION), client_as("viewer")
    strip = look(browser, "/").one("div", id="active")
    assert "Run 1" in strip.text
    assert (strip.attributes["hx-get"], strip.attributes["hx-trigger"]) == ("/active?had=some", "every 1s")
    assert "HX-Refresh" not in browser.get("/active?had=some").headers
    lead(app, run.id)
    ended = browser.get("/active?had=some")
    assert ended.headers["HX-Refresh"] == "true"
    strip = Page(ended.get_data(as_text=True)).all[0]
    assert strip.attributes["hx-trigger"] == "every 10s"
    assert "hidden" in strip.attributes
    assert "HX-Refresh" not in browser.get(strip.attributes["hx-get"] or "").headers


def test_runs_backups_and_what_needs_attention_are_listed(app: Flask, client_as: ClientAs) -> None:
    lead(app, services_of(app).runs.start(SETUP, RunKind.BACKUP).id)
    lead(app, services_of(app).runs.start(SETUP, RunKind.MIGRATION, config={"maxRetries": 0, "validateData": True}).id)
    services_of(app).backups.list(SETUP)
    page = look(client_as("viewer"), "/")
    text = page.one("main").text
    for backup in services_of(app).backups.list(SETUP):
        assert backup.name in text
    assert "backup" in text
    assert "migration" in text
