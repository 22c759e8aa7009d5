"""REQUIRE_APPROVAL=1: what changes data begins only once another admin has approved just that."""

from dataclasses import replace

import pytest

from briefly_admin.domain.actions import Action
from briefly_admin.domain.errors import Busy, NotAllowed, Refused, Stopped
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services import ServiceConfig, assemble
from tests.services.conftest import Stage

BEN = Actor("ben@example.com", Role.ADMIN, "page")


@pytest.fixture
def careful(stage: Stage) -> Stage:
    """The same stage, with a second person asked for."""
    config = ServiceConfig("unified", b"k" * 32, require_approval=True)
    services = assemble(
        stage.servers, config, engine=stage.engine, assist=lambda _: 0, now=stage.clock
    )  # fmt: skip
    return replace(stage, services=services)


def test_a_migration_waits_until_another_admin_approves_it(careful: Stage) -> None:
    run = careful.services.runs.start(careful.ana, RunKind.MIGRATION)
    assert run.state is RunState.AWAITING_APPROVAL
    assert careful.queue.asked == []
    assert careful.services.sweeping.sweep() == []
    with pytest.raises(Busy):
        careful.services.runs.start(careful.olga, RunKind.MIGRATION)
    with pytest.raises(Refused, match="another admin"):
        careful.services.runs.approve(careful.ana, run.id)
    with pytest.raises(NotAllowed):
        careful.services.runs.approve(careful.olga, run.id)
    approved = careful.services.runs.approve(BEN, run.id)
    assert approved.state is RunState.PENDING
    assert careful.queue.asked == [run.id]
    approval = careful.services.runs.get(careful.vito, run.id).options["approval"]
    assert (approval["by"], approval["asked_by"]) == (BEN.name, careful.ana.name)
    assert approval["names"]["plan"] == "unified"
    assert careful.actions()[-2:] == ["run.start", "run.approve"]
    assert careful.lead(run).state is RunState.COMPLETED
    with pytest.raises(Refused, match="approve is not possible"):
        careful.services.runs.approve(BEN, run.id)


def test_who_may_approve_is_offered_it(careful: Stage) -> None:
    run = careful.services.runs.start(careful.olga, RunKind.MIGRATION)

    def offered(actor: Actor) -> tuple[bool, str]:
        found = next(a for a in careful.services.runs.get(actor, run.id).actions if a.action is Action.APPROVE)
        return found.allowed, found.why_not

    assert offered(BEN) == (True, "")
    assert offered(careful.ana)[0]
    assert offered(careful.vito) == (False, "This needs the role admin; yours is viewer.")
    own = careful.services.runs.cancel(careful.olga, run.id)
    assert own.state is RunState.CANCELLED
    mine = careful.services.runs.start(careful.ana, RunKind.MIGRATION)
    found = next(a for a in careful.services.runs.get(careful.ana, mine.id).actions if a.action is Action.APPROVE)
    assert found.why_not == "Another admin approves what you have asked for."


@pytest.mark.parametrize("kind", [RunKind.VALIDATION, RunKind.BACKUP])
def test_what_changes_nothing_waits_for_nobody(careful: Stage, kind: RunKind) -> None:
    assert careful.services.runs.start(careful.olga, kind).state is RunState.PENDING


def test_a_rehearsal_waits_for_nobody(careful: Stage) -> None:
    run = careful.services.runs.start(careful.olga, RunKind.MIGRATION, config={"dryRun": True})
    assert run.state is RunState.PENDING


def test_who_waits_too_long_is_given_up(careful: Stage) -> None:
    run = careful.services.runs.start(careful.ana, RunKind.MIGRATION)
    careful.clock.move(hours=25)
    with pytest.raises(Refused, match="too long"):
        careful.services.runs.approve(BEN, run.id)
    careful.services.sweeping.sweep()
    after = careful.services.runs.get(careful.vito, run.id)
    assert (after.state, after.error) == (RunState.CANCELLED, "Nobody approved it in time.")
    assert careful.actions()[-1] == "run.cancel"


