"""Replays through the services: who may, of what, and what becomes of the migration, rolled back or not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from briefly_admin import plans
from briefly_admin.domain.actions import Action
from briefly_admin.domain.errors import Busy, InvalidRequest, NotAllowed, NotFound, Refused, RunFailed, Stopped
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import fence, pipeline, replay
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.identity import identify
from briefly_admin.services import ServiceConfig, assemble
from briefly_admin.services.views import RunView
from briefly_admin.store import details, skips
from tests.engine.shelved import BOOKS, NOTES, PLAN, Shelved
from tests.engine.test_replay import CURES
from tests.services.conftest import Stage

_Contents = Mapping[str, list[tuple[Any, ...]]]
_SKIPS = {"onInvalid": "skip", "createBackup": False}


@pytest.fixture(scope="module")
def target_template(module_databases: Callable[[str], str]) -> str:
    return Shelved(module_databases("")).fill().dsn


@pytest.fixture
def shelves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The stage with the plan `shelved` and its dirty rows."""
    monkeypatch.setitem(plans.PLANS, PLAN.name, PLAN)
    servers = replace(stage.servers, plan=PLAN)
    stage.servers = servers
    return assembled(stage)


def assembled(stage: Stage, **settings: Any) -> Stage:
    config = ServiceConfig(plan_name=PLAN.name, audit_key=b"k" * 32, lease=timedelta(seconds=2), **settings)
    stage.services = assemble(stage.servers, config, engine=stage.engine, assist=stage.engine.help, now=stage.clock)
    return stage


def led(stage: Stage, run: RunView, state: RunState = RunState.COMPLETED) -> RunView:
    done = stage.lead(run, pipeline.lead)
    assert done.state is state, (done.error, done.remedy)
    return done


def migrated(stage: Stage, **config: Any) -> RunView:
    run = stage.services.runs.start(stage.olga, RunKind.MIGRATION, config=_SKIPS | config)
    return led(stage, run, RunState.COMPLETED_WITH_SKIPS)


def replayed(stage: Stage, run: RunView, **scope: Any) -> RunView:
    return led(stage, stage.services.runs.replay(stage.olga, run.id, **scope))


def now(stage: Stage, run: RunView) -> RunView:
    return stage.services.runs.get(stage.olga, run.id)


def cure(stage: Stage, *statements: str) -> None:
    Shelved(stage.servers.target.dsn).sql(*(statements or CURES))


def contents(stage: Stage) -> _Contents:
    """Rows, columns, constraints and indexes of the target."""
    shelved = Shelved(stage.servers.target.dsn)
    looks = {
        "columns": "SELECT table_name, column_name, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2",
        "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype <> 'n' ORDER BY 1, 2",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
        "shelves": "SELECT t::text FROM shelves t ORDER BY 1", "books": 'SELECT t::text FROM "boo""ks %" t ORDER BY 1',
        "notes": 'SELECT t::text FROM "no%tes" t ORDER BY 1',
    }  # fmt: skip
    return {name: shelved.rows(query) for name, query in looks.items()}


def opened(stage: Stage, run: RunView) -> int:
    with stage.servers.database.begin() as connection:
        return details.open_quarantine(connection, [UUID(run.id)]).get(UUID(run.id), 0)


def actions(view: RunView) -> dict[Action, str]:
    return {each.action: each.why_not for each in view.actions}


