"""New run, the list of runs, and a run's page: what each role may do, in which state, and what it is told."""

import re
from typing import Any

import pytest
from flask import Flask, render_template

from briefly_admin.domain.config import FIELDS
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.plans import plan
from briefly_admin.services.views import RunView
from briefly_admin.web import run_forms
from tests.serving import NOBODY, SETUP, ClientAs, csrf_of, lead, services_of
from tests.web.browsing import look, send
from tests.web.rendering import Page

pytestmark = pytest.mark.usefixtures("sample_data")


def begin(app: Flask, **config: Any) -> RunView:
    return services_of(app).runs.start(SETUP, RunKind.MIGRATION, config=config)


def buttons(page: Page) -> set[str | None]:
    return {button.attributes.get("value") for button in page.every("button", name="action")}


def root(page: Page) -> dict[str, str | None]:
    return page.one("div", id="run").attributes


def test_every_setting_has_words_and_a_place() -> None:
    assert set(run_forms.LABELS) == {field.name for field in FIELDS}
    placed = [*run_forms.LIVE, *run_forms.WHAT, *run_forms.HOW, *run_forms.BY_BUTTON]
    assert sorted(placed) == sorted(field.name for field in FIELDS)


def test_the_plan_stands_above_the_form_with_the_defaults(client_as: ClientAs) -> None:
    page = look(client_as("operator"), "/runs/new")
    assert buttons(page) == {"validate", "rehearse", "start"}
    assert page.one("input", name="batchSize").attributes["value"] == "100"
    assert "checked" in page.one("input", name="createBackup").attributes
    text = page.one("main").text
    assert "users" in text
    assert "a missing subscription tier becomes 'free'" in text
    assert "Without one, rollback is not available" in text
    assert "CREATE INDEX CONCURRENTLY" in page.one("details", id="changes").text


