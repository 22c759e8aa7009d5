"""Backups: verified, pinned, expired with the key first, deleted, and rollbacks that are refused before anything."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from briefly_admin.domain.errors import (
    BackupExpired,
    Busy,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Refused,
)
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import pipeline
from briefly_admin.engine.context import RunContext
from briefly_admin.services.views import BackupView, RunView
from briefly_admin.vault.stores.directory import DirectoryStore
from tests.services.conftest import Stage
from tests.services.keeping import ONE, services_with


@pytest.fixture
def backup(stage: Stage, sample_data: dict[str, int]) -> BackupView:
    """A proven backup of sample data, on its own."""
    run = stage.lead(stage.services.runs.start(stage.olga, RunKind.BACKUP), pipeline.lead)
    assert run.state is RunState.COMPLETED, run.error
    view = stage.services.backups.get(stage.vito, run.backup_name or "")
    stage.clock.time = view.created_at
    return view


def _objects(tmp_path: Path) -> list[Path]:
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_backup_is_proven_and_listed(stage: Stage, backup: BackupView) -> None:
    assert (backup.state, backup.proven_level, backup.restorable, backup.run_number) == ("proven", "L1", True, 1)
    assert backup.rows == sum(table["rows"] for table in backup.tables) > 0
    assert stage.services.backups.list(stage.vito) == (backup,)
    (proven,) = backup.proofs
    assert (proven.level, proven.whole, proven.rows, proven.run_number, proven.place) == (
        "L1",
        True,
        backup.rows,
        1,
        "the store",
    )
    proof = stage.services.audit.list(stage.vito, action="backup.prove")[0]
    assert len(proof.details["manifest_sha256"]) == 64


def test_expiry_destroys_the_key_first_and_pinned_backups_stay(
    stage: Stage, backup: BackupView, tmp_path: Path
) -> None:
    backups = stage.services.backups
    with pytest.raises(NotAllowed):
        backups.pin(stage.vito, backup.name)
    assert backups.pin(stage.olga, backup.name).pinned
    stage.clock.move(hours=25)
    assert stage.services.sweeping.purge() == 0
    assert backups.get(stage.vito, backup.name).restorable
    backups.unpin(stage.olga, backup.name)
    assert not backups.get(stage.vito, backup.name).restorable
    with pytest.raises(BackupExpired):
        stage.services.runs.rollback(stage.ana, backup.name, confirm=True)
    assert stage.services.sweeping.purge() == 1
    assert _objects(tmp_path) == []
    with psycopg.connect(stage.app_url) as connection:
        assert connection.execute("SELECT shred_key, purged_at IS NOT NULL FROM briefly_admin.backup").fetchall() == [
            (None, True)
        ]
    assert backups.get(stage.vito, backup.name).state == "expired"
    with pytest.raises(Refused):
        backups.pin(stage.ana, backup.name)
    for act in (stage.services.runs.verify_backup, stage.services.runs.drill):
        with pytest.raises(BackupExpired, match="has expired") as caught:
            act(stage.ana, backup.name)
        assert "backup list" in caught.value.remedy
    assert stage.services.sweeping.purge() == 0
    assert stage.actions()[-1] == "backup.expire"


def test_only_an_admin_deletes_and_never_what_is_needed(stage: Stage, backup: BackupView, tmp_path: Path) -> None:
    backups, runs = stage.services.backups, stage.services.runs
    for actor in (stage.olga, stage.vito, stage.stranger):
        with pytest.raises(NotAllowed):
            backups.delete(actor, backup.name)
    backups.pin(stage.ana, backup.name)
    with pytest.raises(Refused, match="pinned"):
        backups.delete(stage.ana, backup.name)
    backups.unpin(stage.ana, backup.name)
    rollback = runs.rollback(stage.ana, backup.name, confirm=True)
    with pytest.raises(Refused, match=f"Run {rollback.number}"):
        backups.delete(stage.ana, backup.name)
    stage.clock.move(hours=25)
    assert backups.purge_expired(stage.ana) == 0
    runs.cancel(stage.ana, rollback.id)
    assert backups.delete(stage.ana, backup.id).state == "expired"
    assert _objects(tmp_path) == []


def test_what_a_crash_left_half_written_is_swept(stage: Stage, tmp_path: Path) -> None:
    def work(context: RunContext) -> Mapping[str, Any]:
        writer = context.vault.begin(uuid4())
        context.journal.backup_begun(writer.backup_id, "backup_1", writer.shred_key)
        context.vault.begin(uuid4())
        raise KeyboardInterrupt

    run = stage.services.runs.start(stage.olga, RunKind.BACKUP)
    with pytest.raises(KeyboardInterrupt):
        stage.lead(run, work)
    assert stage.state(run) is RunState.INTERRUPTED
    assert stage.services.sweeping.purge() == 0
    assert len(_objects(tmp_path)) == 1
    stage.services.runs.cancel(stage.olga, run.id)
    stage.services.sweeping.purge()
    assert _objects(tmp_path) == []
    with pytest.raises(NotFound):
        stage.services.backups.get(stage.vito, "backup_1")


class Slow(DirectoryStore):
    """A store that takes its time to list: `meanwhile` happens first."""

    def __init__(self, root: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(root)
        self._meanwhile = meanwhile

    def list(self, prefix: str = "") -> Iterator[str]:
        if not prefix:
            self._meanwhile()
        return super().list(prefix)


def test_a_backup_that_begins_while_the_store_is_listed_is_not_swept(stage: Stage, tmp_path: Path) -> None:
    begun: list[UUID] = []

    def work(context: RunContext) -> Mapping[str, Any]:
        writer = context.vault.begin(uuid4())
        context.journal.backup_begun(writer.backup_id, f"backup_{len(begun)}", writer.shred_key)
        begun.append(writer.backup_id)
        raise KeyboardInterrupt

    def begin() -> None:
        run = stage.services.runs.start(stage.olga, RunKind.BACKUP)
        with pytest.raises(KeyboardInterrupt):
            stage.lead(run, work)

    with services_with(stage, {"one": ONE}, Slow(tmp_path / "backups", begin)) as services:
        assert services.sweeping.purge() == 0
    assert len(begun) == 1
    assert [path.name for path in _objects(tmp_path)] == ["slots.json"]
    assert "backup.sweep" not in stage.actions()


def test_rollbacks_are_refused_before_anything_happens(stage: Stage, backup: BackupView) -> None:
    runs = stage.services.runs
    for actor in (stage.olga, stage.vito, stage.stranger):
        with pytest.raises(NotAllowed):
            runs.rollback(actor, backup.name, confirm=True)
    for wrong, field in (
        ({"confirm": False}, "confirm"), ({"confirm": 1}, "confirm"), ({"confirm": "true"}, "confirm"),
        ({"confirm": True, "mode": "soft"}, "mode"), ({"confirm": True, "tables": []}, "tables"),
        ({"confirm": True, "tables": ["users; DROP"]}, "tables"), ({"confirm": True, "reason": "x" * 501}, "reason"),
        ({"confirm": True, "allowance": -1}, "allowance"), ({"confirm": True, "allowance": True}, "allowance"),
        ({"confirm": True, "rules": {"edited": "restore"}}, "rules"),
        ({"confirm": True, "mode": "keep", "rules": {"edited": "perhaps"}}, "rules"),
        ({"confirm": True, "mode": "keep", "rules": {"moved": "keep"}}, "rules"),
        ({"confirm": True, "settled": {"users": [{"key": ["1"], "how": "restore"}]}}, "settled"),
        ({"confirm": True, "mode": "keep", "settled": {"users": [{"key": "1", "how": "restore"}]}}, "settled"),
        ({"confirm": True, "mode": "keep", "settled": {"users": [{"key": ["1"], "how": "edit"}]}}, "settled"),
        ({"confirm": True, "mode": "keep", "settled": {"users": [{"key": ["1"], "how": "keep"}] * 2}}, "settled"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest) as caught:
            runs.rollback(stage.ana, backup.name, **wrong)
        assert list(caught.value.details) == [field]
    for unknown in ("backup_1", "../backup", "", "\0"):
        with pytest.raises(NotFound):
            runs.rollback(stage.ana, unknown, confirm=True)
    with pytest.raises(NotAllowed):
        runs.preview(stage.vito, backup.name)
    with pytest.raises(Refused, match="not taken by a migration"):
        runs.rollback(stage.ana, backup.name, confirm=True, mode="keep")
    with pytest.raises(Refused, match="no finished preview"):
        runs.rollback(stage.ana, backup.name, confirm=True, preview_id=backup.run_id)
    assert runs.count(stage.vito) == 1


def test_a_backup_of_another_target_or_plan_is_refused(stage: Stage, backup: BackupView) -> None:
    for column, words in (("target_id", "another database"), ("plan", "of the plan 'x'")):
        with psycopg.connect(stage.app_url) as connection:
            connection.execute(f"UPDATE briefly_admin.backup SET {column} = 'x'")
        with pytest.raises(Refused, match=words):
            stage.services.runs.rollback(stage.ana, backup.name, confirm=True)
    assert stage.services.runs.count(stage.vito) == 1


def test_a_rollback_is_exclusive_and_the_same_request_is_one_run(stage: Stage, backup: BackupView) -> None:
    runs = stage.services.runs

    def asked(**more: Any) -> RunView:
        wish = {"backup": backup.name, "tables": ["users"], "reason": "Wrong tiers.", "idempotency_key": "once"}
        return runs.rollback(stage.ana, confirm=True, **wish | more)

    first = asked()
    assert first.options["tables"] == ["users"]
    assert asked().id == first.id
    for other in ({"tables": None}, {"reason": ""}, {"mode": "keep"}, {"allow": ["public.x"]}, {"backup": "x"}):
        with pytest.raises(Refused, match="asked for something else") as raised:
            asked(**other)
        assert f"began run {first.number} " in raised.value.message
        assert "use a new key" in raised.value.remedy
    with pytest.raises(Busy, match="rollback"):
        runs.start(stage.olga, RunKind.MIGRATION)
    runs.cancel(stage.olga, first.id)
    with pytest.raises(NotAllowed):
        runs.resume(stage.olga, first.id)