def test_the_whole_way_and_back(shelves: Stage) -> None:
    """Replayed in parts; the replays rolled back alone, that undone, and the migration rolled back by either mode."""
    runs, before = shelves.services.runs, contents(shelves)
    skip(shelves, NOTES.name, "a", "2", reason="the customer's wish")
    migration = migrated(shelves, createBackup=True)
    (row,) = [r for r in shelves.services.findings.quarantine(shelves.vito, migration.id) if r.cause == "skipped"]
    assert (row.table, row.key, row.message) == (NOTES.name, ("a", "2"), "the customer's wish")
    assert (actions(migration)[Action.REPLAY], migration.quarantined, migration.changes_left) == ("", 10, 6)
    backup = led(shelves, runs.start(shelves.olga, RunKind.BACKUP))
    between = contents(shelves)
    cure(shelves)
    replays = _replay_in_parts(shelves, migration)
    after = contents(shelves)
    assert len(after["constraints"]) > len(between["constraints"])

    rollback = led(shelves, runs.rollback(shelves.ana, backup.backup_name or "", confirm=True))
    assert contents(shelves) == between
    again = now(shelves, migration)
    assert (again.state, again.quarantined, again.changes_left) == (RunState.COMPLETED_WITH_SKIPS, 10, 6)
    assert {now(shelves, run).state for run in replays} == {RunState.ROLLED_BACK}
    _undo(shelves, rollback, migration, replays)
    assert contents(shelves) == after

    preview = led(shelves, runs.preview(shelves.olga, migration.backup_name or ""))
    classes = (preview.report or {})["preview"]["classes"]
    # What was corrected counts as edited, what the replays alone repaired as migrated.
    assert {name: counts["edited"] for name, counts in classes.items()} == {"shelves": 1, BOOKS.name: 7, NOTES.name: 4}
    rollback = led(shelves, runs.rollback(shelves.ana, migration.backup_name or "", confirm=True, mode="keep"))
    _assert_kept(before, after, contents(shelves))
    assert {now(shelves, run).state for run in (migration, *replays)} == {RunState.ROLLED_BACK}
    _undo(shelves, rollback, migration, replays)
    assert contents(shelves) == after

    led(shelves, runs.rollback(shelves.ana, migration.backup_name or "", confirm=True))
    assert contents(shelves) == before
    assert {now(shelves, run).state for run in (migration, *replays)} == {RunState.ROLLED_BACK}
    assert now(shelves, migration).quarantined == 0


def _replay_in_parts(shelves: Stage, migration: RunView) -> list[RunView]:
    runs = shelves.services.runs
    asked = runs.replay(shelves.olga, migration.id, table=BOOKS.name, field="pages", cause="range")
    assert (asked.options["of_number"], asked.config["onInvalid"]) == (migration.number, "skip")
    with pytest.raises(Busy, match=f"Run {asked.number}"):
        runs.replay(shelves.olga, migration.id)
    first = led(shelves, asked)
    assert first.sentence == f"Replayed 3 rows of run {migration.number}; 7 are left in quarantine."
    assert [phase.state for phase in first.phases] == ["done"] * 4
    assert now(shelves, migration).quarantined == 7
    second = replayed(shelves, migration)
    assert second.sentence == f"Replayed 6 rows of run {migration.number}; 1 is left in quarantine."
    assert (now(shelves, migration).state, now(shelves, migration).changes_left) == (RunState.COMPLETED_WITH_SKIPS, 0)
    with shelves.servers.database.begin() as connection:
        place = {"target_id": identify(shelves.servers.target), "plan": PLAN.name}
        assert skips.remove(connection, **place, table=NOTES.name, key=["a", "2"])
    third = replayed(shelves, migration)
    assert third.sentence == f"Replayed 1 row of run {migration.number}; nothing is left in quarantine."
    done = now(shelves, migration)
    assert (done.state, done.quarantined) == (RunState.COMPLETED, 0)
    assert Action.REPLAY not in actions(done)
    assert all(row.closed for row in shelves.services.findings.quarantine(shelves.vito, migration.id))
    assert shelves.actions()[-1] == "run.finish"
    with pytest.raises(Refused, match=f"Run {migration.number} is completed"):
        runs.replay(shelves.olga, migration.id)
    return [first, second, third]


def _undo(shelves: Stage, rollback: RunView, migration: RunView, replays: Sequence[RunView]) -> None:
    led(shelves, shelves.services.runs.rollback(shelves.ana, rollback.backup_name or "", confirm=True))
    assert {now(shelves, run).state for run in (migration, *replays)} == {RunState.COMPLETED}
    assert (now(shelves, migration).quarantined, now(shelves, migration).changes_left) == (0, 0)


