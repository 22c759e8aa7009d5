"""theme.js and app.js in a real browser, under the policy that the program sends: no inline script, no inline style."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import Flask, Response, redirect, render_template_string, request
from jinja2 import StrictUndefined
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect
from werkzeug.serving import make_server
from werkzeug.wrappers import Response as BaseResponse

from briefly_admin.domain.permissions import Role
from briefly_admin.web import parts
from tests.web.rendering import ROOT

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'"
)
LIVE = """
<div id="live" hx-get="/live" hx-trigger="every 200ms" hx-swap="morph:outerHTML">
  <output id="count">{{ count }}</output>
  <details id="row"><summary>Samples</summary><p>a row</p></details>
  <label>Note <input id="note" name="note"></label>
</div>"""
PAGE = (
    """
{% extends "layouts/base.html" %}
{% from "components/_actions.html" import actions %}
{% from "components/_bar.html" import progress %}
{% from "components/_confirm.html" import typed, confirm_button %}
{% from "components/_form.html" import csrf %}
{% from "components/_status.html" import status %}
{% from "components/_table.html" import table %}
{% block content %}<h1>Run 42</h1> {{ status('running') }} {{ progress('Rows', 3, 10, '30 %') }}
{{ actions(buttons) }}"""
    + LIVE
    + """
{% call table('Runs', [('Run', ''), ('Rows', 'num')], stacked=true) %}
<tr><td>42</td><td class="num" data-label="Rows">1,284,003</td></tr>{% endcall %}
<form method="post" action="/roll-back" data-confirm>{{ csrf() }}
  <label>Reason <input id="reason" name="reason" required></label>
  {{ typed(word, 'ROLLBACK', 'type ROLLBACK') }} {{ confirm_button('Roll back') }}
