"""Helping: who is asked for, who may stay, and what a helper hears of its run."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
import pytest
from structlog.testing import capture_logs

from briefly_admin.domain.errors import Fenced, NotFound, Refused, Stopped, Unavailable
from briefly_admin.domain.partitions import Count, Partition
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.context import RunContext
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage


def never() -> bool:
    return False


def helped(stage: Stage, run: RunView, worker: str = "host:2", interrupted: Callable[[], bool] = never) -> int:
    return stage.services.helping.help(run.id, interrupted=interrupted, worker=worker)


def led(stage: Stage, work: Callable[[RunContext], Any], **config: Any) -> RunView:
    """A run that `work` leads; whatever it raises is the test's, not the run's affair."""
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION, config={"workers": 3} | config)
    failures: list[BaseException] = []

    def kept(context: RunContext) -> Mapping[str, Any]:
        try:
            work(context)
        except BaseException as failure:
            failures.append(failure)
            raise
        return {}

    run = stage.lead(run, kept)
    if failures:
        raise failures[0]
    return run


def lines(stage: Stage, run: RunView) -> list[str]:
    return [line.message for line in reversed(stage.services.runs.log(stage.vito, run.id))]


def test_a_helper_works_beside_the_leader(stage: Stage) -> None:
    def assist(context: RunContext) -> int:
        assert (context.attempt, context.config.workers, context.journal.partitions.worker) == (1, 3, "host:2")
        claimed = context.journal.partitions.claim()
        assert claimed is not None
        context.journal.partitions.finish(claimed, Count(5), {})
        return 1

    def work(context: RunContext) -> None:
        context.journal.partitions.lay_out("migrate", [Partition("users", 0)], {})
        assert helped(stage, run_of(stage)) == 1
        assert context.journal.partitions.survey("migrate")[0].worker == "host:2"

    stage.engine.assist = assist
    run = led(stage, work)
    assert run.state is RunState.COMPLETED
    assert lines(stage, run) == ["host:2 helps.", "host:2 leaves."]
    with psycopg.connect(stage.app_url) as connection:
        for table in ("run_step", "run_partition", "run_helper"):
            query = f"SELECT count(*) FROM briefly_admin.{table}"
            assert connection.execute(query.encode()).fetchone() == (0,)


def run_of(stage: Stage) -> RunView:
    return stage.services.runs.list(stage.vito)[0]


def test_only_so_many_may_help(stage: Stage) -> None:
    inside: list[str] = []

    def assist(context: RunContext) -> int:
        inside.append(context.journal.partitions.worker)
        if len(inside) == 1:
            assert helped(stage, run_of(stage), "host:3") == 0
        else:
            with pytest.raises(Refused, match="all the workers that it may have"):
                helped(stage, run_of(stage), "host:4")
        return 0

    stage.engine.assist = assist
    led(stage, lambda _: helped(stage, run_of(stage)))
    assert inside == ["host:2", "host:3"]


def test_a_run_that_nobody_leads_is_not_helped(stage: Stage) -> None:
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION, config={"workers": 3})
    with pytest.raises(Refused, match="pending: there is nothing to help with"):
        helped(stage, run)
    done = stage.lead(run)
    with pytest.raises(Refused, match="completed"):
        helped(stage, done)
    with pytest.raises(NotFound):
        stage.services.helping.help("00000000-0000-4000-8000-000000000000", interrupted=never, worker="host:2")


def test_the_leader_asks_for_who_is_missing(stage: Stage) -> None:
    stage.queue.listening = 4

    def assist(context: RunContext) -> int:
        stage.queue.slots.clear()
        call[0]()
        return 0

    call: list[Callable[[], None]] = []

    def work(context: RunContext) -> None:
        context.ask_help()
        assert stage.queue.slots == [1, 2, 3]
        call.append(context.ask_help)
        helped(stage, run_of(stage))
        assert stage.queue.slots == [2, 3]

    stage.engine.assist = assist
    run = led(stage, work, workers=4)
    assert lines(stage, run) == ["host:2 helps.", "host:2 leaves."]


def test_too_few_workers_are_said_once_and_are_enough(stage: Stage) -> None:
    stage.queue.listening = 2

    def work(context: RunContext) -> None:
        for _ in range(3):
            context.ask_help()
        stage.queue.listening = 1
        context.ask_help()
        stage.queue.down = True
        context.ask_help()

    run = led(stage, work, workers=8)
    assert run.state is RunState.COMPLETED
    said = "8 workers are wanted and {} listen: the run goes on with these."
    assert lines(stage, run) == [said.format(2), said.format(1)]


def test_one_worker_asks_for_nobody(stage: Stage) -> None:
    led(stage, lambda context: context.ask_help(), workers=1)
    assert stage.queue.slots == []


@pytest.mark.parametrize(("ask", "reason"), [("pause", "pause"), ("cancel", "cancel"), ("fewer", "leave")])
def test_a_helper_hears_what_is_asked(stage: Stage, ask: str, reason: str) -> None:
    heard: list[str] = []

    def assist(context: RunContext) -> int:
        runs, run = stage.services.runs, run_of(stage)
        if ask == "fewer":
            runs.change(stage.olga, run.id, {"workers": 1})
        else:
            getattr(runs, ask)(stage.olga, run.id)
        try:
            context.sleep(20)
        except Stopped as stop:
            heard.append(stop.reason)
            raise
        return 0

    stage.engine.assist = assist
    led(stage, lambda _: helped(stage, run_of(stage)))
    assert heard == [reason]


def test_sigterm_ends_a_helper(stage: Stage) -> None:
    told = threading.Event()

    def assist(context: RunContext) -> int:
        told.set()
        context.sleep(20)
        return 0

    stage.engine.assist = assist
    led(stage, lambda _: helped(stage, run_of(stage), interrupted=told.is_set))


def test_a_helper_of_an_older_attempt_is_fenced_off(stage: Stage) -> None:
    heard: list[Mapping[str, Any] | str] = []

    def assist(context: RunContext) -> int:
        with psycopg.connect(stage.app_url) as connection:
            connection.execute("UPDATE briefly_admin.run SET attempt = attempt + 1")
        try:
            context.sleep(20)
        except Fenced as error:
            heard.append(error.message)
            raise
        return 0

    stage.engine.assist = assist
    with capture_logs() as said:
        led(stage, lambda _: helped(stage, run_of(stage)))
    assert heard == ["The run is in other hands now, or may be by now."]
    assert "fenced off" in [line["event"] for line in said]


def test_who_could_not_help_is_not_asked_again_at_once(stage: Stage) -> None:
    def assist(context: RunContext) -> int:
        raise Unavailable("host:2 leaves users to others: it does not see the store.")

    def work(context: RunContext) -> None:
        with pytest.raises(Unavailable):
            helped(stage, run_of(stage))
        context.ask_help()
        assert stage.queue.slots == [2]

    stage.engine.assist, stage.queue.listening = assist, 3
    run = led(stage, work)
    assert lines(stage, run) == ["host:2 helps.", "host:2 leaves users to others: it does not see the store."]


def test_a_changed_plan_is_not_helped_with(stage: Stage) -> None:
    def work(context: RunContext) -> None:
        with psycopg.connect(stage.app_url) as connection:
            connection.execute("UPDATE briefly_admin.run SET plan_fingerprint = 'abcdefghijklmnop'")
        with pytest.raises(Refused, match="its fingerprint was abcdefghijkl… and is"):
            helped(stage, run_of(stage))
        context.ask_help()
        assert stage.queue.slots == [2]  # the first place is kept from others of that version for a while

    led(stage, work)
