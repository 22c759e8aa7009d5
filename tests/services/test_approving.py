"""REQUIRE_APPROVAL=1: what changes data begins only once another admin has approved just that."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.actions import Action
from briefly_admin.domain.errors import Busy, NotAllowed, NotFound, Refused, Stopped
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.identity import identify
from briefly_admin.plans import plan
from briefly_admin.services import ServiceConfig, assemble
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage
from tests.services.keeping import keep

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


def test_a_rollback_is_approved_with_its_backup_mode_and_tables(careful: Stage) -> None:
    runs = careful.services.runs
    kept = keep(careful, "one")
    with psycopg.connect(careful.app_url) as connection:
        tables = [{"table": name, "rows": 1, "bytes": 1} for name in ("users", "user_settings")]
        connection.execute(
            "UPDATE briefly_admin.backup SET tables = %s, target_id = %s",
            (json.dumps(tables), identify(careful.servers.target)),
        )
    assert runs.preview(careful.olga, "one").state is RunState.PENDING, "it changes nothing"

    def asked(**more: Any) -> RunView:
        run = runs.rollback(careful.ana, kept.name, confirm=True, reason="Wrong tiers.", **more)
        assert run.state is RunState.AWAITING_APPROVAL
        return run

    def refused(actor: Actor, run: RunView, words: str) -> None:
        with pytest.raises(Refused, match=words) as raised:
            runs.approve(actor, run.id)
        assert raised.value.remedy

    run = asked(tables=["users"], idempotency_key="once")
    names = runs.get(careful.vito, run.id).options["approval"]["names"]
    assert {name: names[name] for name in ("kind", "backup", "mode", "tables")} == {
        "kind": "rollback", "backup": "one", "mode": "exact", "tables": ["users"],
    }  # fmt: skip
    assert asked(tables=["users"], idempotency_key="once").id == run.id
    with pytest.raises(Busy, match="awaiting_approval"):
        asked()
    refused(careful.ana, run, "another admin")
    refused(replace(careful.ana, name="her script"), run, "another admin")
    runs.cancel(careful.olga, run.id)
    refused(BEN, run, "is cancelled: approve is not possible")

    run = asked()
    assert runs.approve(BEN, run.id).state is RunState.PENDING
    event = careful.services.audit.list(careful.ana, action="run.approve")[0]
    told = event.details["approval"]
    assert (event.actor, told["names"]["fingerprint"]) == (BEN.name, plan("unified").fingerprint)
    assert (event.details["reason"], event.details["asked_by"]) == ("Wrong tiers.", careful.ana.name)
    assert datetime.fromisoformat(told["until"]) - careful.clock() == timedelta(hours=1)
    refused(BEN, run, "is pending: approve is not possible")
    runs.cancel(BEN, run.id)
    run = asked()
    careful.clock.move(hours=25)
    refused(BEN, run, "waited too long")
    for missing in ("x", "99", "00000000-0000-4000-8000-000000000000", "\0"):
        with pytest.raises(NotFound):
            runs.approve(BEN, missing)
