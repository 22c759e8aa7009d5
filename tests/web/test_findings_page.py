"""Findings of a run: by table and class, against the validation before, narrowed, downloaded; small whatever it found."""

import csv
import io
import json
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import delete, insert, select, update

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.runs import RunKind
from briefly_admin.settings import Settings
from briefly_admin.store import tables
from briefly_admin.store.database import Connection
from briefly_admin.web.findings_files import as_csv
from tests.quarantined import break_emails, quarantine
from tests.serving import NOBODY, SETUP, ClientAs, lead, services_of
from tests.web.browsing import look
from tests.web.rendering import Page


def _read(connection: Connection, run_id: str) -> dict[str, Any]:
    """What a run has become, with its phases and findings."""
    read: dict[str, Any] = {}
    for table in (tables.run_phase, tables.finding):
        columns = [column for column in table.c if column.name not in {"id", "run_id"}]
        found = connection.execute(select(*columns).where(table.c.run_id == run_id)).mappings()
        read[table.name] = [dict(each) for each in found]
    columns = [tables.run.c[name] for name in ("state", "phase", "report", "started_at", "completed_at")]
    return read | {"run": dict(connection.execute(select(*columns).where(tables.run.c.id == run_id)).mappings().one())}


def _write(connection: Connection, run_id: str, read: dict[str, Any]) -> None:
    """The run becomes what another one became."""
    for table in (tables.run_phase, tables.finding):
        connection.execute(delete(table).where(table.c.run_id == run_id))
        connection.execute(insert(table).values([each | {"run_id": run_id} for each in read[table.name]]))
    connection.execute(update(tables.run).where(tables.run.c.id == run_id).values(read["run"]))


@pytest.fixture(scope="module")
def looked() -> dict[str, Any]:
    """What the first validation of this module became and found: the others look at the same rows."""
    return {}


@pytest.fixture
def validated(app: Flask, target_database: str, sample_data: dict[str, int], looked: dict[str, Any]) -> str:
    """A validation of data with blocking and repairable faults in two tables."""
    assert sample_data
    break_emails(target_database, 3)
    with psycopg.connect(target_database) as target:
        target.execute("UPDATE users SET subscription_tier = NULL")
        target.execute("UPDATE file_metadata SET filename = NULL, file_size = -1")
    run = services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    if not looked:
        lead(app, run.id)
    with services_of(app).servers.database.begin() as connection:
        if looked:
            _write(connection, run.id, looked)
        else:
            looked |= _read(connection, run.id)
    return run.id


def test_findings_stand_by_table_with_class_count_and_samples(client_as: ClientAs, validated: str) -> None:
    page = look(client_as("viewer"), f"/runs/{validated}/findings")
    text = page.one("main").text
    assert "users.email" in text
    assert {"blocking", "repairable"} <= {badge.text.strip() for badge in page.every("span") if badge.text.strip()}
    assert page.every("div", aria_label="Findings of users")
    assert [summary for summary in page.every("summary") if "sample" in summary.text]


def test_the_filter_narrows_by_class_and_table(client_as: ClientAs, validated: str) -> None:
    browser = client_as("viewer")
    page = look(browser, f"/runs/{validated}/findings?class=repairable&table=users")
    assert page.every("div", aria_label="Findings of users")
    assert not page.every("div", aria_label="Findings of file_metadata")
    assert not [badge for badge in page.one("div", aria_label="Findings of users").text.split() if badge == "blocking"]
    assert "Nothing matches" in look(browser, f"/runs/{validated}/findings?table=nonsense").one("main").text
    look(browser, f"/runs/{validated}/findings?class=%00&phase=x&table='")


def test_all_downloads_hold_what_the_page_shows(app: Flask, client_as: ClientAs, validated: str) -> None:
    browser, found = client_as("viewer"), services_of(app).findings.list(SETUP, validated, phase="validate")
    answer = browser.get(f"/runs/{validated}/findings.json")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="findings-of-run-1.json"'
    assert len(json.loads(answer.data)["findings"]) == len(found)
    rows = list(csv.DictReader(io.StringIO(browser.get(f"/runs/{validated}/findings.csv").get_data(as_text=True))))
    assert sum(int(row["rows"]) for row in rows) == sum(finding.count for finding in found)
    narrowed = browser.get(f"/runs/{validated}/findings.json?class=notice").get_json()["findings"]
    assert {finding["class"] for finding in narrowed} <= {"notice"}
    lines = browser.get(f"/runs/{validated}/findings.ndjson").get_data(as_text=True).splitlines()
    assert [json.loads(line) for line in lines] == json.loads(answer.data)["findings"]
    assert browser.get(f"/runs/{validated}/findings.csv").is_streamed
    assert browser.get(f"/runs/{validated}/findings.xlsx").status_code == 404


def test_every_row_of_one_finding_is_a_file_too(client_as: ClientAs, validated: str, target_database: str) -> None:
    browser = client_as("viewer")
    page = look(browser, f"/runs/{validated}/findings?class=blocking&table=users")
    links = {
        each.text: each.attributes["href"] or ""
        for each in page.every("a")
        if "/findings/rows." in (each.attributes["href"] or "")
    }
    answer = browser.get(links["NDJSON"])
    assert answer.headers["Content-Disposition"] == 'attachment; filename="rows-of-users-email-email-run-1.ndjson"'
    assert answer.is_streamed
    rows = [json.loads(line) for line in answer.get_data(as_text=True).splitlines()]
    assert len(rows) == 3
    assert all(row["value"] == f"nonsense {row['key'][0]}" for row in rows)
    found = list(csv.DictReader(io.StringIO(browser.get(links["Every row: CSV"]).get_data(as_text=True))))
    assert [{"key": row["key"][0], "value": row["value"]} for row in rows] == found
    for bad in (
        "",
        "?table=users",
        "?table=x&field=y&rule=z",
        "?table=users&field=email&rule=email&class=x",
        "?table=%00&field=&rule=",
    ):
        assert browser.get(f"/runs/{validated}/findings/rows.csv{bad}").status_code in {200, 400, 404}


