"""What a rollback is bound to, who may begin it and go on with it, and what its end settles."""

from typing import Any

import pytest

from briefly_admin.domain.errors import NotAllowed, Refused, Stopped
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage
from tests.services.keeping import KeptBackup, keep_restorable

COUNTS = {"same": 1, "update": 2, "insert": 3, "delete": 4}
CLASSES = {"untouched": 1, "migrated": 2, "edited": 3, "created": 4, "deleted": 5}


def previewed(stage: Stage, backup: KeptBackup, **report: Any) -> RunView:
    found = {"tables": {"users": COUNTS}} | report
    return stage.lead(stage.services.runs.preview(stage.olga, backup.name), lambda _: {"preview": found})


def roll_back(stage: Stage, backup: KeptBackup, **wish: Any) -> RunView:
    return stage.services.runs.rollback(stage.ana, backup.name, **{"confirm": True} | wish)


def migrated(stage: Stage) -> RunView:
    return stage.lead(stage.services.runs.start(stage.olga, RunKind.MIGRATION))


def test_a_preview_binds_what_names_it(stage: Stage) -> None:
    backup = keep_restorable(stage, "one", run_id=migrated(stage).id)
    whole = previewed(stage, backup, classes={"users": CLASSES})
    for mode in ("exact", "keep"):
        run = roll_back(stage, backup, mode=mode, preview_id=str(whole.number), tables=["users"], allowance=3)
        bound = {name: run.options[name] for name in ("preview_id", "expected", "expected_classes", "allowance")}
        assert bound == {
            "preview_id": whole.id, "expected": {"users": COUNTS}, "expected_classes": {"users": CLASSES},
            "allowance": 3,
        }  # fmt: skip
        stage.services.runs.cancel(stage.ana, run.id)
    older = previewed(stage, backup)
    with pytest.raises(Refused, match=f"Run {older.number} counted for an older version"):
        roll_back(stage, backup, mode="keep", preview_id=older.id)
    assert roll_back(stage, backup, preview_id=older.id).options["expected"] == {"users": COUNTS}


def test_a_backup_of_something_else_begins_nothing(stage: Stage) -> None:
    foreign, older = (
        keep_restorable(stage, "foreign", target_id="another"),
        keep_restorable(stage, "older", plan="older"),
    )
    for backup, why in ((foreign, "of another database"), (older, "of the plan 'older'")):
        with pytest.raises(Refused, match=why):
            roll_back(stage, backup)
        with pytest.raises(Refused, match=why):
            stage.services.runs.preview(stage.olga, backup.name)
    with pytest.raises(Refused, match="was not taken by a migration"):
        roll_back(stage, keep_restorable(stage, "own"), mode="keep")
    assert stage.services.runs.count(stage.vito) == 0


def test_admins_roll_back_and_operators_look(stage: Stage) -> None:
    backup = keep_restorable(stage, "one")
    for actor in (stage.olga, stage.vito, stage.stranger):
        with pytest.raises(NotAllowed):
            stage.services.runs.rollback(actor, backup.name, confirm=True)
    for actor in (stage.vito, stage.stranger):
        with pytest.raises(NotAllowed):
            stage.services.runs.preview(actor, backup.name)

    def paused(_: object) -> dict[str, object]:
        raise Stopped("interrupt")

    run = roll_back(stage, backup)
    assert stage.lead(run, paused).state is RunState.INTERRUPTED
    with pytest.raises(NotAllowed):
        stage.services.runs.resume(stage.olga, run.id)
    assert stage.services.runs.resume(stage.ana, run.id).state is RunState.PENDING


def test_the_log_says_who_why_and_what(stage: Stage) -> None:
    backup = keep_restorable(stage, "one")
    run = roll_back(stage, backup, tables=["users"], reason="Wrong tiers.")
    event = stage.services.audit.list(stage.ana, action="run.start")[0]
    asked = event.details["options"]
    assert (event.actor, event.object) == (stage.ana.name, f"run {run.number}")
    assert (asked["backup_name"], asked["mode"], asked["tables"], asked["reason"]) == (
        "one", "exact", ["users"], "Wrong tiers.",
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["exact", "keep"])
def test_a_migration_is_rolled_back_once_all_its_tables_went_back(stage: Stage, mode: str) -> None:
    migration = migrated(stage)
    backup = keep_restorable(stage, "one", run_id=migration.id)
    assert stage.lead(roll_back(stage, backup, mode=mode, tables=["users"])).state is RunState.COMPLETED
    assert stage.state(migration) is RunState.COMPLETED
    some = ["oauth_tokens", "users"]  # all of them, however they are named
    assert stage.lead(roll_back(stage, backup, mode=mode, tables=some)).state is RunState.COMPLETED
    assert stage.state(migration) is RunState.ROLLED_BACK
