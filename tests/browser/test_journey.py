"""The main job in a real browser: rehearse, migrate dirty data, watch, read the report, roll back."""

import hashlib
import re
from collections.abc import Callable

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from psycopg import sql

from briefly_admin.engine.sampledata import BLOCKING_FAULTS
from briefly_admin.plans import plan
from tests.browser.conftest import Program, Visitor

TABLES = [table.name for table in plan("unified").tables]
ENDED = re.compile(r"Done:|Rehearsed:|Replayed |Rolled back |Stopped |Cancelled ")


def digests(program: Program) -> dict[str, str]:
    """Table → SHA-256 of its rows as text, in key order: what stands there, byte for byte."""
    found = {}
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"]) as connection:
        for name in TABLES:
            query = sql.SQL("COPY (SELECT * FROM {} ORDER BY id) TO STDOUT").format(sql.Identifier(name))
            digest = hashlib.sha256()
            with connection.cursor().copy(query) as copy:
                for block in copy:
                    digest.update(block)
            found[name] = digest.hexdigest()
    return found


def schema(program: Program) -> list[tuple[object, ...]]:
    """Columns, constraints and indexes of the plan's tables."""
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"]) as connection:
        return connection.execute(
            "SELECT 'column', table_name, column_name, is_nullable, column_default FROM information_schema.columns "
            "WHERE table_schema = 'public' UNION ALL "
            "SELECT 'index', tablename, indexname, indexdef, NULL FROM pg_indexes WHERE schemaname = 'public' UNION ALL "
            "SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), NULL FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2, 3"
        ).fetchall()


@pytest.fixture
def dirty(program: Program) -> None:
    program.command("selftest", "create-data", "--dirty", "5")


@pytest.fixture
def ana(visit: Callable[..., Visitor], program: Program) -> Visitor:
    visitor = visit()
    visitor.sign_in(program.email, program.password)
    return visitor


def wait_for_the_end(visitor: Visitor) -> str:
    expect(visitor.page.locator("main")).to_contain_text(ENDED, timeout=90_000)
    # The last poll brings the report and no trigger: nothing asks any more.
    expect(visitor.page.locator("[hx-trigger*='every 1s']")).to_have_count(0)
    return visitor.page.inner_text("main")


@pytest.mark.usefixtures("dirty")
def test_rehearse_migrate_watch_and_roll_back(ana: Visitor, program: Program) -> None:
    before, shape = digests(program), schema(program)
    page = ana.page

    ana.go("/runs/new")
    page.get_by_label("Skip them into quarantine").check()
    page.get_by_role("button", name="Rehearse").click()
    assert "would change" in wait_for_the_end(ana)
    assert digests(program) == before
    assert schema(program) == shape

    ana.go("/runs/new")
    page.get_by_label("Skip them into quarantine").check()
    page.get_by_label("Batch size").fill("3")
    page.get_by_label("Pause between batches").fill("120")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("main")).to_contain_text("Migrating", timeout=60_000)
    seen = watch_the_bar(ana)
    assert len(seen) > 2, "the bar moves"
    assert seen == sorted(seen)
    report = wait_for_the_end(ana)
    assert f"{len(BLOCKING_FAULTS)} in quarantine" in report
    assert "verified" in report
    migrated = digests(program)
    assert migrated != before
    assert schema(program) != shape

    ana.go("/backups")
    page.get_by_role("link", name="Roll back").first.click()
    page.get_by_role("button", name="Show what a rollback would do").click()
    expect(page.locator("main")).to_contain_text("schema changes would be reverted", timeout=60_000)
    confirm = page.locator("#confirm")
    expect(confirm).to_be_disabled()
    expect(page.locator("#confirm-missing")).to_contain_text("choose a mode")
    page.get_by_label("Exact", exact=True).check()
    page.get_by_label("Reason").fill("The journey ends where it began.")
    page.fill("#word", "ROLLBACK")
    page.fill("#database", "brief")
    expect(confirm).to_be_disabled()
    assert digests(program) == migrated
    page.fill("#database", "briefly")
    confirm.click()
    assert "the data is as it was" in wait_for_the_end(ana)
    assert_accessible(ana)
    assert digests(program) == before
    assert schema(program) == shape


