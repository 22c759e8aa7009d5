"""The whole way through the services with the real engine: sample data, migration, rollback, and that undone again."""

from typing import Any

import psycopg

from briefly_admin.domain.permissions import Permission
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import pipeline
from briefly_admin.plans import plan
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage


def test_migrate_roll_back_and_roll_that_back(stage: Stage) -> None:
    services = stage.services
    assert stage.ana.may(Permission.SAMPLE_DATA)
    services.sampledata.create(stage.ana, dirty=20)
    run = stage.lead(services.runs.start(stage.olga, RunKind.MIGRATION, config={"onInvalid": "skip"}), pipeline.lead)
    assert run.state is RunState.COMPLETED_WITH_SKIPS, (run.error, run.remedy)
    assert run.rollback_available
    assert run.quarantined
    assert "in quarantine" in run.sentence
    assert "can be rolled back until" in run.sentence
    assert [phase.state for phase in run.phases] == ["done"] * 7

    preview = stage.lead(services.runs.preview(stage.olga, run.backup_name or ""), pipeline.lead)
    assert preview.state is RunState.COMPLETED, preview.error
    rollback = services.runs.rollback(stage.ana, run.backup_id or "", confirm=True, preview_id=preview.id)
    assert rollback.options["expected"]
    rollback = stage.lead(rollback, pipeline.lead)
    assert rollback.state is RunState.COMPLETED, (rollback.error, rollback.remedy)
    undone = services.runs.get(stage.vito, run.id)
    assert undone.state is RunState.ROLLED_BACK
    assert not undone.rollback_available
    assert not undone.quarantined
    assert all(row.closed for row in services.findings.quarantine(stage.vito, run.id))

    again = services.runs.rollback(stage.ana, rollback.backup_name or "", confirm=True)
    again = stage.lead(again, pipeline.lead)
    assert again.state is RunState.COMPLETED, (again.error, again.remedy)
    assert services.runs.get(stage.vito, rollback.id).state is RunState.ROLLED_BACK
    restored = services.runs.get(stage.vito, run.id)
    assert restored.state is RunState.COMPLETED_WITH_SKIPS
    assert restored.quarantined
    assert stage.actions().count("backup.prove") == 3


def test_a_backup_from_before_several_migrations_brings_their_schema_changes_back(stage: Stage) -> None:
    services = stage.services

    def led(run: RunView) -> RunView:
        done = stage.lead(run, pipeline.lead)
        assert done.state in {RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS}, (done.error, done.remedy)
        return done

    def migrated() -> RunView:
        return led(services.runs.start(stage.olga, RunKind.MIGRATION, config={"onInvalid": "skip"}))

    def rolled_back(name: str | None) -> RunView:
        return led(services.runs.rollback(stage.ana, name or "", confirm=True))

    services.sampledata.create(stage.ana, dirty=20)
    before = _target(stage)
    backup = led(services.runs.start(stage.olga, RunKind.BACKUP))
    first = migrated()
    rolled_back(first.backup_name)
    assert _target(stage) == before
    second = migrated()
    # What was in the way of some constraints is cured.
    with psycopg.connect(stage.servers.target.dsn) as connection:
        connection.execute("DELETE FROM chat_messages; DELETE FROM document_chunks")
    third = migrated()
    after = _target(stage)
    assert after != before

    back = rolled_back(backup.backup_name)
    assert _target(stage) == before
    assert {services.runs.get(stage.vito, run.id).state for run in (second, third)} == {RunState.ROLLED_BACK}
    rolled_back(back.backup_name)
    assert _target(stage) == after
    rolled_back(second.backup_name)
    assert _target(stage) == before


def _target(stage: Stage) -> dict[str, list[tuple[Any, ...]]]:
    """The sample tables' rows, columns, constraints and indexes."""
    looks = {
        "columns": "SELECT table_name, column_name, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2",
        "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, 2",
        "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
    }
    looks |= {table.name: f'SELECT t::text FROM public."{table.name}" t ORDER BY 1' for table in plan("unified").tables}
    with psycopg.connect(stage.servers.target.dsn) as connection:
        return {what: connection.execute(query.encode()).fetchall() for what, query in looks.items()}
