"""Master keys rotated by the command, which is killed again and again: every backup opens at any time."""

import base64
import random
import signal
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest

from briefly_admin.domain.errors import BackupKeyMissing
from tests.faults import hurt
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.hurt import Blow
from tests.faults.rows.row import Facts, Row, total
from tests.faults.stored import opened, require_no_residue

ROTATIONS = 10
"""Of one trial."""
BACKUPS = 3
_KILLS = 3
"""At most, of one rotation, before it is left alone."""
_SECONDS = 60


def trial(ground: Ground, seed: int, rotations: int = ROTATIONS) -> Facts:
    """So many rotations one after the other, each with another key; the one before it is taken out then."""
    chance, kills = random.Random(seed), 0
    keys = [_key(f"key-{number}", chance) for number in range(rotations + 1)]
    with ground.field() as field:
        field.module = "tests.faults.hurt"
        field.use(BACKUP_KEYS=keys[0])
        for _ in range(BACKUPS):
            _back_up(field)
        for old, new in pairwise(keys):
            field.use(BACKUP_KEYS=f"{new},{old}")
            for _ in range(chance.randint(1, _KILLS)):
                kills += _killed(field, chance)
                require_all_open(field)
            field.elsewhere.clear()
            assert field.start("keys rotate").process.wait(_SECONDS) == 0, field.said()
            field.use(BACKUP_KEYS=new)
            require_all_open(field)
            field.use(BACKUP_KEYS=old)
            _require_none_opens(field, new)
        field.use(BACKUP_KEYS=keys[-1])
        _back_up(field)
        require_all_open(field, BACKUPS + 1)
        field.services.sweeping.purge()
        require_no_residue(field)
        assert field.services.audit.verify(ANA).ok
    return {"count": rotations, "kills": kills, "backups": BACKUPS}


def _key(name: str, chance: random.Random) -> str:
    return f"{name}:{base64.b64encode(chance.randbytes(32)).decode()}"


def _back_up(field: Field) -> None:
    """By this process, under the key that seals."""
    run = field.back_up()
    field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
    field.ends(run)


def _killed(field: Field, chance: random.Random) -> bool:
    """One call of the command, killed where it replaces slots; whether it was: nothing may be left to replace."""
    logs = field.logs / f"call-{len(field.started)}"
    logs.mkdir()
    blow = Blow("replace", chance.randint(1, 2 * BACKUPS), chance.choice(hurt.STAGES))
    field.elsewhere = hurt.settings(logs, blow=blow)
    code = field.start("keys rotate").process.wait(_SECONDS)
    assert code in {0, -signal.SIGKILL}, (code, field.said())
    assert hurt.struck(logs, blow) == (code != 0), (code, blow)
    return code != 0


def require_all_open(field: Field, count: int = BACKUPS) -> None:
    """Each backup is read to its last byte with the keys of the settings."""
    backups = field.services.backups.list(ANA)
    assert len(backups) == count, backups
    for backup in backups:
        opened(field, backup)


def _require_none_opens(field: Field, needed: str) -> None:
    """The key before does not open them any more, and the one that does is named."""
    for backup in field.services.backups.list(ANA):
        with pytest.raises(BackupKeyMissing, match=needed.partition(":")[0]):
            opened(field, backup)


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"{total(trials):,} rotations, {total(trials, 'kills')} kills between: every one of {BACKUPS} backups was read "
        "whole after each kill, and after each rotation with the newest key alone"
    )


ROW = Row("rotations", 50, "rotations", 8, trial, _says)
