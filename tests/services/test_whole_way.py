"""The whole way through the services with the real engine: sample data, migration, rollback, and that undone again."""

from briefly_admin.domain.permissions import Permission
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import pipeline
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
