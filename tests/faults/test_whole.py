"""A disturbed backup of a few kinds; and that a program which leaves something, or lists too much, is noticed."""

import random
from pathlib import Path

import pytest

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.domain.runs import RunState
from briefly_admin.engine import backup
from briefly_admin.services.views import RunView
from briefly_admin.vault import vault, writing
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.rows import breaking, whole
from tests.faults.stored import opened, require_no_residue
from tests.faults.test_rows import says


@pytest.mark.parametrize("seed", [0, 1, 2, 8, 10], ids=lambda seed: breaking.WAYS[seed][0])
def test_a_disturbed_backup_is_whole_or_not_there(ground: Ground, seed: int) -> None:
    facts = whole.trial(ground, seed)
    assert facts["count"] == 1
    assert f"(1 {breaking.WAYS[seed][0]})" in says("whole", facts)


def test_no_file_system_may_be_mounted(ground: Ground) -> None:
    with ground.field() as field:
        field.use(MIGRATION_MAX_RETRIES="0")
        with breaking.full(ground, field, random.Random(1), mounting=False) as outcome:
            assert outcome.run.state is RunState.FAILED
            assert "File too large" in (outcome.run.error or "")
        field.dismiss()
        field.services.sweeping.purge()
        assert require_no_residue(field) == 0


def lead(field: Field) -> RunView:
    """A backup by this process."""
    run = field.back_up()
    return field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")


def test_a_program_that_leaves_something_is_noticed(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    def prove(*_: object, **__: object) -> None:
        raise BackupDamaged("It is damaged.", damages=["it"], remedy="Take another.")

    with monkeypatch.context() as patch:
        patch.setattr(backup, "prove_written", prove)
        for module in (vault, writing):
            patch.setattr(module, "destroy", lambda *_: None)
        assert lead(field).state is RunState.FAILED
        field.services.sweeping.purge()
        with pytest.raises(AssertionError, match="too much"):
            require_no_residue(field)


def test_a_stray_file_and_a_lost_one_are_noticed(field: Field) -> None:
    assert lead(field).state is RunState.COMPLETED
    (listed,) = field.services.backups.list(ANA)
    objects = require_no_residue(field)
    assert objects == len(opened(field, listed).manifest.streams) + 2
    store = field.logs / "backups"
    stray = store / ".partial" / "half"
    stray.write_bytes(b"x")
    with pytest.raises(AssertionError, match=r"too much: .*half"):
        require_no_residue(field)
    next(Path(store).glob("*/streams/1.bma")).unlink()
    with pytest.raises(AssertionError, match=r"missing: .*streams/1\.bma"):
        require_no_residue(field)
    with pytest.raises(AssertionError):
        opened(field, listed)


def test_a_backup_of_a_failed_run_is_noticed(field: Field) -> None:
    run = lead(field)
    field.ask(
        "UPDATE briefly_admin.run SET state = 'failed', error = 'x', remedy = 'y' WHERE id = %s RETURNING 1", run.id
    )
    failed = field.view(run)
    assert failed.state is RunState.FAILED
    with pytest.raises(AssertionError):
        whole._require_whole_or_nothing(field, failed, breaking.Outcome(failed))