def test_an_approval_that_expired_before_a_worker_came_begins_nothing(careful: Stage) -> None:
    run = careful.services.runs.start(careful.ana, RunKind.MIGRATION)
    careful.services.runs.approve(BEN, run.id)
    careful.clock.move(hours=2)
    touched: list[str] = []
    after = careful.lead(run, lambda _: touched.append("data") or {})  # type: ignore[func-returns-value]  # for its effect
    assert (after.state, touched) == (RunState.FAILED, [])
    assert "expired before a worker could begin" in after.error
    again = careful.services.runs.resume(careful.ana, run.id)
    assert again.state is RunState.AWAITING_APPROVAL
    careful.services.runs.approve(BEN, run.id)
    assert careful.lead(run).state is RunState.COMPLETED


def test_what_has_begun_goes_on_by_itself(careful: Stage) -> None:
    run = careful.services.runs.start(careful.ana, RunKind.MIGRATION)
    careful.services.runs.approve(BEN, run.id)

    def interrupted(_: object) -> dict[str, object]:
        raise Stopped("interrupt")

    assert careful.lead(run, interrupted).state is RunState.INTERRUPTED
    careful.clock.move(hours=2)
    assert careful.lead(run).state is RunState.COMPLETED


def test_whoever_resumes_after_the_approval_expired_asks_again_and_cannot_approve(careful: Stage) -> None:
    run = careful.services.runs.start(careful.olga, RunKind.MIGRATION)
    careful.services.runs.approve(careful.ana, run.id)

    def paused(_: object) -> dict[str, object]:
        careful.services.runs.pause(careful.olga, run.id)
        raise Stopped("pause")

    assert careful.lead(run, paused).state is RunState.PAUSED
    assert careful.services.runs.resume(BEN, run.id).state is RunState.PENDING
    assert careful.lead(run, paused).state is RunState.PAUSED
    careful.clock.move(hours=2)
    assert careful.services.runs.resume(BEN, run.id).state is RunState.AWAITING_APPROVAL
    with pytest.raises(Refused, match="another admin"):
        careful.services.runs.approve(BEN, run.id)
    assert careful.services.runs.approve(careful.ana, run.id).state is RunState.PENDING


def test_a_run_of_before_asks_when_it_goes_on(stage: Stage, careful: Stage) -> None:
    run = stage.services.runs.start(stage.ana, RunKind.MIGRATION)

    def paused(_: object) -> dict[str, object]:
        stage.services.runs.pause(stage.ana, run.id)
        raise Stopped("pause")

    stage.lead(run, paused)
    assert careful.services.runs.resume(careful.ana, run.id).state is RunState.AWAITING_APPROVAL


def test_a_token_without_a_person_approves_nothing_and_one_with_a_person_is_that_person(careful: Stage) -> None:
    tokens = careful.services.tokens
    machine = Actor("cli:root", Role.ADMIN, "cli")

    def by_token(owner: Actor, name: str) -> Actor:
        found = tokens.resolve(tokens.create(owner, name=name, role="admin")[0], "127.0.0.1")
        assert found is not None
        return found

    first, second = by_token(machine, "first"), by_token(machine, "second")
    run = careful.services.runs.start(first, RunKind.MIGRATION)
    with pytest.raises(NotAllowed, match="behind the token second there is none") as raised:
        careful.services.runs.approve(second, run.id)
    assert "under Me" in raised.value.remedy
    assert careful.state(run) is RunState.AWAITING_APPROVAL
    shown = careful.services.runs.get(second, run.id).actions
    [offered] = [each for each in shown if each.action is Action.APPROVE]
    assert (offered.allowed, offered.why_not) == (
        False, "A token that the command line made approves nothing: there is no person behind it.",
    )  # fmt: skip
    assert careful.services.runs.approve(by_token(careful.ana, "hers"), run.id).state is RunState.PENDING
    careful.services.runs.cancel(careful.ana, run.id)
    own = careful.services.runs.start(careful.ana, RunKind.MIGRATION)
    with pytest.raises(Refused, match="another admin"):
        careful.services.runs.approve(by_token(careful.ana, "another"), own.id)