def _assert_kept(before: _Contents, after: _Contents, found: _Contents) -> None:
    """The schema is as it was, but for plain indexes; corrected books stay, all others are as they were."""
    assert found["constraints"] == before["constraints"]
    corrected = {1, 2, 3, 4, 6, 7, 60}

    def numbered(contents: _Contents) -> dict[int, Any]:
        return {int(text[1:].split(",")[0]): text for (text,) in contents["books"]}

    expected = numbered(before) | {n: text for n, text in numbered(after).items() if n in corrected}
    assert numbered(found) == expected


_WRONG: Sequence[tuple[dict[str, Any], type[Exception], str]] = (
    ({"table": "no"}, InvalidRequest, "shelves"),
    ({"table": 7}, InvalidRequest, "table: Must be a text"),
    ({"key": ["1"]}, InvalidRequest, "Belongs to a table"),
    ({"table": "shelves", "key": "6"}, InvalidRequest, "list of texts"),
    ({"table": "shelves", "key": [6]}, InvalidRequest, "list of texts"),
    ({"table": NOTES.name, "key": ["a"]}, InvalidRequest, "pa rt, no"),
    ({"table": "shelves", "key": ["6\0"]}, NotFound, "not in the quarantine of run 1"),
    ({"table": "shelves", "key": ["1"]}, NotFound, r"shelves \[1\]"),
    ({"cause": "no\0such"}, Refused, "Nothing of run 1"),
    ({"table": "shelves", "field": "books"}, Refused, "Nothing of run 1"),
    ({"table": "shelves", "key": ["6"]}, Refused, r"shelves \[6\] is to be skipped"),
    ({"table": "shelves"}, Refused, "to be skipped"),
)


def test_what_cannot_be_replayed_is_named(shelves: Stage) -> None:
    """Without the engine: a migration that left two rows aside, one of them to be skipped."""
    run = shelves.services.runs.start(shelves.olga, RunKind.MIGRATION, config=_SKIPS)
    shelves.lead(run, quarantining)
    skip(shelves, "shelves", "6")
    for scope, error, named in _WRONG:
        with pytest.raises(error, match=named):
            shelves.services.runs.replay(shelves.olga, run.id, **scope)
    assert shelves.services.runs.count(shelves.olga) == 1


def skip(stage: Stage, table: str, *key: str, reason: str = "r") -> None:
    place = {"target_id": identify(stage.servers.target), "plan": PLAN.name}
    with stage.servers.database.begin() as connection:
        skips.put(connection, **place, table=table, key=key, reason=reason, by="olga")


def quarantining(context: RunContext) -> Mapping[str, Any]:
    rows = [QuarantinedRow("shelves", ("6",), "length", "m", field="name"),
            QuarantinedRow(NOTES.name, ("a", "2"), "length", "m", field="body")]  # fmt: skip
    context.journal.save_quarantine(rows)
    return {}


def test_only_a_migration_that_completed_with_skips_is_replayed(
    shelves: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = shelves.services.runs
    validation = shelves.lead(runs.start(shelves.olga, RunKind.VALIDATION))
    with pytest.raises(Refused, match="is a validation"):
        runs.replay(shelves.olga, validation.id)
    clean = shelves.lead(runs.start(shelves.olga, RunKind.MIGRATION))
    with pytest.raises(Refused, match="is completed"):
        runs.replay(shelves.olga, clean.id)
    run = shelves.lead(runs.start(shelves.olga, RunKind.MIGRATION, config=_SKIPS), quarantining)
    for actor, error in ((shelves.vito, NotAllowed), (shelves.stranger, NotAllowed)):
        with pytest.raises(error):
            runs.replay(actor, run.id)
    with pytest.raises(NotFound):
        runs.replay(shelves.olga, "4711")
    with pytest.raises(InvalidRequest, match="it needs a migration"):
        runs.start(shelves.olga, RunKind.REPLAY)
    with shelves.servers.database.begin() as connection:
        connection.exec_driver_sql("UPDATE briefly_admin.run SET plan_fingerprint = 'other'")
    assert "plan has changed" in actions(now(shelves, run))[Action.REPLAY]
    with pytest.raises(Refused, match="has changed since run"):
        runs.replay(shelves.olga, run.id)
    with shelves.servers.database.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE briefly_admin.run SET plan_fingerprint = '{PLAN.fingerprint}', target_id = 'x'"
        )
    with pytest.raises(Refused, match="The migration is of another database"):
        runs.replay(shelves.olga, run.id)
    with shelves.servers.database.begin() as connection:
        connection.exec_driver_sql("UPDATE briefly_admin.run SET plan = 'unified'")
    with pytest.raises(Refused, match="MIGRATION_PLAN=unified"):
        runs.replay(shelves.olga, run.id)


