"""One plain sentence a state, with what happens next by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from briefly_admin.domain.breaker import BreakerState, BreakerView
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.services.rollback_result import RollbackResult, previewed, rollback_result
from briefly_admin.services.sentences import Facts, at_work, held_back, next_try, sentence

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
S, K = RunState, RunKind
MOVING = Progress("migrate", (TableProgress("users", 10, 10), TableProgress("chat_messages", 903_118, 412_000, 1, 0, 21_400.0)),
                  rate=21_400.0, eta_seconds=120.0)  # fmt: skip

CASES: list[tuple[dict[str, Any], str]] = [
    ({"state": S.AWAITING_APPROVAL}, "Waits until another admin approves it."),
    ({"state": S.AWAITING_APPROVAL, "asked_by": "ana@example.com", "approve_until": NOW + timedelta(hours=23)},
     "Waits until another admin approves it; asked by ana@example.com 3 min ago, until tomorrow 11:00 UTC."),
    ({"state": S.CANCELLED, "state_by": "clock", "error": "Nobody approved it in time.", "remedy": "Start it again.", "resumable": True},
     "Cancelled 3 min ago: nobody approved it in time. Start it again."),
    ({"state": S.PENDING, "workers": 1, "busy_with": 41}, "Waiting for a worker; 1 listens, busy with run 41."),
    ({"state": S.PENDING, "workers": 0}, "Waiting for a worker; none listens. It begins by itself as soon as one is started."),
    ({"state": S.PENDING, "workers": 2}, "Waiting for a worker; 2 listen. It begins by itself within seconds."),
    ({"state": S.PENDING}, "Waiting for a worker; it begins by itself as soon as one is free."),
    ({"state": S.RUNNING}, "Starting."),
    ({"state": S.RUNNING, "phase": "backup"}, "Backing up."),
    ({"state": S.RUNNING, "progress": MOVING},
     "Migrating chat_messages: 412,000 of 903,118 rows, 21,400 rows/s, about 23 s left in this table, 2 min in all."),
    ({"state": S.RUNNING, "progress": Progress("migrate", waiting="a lock is held by pid 8123; next try in 2 s.")},
     "Migrating: a lock is held by pid 8123; next try in 2 s."),
    ({"state": S.RUNNING, "progress": Progress("verify")}, "Verifying."),
    ({"state": S.RUNNING, "progress": Progress("migrate", (TableProgress("users", 10, 5),), rate=0.4)},
     "Migrating users: 5 of 10 rows."),
    ({"state": S.PAUSING}, "Pausing: the batch in hand ends first."),
    ({"state": S.CANCELLING}, "Cancelling: the batch in hand ends first; rows done stay as they are."),
    ({"state": S.PAUSED, "state_by": "ana@example.com", "processed": 412_000},
     "Paused by ana@example.com 3 min ago at 412,000 rows; nothing is locked. It goes on when somebody resumes it."),
    ({"state": S.INTERRUPTED, "state_at": NOW - timedelta(seconds=8)},
     "Interrupted by a restart 8 s ago; it goes on by itself within 60 s."),
    ({"state": S.CANCELLED, "state_by": "olga", "processed": 5, "resumable": True},
     "Cancelled by olga 3 min ago at 5 rows. Rows done are safe; resume goes on from there."),
    ({"state": S.FAILED, "phase": "migrate", "error": "connection refused.", "remedy": "Start it.", "processed": 7, "resumable": True},
     "Stopped while migrating: connection refused. Start it. Rows done are safe; resume goes on from row 7."),
    ({"state": S.FAILED, "kind": K.VALIDATION}, "Stopped: it failed."),
    ({"state": S.COMPLETED, "processed": 1_284_003, "changed": 159_511, "verified": True, "rollback_until": NOW + timedelta(hours=26)},
     "Done: 1,284,003 rows looked at, 159,511 changed; verified; can be rolled back until tomorrow 14:00 UTC."),
    ({"state": S.COMPLETED_WITH_SKIPS, "processed": 9, "changed": 1, "quarantined": 3, "rollback_until": NOW, "pinned": True},
     "Done: 9 rows looked at, 1 changed, 3 in quarantine; can be rolled back."),
    ({"state": S.COMPLETED, "processed": 9, "changed": 1, "rehearsal": True},
     "Rehearsed: 9 rows looked at, 1 would change; nothing was committed."),
    ({"state": S.COMPLETED, "processed": 0, "changed": 0}, "Done: 0 rows looked at, 0 changed."),
    ({"state": S.COMPLETED, "kind": K.BACKUP, "processed": 4, "rollback_until": NOW + timedelta(days=9)},
     "Done: 4 rows sealed and proven; can be rolled back until 10 March 2026 12:00 UTC."),
    ({"state": S.COMPLETED, "kind": K.REPLAY, "of": 41, "replayed": 3, "left": 2},
     "Replayed 3 rows of run 41; 2 are left in quarantine."),
    ({"state": S.COMPLETED, "kind": K.REPLAY, "of": 41, "replayed": 1, "left": 0},
     "Replayed 1 row of run 41; nothing is left in quarantine."),
    ({"state": S.RUNNING, "kind": K.REPLAY, "progress": Progress("migrate", (TableProgress("users", 10, 5),))},
     "Replaying users: 5 of 10 rows."),
    ({"state": S.FAILED, "kind": K.REPLAY, "phase": "verify", "error": "no", "resumable": True},
     "Stopped while verifying: no. Rows replayed are safe; resume goes on with the others."),
    ({"state": S.COMPLETED, "kind": K.ROLLBACK}, "Done: the data is as it was at the backup; verified."),
    ({"state": S.COMPLETED, "kind": K.ROLLBACK, "rollback_until": NOW + timedelta(hours=1), "result": RollbackResult(
        mode="keep", put_back=22_307, recomputed=4, edited_kept=3, created_kept=1_000, deleted_left=0)},
     ("Rolled back by keep: 22,307 rows put back, 4 computed anew, 3 edited since kept, 1,000 created since kept; "
     "what the migration did is undone; verified; can be rolled back until today 13:00 UTC.")),
    ({"state": S.COMPLETED, "kind": K.ROLLBACK, "result": RollbackResult(
        mode="exact", tables=("users", "oauth_tokens"), put_back=1, brought_back=2, removed=3,
        outside=4)},
     ("Rolled back of users, oauth_tokens by exact: 1 row put back, 2 brought back, 3 removed, 4 of other tables gone or changed; "
     "the data is as it was at the backup; verified.")),
    ({"state": S.RUNNING, "kind": K.ROLLBACK, "mode": "keep", "progress": Progress("restore", (TableProgress("users", 10, 5),))},
     "Undoing what the migration changed, users: 5 of 10 rows."),
    ({"state": S.RUNNING, "kind": K.ROLLBACK, "mode": "keep", "phase": "preview"},
     "Comparing with the backup and with what the migration left."),
    ({"state": S.RUNNING, "kind": K.ROLLBACK, "mode": "exact", "phase": "restore"}, "Restoring."),
    ({"state": S.RUNNING, "kind": K.ROLLBACK, "mode": "keep", "phase": "backup"}, "Backing up what is there now."),
    ({"state": S.FAILED, "kind": K.ROLLBACK, "phase": "preview", "error": "users: 3 rows moved", "remedy": "Look at a new preview."},
     "Stopped while comparing with the backup: users: 3 rows moved. Look at a new preview. Nothing was rolled back."),
    ({"state": S.FAILED, "kind": K.ROLLBACK, "phase": "restore", "error": "A lock", "resumable": True}, "Stopped while restoring: A lock."),
    ({"state": S.COMPLETED, "kind": K.PREVIEW}, "Done: the preview says what a rollback would do now."),
    ({"state": S.COMPLETED, "kind": K.PREVIEW, "found": {"exact": 22_310, "keep": 22_307, "edited": 3}},
     "Done: exact would write 22,310 rows, keep 22,307; 3 edited since."),
    ({"state": S.COMPLETED, "kind": K.PREVIEW, "found": {"exact": 1, "edited": 0}},
     "Done: exact would write 1 row; 0 edited since."),
    ({"state": S.COMPLETED, "kind": K.PREVIEW, "found": {"exact": 0}}, "Done: exact would write 0 rows."),
    ({"state": S.COMPLETED, "kind": K.VALIDATION, "processed": 4},
     "Done: 4 rows looked at; the findings say what is wrong and what the repairs will cure."),
    ({"state": S.RUNNING, "kind": K.VERIFICATION, "level": "L1", "progress": Progress("verify", (TableProgress("users", 10, 5),))},
     "Verifying users: 5 of 10 rows."),
    ({"state": S.RUNNING, "kind": K.VERIFICATION, "level": "L0", "progress": Progress("verify", (TableProgress("x", 12, 5),))},
     "Comparing the objects in the store: 5 of 12."),
    ({"state": S.RUNNING, "kind": K.DRILL, "phase": "stage"}, "Restoring."),
    ({"state": S.RUNNING, "kind": K.DRILL, "progress": Progress("verify", (TableProgress("users", 10, 5),))},
     "Comparing users: 5 of 10 rows."),
    ({"state": S.CANCELLING, "kind": K.DRILL}, "Cancelling: the batch in hand ends first; no table is changed by it."),
    ({"state": S.CANCELLED, "kind": K.BACKUP, "resumable": True},
     "Cancelled 3 min ago at 0 rows. No backup was kept of it; resume takes a new one."),
    ({"state": S.CANCELLED, "kind": K.VERIFICATION}, "Cancelled 3 min ago at 0 rows."),
    ({"state": S.CANCELLED, "kind": K.VERIFICATION, "resumable": True},
     "Cancelled 3 min ago at 0 rows. Nothing was found out about the backup; resume goes on."),
    ({"state": S.CANCELLED, "kind": K.DRILL, "resumable": True},
     "Cancelled 3 min ago at 0 rows. The backup and the tables stay as they were; resume goes on."),
    ({"state": S.FAILED, "kind": K.DRILL, "phase": "stage", "error": "no room is left.", "error_code": "unavailable", "remedy": "Make some."},
     "Stopped while restoring: no room is left. Make some."),
    ({"state": S.FAILED, "kind": K.VERIFICATION, "phase": "verify", "error": "The backup is damaged in one place: users, stream 1.",
      "error_code": "backup_damaged", "remedy": "Take a new one."},
     "The backup is damaged in one place: users, stream 1. Take a new one."),
    ({"state": S.FAILED, "kind": K.ROLLBACK, "phase": "stage", "error": "The backup is damaged.", "error_code": "backup_damaged"},
     "Stopped while reading the backup: The backup is damaged. Nothing was rolled back."),
    ({"state": S.COMPLETED, "kind": K.VERIFICATION, "level": "L0", "backup": "backup_1"},
     "Done: nothing of backup_1 is missing: every object is there, of its size and sum. None was opened."),
    ({"state": S.COMPLETED, "kind": K.VERIFICATION, "level": "L1", "backup": "backup_1", "processed": 1_390},
     "Done: backup_1 is whole: every byte was opened, 1,390 rows counted and hashed."),
    ({"state": S.COMPLETED, "kind": K.DRILL, "backup": "backup_1", "processed": 1},
     "Done: backup_1 can be restored: it was, into a scratch schema, and 1 row compared equal; the scratch schema is gone again."),
    ({"state": S.ROLLED_BACK, "state_by": "run 7"}, "Rolled back 3 min ago by run 7; what this run did is undone."),
    ({"state": S.ROLLED_BACK, "state_at": NOW - timedelta(days=3)}, "Rolled back 3 days ago; what this run did is undone."),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "expected"), CASES)
def test_the_sentence(facts: dict[str, Any], expected: str) -> None:
    defaults: dict[str, Any] = {"kind": K.MIGRATION, "now": NOW, "state_at": NOW - timedelta(minutes=3)}
    assert sentence(Facts(**defaults | facts)) == expected


def test_every_state_has_one() -> None:
    for state in RunState:
        for kind in RunKind:
            assert sentence(Facts(kind=kind, state=state, now=NOW, state_at=NOW)).endswith(".")


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("", ""), ("soon", ""), ("2026-03-01T12:00:12Z", "next try in 12 s"), ("2026-03-01T12:00:12", "next try in 12 s"),
        ("2026-03-01T13:02:00+01:00", "next try in 2 min"), ("2026-03-01T12:00:00.2Z", "next try now"),
        ("2026-03-01T11:00:00Z", "next try now"),
    ],
)  # fmt: skip
def test_when_it_tries_next(until: str, expected: str) -> None:
    assert next_try(Progress("migrate", waiting="It waits.", waiting_until=until), NOW) == expected


@pytest.mark.parametrize(
    ("workers", "batch_size", "wanted", "expected"),
    [
        (2, 640, 4, "2 of 4 workers · 640 rows a batch"), (4, 1, 4, "4 workers · 1 row a batch"),
        (3, 0, 2, "3 workers"), (1, 10_000, 1, "10,000 rows a batch"), (1, 0, 4, "1 of 4 workers"),
        (0, 640, 4, "640 rows a batch"), (0, 0, 4, ""), (1, 0, 1, ""),
    ],
)  # fmt: skip
def test_who_is_at_work(workers: int, batch_size: int, wanted: int, expected: str) -> None:
    assert at_work(Progress("migrate", batch_size=batch_size, workers=workers), wanted) == expected


def test_the_circuit_breaker_says_why_and_when() -> None:
    assert held_back(BreakerView(), "") == ""
    opened = BreakerView(BreakerState.OPEN, 3, "connection refused", NOW + timedelta(minutes=3, seconds=20))
    told = held_back(opened, "A lock is held.")
    assert told.startswith("The circuit breaker is open after 3 failures")
    assert "connection refused" in told
    assert "One batch probes at 12:03:20 UTC." in told
    assert held_back(opened, told) == "", "it is told once"
    probing = BreakerView(BreakerState.HALF_OPEN, 3, "connection refused", None, 0.0, "host:1")
    assert "One batch probes now (host:1)." in held_back(probing, "")


COUNTS = {"users": {"update": 5, "insert": 1, "delete": 0, "same": 9}, "oauth_tokens": {"update": 2}}
CLASSES = {
    "users": {"edited": 4, "created": 2, "deleted": 1},
    "oauth_tokens": {"edited": 1, "created": 0, "deleted": 0},
}


@pytest.mark.parametrize(
    ("options", "report", "expected"),
    [
        ({}, {}, None), ({}, {"restore": None}, None), ({}, {"restore": {"digests": {}}}, None),
        ({"tables": ["users"]}, {"restore": {"tables": COUNTS}},
         RollbackResult(mode="exact", tables=("users",), put_back=7, brought_back=1)),
        ({"mode": "exact"}, {"restore": {"tables": COUNTS, "outside": {"a.b": 2, "c": 3}}, "preview": {"classes": CLASSES}},
         RollbackResult(mode="exact", put_back=7, brought_back=1, outside=5)),
        ({"mode": "keep"}, {"restore": {"tables": COUNTS, "recomputed": {"users": 3}}, "preview": {"classes": CLASSES}},
         RollbackResult(mode="keep", put_back=7, brought_back=1, recomputed=3, edited_kept=5, created_kept=2,
                        deleted_left=1)),
        ({"mode": "keep", "rules": {"edited": "keep", "created": "delete", "deleted": "bring_back"},
          "settled": {"users": [{"how": "keep"}, {"how": "restore"}, {"how": "edit"}]}},
         {"restore": {"mode": "keep", "tables": COUNTS}, "preview": {"classes": CLASSES}},
         RollbackResult(mode="keep", put_back=7, brought_back=1, edited_kept=3, created_kept=0, deleted_left=0)),
        ({"mode": "keep", "rules": {"edited": "restore"}, "settled": {"users": [{"how": "keep"}, {"how": "edit"}]}},
         {"restore": {"mode": "keep", "tables": COUNTS}, "preview": {"classes": CLASSES}},
         RollbackResult(mode="keep", put_back=7, brought_back=1, edited_kept=1, created_kept=2, deleted_left=1)),
        ({"mode": "keep"}, {"restore": {"tables": COUNTS}}, RollbackResult(mode="keep", put_back=7, brought_back=1)),
    ],
)  # fmt: skip
def test_what_a_rollback_wrote_and_left(
    options: dict[str, Any], report: dict[str, Any], expected: RollbackResult | None
) -> None:
    assert rollback_result(options, report) == expected


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({}, None), ({"preview": {}}, None), ({"preview": {"tables": COUNTS}}, {"exact": 8}),
        ({"preview": {"tables": COUNTS, "keep": None, "classes": CLASSES}}, {"exact": 8, "edited": 5}),
        ({"preview": {"tables": COUNTS, "keep": {"users": {"update": 3}}, "classes": CLASSES}},
         {"exact": 8, "keep": 3, "edited": 5}),
    ],
)  # fmt: skip
def test_what_a_preview_counted(report: dict[str, Any], expected: dict[str, int] | None) -> None:
    assert previewed(report) == expected
