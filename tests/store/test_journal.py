"""The run's record: what is written is read again, and an older attempt writes nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, update

from briefly_admin.domain.errors import BackupExpired, Fenced, NotFound, Refused, RunFailed
from briefly_admin.domain.records import ChangeRecord, QuarantinedRow, SkippedRow
from briefly_admin.domain.runs import Phase
from briefly_admin.store import backups, details, runs, skips, tables
from briefly_admin.store.database import Database
from briefly_admin.store.journal import DatabaseJournal

CHANGE = ChangeRecord(1, "users", "index", "i", "CREATE INDEX …", "DROP INDEX …")
BACKUP = UUID(int=7)


def _begin(database: Database, key: str = "x", kind: str = "migration") -> UUID:
    run_id = uuid4()
    values = {
        "id": run_id, "kind": kind, "state": "running", "plan": "unified", "plan_fingerprint": "f", "target_id": key,
        "target_title": "t", "config": {}, "created_by": "ana", "attempt": 1,
    }  # fmt: skip
    with database.begin() as connection:
        assert runs.begin(connection, values)
    return run_id


def _journal(database: Database, run_id: UUID, attempt: int = 1, told: list[str] | None = None) -> DatabaseJournal:
    def record(_: Connection, action: str, object_: str, facts: object) -> None:
        if told is not None:
            told.append(f"{action} {object_} {facts}")

    return DatabaseJournal(database, run_id, attempt, retention=timedelta(hours=24), record=record)


def test_what_is_written_is_read_again(database: Database) -> None:
    run_id, told = _begin(database), list[str]()
    journal = _journal(database, run_id, told=told)
    journal.phase_started(Phase.BACKUP)
    assert journal.finished_phases() == {}
    journal.phase_finished(Phase.BACKUP, {"rows": 3, "name": "a\0b"})
    journal.phase_started(Phase.MIGRATE)
    journal.phase_failed(Phase.MIGRATE, "no\0")
    assert journal.finished_phases() == {Phase.BACKUP: {"rows": 3, "name": "a\ufffdb"}}
    row = QuarantinedRow("users", ("1", "ü\0"), "blocking", "m", "23505", "users_email", "email")
    journal.save_quarantine(iter([row, row]))
    journal.save_quarantine([row])
    assert journal.quarantined("users") == [row]
    assert journal.quarantined("other") == []
    journal.save_baseline("users", b"\0\1")
    journal.save_baseline("users", b"\2")
    assert (journal.baseline("users"), journal.baseline("other")) == (b"\2", None)
    journal.record_change(CHANGE)
    journal.record_change(CHANGE)
    journal.set_change_state(1, "made", "note")
    assert [(c.state, c.note) for c in journal.changes()] == [("made", "note")]
    with pytest.raises(RunFailed):
        journal.set_change_state(9, "made")
    other = _journal(database, _begin(database, "y"))
    assert other.changes(run_id)[0].name == "i"
    other.changes_reverted(run_id, [1])
    other.changes_reverted(run_id, [1])
    assert journal.changes()[0].state == "reverted"
    assert told == []


def test_a_backup_exists_once_it_is_proven(database: Database) -> None:
    run_id, stranger, told = _begin(database), _begin(database, "z"), list[str]()
    journal = _journal(database, run_id, told=told)
    with pytest.raises(NotFound):
        journal.backup_keys(BACKUP)
    half = uuid4()
    journal.backup_begun(half, "backup_1", b"h" * 32)
    journal.backup_begun(BACKUP, "backup_2", b"s" * 32)
    assert journal.writing_keys(BACKUP) == b"s" * 32
    with pytest.raises(NotFound):
        journal.writing_keys(uuid4())
    with pytest.raises(NotFound):
        _journal(database, stranger).writing_keys(BACKUP)
    with pytest.raises(BackupExpired):
        journal.writing_keys(half)
    with pytest.raises(RunFailed):
        journal.backup_proven(half, manifest_sha256="a", tables=[], rows=0, size=0)
    with pytest.raises(Refused):
        _journal(database, _begin(database, "y")).backup_begun(uuid4(), "backup_2", b"")
    journal.backup_proven(
        BACKUP, manifest_sha256="abc", tables=[{"table": "users", "rows": 1, "bytes": 2}], rows=1, size=2
    )
    assert journal.backup_keys(BACKUP) == (b"s" * 32, "abc")
    with pytest.raises(NotFound):
        journal.writing_keys(BACKUP)
    assert "backup.prove backup_2" in told[0]
    assert "abc" in told[0]
    with database.begin() as connection:
        row = backups.get(connection, BACKUP)
        assert row is not None
        assert timedelta(hours=23) < row.expires_at - datetime.now(UTC) < timedelta(hours=25)
        run = runs.get(connection, run_id)
        assert run is not None
        assert run.backup_id == BACKUP
    journal.backup_failed(BACKUP)
    with pytest.raises(BackupExpired):
        journal.backup_keys(BACKUP)


WRITES: list[Callable[[DatabaseJournal], object]] = [
    lambda j: j.phase_started(Phase.MIGRATE),
    lambda j: j.phase_finished(Phase.MIGRATE, {}),
    lambda j: j.phase_failed(Phase.MIGRATE, "x"),
    lambda j: j.log("info", "x"),
    lambda j: j.totals(1, 2),
    lambda j: j.save_findings(Phase.VALIDATE, []),
    lambda j: j.save_quarantine([QuarantinedRow("t", ("k",), "c", "m")]),
    lambda j: j.backup_begun(uuid4(), "backup_1", b""),
    lambda j: j.backup_proven(BACKUP, manifest_sha256="", tables=[], rows=0, size=0),
    lambda j: j.backup_failed(BACKUP),
    lambda j: j.writing_keys(BACKUP),
    lambda j: j.save_baseline("t", b""),
    lambda j: j.record_change(CHANGE),
    lambda j: j.set_change_state(1, "made"),
    lambda j: j.changes_reverted(UUID(int=1), [1]),
]


def test_an_older_attempt_writes_nothing(database: Database) -> None:
    run_id = _begin(database)
    old = _journal(database, run_id)
    with database.begin() as connection:
        connection.execute(update(tables.run).values(attempt=2))
    for write in WRITES:
        with pytest.raises(Fenced):
            write(old)
    with database.begin() as connection:
        row = runs.get(connection, run_id)
        assert row is not None
        assert (row.phase, row.records_processed) == (None, 0)


def test_a_later_run_says_what_is_left_of_a_quarantine(database: Database) -> None:
    first = _begin(database, "x")
    rows = [QuarantinedRow("users", (str(n),), "range", "m", field="age") for n in range(1, 4)]
    _journal(database, first).save_quarantine(rows)
    with database.begin() as connection:
        connection.execute(update(tables.run).where(tables.run.c.id == first).values(state="completed_with_skips"))
        connection.execute(update(tables.quarantine).values(corrected_at=datetime.now(UTC)))
    second = _begin(database, "x", "replay")
    journal = _journal(database, second)
    new = QuarantinedRow("users", ("3",), "constraint", "n", "23514", "c")
    added = QuarantinedRow("tags", ("9",), "skipped", "why")
    for _ in range(2):  # idempotent
        journal.settle_quarantine(first, iter([rows[1], new, added]))
    assert journal.quarantined(None, first) == [new, rows[1], added]
    with database.begin() as connection:
        found = {row.key: row for row in details.quarantine(connection, first)}
        assert found['["1"]'].closed_by == second
        assert found['["2"]'].corrected_at is not None
        assert found['["3"]'].corrected_at is None  # looked at since
        assert details.open_quarantine(connection, [first]) == {first: 3}
    journal.settle_quarantine(first, [rows[0]])  # comes back; the others are cured
    assert journal.quarantined(None, first) == [rows[0]]
    with pytest.raises(Fenced):
        _journal(database, second, 2).settle_quarantine(first, [])
    assert journal.quarantined(None, first) == [rows[0]]


def test_what_a_rollback_closed_was_cured_by_nobody(database: Database) -> None:
    first = _begin(database, "x")
    row = QuarantinedRow("users", ("1",), "range", "m")
    _journal(database, first).save_quarantine([row])
    with database.begin() as connection:
        connection.execute(update(tables.run).values(state="completed_with_skips"))
    second = _begin(database, "x", "rollback")
    with database.begin() as connection:
        details.close_quarantine(connection, first, by=second)
    assert _journal(database, second).quarantined(None, first) == [row]


def test_the_rows_to_skip_are_those_of_its_target_and_plan(database: Database) -> None:
    run_id = _begin(database, "x")
    with database.begin() as connection:
        for target, table in (("x", "users"), ("y", "users"), ("x", "tags")):
            skips.put(connection, target_id=target, plan="unified", table=table, key=["1", "ü"], reason="r", by="ana")
    journal = _journal(database, run_id)
    assert [row.table for row in journal.skipped()] == ["tags", "users"]
    assert journal.skipped("users") == [SkippedRow("users", ("1", "ü"), "r", "ana")]


def test_changes_of_another_run_are_settled(database: Database) -> None:
    first, second = _begin(database, "x"), _begin(database, "y")
    _journal(database, first).record_change(CHANGE)
    _journal(database, second).settle_changes(first, {1: ("made", "by\0 run 2"), 7: ("made", "")})
    assert [(c.state, c.note) for c in _journal(database, first).changes()] == [("made", "by\ufffd run 2")]
