"""One change for all rows of a cause: previewed with its count, bound to it, refused where it cures not all."""

from collections.abc import Iterator

import psycopg
import pytest
from flask.testing import FlaskClient

from briefly_admin.engine import fence
from briefly_admin.settings import Settings
from tests.serving import NOBODY, ClientAs
from tests.web.browsing import inline_scripts, look, send
from tests.web.rendering import HOSTILE, Page

AT = "/fix?table=users&field=subscription_tier&rule=one_of"
SECRET = "ya29.a-token-nobody-may-see"


@pytest.fixture
def target(settings: Settings, sample_data: dict[str, int]) -> Iterator[psycopg.Connection]:
    """Three users of a tier that there is not, with a script in it."""
    assert sample_data
    with psycopg.connect(settings.target_database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE users SET subscription_tier = %s WHERE id IN (SELECT id FROM users ORDER BY id LIMIT 3)",
            [f"plat{HOSTILE}"],
        )
        yield connection


@pytest.fixture
def operator(client_as: ClientAs, target: psycopg.Connection) -> FlaskClient:
    assert target
    return client_as("operator")


def tiers(target: psycopg.Connection) -> list[str]:
    found = target.execute("SELECT subscription_tier FROM users ORDER BY id LIMIT 3").fetchall()
    return [tier for (tier,) in found]


def preview(browser: FlaskClient, text: str, code: int = 200, at: str = AT, column: str = "subscription_tier") -> Page:
    answer = send(browser, at, code, form={"column": column, f"value-{column}": text, "action": "preview"})
    assert not inline_scripts(answer)
    return answer


def of_preview(page: Page) -> dict[str, str]:
    """What the button Apply sends."""
    form = page.one("form", id="fix")
    hidden = [each for each in page.every("input", type="hidden") if form in each.ancestors]
    return {each.attributes["name"] or "": each.attributes["value"] or "" for each in hidden} | {"action": "apply"}


def test_all_rows_of_a_cause_are_fixed_as_previewed(operator: FlaskClient, target: psycopg.Connection) -> None:
    page = look(operator, f"{AT}&back=/runs/1/findings")
    column = page.one("select", id="column")
    chosen = [each.text for each in page.every("option") if column in each.ancestors and "selected" in each.attributes]
    assert chosen == ["subscription_tier"]
    assert "id" not in [each.text for each in page.every("option")], "keys are not changed"
    choices = page.one("select", name="value-subscription_tier")
    assert [each.text for each in page.every("option") if choices in each.ancestors] == [
        "choose",
        "free",
        "pro",
        "pro_byok",
    ]
    before = tiers(target)
    seen = preview(operator, "pro")
    assert "3 rows have this cause; 3 would be right, 0 refused." in seen.one("section", id="preview").text
    samples = [each.text for each in seen.every("td", data_label="Before")]
    assert samples == before
    assert {each.text for each in seen.every("td", data_label="After")} == {"pro"}
    assert tiers(target) == before, "a preview changes nothing"
    done = send(operator, AT, form=of_preview(seen) | {"value-subscription_tier": "pro", "back": "/quarantine"})
    assert "Fixed: 3 rows of users changed" in done.one("div", id="flashes").text
    assert tiers(target) == ["pro"] * 3
    assert "No row has this any more" in look(operator, AT).one("main").text


def test_only_what_was_previewed_is_applied(operator: FlaskClient, target: psycopg.Connection) -> None:
    before, seen = tiers(target), preview(operator, "pro")
    form = of_preview(seen) | {"value-subscription_tier": "pro"}
    for other in (
        {"value-subscription_tier": "free"},
        {"expected": "2"},
        {"token": "0" * 64},
        {"token": ""},
        {"expected": "x"},
    ):
        page = send(operator, AT, 409, form=form | other)
        assert "not what was previewed" in page.one("div", role="alert").text
        assert page.one("section", id="preview")
    assert tiers(target) == before
    target.execute("UPDATE users SET subscription_tier = 'free' WHERE id = (SELECT id FROM users ORDER BY id LIMIT 1)")
    moved = send(operator, AT, 409, form=form)
    assert "2 rows have this cause" in moved.one("section", id="preview").text
    assert tiers(target) == ["free", *before[1:]]
    send(operator, AT, form=of_preview(moved) | {"value-subscription_tier": "pro"})
    assert tiers(target) == ["free", "pro", "pro"]


