"""A whole run by a real worker over a copy of a database: how long its phases took, and its memory."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ground import Ground
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.views import RunView
from tests.faults.harness import ANA, Field

_MIGRATION: Mapping[str, Any] = {
    "onInvalid": "stop",
    "maxRetries": 3,
    "retryDelay": 1000,
    "pause": 0,
    "expectQuiet": False,
}
_ALONE: Mapping[str, Any] = {"validateData": False, "createBackup": False}
_LOOKS = (0.02, 0.5)
"""Seconds to the first look and between the later ones; in between they double, for looking costs what is measured."""


@dataclass(frozen=True)
class Ran:
    """Rows changed, seconds by phase, and the most memory that the work horse ever had, in bytes."""

    changed: int
    seconds: Mapping[str, float]
    peak: int

    @property
    def migrated(self) -> float:
        """Rows a second in the migrate phase."""
        return self.changed / self.seconds["migrate"]


def migrate(ground: Ground, target: str, batch: int | str, *, whole: bool = False) -> Ran:
    """A migration of the target; `whole`: validated and backed up, too. Raises AssertionError unless it ends well."""
    config = {**_MIGRATION, "batchSize": batch, **({} if whole else _ALONE)}
    with ground.field(target) as field:
        field.worker()
        field.listening(1)
        # Without a clock nobody else comes; a run of 10⁷ rows takes minutes.
        view, peak = _ended(field, field.migrate(**config))
        (moved,) = (phase.result for phase in view.phases if phase.phase == "migrate")
        return Ran(int(moved["changed"]), _seconds(view), peak)


def validate(ground: Ground, target: str, workers: int) -> float:
    """Seconds of the phase validate of a run by so many workers. Raises AssertionError unless it ends well."""
    with ground.field(target) as field:
        for _ in range(workers):
            field.worker()
        field.listening(workers)
        view, _ = _ended(field, field.services.runs.start(ANA, RunKind.VALIDATION, config={"workers": workers}))
        return _seconds(view)["validate"]


@dataclass(frozen=True)
class Sealed:
    """A backup: its rows and sealed bytes, seconds until all was sealed and until all was proven, and peak memory."""

    rows: int
    size: int
    sealed: float
    seconds: float
    peak: int


def back_up(ground: Ground, target: str, workers: int) -> Sealed:
    """A backup of its own by so many workers. Raises AssertionError unless it ends well; nothing is kept of it."""
    try:
        with ground.field(target) as field:
            for _ in range(workers):
                field.worker()
            field.listening(workers)
            view, peak = _ended(field, field.services.runs.start(ANA, RunKind.BACKUP, config={"workers": workers}))
            (told,) = (phase.result for phase in view.phases if phase.phase == "backup")
            return Sealed(told["rows"], told["bytes"], told["sealed_seconds"], told["seconds"], peak)
    finally:
        shutil.rmtree(ground.logs / "backups", ignore_errors=True)


@dataclass(frozen=True)
class RolledBack:
    """An exact rollback: what it wrote of each table, and seconds: of its phases and of those of its `preview`.

    `within`: the seconds of the restore's parts, as it tells them.
    """

    written: Mapping[str, Mapping[str, int]]
    seconds: Mapping[str, float]
    preview: Mapping[str, float]
    within: Mapping[str, float]
    peak: int


def roll_back(ground: Ground, target: str, edit: Callable[[str], None]) -> RolledBack:
    """By one worker: a backup, then `edit`, a preview, and the rollback that it allows. Nothing is kept of it.

    Raises AssertionError unless all of them end well.
    """
    try:
        with ground.field(target) as field:
            field.worker()
            field.listening(1)
            _ended(field, field.services.runs.start(ANA, RunKind.BACKUP))
            backup = field.services.backups.list(ANA)[0].id
            edit(target)
            preview, _ = _ended(field, field.services.runs.preview(ANA, backup))
            run = field.services.runs.rollback(
                ANA, backup, confirm=True, reason="a measurement", preview_id=preview.id
            )  # fmt: skip
            view, peak = _ended(field, run)
            (told,) = (phase.result for phase in view.phases if phase.phase == "restore")
            return RolledBack(told["tables"], _seconds(view), _seconds(preview), told.get("seconds", {}), peak)
    finally:
        shutil.rmtree(ground.logs / "backups", ignore_errors=True)


def _ended(field: Field, run: RunView) -> tuple[RunView, int]:
    """The run once it has ended well, and the horse's peak of memory."""
    peak = _watched(field, lambda: field.view(run).finished)
    view = field.view(run)
    assert view.state is RunState.COMPLETED, (view.kind, view.state, view.error, view.remedy, field.said())
    return view, peak


def _seconds(view: RunView) -> dict[str, float]:
    return {str(phase.phase): phase.seconds or 0.0 for phase in view.phases}


def _watched(field: Field, over: Callable[[], bool]) -> int:
    """The horse's peak of resident memory in bytes, looked at until it is over."""
    peak, (wait, longest) = 0, _LOOKS
    while not over():
        for worker in field.busy:
            peak = max(peak, _high_water(worker.horse))
        time.sleep(wait)
        wait = min(longest, wait * 2)
    return peak


def _high_water(pid: int | None) -> int:
    """VmHWM of proc(5), in bytes; 0 where the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmHWM:")), 0)
