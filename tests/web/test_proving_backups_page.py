"""Backing up, verifying and drilling from the pages: what begins, what the runs' pages tell, and who may not."""

import json
from typing import Any

import psycopg
import pytest
from flask import Flask

from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import BackupView
from briefly_admin.settings import Settings
from tests.serving import SETUP, ClientAs, lead, services_of
from tests.web.browsing import inline_scripts, look, send
from tests.web.rendering import HOSTILE, Page
from tests.web.test_backups_page import backup, damage, set_backup

__all__ = ["backup"]
STRANGE = 'Other "tables" <b>'


@pytest.fixture
def outside(sample_data: dict[str, int], target_database: str) -> tuple[str, str]:
    """Two tables that the plan does not know."""
    with psycopg.connect(target_database) as connection:
        connection.execute("CREATE TABLE invoices (id int PRIMARY KEY, total numeric)")
        connection.execute("INSERT INTO invoices SELECT n, n * 1.5 FROM generate_series(1, 7) n")
        quoted = STRANGE.replace('"', '""')
        connection.execute(f'CREATE TABLE "{quoted}" (id int PRIMARY KEY)')
    return "public.invoices", f"public.{STRANGE}"


def run_page(browser: Any, number: int) -> Page:
    return look(browser, f"/runs/{number}")


def test_back_up_now_begins_a_run_whose_page_leads_to_the_backup(
    app: Flask, client_as: ClientAs, sample_data: dict[str, int]
) -> None:
    browser = client_as("operator")
    page = send(browser, "/backups", action="back_up")
    assert page.one("h1").text == "Run 1"
    assert "Waiting for a worker" in page.one("p", class_="sentence").text
    lead(app, "1")
    page = run_page(browser, 1)
    (made,) = services_of(app).backups.list(SETUP)
    assert f"{made.rows:,} rows sealed and proven" in page.one("p", class_="sentence").text
    report = page.one("section", id="report")
    assert page.one("a", href=f"/backups/{made.name}").text == made.name
    assert "What the backup holds" in report.text
    assert all(name in report.text for name in sample_data)


def test_tables_outside_the_plan_are_offered_and_taken_along(
    app: Flask, client_as: ClientAs, outside: tuple[str, str]
) -> None:
    browser = client_as("operator")
    page = look(browser, "/backups")
    boxes = page.every("input", name="beyond")
    assert {box.attributes["value"] for box in boxes} == set(outside)
    assert not inline_scripts(page)
    assert not [box for box in boxes if "checked" in box.attributes]
    send(browser, "/backups", form={"beyond": list(outside)})
    lead(app, "1")
    page = run_page(browser, 1)
    assert outside[1] in page.one("section", id="facts").text
    (made,) = services_of(app).backups.list(SETUP)
    assert {"invoices", STRANGE} <= {table["table"] for table in made.tables}
    own = look(browser, f"/backups/{made.name}")
    assert STRANGE in own.one("div", id="tables").text
    assert not inline_scripts(own)


def test_a_table_that_is_not_there_is_refused_and_the_choice_is_kept(
    app: Flask, client_as: ClientAs, outside: tuple[str, str]
) -> None:
    browser = client_as("operator")
    for wrong in ("public.nowhere", "nonsense", "", "users; DROP TABLE users", HOSTILE):
        page = send(browser, "/backups", 400, form={"beyond": [outside[0], wrong]})
        assert "This was refused" in page.one("div", role="alert").text
        chosen = [box.attributes["value"] for box in page.every("input", name="beyond") if "checked" in box.attributes]
        assert chosen == [outside[0]]
        assert not inline_scripts(page)
    assert services_of(app).runs.count(SETUP) == 0


def test_a_target_that_is_away_hides_no_backup(client_as: ClientAs, backup: BackupView, app: Flask) -> None:
    target = services_of(app).servers.target
    dead = type(target)("postgresql://someone:c4nary@127.0.0.1:1/nowhere")
    before = services_of(app).backups._target
    services_of(app).backups._target = dead
    try:
        page = look(client_as("operator"), "/backups")
    finally:
        services_of(app).backups._target = before
    assert page.one("a", href=f"/backups/{backup.name}")
    assert "c4nary" not in page.one("main").text
    assert "nowhere" in page.one("section", id="back-up").text


