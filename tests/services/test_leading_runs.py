"""Leading: how each ending is written down, who may take over, and what pages see meanwhile."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.errors import BlockingFindings, BrieflyError, Fenced, Refused, RunFailed, Stopped
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import Phase, RunKind, RunState
from briefly_admin.engine.context import RunContext
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage

PROGRESS = Progress("migrate", (TableProgress("users", 100, 40, 3, 1, 12.0),), rate=12.0, eta_seconds=5.0)


def _start(stage: Stage, kind: RunKind = RunKind.MIGRATION, **config: Any) -> RunView:
    return stage.services.runs.start(stage.olga, kind, config=config)


def _make_stale(stage: Stage) -> None:
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.run SET heartbeat_at = now() - interval '1 hour'")


def test_a_run_completes_with_what_the_engine_reports(stage: Stage) -> None:
    def work(context: RunContext) -> Mapping[str, Any]:
        assert (context.attempt, context.kind, context.config.batch_size) == (1, RunKind.MIGRATION, 7)
        context.journal.phase_started(Phase.MIGRATE)
        context.journal.log("info", "a line with a \0 in it", Phase.MIGRATE)
        context.journal.totals(40, 100)
        context.report(PROGRESS)
        context.journal.phase_finished(Phase.MIGRATE, {"changed": 3})
        return {"migrate": {"changed": 3, "skipped": 0}}

    run = stage.lead(_start(stage, batchSize=7), work)
    assert (run.state, run.finished, run.records_processed) == (RunState.COMPLETED, True, 40)
    assert run.sentence == "Done: 40 rows looked at, 3 changed."
    assert run.progress is not None
    assert run.progress.tables[0].done == 40
    assert [line.message for line in stage.services.runs.log(stage.vito, run.id)] == ["a line with a \ufffd in it"]
    assert stage.services.runs.throughput(stage.vito, run.id)[0].rate == 12.0
    assert [a for a in stage.actions() if a.startswith("run.")] == ["run.start", "run.lead", "run.finish"]
    assert {event.actor for event in stage.services.audit.list(stage.vito, action="run.finish")} == {"worker"}


def test_a_target_that_is_away_for_a_moment_fails_no_run(
    stage: Stage, superuser_database: Callable[[str], str]
) -> None:  # fmt: skip
    run = _start(stage)
    with psycopg.connect(superuser_database(stage.servers.target.dsn), autocommit=True) as superuser:
        database = sql.Identifier(superuser.info.dbname)
        superuser.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 0").format(database))
        back = threading.Timer(
            0.6, lambda: superuser.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(database))
        )
        back.start()
        run = stage.lead(run)
        back.join()
    assert run.state is RunState.COMPLETED


def test_skipped_rows_make_another_state(stage: Stage) -> None:
    def work(context: RunContext) -> Mapping[str, Any]:
        context.journal.save_quarantine([QuarantinedRow("users", ("a", "\0"), "blocking", "no e-mail")] * 2)
        return {"migrate": {"skipped": 1}}

    run = stage.lead(_start(stage), work)
    assert (run.state, run.quarantined) == (RunState.COMPLETED_WITH_SKIPS, 1)
    assert stage.services.findings.quarantine(stage.vito, run.id)[0].key == ("a", "\0")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (RunFailed("No disk.", remedy="Buy one."), "run_failed", "No disk."),
        (BlockingFindings("Two findings."), "blocking_findings", "Two findings."),
        (ZeroDivisionError("secret tenant data"), "unexpected", "unexpected error: ZeroDivisionError"),
    ],
)
def test_failures_are_endings(stage: Stage, error: Exception, code: str, text: str) -> None:
    def work(_: RunContext) -> Mapping[str, Any]:
        raise error

    run = stage.lead(_start(stage), work)
    assert (run.state, run.error_code, run.error) == (RunState.FAILED, code, text)
    assert "secret" not in str(run)
    assert text in run.sentence
    assert stage.actions()[-1] == "run.fail"
    assert _start(stage).state is RunState.PENDING


def test_a_run_failed_in_the_phase_that_failed_whatever_was_reported_last(stage: Stage) -> None:
    def work(context: RunContext) -> Mapping[str, Any]:
        context.journal.phase_started(Phase.BACKUP)
        context.report(Progress("backup"))
        context.journal.phase_started(Phase.CONSTRAIN)
        raise RunFailed("A lock was in the way.")

    run = stage.lead(_start(stage), work)
    assert run.phase == "constrain"
    assert run.sentence.startswith("Stopped while adding")


def test_pausing_and_cancelling_end_where_people_asked(stage: Stage) -> None:
    for steer, state in (("pause", RunState.PAUSED), ("cancel", RunState.CANCELLED)):
        run = _start(stage)

        def work(context: RunContext, run: RunView = run, steer: str = steer) -> Mapping[str, Any]:
            getattr(stage.services.runs, steer)(stage.olga, run.id)
            began = time.monotonic()
            with pytest.raises(Stopped):
                context.sleep(60)
            assert time.monotonic() - began < 5
            raise Stopped(context.should_stop() or "")

        ended = stage.lead(run, work)
        assert ended.state is state
        assert "by olga@example.com" in ended.sentence
        if state is RunState.PAUSED:
            assert stage.services.runs.resume(stage.olga, run.id).state is RunState.PENDING
            assert stage.lead(run).attempt == 2


def test_a_restart_interrupts_and_the_sweeper_goes_on_by_itself(stage: Stage) -> None:
    def work(context: RunContext) -> Mapping[str, Any]:
        context.check_stop()
        return {}

    run = stage.lead(_start(stage), work, interrupted=lambda: True)
    assert run.state is RunState.INTERRUPTED
    assert "goes on by itself within" in run.sentence
    assert stage.services.sweeping.sweep() == [run.id]
    assert stage.lead(run).state is RunState.COMPLETED


def test_live_settings_arrive_while_it_runs(stage: Stage) -> None:
    run = _start(stage)

    def work(context: RunContext) -> Mapping[str, Any]:
        stage.services.runs.change(stage.olga, run.id, {"batchSize": 42})
        end = time.monotonic() + 10
        while context.config.batch_size != 42 and time.monotonic() < end:
            context.sleep(0.05)
        return {"batch": context.config.batch_size}

    assert (stage.lead(run, work).report or {})["batch"] == 42


def test_the_heartbeat_keeps_others_off_and_a_dead_leader_is_replaced(stage: Stage) -> None:
    run, ready, go_on = _start(stage), threading.Event(), threading.Event()
    ended: list[object] = []

    def old_work(context: RunContext) -> Mapping[str, Any]:
        ready.set()
        go_on.wait(30)
        with pytest.raises(Fenced):
            context.journal.totals(1, 1)
        with pytest.raises(Fenced):
            context.sleep(30)
        raise Fenced("by a newer attempt")

    old = threading.Thread(target=lambda: ended.append(stage.lead(run, old_work)))
    old.start()
    assert ready.wait(10)
    time.sleep(2.5)
    with pytest.raises(Refused, match="running by host:1"):
        stage.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="host:2")
    _make_stale(stage)
    stage.engine.work = lambda _: {"by": 2}
    taken = stage.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="host:2")
    assert (taken.state, taken.attempt, taken.report) == (RunState.COMPLETED, 2, {"by": 2})
    go_on.set()
    old.join(20)
    assert not old.is_alive()
    assert stage.services.runs.get(stage.vito, run.id).report == {"by": 2}
    assert stage.actions().count("run.finish") == 1


@pytest.mark.parametrize(
    ("state", "healed"), [("running", "interrupted"), ("pausing", "paused"), ("cancelling", "cancelled")]
)
def test_the_sweeper_heals_what_dead_leaders_left(stage: Stage, state: str, healed: str) -> None:
    run = _start(stage)
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.run SET state = %s, attempt = 1, heartbeat_at = now()", (state,))
    assert stage.services.sweeping.sweep() == []
    _make_stale(stage)
    assert stage.services.sweeping.sweep() == [run.id]
    view = stage.services.runs.get(stage.vito, run.id)
    assert (view.state, view.attempt) == (healed, 2)
    assert (stage.queue.asked.count(run.id) == 2) is (healed == "interrupted")


def test_there_is_nothing_to_lead_in_a_run_that_is_over_or_unknown(stage: Stage) -> None:
    run = stage.lead(_start(stage))
    with pytest.raises(Refused, match="completed"):
        stage.lead(run)
    with pytest.raises(BrieflyError):
        stage.services.leading.lead(str(uuid4()), report=lambda _: None, interrupted=lambda: False, leader="x")


def test_one_clock_at_a_time(stage: Stage) -> None:
    sweeping = stage.services.sweeping
    with sweeping.try_lead_clock() as first, sweeping.try_lead_clock() as second:
        assert (first, second) == (True, False)
    with sweeping.try_lead_clock() as third:
        assert third


def test_a_run_of_another_target_or_plan_fails_before_anything(stage: Stage) -> None:
    for column in ("target_id", "plan_fingerprint"):
        run = _start(stage)
        with psycopg.connect(stage.app_url) as connection:
            connection.execute(f"UPDATE briefly_admin.run SET {column} = 'other' WHERE id = %s", (run.id,))
        view = stage.lead(run, lambda _: pytest.fail("led"))
        assert (view.state, view.error_code) == (RunState.FAILED, "refused")
