"""Starting: who may, one exclusive run a target, the same request twice, bad configs, lost queue, lost target."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from briefly_admin.domain.errors import Busy, InvalidRequest, NotAllowed, NotFound, Refused, Unavailable
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.target import Target
from briefly_admin.services import Servers, ServiceConfig, assemble
from tests.services.conftest import Stage


def test_olga_starts_a_migration_and_it_is_queued_after_the_commit(stage: Stage) -> None:
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION, config={"batchSize": 7})
    assert (run.state, run.number, run.name) == (RunState.PENDING, 1, "unified migration 1")
    assert run.config["batchSize"] == 7
    assert run.config["maxRetries"] == 3
    assert run.sentence == "Waiting for a worker; 1 listens. It begins by itself within seconds."
    assert stage.queue.asked == [run.id]
    assert stage.actions()[-1] == "run.start"
    assert run.status_json()["status"] == "pending"


@pytest.mark.parametrize("kind", [RunKind.MIGRATION, RunKind.VALIDATION, RunKind.BACKUP])
def test_vito_starts_nothing(stage: Stage, kind: RunKind) -> None:
    with pytest.raises(NotAllowed, match="operator"):
        stage.services.runs.start(stage.vito, kind)
    assert stage.services.runs.count(stage.vito) == 0
    assert stage.queue.asked == []


@pytest.mark.parametrize("kind", [RunKind.VERIFICATION, RunKind.DRILL, RunKind.REPLAY, RunKind.ROLLBACK])
def test_other_kinds_are_not_started(stage: Stage, kind: RunKind) -> None:
    with pytest.raises(InvalidRequest):
        stage.services.runs.start(stage.ana, kind)


@pytest.mark.parametrize(
    "config", [{"batchSize": 0}, {"batchSize": "100"}, {"batchSize": True}, {"nonsense": 1}, {"onInvalid": "maybe"}]
)
def test_a_bad_config_names_the_field(stage: Stage, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        stage.services.runs.start(stage.olga, RunKind.MIGRATION, config=config)
    assert list(caught.value.details) == list(config)
    assert stage.services.runs.count(stage.vito) == 0


def test_fifty_starts_at_once_start_one(stage: Stage) -> None:
    def start(_: int) -> str:
        try:
            return stage.services.runs.start(stage.olga, RunKind.MIGRATION).id
        except Busy as busy:
            return f"refused for {busy.run_id}: {busy.message}"

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(start, range(50)))
    started = [answer for answer in answers if not answer.startswith("refused")]
    assert len(started) == 1
    refused = f"refused for {started[0]}: Run 1 (migration, pending) holds the target."
    assert answers.count(refused) == 49


def test_validations_run_beside_a_migration(stage: Stage) -> None:
    stage.services.runs.start(stage.olga, RunKind.MIGRATION)
    assert stage.services.runs.start(stage.olga, RunKind.VALIDATION).number == 2
    assert stage.services.runs.start(stage.olga, RunKind.BACKUP).number == 3


def test_the_same_idempotency_key_starts_one_run(stage: Stage) -> None:
    def start(_: int) -> str:
        return stage.services.runs.start(stage.olga, RunKind.MIGRATION, idempotency_key="once").id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(16)))) == 1
    assert stage.services.runs.count(stage.vito) == 1
    with pytest.raises(Refused, match="migration"):
        stage.services.runs.start(stage.olga, RunKind.VALIDATION, idempotency_key="once")
    with pytest.raises(InvalidRequest):
        stage.services.runs.start(stage.olga, RunKind.VALIDATION, idempotency_key="")


def test_a_queue_that_is_down_loses_nothing(stage: Stage) -> None:
    stage.queue.down = True
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION)
    assert run.enqueued_at is None
    stage.queue.down = False
    assert stage.services.sweeping.sweep() == [run.id]
    assert stage.queue.asked == [run.id]
    assert stage.services.sweeping.sweep() == []


def test_an_unreachable_target_starts_nothing(stage: Stage) -> None:
    servers = Servers(
        stage.servers.database,
        Target("postgresql://ana:geheim@127.0.0.1:1/nothing"),
        stage.servers.vault,
        stage.servers.plan,
    )
    services = assemble(
        servers, ServiceConfig("unified", b"k" * 32), engine=stage.engine, assist=lambda _: 0, now=stage.clock
    )
    with pytest.raises(Unavailable) as caught:
        services.runs.start(stage.olga, RunKind.MIGRATION)
    assert "geheim" not in str(caught.value)
    assert services.runs.count(stage.vito) == 0
    assert services.overview.view(stage.vito).rows is None


def test_an_unknown_run_is_not_found(stage: Stage) -> None:
    for reference in ("", "1", "x", "../1", "\0", "\ud800", "9" * 40, "00000000-0000-4000-8000-000000000000", "²"):
        with pytest.raises(NotFound):
            stage.services.runs.get(stage.vito, reference)
        with pytest.raises(NotFound):
            stage.services.backups.get(stage.vito, reference)


def test_the_plan_and_the_overview_are_read_by_everybody(stage: Stage) -> None:
    stage.services.runs.start(stage.olga, RunKind.MIGRATION)
    plan = stage.services.runs.plan_view(stage.vito)
    assert [table.rows for table in plan.tables] == [None] * 8
    assert any("CREATE UNIQUE INDEX CONCURRENTLY" in change.sql for change in plan.changes)
    assert all("{" not in change.sql.replace("'{}'", "") for change in plan.changes)
    overview = stage.services.overview.view(stage.vito)
    assert [run.number for run in overview.active] == [1]
    assert (overview.tables, overview.rows, overview.colour) == (8, 0, None)
