"""The page Quarantine: causes with their counts, rows page by page, skipping and replaying; and by whom."""

from collections.abc import Callable

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView
from briefly_admin.settings import Settings
from tests.quarantined import FAULT, break_emails, quarantine
from tests.serving import NOBODY, SETUP, ClientAs, csrf_of, lead, services_of
from tests.web.browsing import inline_scripts, look, send
from tests.web.rendering import HOSTILE, Page

ROWS = "/quarantine?run={}&table=users&field=email&cause=email"


@pytest.fixture
def left_alone(
    app: Flask, settings: Settings, sample_data: dict[str, int]
) -> Callable[[int], tuple[RunView, list[str]]]:
    """A migration that left so many users alone for their e-mails, and their keys."""
    assert sample_data

    def make(number: int) -> tuple[RunView, list[str]]:
        keys = break_emails(settings.target_database_url, number)
        return quarantine(services_of(app), settings.database_url, SETUP, keys), keys

    return make


@pytest.fixture
def operator(client_as: ClientAs) -> FlaskClient:
    return client_as("operator")


def buttons(page: Page) -> set[str]:
    return {each.text.strip() for each in [*page.every("button"), *page.every("a", class_="btn btn-sm")]}


def test_what_is_corrected_or_skipped_is_not_to_fix(
    operator: FlaskClient, left_alone: Callable[[int], tuple[RunView, list[str]]], settings: Settings
) -> None:
    run, keys = left_alone(4)
    send(operator, f"/rows/users/skip?key={keys[0]}", reason="A test account")
    with psycopg.connect(settings.database_url) as app_database:
        for key in keys[:2]:
            app_database.execute(
                "UPDATE briefly_admin.quarantine SET corrected_at = now() WHERE key::jsonb ->> 0 = %s", [key]
            )
    page = look(operator, "/quarantine")
    assert {"Replay all 3", "Fix all 2"} <= buttons(page)
    rows = look(operator, ROWS.format(run.number))
    assert [each.text for each in rows.every("a", class_="btn btn-primary")] == ["Fix all 2"]


def test_an_empty_quarantine_says_what_it_is(client_as: ClientAs, sample_data: dict[str, int]) -> None:
    assert sample_data
    browser = client_as("viewer")
    page = look(browser, "/quarantine")
    assert "Nothing is in quarantine" in page.one("main").text
    assert "its repairs do not cure" in page.one("main").text
    assert {each.text.strip() for each in page.every("a", aria_current="page")} == {"Quarantine"}
    assert client_as(NOBODY).get("/quarantine").status_code == 303


def test_causes_stand_with_their_counts_and_rows(
    operator: FlaskClient, left_alone: Callable[[int], tuple[RunView, list[str]]], client_as: ClientAs
) -> None:
    run, keys = left_alone(3)
    send(operator, f"/rows/users/skip?key={keys[0]}", reason="A test account")
    page = look(operator, "/quarantine")
    counts = {each.attributes["data-label"]: each.text for each in page.every("td", class_="num")}
    assert counts == {"Rows": "3", "Corrected": "0", "Skipped": "1"}
    assert {"Replay all 2", "Replay", "Fix all 2"} <= buttons(page)
    assert page.one("h2").text.startswith(f"Run {run.number}: 3 rows")
    fix = page.one("a", class_="btn btn-sm").attributes["href"] or ""
    assert f"/fix?table=users&field=email&rule=email&run={run.number}" in fix
    look(operator, fix)
    rows = look(operator, ROWS.format(run.number))
    assert rows.one("h1").text == FAULT
    assert [each.text.strip().split()[0] for each in rows.every("td", data_label="State")] == [
        "skipped",
        "open",
        "open",
    ]
    assert rows.every("a", href=f"/rows/users?key={keys[1]}")
    assert len(rows.every("form", action=f"/rows/users/skip?key={keys[1]}")) == 1
    assert len(rows.every("form", action=f"/rows/users/unskip?key={keys[0]}")) == 1
    viewer = look(client_as("viewer"), ROWS.format(run.number))
    assert len(viewer.every("form")) == 1, "of signing out alone"
    assert not buttons(look(client_as("viewer"), "/quarantine")) & {"Replay all 2", "Replay", "Fix all 2"}


