"""Expand and constrain on a real server: recorded first, recognised when there, taken back by their inverses."""

import psycopg

from briefly_admin.engine import constrain, expand, migrate
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
