"""The page Audit: events with filters, the verdict on the chain, and the export."""

import csv
import io
import json

import psycopg
from flask import Flask

from briefly_admin.domain.permissions import Actor, Role
from tests.serving import SETUP, ClientAs, services_of
from tests.web.browsing import inline_scripts, look, send
from tests.web.rendering import HOSTILE, Page

ANA = Actor("ana@example.com", Role.ADMIN, "page", "192.0.2.7")


def record(app: Flask, count: int, *, actor: Actor = ANA, action: str = "run.start", name: str = "run") -> None:
    for number in range(1, count + 1):
        services_of(app).audit.record(actor, action, f"{name} {number}", {"number": number})


def numbers(page: Page) -> list[int]:
    return [int(cell.text.replace(",", "")) for cell in page.every("td", data_label="#")]


def objects(page: Page) -> list[str]:
    return [cell.text.strip() for cell in page.every("td", data_label="On what")]


def test_everybody_signed_in_reads_who_did_what_when_and_from_where(app: Flask, client_as: ClientAs) -> None:
    record(app, 1)
    page = look(client_as("viewer"), "/audit?action=run.start")
    row = page.every("tr")[1].text
    assert "ana@example.com" in row
    assert "run.start" in row
    assert "192.0.2.7" in row
    assert "number: 1" in row
    assert page.one("a", href="/runs/1").text == "run 1"
    assert page.every("time")


def test_filters_hold_together_and_a_filter_without_events_says_so(app: Flask, client_as: ClientAs) -> None:
    record(app, 3)
    record(app, 2, actor=SETUP, action="backup.pin", name="backup")
    browser = client_as("viewer")
    assert len(numbers(look(browser, "/audit?action=backup"))) == 2
    assert len(numbers(look(browser, "/audit?actor=ANA&action=run&object=run+2"))) == 1
    assert look(browser, "/audit?actor=ana").one("input", id="actor").attributes["value"] == "ana"
    nothing = look(browser, "/audit?actor=nobody-like-this")
    assert "No such events" in nothing.one("main").text
    assert numbers(look(browser, "/audit?actor=%25")) == [], "wildcards are plain characters"
    assert look(browser, "/audit?actor=%00&action=%00x").one("main")


def test_pages_go_by_number(app: Flask, client_as: ClientAs) -> None:
    record(app, 60)
    browser = client_as("viewer")
    first = look(browser, "/audit?action=run")
    assert len(numbers(first)) == 50
    older = look(browser, first.one("a", rel="next").attributes["href"] or "")
    assert len(numbers(older)) == 10
    assert numbers(older)[0] == numbers(first)[-1] - 1
    assert not older.every("a", rel="next")
    assert numbers(look(browser, older.one("a", rel="prev").attributes["href"] or "")) == numbers(first)


def test_a_page_that_cannot_be_is_the_first(app: Flask, client_as: ClientAs) -> None:
    record(app, 1)
    browser = client_as("viewer")
    for before in ("x", "-1", "0", "1e9", "9" * 30, "%00", "²", "9223372036854775808"):
        assert objects(look(browser, f"/audit?action=run&before={before}")) == ["run 1"], before


def test_text_from_outside_is_escaped(app: Flask, client_as: ClientAs) -> None:
    services_of(app).audit.record(Actor(HOSTILE, Role.VIEWER, "api", HOSTILE), HOSTILE, HOSTILE, {HOSTILE: HOSTILE})
    page = look(client_as("viewer"), "/audit?actor=%3Cscript%3E")
    assert not inline_scripts(page)
    assert objects(page) == [HOSTILE]


def test_an_intact_chain_is_said_to_be_intact(app: Flask, client_as: ClientAs) -> None:
    record(app, 3)
    browser = client_as("viewer")
    count = numbers(look(browser, "/audit"))[0]
    assert f"The chain of {count} events is intact" in send(browser, "/audit/verify").one("div", id="flashes").text


def test_a_broken_chain_is_said_to_be_broken_where(
    app: Flask, client_as: ClientAs, superuser_database: object, app_database: str
) -> None:
    record(app, 3)
    browser = client_as("viewer")
    assert callable(superuser_database)
    with psycopg.connect(superuser_database(app_database)) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE briefly_admin.audit SET actor = 'mallory' WHERE number = 2")
    text = send(browser, "/audit/verify").one("div", id="flashes").text
    assert "broken at event 2" in text
    assert "not what was written" in text


def test_the_export_holds_every_event_in_order(app: Flask, client_as: ClientAs) -> None:
    record(app, 3)
    services_of(app).audit.record(Actor("=HYPERLINK(1)", Role.VIEWER, "api"), "run.start", "run 4", {"a": "b,\n"})
    browser = client_as("admin")
    answer = browser.get("/audit/export.json")
    assert answer.mimetype == "application/json"
    assert "attachment" in answer.headers["Content-Disposition"]
    events = json.loads(answer.get_data())
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["action"] == "audit.export"
    assert {"actor", "at", "address", "link", "previous", "details"} <= events[0].keys()

    rows = list(csv.DictReader(io.StringIO(browser.get("/audit/export.csv").get_data(as_text=True))))
    assert len(rows) == len(events) + 1
    (formula,) = [row for row in rows if "HYPERLINK" in row["actor"]]
    assert formula["actor"] == "'=HYPERLINK(1)"
    assert json.loads(formula["details"]) == {"a": "b,\n"}


def test_only_an_admin_exports(app: Flask, client_as: ClientAs) -> None:
    for role in ("viewer", "operator"):
        browser = client_as(role)
        assert browser.get("/audit/export.csv").status_code == 403
        assert not look(browser, "/audit").every("a", href="/audit/export.csv")
    assert look(client_as("admin"), "/audit").one("a", href="/audit/export.csv")
    assert client_as("admin").get("/audit/export.exe").status_code == 404
    assert app.test_client().get("/audit/export.csv").status_code == 303
    assert client_as("viewer").get("/audit/verify").status_code == 405