def test_the_same_key_begins_one_replay(shelves: Stage) -> None:
    runs = shelves.services.runs
    run = shelves.lead(runs.start(shelves.olga, RunKind.MIGRATION, config=_SKIPS), quarantining)
    first = runs.replay(shelves.olga, run.id, table="shelves", idempotency_key="k")
    assert runs.replay(shelves.olga, run.id, table="shelves", idempotency_key="k").id == first.id
    with pytest.raises(Refused, match="asked for something else"):
        runs.replay(shelves.olga, run.id, idempotency_key="k")
    runs.cancel(shelves.olga, first.id)
    led_later = runs.replay(shelves.olga, run.id)
    with shelves.servers.database.begin() as connection:
        connection.exec_driver_sql("UPDATE briefly_admin.run SET state = 'rolled_back' WHERE number = 1")
    failed = shelves.lead(led_later)
    why = "Run 1 is rolled_back: only a migration that is completed_with_skips is replayed."
    assert (failed.state, failed.error) == (RunState.FAILED, why)


def test_a_replay_is_paused_resumed_and_finished_where_it_failed(shelves: Stage) -> None:
    migration = migrated(shelves)
    cure(shelves)
    runs = shelves.services.runs

    def pausing(context: RunContext) -> Mapping[str, Any]:
        pipeline.lead(replace(context, should_stop=lambda: None if not asked else asked[0],
                              report=lambda p: asked.append("pause") if any(t.done for t in p.tables) else None))  # fmt: skip
        return {}

    asked: list[str] = []
    run = runs.replay(shelves.olga, migration.id)

    def paused(context: RunContext) -> Mapping[str, Any]:
        runs.pause(shelves.olga, run.id)
        try:
            return pausing(context)
        except Stopped as stop:
            raise Stopped("pause") from stop

    stopped = shelves.lead(run, paused)
    assert stopped.state is RunState.PAUSED
    assert 0 < opened(shelves, migration) < 10
    runs.resume(shelves.olga, run.id)
    # All rows are out; a new fault of a row that was never in quarantine stops it in its verification.
    cure(shelves, "INSERT INTO \"no%tes\" VALUES ('new', 1, 'too long')")
    failed = shelves.lead(run, pipeline.lead)
    assert failed.state is RunState.FAILED
    assert "Rows replayed are safe" in failed.sentence
    assert (opened(shelves, migration), now(shelves, migration).state) == (0, RunState.COMPLETED_WITH_SKIPS)
    assert actions(now(shelves, migration))[Action.REPLAY] == ""
    with pytest.raises(Refused, match="Nothing of run"):
        runs.replay(shelves.olga, migration.id, table="shelves")
    cure(shelves, "UPDATE \"no%tes\" SET body = 'ok'")
    replayed(shelves, migration)
    assert now(shelves, migration).state is RunState.COMPLETED
    assert now(shelves, migration).changes_left == 0


def test_what_an_earlier_replay_made_waits_for_nothing_again(shelves: Stage) -> None:
    """A later replay is rolled back alone: only what that one had made waits again."""
    runs = shelves.services.runs
    migration = migrated(shelves)
    cure(shelves)
    replayed(shelves, migration, table=BOOKS.name, field="pages", cause="range")
    left = now(shelves, migration).changes_left
    backup = led(shelves, runs.start(shelves.olga, RunKind.BACKUP))
    replayed(shelves, migration)
    rollback = led(shelves, runs.rollback(shelves.ana, backup.backup_name or "", confirm=True))
    assert (now(shelves, migration).changes_left, left) == (1, 1)
    led(shelves, runs.rollback(shelves.ana, rollback.backup_name or "", confirm=True))
    assert (now(shelves, migration).changes_left, now(shelves, migration).state) == (0, RunState.COMPLETED)