def watch_the_bar(visitor: Visitor) -> list[float]:
    """The different values that the page's first bar shows while migrating, in order."""
    seen: list[float] = []
    for _ in range(200):
        text = visitor.page.inner_text("main")
        if "Migrating" not in text:
            break
        value = float(visitor.page.locator("main progress").first.evaluate("bar => bar.position"))
        # Below 0 it has no end: the next phase has begun since the text was read.
        if value >= 0 and (not seen or value != seen[-1]):
            seen.append(value)
        visitor.page.wait_for_timeout(150)
    return seen


PAGES = [
    "/",
    "/checks",
    "/runs",
    "/runs/new",
    "/runs/1",
    "/runs/1/findings",
    "/quarantine",
    "/backups",
    "/audit",
    "/admins",
    "/me",
]


@pytest.mark.usefixtures("dirty")
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_stands_axe_and_fits_the_screen(
    visit: Callable[..., Visitor], program: Program, width: int, scheme: str
) -> None:
    program.command("run", "--set", "onInvalid=skip", "--set", "dryRun=true")
    visitor = visit(width=width, scheme=scheme)
    visitor.sign_in(program.email, program.password)
    for path in PAGES:
        visitor.go(path)
        assert_accessible(visitor)
        wide = visitor.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{path} is {wide} px wider than the screen"


def test_a_backup_is_taken_verified_and_drilled(ana: Visitor, program: Program) -> None:
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS invoices (id int PRIMARY KEY, before int REFERENCES invoices)")
    page = ana.page
    ana.go("/backups")
    page.get_by_text("Also tables outside the plan").click()
    page.get_by_label("public.invoices").check()
    page.get_by_role("button", name="Back up now").click()
    assert "sealed and proven" in wait_for_the_end(ana)
    page.get_by_role("link", name=re.compile("^backup_")).first.click()
    backup = page.url
    for name, words in (("Verify", "is whole: every byte was opened"), ("Drill", "can be restored")):
        page.goto(backup)
        page.get_by_role("button", name=name).click()
        assert words in wait_for_the_end(ana)
        assert_accessible(ana)
    page.get_by_role("link", name=re.compile("^backup_")).first.click()
    assert page.url == backup
    expect(page.locator("#proofs")).to_contain_text("L2: restored in a drill")
    assert_accessible(ana)


def assert_accessible(visitor: Visitor) -> None:
    violations = Axe().run(visitor.page).response["violations"]
    assert [(visitor.page.url, v["id"], [n["html"] for n in v["nodes"]][:2]) for v in violations] == []


def test_an_operator_and_a_viewer_are_refused(visit: Callable[..., Visitor], program: Program) -> None:
    program.command("backup", "create")
    backup = re.search(r'"name": "(backup_\d+)"', program.command("backup", "list", "--json"))
    assert backup
    for role in ("operator", "viewer"):
        password = f"a long enough password for {role}"
        program.command("admin", "create", f"{role}@example.com", "--role", role, stdin=f"{password}\n")
        visitor = visit()
        visitor.sign_in(f"{role}@example.com", password)
        visitor.go("/backups")
        expect(visitor.page.get_by_role("link", name="Roll back")).to_have_count(0)
        visitor.expected.add(403)
        visitor.go("/runs/new" if role == "viewer" else "/admins")
        visitor.go(f"/backups/{backup[1]}/rollback")
        expect(visitor.page.locator("main")).to_contain_text("role")


def test_scripts_in_tenant_data_do_not_run(ana: Visitor, program: Program) -> None:
    program.command("selftest", "create-data", "--dirty", "5")
    hostile = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    with psycopg.connect(program.addresses["TARGET_DATABASE_URL"]) as connection:
        connection.execute("UPDATE users SET email = %s, subscription_tier = %s", (hostile, hostile))
        connection.execute("UPDATE file_metadata SET filename = %s, processing_status = %s", (hostile, hostile))
    program.command("run", "--set", "onInvalid=skip", "--set", "dryRun=true", "--set", "maxSkipped=100000")
    ana.go("/runs")
    ana.page.locator("main a[href*='/runs/']").first.click()
    run = ana.page.url
    for path in ("", "/findings"):
        ana.page.goto(run + path)
        ana.page.wait_for_timeout(300)
        assert ana.page.title() != "owned"
    ana.page.goto(run + "/findings")
    assert "users" in ana.page.inner_text("main")
