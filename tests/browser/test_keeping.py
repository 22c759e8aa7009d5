"""Dirty data migrated, three rows edited by hand: the preview names those very rows, and keep leaves them so.

Rows of tables outside the plan refer to new users, so that the preview offers ticks and names what stands against it; a
second admin approves the rollback. What is confirmed and approved is so by the keyboard alone.
"""

import re
from collections.abc import Callable, Iterator

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.browser.approving import SECOND, strict
from tests.browser.conftest import Program, Visitor
from tests.browser.test_journey import assert_accessible, wait_for_the_end

EDIT = (
    "UPDATE users SET subscription_tier = 'pro_byok' WHERE id IN "
    "(SELECT id FROM users WHERE subscription_tier <> 'pro_byok' ORDER BY id LIMIT 3) RETURNING id::text"
)

OUTSIDE = """
INSERT INTO users (id, created_at, updated_at)
  SELECT ('00000000-0000-4000-8000-00000000000' || n)::uuid, now(), now() FROM generate_series(1, 3) n;
CREATE TABLE logs (user_id uuid REFERENCES users ON DELETE CASCADE);
CREATE TABLE notes (user_id uuid REFERENCES users ON DELETE SET NULL);
CREATE TABLE bills (user_id uuid REFERENCES users ON DELETE RESTRICT);
INSERT INTO logs SELECT '00000000-0000-4000-8000-000000000001' FROM generate_series(1, 12);
INSERT INTO notes VALUES ('00000000-0000-4000-8000-000000000002');
INSERT INTO bills VALUES ('00000000-0000-4000-8000-000000000003');
"""


def tiers(program: Program) -> dict[str, str]:
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"]) as connection:
        return dict(connection.execute("SELECT id::text, subscription_tier FROM users").fetchall())


@pytest.fixture
def edited(program: Program) -> Iterator[list[str]]:
    """The keys of three users that somebody edited after the migration; three more are new, and referred to."""
    program.command("selftest", "create-data", "--dirty", "5")
    program.command("run", "--set", "onInvalid=skip", "--set", "maxSkipped=100000")
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"], autocommit=True) as connection:
        keys = sorted(key for (key,) in connection.execute(EDIT).fetchall())
        connection.execute(OUTSIDE)
        yield keys
        connection.execute("DROP TABLE logs, notes, bills")


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
    outside = page.locator("#outside").inner_text()
    for words in ("1 row of public.bills", "RESTRICT). This stands against it", "12 rows of public.logs", "SET NULL"):
        assert words in outside
    look_at_it(ana)

    with strict(program) as approving:
        ana.program = approving
        ana.go(page.url.removeprefix(program.url))
        settle(ana, edited[0])
        confirm_by_keyboard(ana)
        expect(page.locator(".sentence")).to_contain_text("approve")
        approve_by_keyboard(visit(), approving, page.url.removeprefix(approving.url))
        assert "Rolled back" in wait_for_the_end(ana)
        assert_accessible(ana)
    after = tiers(program)
    assert {key: after[key] for key in edited} == {key: before[key] for key in edited} | {edited[0]: "free"}


def settle(visitor: Visitor, key: str) -> None:
    """Decide about one of the edited rows by itself."""
    group = visitor.page.locator("details", has_text="users: 3 edited since").first
    group.locator("summary").first.click()
    group.get_by_label(f"users {key}").select_option("edit")
    group.locator("details summary").first.click()
    group.get_by_label("subscription_tier", exact=True).first.fill("free")


def confirm_by_keyboard(visitor: Visitor) -> None:
    """Fill in the form: the session ends before it is sent, then the table is left out of which a row was settled;
    either time what was filled in is still there.
    """
    page = visitor.page
    expect(page.locator("#confirm")).to_be_disabled()
    page.locator("#counts").focus()
    press(page, "#allow-0", "Space")
    press(page, "#mode-0", "ArrowDown")
    expect(page.get_by_label("Keep", exact=True)).to_be_checked()
    press(page, "#tables-0", "Space")
    for place, text in (("#reason", "The repairs were wrong."), ("#word", "ROLLBACK"), ("#database", "briefly")):
        press(page, place)
        page.keyboard.type(text)
    page.context.clear_cookies()
    press(page, "#confirm", "Enter")
    expect(page.get_by_text("so nothing was done")).to_be_visible()
    page.fill("input[name=email]", visitor.program.email)
    page.fill("input[name=password]", visitor.program.password)
    page.keyboard.press("Enter")
    expect(page.locator("#reason")).to_have_value("The repairs were wrong.")
    expect(page.locator("#word")).to_have_value("")
    for place, text in (("#word", "ROLLBACK"), ("#database", "briefly")):
        press(page, place)
        page.keyboard.type(text)
    visitor.expected.add(400)
    press(page, "#confirm", "Enter")
    expect(page.get_by_role("alert")).to_contain_text("Choose the table users, too")
    expect(page.locator("#allow-0")).to_be_checked()
    page.locator("#mode-1").focus()
    press(page, "#tables-0", "Space")
    press(page, "#confirm", "Enter")
    page.wait_for_url("**/runs/*")


def approve_by_keyboard(bea: Visitor, approving: Program, run: str) -> None:
    """The second admin, from the run's page."""
    bea.program = approving
    bea.sign_in(SECOND, approving.password)
    bea.go(run)
    press(bea.page, "a[href$='/approve']", "Enter")
    bea.page.wait_for_url("**/approve")
    assert "The repairs were wrong." in bea.page.inner_text("main")
    expect(bea.page.get_by_role("link", name="Look at the preview that was confirmed")).to_be_visible()
    look_at_it(bea)
    press(bea.page, "button[value=approve]", "Enter")
    expect(bea.page.locator("#flashes")).to_contain_text("is approved")


def press(page: Page, place: str, key: str = "") -> None:
    """Go on by the tabulator until it is there, and press the key."""
    for _ in range(150):
        if page.locator(place).evaluate("each => each === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(page.locator(place)).to_be_focused()
    if key:
        page.keyboard.press(key)


def look_at_it(visitor: Visitor) -> None:
    """On a phone in the dark, and wide and light, with all samples open: accessible, and no wider than the screen."""
    page = visitor.page
    page.evaluate("document.querySelectorAll('details.more').forEach(each => { each.open = true; })")
    for width, scheme in ((390, "dark"), (1280, "light")):
        page.set_viewport_size({"width": width, "height": 900})
        # Without motion: a colour on its way from one scheme to the other has a contrast of its own.
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type] # stubs want literals
        assert_accessible(visitor)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{wide} px wider than the screen"
