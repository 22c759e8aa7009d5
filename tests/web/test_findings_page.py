"""Findings of a run: by table and class, narrowed, downloaded; quarantined rows beside them."""

import csv
import io
import json

import pytest
from flask import Flask

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine.sampledata import create
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.web.findings_view import as_csv
from tests.serving import NOBODY, SETUP, ClientAs, lead, services_of
from tests.web.browsing import look


@pytest.fixture
def validated(app: Flask, target_database: str) -> str:
    """A validation of dirty data."""
    create(Target(target_database), plan("unified"), dirty=5, embeddings=0)
    run = services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    lead(app, run.id)
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
    assert not page.every("div", aria_label="Findings of oauth_tokens")
    assert not [badge for badge in page.one("div", aria_label="Findings of users").text.split() if badge == "blocking"]
    assert "Nothing matches" in look(browser, f"/runs/{validated}/findings?table=nonsense").one("main").text
    look(browser, f"/runs/{validated}/findings?class=%00&phase=x&table='")


def test_both_downloads_hold_what_the_page_shows(app: Flask, client_as: ClientAs, validated: str) -> None:
    browser, found = client_as("viewer"), services_of(app).findings.list(SETUP, validated, phase="validate")
    answer = browser.get(f"/runs/{validated}/findings.json")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="findings-of-run-1.json"'
    assert len(json.loads(answer.data)["findings"]) == len(found)
    rows = list(csv.DictReader(io.StringIO(browser.get(f"/runs/{validated}/findings.csv").get_data(as_text=True))))
    assert sum(int(row["rows"]) for row in rows) == sum(finding.count for finding in found)
    narrowed = browser.get(f"/runs/{validated}/findings.json?class=notice").get_json()["findings"]
    assert {finding["class"] for finding in narrowed} <= {"notice"}
    assert browser.get(f"/runs/{validated}/findings.xlsx").status_code == 404


def test_a_spreadsheet_runs_nothing_of_it() -> None:
    finding = Finding("=cmd()", "f", "+r", FindingClass.NOTICE, 1, "@m", [{"key": "-1+1"}])
    row = next(csv.reader([as_csv([finding]).splitlines()[1]]))
    assert row == ["'=cmd()", "f", "'+r", "notice", "1", "'@m", "'-1+1"]


def test_quarantined_rows_stand_below_with_their_reason(app: Flask, client_as: ClientAs, target_database: str) -> None:
    create(Target(target_database), plan("unified"), dirty=5, embeddings=0)
    run = services_of(app).runs.start(SETUP, RunKind.MIGRATION, config={"onInvalid": "skip"})
    view = lead(app, run.id)
    page = look(client_as("viewer"), "/runs/1/findings")
    section = page.one("section", id="quarantine")
    assert f"{view.quarantined} rows" in section.text
    overview = look(client_as("viewer"), "/")
    assert overview.every("a", href=f"/runs/{run.id}/findings#quarantine")


def test_a_run_without_findings_says_so_and_strangers_see_nothing(app: Flask, client_as: ClientAs) -> None:
    create(Target(services_of(app).servers.target.dsn), plan("unified"), embeddings=0)
    services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    assert "No findings" in look(client_as("viewer"), "/runs/1/findings").one("main").text
    for path in ("/runs/1/findings", "/runs/1/findings.csv", "/runs/1/findings.json"):
        assert client_as(NOBODY).get(path).status_code in {302, 303}
    look(client_as("viewer"), "/runs/2/findings", 404)