def test_a_row_skipped_after_the_migration_goes_back_with_the_others(shelves: Stage) -> None:
    """The migration had repaired it: that it is left alone since makes it no edit."""

    def tenth() -> list[str]:
        return [text for (text,) in contents(shelves)["books"] if text.startswith("(10,")]

    before = tenth()
    migration = migrated(shelves, createBackup=True)
    assert tenth() != before
    skip(shelves, BOOKS.name, "10", reason="as it is")
    cure(shelves)
    replayed(shelves, migration, table=NOTES.name)
    led(shelves, shelves.services.runs.rollback(shelves.ana, migration.backup_name or "", confirm=True, mode="keep"))
    assert tenth() == before


def test_a_later_migration_looks_at_the_rows_anew(shelves: Stage) -> None:
    runs = shelves.services.runs
    first, second = (
        shelves.lead(runs.start(shelves.olga, RunKind.MIGRATION, config=_SKIPS), quarantining) for _ in range(2)
    )
    assert second.state is RunState.COMPLETED_WITH_SKIPS
    assert (opened(shelves, first), opened(shelves, second)) == (0, 2)
    assert actions(now(shelves, first))[Action.REPLAY] == "Nothing is left in its quarantine."
    with pytest.raises(Refused, match=f"Nothing of run {first.number}"):
        runs.replay(shelves.olga, first.id)


def test_what_a_later_migration_took_over_is_given_back_as_it_was(shelves: Stage) -> None:
    """The later one is rolled back, and that undone: the first was never completed by it."""
    runs = shelves.services.runs
    first = migrated(shelves)
    cure(shelves)
    second = led(shelves, runs.start(shelves.olga, RunKind.MIGRATION, config={"onInvalid": "skip"}))
    rollback = led(shelves, runs.rollback(shelves.ana, second.backup_name or "", confirm=True))
    assert (opened(shelves, first), now(shelves, second).state) == (10, RunState.ROLLED_BACK)
    led(shelves, runs.rollback(shelves.ana, rollback.backup_name or "", confirm=True))
    assert (opened(shelves, first), now(shelves, second).state) == (0, RunState.COMPLETED)
    assert now(shelves, first).state is RunState.COMPLETED_WITH_SKIPS


def test_a_replay_that_failed_is_finished_beside_what_is_to_be_skipped(shelves: Stage) -> None:
    """Nothing is left for it to take, but constraints may wait for it."""
    skip(shelves, "shelves", "6")
    migration = migrated(shelves)
    cure(shelves)
    runs = shelves.services.runs

    def failing(context: RunContext) -> Mapping[str, Any]:
        lead = fence.take_over(context.target, context.run_id, context.attempt)
        replay.run(context)
        lead.release()
        raise RunFailed("no lock")

    failed = shelves.lead(runs.replay(shelves.olga, migration.id), failing)
    assert (failed.state, opened(shelves, migration)) == (RunState.FAILED, 1)
    assert now(shelves, migration).changes_left > 0
    with pytest.raises(Refused, match="is to be skipped"):
        runs.replay(shelves.olga, migration.id, table="shelves")
    replayed(shelves, migration)
    assert now(shelves, migration).changes_left == 0
    with pytest.raises(Refused, match="is to be skipped"):
        runs.replay(shelves.olga, migration.id)


def test_a_replay_waits_for_an_approval_where_one_is_required(shelves: Stage) -> None:
    run = shelves.lead(shelves.services.runs.start(shelves.olga, RunKind.MIGRATION, config=_SKIPS), quarantining)
    runs = assembled(shelves, require_approval=True).services.runs
    replay = runs.replay(shelves.olga, run.id)
    assert replay.state is RunState.AWAITING_APPROVAL
    with pytest.raises(Busy):
        runs.replay(shelves.olga, run.id)
    assert runs.approve(shelves.ana, replay.id).state is RunState.PENDING
    assert shelves.lead(replay).state is RunState.COMPLETED
    assert now(shelves, run).quarantined == 2  # the engine did nothing