</form>{% endblock %}"""
)


@dataclass
class Word:
    """What the macro reads of a WTForms field."""

    id: str = "word"
    name: str = "word"
    data: str = ""
    errors: tuple[str, ...] = ()


@dataclass
class Site:
    url: str = ""
    posts: list[str] = field(default_factory=list)
    polls: int = 0
    idle_seconds: int = 0


def build(site: Site) -> Flask:
    app = Flask("pages", root_path=str(ROOT))
    app.secret_key = "only for this test"
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.globals["csrf_token"] = lambda: "a-token"

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @app.get("/")
    def page() -> str:
        frame = parts.Site("1", "/", parts.navigation(Role.ADMIN, "", "/"), idle_seconds=site.idle_seconds)
        buttons = [
            parts.Button("pause", "Pause", "/act"),
            parts.Button("cancel", "Cancel", "/act", confirm="Cancel it?"),
        ]
        return render_template_string(PAGE, site=frame, buttons=buttons, word=Word(), count=site.polls)

    @app.get("/live")
    def live() -> str:
        site.polls += 1
        return render_template_string(LIVE, count=site.polls)

    @app.post("/act")
    @app.post("/roll-back")
    def act() -> BaseResponse:
        site.posts.append(f"{request.path} {request.headers.get('X-CSRFToken', request.form['csrf_token'])}")
        time.sleep(0.3)
        return redirect("/")

    return app


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    server = make_server("127.0.0.1", 0, build(site), threaded=True)
    site.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Iterator[Page]:
    page = context.new_page()
    complaints: list[str] = []

    def listen(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(site.url)
    yield page
    assert [text for text in complaints if "INTERNET_DISCONNECTED" not in text and "htmx:" not in text] == []


def test_the_theme_follows_the_system_until_somebody_chooses(page: Page) -> None:
    html, switch = page.locator("html"), page.locator("[data-theme-switch]")
    expect(html).to_have_attribute("data-bs-theme", "light")
    switch.click()
    expect(html).to_have_attribute("data-bs-theme", "dark")
    page.reload()
    expect(html).to_have_attribute("data-bs-theme", "dark")
    expect(switch).to_have_accessible_name("Switch to the light theme")
    switch.click()
    page.emulate_media(color_scheme="dark")
    expect(html).to_have_attribute("data-bs-theme", "dark")


def test_a_confirmation_is_off_until_all_is_right_and_says_what_is_missing(page: Page, site: Site) -> None:
    button, missing = page.locator("#confirm"), page.locator("#confirm-missing")
    expect(button).to_be_disabled()
    expect(missing).to_have_text("Still missing: fill in “Reason”; type ROLLBACK.")
    page.fill("#reason", "wrong plan")
    page.fill("#word", "rollback")
    expect(missing).to_have_text("Still missing: type ROLLBACK.")
    expect(button).to_be_disabled()
    page.fill("#word", "ROLLBACK")
    expect(missing).to_have_text("")
    button.click()
    expect(button).to_be_disabled()
    assert site.posts == ["/roll-back a-token"]


def test_a_double_click_posts_once_and_the_next_click_again(page: Page, site: Site) -> None:
    button = page.locator("button[value=pause]")
    button.dblclick()
    expect(page.locator("form[data-sent]")).to_have_count(0)
    assert site.posts == ["/act a-token"]
    button.click()
    expect(page.locator("form[data-sent]")).to_have_count(0)
    assert len(site.posts) == 2


def test_a_question_answered_with_no_sends_nothing(page: Page, site: Site) -> None:
    button = page.locator("button[value=cancel]")
    page.once("dialog", lambda dialog: dialog.dismiss())
    button.click()
    assert site.posts == []
    page.once("dialog", lambda dialog: dialog.accept())
    button.click()
    expect(page.locator("form[data-sent]")).to_have_count(0)
    assert site.posts == ["/act a-token"]


def test_polling_keeps_focus_open_rows_and_half_filled_fields(page: Page) -> None:
    page.click("#row summary")
    page.fill("#note", "half")
    for _ in range(3):
        expect(page.locator("#count")).not_to_have_text(page.inner_text("#count"))
    expect(page.locator("#note")).to_have_value("half")
    expect(page.locator("#note")).to_be_focused()
    expect(page.locator("#row p")).to_be_visible()


def test_an_action_on_the_same_page_keeps_what_was_typed_elsewhere(page: Page) -> None:
    page.fill("#reason", "half a reason")
    page.click("button[value=pause]")
    expect(page.locator("form[data-sent]")).to_have_count(0)
    expect(page.locator("#reason")).to_have_value("half a reason")
    expect(page.locator("[data-theme-switch]")).to_be_visible()


def test_a_lost_connection_is_told_and_its_return_too(page: Page, context: BrowserContext) -> None:
    notice = page.locator("#connection")
    context.set_offline(True)
    expect(notice).to_contain_text("The connection is lost")
    context.set_offline(False)
    expect(notice).to_have_text("Connected again.")
    expect(notice).to_have_text("", timeout=8000)


def test_a_session_about_to_end_is_told_and_can_be_kept(page: Page, site: Site) -> None:
    site.idle_seconds = 121
    page.reload()
    notice = page.locator("#idle")
    expect(notice).to_contain_text("You will be signed out in 2 minutes.")
    site.idle_seconds = 0
    notice.get_by_role("button").click()
    expect(notice).to_have_text("", timeout=900)


def test_no_page_is_kept_in_the_browsers_storage(page: Page) -> None:
    page.click("button[value=pause]")
    expect(page.locator("form[data-sent]")).to_have_count(0)
    kept = page.evaluate("JSON.stringify([localStorage, sessionStorage])")
    assert "Run 42" not in kept


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_pass_axe_and_fit(page: Page, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    violations = Axe().run(page).response["violations"]
    assert [(found["id"], [node["target"] for node in found["nodes"]]) for found in violations] == []


def test_without_javascript_the_menu_opens_and_the_server_decides(browser: Browser, site: Site) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, java_script_enabled=False)
    page = context.new_page()
    page.goto(site.url)
    page.get_by_text("Menu", exact=True).click()
    expect(page.get_by_role("navigation", name="Menu").get_by_role("link", name="Backups")).to_be_visible()
    page.get_by_text("Menu", exact=True).click()
    expect(page.locator("#confirm")).to_be_enabled()
    expect(page.locator("[data-theme-switch]")).to_be_hidden()
    page.locator("button[value=pause]").click()
    assert site.posts == ["/act a-token"]
    context.close()
