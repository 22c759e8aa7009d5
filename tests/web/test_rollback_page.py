"""A rollback is confirmed on what was counted, by typed words, or nothing happens."""

from urllib.parse import quote, urlsplit

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.sampledata import create
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.services.views import BackupView, RunView
from tests.serving import SETUP, ClientAs, lead, services_of
from tests.web.browsing import confirmations, inline_scripts, look, send
from tests.web.rendering import HOSTILE, Page

EDIT = "UPDATE users SET subscription_tier = 'pro_byok'"


@pytest.fixture
def backup(app: Flask, sample_data: dict[str, int]) -> BackupView:
    run = services_of(app).runs.start(SETUP, RunKind.BACKUP)
    lead(app, run.id)
    (made,) = services_of(app).backups.list(SETUP)
    return made


@pytest.fixture
def database(target_database: str) -> str:
    """The name to type."""
    return urlsplit(target_database).path[1:]


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def tiers(url: str) -> list[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT id::text, subscription_tier FROM users ORDER BY id").fetchall()


def previewed(app: Flask, browser: FlaskClient, backup: BackupView) -> RunView:
    """Ask for a preview on the page, and do what a worker does."""
    send(browser, f"/backups/{backup.name}/preview", action="preview")
    (run,) = services_of(app).runs.list(SETUP, limit=1, kind=RunKind.PREVIEW)
    done = lead(app, run.id)
    assert done.state is RunState.COMPLETED, done.error
    return done


def filled(page: Page, database: str) -> dict[str, str | list[str]]:
    """The form of the page as it came, with everything typed right."""
    return {
        "preview_id": page.one("input", id="preview_id").attributes["value"] or "",
        "mode": "exact",
        "tables": [box.attributes["value"] or "" for box in page.every("input", type="checkbox", name="tables")],
        "reason": "The tiers are wrong.", "word": "ROLLBACK", "database": database,
    }  # fmt: skip


def rollbacks(app: Flask) -> tuple[RunView, ...]:
    return services_of(app).runs.list(SETUP, kind=RunKind.ROLLBACK)


def test_viewer_and_operator_are_refused(client_as: ClientAs, backup: BackupView) -> None:
    for role in ("viewer", "operator"):
        browser = client_as(role)
        for path in ("rollback", "rollback/preview"):
            assert "role admin" in look(browser, f"/backups/{backup.name}/{path}", 403).one("main").text
        send(browser, f"/backups/{backup.name}/rollback", 403, word="ROLLBACK")


def test_first_it_shows_target_and_backup_and_offers_to_count(
    client_as: ClientAs, backup: BackupView, database: str
) -> None:
    page = look(client_as("admin"), f"/backups/{backup.name}/rollback")
    facts = page.one("dl").text
    assert database in facts
    assert backup.name in facts
    assert backup.created_at.strftime("%Y-%m-%d") in facts
    assert "every byte opened, every row counted and hashed" in facts
    assert "Show what a rollback would do" in page.one("main").text
    assert not confirmations(page)


def test_an_operator_reads_the_counts_on_the_runs_page(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    send(client_as("operator"), f"/backups/{backup.name}/preview", action="preview")
    (run,) = services_of(app).runs.list(SETUP, limit=1, kind=RunKind.PREVIEW)
    assert run.created_by == "operator@example.com"


def test_the_whole_way(
    app: Flask, client_as: ClientAs, backup: BackupView, target_database: str, database: str
) -> None:
    before = tiers(target_database)
    execute(target_database, EDIT)
    execute(target_database, "DELETE FROM user_settings")
    changed = sum(tier != "pro_byok" for _, tier in before)
    browser = client_as("admin")

    waiting = send(browser, f"/backups/{backup.name}/preview", action="preview")
    part = waiting.one("div", id="rollback")
    assert part.attributes["hx-trigger"] == "every 1s"
    assert not confirmations(waiting)
    (run,) = services_of(app).runs.list(SETUP, limit=1, kind=RunKind.PREVIEW)
    lead(app, run.id)

    poll = look(browser, part.attributes["hx-get"] or "")
    assert "hx-get" not in poll.one("div", id="rollback").attributes
    page = look(browser, f"/backups/{backup.name}/rollback?preview={run.number}")
    shown = page.one("div", id="counts")
    rows = [row.text.split() for row in page.every("tr") if shown in row.ancestors]
    counts = {words[0]: " ".join(words[1:]) for words in rows}
    assert f"{len(before) - changed} stay as they are" in counts["users"]
    assert f"{changed} restored" in counts["users"]
    assert "brought back" in counts["user_settings"]
    assert "disabled" in page.one("input", name="mode", value="keep").attributes
    text = page.one("main").text
    assert "about 1 s" in text
    assert "is taken and proven first" in text
    assert page.one("input", id="database").attributes["data-word"] == database
    assert len(confirmations(page)) == 1

    answer = browser.post(
        f"/backups/{backup.name}/rollback",
        data={"csrf_token": page.every("input", name="csrf_token")[0].attributes["value"], **filled(page, database)},
    )
    assert answer.status_code == 303, Page(answer.get_data(as_text=True)).one("main").text
    (rollback,) = rollbacks(app)
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/runs/{rollback.number}")
    assert rollback.options["reason"] == "The tiers are wrong."
    assert rollback.options["preview_id"] == run.id
    assert rollback.options["tables"] is None
    assert lead(app, rollback.id).state is RunState.COMPLETED
    assert tiers(target_database) == before


def test_whatever_is_missing_is_said_beside_its_field_and_nothing_happens(
    app: Flask, client_as: ClientAs, backup: BackupView, database: str
) -> None:
    browser = client_as("admin")
    run = previewed(app, browser, backup)
    right = filled(look(browser, f"/backups/{backup.name}/rollback?preview={run.id}"), database)
    wrong: list[tuple[str, str | list[str]]] = [
        ("word", ""), ("word", "rollback"), ("word", "ROLLBACK "), ("database", ""), ("database", database.upper()),
        ("reason", ""), ("reason", "   "), ("reason", "x" * 501), ("tables", []), ("tables", ["pg_authid"]),
        ("tables", ["users; DROP TABLE users"]), ("mode", "keep"), ("mode", ""), ("mode", "exactly"),
        ("allowance", "-1"), ("allowance", "1.5"), ("allowance", ""), ("allowance", "9" * 5000), ("allow", ["app.logs"]),
         ("preview_id", ""), ("preview_id", "1"),
        ("preview_id", "00000000-0000-0000-0000-000000000000"), ("preview_id", HOSTILE),
    ]  # fmt: skip
    for field, value in wrong:
        page = send(browser, f"/backups/{backup.name}/rollback", 400, form=right | {field: value})
        assert page.every("a", href=f"#{field}"), (field, value)
        assert not inline_scripts(page)
    page = send(browser, f"/backups/{backup.name}/rollback", 400, form=right | {"word": HOSTILE, "reason": HOSTILE})
    assert page.one("input", id="word", aria_invalid="true", value=HOSTILE)
    assert page.one("textarea").text.strip() == HOSTILE
    send(browser, f"/backups/{backup.name}/rollback", 400)
    assert rollbacks(app) == ()


def test_some_tables_alone(app: Flask, client_as: ClientAs, backup: BackupView, database: str) -> None:
    browser = client_as("admin")
    run = previewed(app, browser, backup)
    right = filled(look(browser, f"/backups/{backup.name}/rollback?preview={run.number}"), database)
    send(browser, f"/backups/{backup.name}/rollback", form=right | {"tables": ["users", "user_settings"]})
    (rollback,) = rollbacks(app)
    assert rollback.options["tables"] == ["users", "user_settings"]


def test_some_tables_are_counted_alone_and_no_others_confirmed(
    app: Flask, client_as: ClientAs, backup: BackupView, database: str
) -> None:
    browser, at = client_as("admin"), f"/backups/{backup.name}"
    page = look(browser, f"{at}/rollback")
    boxes = page.every("input", type="checkbox", name="look_at")
    assert len(boxes) == 8
    assert all("checked" in box.attributes for box in boxes)
    for wrong in ([], ["pg_authid"], [HOSTILE], ["users", "app.logs"]):
        bad = send(browser, f"{at}/preview", 400, form={"offered": "1", "look_at": wrong})
        assert bad.one("div", id="look_at-errors"), wrong
        assert bad.one("a", href="#look_at")
    assert "Choose at least one table" in send(browser, f"{at}/preview", 400, form={"offered": "1"}).one("main").text

    chosen = ["users", "user_settings"]
    send(browser, f"{at}/preview", form={"offered": "1", "look_at": chosen})
    (run,) = services_of(app).runs.list(SETUP, kind=RunKind.PREVIEW)
    assert run.options["tables"] == chosen
    lead(app, run.id)
    page = look(browser, f"{at}/rollback?preview={run.number}")
    assert "users, user_settings alone: 2 of the backup’s 8 tables" in page.one("p", id="part").text
    right = filled(page, database)
    assert right["tables"] == chosen
    boxes = page.every("input", type="checkbox", name="look_at")
    ticked = [box.attributes["value"] for box in boxes if "checked" in box.attributes]
    assert ticked == chosen, "those that were counted are offered to be counted again"
    send(browser, f"{at}/rollback", 400, form=right | {"tables": [*chosen, "conversations"]})
    assert rollbacks(app) == ()
    send(browser, f"{at}/rollback", form=right | {"allow": []})
    (rollback,) = rollbacks(app)
    assert rollback.options["tables"] == chosen


def test_tables_beyond_the_plan_are_not_offered(app: Flask, client_as: ClientAs, target_database: str) -> None:
    execute(target_database, "CREATE TABLE bills (id int PRIMARY KEY)")
    create(Target(target_database), plan("unified"), embeddings=0)
    lead(app, services_of(app).runs.back_up(SETUP, beyond=["public.bills"]).id)
    (made,) = services_of(app).backups.list(SETUP)
    assert len(made.tables) == 9
    browser, at = client_as("admin"), f"/backups/{made.name}"
    first = look(browser, f"{at}/rollback")
    assert "No rollback restores those" in first.one("main").text
    names = [box.attributes["value"] for box in first.every("input", name="look_at")]
    assert len(names) == 8
    send(browser, f"{at}/preview", form={"offered": "1", "look_at": [name or "" for name in names]})
    (run,) = services_of(app).runs.list(SETUP, kind=RunKind.PREVIEW)
    assert run.options["tables"] is None


def test_a_second_rollback_is_told_which_run_holds_the_target(
    app: Flask, client_as: ClientAs, backup: BackupView, database: str
) -> None:
    browser = client_as("admin")
    run = previewed(app, browser, backup)
    right = filled(look(browser, f"/backups/{backup.name}/rollback?preview={run.number}"), database)
    send(browser, f"/backups/{backup.name}/rollback", form=right)
    (first,) = rollbacks(app)
    page = send(browser, f"/backups/{backup.name}/rollback", 409, form=right)
    assert f"Run {first.number} (rollback, pending) holds the target" in page.one("main").text
    assert page.one("a", href=f"/runs/{first.id}")
    assert len(rollbacks(app)) == 1


def test_a_preview_of_another_backup_or_an_unfinished_one_confirms_nothing(
    app: Flask, client_as: ClientAs, backup: BackupView, database: str
) -> None:
    browser = client_as("admin")
    run = services_of(app).runs.start(SETUP, RunKind.BACKUP)
    lead(app, run.id)
    other = services_of(app).backups.list(SETUP)[0]
    assert other.name != backup.name
    done = previewed(app, browser, backup)
    for reference in (done.id, run.id, "999999", "x", "%00"):
        page = look(browser, f"/backups/{other.name}/rollback?preview={reference}")
        assert not confirmations(page)
    unfinished = services_of(app).runs.preview(SETUP, backup.name)
    right = filled(look(browser, f"/backups/{backup.name}/rollback?preview={done.number}"), database)
    send(browser, f"/backups/{backup.name}/rollback", 400, form=right | {"preview_id": unfinished.id})
    send(browser, f"/backups/{other.name}/rollback", 400, form=right)
    assert rollbacks(app) == ()


def test_a_preview_that_failed_says_why_and_offers_another(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    browser = client_as("admin")
    run = services_of(app).runs.preview(SETUP, backup.name)
    services_of(app).runs.cancel(SETUP, run.id)
    page = look(browser, f"/backups/{backup.name}/rollback?preview={run.number}")
    assert "The preview did not come to its end" in page.one("main").text
    assert "Try again" in page.one("main").text
    assert "hx-get" not in page.one("div", id="rollback").attributes


UNUSABLE = [
    ("expires_at = now() - interval '1 minute'", "Its time is over"),
    ("state = 'damaged', damage = '[\"users, stream 1, chunk 0\"]'", "It is damaged"),
    ("state = 'expired', shred_key = NULL", "nobody can read it any more"),
]


def test_what_cannot_be_restored_is_refused_with_what_to_do(
    app: Flask, client_as: ClientAs, backup: BackupView, app_database: str
) -> None:
    browser = client_as("admin")
    for values, why in UNUSABLE:
        execute(app_database, f"UPDATE briefly_admin.backup SET {values}")
        page = look(browser, f"/backups/{backup.name}/rollback", 409)
        assert why in page.one("main").text
        assert "choose another one" in page.one("main").text
        assert not confirmations(page)
        assert why in send(browser, f"/backups/{backup.name}/preview", 409).one("main").text
    assert rollbacks(app) == ()


def test_another_target_is_refused_with_what_to_do(
    app: Flask, client_as: ClientAs, backup: BackupView, app_database: str
) -> None:
    execute(app_database, "UPDATE briefly_admin.backup SET target_id = 'another'")
    page = send(client_as("admin"), f"/backups/{backup.name}/preview", 409)
    assert "of another database" in page.one("main").text
    assert "TARGET_DATABASE_URL" in page.one("main").text


def test_rows_that_moved_after_the_preview_stop_the_rollback(
    app: Flask, client_as: ClientAs, backup: BackupView, target_database: str, database: str
) -> None:
    browser = client_as("admin")
    run = previewed(app, browser, backup)
    right = filled(look(browser, f"/backups/{backup.name}/rollback?preview={run.number}"), database)
    execute(target_database, EDIT)
    send(browser, f"/backups/{backup.name}/rollback", form=right)
    (rollback,) = rollbacks(app)
    ended = lead(app, rollback.id)
    assert ended.state is RunState.FAILED
    assert "changed since the preview" in ended.error
    assert {tier for _, tier in tiers(target_database)} == {"pro_byok"}

    look_again = f"/backups/{backup.name}/rollback?again={rollback.number}"
    assert look(browser, f"/runs/{rollback.number}").one("a", href=look_again).text == "Look at a new preview"
    assert not look(client_as("operator"), f"/runs/{rollback.number}").every("a", href=look_again)
    first = look(browser, look_again)
    assert "changed since the preview" in first.one("div", id="kept").text
    assert first.one("input", name="again").attributes["value"] == str(rollback.number)
    send(browser, f"/backups/{backup.name}/preview", form={"offered": "1", "look_at": ["users", "user_settings"],
                                                           "again": str(rollback.number)})  # fmt: skip
    (fresh,) = services_of(app).runs.list(SETUP, limit=1, kind=RunKind.PREVIEW)
    lead(app, fresh.id)
    page = look(browser, f"/backups/{backup.name}/rollback?preview={fresh.number}&again={rollback.number}")
    assert page.one("textarea", id="reason").text.strip() == "The tiers are wrong."
    assert "checked" in page.one("input", name="mode", value="exact").attributes
    assert [page.one("input", id=word).attributes["value"] for word in ("word", "database")] == ["", ""], "typed anew"
    send(browser, f"/backups/{backup.name}/rollback", form=filled(page, database) | {"again": str(rollback.number)})
    assert lead(app, rollbacks(app)[0].id).state is RunState.COMPLETED
    assert {tier for _, tier in tiers(target_database)} != {"pro_byok"}


def test_a_form_sent_after_the_session_has_ended_leads_back_to_its_page(app: Flask, backup: BackupView) -> None:
    page = f"/backups/{backup.name}/rollback?preview=2"
    for referrer, leads in ((f"http://localhost{page}", True), (f"http://evil.example{page}", False), ("", False)):
        browser = app.test_client()
        answer = browser.post(f"/backups/{backup.name}/rollback", headers={"Referer": referrer})
        assert answer.status_code == 303
        assert answer.headers["Location"] == ("/sign-in?next=" + quote(page) if leads else "/sign-in")
        text = look(browser, answer.headers["Location"]).one("main").text
        assert ("so nothing was done" in text) == leads
    assert rollbacks(app) == ()
