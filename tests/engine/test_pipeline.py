"""The pipeline: phases in order, finished ones left alone, errors recorded, nothing led by two."""

import psycopg
import pytest

from briefly_admin.domain.errors import Fenced, RunFailed, Stopped
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import expand, fence, pipeline
from briefly_admin.engine.target import Target
from tests.engine.test_migrate import LOUD, USERS, add_trigger, stopping_after
from tests.engine.writing_bench import Bench, contents, fill, oracle, same

QUIET = {"validate_data": False, "create_backup": False}


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phases around the writing ones have tests of their own, on plans that have records."""
    around = {Phase.PREFLIGHT: lambda _: {"checked": True}, Phase.VERIFY: lambda _: {"verified": True}}
    monkeypatch.setattr(pipeline, "_PHASES", {**pipeline._PHASES, **around})


def unique(dsn: str) -> None:
    """Takes away the doubled chunk numbers, which the plan's unique index would refuse."""
    with psycopg.connect(dsn) as connection:
        connection.execute('UPDATE "chu%nks" SET idx = NULL')


@pytest.mark.usefixtures("phases")
def test_leads_all_phases_and_again_only_the_first(target_database: str) -> None:
    fill(target_database)
    unique(target_database)
    before = contents(target_database)
    bench = Bench(target_database)
    report = pipeline.lead(bench.context())
    assert list(report) == ["preflight", "expand", "migrate", "constrain", "verify"]
    assert same(contents(target_database), oracle(before))
    assert report["migrate"]["looked"] == 400
    assert set(bench.record.phases.values()) == {"done"}
    lines = len(bench.record.lines)
    again = pipeline.lead(bench.context())
    assert again["migrate"] == report["migrate"]
    assert {line[2] for line in bench.record.lines[lines:]} == {Phase.PREFLIGHT}


@pytest.mark.usefixtures("phases")
def test_a_failed_phase_is_recorded_and_resumed(target_database: str) -> None:
    fill(target_database, 5)
    unique(target_database)
    before = contents(target_database)
    add_trigger(target_database, LOUD)
    bench = Bench(target_database)
    with pytest.raises(RunFailed):
        pipeline.lead(bench.context(batch_size=5))
    assert bench.record.phases[Phase.MIGRATE] == "failed"
    assert bench.record.failures[0][0] is Phase.MIGRATE
    with psycopg.connect(target_database) as connection:
        connection.execute(f"DROP TRIGGER refuse ON {USERS}".encode())
    pipeline.lead(bench.context(batch_size=5))
    assert same(contents(target_database), oracle(before))
    # The lock is free again.
    fence.take_over(Target(target_database), bench.record.run_id, 99, patience=1).release()


@pytest.mark.usefixtures("phases")
def test_a_pause_leaves_the_phase_to_be_resumed(target_database: str) -> None:
    fill(target_database)
    unique(target_database)
    before = contents(target_database)
    bench, stops = Bench(target_database), 0
    while stops < 200:
        try:
            pipeline.lead(bench.context(batch_size=20, should_stop=stopping_after(20)))
        except Stopped:
            stops += 1
            assert bench.record.failures == []
            continue
        break
    assert stops > 1
    assert same(contents(target_database), oracle(before))


@pytest.mark.usefixtures("phases")
def test_rows_in_quarantine_keep_a_constraint_waiting(target_database: str) -> None:
    fill(target_database, 5)
    unique(target_database)
    add_trigger(target_database, LOUD, when='OLD.id IN (7, 8, 30) AND OLD."ti er%" IS NULL')
    bench = Bench(target_database)
    report = pipeline.lead(bench.context(on_invalid="skip"))
    states = {change["name"]: (change["state"], change["note"]) for change in report["constrain"]["changes"]}
    skipped = report["migrate"]["skipped"]
    assert skipped
    assert states["tier_not_null_check"] == ("waiting", f"waiting for {skipped} row{'s' * (skipped > 1)}")
    assert states["idx_not_null"[:12] + "_check"][0] == "made"
    assert report["constrain"]["waiting"] == 1
    with psycopg.connect(target_database) as connection:
        connection.execute(f"DROP TRIGGER refuse ON {USERS}".encode())
        connection.execute("DELETE FROM briefly_migration.quarantine")
        connection.execute(f'UPDATE {USERS} SET "ti er%" = \'pro\' WHERE "ti er%" IS NULL'.encode())
    bench.record.phases[Phase.CONSTRAIN] = "running"
    again = pipeline.lead(bench.context(on_invalid="skip"))
    assert again["constrain"]["waiting"] == 0


@pytest.mark.usefixtures("phases")
def test_a_rehearsal_takes_no_lead(target_database: str) -> None:
    before = fill(target_database)
    report = pipeline.lead(Bench(target_database).context(dry_run=True))
    assert list(report) == ["preflight", "migrate"]
    assert report["migrate"]["rehearsal"]
    assert same(contents(target_database), before)
    with psycopg.connect(target_database) as connection:
        assert connection.execute("SELECT to_regnamespace('briefly_migration')").fetchone() == (None,)


@pytest.mark.usefixtures("phases")
def test_an_older_attempt_is_refused(target_database: str) -> None:
    fill(target_database)
    bench = Bench(target_database)
    old, new = bench.context(), bench.context()
    with pytest.raises(Fenced):
        pipeline.lead(old)
    lead = fence.take_over(new.target, new.run_id, new.attempt)
    with pytest.raises(Fenced):
        expand.run(old)
    lead.release()
