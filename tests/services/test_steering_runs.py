"""Pause, resume, cancel, change: by whom, in which state, and what the page is told."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import Busy, InvalidRequest, NotAllowed, Refused
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.plans import plan
from tests.services.conftest import Stage


def _put(stage: Stage, state: str) -> str:
    """A migration in that state, as only its leader would leave it."""
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION)
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.run SET state = %s, enqueued_at = NULL WHERE id = %s", (state, run.id))
    return run.id


def _clear(stage: Stage) -> None:
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.run SET state = 'cancelled'")


@pytest.mark.parametrize(
    ("action", "states"),
    [
        ("pause", {"running": "pausing"}),
        (
            "cancel",
            {"awaiting_approval": "cancelled", "pending": "cancelled", "paused": "cancelled",
             "interrupted": "cancelled", "running": "cancelling"},
        ),
        ("resume", {"paused": "pending", "interrupted": "pending", "failed": "pending", "cancelled": "pending"}),
    ],
)  # fmt: skip
def test_each_action_in_each_state(stage: Stage, action: str, states: Mapping[str, str]) -> None:
    act = getattr(stage.services.runs, action)
    for state in RunState:
        run_id = _put(stage, state.value)
        for actor in (stage.vito, stage.stranger):
            with pytest.raises(NotAllowed):
                act(actor, run_id)
        if state in states:
            assert act(stage.olga, run_id).state == states[state]
            assert stage.actions()[-1] == f"run.{action}"
        else:
            with pytest.raises(Refused, match=state.value):
                act(stage.olga, run_id)
            assert stage.services.runs.get(stage.vito, run_id).state == state
        _clear(stage)


def test_what_the_page_offers_the_service_does(stage: Stage) -> None:
    for state in ("pending", "running", "paused", "interrupted"):
        run_id = _put(stage, state)
        view = stage.services.runs.get(stage.olga, run_id)
        assert all(allowed.allowed for allowed in view.actions)
        assert not any(allowed.allowed for allowed in stage.services.runs.get(stage.vito, run_id).actions)
        _clear(stage)


def test_resuming_queues_again_but_not_when_another_has_begun(stage: Stage) -> None:
    first = _put(stage, "failed")
    stage.queue.asked.clear()
    stage.services.runs.resume(stage.olga, first)
    assert stage.queue.asked == [first]
    stage.services.runs.cancel(stage.olga, first)
    second = stage.services.runs.start(stage.olga, RunKind.MIGRATION)
    with pytest.raises(Busy, match=f"Run {second.number}"):
        stage.services.runs.resume(stage.olga, first)
    stage.services.runs.cancel(stage.olga, second.id)
    with pytest.raises(Refused, match="begun since"):
        stage.services.runs.resume(stage.olga, first)
    offered = {a.action: a.why_not for a in stage.services.runs.get(stage.olga, first).actions}
    assert "begun since" in offered["resume"]  # type: ignore[index] # a StrEnum is its text


@pytest.mark.parametrize(("config", "ok"), [({"batchSize": 50, "pause": 10, "workers": 2}, True), ({"maxRetries": 1}, False),
                                            ({"batchSize": 0}, False), ({"x": 1}, False), ({}, False)])  # fmt: skip
def test_only_live_settings_change(stage: Stage, config: dict[str, Any], ok: bool) -> None:
    run_id = _put(stage, "running")
    with pytest.raises(NotAllowed):
        stage.services.runs.change(stage.vito, run_id, config)
    if ok:
        assert stage.services.runs.change(stage.olga, run_id, config).config["batchSize"] == 50
    else:
        with pytest.raises(InvalidRequest) as caught:
            stage.services.runs.change(stage.olga, run_id, config)
        assert list(caught.value.details) == list(config)


def test_an_automatic_batch_size_is_a_live_setting(stage: Stage) -> None:
    run_id = _put(stage, "paused")
    view = stage.services.runs.change(stage.olga, run_id, {"batchSize": "auto"})
    assert (view.config["batchSize"], view.config["workers"]) == ("auto", 1)
    assert stage.services.runs.change(stage.olga, run_id, {"workers": 3}).config["batchSize"] == "auto"


def test_a_run_goes_on_with_its_plan_alone(stage: Stage) -> None:
    run_id = _put(stage, "failed")
    with psycopg.connect(stage.app_url) as connection:
        connection.execute("UPDATE briefly_admin.run SET plan_fingerprint = %s", ("0123456789ab" + "c" * 52,))
    stage.queue.asked.clear()
    with pytest.raises(Refused, match=f"0123456789ab….*{plan('unified').fingerprint[:12]}…"):
        stage.services.runs.resume(stage.olga, run_id)
    assert not stage.queue.asked
    assert stage.services.runs.get(stage.vito, run_id).state == "failed"


def test_a_pending_run_is_not_changed(stage: Stage) -> None:
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION)
    with pytest.raises(Refused):
        stage.services.runs.change(stage.olga, run.id, {"pause": 1})
