"""What every phase is given: one run, its plan, its servers, and the ways to report and to be stopped."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Protocol
from uuid import UUID

from briefly_admin.domain.breaker import Breaker
from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import Stopped
from briefly_admin.domain.findings import Finding
from briefly_admin.domain.partitions import Partitions
from briefly_admin.domain.ports import Reporter, StopSignal
from briefly_admin.domain.records import ChangeRecord, QuarantinedRow, SkippedRow
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import Plan
from briefly_admin.vault.vault import Vault

__all__ = ["ChangeRecord", "Journal", "QuarantinedRow", "RunContext", "SkippedRow"]


class Journal(Protocol):
    """The run's record in the app database (store.journal). Every write is fenced: an older attempt raises Fenced."""

    @property
    def partitions(self) -> Partitions:
        """The run's partitions, as this attempt and this worker see them."""

    @property
    def breaker(self) -> Breaker:
        """The run's circuit breaker, as this attempt and this worker see it."""

    def phase_started(self, phase: Phase) -> None:
        """The phase begins, or begins again."""

    def phase_finished(self, phase: Phase, result: Mapping[str, Any]) -> None:
        """The phase is done; `result` is its part of the report (JSON)."""

    def phase_failed(self, phase: Phase, message: str) -> None:
        """The phase ended with an error."""

    def finished_phases(self) -> Mapping[Phase, Mapping[str, Any]]:
        """Phases done by this or an earlier attempt, with their results."""

    def log(self, level: str, message: str, phase: Phase | None = None) -> None:
        """A line of the run's log (debug, info, warning, error); never a secret."""

    def totals(self, processed: int, total: int) -> None:
        """Rows looked at and rows to look at."""

    def save_findings(self, phase: Phase, findings: Sequence[Finding]) -> None:
        """Replace the phase's findings."""

    def save_quarantine(self, rows: Iterable[QuarantinedRow]) -> None:
        """Copy quarantined rows; idempotent."""

    def quarantined(self, table: str | None = None, run_id: UUID | None = None) -> Sequence[QuarantinedRow]:
        """The quarantined rows (at most maxSkipped) of this run, or of another: those that no run has cured since."""

    def settle_quarantine(self, of: UUID, rows: Iterable[QuarantinedRow]) -> None:
        """What is left of another run's quarantine: open rows that are not among these were cured by this run."""

    def skipped(self, table: str | None = None) -> Sequence[SkippedRow]:
        """The rows of the run's target and plan that somebody decided to leave alone."""

    def backup_begun(self, backup_id: UUID, name: str, shred_key: bytes) -> None:
        """A backup is being written; it does not exist before `backup_proven`."""

    def backup_proven(
        self, backup_id: UUID, *, manifest_sha256: str, tables: Sequence[Mapping[str, Any]], rows: int, size: int,
        objects: Sequence[Mapping[str, Any]] = (), seconds: float = 0.0,
    ) -> None:  # fmt: skip
        """The backup is whole and proven (L1), in so many seconds; it is now the run's backup.

        `tables`: [{table, rows, bytes}]; `objects`: [{key, size, sha256, table, stream}], what L0 compares with the
        store later on, without a key.
        """

    def backup_objects(self, backup_id: UUID) -> Sequence[Mapping[str, Any]]:
        """The `objects` that `backup_proven` stored; empty for a backup of an older version. Raises NotFound,
        BackupExpired.
        """

    def backup_verified(
        self, backup_id: UUID, level: str, *, damages: Sequence[str], rows: int, seconds: float, place: str,
        broken: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """A verification of that level (L0, L1, L2) came to its end at that place; the backup is damaged where
        `damages` is not empty. `broken`: what fails although every row is as it was backed up; that says nothing of
        the backup's bytes, and it stays what it was.
        """

    def backup_failed(self, backup_id: UUID) -> None:
        """The backup was given up: its keys are forgotten."""

    def save_baseline(self, table: str, digests: bytes) -> None:
        """Store the bucket digests of a table before the run changed it."""

    def baseline(self, table: str) -> bytes | None:
        """What `save_baseline` stored."""

    def record_change(self, change: ChangeRecord) -> None:
        """Record a schema change before it is made; the same position again replaces it."""

    def set_change_state(self, position: int, state: str, note: str = "") -> None:
        """It was made, waits, or was reverted."""

    def changes(self, run_id: UUID | None = None) -> Sequence[ChangeRecord]:
        """Schema changes of this run (or of another), by position."""

    def changes_reverted(self, run_id: UUID, positions: Collection[int]) -> None:
        """Schema changes of another run were taken back by this one: their state becomes `reverted`; idempotent."""

    def settle_changes(self, run_id: UUID, states: Mapping[int, tuple[str, str]]) -> None:
        """Schema changes of another run came into another state by this one: position → (state, note); idempotent."""

    def backup_keys(self, backup_id: UUID) -> tuple[bytes, str]:
        """The backup's shred key and the SHA-256 of its sealed manifest. Raises NotFound, BackupExpired."""

    def writing_keys(self, backup_id: UUID) -> bytes:
        """The shred key of a backup that this run is writing. Raises NotFound, BackupExpired once it was given up."""


def _no_stop() -> str | None:
    return None


def _nobody() -> None:
    """No queue, no helpers."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """One attempt at one run. Phases are functions `run(context) -> result`; they hold no state of their own."""

    run_id: UUID
    attempt: int
    kind: RunKind
    plan: Plan
    target: Target
    vault: Vault
    journal: Journal
    report: Reporter
    read_config: Callable[[], RunConfig]
    """The config as it is now: live fields (batch size, pause, workers) change while the run goes."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Rollback and preview: backup_id (uuid text), tables (list or None), mode, reason, expected …; see services."""
    should_stop: StopSignal = _no_stop
    sleep: Callable[[float], None] = time.sleep
    """Seconds; wakes early and raises Stopped when a stop is asked for."""
    nap: Callable[[float], None] = time.sleep
    """Seconds; whatever is asked for meanwhile."""
    ask_help: Callable[[], None] = _nobody
    """Asks for as many more workers as the config's `workers` allows; they come if there are some."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=Random)

    @property
    def quarantine_of(self) -> UUID:
        """The run whose quarantine the run heeds and adds to: its own, or that of the migration that it replays."""
        return UUID(str(self.options["of"])) if self.kind is RunKind.REPLAY else self.run_id

    @property
    def config(self) -> RunConfig:
        """The config as it is now."""
        return self.read_config()

    def check_stop(self) -> None:
        """Raises Stopped when the run was asked to pause, to cancel or to interrupt."""
        reason = self.should_stop()
        if reason:
            raise Stopped(reason)
