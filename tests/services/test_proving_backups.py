"""Looking at backups again: verifications and drills by people and by the clock, and what the overview says of them."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from briefly_admin.domain.errors import BackupDamaged, Busy, InvalidRequest, NotAllowed, NotFound, Unavailable
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import pipeline, scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.services import Services, assemble
from briefly_admin.services.config import ServiceConfig
from briefly_admin.services.views import BackupView, RunView
from tests.services.conftest import Stage
from tests.services.test_keeping_backups import backup

__all__ = ["backup"]


def damage_every_stream(tmp_path: Path) -> int:
    """How many streams it changed."""
    streams = list(tmp_path.rglob("streams/*.bma"))
    for stream in streams:
        content = bytearray(stream.read_bytes())
        content[-1] ^= 1
        stream.write_bytes(content)
    return len(streams)


def scratch_schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        query = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'briefly_scratch')"
        return [str(name) for (name,) in connection.execute(query)]


@pytest.mark.parametrize("level", ["L0", "L1"])
def test_a_whole_backup_is_verified_by_a_run(stage: Stage, backup: BackupView, level: str) -> None:
    run = stage.lead(stage.services.runs.verify_backup(stage.olga, backup.name, level=level), pipeline.lead)
    assert (run.state, run.kind) == (RunState.COMPLETED, RunKind.VERIFICATION), run.error
    view = stage.services.backups.get(stage.vito, backup.name)
    assert view.state == "proven"
    newest = view.proofs[0]
    assert (newest.level, newest.whole, newest.by, newest.run_number) == (level, True, stage.olga.name, run.number)
    assert len(view.proofs) == 2
    assert "backup.verify" in stage.actions()
    assert any(f"{level}" in line.message for line in stage.services.backups.log(stage.vito, backup.name))


def test_all_damage_is_listed_and_nothing_is_restored_from_it(stage: Stage, backup: BackupView, tmp_path: Path) -> None:
    count = damage_every_stream(tmp_path)
    run = stage.lead(stage.services.runs.verify_backup(stage.olga, backup.name), pipeline.lead)
    assert (run.state, run.error_code) == (RunState.FAILED, "backup_damaged")
    damaged = stage.services.backups.get(stage.vito, backup.name)
    assert (damaged.state, damaged.restorable, len(damaged.damage)) == ("damaged", False, count)
    assert (damaged.proofs[0].whole, damaged.proofs[0].damages) == (False, count)
    with pytest.raises(BackupDamaged):
        stage.services.runs.rollback(stage.ana, backup.name, confirm=True)
    attention = stage.services.overview.view(stage.vito).attention
    assert any(item.text == f"{backup.name} is damaged" for item in attention)


def test_a_store_that_does_not_answer_damages_nothing(stage: Stage, backup: BackupView, tmp_path: Path) -> None:
    (tmp_path / "backups").rename(tmp_path / "away")
    (tmp_path / "backups").write_text("no directory")
    config = {"maxRetries": 0}
    with psycopg.connect(stage.app_url) as connection:
        run = stage.services.runs.verify_backup(stage.olga, backup.name)
        connection.execute("UPDATE briefly_admin.run SET config = config || %s", (psycopg.types.json.Jsonb(config),))
    run = stage.lead(run, pipeline.lead)
    assert run.state is RunState.FAILED
    assert run.error_code != "backup_damaged"
    assert stage.services.backups.get(stage.vito, backup.name).state == "proven"


def test_a_look_that_goes_on_after_the_backup_expired_finds_no_damage(stage: Stage, backup: BackupView) -> None:
    run = stage.services.runs.verify_backup(stage.olga, backup.name, level="L0")
    stage.services.runs.cancel(stage.olga, run.id)
    stage.services.backups.delete(stage.ana, backup.name)
    with psycopg.connect(stage.app_url) as connection:
        other = b"of another backup"
        stage.servers.vault.store.put("notes/readme", [other])  # the store is there
        connection.execute("UPDATE briefly_admin.run SET started_at = now()")
    stage.services.runs.resume(stage.olga, run.id)
    view = stage.lead(run, pipeline.lead)
    assert (view.state, view.error_code) == (RunState.FAILED, "backup_expired")
    assert [proof.whole for proof in stage.services.backups.get(stage.vito, backup.name).proofs] == [True]


def test_who_may_look_and_at_what(stage: Stage, backup: BackupView) -> None:
    runs = stage.services.runs
    for act in (runs.verify_backup, runs.drill):
        with pytest.raises(NotAllowed):
            act(stage.vito, backup.name)
        with pytest.raises(NotFound):
            act(stage.olga, "backup_1")
    with pytest.raises(InvalidRequest) as caught:
        runs.verify_backup(stage.olga, backup.name, level="L2")
    assert list(caught.value.details) == ["level"]


def test_one_look_of_a_kind_at_a_time_and_a_repeated_request_is_the_same(stage: Stage, backup: BackupView) -> None:
    runs = stage.services.runs
    for act in (runs.verify_backup, runs.drill):
        first = act(stage.olga, backup.name, idempotency_key=f"key {act.__name__}")
        assert act(stage.olga, backup.name, idempotency_key=f"key {act.__name__}").id == first.id
        with pytest.raises(Busy, match=f"Run {first.number} "):
            act(stage.olga, backup.name)


def test_a_drill_restores_it_elsewhere_and_leaves_nothing(
    stage: Stage, backup: BackupView, target_database: str
) -> None:
    run = stage.lead(stage.services.runs.drill(stage.olga, backup.name), pipeline.lead)
    assert run.state is RunState.COMPLETED, run.error
    proof = stage.services.backups.get(stage.vito, backup.name).proofs[0]
    assert (proof.level, proof.whole, proof.rows, proof.place) == ("L2", True, backup.rows, backup.target_title)
    assert scratch_schemas(target_database) == []
    assert "backup.drill" in stage.actions()


def with_config(stage: Stage, **changes: object) -> Services:
    config = replace(ServiceConfig(plan_name="unified", audit_key=b"k" * 32, lease=timedelta(seconds=2)), **changes)  # type: ignore[arg-type]
    return assemble(stage.servers, config, engine=stage.engine, assist=stage.engine.help, now=stage.clock)


def test_the_clock_drills_the_newest_backup_when_it_is_time(stage: Stage, backup: BackupView) -> None:
    assert stage.services.sweeping.drill_if_due() is None
    services = with_config(stage, drill_every=timedelta(hours=12))
    run_id = services.sweeping.drill_if_due()
    assert run_id is not None
    run = services.runs.get(stage.vito, run_id)
    assert (run.kind, run.created_by, run.options["backup_name"]) == (RunKind.DRILL, "clock", backup.name)
    assert services.sweeping.drill_if_due() is None
    stage.lead(run, pipeline.lead)
    stage.clock.move(hours=13)
    again = services.sweeping.drill_if_due()
    assert again not in {None, run_id}


def test_without_a_backup_the_clock_drills_nothing(stage: Stage) -> None:
    assert with_config(stage, drill_every=timedelta(hours=1)).sweeping.drill_if_due() is None


def test_a_drill_database_that_does_not_answer_is_said(stage: Stage, backup: BackupView) -> None:
    nowhere = replace(stage.servers, drill_target=Target("postgresql://nobody@127.0.0.1:1/none"))
    config = ServiceConfig(plan_name="unified", audit_key=b"k" * 32)
    services = assemble(nowhere, config, engine=stage.engine, assist=stage.engine.help, now=stage.clock)
    with pytest.raises(Unavailable):
        services.runs.drill(stage.olga, backup.name)
    assert [run.kind for run in services.runs.list(stage.vito)] == [RunKind.BACKUP]


def test_a_failed_drill_and_an_old_backup_need_attention(stage: Stage, backup: BackupView, tmp_path: Path) -> None:
    damage_every_stream(tmp_path)
    run: RunView = stage.lead(stage.services.runs.drill(stage.olga, backup.name), pipeline.lead)
    assert run.state is RunState.FAILED
    texts = [item.text for item in stage.services.overview.view(stage.vito).attention]
    assert f"The drill of {backup.name} failed" in texts
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.backup SET state = 'proven', pinned = true")
    stage.clock.move(hours=31)
    texts = [item.text for item in stage.services.overview.view(stage.vito).attention]
    assert any(text.startswith("The newest proven backup is 31 h") for text in texts), texts
    checks = {check.name: check for check in stage.services.checks.run(stage.olga)}
    assert checks["newest_backup"].colour == "amber"
    assert checks["last_drill"].colour == "amber"


def test_that_no_proven_backup_is_left_needs_attention(stage: Stage, backup: BackupView) -> None:
    texts = [item.text for item in stage.services.overview.view(stage.vito).attention]
    assert not any("proven backup" in text for text in texts)
    stage.clock.move(hours=25)
    assert stage.services.sweeping.purge() == 1
    texts = [item.text for item in stage.services.overview.view(stage.vito).attention]
    assert "No proven backup is left" in texts, texts


def test_a_drill_database_that_is_lost_keeps_no_scratch_in_the_target(stage: Stage, target_database: str) -> None:
    stage.services.sampledata.create(stage.ana)
    run = stage.services.runs.start(stage.olga, RunKind.BACKUP)
    stage.services.runs.cancel(stage.olga, run.id)
    nowhere = [Target("postgresql://nobody@127.0.0.1:1/none") for _ in range(12)]
    for lost in nowhere:  # whichever of the two comes first
        with psycopg.connect(target_database) as connection:
            scratch.create_scratch(connection, UUID(run.id), run.attempt)
        servers = replace(stage.servers, drill_target=lost)
        config = ServiceConfig(plan_name="unified", audit_key=b"k" * 32)
        assemble(servers, config, engine=stage.engine, assist=stage.engine.help, now=stage.clock).sweeping.purge()
        assert scratch_schemas(target_database) == []


def test_production_asks_for_an_escrow_file(stage: Stage, backup: BackupView) -> None:
    services = with_config(stage, production=True)
    found = {check.name: check for check in services.checks.run(stage.olga)}["escrow"]
    assert found.colour == "amber"
    services.keys.escrow(stage.ana, backup.name, lambda _: None)
    found = {check.name: check for check in services.checks.run(stage.olga)}["escrow"]
    assert found.colour == "green"
    assert "escrow" not in {check.name for check in stage.services.checks.run(stage.olga)}


def test_tables_beyond_the_plan_are_backed_up_by_name(stage: Stage, target_database: str) -> None:
    stage.services.sampledata.create(stage.ana)
    with psycopg.connect(target_database) as connection:
        connection.execute("CREATE TABLE public.job_logs (id int PRIMARY KEY, what text)")
        connection.execute("INSERT INTO public.job_logs SELECT n, 'job ' || n FROM generate_series(1, 7) AS n")
    assert [(table.name, table.why_not) for table in stage.services.backups.beyond(stage.olga)] == [
        ("public.job_logs", "")
    ]
    with pytest.raises(InvalidRequest):
        stage.services.runs.back_up(stage.olga, beyond=["public.nothing"])
    with pytest.raises(NotAllowed):
        stage.services.runs.back_up(stage.vito, beyond=["public.job_logs"])
    run = stage.lead(stage.services.runs.back_up(stage.olga, beyond=["public.job_logs"]), pipeline.lead)
    assert run.state is RunState.COMPLETED, run.error
    view = stage.services.backups.get(stage.vito, run.backup_name or "")
    assert [(table["table"], table["rows"]) for table in view.tables][-1] == ("job_logs", 7)
    rollback = stage.services.runs.preview(stage.olga, view.name)
    assert stage.lead(rollback, pipeline.lead).state is RunState.COMPLETED


def test_the_log_tells_every_deed(stage: Stage, backup: BackupView) -> None:
    stage.services.backups.pin(stage.olga, backup.name)
    stage.services.keys.escrow(stage.ana, backup.name, lambda _: None)
    stage.services.keys.reader(stage.ana, backup.name)
    stage.services.keys.rotate(stage.ana)
    stage.services.backups.unpin(stage.olga, backup.name)
    stage.services.backups.delete(stage.ana, backup.name)
    told = [line.message for line in stage.services.backups.log(stage.vito, backup.name)]
    for words in ("Deleted", "Unpinned", "Opened", "Escrow file written", "Pinned", "Proven", "rows sealed by"):
        assert any(words in line for line in told), (words, told)


def test_what_a_killed_drill_left_is_swept_once_its_run_is_over(
    stage: Stage, backup: BackupView, target_database: str
) -> None:
    def killed(context: RunContext) -> dict[str, Any]:
        with context.target.session(bulk=True) as connection:
            scratch.create_scratch(connection, context.run_id, context.attempt)
        raise KeyboardInterrupt

    run = stage.services.runs.drill(stage.olga, backup.name)
    with pytest.raises(KeyboardInterrupt):
        stage.lead(run, killed)
    stage.services.sweeping.purge()
    assert len(scratch_schemas(target_database)) == 1, "it may still go on"
    stage.services.runs.cancel(stage.olga, run.id)
    with psycopg.connect(target_database) as connection:
        connection.execute("CREATE SCHEMA briefly_scratch_00000000000000000000000000000001_1")
    stage.services.sweeping.purge()
    assert scratch_schemas(target_database) == ["briefly_scratch_00000000000000000000000000000001_1"], "whose it is?"
    assert "scratch.sweep" in stage.actions()


def test_a_backup_of_another_database_is_not_at_hand(stage: Stage, backup: BackupView) -> None:
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.backup SET target_title = 'elsewhere/other'")
    checks = {check.name: check for check in stage.services.checks.run(stage.olga)}
    assert checks["newest_backup"].found == "There is none yet."
    assert with_config(stage, drill_every=timedelta(hours=12)).sweeping.drill_if_due() is None
