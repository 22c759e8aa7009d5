"""Replays through the services: who may, of what, and what becomes of the migration, rolled back or not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from briefly_admin import plans
from briefly_admin.domain.actions import Action
from briefly_admin.domain.errors import Busy, InvalidRequest, NotAllowed, NotFound, Refused, Stopped
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import pipeline
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.identity import identify
from briefly_admin.services import ServiceConfig, assemble
from briefly_admin.services.views import RunView
from briefly_admin.store import details, skips
from tests.engine.shelved import BOOKS, NOTES, PLAN, Shelved
from tests.engine.test_replay import CURES
from tests.services.conftest import Stage

_SKIPS = {"onInvalid": "skip", "createBackup": False}


@pytest.fixture
def shelves(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The stage with the plan `shelved` and its dirty rows."""
    monkeypatch.setitem(plans.PLANS, PLAN.name, PLAN)
    servers = replace(stage.servers, plan=PLAN)
    config = ServiceConfig(plan_name=PLAN.name, audit_key=b"k" * 32, lease=timedelta(seconds=2))
    stage.services = assemble(servers, config, engine=stage.engine, assist=stage.engine.help, now=stage.clock)
    stage.servers = servers
    Shelved(servers.target.dsn).fill()
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


def contents(stage: Stage) -> Mapping[str, list[tuple[Any, ...]]]:
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


def test_a_replay_of_some_then_of_all_completes_the_migration(shelves: Stage) -> None:
    migration = migrated(shelves)
    assert actions(migration)[Action.REPLAY] == ""
    assert migration.quarantined == 10
    waiting = migration.changes_left
    cure(shelves)
    asked = shelves.services.runs.replay(shelves.olga, migration.id, table=BOOKS.name, field="pages", cause="range")
    assert asked.options["of_number"] == migration.number
    assert asked.config["onInvalid"] == "skip"
    with pytest.raises(Busy, match=f"Run {asked.number}"):
        shelves.services.runs.replay(shelves.olga, migration.id)
    first = led(shelves, asked)
    assert first.sentence == f"Replayed 3 rows of run {migration.number}; 7 are left in quarantine."
    assert (now(shelves, migration).state, now(shelves, migration).quarantined) == (RunState.COMPLETED_WITH_SKIPS, 7)
    second = replayed(shelves, migration)
    assert second.sentence == f"Replayed 7 rows of run {migration.number}; nothing is left in quarantine."
    assert [phase.state for phase in second.phases] == ["done"] * 4
    after = now(shelves, migration)
    assert (after.state, after.quarantined, after.changes_left) == (RunState.COMPLETED, 0, 0)
    assert waiting > 0
    assert Action.REPLAY not in actions(after)
    assert all(row.closed for row in shelves.services.findings.quarantine(shelves.vito, migration.id))
    assert shelves.actions()[-1] == "run.finish"
    with pytest.raises(Refused, match=f"Run {migration.number} is completed"):
        shelves.services.runs.replay(shelves.olga, migration.id)


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
    with pytest.raises(Refused, match="not the one that the run began with"):
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


def test_skipped_rows_keep_it_completed_with_skips(shelves: Stage) -> None:
    skip(shelves, NOTES.name, "a", "2", reason="the customer's wish")
    migration = migrated(shelves)
    (row,) = [r for r in shelves.services.findings.quarantine(shelves.vito, migration.id) if r.cause == "skipped"]
    assert (row.table, row.key, row.message) == (NOTES.name, ("a", "2"), "the customer's wish")
    cure(shelves)
    run = replayed(shelves, migration)
    assert run.sentence.endswith("1 is left in quarantine.")
    assert now(shelves, migration).state is RunState.COMPLETED_WITH_SKIPS
    with shelves.servers.database.begin() as connection:
        assert skips.remove(
            connection, target_id=identify(shelves.servers.target), plan=PLAN.name, table=NOTES.name, key=["a", "2"]
        )
    replayed(shelves, migration)
    assert now(shelves, migration).state is RunState.COMPLETED


def test_a_later_migration_looks_at_the_rows_anew(shelves: Stage) -> None:
    first = migrated(shelves)
    second = migrated(shelves)
    assert (opened(shelves, first), opened(shelves, second)) == (0, 10)
    assert actions(now(shelves, first))[Action.REPLAY] == "Nothing is left in its quarantine."
    with pytest.raises(Refused, match=f"Nothing of run {first.number}"):
        shelves.services.runs.replay(shelves.olga, first.id)


@pytest.mark.parametrize("mode", ["exact", "keep"])
def test_rolling_the_migration_back_takes_the_replay_back(shelves: Stage, mode: str) -> None:
    before = contents(shelves)
    migration = migrated(shelves, createBackup=True)
    cure(shelves)
    replay = replayed(shelves, migration)
    assert now(shelves, migration).state is RunState.COMPLETED
    after = contents(shelves)
    assert len(after["constraints"]) > len(before["constraints"])
    runs = shelves.services.runs
    preview = led(shelves, runs.preview(shelves.olga, migration.backup_name or ""))
    classes = (preview.report or {})["preview"]["classes"]
    # Of the seven books that were corrected each counts as edited; what the replay alone repaired, as migrated.
    assert classes[BOOKS.name]["edited"] == 7
    assert classes["shelves"]["edited"] == 1
    rollback = led(shelves, runs.rollback(shelves.ana, migration.backup_name or "", confirm=True, mode=mode))
    now_there = contents(shelves)
    if mode == "exact":
        assert now_there == before
    else:
        assert now_there["constraints"] == before["constraints"]
        edited = {1, 2, 3, 4, 6, 7, 60}
        old, new = ({row[0]: row for row in found} for found in (before["books"], now_there["books"]))
        assert {text for (text,) in before["books"] if text in new} >= {
            text for text in old if int(text[1:].split(",")[0]) not in edited
        }
        assert {text for (text,) in after["books"]} & set(new) >= {
            text for (text,) in after["books"] if int(text[1:].split(",")[0]) in edited
        }
    assert {now(shelves, run).state for run in (migration, replay)} == {RunState.ROLLED_BACK}
    assert now(shelves, migration).quarantined == 0
    if mode == "exact":
        led(shelves, runs.rollback(shelves.ana, rollback.backup_name or "", confirm=True))
        assert contents(shelves) == after
        assert {now(shelves, run).state for run in (migration, replay)} == {RunState.COMPLETED}
        assert now(shelves, migration).quarantined == 0


def test_rolling_back_a_replay_alone_opens_the_rows_again(shelves: Stage) -> None:
    runs = shelves.services.runs
    migration = migrated(shelves)
    backup = led(shelves, runs.start(shelves.olga, RunKind.BACKUP))
    between = contents(shelves)
    cure(shelves)
    replay = replayed(shelves, migration)
    after = contents(shelves)
    rollback = led(shelves, runs.rollback(shelves.ana, backup.backup_name or "", confirm=True))
    assert contents(shelves) == between
    again = now(shelves, migration)
    assert (again.state, again.quarantined, again.changes_left > 0) == (RunState.COMPLETED_WITH_SKIPS, 10, True)
    assert now(shelves, replay).state is RunState.ROLLED_BACK
    led(shelves, runs.rollback(shelves.ana, rollback.backup_name or "", confirm=True))
    assert contents(shelves) == after
    again = now(shelves, migration)
    assert (again.state, again.quarantined, again.changes_left) == (RunState.COMPLETED, 0, 0)
    assert now(shelves, replay).state is RunState.COMPLETED
