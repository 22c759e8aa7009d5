"""What may be done with a run in which state: buttons, transitions and results say the same."""

from typing import Any

import pytest

from briefly_admin.domain.actions import BY_STATE, Action, allowed_actions
from briefly_admin.domain.permissions import Role
from briefly_admin.domain.runs import RunKind, RunState, may_become
from tests.steered import RESULTS, cases


def test_buttons_are_where_the_action_is_possible() -> None:
    for action, state, result in cases():
        assert (Action(action) in BY_STATE[state]) is (result is not None), (action, state)


def test_every_result_is_a_transition() -> None:
    for action, results in RESULTS.items():
        for state, result in results.items():
            assert action == "change" or may_become(state, result), (action, state)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.INTERRUPTED, RunState.FAILED, RunState.CANCELLED])
def test_a_changed_plan_stands_against_resuming_alone(state: RunState, role: Role) -> None:
    offered = allowed_actions(state, role, kind=RunKind.REPLAY, same_plan=False)
    refused = {
        each.action: each.why_not for each in offered if not each.allowed and each.action is not Action.ROLL_BACK
    }
    assert refused == {Action.RESUME: "The plan has changed since it began; start a new run."}


def test_only_a_migration_with_something_left_is_replayed() -> None:
    def why(state: RunState = RunState.COMPLETED_WITH_SKIPS, role: Role = Role.OPERATOR, **more: Any) -> str | None:
        return {each.action: each.why_not for each in allowed_actions(state, role, **more)}.get(Action.REPLAY)

    assert why() == ""
    assert why(RunState.COMPLETED) is None
    assert why(kind=RunKind.REPLAY) is None
    assert why(role=Role.VIEWER) == "This needs the role operator; yours is viewer."
    assert why(same_plan=False) == "The plan has changed since it ran; start a new migration."
    assert why(replayable=False) == "Nothing is left in its quarantine."
    assert Action.ROLL_BACK not in {a.action for a in allowed_actions(RunState.FAILED, Role.ADMIN, kind=RunKind.REPLAY)}
