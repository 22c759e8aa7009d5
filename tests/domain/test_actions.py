"""What may be done with a run in which state: buttons, transitions and results say the same."""

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