def test_a_rehearsal_goes_from_the_form_to_its_report(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("operator")
    form = {"onInvalid": "skip", "batchSize": "1,000", "validateData": "y", "logLevel": "info"}
    send(browser, "/runs", form=form, action="rehearse")
    view = services_of(app).runs.get(SETUP, "1")
    assert (view.config["dryRun"], view.config["batchSize"], view.config["onInvalid"]) == (True, 1000, "skip")
    assert root(look(browser, "/runs/1"))["hx-trigger"] == "every 1s"
    lead(app, view.id)
    page = look(browser, "/runs/1")
    assert "hx-trigger" not in root(page)
    assert page.one("section", id="rehearsal")
    assert "nothing was committed" in page.one("p", class_="sentence").text
    assert not [link for link in page.every("a") if "rollback" in (link.attributes["href"] or "")]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("batchSize", "0", 'Must be from 1 to 10,000, or "auto"; got 0.'), ("batchSize", "1.5", "Must be an integer"),
        ("pause", "", "Must be an integer"), ("maxRetries", "9" * 400, "Must be an integer"),
        ("workers", "-1", "Must be from 1 to 64"), ("onInvalid", "ignore", "Not a valid choice"),
        ("logLevel", "<script>", "Not a valid choice"),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_said_beside_its_field(
    app: Flask, client_as: ClientAs, field: str, value: str, said: str
) -> None:
    page = send(client_as("operator"), "/runs", 400, form={"action": "start", field: value})
    assert said in page.one("div", id=f"{field}-errors").text
    assert not services_of(app).runs.count(SETUP)


def test_an_unknown_action_starts_nothing(app: Flask, client_as: ClientAs) -> None:
    page = send(client_as("operator"), "/runs", 400, action="erase")
    assert "Choose what to do" in page.one("div", role="alert").text
    assert not services_of(app).runs.count(SETUP)


def test_the_overviews_button_validates_without_any_field(app: Flask, client_as: ClientAs) -> None:
    send(client_as("operator"), "/runs", action="validate")
    assert services_of(app).runs.get(SETUP, "1").kind is RunKind.VALIDATION


def test_a_start_without_fields_asks_for_the_defaults(app: Flask, client_as: ClientAs) -> None:
    send(client_as("operator"), "/runs", action="start")
    config = services_of(app).runs.get(SETUP, "1").config
    assert (config["createBackup"], config["validateData"], config["dryRun"]) == (True, True, False)


def test_the_second_start_is_told_which_run_is_in_the_way(app: Flask, client_as: ClientAs) -> None:
    first = begin(app)
    page = send(client_as("operator"), "/runs", 409, action="start")
    alert = page.one("div", role="alert")
    assert "Run 1 (migration, pending) holds the target" in alert.text
    assert page.every("a", href=f"/runs/{first.id}")
    assert services_of(app).runs.count(SETUP) == 1


def test_a_migration_tells_its_report_and_offers_what_comes_next(app: Flask, client_as: ClientAs) -> None:
    lead(app, begin(app, onInvalid="skip").id)
    page = look(client_as("admin"), "/runs/1")
    report = page.one("section", id="report").text
    for words in ("Rows by table", "Sizes", "Timing of representative queries", "Schema changes", "can be rolled back"):
        assert words in report
    sizes = report[report.index("Sizes") : report.index("Timing of representative queries")]
    tables = [table.name for table in plan("unified").tables]
    assert sorted(tables, key=sizes.index) == tables
    name = services_of(app).runs.get(SETUP, "1").backup_name
    assert page.every("a", href=f"/backups/{name}/rollback")
    assert page.every("a", href="/runs/new?like=1")
    assert [
        picture for picture in page.every("img") if (picture.attributes["alt"] or "").startswith("Throughput over time")
    ]
    again = look(client_as("admin"), "/runs/new?like=1")
    assert "checked" in again.one("input", name="onInvalid", value="skip").attributes


def test_settings_can_be_changed_while_it_is_paused(app: Flask, client_as: ClientAs) -> None:
    view, browser = begin(app), client_as("operator")
    services = services_of(app)

    def pause_once(_: Progress) -> None:
        if services.runs.get(SETUP, view.id).state is RunState.RUNNING:
            services.runs.pause(SETUP, view.id)

    services.leading.lead(view.id, report=pause_once, interrupted=lambda: False, leader="test")
    page = look(browser, "/runs/1")
    assert buttons(page) == {"resume", "cancel", "change"}
    send(browser, "/runs/1", action="change", batchSize="7", workers="1", pause="20")
    assert services.runs.get(SETUP, "1").config["batchSize"] == 7
    wrong = send(browser, "/runs/1", 400, action="change", batchSize="0", workers="1", pause="20")
    assert "open" in wrong.one("details", id="settings").attributes
    assert services.runs.get(SETUP, "1").config["batchSize"] == 7


def test_what_the_state_does_not_allow_is_refused_in_words(app: Flask, client_as: ClientAs) -> None:
    begin(app)
    page = send(client_as("operator"), "/runs/1", action="pause")
    assert "Run 1 is pending: pause is not possible" in page.one("div", id="flashes").text
    page = send(client_as("operator"), "/runs/1", action="cancel")
    assert "Cancelled by operator@example.com" in page.one("p", class_="sentence").text
    assert "hx-trigger" not in root(page)


def test_an_unknown_deed_or_run_is_said_so(app: Flask, client_as: ClientAs) -> None:
    begin(app)
    browser = client_as("operator")
    send(browser, "/runs/1", 400, action="explode")
    for path in (
        "/runs/2",
        "/runs/2/progress",
        "/runs/2/throughput.svg",
        "/runs/nonsense",
        "/runs/%00",
        "/runs/new?like=9",
    ):
        look(browser, path, 404)


def test_who_may_do_what(app: Flask, client_as: ClientAs) -> None:
    begin(app)
    viewer, nobody = client_as("viewer"), client_as(NOBODY)
    page = look(viewer, "/runs/1")
    assert not buttons(page)
    assert "This needs the role operator" in page.one("main").text
    look(viewer, "/runs/new", 403)
    for path in ("/runs", "/runs/1"):
        token = csrf_of(viewer)
        assert viewer.post(path, data={"csrf_token": token, "action": "start"}).status_code == 403
        assert nobody.get(path).status_code in {302, 303}
    assert services_of(app).runs.count(SETUP) == 1


def test_each_part_renders_alone_and_hostile_words_stay_words(app: Flask, client_as: ClientAs) -> None:
    lead(app, begin(app, dryRun=True, onInvalid="skip").id)
    part = Page(client_as("viewer").get("/runs/1/progress").get_data(as_text=True))
    assert part.all[0].attributes["id"] == "run"
    with app.test_request_context("/runs/1"):
        from briefly_admin.web.run_view import run_page

        view = services_of(app).runs.get(SETUP, "1")
        page = run_page(view, services_of(app).runs.log(SETUP, "1"), view.created_at)
        form = run_forms.LiveForm(formdata=None, data=view.config)
        for name in ("_settings", "_tables", "_log", "_report", "_rehearsal"):
            assert Page(render_template(f"runs/{name}.html", run=page, form=form)).all, name


def test_runs_are_listed_newest_first(app: Flask, client_as: ClientAs) -> None:
    for _ in range(3):
        services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    text = look(client_as("viewer"), "/runs").one("tbody").text
    assert re.findall(r"Run (\d)", text) == ["3", "2", "1"]
    assert re.findall(r"Run (\d)", look(client_as("viewer"), "/runs?before=3").one("tbody").text) == ["2", "1"]
    look(client_as("viewer"), "/runs?before=-1&before=x")


def test_the_picture_is_a_file_without_scripts(app: Flask, client_as: ClientAs) -> None:
    lead(app, begin(app, dryRun=True, onInvalid="skip").id)
    answer = client_as("viewer").get("/runs/1/throughput.svg")
    assert answer.mimetype == "image/svg+xml"
    assert b"<script" not in answer.data
    assert b"<svg" in answer.data


def test_polls_do_not_keep_a_session_alive(app: Flask) -> None:
    from briefly_admin.services.access import is_polled

    for endpoint in ("runs.progress", "pictures.throughput", "overview.active_runs", "checks.part"):
        assert is_polled(app.view_functions[endpoint], "GET"), endpoint
    assert not is_polled(app.view_functions["runs.show"], "GET")
