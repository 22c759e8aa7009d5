"""Batches that follow the heap: large tables whose keys lie scattered over it, whatever happens to their rows meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from marshmallow import Schema

from briefly_admin.domain.errors import RunFailed, Stopped
from briefly_admin.engine import fence, migrate
from briefly_admin.engine.batching import Work
from briefly_admin.engine.cutting import Cut
from briefly_admin.engine.sweep import sweep
from briefly_admin.plans.base import Column, Plan, Repair, Table
from tests.engine.test_migrate_shared import shared_run
from tests.engine.writing_bench import Bench

ROWS = 4000
CUT = Cut(smallest=500, largest=1000, by_place_from=1)
LOGS = Table(
    "lo gs%", Schema, (Column("id", "uuid"), Column("no te", "text", required=False), Column("n", "integer")),
    repairs=(Repair("no te", "coalesce({no te}, 'none')", "a missing note becomes 'none'"), Repair("n", "abs({n})", "no sign")),
)  # fmt: skip
PLAN = Plan("logs", "Logs", "One table.", (LOGS,))


@pytest.fixture
def logs(target_database: str) -> str:
    with psycopg.connect(target_database) as connection:
        connection.execute('CREATE TABLE "lo gs%" (id uuid PRIMARY KEY, "no te" varchar(9), n int, body text)')
        connection.execute(
            "INSERT INTO \"lo gs%%\" SELECT md5(n::text)::uuid, NULL, -n, repeat('x', 90) FROM generate_series(1, %s) AS n",
            (ROWS,),
        )
        connection.execute('ANALYZE "lo gs%"')
    return target_database


def left(dsn: str) -> tuple[Any, ...]:
    """Rows, right ones, and the sum of what identifies them."""
    with psycopg.connect(dsn) as connection:
        query = 'SELECT count(*), count(*) FILTER (WHERE "no te" = \'none\' AND n > 0), sum(n) FROM "lo gs%"'
        return connection.execute(query).fetchone() or ()


ALL = (ROWS, ROWS, ROWS * (ROWS + 1) // 2)


def by_place(context: Any) -> dict[str, Any]:
    return migrate.run(context, CUT)


def quiet(text: str, until: str = "") -> None:
    """Nobody listens."""


def swept(bench: Bench) -> int:
    """The sweep that comes before the constraints, as another attempt."""
    with leading(bench) as context, context.target.session() as reader:
        return sweep(context, Work(PLAN, LOGS, migrate.read_catalog(reader, context)), quiet)


@contextmanager
def leading(bench: Bench) -> Iterator[Any]:
    context = bench.context()
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    try:
        yield context
    finally:
        lead.release()


def stopping_after(batches: int) -> Any:
    looks = [0]

    def should_stop() -> str | None:
        looks[0] += 1
        return "pause" if looks[0] > batches else None

    return should_stop


@pytest.mark.parametrize("batch_size", [7, 100, "auto"])
def test_every_row_is_changed_once(logs: str, batch_size: Any) -> None:
    bench = Bench(logs, PLAN)
    result = bench.lead(by_place, batch_size=batch_size)
    assert left(logs) == ALL
    assert result["changed"] == ROWS
    assert result["looked"] == ROWS
    views = bench.context().journal.partitions.survey(migrate.STEP.name)
    assert len(views) == 8
    assert all(view.partition.range["since"] for view in views)


def test_kills_of_several_workers_cost_nothing(logs: str, superuser_database: Callable[[str], str]) -> None:
    result = shared_run(Bench(logs, PLAN), 3, batch_size=20, cut=CUT, killer_dsn=superuser_database(logs))
    assert left(logs) == ALL
    assert (result["looked"], result["changed"]) == (ROWS, ROWS)


def test_what_others_write_meanwhile_stays_and_is_repaired(logs: str) -> None:
    bench, over, written = Bench(logs, PLAN), threading.Event(), [0]

    def write() -> None:
        with psycopg.connect(logs, autocommit=True) as connection:
            while not over.is_set():
                written[0] += 1
                connection.execute(
                    'UPDATE "lo gs%%" SET body = \'mine\', "no te" = NULL, n = -abs(n) '
                    "WHERE id = (SELECT id FROM \"lo gs%%\" WHERE body <> 'mine' ORDER BY random() LIMIT 1)",
                    (),
                )

    thread = threading.Thread(target=write)
    thread.start()
    try:
        bench.lead(by_place, batch_size=20)
    finally:
        over.set()
        thread.join()
    swept(bench)
    assert left(logs) == ALL
    with psycopg.connect(logs) as connection:
        assert connection.execute("SELECT count(*) FROM \"lo gs%\" WHERE body = 'mine'").fetchone() == (written[0],)


def test_pauses_cost_nothing(logs: str) -> None:
    bench, stops = Bench(logs, PLAN), 0
    while True:
        try:
            result = bench.lead(by_place, batch_size=50, should_stop=stopping_after(12))
        except Stopped:
            stops += 1
            continue
        break
    assert stops > 5
    assert left(logs) == ALL
    assert result["changed"] == ROWS


def test_what_a_rewritten_table_moves_behind_the_cursor_is_swept(logs: str) -> None:
    bench = Bench(logs, PLAN)
    with pytest.raises(Stopped):
        bench.lead(by_place, batch_size=50, should_stop=stopping_after(30))
    with psycopg.connect(logs, autocommit=True) as connection:
        connection.execute('CLUSTER "lo gs%" USING "lo gs%_pkey"')
    bench.lead(by_place)
    assert left(logs)[1] < ROWS
    assert swept(bench) > 0
    assert left(logs) == ALL


def test_a_row_that_cannot_be_changed_is_found(logs: str) -> None:
    with psycopg.connect(logs) as connection:
        connection.execute('ALTER TABLE "lo gs%" ADD CHECK (n <> 777) NOT VALID')
    with pytest.raises(RunFailed, match="cannot be changed"):
        Bench(logs, PLAN).lead(by_place)
    bench = Bench(logs, PLAN)
    assert bench.lead(by_place, on_invalid="skip")["skipped"] == 1
    assert left(logs)[:2] == (ROWS, ROWS - 1)


def test_a_table_in_the_order_of_its_keys_is_cut_by_key(logs: str) -> None:
    with psycopg.connect(logs, autocommit=True) as connection:
        connection.execute('CLUSTER "lo gs%" USING "lo gs%_pkey"')
        connection.execute('ANALYZE "lo gs%"')
    bench = Bench(logs, PLAN)
    assert bench.lead(by_place)["looked"] == ROWS
    assert not any("since" in view.partition.range for view in bench.context().journal.partitions.survey("migrate"))
