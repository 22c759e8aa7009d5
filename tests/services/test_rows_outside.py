"""Rows of tables outside the plan that a rollback may touch: its own backup has them, and what was confirmed counts."""

from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from briefly_admin.domain.errors import InvalidRequest, Refused
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import pipeline
from briefly_admin.services.views import RunView
from briefly_admin.store import backups
from briefly_admin.vault.exporting import export
from tests.services.conftest import Stage

OUTSIDE = """
CREATE TABLE bills (id int PRIMARY KEY, user_id uuid REFERENCES users ON DELETE CASCADE);
CREATE TABLE bill_lines (id int PRIMARY KEY, bill int REFERENCES bills ON DELETE SET NULL, note text);
CREATE VIEW seen AS SELECT 1 AS id;
"""
CREATED = """
INSERT INTO users SELECT (jsonb_populate_record(u, '{"id": "00000000-0000-4000-8000-00000000000f", "email": "new@example.com"}')).* FROM users u LIMIT 1;
INSERT INTO bills VALUES (1, '00000000-0000-4000-8000-00000000000f'), (2, '00000000-0000-4000-8000-00000000000f');
INSERT INTO bill_lines VALUES (1, 1, 'a line'), (2, 2, NULL), (3, NULL, 'of nobody')
"""


def led(stage: Stage, run: RunView) -> RunView:
    done = stage.lead(run, pipeline.lead)
    assert done.state is RunState.COMPLETED, (done.error, done.remedy)
    return done


def asked(stage: Stage, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(stage.servers.target.dsn) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.fixture
def name(stage: Stage) -> str:
    """The backup from before a user and what refers to it."""
    stage.services.sampledata.create(stage.ana)
    backup = led(stage, stage.services.runs.start(stage.olga, RunKind.BACKUP)).backup_name
    with psycopg.connect(stage.servers.target.dsn) as connection:
        connection.execute(OUTSIDE.encode() + CREATED.encode())
    return backup or ""


def test_the_backup_that_a_rollback_takes_has_the_rows_outside_too(stage: Stage, name: str, tmp_path: Path) -> None:
    services = stage.services
    preview = led(stage, services.runs.preview(stage.olga, name))
    allow = [entry["table"] for entry in (preview.report or {})["preview"]["outside"]]
    assert sorted(allow) == ["public.bill_lines", "public.bills"]
    rollback = services.runs.rollback(
        stage.ana, name, confirm=True, preview_id=preview.id, allow=["public.bills", "public.bill_lines"]
    )
    assert rollback.options["expected_outside"] == {"public.bills": 2, "public.bill_lines": 2}
    assert rollback.options["allow"] == ["public.bills", "public.bill_lines"]
    assert rollback.options["beyond"] == [["public", "bill_lines"], ["public", "bills"]]
    done = led(stage, rollback)
    assert (done.report or {})["restore"]["outside"] == {"public.bills": 2, "public.bill_lines": 2}
    assert asked(stage, "SELECT id, bill FROM bill_lines ORDER BY id") == [(1, None), (2, None), (3, None)]
    assert asked(stage, "SELECT count(*) FROM bills") == [(0,)]

    # Rolled back, the plan's rows come back; those outside stand in the backup.
    safety = services.backups.get(stage.ana, done.backup_name or "")
    assert {each["table"]: each["rows"] for each in safety.tables}["bills"] == 2
    tables = [table.name for table in services.servers.plan.tables]
    led(stage, services.runs.rollback(stage.ana, safety.name, confirm=True, tables=tables))
    assert services.runs.get(stage.vito, done.id).state is RunState.ROLLED_BACK, "all of the plan's tables are all"
    assert asked(stage, "SELECT count(*) FROM users WHERE email = 'new@example.com'") == [(1,)]
    assert asked(stage, "SELECT count(*) FROM bills") == [(0,)]
    with stage.servers.database.begin() as connection:
        row = backups.get(connection, UUID(safety.id))
    assert row is not None
    export(stage.servers.vault.open(row.id, row.shred_key, row.manifest_sha256), tmp_path / "out", "csv")
    files = {file.stem: file.read_text() for file in (tmp_path / "out").glob("*.csv")}
    assert "1,00000000-" in files["bills"]
    assert "1,1,a line" in files["bill_lines"]


def test_what_cannot_be_backed_up_is_not_touched(stage: Stage, name: str) -> None:
    def rollback(*allow: str, tables: list[str] | None = None) -> RunView:
        return stage.services.runs.rollback(stage.ana, name, confirm=True, allow=allow, tables=tables)

    with pytest.raises(InvalidRequest, match=r"no table public\.nothing") as raised:
        rollback("public.bills", "public.nothing")
    assert list(raised.value.details) == ["allow"]
    with pytest.raises(Refused, match=r"cannot be backed up whole .*public\.seen: it is a view"):
        rollback("public.bills", "public.seen")
    with psycopg.connect(stage.servers.target.dsn) as connection:
        connection.execute("ALTER TABLE bills ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    with pytest.raises(Refused, match=r"public\.bills: row-level security"):
        rollback("public.bills")
    assert [run.kind for run in stage.services.runs.list(stage.vito)] == [RunKind.BACKUP]
    planned = rollback("public.user_settings", tables=["users"])
    assert "beyond" not in planned.options, "every backup has the plan's tables"


def test_what_was_confirmed_of_rows_outside(stage: Stage, name: str) -> None:
    """Rows that stand against it were not confirmed; older previews, and no preview, confirmed none."""

    def entry(table: str, action: str, rows: int, *, blocks: bool = False) -> dict[str, Any]:
        return {"table": table, "action": action, "rows": rows, "blocks": blocks}

    lists: list[tuple[list[Any], Any]] = [
        ([], {}),
        (["3 rows of public.bills would be deleted."], None),
        (
            [
                entry("public.bills", "CASCADE", 3), entry("public.bills", "SET NULL", 1), entry("x.y", "SET DEFAULT", 4),
                entry("x.z", "NO ACTION", 5, blocks=True), entry("x.y", "CASCADE", 7, blocks=True),
            ],
            {"public.bills": 4, "x.y": 4},
        ),
    ]  # fmt: skip
    for outside, expected in lists:
        preview = stage.services.runs.preview(stage.olga, name)
        stage.lead(preview, lambda _, outside=outside: {"preview": {"tables": {}, "outside": outside}})  # type: ignore[misc]  # a lambda's default has no type
        run = stage.services.runs.rollback(stage.ana, name, confirm=True, preview_id=preview.id)
        assert run.options["expected_outside"] == expected, outside
        stage.services.runs.cancel(stage.ana, run.id)
    assert stage.services.runs.rollback(stage.ana, name, confirm=True).options["expected_outside"] is None
