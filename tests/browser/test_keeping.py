"""Dirty data migrated, three rows edited by hand: the preview names those very rows, and keep leaves them so."""

import re
from collections.abc import Callable

import psycopg
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Program, Visitor
from tests.browser.test_journey import assert_accessible, wait_for_the_end

EDIT = (
    "UPDATE users SET subscription_tier = 'pro_byok' WHERE id IN "
    "(SELECT id FROM users WHERE subscription_tier <> 'pro_byok' ORDER BY id LIMIT 3) RETURNING id::text"
)


def tiers(program: Program) -> dict[str, str]:
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"]) as connection:
        return dict(connection.execute("SELECT id::text, subscription_tier FROM users").fetchall())


@pytest.fixture
def edited(program: Program) -> list[str]:
    """The keys of three users that somebody edited after the migration."""
    program.command("selftest", "create-data", "--dirty", "5")
    program.command("run", "--set", "onInvalid=skip", "--set", "maxSkipped=100000")
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"]) as connection:
        return sorted(key for (key,) in connection.execute(EDIT).fetchall())


def test_the_preview_names_the_edited_rows_and_keep_leaves_them(
    visit: Callable[..., Visitor], program: Program, edited: list[str]
) -> None:
    before = tiers(program)
    ana = visit()
    ana.sign_in(program.email, program.password)
    page = ana.page
    ana.go("/backups")
    page.get_by_role("link", name="Roll back").first.click()
    page.get_by_role("button", name="Show what a rollback would do").click()
    group = page.locator("details", has_text="users: 3 edited since").first
    expect(group).to_be_visible(timeout=90_000)
    group.locator("summary").first.click()
    named = set(re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", group.inner_text()))
    assert sorted(named) == edited
    assert_accessible(ana)
    look_at_it(visit, program, page.url)

    confirm = page.locator("#confirm")
    expect(confirm).to_be_disabled()
    page.get_by_label("Keep", exact=True).check()
    group.get_by_label(f"users {edited[0]}").select_option("edit")
    group.locator("details summary").first.click()
    group.get_by_label("subscription_tier", exact=True).first.fill("free")
    page.get_by_label("Reason").fill("The repairs were wrong.")
    page.get_by_label("users", exact=True).uncheck()
    page.fill("#word", "ROLLBACK")
    page.fill("#database", "briefly")
    ana.expected.add(400)
    confirm.click()
    expect(page.get_by_role("alert")).to_contain_text("Choose the table users, too")
    page.get_by_label("users", exact=True).check()
    confirm.click()
    assert "Rolled back" in wait_for_the_end(ana)
    assert_accessible(ana)
    after = tiers(program)
    assert {key: after[key] for key in edited} == {key: before[key] for key in edited} | {edited[0]: "free"}


def look_at_it(visit: Callable[..., Visitor], program: Program, url: str) -> None:
    """On a phone and in the dark, with all samples open: accessible, and no wider than the screen."""
    phone = visit(width=390, scheme="dark")
    phone.sign_in(program.email, program.password)
    phone.page.goto(url)
    phone.page.evaluate("document.querySelectorAll('details.more').forEach(each => { each.open = true; })")
    assert_accessible(phone)
    wide = phone.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px wider than the screen"
