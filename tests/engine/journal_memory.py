"""A run's record kept in memory, for the engine's tests: the whole Journal, fenced by attempt like the real one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

from briefly_admin.domain.errors import BackupExpired, Fenced, NotFound, RunFailed
from briefly_admin.domain.findings import Finding
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import ChangeRecord, QuarantinedRow, SkippedRow
from tests.engine.breaker_memory import BreakerRecord, MemoryBreaker
from tests.engine.partitions_memory import MemoryPartitions, PartitionTable


@dataclass
class RunRecord:
    """What the app database would hold of one run; attempts share it, and the newest owns it."""

    run_id: UUID = field(default_factory=uuid4)
    attempt: int = 0
    phases: dict[Phase, str] = field(default_factory=dict)
    """running, done, failed."""
    results: dict[Phase, dict[str, Any]] = field(default_factory=dict)
    failures: list[tuple[Phase, str]] = field(default_factory=list)
    lines: list[tuple[str, str, Phase | None]] = field(default_factory=list)
    processed: int = 0
    total: int = 0
    findings: dict[Phase, list[Finding]] = field(default_factory=dict)
    quarantine: dict[tuple[str, tuple[str, ...]], QuarantinedRow] = field(default_factory=dict)
    closed: dict[tuple[str, tuple[str, ...]], UUID] = field(default_factory=dict)
    """Quarantined rows that another run has cured since."""
    skips: list[SkippedRow] = field(default_factory=list)
    backups: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    baselines: dict[str, bytes] = field(default_factory=dict)
    changes: dict[int, ChangeRecord] = field(default_factory=dict)
    partitions: PartitionTable = field(default_factory=PartitionTable)
    breaker: BreakerRecord = field(default_factory=BreakerRecord)

    def next_attempt(self, others: "Mapping[UUID, RunRecord] | None" = None) -> "MemoryJournal":
        """A new leader takes over: the journal of the next attempt; those of older ones are fenced off."""
        self.attempt += 1
        self.breaker = BreakerRecord()
        return MemoryJournal(self, self.attempt, dict(others or {}))


@dataclass
class MemoryJournal:
    """One attempt's journal. `others`: records of other runs, for the changes that a rollback reads."""

    record: RunRecord = field(default_factory=RunRecord)
    attempt: int = 0
    others: dict[UUID, RunRecord] = field(default_factory=dict)
    worker: str = "test:1"

    @property
    def partitions(self) -> MemoryPartitions:
        return MemoryPartitions(self.record.partitions, lambda: self.record.attempt, self.attempt, self.worker)

    @property
    def breaker(self) -> MemoryBreaker:
        return MemoryBreaker(lambda: self.record.breaker, lambda: self.record.attempt, self.attempt, self.worker)

    def _write(self) -> RunRecord:
        if self.record.attempt != self.attempt:
            raise Fenced(f"Attempt {self.record.attempt} leads the run now; this is attempt {self.attempt}.")
        return self.record

    def phase_started(self, phase: Phase) -> None:
        self._write().phases[phase] = "running"

    def phase_finished(self, phase: Phase, result: Mapping[str, Any]) -> None:
        self._write().phases[phase] = "done"
        self.record.results[phase] = dict(result)

    def phase_failed(self, phase: Phase, message: str) -> None:
        self._write().phases[phase] = "failed"
        self.record.failures.append((phase, message))

    def finished_phases(self) -> Mapping[Phase, Mapping[str, Any]]:
        return {phase: self.record.results[phase] for phase, state in self.record.phases.items() if state == "done"}

    def log(self, level: str, message: str, phase: Phase | None = None) -> None:
        self._write().lines.append((level, message, phase))

    def totals(self, processed: int, total: int) -> None:
        self._write().processed, self.record.total = processed, total

    def save_findings(self, phase: Phase, findings: Sequence[Finding]) -> None:
        self._write().findings[phase] = list(findings)

    def save_quarantine(self, rows: Iterable[QuarantinedRow]) -> None:
        kept = self._write().quarantine
        for row in rows:
            kept.setdefault((row.table, row.key), row)

    def quarantined(self, table: str | None = None, run_id: UUID | None = None) -> Sequence[QuarantinedRow]:
        record = self.record if run_id in {None, self.record.run_id} else self.others[UUID(str(run_id))]
        opened = (row for place, row in record.quarantine.items() if place not in record.closed)
        return [row for row in opened if table in {None, row.table}]

    def settle_quarantine(self, of: UUID, rows: Iterable[QuarantinedRow]) -> None:
        self._write()
        other, left = self.others[of], {(row.table, row.key): row for row in rows}
        other.quarantine.update(left)
        for place in other.quarantine:
            if place in left:
                other.closed.pop(place, None)
            else:
                other.closed.setdefault(place, self.record.run_id)

    def skipped(self, table: str | None = None) -> Sequence[SkippedRow]:
        return [row for row in self.record.skips if table in {None, row.table}]

    def backup_begun(self, backup_id: UUID, name: str, shred_key: bytes) -> None:
        self._write().backups[backup_id] = {"name": name, "shred_key": shred_key, "state": "writing"}

    def backup_proven(
        self, backup_id: UUID, *, manifest_sha256: str, tables: Sequence[Mapping[str, Any]], rows: int, size: int,
        objects: Sequence[Mapping[str, Any]] = (), seconds: float = 0.0,
    ) -> None:  # fmt: skip
        self._write().backups[backup_id].update(
            state="proven", manifest_sha256=manifest_sha256, tables=list(tables), rows=rows, size=size,
            objects=[dict(each) for each in objects], seconds=seconds,
        )  # fmt: skip

    def backup_objects(self, backup_id: UUID) -> Sequence[Mapping[str, Any]]:
        return list(self._backup(backup_id).get("objects", ()))

    def backup_verified(
        self, backup_id: UUID, level: str, *, damages: Sequence[str], rows: int, seconds: float, place: str,
        broken: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._write()
        backup = self._backup(backup_id)
        backup["state"] = "damaged" if damages else "proven"
        proof = {"level": level, "damages": [*damages, *broken], "rows": rows, "seconds": seconds, "place": place}
        backup.setdefault("proofs", []).append(proof)

    def backup_failed(self, backup_id: UUID) -> None:
        self._write().backups[backup_id].update(state="failed", shred_key=None)

    def save_baseline(self, table: str, digests: bytes) -> None:
        self._write().baselines[table] = digests

    def baseline(self, table: str) -> bytes | None:
        return self.record.baselines.get(table)

    def record_change(self, change: ChangeRecord) -> None:
        self._write().changes[change.position] = change

    def set_change_state(self, position: int, state: str, note: str = "") -> None:
        changes = self._write().changes
        if position not in changes:
            raise RunFailed(f"There is no schema change {position} in the run's record.")
        changes[position] = replace(changes[position], state=state, note=note)

    def changes(self, run_id: UUID | None = None) -> Sequence[ChangeRecord]:
        record = self.record if run_id in {None, self.record.run_id} else self.others[UUID(str(run_id))]
        return [record.changes[position] for position in sorted(record.changes)]

    def changes_reverted(self, run_id: UUID, positions: Collection[int]) -> None:
        self._write()
        changes = self.others[run_id].changes
        changes.update({position: replace(changes[position], state="reverted") for position in positions})

    def settle_changes(self, run_id: UUID, states: Mapping[int, tuple[str, str]]) -> None:
        self._write()
        changes = self.others[run_id].changes
        for position, (state, note) in states.items():
            changes[position] = replace(changes[position], state=state, note=note)

    def backup_keys(self, backup_id: UUID) -> tuple[bytes, str]:
        backup = self._backup(backup_id)
        if not backup["shred_key"]:
            raise BackupExpired("The backup was shredded.", remedy="Use another backup.")
        return backup["shred_key"], backup["manifest_sha256"]

    def _backup(self, backup_id: UUID) -> dict[str, Any]:
        for record in (self.record, *self.others.values()):
            if backup_id in record.backups:
                return record.backups[backup_id]
        raise NotFound(f"There is no backup {backup_id}.")

    def writing_keys(self, backup_id: UUID) -> bytes:
        backup = self._write().backups.get(backup_id)
        if backup is None or backup["state"] not in {"writing", "failed"}:
            raise NotFound("This run is writing no such backup.")
        if not backup["shred_key"]:
            raise BackupExpired("The backup was given up.")
        return bytes(backup["shred_key"])
