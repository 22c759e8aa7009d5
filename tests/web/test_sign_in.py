"""Somebody signs in and out; strangers, thieves and other sites do not."""

from dataclasses import replace
from urllib.parse import quote

import psycopg
import pytest
from flask import Flask

from briefly_admin import create_app
from briefly_admin.settings import Settings
from briefly_admin.web.identity import confidential
from briefly_admin.web.redirects import local_path
from tests.serving import PASSWORD, SETUP, ClientAs, csrf_of, email_of, ensure_person, services_of, sign_in

ANA = email_of("admin")


def age_sessions(database: str, column: str, interval: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE briefly_admin.session SET {column} = {column} - interval '{interval}'")


def test_the_right_password_opens_a_session(app: Flask) -> None:
    ensure_person(app, "admin")
    browser = app.test_client()
    answer = sign_in(browser, ANA)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = browser.get_cookie("briefly")
    assert cookie
    assert cookie.http_only
    assert cookie.same_site == "Lax"
    assert cookie.path == "/"
    assert ANA in browser.get("/api/docs").get_data(as_text=True)
    # Whoever is signed in need not sign in again.
    assert browser.get("/sign-in?next=/audit").headers["Location"] == "/audit"


def test_unknown_people_and_wrong_passwords_read_the_same(app: Flask) -> None:
    ensure_person(app, "admin")
    texts = []
    for email, password in ((ANA, "wrong"), ("nobody@example.com", PASSWORD)):
        answer = sign_in(app.test_client(), email, password)
        assert answer.status_code == 401
        page = answer.get_data(as_text=True)
        assert 'role="alert"' in page
        assert password not in page
        texts.append(page[page.index('role="alert"') :].split("<form", 1)[0])
    assert texts[0] == texts[1]


def test_half_a_form_comes_back_with_what_is_missing(app: Flask) -> None:
    browser = app.test_client()
    token = csrf_of(browser, "/sign-in")
    forms: list[dict[str, str]] = [{}, {"email": ANA}, {"password": PASSWORD}, {"email": "x" * 300, "password": "y"}]
    for form in forms:
        answer = browser.post("/sign-in", data={"csrf_token": token, **form})
        assert answer.status_code == 400
        assert "field-errors" in answer.get_data(as_text=True)
    assert browser.get_cookie("briefly") is None


def test_a_password_with_a_nul_is_just_wrong(app: Flask) -> None:
    ensure_person(app, "admin")
    assert sign_in(app.test_client(), ANA, "\0" + PASSWORD).status_code == 401
    assert sign_in(app.test_client(), "\0", "\0").status_code == 401


def test_too_many_tries_wait(app: Flask) -> None:
    ensure_person(app, "admin")
    browser = app.test_client()
    answers = [sign_in(browser, ANA, "wrong") for _ in range(12)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert "Too many tries" in answers[-1].get_data(as_text=True)
    assert sign_in(browser, ANA).status_code == 429, "the right password waits, too"


def test_sign_in_gives_a_new_session_and_ends_the_one_that_was_brought_along(app: Flask, client_as: ClientAs) -> None:
    mallory = client_as("viewer")
    planted = mallory.get_cookie("briefly")
    assert planted
    ensure_person(app, "admin")
    victim = app.test_client()
    victim.set_cookie("briefly", planted.value)
    secret_before = csrf_of(victim)
    # The page leads away whoever is signed in, so the form comes from the page that shows one.
    form = {"email": ANA, "password": PASSWORD, "csrf_token": secret_before}
    assert victim.post("/sign-in", data=form).status_code == 303
    fresh = victim.get_cookie("briefly")
    assert fresh
    assert fresh.value != planted.value
    assert mallory.get("/api/migration").status_code == 401
    assert victim.post("/sign-out", data={"csrf_token": secret_before}).status_code == 400, "the form's secret is new"


def test_an_invented_cookie_is_nobody(app: Flask) -> None:
    for value in ("", "x", "a" * 3000, "%00"):
        browser = app.test_client()
        browser.set_cookie("briefly", value)
        assert browser.get("/api/migration").status_code == 401


def test_sign_out_ends_the_session_for_good(client_as: ClientAs) -> None:
    browser = client_as("viewer")
    stolen = browser.get_cookie("briefly")
    assert stolen
    answer = browser.post("/sign-out", data={"csrf_token": csrf_of(browser)})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in")
    assert browser.get_cookie("briefly") is None
    browser.set_cookie("briefly", stolen.value)
    assert browser.get("/api/migration").status_code == 401


def test_an_idle_session_ends_after_half_an_hour(client_as: ClientAs, app_database: str) -> None:
    browser = client_as("viewer")
    age_sessions(app_database, "seen_at", "29 minutes")
    assert browser.get("/api/migration").status_code == 200, "and this counts as use"
    age_sessions(app_database, "seen_at", "29 minutes")
    assert browser.get("/api/migration").status_code == 200
    age_sessions(app_database, "seen_at", "31 minutes")
    assert browser.get("/api/migration").status_code == 401


def test_polls_do_not_keep_a_session_alive(client_as: ClientAs, app_database: str) -> None:
    browser = client_as("viewer")
    age_sessions(app_database, "seen_at", "29 minutes")
    assert browser.get("/runs/1/progress").status_code in {200, 404}
    age_sessions(app_database, "seen_at", "2 minutes")
    assert browser.get("/api/migration").status_code == 401


def test_a_session_ends_after_twelve_hours_of_use(client_as: ClientAs, app_database: str) -> None:
    browser = client_as("viewer")
    age_sessions(app_database, "created_at", "11 hours 59 minutes")
    assert browser.get("/api/migration").status_code == 200
    age_sessions(app_database, "created_at", "2 minutes")
    assert browser.get("/api/migration").status_code == 401


def test_a_disabled_person_is_out_at_once(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("operator")
    people = services_of(app).admins
    ensure_person(app, "admin")
    (olga,) = [person for person in people.list(SETUP) if person.email == email_of("operator")]
    people.disable(SETUP, olga.id)
    assert browser.get("/api/migration").status_code == 401
    assert sign_in(app.test_client(), email_of("operator")).status_code == 401


def test_a_role_taken_away_is_gone_with_the_next_request(app: Flask, client_as: ClientAs) -> None:
    browser = client_as("operator")
    people = services_of(app).admins
    (olga,) = [person for person in people.list(SETUP) if person.email == email_of("operator")]
    people.set_role(SETUP, olga.id, "viewer")
    answer = browser.post("/api/migration", json={"action": "run"}, headers={"X-CSRFToken": csrf_of(browser)})
    assert answer.status_code == 403


LOCAL = ["/", "/audit", "/backups?state=proven", "/runs/1/findings#users", "/a%20b", "/caf%C3%A9"]
FOREIGN = [
    "", "audit", "//evil.example", "///evil.example", "/\\evil.example", "\\/evil.example", "https://evil.example",
    "http:evil", "javascript:alert(1)", "/%0d%0aSet-Cookie:a=b", "/%0aevil", "/\t/evil.example", "/\r\nx", "/%5Cevil",
    "/%2F%2Fevil", "/%252f/evil", "%2F%2Fevil", " /audit", "/../x", "/%2e%2e/x", "/\x00", "/.//evil.example",
]  # fmt: skip


@pytest.mark.parametrize("wanted", LOCAL)
def test_next_leads_to_pages_of_ours(wanted: str) -> None:
    assert local_path(wanted, "") == wanted
    assert local_path(f"/briefly{wanted}", "/briefly") == f"/briefly{wanted}"


@pytest.mark.parametrize("wanted", FOREIGN)
def test_next_never_leads_elsewhere(wanted: str) -> None:
    if wanted != "/%2F%2Fevil":
        assert local_path(wanted, "") is None
    assert local_path(wanted, "/briefly") is None


def test_sign_in_with_a_foreign_next_leads_home(app: Flask) -> None:
    ensure_person(app, "admin")
    for wanted in ("//evil.example", "/\\evil.example", "/%0d%0aX:evil", "https://evil.example"):
        browser = app.test_client()
        assert "evil" not in browser.get(f"/sign-in?next={quote(wanted, safe='')}").get_data(as_text=True)
        assert sign_in(browser, ANA, form={"next": wanted}).headers["Location"] == "/"


def test_after_signing_in_one_is_where_one_wanted_to_be(app: Flask) -> None:
    ensure_person(app, "admin")
    browser = app.test_client()
    led = browser.get("/api/docs?x=1")
    assert (led.status_code, led.headers["Location"]) == (303, "/sign-in?next=/api/docs%3Fx%3D1")
    assert "/api/docs?x=1" in browser.get(led.headers["Location"]).get_data(as_text=True)
    assert sign_in(browser, ANA, form={"next": "/api/docs?x=1"}).headers["Location"] == "/api/docs?x=1"


def test_htmx_is_told_where_to_sign_in(app: Flask) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://localhost/api/docs"}
    answer = app.test_client().get("/api/docs", headers=headers)
    assert (answer.status_code, answer.headers["HX-Redirect"]) == (401, "/sign-in?next=/api/docs")
    evil = app.test_client().get("/api/docs", headers=headers | {"HX-Current-URL": "http://localhost//evil.example"})
    assert evil.headers["HX-Redirect"] == "/sign-in"


def test_https_cookies_are_bound_to_the_host(app: Flask) -> None:
    ensure_person(app, "admin")
    browser = app.test_client()
    secure = {"base_url": "https://admin.example.com"}
    token = browser.get("/sign-in", **secure).get_data(as_text=True).split('csrf_token" value="')[1].split('"')[0]
    answer = browser.post("/sign-in", data={"email": ANA, "password": PASSWORD, "csrf_token": token}, **secure)
    cookies = answer.headers.getlist("Set-Cookie")
    (session,) = [cookie for cookie in cookies if cookie.startswith("__Host-briefly=")]
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(session.split("; "))
    assert "Domain" not in session
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
    assert browser.get("/api/migration", **secure).status_code == 200


def test_below_a_path_pages_links_and_cookies_stay_there(settings: Settings) -> None:
    app = create_app(replace(settings, base_url="https://example.com/briefly/app"))
    ensure_person(app, "admin")
    browser = app.test_client(use_cookies=False)
    secure = {"base_url": "https://example.com"}
    for prefix in ("/briefly/app", ""):  # the proxy may take the path away
        page = browser.get(f"{prefix}/sign-in", **secure)
        text = page.get_data(as_text=True)
        assert 'src="/briefly/app/static/' in text
        form = {"email": ANA, "password": PASSWORD, "csrf_token": text.split('csrf_token" value="')[1].split('"')[0]}
        cookie = {"Cookie": page.headers["Set-Cookie"].split(";")[0]}
        answer = browser.post(f"{prefix}/sign-in", data=form, headers=cookie, **secure)
        assert answer.headers["Location"] == "/briefly/app/"
        (session,) = [c for c in answer.headers.getlist("Set-Cookie") if c.startswith("__Secure-briefly=")]
        assert {"Secure", "Path=/briefly/app"} <= set(session.split("; "))
    services_of(app).close()


def test_passwords_are_not_taken_over_plain_http_from_elsewhere(app: Flask) -> None:
    ensure_person(app, "admin")
    browser = app.test_client()
    there = {"base_url": "http://admin.example.com"}
    token = browser.get("/sign-in", **there).get_data(as_text=True).split('csrf_token" value="')[1].split('"')[0]
    answer = browser.post("/sign-in", data={"email": ANA, "password": PASSWORD, "csrf_token": token}, **there)
    assert answer.status_code == 403
    assert "https" in answer.get_data(as_text=True)
    assert not [c for c in answer.headers.getlist("Set-Cookie") if c.startswith("briefly=")]


def test_loopback_by_any_name_is_confidential(app: Flask) -> None:
    for host, expected in (
        ("127.0.0.1:8000", True), ("localhost", True), ("[::1]:8000", True), ("app.localhost:1", True),
        ("10.0.0.5", False), ("127.0.0.1.evil.example", False), ("localhost.evil.example", False),
    ):  # fmt: skip
        with app.test_request_context("/", base_url=f"http://{host}"):
            assert confidential() is expected, host


def test_forwarded_addresses_count_only_behind_trusted_proxies(settings: Settings) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    for proxies in (0, 1):
        app = create_app(replace(settings, trusted_proxies=proxies))
        answer = app.test_client().get("/sign-in", headers=forwarded)
        assert ("Strict-Transport-Security" in answer.headers) is bool(proxies)
        assert "evil.example" not in answer.get_data(as_text=True)
        services_of(app).close()
