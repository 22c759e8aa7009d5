"""The checklist: red first, with remedies; made anew on demand, read cheaply by the page itself."""

import psycopg
import pytest
from flask import Flask

from tests.serving import NOBODY, SETUP, ClientAs, csrf_of, services_of
from tests.web.browsing import look, send
from tests.web.rendering import Page

pytestmark = pytest.mark.usefixtures("sample_data")


def test_before_the_first_look_the_page_asks_for_one(client_as: ClientAs) -> None:
    section = look(client_as("operator"), "/checks").one("section", id="checklist")
    assert (section.attributes["hx-post"], section.attributes["hx-trigger"]) == ("/checks", "load")
    viewers = look(client_as("viewer"), "/checks").one("section", id="checklist")
    assert "Somebody with the role operator can look" in viewers.text
    assert viewers.attributes["hx-trigger"] == "every 10s"


def test_re_check_looks_now_and_red_stands_first(client_as: ClientAs, target_database: str) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute("DROP TABLE user_settings")
    page = send(client_as("operator"), "/checks", action="check")
    section = page.one("section", id="checklist")
    assert "A run would be refused" in section.text
    first = next(item for item in page.every("li") if "check" in (item.attributes.get("class") or "").split())
    assert first.attributes["class"] == "check check-red"
    assert "What to do:" in first.text


def test_the_list_alone_is_read_without_looking_again(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("operator")
    headers = {"HX-Request": "true"}
    answer = browser.post("/checks", data={"csrf_token": csrf_of(browser)}, headers=headers)
    assert Page(answer.get_data(as_text=True)).all[0].attributes["hx-get"] == "/checks/list"
    before = services_of(app).checks.cached(SETUP)
    part = Page(browser.get("/checks/list", headers=headers).get_data(as_text=True))
    assert part.all[0].attributes["id"] == "checklist"
    assert services_of(app).checks.cached(SETUP) == before


def test_who_may_look_again(client_as: ClientAs) -> None:
    viewer, nobody = client_as("viewer"), client_as(NOBODY)
    assert viewer.post("/checks", data={"csrf_token": csrf_of(viewer)}).status_code == 403
    assert nobody.get("/checks").status_code in {302, 303}
    assert not [button for button in look(viewer, "/checks").every("button") if "Re-check" in button.text]
