"""A rollback under faults: kills, locks, damage, takeovers. The tables are as before or wholly restored."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from briefly_admin.domain.errors import BackupDamaged, Fenced, Refused, Stopped, Unavailable, VerificationFailed
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import fence, pipeline, rollback
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Connection
from tests.engine.sealed_target import SealedTarget, plan_of

_KILL = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'briefly-admin'
"""


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    sealed = SealedTarget(target_database, plan_of("users", "files"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE users (id int PRIMARY KEY, email text UNIQUE)",
        "CREATE TABLE files (id int PRIMARY KEY, user_id int REFERENCES users, pad text)",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER audit AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION nothing()",
        "INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 300) i",
        "INSERT INTO files SELECT i, i, repeat('x', 100) FROM generate_series(1, 300) i",
    )
    sealed.back_up()
    sealed.changed(
        "users", "index", "ix", "CREATE INDEX CONCURRENTLY ix ON users (id, email)", "DROP INDEX CONCURRENTLY ix"
    )
    sealed.execute(
        "UPDATE users SET email = 'new' || id WHERE id > 100", "INSERT INTO users VALUES (301, 'u301')",
        "DELETE FROM files WHERE id > 250", "UPDATE files SET pad = '' WHERE id < 100", "INSERT INTO files VALUES (301, 301)",
    )  # fmt: skip
    return sealed


@pytest.fixture
def original(sealed: SealedTarget) -> dict[str, object]:
    """What `restored` must give after a whole rollback."""
    return {"users": 300, "files": 300, "new": 0, "index": 0, "trigger": "O"}


def state(sealed: SealedTarget) -> dict[str, object]:
    [row] = sealed.query(
        "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM files WHERE pad > ''),"
        " (SELECT count(*) FROM users WHERE email LIKE 'new%'), (SELECT count(*) FROM pg_class WHERE relname = 'ix'),"
        " (SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'audit')"
    )
    return dict(zip(("users", "files", "new", "index", "trigger"), row, strict=True))


def begin(sealed: SealedTarget) -> RunContext:
    return sealed.context(reverts=[str(sealed.migration.run_id)])


def stopping_at(context: RunContext, number: int, act: Callable[[], str | None]) -> RunContext:
    """`act` at the so-manieth look whether to stop: between two statements."""
    looks = iter(range(10_000))
    return replace(context, should_stop=lambda: act() if next(looks) == number else None)


def test_a_backend_killed_between_any_two_statements(sealed: SealedTarget, original: dict[str, object]) -> None:
    before = state(sealed)
    kill_connection = psycopg.connect(sealed.dsn, autocommit=True)
    killed = 0
    rollback.run_phase(begin(sealed), Phase.STAGE)
    for number in range(1, 100):

        def kill() -> None:
            kill_connection.execute(_KILL)

        context = stopping_at(begin(sealed), number, kill)
        try:
            rollback.run_phase(context, Phase.RESTORE)
        except Unavailable:
            killed += 1
            assert state(sealed) == before
            continue
        break
    kill_connection.close()
    assert killed >= 8
    assert state(sealed) == original
    assert {change.state for change in sealed.migration.changes.values()} == {"reverted"}


def test_a_statement_that_does_not_end_is_cancelled_by_a_stop(
    sealed: SealedTarget, original: dict[str, object]
) -> None:
    """Restored rows are checked, one of them for a minute."""
    sealed.execute(
        "CREATE FUNCTION slow(text) RETURNS bool LANGUAGE plpgsql AS"
        " $$ BEGIN IF $1 = 'u200' THEN PERFORM pg_sleep(60); END IF; RETURN true; END $$",
        "ALTER TABLE users ADD CONSTRAINT slow CHECK (slow(email)) NOT VALID",
    )
    before, context, began = state(sealed), begin(sealed), time.monotonic()
    for phase in (Phase.STAGE, Phase.PREVIEW):
        rollback.run_phase(context, phase)
    asked = threading.Event()
    threading.Timer(1.0, asked.set).start()
    with pytest.raises(Stopped, match="interrupt"):
        rollback.run_phase(replace(context, should_stop=lambda: "interrupt" if asked.is_set() else None), Phase.RESTORE)
    assert time.monotonic() - began < 45, "it waited for the statement"
    assert state(sealed) == before
    sealed.execute("ALTER TABLE users DROP CONSTRAINT slow")
    rollback.run_phase(begin(sealed), Phase.RESTORE)
    assert state(sealed) == original


def test_the_next_attempt_goes_on_after_a_crash_in_the_preview(
    sealed: SealedTarget, original: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stages anew what the crash emptied, and takes the lead before it does."""
    context = begin(sealed)
    context.journal.phase_finished(Phase.BACKUP, {})
    context.journal.phase_finished(Phase.STAGE, rollback.run_phase(context, Phase.STAGE))
    sealed.execute(*(f"TRUNCATE {sealed.scratches()[0]}.{name}" for name in ("t0", "t1", "parts")))
    monkeypatch.setitem(pipeline._PHASES, Phase.PREFLIGHT, lambda _: {})
    # As a leader begins that has not taken over yet.
    context = replace(sealed.context(RunKind.PREVIEW, reverts=[str(sealed.migration.run_id)]), kind=RunKind.ROLLBACK)
    assert list(pipeline.lead(context)) == ["preflight", "backup", "stage", "preview", "restore", "verify"]
    assert state(sealed) == original


def test_a_backend_killed_at_random_moments(sealed: SealedTarget, original: dict[str, object]) -> None:
    before = state(sealed)
    for wait in (0.01, 0.03, 0.05, 0.08, 0.12):
        context = begin(sealed)
        rollback.run_phase(context, Phase.STAGE)

        def kill(seconds: float = wait) -> None:
            time.sleep(seconds)
            with psycopg.connect(sealed.dsn, autocommit=True) as connection:
                connection.execute(_KILL)

        thread = threading.Thread(target=kill)
        thread.start()
        with suppress(Unavailable):
            rollback.run_phase(context, Phase.RESTORE)
        thread.join()
        assert state(sealed) in (before, original)
    with suppress(Unavailable):
        rollback.run_phase(begin(sealed), Phase.RESTORE)
    assert state(sealed) == original


def test_a_lost_connection_is_retried_within_the_phase(sealed: SealedTarget, original: dict[str, object]) -> None:
    context = begin(sealed)
    rollback.run_phase(context, Phase.STAGE)
    config = replace(context.config, max_retries=1)

    def kill() -> None:
        with psycopg.connect(sealed.dsn, autocommit=True) as connection:
            connection.execute(_KILL)

    rollback.run_phase(stopping_at(replace(context, read_config=lambda: config), 6, kill), Phase.RESTORE)
    assert state(sealed) == original
    assert any("begins again" in line for _, line, _ in sealed.run.lines)


def test_a_committed_restore_is_not_done_twice(sealed: SealedTarget, original: dict[str, object]) -> None:
    first = begin(sealed)
    rollback.run_phase(first, Phase.STAGE)
    expected = rollback.run_phase(first, Phase.PREVIEW)["tables"]
    done = rollback.run_phase(first, Phase.RESTORE)
    sealed.execute("UPDATE users SET email = 'later' WHERE id = 1")
    second = sealed.context(reverts=[str(sealed.migration.run_id)], expected=expected)
    assert rollback.run_phase(second, Phase.RESTORE) == done
    assert rollback.run_phase(second, Phase.VERIFY) == {"verified": True, "digests": done["digests"]}
    assert sealed.query("SELECT email FROM users WHERE id = 1") == [("later",)]
    assert sealed.scratches() == []


def test_verify_again_after_its_scratch_is_gone(sealed: SealedTarget) -> None:
    context = begin(sealed)
    rollback.run_phase(context, Phase.STAGE)
    context.journal.phase_finished(Phase.RESTORE, rollback.run_phase(context, Phase.RESTORE))
    first = rollback.run_phase(context, Phase.VERIFY)
    assert rollback.run_phase(begin(sealed), Phase.VERIFY) == first


def test_emptied_staged_tables_are_staged_again(sealed: SealedTarget, original: dict[str, object]) -> None:
    context = begin(sealed)
    rollback.run_phase(context, Phase.STAGE)
    sealed.execute(f"TRUNCATE {sealed.scratches()[0]}.t0")
    rollback.run_phase(begin(sealed), Phase.RESTORE)
    assert state(sealed) == original
    assert any("staged again" in line for _, line, _ in sealed.run.lines)


def test_a_damaged_chunk_restores_nothing(sealed: SealedTarget) -> None:
    before = state(sealed)
    sealed.damage(3)
    for phase in (Phase.STAGE, Phase.PREVIEW, Phase.RESTORE):
        with pytest.raises(BackupDamaged):
            rollback.run_phase(begin(sealed), phase)
    assert (state(sealed), sealed.scratches()) == (before, [])


def test_an_older_attempt_restores_nothing(sealed: SealedTarget, original: dict[str, object]) -> None:
    old = begin(sealed)
    rollback.run_phase(old, Phase.STAGE)
    before = state(sealed)
    new = begin(sealed)
    with pytest.raises(Fenced):
        rollback.run_phase(old, Phase.RESTORE)
    assert state(sealed) == before
    rollback.run_phase(new, Phase.RESTORE)
    assert state(sealed) == original


def test_an_attempt_that_is_overtaken_before_its_locks_restores_nothing(
    sealed: SealedTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, before = begin(sealed), state(sealed)
    rollback.run_phase(context, Phase.STAGE)
    register = fence.register

    def overtaken(connection: Connection, run_id: UUID, attempt: int, name: str) -> None:
        register(connection, run_id, attempt, name)
        if name == "rollback":
            sealed.execute("UPDATE briefly_migration.fence SET attempt = attempt + 1")

    monkeypatch.setattr(fence, "register", overtaken)
    with pytest.raises(Fenced, match="it writes nothing more"):
        rollback.run_phase(context, Phase.RESTORE)
    assert state(sealed) == before


def test_waits_for_locks_and_says_so(sealed: SealedTarget, original: dict[str, object]) -> None:
    blocker = psycopg.connect(sealed.dsn)
    blocker.execute("SELECT count(*) FROM users")
    blocker.execute("SELECT 1 FROM files FOR UPDATE")
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            blocker.close()

    context = replace(begin(sealed), sleep=sleep)
    rollback.run_phase(context, Phase.STAGE)
    rollback.run_phase(context, Phase.RESTORE)
    assert state(sealed) == original
    assert len(naps) == 2
    assert len(set(naps)) == 2
    assert sum("Waiting for a lock on the tables" in line for _, line, _ in sealed.run.lines) == 2
    assert any(progress.waiting for progress in sealed.progress)


def test_readers_go_on_while_rows_are_restored(sealed: SealedTarget, original: dict[str, object]) -> None:
    reader = psycopg.connect(sealed.dsn)
    reader.execute("SELECT count(*) FROM users")
    context = sealed.context()
    rollback.run_phase(context, Phase.STAGE)
    rollback.run_phase(context, Phase.RESTORE)
    reader.close()
    assert state(sealed) == original | {"index": 1}


@pytest.mark.parametrize("reason", ["pause", "cancel"])
def test_a_stop_undoes_the_transaction(sealed: SealedTarget, original: dict[str, object], reason: str) -> None:
    before = state(sealed)
    context = begin(sealed)
    rollback.run_phase(context, Phase.STAGE)
    with pytest.raises(Stopped):
        rollback.run_phase(stopping_at(context, 6, lambda: reason), Phase.RESTORE)
    assert state(sealed) == before
    assert bool(sealed.scratches()) == (reason == "pause")
    rollback.run_phase(begin(sealed), Phase.RESTORE)
    assert state(sealed) == original


def test_rows_that_come_between_preview_and_restore_refuse(sealed: SealedTarget) -> None:
    sealed.execute("CREATE TABLE watchers (user_id int REFERENCES users ON DELETE CASCADE)")
    context = begin(sealed)
    rollback.run_phase(context, Phase.STAGE)
    rollback.run_phase(context, Phase.PREVIEW)
    sealed.execute("INSERT INTO watchers VALUES (301)")
    before = state(sealed)
    with pytest.raises(Refused, match="1 row of public"):
        rollback.run_phase(context, Phase.RESTORE)
    assert state(sealed) == before
    assert sealed.query("SELECT count(*) FROM watchers") == [(1,)]


def test_what_does_not_come_out_the_same_is_undone(sealed: SealedTarget) -> None:
    """A generated column whose expression changed since: no write can give its old values back."""
    sealed.plan = plan_of("sums")
    sealed.execute(
        "CREATE TABLE sums (id int PRIMARY KEY, n int, m int GENERATED ALWAYS AS (n + 1) STORED)",
        "INSERT INTO sums VALUES (1, 1)",
    )
    other = SealedTarget(sealed.dsn, sealed.plan, sealed.root)
    other.back_up()
    other.execute("ALTER TABLE sums DROP m, ADD m int GENERATED ALWAYS AS (n + 2) STORED", "UPDATE sums SET n = 5")
    before = other.dump()
    with pytest.raises(VerificationFailed, match="sums is not, byte for byte"):
        other.roll_back()
    assert (other.dump(), other.scratches()) == (before, [])
