"""The page Admins: people are added, disabled, enabled, given roles and passwords, by admins alone."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.services.views import AdminView
from tests.serving import PASSWORD, SETUP, ClientAs, email_of, ensure_person, services_of, sign_in
from tests.web.browsing import inline_scripts, look, send

NEW = "a new and long enough password"


def person(app: Flask, role: str) -> AdminView:
    ensure_person(app, role)
    (found,) = [view for view in services_of(app).admins.list(SETUP) if view.email == email_of(role)]
    return found


def enters(app: Flask, email: str, password: str) -> bool:
    return bool(sign_in(app.test_client(), email, password).status_code == 303)


@pytest.fixture
def browser(client_as: ClientAs) -> FlaskClient:
    return client_as("admin")


def test_only_an_admin_sees_people(app: Flask, client_as: ClientAs) -> None:
    for role in ("viewer", "operator"):
        look(client_as(role), "/admins", 403)
    assert app.test_client().get("/admins").status_code == 303


def test_everybody_is_listed_with_role_state_and_when_last_seen(app: Flask, browser: FlaskClient) -> None:
    person(app, "viewer")
    page = look(browser, "/admins")
    rows = {row.text.split()[0]: row.text for row in page.every("tr")[1:]}
    assert "you" in rows[email_of("admin")]
    assert "never" in rows[email_of("viewer")]
    assert "active" in rows[email_of("viewer")]


def test_a_new_person_may_sign_in(app: Flask, browser: FlaskClient) -> None:
    page = send(browser, "/admins", email="olga@example.com", role="operator", password=NEW)
    assert "olga@example.com may sign in as operator" in page.one("div", id="flashes").text
    assert NEW not in page.one("html").text
    assert enters(app, "olga@example.com", NEW)


WRONG = [
    ("email", "", "Type an e-mail"), ("email", "olga", "name@example.com"), ("email", "ADMIN@example.com", "already"),
    ("password", "", "Type a password"), ("password", "too short", "at least 15"),
    ("password", "a" * 20, "too few different"), ("password", "ab" * 600, "at most 1,024"), ("role", "root", ""), ("role", "", ""),
]  # fmt: skip


def test_what_is_wrong_stands_beside_its_field(app: Flask, browser: FlaskClient) -> None:
    for field, value, says in WRONG:
        form: dict[str, str | list[str]] = {
            "email": "olga@example.com",
            "role": "viewer",
            "password": NEW,
            field: value,
        }
        code = 409 if says == "already" else 400
        page = send(browser, "/admins", code, form=form)
        assert says in page.one("div", id=f"{field}-errors").text
        assert page.every("a", href=f"#{field}")
        assert NEW not in str([element.attributes for element in page.all])
        assert len(services_of(app).admins.list(SETUP)) == 1


def test_disabling_is_out_at_once_and_enabling_in_again(app: Flask, browser: FlaskClient, client_as: ClientAs) -> None:
    other = client_as("operator")
    olga = person(app, "operator")
    page = send(browser, f"/admins/{olga.id}/disable", action="disable")
    assert "disabled" in page.one("dl").text
    assert other.get("/me").status_code == 303
    assert not enters(app, olga.email, PASSWORD)
    send(browser, f"/admins/{olga.id}/enable", action="enable")
    assert enters(app, olga.email, PASSWORD)


def test_the_last_admin_stays(app: Flask, browser: FlaskClient) -> None:
    me = person(app, "admin")
    page = look(browser, f"/admins/{me.id}")
    assert "The last admin who can sign in" in page.one("main").text
    assert not page.every("button", value="disable")
    send(browser, f"/admins/{me.id}/disable", 409)
    send(browser, f"/admins/{me.id}/role", 409, role="viewer")
    assert person(app, "admin").role == "admin"


def test_a_role_holds_from_the_next_click_on(app: Flask, browser: FlaskClient, client_as: ClientAs) -> None:
    other = client_as("viewer")
    vera = person(app, "viewer")
    assert other.get("/admins").status_code == 403
    send(browser, f"/admins/{vera.id}/role", role="admin")
    assert other.get("/admins").status_code == 200
    send(browser, f"/admins/{vera.id}/role", 400, role="owner")
    send(browser, f"/admins/{vera.id}/role", 400)


def test_who_gives_the_own_role_away_is_led_to_the_own_page(app: Flask, browser: FlaskClient) -> None:
    services_of(app).admins.create(SETUP, "second@example.com", "admin", NEW)
    me = person(app, "admin")
    page = send(browser, f"/admins/{me.id}/role", role="viewer")
    assert page.one("h1").text == "My account"


def test_a_password_is_set_and_the_sessions_end(app: Flask, browser: FlaskClient, client_as: ClientAs) -> None:
    other = client_as("operator")
    olga = person(app, "operator")
    send(browser, f"/admins/{olga.id}/password", 400, password="short")
    assert other.get("/me").status_code == 200
    send(browser, f"/admins/{olga.id}/password", password=NEW)
    assert other.get("/me").status_code == 303
    assert enters(app, olga.email, NEW)
    assert not enters(app, olga.email, PASSWORD)


def test_the_own_password_is_not_set_here(app: Flask, browser: FlaskClient) -> None:
    me = person(app, "admin")
    page = send(browser, f"/admins/{me.id}/password", password=NEW)
    assert page.one("h1").text == "My account"
    assert enters(app, me.email, PASSWORD)


def test_a_hostile_address_is_escaped(app: Flask, browser: FlaskClient) -> None:
    services_of(app).admins.create(SETUP, "<script>alert(1)</script>@x", "viewer", NEW)
    page = look(browser, "/admins")
    assert not inline_scripts(page)
    (row,) = [row for row in page.every("tr") if "alert(1)" in row.text]
    assert "<script>alert(1)</script>@x" in row.text


def test_strangers_and_wrong_roles_change_nobody(app: Flask, browser: FlaskClient, client_as: ClientAs) -> None:
    vera = person(app, "viewer")
    for path in (f"/admins/{vera.id}", "/admins/1", "/admins/%00", "/admins/00000000-0000-0000-0000-000000000000"):
        assert browser.get(path).status_code == (200 if vera.id in path else 404)
    assert browser.post(f"/admins/{vera.id}/disable").status_code == 400, "without the form's token"
    assert browser.get(f"/admins/{vera.id}/disable").status_code == 405
    operator = client_as("operator")
    for deed in ("disable", "enable", "role", "password"):
        send(operator, f"/admins/{vera.id}/{deed}", 403, role="admin", password=NEW)
    send(operator, "/admins", 403, email="x@example.com", role="admin", password=NEW)
    assert person(app, "viewer") == vera
