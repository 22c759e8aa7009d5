"""A run that waits for a lock says for whom."""

import time
from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage


def test_the_page_names_who_blocks(stage: Stage) -> None:
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION)
    seen: list[RunView] = []

    def work(context: RunContext) -> Mapping[str, Any]:
        context.report(Progress("migrate", waiting="a lock on users"))
        with context.target.session() as ours, psycopg.connect(context.target.dsn, application_name="psql") as theirs:
            ours.execute("CREATE TABLE public.users (id int)")
            theirs.execute("LOCK public.users")
            ours.execute("SET lock_timeout = '30s'; SET statement_timeout = 0")
            ours.pgconn.send_query(b"BEGIN; LOCK TABLE public.users")
            end = time.monotonic() + 20
            while not (view := stage.services.runs.get(stage.vito, run.id)).blocking and time.monotonic() < end:
                context.sleep(0.2)
            seen.append(view)
        return {}

    stage.lead(run, work)
    assert seen[0].waiting == "a lock on users"
    assert seen[0].blocking[0].startswith("pid ")
    assert "(psql, " in seen[0].blocking[0]
    assert seen[0].sentence == "Migrating: a lock on users."


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_waiting_for_a_run_gives_up_in_time(stage: Stage, seconds: float) -> None:
    run = stage.services.runs.start(stage.olga, RunKind.VALIDATION)
    assert not stage.services.runs.wait(stage.vito, run.id, seconds=seconds).finished
    stage.lead(run)
    assert stage.services.runs.wait(stage.vito, run.id, seconds=60).finished
