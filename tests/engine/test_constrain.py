"""Expand and constrain on a real server: recorded first, recognised when there, taken back by their inverses."""

import threading
import time

import psycopg
import pytest

from briefly_admin.domain.errors import RunFailed, Stopped
from briefly_admin.engine import constrain, expand, fence, migrate
from briefly_admin.engine.changes import revert_statements
from briefly_admin.engine.context import RunContext
from tests.engine.writing_bench import Bench, contents, fill, oracle, same


def whole(context: RunContext) -> dict[str, object]:
    return {"expand": expand.run(context), "migrate": migrate.run(context), "constrain": constrain.run(context)}


def catalog(dsn: str) -> list[tuple[object, ...]]:
    """Columns, constraints and indexes of schema public."""
    with psycopg.connect(dsn) as connection:
        return connection.execute("""
            SELECT 'column', a.attrelid::regclass::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
              a.attnotnull::text, pg_get_expr(d.adbin, d.adrelid)
            FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid), convalidated::text, NULL
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
            UNION ALL SELECT 'index', tablename::text, indexname::text, indexdef, NULL, NULL FROM pg_indexes WHERE schemaname = 'public'
            ORDER BY 1, 2, 3""").fetchall()


def test_changes_are_made_and_taken_back(target_database: str) -> None:
    before = fill(target_database)
    with psycopg.connect(target_database) as connection:
        connection.execute("ALTER TABLE files DROP COLUMN heavy")
        # The unique index of the plan cannot stand on rows that share a number from before.
        connection.execute(
            'DELETE FROM "chu%nks" a USING "chu%nks" b WHERE a.file_id = b.file_id AND a.idx = b.idx AND a."n""o" < b."n""o"'
        )
        left = {row[0] for row in connection.execute('SELECT "n""o" FROM "chu%nks"')}
    before["chu%nks"] = [row for row in before["chu%nks"] if row[1] in left]
    as_it_was = catalog(target_database)
    bench = Bench(target_database)
    result = bench.lead(whole)
    assert same(contents(target_database), oracle(before))
    states = {change["name"]: change["state"] for change in result["constrain"]["changes"]}
    assert set(states.values()) == {"made"}
    assert set(states) >= {"heavy", "tier_default", "tier known %", 'chunks "unique" %', "chunks_file_idx"}
    assert result["expand"] == {"columns": ["files.heavy"], "indexes": ["chunks_file_idx"]}
    made = catalog(target_database)
    assert any(row[0] == "column" and row[2] == "ti er%" and row[4] == "true" and row[5] for row in made)
    again = Bench(target_database)
    assert again.lead(whole)["constrain"]["changes"] == []
    assert catalog(target_database) == made
    with psycopg.connect(target_database) as connection:
        for statement in revert_statements(bench.record.next_attempt().changes()):
            connection.execute(statement.encode())
    assert catalog(target_database) == as_it_was


def test_an_index_that_rows_refuse_is_dropped_at_once(target_database: str) -> None:
    fill(target_database)
    with psycopg.connect(target_database) as connection:
        connection.execute('UPDATE "chu%nks" SET idx = 1')
    bench = Bench(target_database)
    with pytest.raises(RunFailed, match='chunks "unique" %') as caught:
        bench.lead(whole)
    assert "SQLSTATE 23505" in caught.value.message
    assert not [row for row in catalog(target_database) if row[2] == 'chunks "unique" %']
    with psycopg.connect(target_database) as connection:
        connection.execute('UPDATE "chu%nks" SET idx = "n""o"')
    bench.lead(whole)
    assert [row for row in catalog(target_database) if row[2] == 'chunks "unique" %']


def test_rows_that_break_a_constraint_are_named_by_table_and_constraint(target_database: str) -> None:
    fill(target_database)
    with psycopg.connect(target_database) as connection:
        connection.execute("UPDATE files SET user_id = 4711 WHERE id = (SELECT id FROM files LIMIT 1)")
    with pytest.raises(RunFailed, match="Rows of files break files_user_fkey") as caught:
        Bench(target_database).lead(whole)
    assert "4711" not in str(caught.value)


def test_an_index_build_names_what_it_waits_for_and_ends_when_told(target_database: str) -> None:
    fill(target_database)
    bench = Bench(target_database)
    asked = threading.Event()

    def should_stop() -> str | None:
        return "interrupt" if asked.is_set() else None

    context = bench.context(should_stop=should_stop)
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            expand.run(context)
        except Stopped as error:
            ended.append(error)

    with psycopg.connect(target_database, application_name="slow report") as other:
        other.execute('LOCK TABLE "chu%nks" IN ROW EXCLUSIVE MODE')
        worker = threading.Thread(target=work)
        worker.start()
        deadline = time.monotonic() + 20
        while not any("slow report" in each.waiting for each in bench.progress) and time.monotonic() < deadline:
            time.sleep(0.05)
        asked.set()
        worker.join(15)
        assert ended
    lead.release()
    assert any("slow report (process" in each.waiting for each in bench.progress)
    assert bench.lead(expand.run)["indexes"] == ["chunks_file_idx"]


def test_traffic_never_waits_longer_than_the_lock_timeout(target_database: str) -> None:
    fill(target_database)
    bench, stalls = Bench(target_database), [0.0]
    context = bench.context()
    lead = fence.take_over(context.target, context.run_id, context.attempt)
    with psycopg.connect(target_database) as reader, psycopg.connect(target_database, autocommit=True) as writer:
        reader.execute('SELECT count(*) FROM "us ""ers"" 100%s"')
        worker = threading.Thread(target=constrain.run, args=(context,))
        worker.start()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            began = time.monotonic()
            writer.execute('UPDATE "us ""ers"" 100%s" SET "ti er%" = \'free\' WHERE id = 3')
            stalls.append(time.monotonic() - began)
            time.sleep(0.02)
        assert worker.is_alive()
        reader.commit()
        worker.join(60)
    lead.release()
    assert 0.2 < max(stalls) < 1.5
    assert any("traffic goes first" in each.waiting for each in bench.progress)


def test_rows_that_came_behind_the_cursor_are_swept(target_database: str) -> None:
    fill(target_database)
    bench = Bench(target_database)

    def late(context: RunContext) -> dict[str, object]:
        expand.run(context)
        migrate.run(context)
        with psycopg.connect(target_database) as connection:
            connection.execute('INSERT INTO "us ""ers"" 100%s" VALUES (-5, NULL, \' x \')')
            connection.execute('UPDATE "chu%nks" SET idx = NULL')
        return constrain.run(context)

    result = bench.lead(late)
    assert result["swept"] == {'us "ers" 100%s': 1, "chu%nks": 300}
    assert ("-5", "free", "x") in {tuple(map(str, row)) for row in contents(target_database)['us "ers" 100%s']}
    assert result["waiting"] == 0
