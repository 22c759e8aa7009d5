"""The fence: a newer attempt ends the older one, and an older one can write nothing more."""

import threading
import time
from uuid import uuid4

import psycopg
import pytest

from briefly_admin.domain.errors import Busy, Fenced
from briefly_admin.engine import fence
from briefly_admin.engine.checkpoints import claim_partition
from briefly_admin.engine.target import Target


def test_a_newer_attempt_fences_the_older_one_off(target_database: str) -> None:
    target, run_id = Target(target_database), uuid4()
    fence.take_over(target, run_id, 1).release()
    with target.session() as zombie:
        with fence.fenced(zombie, run_id, 1):
            zombie.execute("CREATE TABLE public.written (n int)")
        fence.take_over(target, run_id, 2).release()
        with pytest.raises(Fenced), fence.fenced(zombie, run_id, 1):
            zombie.execute("INSERT INTO public.written VALUES (1)")
        with pytest.raises(Fenced):
            claim_partition(zombie, run_id, 1, "t", 0)
        assert zombie.execute("SELECT count(*) FROM public.written").fetchone() == (0,)
    with pytest.raises(Fenced):
        fence.take_over(target, run_id, 1)


def test_a_takeover_ends_a_stopped_holder_in_the_middle_of_its_batch(target_database: str) -> None:
    target, run_id = Target(target_database), uuid4()
    old = fence.take_over(target, run_id, 1)
    with target.session() as stopped:
        claim_partition(stopped, run_id, 1, "t", 0)
        stopped.execute("BEGIN")
        fence.require(stopped, run_id, 1)
        stopped.execute("CREATE TABLE public.half (n int)")
        new = fence.take_over(target, run_id, 2)
        with pytest.raises(psycopg.OperationalError):
            stopped.execute("COMMIT")
    assert not old.alive()
    assert new.connection.execute("SELECT to_regclass('public.half')").fetchone() == (None,)
    new.release()


def test_a_backend_that_reuses_the_number_is_left_alone(target_database: str) -> None:
    target, run_id = Target(target_database), uuid4()
    fence.take_over(target, run_id, 1).release()
    with target.session() as innocent:
        innocent.execute(
            "UPDATE briefly_migration.fence SET backend_pid = pg_backend_pid(), backend_start = '2000-01-01'"
        )
        fence.take_over(target, run_id, 2).release()
        assert innocent.execute("SELECT 1").fetchone() == (1,)


def test_one_run_at_a_time(target_database: str) -> None:
    target, first = Target(target_database), uuid4()
    lead = fence.take_over(target, first, 1)
    with pytest.raises(Busy, match="Another run holds"):
        fence.take_over(target, uuid4(), 1, patience=0.5)
    lead.release()
    fence.take_over(target, uuid4(), 1).release()
    with target.session() as late, pytest.raises(Fenced, match="another run has begun"), fence.fenced(late, first, 1):
        pass


def test_many_may_make_the_schema_at_once(target_database: str) -> None:
    failures: list[Exception] = []

    def make() -> None:
        try:
            with Target(target_database).session() as connection:
                fence.ensure_schema(connection)
        except Exception as error:  # noqa: BLE001 - collected and shown
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_claim_ends_the_session_that_held_the_partition(target_database: str) -> None:
    target, run_id = Target(target_database), uuid4()
    lead = fence.take_over(target, run_id, 1)
    with target.session() as lost, target.session() as fresh:
        assert claim_partition(lost, run_id, 1, "t", 0).claim.claim == 1
        lost.execute("BEGIN")
        lost.execute("""UPDATE briefly_migration.checkpoint SET last_key = '{z}'""")
        state = claim_partition(fresh, run_id, 1, "t", 0)
        assert (state.claim.claim, state.last_key) == (2, None)
        with pytest.raises(psycopg.OperationalError):
            lost.execute("COMMIT")
    lead.release()


def test_a_takeover_ends_all_helpers_in_the_middle_of_their_batches(target_database: str) -> None:
    target, run_id = Target(target_database), uuid4()
    fence.take_over(target, run_id, 1).release()
    with target.session() as leader, target.session() as helper, target.session(bulk=True) as sweeper:
        for number, session in enumerate((leader, helper)):
            claim_partition(session, run_id, 1, "t", number)
        fence.register(sweeper, run_id, 1, "sweep")
        for session in (leader, helper, sweeper):
            session.execute("BEGIN")
            fence.require(session, run_id, 1)
        began = time.monotonic()
        fence.take_over(target, run_id, 2).release()
        assert time.monotonic() - began < 10
        for session in (leader, helper, sweeper):
            with pytest.raises(psycopg.OperationalError):
                session.execute("COMMIT")


def test_a_short_hold_off_makes_a_leader_wait_and_a_leader_refuses_it(target_database: str) -> None:
    target = Target(target_database)
    with target.session() as first, target.session() as second:
        with first.transaction(), second.transaction():
            assert fence.hold_off(first)
            assert fence.hold_off(second)  # many may
            with pytest.raises(Busy, match="A correction by hand is under way"):
                fence.take_over(target, uuid4(), 1, courtesy=0.3)
        began = time.monotonic()
        first.execute("BEGIN")
        assert fence.hold_off(first)
        ended = threading.Timer(0.5, lambda: first.execute("COMMIT"))
        ended.start()
        lead = fence.take_over(target, uuid4(), 1)
        assert 0.4 < time.monotonic() - began < 10
        ended.join()
        with second.transaction():
            assert not fence.hold_off(second)
        lead.release()


def test_a_quarantine_of_an_older_version_gets_its_new_column(target_database: str) -> None:
    with Target(target_database).session() as connection:
        fence.ensure_schema(connection)
        connection.execute("ALTER TABLE briefly_migration.quarantine DROP COLUMN field")
        connection.execute(
            'INSERT INTO briefly_migration.quarantine (run_id, "table", key, cause, message)'
            " VALUES (gen_random_uuid(), 't', '{1}', 'c', 'm')"
        )
        fence.ensure_schema(connection)
        assert connection.execute("SELECT field FROM briefly_migration.quarantine").fetchone() == ("",)


def test_a_leader_queues_behind_short_holders_that_take_turns(target_database: str) -> None:
    """They overlap, so that the lock is never free: a leader that only tried would never get it."""
    target, ended = Target(target_database), threading.Event()
    refused = threading.Event()

    def hold() -> None:
        with target.session() as session:
            while not ended.is_set():
                with session.transaction():
                    if not fence.hold_off(session):
                        refused.set()
                    time.sleep(0.3)

    threads = [threading.Thread(target=hold) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
            time.sleep(0.07)
        # No patience for trying: it gets in because it waits in the queue, and whoever comes later is refused.
        fence.take_over(target, uuid4(), 1, patience=0, courtesy=10).release()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert refused.is_set()


def test_a_leader_outwaits_a_long_correction_in_slices(target_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_SLICE", 0.1)
    target, pauses = Target(target_database), list[float]()
    with target.session() as correction:
        correction.execute("BEGIN")
        assert fence.hold_off(correction)
        ended = threading.Timer(1.5, lambda: correction.execute("COMMIT"))
        ended.start()
        lead = fence.take_over(target, uuid4(), 1, patience=0.2, sleep=pauses.append)
        ended.join()
        assert len(pauses) > 3
        with pytest.raises(Busy, match="Another run holds"):
            fence.take_over(target, uuid4(), 1, patience=0.2, courtesy=0)
        lead.release()
