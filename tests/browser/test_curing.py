"""Dirty data cured by hand: found, corrected one by one and all at once, left alone by a migration, and replayed."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect

from briefly_admin.engine.sampledata import cleanup, create
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from tests.browser.conftest import Program, Visitor
from tests.browser.test_journey import wait_for_the_end
from tests.browser.test_keeping import look_at_it

DIRT = """
UPDATE users SET subscription_tier = 'platinum' WHERE id IN (SELECT id FROM users ORDER BY id LIMIT 3);
UPDATE users SET email = 'nobody<b>' || id WHERE id IN (SELECT id FROM users ORDER BY id DESC LIMIT 2);
"""
RIGHT = "SELECT count(*) FROM users WHERE email LIKE '%@%' AND subscription_tier IN ('free', 'pro', 'pro_byok')"


@pytest.fixture
def dirt(program: Program) -> Iterator[psycopg.Connection]:
    """Sample data with three tiers that there are not, and two e-mails that are none."""
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"], autocommit=True) as connection:
        _drop(connection)
        create(Target(program.addresses["TARGET_DATABASE_URL"]), plan("unified"), embeddings=0)
        for statement in filter(str.strip, DIRT.split(";")):
            connection.execute(statement)
        yield connection
        cleanup(Target(program.addresses["TARGET_DATABASE_URL"]), plan("unified"))
        # With them goes what the migration's schema changes would refuse of other journeys' data.
        _drop(connection)


def _drop(connection: psycopg.Connection) -> None:
    for table in plan("unified").tables:
        connection.execute(f"DROP TABLE IF EXISTS {table.name} CASCADE")


def test_dirty_data_is_cured(visit: Callable[..., Visitor], program: Program, dirt: psycopg.Connection) -> None:
    ana = visit()
    ana.sign_in(program.email, program.password)
    page = ana.page
    page.on("dialog", lambda dialog: dialog.accept())
    (users,) = dirt.execute("SELECT count(*) FROM users").fetchone() or (0,)

    page.get_by_role("button", name="Validate", exact=True).click()
    assert "the findings say what is wrong" in wait_for_the_end(ana)
    page.get_by_role("link", name="Look at the findings").click()
    correct_a_sample(ana)
    fix_all_tiers(ana)

    ana.go("/runs/new")
    page.get_by_label("Skip them into quarantine").check()
    page.get_by_role("button", name="Start").click()
    assert "1 in quarantine" in wait_for_the_end(ana)
    migration = page.url
    correct_in_quarantine(ana)
    page.get_by_role("button", name="Replay").first.click()
    page.wait_for_url("**/runs/*")
    assert "Replayed 1 row" in wait_for_the_end(ana)
    expect(page.locator(".sentence")).to_contain_text("nothing is left in quarantine")

    page.goto(migration)
    expect(page.locator("main .badge").first).to_have_text("completed")
    ana.go("/quarantine")
    expect(page.locator("main")).to_contain_text("Nothing is in quarantine")
    assert dirt.execute(RIGHT).fetchone() == (users,)


def correct_a_sample(visitor: Visitor) -> None:
    """From the findings to a row: what is typed is checked at once, and one is led back."""
    page = visitor.page
    findings = page.url
    finding = page.locator("tr", has_text="users.email must be an e-mail address")
    expect(finding).to_contain_text("2")
    finding.locator("summary").click()
    look_at_it(visitor)
    finding.get_by_role("link", name="Correct").first.click()
    email = page.get_by_label("email")
    expect(email).to_have_attribute("aria-invalid", "true")
    type_in(page, "still nobody")
    expect(page.locator("#row-state")).to_contain_text("As typed, still wrong: email")
    expect(email).to_be_focused()
    type_in(page, "cured@example.com")
    expect(page.locator("#row-state")).to_contain_text("As typed, nothing is left to cure")
    expect(email).not_to_have_attribute("aria-invalid", "true")
    expect(email).to_be_focused()
    look_at_it(visitor)
    page.keyboard.press("Enter")
    expect(page.locator("#flashes")).to_contain_text("Saved: nothing is left to cure")
    assert page.url == findings


def type_in(page: Page, text: str) -> None:
    """As a person does, at the keyboard alone."""
    page.get_by_label("email").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type(text)


def fix_all_tiers(visitor: Visitor) -> None:
    """One value for all rows of a cause, previewed first."""
    page = visitor.page
    page.get_by_role("link", name="Fix all 3").click()
    page.locator("#fix").get_by_label("subscription_tier").first.select_option("pro")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("3 rows have this cause; 3 would be right, 0 refused.")
    look_at_it(visitor)
    page.get_by_role("button", name="Apply to 3 rows").click()
    expect(page.locator("#flashes")).to_contain_text("Fixed: 3 rows of users changed")


def correct_in_quarantine(visitor: Visitor) -> None:
    """The row that the migration left alone: NULL is ticked and unticked on the way."""
    page = visitor.page
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Quarantine").click()
    look_at_it(visitor)
    page.get_by_role("link", name="users.email must be an e-mail address").click()
    page.get_by_text("Skip", exact=True).click()
    look_at_it(visitor)
    page.get_by_role("link", name="Correct").click()
    page.get_by_text("Other columns").click()
    customer = page.get_by_role("textbox", name="stripe_customer_id")
    tick = page.get_by_label("NULL: no value (stripe_customer_id)")
    before = customer.input_value()
    customer.fill("cus_9")
    expect(tick).not_to_be_checked()
    tick.check()
    expect(customer).to_have_value(before)
    tick.uncheck()
    expect(customer).to_have_value("cus_9")
    documents = page.get_by_role("textbox", name="usage_documents")
    documents.fill("-1")
    expect(page.locator("#row-state")).to_contain_text("usage_documents")
    documents.fill("1")
    page.get_by_label("email").fill("also-cured@example.com")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#flashes")).to_contain_text("Saved")
    expect(page.locator("main .badge").first).to_have_text("corrected")