@pytest.mark.parametrize(("level", "words"), [("L1", "every byte was opened"), ("L0", "every object is there")])
def test_verifying_is_a_run_that_tells_what_it_looked_at(
    app: Flask, client_as: ClientAs, backup: BackupView, level: str, words: str
) -> None:
    browser = client_as("operator")
    page = send(browser, f"/backups/{backup.name}/verify", action="verify", level=level)
    assert f"Verification of {backup.name}, level {level}" in page.one("p", class_="page-subtitle").text
    assert page.one("a", href=f"/backups/{backup.name}").text == backup.name
    lead(app, "2")
    page = run_page(browser, 2)
    assert words in page.one("p", class_="sentence").text
    report = page.one("section", id="report").text
    assert "What was looked at" in report
    assert "users" in report
    own = look(browser, f"/backups/{backup.name}")
    row = own.one("div", id="proofs-table").text
    assert f"{level}: " in row
    assert "whole" in row
    assert own.every("a", href="/runs/2")


def test_a_row_of_the_list_verifies_every_byte(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    page = send(client_as("operator"), f"/backups/{backup.name}/verify", action="verify")
    assert "level L1" in page.one("p", class_="page-subtitle").text


def test_a_level_that_does_not_exist_begins_nothing(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    browser = client_as("operator")
    for level in ("L2", "l1", "", HOSTILE, "9" * 1000):
        page = send(browser, f"/backups/{backup.name}/verify", 400, level=level)
        assert "Nothing was verified" in page.one("div", role="alert").text
        assert not inline_scripts(page)
    assert services_of(app).runs.count(SETUP) == 1


def test_a_drill_restores_compares_and_is_remembered(
    app: Flask, client_as: ClientAs, outside: tuple[str, str], target_database: str
) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, invoice int REFERENCES invoices)")
        connection.execute("INSERT INTO items SELECT n, n FROM generate_series(1, 7) n")
    made = lead(app, services_of(app).runs.back_up(SETUP, beyond=["*"]).id)
    browser = client_as("operator")
    page = send(browser, f"/backups/{made.backup_name}/drill", action="drill")
    assert f"Drill of {made.backup_name}, in a scratch schema of" in page.one("p", class_="page-subtitle").text
    lead(app, "2")
    page = run_page(browser, 2)
    assert f"{made.backup_name} can be restored" in page.one("p", class_="sentence").text
    (compared,) = [region.text for region in page.every("div", role="region", aria_label="Restored and compared")]
    assert compared.count("equal") == 8 + 3
    (keys,) = [region.text for region in page.every("div", role="region", aria_label="Foreign keys")]
    assert "items_invoice_fkey" in keys
    assert "holds" in keys
    own = look(browser, f"/backups/{made.backup_name}")
    assert "L2: restored in a drill and compared" in own.one("div", id="proofs-table").text
    assert "L2: restored in a drill" in look(browser, "/backups").one("div", id="backups").text


@pytest.mark.parametrize("deed", ["verify", "drill"])
def test_damage_is_listed_on_the_run_and_on_the_backup(
    app: Flask, client_as: ClientAs, backup: BackupView, settings: Settings, deed: str
) -> None:
    damage(settings)
    browser = client_as("admin")
    send(browser, f"/backups/{backup.name}/{deed}", action=deed)
    lead(app, "2")
    page = run_page(browser, 2)
    assert "damaged" in page.one("p", class_="sentence").text
    found = page.one("ul", class_="damage").text.strip()
    assert len(found) > 10
    own = look(browser, f"/backups/{backup.name}")
    assert own.one("ul", class_="damage").text.strip() == found
    assert "1 damage" in own.one("div", id="proofs-table").text
    assert not own.every("a", href=f"/backups/{backup.name}/rollback")
    overview = look(browser, "/")
    assert overview.every("a", href=f"/backups/{backup.name}")


def test_a_hundred_lines_of_damage_and_then_their_number(
    app: Flask, client_as: ClientAs, backup: BackupView, app_database: str
) -> None:
    lines = json.dumps([f"users: stream {n}: {HOSTILE}" for n in range(250)])
    browser = client_as("operator")
    send(browser, f"/backups/{backup.name}/verify", action="verify")
    with psycopg.connect(app_database) as connection:
        connection.execute(
            "UPDATE briefly_admin.run SET state = 'failed', error = %s, error_code = 'backup_damaged' WHERE number = 2",
            (HOSTILE,),
        )
        connection.execute("UPDATE briefly_admin.backup SET state = 'damaged', damage = %s::jsonb", (lines,))
    for path in ("/runs/2", f"/backups/{backup.name}"):
        page = look(browser, path)
        items = [
            item for item in page.every("li") if any(e.attributes.get("class") == "damage" for e in item.ancestors)
        ]
        assert len(items) == 101
        assert items[-1].text == "and 150 more"
        assert not inline_scripts(page)


def test_what_is_looked_at_already_is_refused_with_a_way_to_it(
    app: Flask, client_as: ClientAs, backup: BackupView
) -> None:
    browser = client_as("operator")
    for number, deed in ((2, "verify"), (3, "drill")):
        send(browser, f"/backups/{backup.name}/{deed}", action=deed)
        page = send(browser, f"/backups/{backup.name}/{deed}", 409, action=deed)
        alert = page.one("div", role="alert")
        assert f"Run {number} is" in alert.text
        (link,) = [a for a in page.every("a") if a.text == "Open that run"]
        assert look(browser, str(link.attributes["href"])).one("h1").text == f"Run {number}"
    assert services_of(app).runs.count(SETUP) == 3


def test_an_expired_backup_says_so_and_offers_the_list(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    services_of(app).backups.delete(SETUP, backup.name)
    browser = client_as("admin")
    page = look(browser, f"/backups/{backup.name}")
    assert "This backup has expired" in page.one("main").text
    assert [a for a in page.every("a", href="/backups") if a.text == "the list of backups"]
    assert not page.every("button", name="action")
    for deed in ("verify", "drill"):
        page = send(browser, f"/backups/{backup.name}/{deed}", 409, action=deed)
        assert "expired" in page.one("div", role="alert").text
    assert "None of these backups can be restored" in look(browser, "/backups").one("p", id="old").text


def test_an_old_newest_backup_is_warned_of(client_as: ClientAs, backup: BackupView, app_database: str) -> None:
    browser = client_as("viewer")
    assert not look(browser, "/backups").every("p", id="old")
    long_ago = "now() - interval '31 hours'"
    set_backup(
        app_database,
        f"created_at = {long_ago}, completed_at = {long_ago}, expires_at = {long_ago} + interval '1 day', pinned = true",
    )
    assert "31 h old" in look(browser, "/backups").one("p", id="old").text
    overview = look(browser, "/")
    assert "The newest proven backup is 31 h old" in overview.one("main").text
    assert [a for a in overview.every("a", href="/backups") if a.text == "Look"]


def test_who_may_not_sees_why_and_begins_nothing(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    viewer = client_as("viewer")
    assert (
        "This needs the role operator; yours is viewer." in look(viewer, "/backups").one("section", id="back-up").text
    )
    own = look(viewer, f"/backups/{backup.name}").one("section", id="prove").text
    assert "This needs the role operator; yours is viewer." in own
    for path in ("/backups", f"/backups/{backup.name}/verify", f"/backups/{backup.name}/drill"):
        send(viewer, path, 403, level="L1")
    assert services_of(app).runs.count(SETUP) == 1


def test_the_escrow_file_is_told_of(client_as: ClientAs, backup: BackupView, app_database: str) -> None:
    browser = client_as("viewer")
    page = look(browser, f"/backups/{backup.name}")
    assert f"briefly-admin backup escrow {backup.name}" in page.one("main").text
    set_backup(app_database, "escrowed_at = now()")
    assert "briefly-admin backup escrow" not in look(browser, f"/backups/{backup.name}").one("main").text


def test_many_backups_stand_on_one_page(client_as: ClientAs, backup: BackupView, app_database: str) -> None:
    with psycopg.connect(app_database) as connection:
        columns = [
            row[0]
            for row in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'briefly_admin' "
                "AND table_name = 'backup' AND column_name NOT IN ('id', 'name')"
            )
        ]
        listed = ", ".join(columns)
        connection.execute(
            f"INSERT INTO briefly_admin.backup (id, name, {listed}) SELECT gen_random_uuid(), 'backup_' || n, {listed} "
            "FROM briefly_admin.backup, generate_series(1, 300) n"
        )
    page = look(client_as("admin"), "/backups")
    assert len(page.one("div", id="backups").text.split("backup_")) > 300


def test_the_log_tells_what_happened_to_it(app: Flask, client_as: ClientAs, backup: BackupView) -> None:
    services_of(app).backups.pin(SETUP, backup.name)
    text = look(client_as("viewer"), f"/backups/{backup.name}").one("section", id="log").text
    assert "Pinned by setup" in text
    assert "The phase backup" in text


def test_each_kind_in_each_state_has_a_page(
    app: Flask, client_as: ClientAs, backup: BackupView, settings: Settings
) -> None:
    browser = client_as("operator")
    with psycopg.connect(settings.database_url) as connection:
        for kind in (RunKind.VERIFICATION, RunKind.DRILL, RunKind.BACKUP):
            options = {"backup_id": backup.id, "backup_name": backup.name, "level": "L0"}
            for state in RunState:
                connection.execute(
                    "UPDATE briefly_admin.run SET kind = %s, state = %s, options = %s WHERE number = 1",
                    (kind.value, state.value, json.dumps(options if kind is not RunKind.BACKUP else {})),
                )
                connection.commit()
                assert run_page(browser, 1).one("p", class_="sentence").text.endswith("."), (kind, state)
