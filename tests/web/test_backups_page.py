"""The page Backups: what is kept, how it was proven, and what each role may do with it."""

from pathlib import Path

import psycopg
import pytest
from flask import Flask

from briefly_admin.domain.runs import RunKind
from briefly_admin.services.views import BackupView
from briefly_admin.settings import Settings
from tests.serving import SETUP, ClientAs, lead, services_of
from tests.web.browsing import confirmations, inline_scripts, look, send
from tests.web.rendering import HOSTILE


@pytest.fixture
def backup(app: Flask, sample_data: dict[str, int]) -> BackupView:
    run = services_of(app).runs.start(SETUP, RunKind.BACKUP)
    lead(app, run.id)
    (made,) = services_of(app).backups.list(SETUP)
    return made


def set_backup(database: str, values: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE briefly_admin.backup SET {values}")


def damage(settings: Settings) -> None:
    """Flip one byte in the middle of a stream."""
    root = Path(settings.backup_store_url.removeprefix("file://").removeprefix("file:"))
    stream = max(root.rglob("*.bma"), key=lambda path: path.stat().st_size)
    data = bytearray(stream.read_bytes())
    data[len(data) // 2] ^= 1
    stream.write_bytes(data)


def test_nobody_is_led_to_the_sign_in(app: Flask) -> None:
    assert app.test_client().get("/backups").headers["Location"] == "/sign-in?next=/backups"


def test_without_backups_the_page_says_what_to_do_first(client_as: ClientAs) -> None:
    page = look(client_as("operator"), "/backups")
    assert "No backups yet" in page.one("main").text
    assert page.one("button", class_="btn btn-primary", value="back_up")
    assert not look(client_as("viewer"), "/backups").every("button", value="back_up")


def test_a_backup_is_listed_with_all_that_is_known_of_it(client_as: ClientAs, backup: BackupView) -> None:
    page = look(client_as("admin"), "/backups")
    (row,) = [row.text for row in page.every("tr") if backup.name in row.text]
    assert f"{backup.rows:,}" in row
    assert "proven" in row
    assert page.one("a", href=f"/runs/{backup.run_number}").text == f"run {backup.run_number}"
    bar = page.one("progress", aria_label=f"Time left of {backup.name}")
    assert 0 < float(bar.attributes["value"] or 0) <= float(bar.attributes["max"] or 0)
    assert "copies of the app database" in page.one("main").text
    assert page.one("div", id="backups").text.count("L1: every byte read") == 1


def test_each_role_sees_its_own_buttons_and_why_not(client_as: ClientAs, backup: BackupView) -> None:
    looks = {"back_up", "verify", "drill", "pin"}
    for role, deeds in (("viewer", set()), ("operator", {*looks, "preview"}), ("admin", looks)):
        browser = client_as(role)
        page = look(browser, "/backups")
        assert {button.attributes["value"] for button in page.every("button", name="action")} == deeds
        assert (f"the role admin; yours is {role}" in page.one("main").text) == (role != "admin")
        rollback = page.every("a", href=f"/backups/{backup.name}/rollback")
        assert len(rollback) == (1 if role == "admin" else 0)
        own = look(browser, f"/backups/{backup.name}")
        assert bool(own.every("form", action=f"/backups/{backup.name}/delete")) == (role == "admin")
        assert ("This needs the role admin" in own.one("main").text) == (role != "admin")


def test_pinning_keeps_it_and_unpinning_lets_it_go(client_as: ClientAs, backup: BackupView) -> None:
    browser = client_as("operator")
    page = send(browser, f"/backups/{backup.name}/pin", action="pin")
    assert "kept until it is unpinned" in page.one("main").text
    assert not page.every("progress")
    page = send(browser, f"/backups/{backup.name}/unpin", action="unpin")
    assert page.one("progress")


def test_text_from_outside_is_escaped(client_as: ClientAs, backup: BackupView, app_database: str) -> None:
    quoted = HOSTILE.replace("'", "''")
    set_backup(
        app_database, f"target_title = '{quoted}', state = 'damaged', damage = jsonb_build_array('{quoted}'::text)"
    )
    page = look(client_as("admin"), f"/backups/{backup.name}")
    assert not inline_scripts(page)
    assert HOSTILE in page.one("ul", class_="damage").text


def test_deleting_wants_the_name_typed(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    browser = client_as("admin")
    for typed in ("", "backup_1", backup.name.upper(), f" {backup.name}"):
        page = send(browser, f"/backups/{backup.name}/delete", 400, name=typed)
        assert page.one("input", id="name", aria_invalid="true")
        assert "Nothing was deleted" in page.one("div", role="alert").text
    assert services_of(app).backups.get(SETUP, backup.name).state == "proven"
    page = send(browser, f"/backups/{backup.name}/delete", name=backup.name)
    assert "its key is destroyed" in page.one("div", id="flashes").text
    assert services_of(app).backups.get(SETUP, backup.name).state == "expired"
    expired = look(browser, f"/backups/{backup.name}")
    assert "nobody can read it any more" in expired.one("main").text
    assert not confirmations(expired)


def test_a_pinned_backup_is_not_deleted(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    services_of(app).backups.pin(SETUP, backup.name)
    browser = client_as("admin")
    assert not look(browser, f"/backups/{backup.name}").every("form", action=f"/backups/{backup.name}/delete")
    send(browser, f"/backups/{backup.name}/delete", 409, name=backup.name)
    assert services_of(app).backups.get(SETUP, backup.name).state == "proven"


def test_the_wrong_role_is_refused(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    for role, deeds in (
        ("viewer", ("verify", "drill", "pin", "unpin", "preview", "delete")),
        ("operator", ("delete",)),
    ):
        browser = client_as(role)
        for deed in deeds:
            page = send(browser, f"/backups/{backup.name}/{deed}", 403, name=backup.name)
            assert "This needs the role" in page.one("main").text
    assert services_of(app).backups.get(SETUP, backup.name) == backup


def test_what_is_not_there_is_not_found(client_as: ClientAs) -> None:
    browser = client_as("admin")
    for name in ("backup_1", "..", "%00", "%3Cscript%3E", "../../etc/passwd", "00000000-0000-0000-0000-000000000000"):
        assert browser.get(f"/backups/{name}").status_code == 404, name


def test_the_wrong_verb_is_refused(client_as: ClientAs, backup: BackupView) -> None:
    browser = client_as("admin")
    for deed in ("verify", "drill", "pin", "unpin", "delete", "preview"):
        assert browser.get(f"/backups/{backup.name}/{deed}").status_code == 405


def test_without_the_forms_token_nothing_happens(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    assert client_as("admin").post(f"/backups/{backup.name}/delete", data={"name": backup.name}).status_code == 400
    assert services_of(app).backups.get(SETUP, backup.name).state == "proven"
