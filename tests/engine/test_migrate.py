"""The migrate phase on a real server: exactly once, whatever the batch size and whoever is killed on the way."""

import contextlib
import random
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import Fenced, RunFailed, Stopped
from briefly_admin.engine import fence, migrate
from tests.engine.writing_bench import Bench, Rows, contents, fill, oracle, same

USERS = '"us ""ers"" 100%s"'


def changed_rows(before: Rows) -> int:
    after = oracle(before)
    return sum(a != b for table in before for a, b in zip(before[table], after[table], strict=True))


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_result_equals_the_oracle_whatever_the_batch_size(target_database: str, batch_size: int) -> None:
    before = fill(target_database)
    bench = Bench(target_database)
    result = bench.lead(migrate.run, batch_size=batch_size)
    assert same(contents(target_database), oracle(before))
    assert result["looked"] == 400
    assert result["changed"] == changed_rows(before)
    assert result["skipped"] == 0
    assert bench.record.processed == bench.record.total == 400
    assert bench.progress[-1].done == 400


@pytest.mark.parametrize("seed", range(3))
def test_killed_backends_cost_nothing(
    target_database: str, superuser_database: Callable[[str], str], seed: int
) -> None:
    before = fill(target_database, seed, chunks=400)
    bench, stop, chance, kills = Bench(target_database, seed=seed), threading.Event(), random.Random(seed), [0]

    def kill() -> None:
        with psycopg.connect(superuser_database(target_database), autocommit=True) as connection:
            while not stop.wait(chance.uniform(0.005, 0.04)):
                kills[0] += connection.execute(
                    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity a WHERE EXISTS (SELECT FROM "
                    "briefly_migration.checkpoint c WHERE c.backend_pid = a.pid AND c.backend_start = a.backend_start)"
                ).fetchone()[0]  # type: ignore[index]  # an aggregate always gives a row

    context = bench.context(batch_size=3, max_retries=10, retry_delay=1)
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        result = migrate.run(context)
    finally:
        stop.set()
        killer.join()
        lead.release()
    assert kills[0] > 3
    assert same(contents(target_database), oracle(before))
    assert (result["looked"], result["changed"]) == (500, changed_rows(before))


def stopping_after(batches: int) -> Callable[[], str | None]:
    """Asks to pause at the look number `batches` + 1."""
    looks = [0]

    def should_stop() -> str | None:
        looks[0] += 1
        return "pause" if looks[0] > batches else None

    return should_stop


def test_stops_between_batches_and_goes_on_from_the_checkpoint(target_database: str) -> None:
    before = fill(target_database)
    bench = Bench(target_database)
    stops = 0
    while True:
        try:
            result = bench.lead(migrate.run, batch_size=9, should_stop=stopping_after(8))
        except Stopped:
            stops += 1
            continue
        break
    assert stops > 3
    assert (result["looked"], result["changed"]) == (400, changed_rows(before))
    assert same(contents(target_database), oracle(before))


def test_a_zombie_of_an_older_attempt_writes_nothing(target_database: str) -> None:
    fill(target_database)
    bench = Bench(target_database)
    old = bench.context(batch_size=10)
    fence.take_over(old.target, old.run_id, old.attempt).release()
    with contextlib.ExitStack() as stack:
        new = bench.context()
        lead = fence.take_over(new.target, new.run_id, new.attempt)
        stack.callback(lead.release)
        before = contents(target_database)
        with pytest.raises(Fenced):
            migrate.run(old)
        assert same(contents(target_database), before)


def test_config_is_read_again_at_every_batch(target_database: str) -> None:
    fill(target_database)
    sizes = iter([RunConfig(batch_size=5, validate_data=False, pause=1)] * 12)
    waits: list[float] = []

    def read() -> RunConfig:
        return next(sizes, RunConfig(batch_size=1000, validate_data=False, pause=2))

    Bench(target_database).lead(migrate.run, read_config=read, sleep=waits.append)
    assert waits
    assert {0.001, 0.002} >= set(waits)


TRIGGER = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse();
"""
LOUD = "RAISE EXCEPTION 'no % for you', NEW.secret;"
SILENT = "RETURN NULL;"


def add_trigger(dsn: str, body: str, table: str = USERS, when: str = "OLD.id IN (7, 8, 30)") -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(TRIGGER.format(body=body, table=table, when=when).encode())


def spoiled(before: Rows) -> set[int]:
    after = oracle(before)['us "ers" 100%s']
    return {b[0] for b, a in zip(before['us "ers" 100%s'], after, strict=True) if a != b} & {7, 8, 30}


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize(("body", "cause"), [(LOUD, "trigger"), (SILENT, "refused")])
def test_rows_that_cannot_be_changed_are_skipped(target_database: str, batch_size: int, body: str, cause: str) -> None:
    before = fill(target_database, 5)
    add_trigger(target_database, body)
    bad = spoiled(before)
    assert bad
    bench = Bench(target_database)
    result = bench.lead(migrate.run, batch_size=batch_size, on_invalid="skip")
    expected = oracle(before)
    expected['us "ers" 100%s'] = [
        old if old[0] in bad else new
        for old, new in zip(before['us "ers" 100%s'], expected['us "ers" 100%s'], strict=True)
    ]
    assert same(contents(target_database), expected)
    assert result["skipped"] == len(bad)
    assert result["changed"] == changed_rows(before) - len(bad)
    rows = bench.record.quarantine.values()
    assert {(row.table, int(row.key[0]), row.cause) for row in rows} == {('us "ers" 100%s', n, cause) for n in bad}
    assert not any("for you" in row.message for row in rows)
    assert bench.progress[-1].tables[0].skipped == len(bad)


@pytest.mark.parametrize("body", [LOUD, SILENT])
def test_stop_names_table_key_and_no_data(target_database: str, body: str) -> None:
    before = fill(target_database, 5)
    add_trigger(target_database, body)
    bench = Bench(target_database)
    with pytest.raises(RunFailed, match='of us "ers" 100%s cannot be changed') as caught:
        bench.lead(migrate.run, batch_size=60)
    assert f"[{min(spoiled(before))}]" in str(caught.value)
    assert "for you" not in str(caught.value)
    assert caught.value.remedy
    assert not same(contents(target_database), oracle(before))
    with psycopg.connect(target_database) as connection:
        connection.execute(f"DROP TRIGGER refuse ON {USERS}".encode())
    bench.lead(migrate.run, batch_size=60)
    assert same(contents(target_database), oracle(before))


def test_more_than_max_skipped_fails_with_the_counts(target_database: str) -> None:
    before = fill(target_database, 5)
    add_trigger(target_database, LOUD)
    assert len(spoiled(before)) > 1
    with pytest.raises(RunFailed, match="maxSkipped allows \\(1\\)") as caught:
        Bench(target_database).lead(migrate.run, on_invalid="skip", max_skipped=1)
    assert str(len(spoiled(before))) in caught.value.message
    assert "maxSkipped" in caught.value.remedy


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_a_failing_row_of_a_group_keeps_its_number_from_the_others(target_database: str, batch_size: int) -> None:
    before = fill(target_database, 2)
    missing = sorted(row[1] for row in before["chu%nks"] if row[3] is None)[:40:4]
    listed = ", ".join(map(str, missing))
    add_trigger(target_database, LOUD.replace("NEW.secret", "NEW.body"), '"chu%nks"', f'OLD."n""o" IN ({listed})')
    bench = Bench(target_database)
    result = bench.lead(migrate.run, batch_size=batch_size, on_invalid="skip")
    expected = oracle(before)
    expected["chu%nks"] = [
        old if old[1] in missing else new for old, new in zip(before["chu%nks"], expected["chu%nks"], strict=True)
    ]
    assert same(contents(target_database), expected)
    assert result["skipped"] == len(missing)


def test_constraints_and_lengths_are_row_failures(target_database: str) -> None:
    before = fill(target_database, 4)
    with psycopg.connect(target_database) as connection:
        connection.execute(
            f'ALTER TABLE {USERS} ADD CONSTRAINT "no free" CHECK ("ti er%" <> \'free\' OR id > 20) NOT VALID'.encode()
        )
        # Deferred: such a row fails only at COMMIT.
        connection.execute("ALTER TABLE files ADD CONSTRAINT counted UNIQUE (id, chunks) DEFERRABLE INITIALLY DEFERRED")
        connection.execute("""
            CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              RAISE check_violation USING MESSAGE = 'late'; END $$;
            CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON files DEFERRABLE INITIALLY DEFERRED
              FOR EACH ROW WHEN (NEW.user_id % 5 = 0) EXECUTE FUNCTION late();""")
    bench = Bench(target_database)
    result = bench.lead(migrate.run, batch_size=50, on_invalid="skip")
    by_table: dict[str, list[Any]] = {}
    for row in bench.record.quarantine.values():
        by_table.setdefault(row.table, []).append(row)
    after = oracle(before)
    free = {
        b[0]
        for b, a in zip(before['us "ers" 100%s'], after['us "ers" 100%s'], strict=True)
        if a != b and a[1] == "free" and a[0] <= 20
    }
    assert {int(row.key[0]) for row in by_table['us "ers" 100%s']} == free
    assert {row.constraint for row in by_table['us "ers" 100%s']} == {"no free"}
    late = {str(b[0]) for b, a in zip(before["files"], after["files"], strict=True) if a != b and b[1] % 5 == 0}
    assert {row.key[0] for row in by_table["files"]} == late
    assert result["skipped"] == len(free) + len(late)


def test_a_row_that_others_change_meanwhile_keeps_their_change(target_database: str) -> None:
    before = fill(target_database)
    missing = next(row[0] for row in before['us "ers" 100%s'] if row[1] is None)
    bench = Bench(target_database)
    context = bench.context(batch_size=100, max_retries=10, retry_delay=300)
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    with psycopg.connect(target_database) as other:
        other.execute(f"UPDATE {USERS} SET \"ti er%\" = 'pro' WHERE id = {missing}".encode())
        worker = threading.Thread(target=migrate.run, args=(context,))
        worker.start()
        worker.join(1.5)
        assert worker.is_alive()
        other.commit()
        worker.join(60)
    lead.release()
    tiers = {row[0]: row[1] for row in contents(target_database)['us "ers" 100%s']}
    assert tiers[missing] == "pro"
    assert all(tiers.values())
    assert any("try 1 of" in each.waiting for each in bench.progress)
