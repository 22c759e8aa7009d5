"""Pause, resume, cancel and change by page, in every state; what a live run shows of how it goes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.settings import Settings
from tests.serving import SETUP, ClientAs, services_of
from tests.steered import cases, put
from tests.web.browsing import look, send

FORMS: dict[str, Any] = {"change": {"batchSize": "auto", "workers": "4", "pause": "20"}}


@pytest.fixture
def page_of(app: Flask) -> str:
    services_of(app).runs.start(SETUP, RunKind.MIGRATION)
    return "/runs/1"


def test_each_action_in_each_state(app: Flask, client_as: ClientAs, page_of: str, settings: Settings) -> None:
    browser = client_as("operator")
    for action, state, result in cases():
        put(settings.database_url, state)
        offered = {b.attributes.get("value") for b in look(browser, page_of).every("button", name="action")}
        assert (action in offered) is (result is not None), (action, state)
        page = send(browser, page_of, action=action, form=FORMS.get(action))
        view = services_of(app).runs.get(SETUP, "1")
        assert view.state is (result or state), (action, state)
        assert view.config["batchSize"] == ("auto" if result and action == "change" else 100)
        if not result:
            said = page.one("div", id="flashes").text
            assert f"Run 1 is {state.value}: {action} is not possible" in said, (action, state)


def test_an_automatic_batch_size_stands_in_the_form(
    app: Flask, client_as: ClientAs, page_of: str, settings: Settings
) -> None:
    browser = client_as("operator")
    put(settings.database_url, RunState.PAUSED)
    send(browser, page_of, action="change", form={"batchSize": " AUTO ", "workers": "4", "pause": "0"})
    page = look(browser, page_of)
    field = page.one("input", name="batchSize").attributes
    assert (field["value"], field["type"]) == ("auto", "text"), "a field for numbers would show nothing"
    assert "found by itself (auto)" in page.one("section", id="facts").text
    wrong = send(browser, page_of, 400, action="change", form={"batchSize": "automatic", "workers": "4", "pause": "0"})
    assert 'from 1 to 10,000, or "auto"' in wrong.one("div", id="batchSize-errors").text
    assert wrong.one("input", name="batchSize").attributes["value"] == "automatic"
    assert services_of(app).runs.get(SETUP, "1").config["batchSize"] == "auto"


@pytest.mark.usefixtures("sample_data")
def test_a_new_run_takes_auto_and_says_who_listens(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("operator")
    hint = look(browser, "/runs/new").one("div", id="workers-help").text
    assert "0 listen now; the run goes on with what there is." in hint
    form = {"onInvalid": "skip", "batchSize": "auto", "workers": "4", "logLevel": "info"}
    send(browser, "/runs", action="start", form=form)
    view = services_of(app).runs.get(SETUP, "1")
    assert (view.config["batchSize"], view.config["workers"]) == ("auto", 4)


def test_a_live_run_shows_how_it_goes(client_as: ClientAs, page_of: str, settings: Settings) -> None:
    browser = client_as("viewer")
    until = datetime.now(UTC) + timedelta(seconds=40)
    progress = {"phase": "migrate", "waiting": "Waiting for a lock.", "waiting_until": until.isoformat(),
                "batch_size": 640, "workers": 2, "tables": [{"table": "users", "total": 10, "done": 5}]}  # fmt: skip
    put(settings.database_url, RunState.RUNNING, progress=progress, breaker_state="open", breaker_failures=3,
        breaker_why="connection <refused>", breaker_until="2026-03-01T12:03:20Z")  # fmt: skip
    part = look(browser, f"{page_of}/progress")
    waiting = part.one("p", id="waiting").text
    assert waiting.startswith("Waiting for a lock. Next try: in ")
    (moment,) = [t for t in part.every("time") if any(a.attributes.get("id") == "waiting" for a in t.ancestors)]
    assert moment.attributes["datetime"] == until.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert "2 workers · 640 rows a batch" in part.one("section", aria_label="State").text
    breaker = part.one("p", id="breaker").text
    assert "open after 3 failures in a row (connection <refused>)" in breaker
    assert "12:03:20 UTC" in breaker


def test_what_is_not_known_is_not_shown(client_as: ClientAs, page_of: str, settings: Settings) -> None:
    put(settings.database_url, RunState.RUNNING, progress={"phase": "migrate", "waiting": "A lock is held."})
    part = look(client_as("viewer"), f"{page_of}/progress")
    assert "Next try" not in part.one("p", id="waiting").text
    assert not part.every("p", id="breaker")
    assert "a batch" not in part.one("section", aria_label="State").text
    put(settings.database_url, RunState.RUNNING, progress={"phase": "migrate"})
    assert not look(client_as("viewer"), f"{page_of}/progress").every("p", id="waiting")


def test_a_changed_plan_takes_the_button_away_and_says_why(
    client_as: ClientAs, page_of: str, settings: Settings
) -> None:
    put(settings.database_url, RunState.FAILED, plan_fingerprint="0" * 64)
    browser = client_as("operator")
    page = look(browser, page_of)
    assert "resume" not in {b.attributes.get("value") for b in page.every("button", name="action")}
    assert "The plan has changed since it began" in page.one("main").text
    refused = send(browser, page_of, action="resume").one("div", id="flashes").text
    assert "its fingerprint was 000000000000…" in refused