def test_a_fix_that_cures_not_all_says_why_and_is_not_offered(
    operator: FlaskClient, target: psycopg.Connection
) -> None:
    before = tiers(target)
    page = preview(operator, "platinum")
    section = page.one("section", id="preview").text
    assert "0 would be right, 3 refused" in section
    assert "3 × " in section
    assert not [each for each in page.every("button") if each.text.startswith("Apply")]
    forced = send(operator, AT, 409, form=of_preview(page) | {"value-subscription_tier": "platinum"})
    assert forced.one("div", role="alert")
    assert tiers(target) == before


def test_another_column_may_be_the_one_to_change(operator: FlaskClient, target: psycopg.Connection) -> None:
    page = look(operator, f"{AT}&column=usage_documents")
    assert page.one("input", name="value-usage_documents").attributes["value"] == ""
    bad = preview(operator, "many", 400, column="usage_documents")
    assert bad.one("input", name="value-usage_documents").attributes["aria-invalid"] == "true"
    assert (
        "Either a value or NULL"
        in send(
            operator,
            AT,
            400,
            form={"column": "usage_documents", "value-usage_documents": "1", "null-usage_documents": "y"},
        )
        .one("main")
        .text
    )
    look(operator, f"{AT}&column=id")
    send(operator, AT, 400, form={"column": "id", "value-id": "1"})
    send(operator, AT, 400, form={"column": "nonsense"})
    assert target


def test_secrets_are_typed_twice_and_never_shown(operator: FlaskClient, target: psycopg.Connection) -> None:
    target.execute("UPDATE oauth_tokens SET access_token = NULL, refresh_token = %s", [SECRET])
    at = "/fix?table=oauth_tokens&field=access_token&rule=null"
    assert look(operator, at).one("textarea", name="value-access_token").attributes["class"] == "form-control masked"
    seen = preview(operator, f"{SECRET}2", at=at, column="access_token")
    assert SECRET not in str([each.attributes for each in seen.all]) + seen.one("html").text
    assert send(operator, at, 409, form=of_preview(seen)).one("div", role="alert")
    send(operator, at, form=of_preview(seen) | {"value-access_token": f"{SECRET}2"})
    assert target.execute("SELECT DISTINCT access_token FROM oauth_tokens").fetchall() == [(f"{SECRET}2",)]


def test_beside_a_run_nothing_is_fixed(operator: FlaskClient, target: psycopg.Connection) -> None:
    before, seen = tiers(target), preview(operator, "pro")
    target.execute("SELECT pg_advisory_lock(%s)", [fence._LOCK])
    page = send(operator, AT, 409, form=of_preview(seen) | {"value-subscription_tier": "pro"})
    assert page.one("div", role="alert")
    assert tiers(target) == before


def test_what_is_no_cause_is_told_and_a_viewer_fixes_nothing(
    client_as: ClientAs, operator: FlaskClient, target: psycopg.Connection
) -> None:
    before = tiers(target)
    for bad in (
        "",
        "?table=users",
        "?table=pg_class&field=a&rule=b",
        "?table=users&field=x&rule=%00",
        f"{AT[4:]}&run=99",
    ):
        assert operator.get(f"/fix{bad}").status_code in {200, 400, 404}, bad
    for browser, code in ((client_as("viewer"), 403), (client_as(NOBODY), 303)):
        assert browser.get(AT).status_code == code
    send(client_as("viewer"), AT, 403, form={"column": "subscription_tier", "value-subscription_tier": "pro"})
    assert tiers(target) == before
