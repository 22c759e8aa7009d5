"""The page Me: one's own password, sessions and tokens."""

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.web.me import agent_words
from tests.serving import PASSWORD, SETUP, ClientAs, email_of, services_of, sign_in
from tests.web.browsing import inline_scripts, look, send
from tests.web.rendering import HOSTILE, Page

NEW = "a new and long enough password"
RIGHT = {"current": PASSWORD, "password": NEW, "repeat": NEW}


def secret_on(page: Page) -> str:
    return page.one("input", id="token").attributes["value"] or ""


def tokens_of(page: Page) -> list[str]:
    return [
        form.attributes["action"] or "" for form in page.every("form") if "/revoke" in (form.attributes["action"] or "")
    ]


def test_each_role_has_a_page_and_nobody_has_none(app: Flask, client_as: ClientAs) -> None:
    for role in ("viewer", "operator", "admin"):
        page = look(client_as(role), "/me")
        assert email_of(role) in page.one("main").text
        assert page.every("option")[0].text == "viewer"
    assert app.test_client().get("/me").headers["Location"] == "/sign-in?next=/me"


def test_the_password_changes_and_the_other_sessions_end(app: Flask, client_as: ClientAs) -> None:
    elsewhere, browser = client_as("viewer"), client_as("viewer")
    before = browser.get_cookie("briefly")
    page = send(browser, "/me/password", form=RIGHT)
    assert "Your password is changed" in page.one("div", id="flashes").text
    after = browser.get_cookie("briefly")
    assert before
    assert after
    assert before.value != after.value
    assert elsewhere.get("/me").status_code == 303
    assert sign_in(app.test_client(), email_of("viewer"), NEW).status_code == 303
    assert sign_in(app.test_client(), email_of("viewer"), PASSWORD).status_code == 401


WRONG = [
    ("current", "", "Type your current"), ("current", "not the right one", "not right"), ("password", "short", "at least 15"),
    ("password", "a" * 30, "too few different"), ("repeat", "another", "not the same"), ("repeat", "", "once more"),
    ("current", "x" * 2000, ""),
]  # fmt: skip


def test_what_is_wrong_stands_beside_its_field(client_as: ClientAs) -> None:
    browser = client_as("viewer")
    for field, value, says in WRONG:
        form = RIGHT | {field: value} | ({"repeat": value} if field == "password" else {})
        page = send(browser, "/me/password", 400, form=form)
        assert says in page.one("div", id=f"{field}-errors").text
        assert NEW not in str([element.attributes for element in page.all])
        assert browser.get("/me").status_code == 200, "still signed in"


def test_guessing_the_current_password_is_throttled(client_as: ClientAs) -> None:
    browser = client_as("viewer")
    pages = [send(browser, "/me/password", 400, form=RIGHT | {"current": f"guess {n}"}) for n in range(8)]
    assert "Too many tries" in pages[-1].one("div", id="current-errors").text
    assert "Too many tries" in send(browser, "/me/password", 400, form=RIGHT).one("div", id="current-errors").text


def test_a_session_of_mine_is_ended_from_another(client_as: ClientAs) -> None:
    elsewhere, browser = client_as("viewer"), client_as("viewer")
    page = look(browser, "/me")
    (end,) = [f.attributes["action"] or "" for f in page.every("form") if "/end" in (f.attributes["action"] or "")]
    assert "this one" in page.one("main").text
    send(browser, end)
    assert elsewhere.get("/me").status_code == 303
    assert browser.get("/me").status_code == 200


def test_somebody_elses_session_is_none_of_mine(client_as: ClientAs, app_database: str) -> None:
    victim, browser = client_as("admin"), client_as("operator")
    with psycopg.connect(app_database) as connection:
        query = "SELECT s.id_hash FROM briefly_admin.session s JOIN briefly_admin.admin a ON a.id = s.admin_id WHERE a.role = 'admin'"
        (hashed,) = [row[0] for row in connection.execute(query).fetchall()]
    send(browser, f"/me/sessions/{hashed}/end", 403)
    assert victim.get("/me").status_code == 200
    for reference in ("x", "%00", "0" * 64):
        send(victim, f"/me/sessions/{reference}/end", 404)


