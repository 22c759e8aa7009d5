"""The run's record in the app database, as one attempt at it writes: each write is fenced by the attempt's number."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.domain.breaker import Breaker
from briefly_admin.domain.errors import BackupExpired, Fenced, NotFound, RunFailed
from briefly_admin.domain.findings import Finding
from briefly_admin.domain.partitions import Partitions
from briefly_admin.domain.records import ChangeRecord, QuarantinedRow, SkippedRow
from briefly_admin.domain.runs import Phase
from briefly_admin.store import backups, details, skips, tables
from briefly_admin.store.breaker import DatabaseBreaker
from briefly_admin.store.database import Database
from briefly_admin.store.partitions import DatabasePartitions
from briefly_admin.store.texts import storable

AuditRecorder = Callable[[Connection, str, str, Mapping[str, Any]], None]
"""record(connection, action, object, details): an audit event in the journal's transaction."""

_CHUNK: Final = 500
_MOST_DAMAGE: Final = 1000
"""Lines of damage that are kept of a backup."""
STORE: Final = "the store"
"""The place of every proof but a drill's."""


class DatabaseJournal:
    """engine.context.Journal over the app database; raises Fenced once a newer attempt leads the run."""

    def __init__(
        self, database: Database, run_id: UUID, attempt: int, *, retention: timedelta, record: AuditRecorder,
        worker: str = "", lease: timedelta = timedelta(seconds=30),
    ) -> None:  # fmt: skip
        self.partitions: Partitions = DatabasePartitions(database, run_id, attempt, worker=worker, lease=lease)
        self.breaker: Breaker = DatabaseBreaker(database, run_id, attempt, worker=worker)
        self._database = database
        self._run_id = run_id
        self._attempt = attempt
        self._retention = retention
        self._record = record

    @contextmanager
    def _fenced(self) -> Iterator[tuple[Connection, Row[Any]]]:
        """A transaction that holds the run's row: no newer attempt begins before it commits."""
        run = tables.run
        wanted = select(run).where(run.c.id == self._run_id, run.c.attempt == self._attempt)
        with self._database.begin() as connection:
            row = connection.execute(wanted.with_for_update(key_share=True)).one_or_none()
            if row is None:
                raise Fenced(f"Another attempt leads the run now; this is attempt {self._attempt}.")
            yield connection, row

    def phase_started(self, phase: Phase) -> None:
        """The phase begins, or begins again."""
        self._set_phase(phase, state="running", started_at=func.now(), finished_at=None, result={})

    def phase_finished(self, phase: Phase, result: Mapping[str, Any]) -> None:
        """The phase is done; `result` is its part of the report (JSON)."""
        self._set_phase(phase, state="done", finished_at=func.now(), result=_clean(dict(result)))

    def phase_failed(self, phase: Phase, message: str) -> None:
        """The phase ended with an error."""
        result = {"error": _clean(message)}
        self._set_phase(phase, state="failed", finished_at=func.now(), result=result)

    def _set_phase(self, phase: Phase, **values: Any) -> None:
        row = {"run_id": self._run_id, "phase": phase.value} | values
        with self._fenced() as (connection, _):
            statement = insert(tables.run_phase).values(row)
            connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "phase"], set_=values))
            connection.execute(update(tables.run).where(tables.run.c.id == self._run_id).values(phase=phase.value))

    def finished_phases(self) -> Mapping[Phase, Mapping[str, Any]]:
        """Phases done by this or an earlier attempt, with their results."""
        with self._database.begin() as connection:
            found = details.phases(connection, [self._run_id])[self._run_id]
        return {Phase(name): row.result for name, row in found.items() if row.state == "done"}

    def log(self, level: str, message: str, phase: Phase | None = None) -> None:
        """A line of the run's log; never a secret."""
        values = {"run_id": self._run_id, "level": level, "message": _clean(message), "phase": phase and phase.value}
        with self._fenced() as (connection, _):
            connection.execute(insert(tables.run_log).values(values))

    def totals(self, processed: int, total: int) -> None:
        """Rows looked at and rows to look at."""
        with self._fenced() as (connection, _):
            statement = update(tables.run).where(tables.run.c.id == self._run_id)
            connection.execute(statement.values(records_processed=processed, records_total=total))

    def save_findings(self, phase: Phase, findings: Sequence[Finding]) -> None:
        """Replace the phase's findings."""
        table = tables.finding
        with self._fenced() as (connection, _):
            connection.execute(delete(table).where(table.c.run_id == self._run_id, table.c.phase == phase.value))
            rows = [_clean(finding.to_json()) | {"run_id": self._run_id, "phase": phase.value} for finding in findings]
            for row in rows:
                connection.execute(insert(table).values(row))

    def save_quarantine(self, rows: Iterable[QuarantinedRow]) -> None:
        """Copy quarantined rows; idempotent."""
        source = iter(rows)
        while chunk := list(islice(source, _CHUNK)):
            with self._fenced() as (connection, _):
                values = [details.quarantine_values(self._run_id, row) for row in chunk]
                connection.execute(insert(tables.quarantine).values(values).on_conflict_do_nothing())

    def settle_quarantine(self, of: UUID, rows: Iterable[QuarantinedRow]) -> None:
        """What is left of another run's quarantine: open rows that are not among these were cured by this run."""
        with self._fenced() as (connection, _):
            cured = details.open_keys(connection, of)
        source = iter(rows)
        while chunk := list(islice(source, _CHUNK)):
            values = [details.quarantine_values(of, row) for row in chunk]
            cured -= {(each["table"], each["key"]) for each in values}
            with self._fenced() as (connection, _):
                details.put_quarantine(connection, values)
        gone = sorted(cured)
        for start in range(0, len(gone), _CHUNK):
            with self._fenced() as (connection, _):
                details.close_rows(connection, of, gone[start : start + _CHUNK], by=self._run_id)

    def skipped(self, table: str | None = None) -> Sequence[SkippedRow]:
        """The rows of the run's target and plan that somebody decided to leave alone."""
        with self._database.begin() as connection:
            return skips.of_run(connection, self._run_id, table=table)

    def quarantined(self, table: str | None = None, run_id: UUID | None = None) -> Sequence[QuarantinedRow]:
        """The quarantined rows (at most maxSkipped) of this run, or of another: those that no run has cured since."""
        with self._database.begin() as connection:
            rows = details.quarantine(connection, run_id or self._run_id, table_name=table, uncured=True)
        return [
            QuarantinedRow(
                table=row.table, key=tuple(json.loads(row.key)), cause=row.cause, message=row.message,
                sqlstate=row.sqlstate, constraint=row.constraint, field=row.field,
            )
            for row in rows
        ]  # fmt: skip

    def backup_begun(self, backup_id: UUID, name: str, shred_key: bytes) -> None:
        """A backup is being written; it does not exist before `backup_proven`."""
        with self._fenced() as (connection, run):
            values = {
                "id": backup_id, "name": name, "shred_key": shred_key, "run_id": self._run_id, "plan": run.plan,
                "target_id": run.target_id, "target_title": run.target_title,
            }  # fmt: skip
            backups.begin(connection, values)

    def backup_proven(
        self, backup_id: UUID, *, manifest_sha256: str, tables: Sequence[Mapping[str, Any]], rows: int, size: int,
        objects: Sequence[Mapping[str, Any]] = (), seconds: float = 0.0,
    ) -> None:  # fmt: skip
        """The backup is whole and proven (L1, in so many seconds); it is now the run's backup.

        `tables`: [{table, rows, bytes}]; `objects`: [{key, size, sha256, table, stream}], for `backup_objects`.
        """
        with self._fenced() as (connection, run):
            found = backups.get(connection, backup_id)
            proven = found is not None and backups.set_values(
                connection, backup_id, states=("writing",), state="proven", manifest_sha256=manifest_sha256,
                tables=[dict(table) for table in tables], rows=rows, bytes=size,
                objects=[dict(each) for each in objects], completed_at=func.now(),
                proven_at=func.now(), proven_level="L1", expires_at=func.now() + self._retention,
            )  # fmt: skip
            if found is None or not proven:
                raise RunFailed(
                    "The backup that was written is not in the run's record.", remedy="Start the run again."
                )
            self._set_backup(connection, backup_id)
            proof = {"level": "L1", "whole": True, "rows": rows, "seconds": seconds, "place": STORE}
            backups.add_proof(connection, backup_id, run, proof)
            facts = {"manifest_sha256": manifest_sha256, "rows": rows, "bytes": size, "run": str(self._run_id)}
            self._record(connection, "backup.prove", found.name, facts)

    def _set_backup(self, connection: Connection, backup_id: UUID) -> None:
        connection.execute(update(tables.run).where(tables.run.c.id == self._run_id).values(backup_id=backup_id))

    def backup_failed(self, backup_id: UUID) -> None:
        """The backup was given up: its keys are forgotten."""
        with self._fenced() as (connection, _):
            backups.set_values(connection, backup_id, states=("writing", "proven"), state="failed", shred_key=None)
            mine = tables.run.c.id == self._run_id, tables.run.c.backup_id == backup_id
            connection.execute(update(tables.run).where(*mine).values(backup_id=None))

    def backup_objects(self, backup_id: UUID) -> Sequence[Mapping[str, Any]]:
        """What the store should hold of the backup, as `backup_proven` was given it. Raises NotFound, BackupExpired."""
        return list(self._readable(backup_id).objects)

    def backup_verified(
        self, backup_id: UUID, level: str, *, damages: Sequence[str], rows: int, seconds: float, place: str,
        broken: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Somebody looked at the backup (L0, L1; L2 is the drill, at `place`): it is damaged, or proven anew.

        `broken`: what fails although every row is as it was backed up; then it stays what it was.
        """
        values: dict[str, Any] = {}
        if damages:
            values = {"state": "damaged", "damage": [storable(each) for each in damages[:_MOST_DAMAGE]]}
        elif level != "L0" and not broken:
            values = {"state": "proven", "damage": [], "proven_at": func.now(), "proven_level": level}
        proof = {"level": level, "whole": not (damages or broken), "damages": len(damages) + len(broken), "rows": rows,
                 "seconds": seconds, "place": place}  # fmt: skip
        with self._fenced() as (connection, run):
            found = backups.get(connection, backup_id)
            if found is None:
                raise NotFound("The app database knows no such backup.", remedy="Start the run again.")
            if values:
                backups.set_values(connection, backup_id, states=("proven", "damaged"), **values)
            backups.add_proof(connection, backup_id, run, proof)
            facts = {"level": level, "damages": proof["damages"], "place": place, "run": str(self._run_id)}
            action = "backup.drill" if level == "L2" else "backup.verify"
            self._record(connection, action, found.name, facts)

    def backup_keys(self, backup_id: UUID) -> tuple[bytes, str]:
        """The backup's shred key and the SHA-256 of its sealed manifest. Raises NotFound, BackupExpired."""
        row = self._readable(backup_id)
        return row.shred_key, row.manifest_sha256

    def _readable(self, backup_id: UUID) -> Row[Any]:
        """A backup that was finished, and not shredded since: what the store lacks of that one is no damage."""
        with self._database.begin() as connection:
            row = backups.get(connection, backup_id)
        if row is None or row.manifest_sha256 is None:
            raise NotFound("The app database knows no such backup.", remedy="`briefly-admin backup list` names them.")
        if row.shred_key is None:
            raise BackupExpired(f"{row.name} was shredded: nobody can read it any more.", remedy="Use another backup.")
        return row

    def writing_keys(self, backup_id: UUID) -> bytes:
        """The shred key of a backup that this run is writing. Raises NotFound, BackupExpired once it was given up."""
        with self._fenced() as (connection, _):
            row = backups.get(connection, backup_id)
        if row is None or row.run_id != self._run_id or row.state not in {"writing", "failed"}:
            raise NotFound("This run is writing no such backup.", remedy="Start the run again.")
        if row.shred_key is None:
            raise BackupExpired(f"{row.name} was given up.", remedy="The run takes another one.")
        return bytes(row.shred_key)

    def save_baseline(self, table: str, digests: bytes) -> None:
        """Store the bucket digests of a table before the run changed it."""
        values = {"run_id": self._run_id, "table": table, "digests": digests}
        with self._fenced() as (connection, _):
            statement = insert(tables.baseline).values(values)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["run_id", "table"], set_={"digests": digests})
            )

    def baseline(self, table: str) -> bytes | None:
        """What `save_baseline` stored."""
        found = tables.baseline.c
        with self._database.begin() as connection:
            statement = select(found.digests).where(found.run_id == self._run_id, found.table == table)
            return connection.execute(statement).scalar()

    def record_change(self, change: ChangeRecord) -> None:
        """Record a schema change before it is made; the same position again replaces it."""
        values = {
            "table": change.table, "kind": change.kind, "name": change.name, "sql": change.sql,
            "inverse": change.inverse, "state": change.state, "note": _clean(change.note),
        }  # fmt: skip
        with self._fenced() as (connection, _):
            statement = insert(tables.schema_change).values(
                values | {"run_id": self._run_id, "position": change.position}
            )
            connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "position"], set_=values))

    def set_change_state(self, position: int, state: str, note: str = "") -> None:
        """It was made, waits, or was reverted."""
        table = tables.schema_change
        with self._fenced() as (connection, _):
            statement = update(table).where(table.c.run_id == self._run_id, table.c.position == position)
            if connection.execute(statement.values(state=state, note=_clean(note))).rowcount != 1:
                raise RunFailed(f"There is no schema change {position} in the run's record.")

    def changes_reverted(self, run_id: UUID, positions: Collection[int]) -> None:
        """Schema changes of another run were taken back by this one; idempotent."""
        table = tables.schema_change
        with self._fenced() as (connection, _):
            statement = update(table).where(table.c.run_id == run_id, table.c.position.in_(list(positions)))
            connection.execute(statement.values(state="reverted"))

    def settle_changes(self, run_id: UUID, states: Mapping[int, tuple[str, str]]) -> None:
        """Schema changes of another run came into another state by this one: position → (state, note); idempotent."""
        table = tables.schema_change
        with self._fenced() as (connection, _):
            for position, (state, note) in states.items():
                statement = update(table).where(table.c.run_id == run_id, table.c.position == position)
                connection.execute(statement.values(state=state, note=_clean(note)))

    def changes(self, run_id: UUID | None = None) -> Sequence[ChangeRecord]:
        """Schema changes of this run (or of another), by position."""
        table = tables.schema_change
        statement = select(table).where(table.c.run_id == (run_id or self._run_id)).order_by(table.c.position)
        names = ("position", "table", "kind", "name", "sql", "inverse", "state", "note")
        with self._database.begin() as connection:
            return [ChangeRecord(**{n: getattr(row, n) for n in names}) for row in connection.execute(statement)]


def _clean(value: Any) -> Any:
    """JSON and text without NUL, which PostgreSQL cannot hold; the row that has one is named by its key."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, Mapping):
        return {_clean(str(name)): _clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