def test_rows_are_skipped_in_place_and_paged_by_key(
    operator: FlaskClient, left_alone: Callable[[int], tuple[RunView, list[str]]], target_database: str
) -> None:
    with psycopg.connect(target_database) as target:
        target.execute(
            "INSERT INTO users (id, email, created_at, updated_at) SELECT gen_random_uuid(), n || '@example.com', now(), now()"
            " FROM generate_series(1, 100) n"
        )
    run, keys = left_alone(60)
    first = look(operator, ROWS.format(run.number))
    assert "50 of 60 rows" in first.one("main").text
    assert [each.text for each in first.every("code") if len(each.text) == 36] == keys[:50]
    second = look(operator, first.one("a", rel="next").attributes["href"] or "")
    assert [each.text for each in second.every("code") if len(each.text) == 36] == keys[50:]
    assert not second.every("a", rel="next")
    answer = operator.get(ROWS.format(run.number))
    assert len(answer.data) < 200_000
    form = first.one("form", action=f"/rows/users/skip?key={keys[1]}")
    back = next(each for each in first.every("input", name="back") if form in each.ancestors).attributes["value"] or ""
    page = send(operator, f"/rows/users/skip?key={keys[1]}", reason=HOSTILE, back=back)
    assert page.one("h1").text == FAULT, "one is led back to where one was"
    assert HOSTILE in page.one("div", class_="table-region table-stacks").text
    assert not inline_scripts(page)
    for bad in (f"{ROWS.format(run.number)}&after=x&after=y", f"{ROWS.format(run.number)}&after=%00"):
        assert operator.get(bad).status_code in {200, 400}
    for bad in (
        "/quarantine?cause=x",
        "/quarantine?run=99",
        f"/quarantine?run={run.number}&table=x&field=y&cause=z",
        "/quarantine?run=%00",
    ):
        look(operator, bad, 404)


def test_corrected_rows_are_replayed_until_nothing_is_left(
    app: Flask,
    operator: FlaskClient,
    settings: Settings,
    left_alone: Callable[[int], tuple[RunView, list[str]]],
    client_as: ClientAs,
) -> None:
    done, keys = left_alone(2)
    assert (done.state, done.quarantined) == (RunState.COMPLETED_WITH_SKIPS, 2)
    page = look(operator, f"/runs/{done.number}")
    replay = page.one("form", action=f"/runs/{done.number}/replay")
    assert "Replay" in replay.text
    assert "hx-confirm" in replay.attributes

    with psycopg.connect(settings.target_database_url) as target:
        target.execute("UPDATE users SET email = id || '@example.com' WHERE id = ANY(%s::uuid[])", [keys[:1]])
    table = {"table": "users", "field": "email", "cause": "email"}
    one = replayed(app, operator, done.number, {**table, "key": keys[0]})
    assert "Replayed 1 row of run 1; 1 is left in quarantine" in one.one("main").text
    assert "Replays" in one.one("section", id="facts").text
    figures = {each.text: stat.text for each, stat in zip(one.every("dt"), one.every("dd"), strict=False)}
    assert (figures["Replayed"], figures["Left in quarantine"]) == ("1", "1")
    with psycopg.connect(settings.target_database_url) as target:
        target.execute("UPDATE users SET email = id || '@example.com' WHERE id = %s::uuid", [keys[1]])
    assert "nothing is left in quarantine" in replayed(app, operator, done.number, table).one("main").text
    assert services_of(app).runs.get(SETUP, done.id).state is RunState.COMPLETED
    assert not look(operator, f"/runs/{done.number}").every("form", action=f"/runs/{done.number}/replay")
    assert "Nothing is in quarantine" in look(operator, "/quarantine").one("main").text
    for run in services_of(app).runs.list(SETUP):
        look(client_as("viewer"), f"/runs/{run.number}")
        look(client_as("viewer"), f"/runs/{run.number}/findings")


def replayed(app: Flask, browser: FlaskClient, number: int, scope: dict[str, str]) -> Page:
    """The page of the replay that a button begins, when it has come to its end."""
    answer = browser.post(f"/runs/{number}/replay", data={"csrf_token": csrf_of(browser), **scope})
    assert answer.status_code == 303, answer.get_data(as_text=True)
    run = services_of(app).runs.get(SETUP, answer.headers["Location"].rpartition("/")[2])
    assert lead(app, run.id).finished
    return look(browser, answer.headers["Location"])


def test_what_cannot_be_replayed_is_told_on_the_page(
    app: Flask,
    operator: FlaskClient,
    left_alone: Callable[[int], tuple[RunView, list[str]]],
    client_as: ClientAs,
) -> None:
    run, keys = left_alone(2)
    at = f"/runs/{run.number}/replay"
    for scope, code in (
        ({"table": "nonsense"}, 400), ({"key": keys[0]}, 400), ({"table": "users", "key": "nobody"}, 404),
        ({"table": "users", "cause": "x"}, 409), ({"table": "users", "field": "\0", "cause": "\0"}, 409),
    ):  # fmt: skip
        page = send(operator, at, code, form=scope)
        assert "Nothing was replayed" in page.one("div", role="alert").text
        assert page.every("td", data_label="Rows"), "and what there is stands below"
    for key in keys:
        send(operator, f"/rows/users/skip?key={key}", reason="Both of them")
    assert "to be skipped" in send(operator, at, 409).one("div", role="alert").text
    validation = services_of(app).runs.start(SETUP, RunKind.VALIDATION)
    assert send(operator, f"/runs/{validation.number}/replay", 409).one("div", role="alert")
    send(operator, "/runs/99/replay", 404)
    send(client_as("viewer"), at, 403)
    assert client_as(NOBODY).post(at).status_code == 303