def token(browser: FlaskClient) -> dict[str, str]:
    return {"csrf_token": look(browser, "/me").every("input", name="csrf_token")[0].attributes["value"] or ""}


def test_a_token_is_shown_once_and_opens_what_its_role_may(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("operator")
    answer = browser.post("/me/tokens", data={**token(browser), "name": "nightly", "role": "viewer", "expires": "30"})
    assert answer.headers["Cache-Control"] == "no-store"
    page = Page(answer.get_data(as_text=True))
    secret = secret_on(page)
    assert page.one("input", id="token").attributes["readonly"] is None
    header = {"Authorization": f"Bearer {secret}"}
    assert app.test_client().get("/api/migration", headers=header).status_code == 200
    again = look(browser, "/me")
    assert secret not in str([(element.text, element.attributes) for element in again.all])
    assert "nightly" in again.one("div", id="tokens").text
    send(browser, tokens_of(again)[0])
    assert app.test_client().get("/api/migration", headers=header).status_code == 401
    assert "nightly" not in look(browser, "/me").one("main").text


NO_TOKEN = [
    ("name", ""), ("name", "x" * 101), ("name", "a\x00b"), ("role", "admin"), ("role", "root"), ("role", ""), ("expires", "0"),
    ("expires", "-1"), ("expires", "99999"), ("expires", "x"),
]  # fmt: skip


def test_a_token_that_cannot_be_is_not_made(client_as: ClientAs) -> None:
    browser = client_as("operator")
    for field, value in NO_TOKEN:
        page = send(browser, "/me/tokens", 400, form={"name": "n", "role": "viewer", "expires": "7"} | {field: value})
        assert page.one("div", id=f"{field}-errors").text
        assert tokens_of(page) == []


def test_each_sees_the_own_tokens_and_an_admin_all(app: Flask, client_as: ClientAs) -> None:
    olga, vera, ana = client_as("operator"), client_as("viewer"), client_as("admin")
    olga.post("/me/tokens", data={**token(olga), "name": "of olga", "role": "operator", "expires": "7"})
    assert "of olga" not in look(vera, "/me").one("main").text
    (revoke,) = tokens_of(look(olga, "/me"))
    send(vera, revoke, 403)
    assert "Tokens of everybody" in look(ana, "/me").one("main").text
    send(ana, revoke)
    send(ana, revoke, 404)
    assert all(view.revoked for view in services_of(app).tokens.list(SETUP))


def test_hostile_names_and_browsers_are_escaped(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("viewer")
    made = send(browser, "/me/tokens", 200, name=HOSTILE, role="viewer", expires="7")
    assert not inline_scripts(made)
    other = app.test_client()
    other.environ_base["HTTP_USER_AGENT"] = HOSTILE
    assert sign_in(other, email_of("viewer")).status_code == 303
    page = look(browser, "/me")
    assert not inline_scripts(page)
    assert HOSTILE in page.one("div", id="tokens").text
    assert HOSTILE[:40] in page.one("div", id="sessions").text


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/140.0 Mobile Safari/537.36", "Chrome on Android"),
        ("curl/8.5.0", "curl/8.5.0"), ("", "unknown"), ("Firefox/1", "Firefox"),
    ],
)  # fmt: skip
def test_a_browser_reads_as_its_name_and_system(agent: str, words: str) -> None:
    assert agent_words(agent) == words


def test_wrong_verbs_and_forms_without_their_token_do_nothing(client_as: ClientAs) -> None:
    browser = client_as("viewer")
    for path in ("/me/password", "/me/tokens", "/me/sessions/x/end", "/me/tokens/x/revoke"):
        assert browser.get(path).status_code == 405
        assert browser.post(path, data=RIGHT).status_code == 400