def test_a_spreadsheet_runs_nothing_of_it() -> None:
    found = Finding("=cmd()", "f", "+r", FindingClass.NOTICE, 1, "@m", [{"key": "-1+1"}])
    row = next(csv.reader([list(as_csv([found]))[1]]))
    assert row == ["'=cmd()", "f", "'+r", "notice", "1", "'@m", "'-1+1"]


def test_quarantined_rows_are_named_and_led_to(app: Flask, settings: Settings, client_as: ClientAs) -> None:
    run = quarantine(services_of(app), settings.database_url, SETUP, ["a", "b", "c"])
    page = look(client_as("viewer"), "/runs/1/findings")
    assert "3 rows of this run are in quarantine" in page.one("main").text
    assert page.one("a", href="/quarantine?run=1")
    overview = look(client_as("viewer"), "/")
    assert overview.every("a", href=f"/quarantine?run={run.id}")


def test_the_trend_says_what_is_less_more_new_and_gone(
    app: Flask, client_as: ClientAs, validated: str, target_database: str
) -> None:
    with psycopg.connect(target_database) as target:
        target.execute("UPDATE file_metadata SET filename = 'x'")
        target.execute("UPDATE users SET subscription_status = 'odd' WHERE id IN (SELECT id FROM users LIMIT 2)")
    break_emails(target_database, 2)
    with psycopg.connect(target_database) as target:
        target.execute(
            "UPDATE users SET email = id || '@example.com' WHERE id = (SELECT id FROM users ORDER BY id LIMIT 1)"
        )
    first = look(client_as("viewer"), f"/runs/{validated}/findings")
    assert "Since" not in first.one("main").text
    run = services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    lead(app, run.id)
    page = look(client_as("viewer"), f"/runs/{run.number}/findings")
    trends = [each.text.strip() for each in page.every("td", data_label="Since run 1")]
    assert sorted(trends) == sorted(["−1", "new", "same", "same"])
    gone = page.one("section", id="gone").text
    assert "Gone since run 1" in gone
    assert "filename" in gone


def finding(number: int, *, rows: int = 100_000, kind: FindingClass = FindingClass.BLOCKING) -> Finding:
    keys = [{"key": f"{number:032x}-{each:03}", "value": "x" * 300} for each in range(min(rows, 100))]
    return Finding(f"table_{number % 7}", f"a_rather_long_field_{number}", "one_of", kind, rows, "m" * 60, keys)


def test_a_great_many_findings_of_a_great_many_rows_make_small_pages(
    app: Flask, client_as: ClientAs, validated: str
) -> None:
    many = [finding(number) for number in range(230)]
    with services_of(app).servers.database.begin() as connection:
        for each in many:
            values = each.to_json() | {"run_id": validated, "phase": "verify"}
            connection.execute(insert(tables.finding).values(values))
    browser, seen = client_as("operator"), 0
    for number in range(1, 7):
        answer = browser.get(f"/runs/{validated}/findings?phase=verify&page={number}")
        assert len(answer.data) < 200_000
        if number < 6:
            seen += len(Page(answer.get_data(as_text=True)).every("td", data_label="Class"))
    assert seen == 230
    page = look(browser, f"/runs/{validated}/findings?phase=verify&page=2")
    assert "51 to 100 of 230 findings" in page.one("main").text
    assert page.one("a", rel="prev")
    assert page.one("a", rel="next")
    assert "and 99,995 more" in page.one("main").text
    assert "x" * 81 not in page.one("main").text, "nor are values shown whole"
    for bad in ("0", "-3", "x", "9" * 30):
        look(browser, f"/runs/{validated}/findings?phase=verify&page={bad}")


def test_samples_lead_to_the_row_and_blocking_ones_to_a_fix_for_all(client_as: ClientAs, validated: str) -> None:
    page = look(client_as("operator"), f"/runs/{validated}/findings?class=blocking&table=users")
    keys = [link for link in page.every("a") if (link.attributes["href"] or "").startswith("/rows/users?key=")]
    assert {link.text for link in keys} >= {"Correct", "Skip"}
    fix = next(link for link in page.every("a") if link.text.startswith("Fix all"))
    assert "/fix?table=users&field=" in (fix.attributes["href"] or "")
    assert "findings" in (fix.attributes["href"] or "").partition("back=")[2], "and back to what was filtered"
    repairable = look(client_as("operator"), f"/runs/{validated}/findings?class=repairable")
    assert not [link for link in repairable.every("a") if link.text.startswith("Fix all")]
    seen = look(client_as("viewer"), f"/runs/{validated}/findings?class=blocking")
    assert not [link for link in seen.every("a") if link.text.startswith("Fix all") or link.text in {"Correct", "Skip"}]
    assert [link for link in seen.every("a") if (link.attributes["href"] or "").startswith("/rows/users?key=")]


def test_a_run_without_findings_says_so_and_strangers_see_nothing(
    app: Flask, client_as: ClientAs, sample_data: dict[str, int]
) -> None:
    assert sample_data
    services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    assert "No findings" in look(client_as("viewer"), "/runs/1/findings").one("main").text
    for path in ("/runs/1/findings", "/runs/1/findings.csv", "/runs/1/findings.json"):
        assert client_as(NOBODY).get(path).status_code in {302, 303}
    look(client_as("viewer"), "/runs/2/findings", 404)
