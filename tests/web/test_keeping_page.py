"""Keep, on the page: the preview names the very rows that were edited, and they fare as the form says."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from flask import Flask

from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.sampledata import create
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.services.views import RunView
from tests.serving import SETUP, ClientAs, lead, services_of
from tests.web.browsing import look, send
from tests.web.rendering import Page

TIERS = "SELECT id::text, subscription_tier FROM users ORDER BY id"


@pytest.fixture
def migration(app: Flask, target_database: str) -> RunView:
    """A finished migration of dirty data."""
    create(Target(target_database), plan("unified"), dirty=5, embeddings=0)
    run = services_of(app).runs.start(SETUP, RunKind.MIGRATION, config={"onInvalid": "skip"})
    done = lead(app, run.id)
    assert done.state is RunState.COMPLETED_WITH_SKIPS, done.error
    return done


@pytest.fixture
def target(target_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(target_database, autocommit=True) as connection:
        yield connection


def tiers(target: psycopg.Connection) -> dict[str, str]:
    return dict(target.execute(TIERS).fetchall())


def edited(target: psycopg.Connection) -> list[str]:
    """Edit three users by hand; their ids."""
    found = target.execute(
        "UPDATE users SET subscription_tier = 'pro_byok' WHERE id IN "
        "(SELECT id FROM users WHERE subscription_tier <> 'pro_byok' ORDER BY id LIMIT 3) RETURNING id::text"
    ).fetchall()
    assert len(found) == 3
    return sorted(key for (key,) in found)


def previewed(app: Flask, name: str) -> RunView:
    done = lead(app, services_of(app).runs.preview(SETUP, name).id)
    assert done.state is RunState.COMPLETED, done.error
    return done


def filled(page: Page, database: str) -> dict[str, str | list[str]]:
    """The form as a browser would send it, in the mode keep, with everything typed right."""
    sent: dict[str, str | list[str]] = {
        box.attributes["name"] or "": box.text.removeprefix("\r\n").removeprefix("\n") for box in page.every("textarea")
    }
    sent |= {box.attributes["name"] or "": "y" for box in page.every("input", type="checkbox", value="y")
             if "checked" in box.attributes}  # fmt: skip
    return sent | {
        "preview_id": page.one("input", id="preview_id").attributes["value"] or "", "mode": "keep",
        "tables": [box.attributes["value"] or "" for box in page.every("input", type="checkbox", name="tables")],
        "reason": "The repairs were wrong.", "word": "ROLLBACK", "database": database,
    }  # fmt: skip


def test_edited_rows_are_named_settled_and_kept(
    app: Flask, client_as: ClientAs, migration: RunView, target: psycopg.Connection, target_database: str
) -> None:
    keys, migrated = edited(target), tiers(target)
    run = previewed(app, migration.backup_name or "")
    browser, at = client_as("admin"), f"/backups/{migration.backup_name}/rollback"
    page = look(browser, f"{at}?preview={run.number}")
    (group,) = [each for each in page.every("details") if each.text.strip().startswith("users: 3 edited since")]
    inside = [each for each in page.every("code") if group in each.ancestors]
    assert sorted({each.text for each in inside if each.text in migrated}) == keys
    assert "pro_byok" in {each.text for each in inside}
    hows = page.every("select")
    assert len(hows) == 3

    form = filled(page, urlsplit(target_database).path[1:])
    first = hows[0].attributes["name"] or ""
    text = next(each for each in page.every("label") if each.text == "subscription_tier").attributes["for"] or ""
    wrong = send(browser, at, 400, form=form | {first: "edit"})
    assert "Nothing was edited" in wrong.one("div", id=f"{first}-errors").text
    assert not services_of(app).runs.list(SETUP, kind=RunKind.ROLLBACK)

    send(browser, at, form=form | {first: "edit", text: "free"})
    (rollback,) = services_of(app).runs.list(SETUP, kind=RunKind.ROLLBACK)
    settled = rollback.options["settled"]["users"]
    assert [(row["how"], row["values"]) for row in settled] == [("edit", {"subscription_tier": "free"})]
    done = lead(app, rollback.id)
    assert done.state is RunState.COMPLETED, done.error
    now = tiers(target)
    assert [now[key] for key in keys] == ["free" if [key] == settled[0]["key"] else "pro_byok" for key in keys]

    report = look(browser, f"/runs/{rollback.number}")
    main = report.one("main").text
    for words in ("Mode", "keep: what the migration did", "edited since: kept", "1 edited", "The repairs were wrong."):
        assert words in main
    for words in (
        "What was written",
        "What stood there before",
        "Decided row by row",
        "How long it took",
        "Writing the rows that differ",
        "Digests",
    ):
        assert words in report.one("section", id="report").text
    (row,) = [row.text.split() for row in report.every("tr") if settled[0]["key"][0] in row.text]
    assert "subscription_tier" in row[-1]
    schema = " ".join(each.text for each in report.every("summary"))
    assert "5 kept" in schema, "plain indexes stay"
    assert "was taken and proven first: this rollback can be rolled back" in report.one("section", id="report").text


def test_the_previews_own_page_shows_the_same(
    app: Flask, client_as: ClientAs, migration: RunView, target: psycopg.Connection
) -> None:
    keys = edited(target)
    run = previewed(app, migration.backup_name or "")
    page = look(client_as("viewer"), f"/runs/{run.number}")
    text = page.one("main").text
    assert "3 edited since kept" in page.one("div", id="counts").text
    assert all(key in text for key in keys)
    assert not page.every("select")
    assert not page.every("input", name="mode")
