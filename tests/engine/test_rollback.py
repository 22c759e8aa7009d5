"""Rolling back on a real PostgreSQL: after it, every byte and the catalog are as they were at the backup."""

from pathlib import Path

import pytest

from briefly_admin.domain.errors import Refused, RunFailed
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import rollback
from tests.engine.sealed_target import SealedTarget, plan_of

ODD = 'o"dd %s {} files'


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    sealed = SealedTarget(target_database, plan_of("users", ODD, "notes"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL UNIQUE, amount numeric, boss int REFERENCES users,"
        " updated_at timestamptz DEFAULT '2020-01-01', data jsonb)",
        'CREATE TABLE "o""dd %s {} files" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,'
        ' "us""er %" int REFERENCES users ON DELETE CASCADE, size int, twice int GENERATED ALWAYS AS (size * 2) STORED,'
        " thrice int GENERATED ALWAYS AS (size * 3) VIRTUAL)",
        "CREATE TABLE notes (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users, provider text,"
        " v vector(2), UNIQUE (user_id, provider))",
        "INSERT INTO users SELECT i, 'u' || i || '@x', i * 1.10, CASE WHEN i > 1 THEN i / 2 END, '2020-01-01'::timestamptz, '{\"a\": 1.0}'"
        " FROM generate_series(1, 200) i",
        'INSERT INTO "o""dd %s {} files" ("us""er %", size) SELECT i, i FROM generate_series(1, 200) i',
        "INSERT INTO notes (user_id, provider, v) SELECT i, 'google', ARRAY[i, 1]::vector FROM generate_series(1, 200) i",
    )  # fmt: skip
    return sealed


def edit(sealed: SealedTarget) -> None:
    sealed.execute(
        "UPDATE users SET amount = 5 WHERE id BETWEEN 10 AND 19",
        "UPDATE users SET amount = 20 * 1.1 WHERE id = 20",  # 22.0 is not 22.00 … in bytes
        "INSERT INTO users VALUES (1000, 'new@x', 1, 1, now(), NULL), (1001, 'newer@x', 1, 1000, now(), NULL)",
        'INSERT INTO "o""dd %s {} files" ("us""er %", size) VALUES (1000, 3), (5, 4)',
        "DELETE FROM notes WHERE id <= 5",
        'DELETE FROM "o""dd %s {} files" WHERE id = 7',
        "UPDATE notes SET v = '[0,0]', provider = 'microsoft' WHERE id = 50",
    )


def test_restores_every_byte_and_says_what_it_did(sealed: SealedTarget) -> None:
    sealed.back_up()
    before = sealed.dump()
    edit(sealed)
    results = sealed.roll_back()
    assert results[Phase.PREVIEW]["tables"] == {
        "users": {"same": 189, "update": 11, "insert": 0, "delete": 2},
        ODD: {"same": 199, "update": 0, "insert": 1, "delete": 2},
        "notes": {"same": 194, "update": 1, "insert": 5, "delete": 0},
    }
    assert results[Phase.PREVIEW]["outside"] == results[Phase.PREVIEW]["schema_changes"] == []
    assert results[Phase.RESTORE]["tables"] == results[Phase.PREVIEW]["tables"]
    staged = {name: table["digest"] for name, table in results[Phase.STAGE]["tables"].items()}
    assert results[Phase.VERIFY] == {"verified": True, "digests": staged}
    assert (sealed.dump(), sealed.scratches()) == (before, [])


def test_nothing_changed_means_nothing_written(sealed: SealedTarget) -> None:
    sealed.back_up()
    versions = "SELECT xmin::text, ctid::text FROM users"
    before = sealed.query(versions)
    assert all(
        c["update"] == c["insert"] == c["delete"] == 0 for c in sealed.roll_back()[Phase.RESTORE]["tables"].values()
    )
    assert sealed.query(versions) == before


def test_a_preview_changes_nothing_and_leaves_what_it_staged(sealed: SealedTarget) -> None:
    sealed.back_up()
    edit(sealed)
    before = sealed.dump()
    result = sealed.preview()
    assert result["tables"]["users"] == {"same": 189, "update": 11, "insert": 0, "delete": 2}
    assert sealed.dump() == before
    [schema] = sealed.scratches()
    assert sealed.query(
        f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r' ORDER BY 1"
    ) == [("marks",), ("parts",), ("t0",), ("t1",), ("t2",)]


def test_schema_changes_go_in_reverse_order(sealed: SealedTarget) -> None:
    sealed.execute("ALTER TABLE users DROP CONSTRAINT users_email_key", "UPDATE users SET email = 'same' WHERE id < 3")
    sealed.back_up()
    before = sealed.dump()
    sealed.changed(
        "users", "column", "tier %", 'ALTER TABLE users ADD "tier %" text', 'ALTER TABLE users DROP COLUMN "tier %"'
    )
    sealed.execute("UPDATE users SET \"tier %\" = 'free', email = 'u' || id || '@x'")
    sealed.changed(
        "users",
        "not_null",
        "tier %",
        'ALTER TABLE users ALTER "tier %" SET NOT NULL',
        'ALTER TABLE users ALTER "tier %" DROP NOT NULL',
    )
    sealed.changed(
        "users", "unique_index", "users_mail", "CREATE UNIQUE INDEX CONCURRENTLY users_mail ON users (email)",
        "DROP INDEX CONCURRENTLY public.users_mail",
    )  # fmt: skip
    sealed.changed(
        "public.notes", "check", "right", "ALTER TABLE notes ADD CONSTRAINT \"right\" CHECK (provider LIKE 'g%')",
        'ALTER TABLE notes DROP CONSTRAINT "right"',
    )  # fmt: skip
    sealed.changed(
        "notes",
        "default",
        "provider",
        "ALTER TABLE notes ALTER provider SET DEFAULT 'google'",
        "ALTER TABLE notes ALTER provider DROP DEFAULT",
    )
    sealed.changed("users", "index", "never_made", "", "DROP INDEX public.never_made", state="planned")
    results = sealed.roll_back(reverts=[str(sealed.migration.run_id)])
    assert results[Phase.PREVIEW]["schema_changes"][1:3] == ["notes: default provider", "public.notes: check right"]
    assert results[Phase.PREVIEW]["tables"]["users"]["update"] == 2
    assert sealed.dump() == before
    assert {change.state for change in sealed.migration.changes.values()} == {"reverted"}
    assert [change.state for change in sealed.run.changes.values()] == ["made"] * 6

    # And that rollback can be rolled back in turn: the changes stand again.
    sealed.migration, sealed.run = sealed.run, type(sealed.run)()
    again = {change.name for change in sealed.migration.changes.values()}
    assert again == {"tier %", "users_mail", "right", "provider", "never_made"}


def test_a_rollback_is_rolled_back_with_its_schema_changes(sealed: SealedTarget) -> None:
    sealed.back_up()
    sealed.changed("users", "column", "tier", "ALTER TABLE users ADD tier text", "ALTER TABLE users DROP COLUMN tier")
    sealed.changed(
        "users", "index", "by_tier", "CREATE INDEX CONCURRENTLY by_tier ON users (tier)", "DROP INDEX by_tier"
    )
    sealed.execute("UPDATE users SET tier = 'free' WHERE id > 100")
    migrated = sealed.dump()
    later = SealedTarget(sealed.dsn, sealed.plan, sealed.root)
    later.back_up()
    sealed.roll_back(reverts=[str(sealed.migration.run_id)])
    later.migration.changes = sealed.run.changes
    results = later.roll_back(reverts=[str(later.migration.run_id)])
    assert results[Phase.PREVIEW]["tables"]["users"] == {"same": 100, "update": 100, "insert": 0, "delete": 0}
    assert later.dump() == migrated


def test_triggers_do_not_fire_and_keep_their_state(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE FUNCTION bump() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$",
        *(f'CREATE TRIGGER "t %s {state}" BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION bump()' for state in "OARD"),
        'ALTER TABLE users ENABLE ALWAYS TRIGGER "t %s A"', 'ALTER TABLE users ENABLE REPLICA TRIGGER "t %s R"',
        'ALTER TABLE users DISABLE TRIGGER "t %s D"',
    )  # fmt: skip
    sealed.back_up()
    before = sealed.dump()
    sealed.execute("UPDATE users SET amount = 0 WHERE id < 50", "DELETE FROM notes WHERE id = 200",
                   'DELETE FROM "o""dd %s {} files" WHERE id = 200', "DELETE FROM users WHERE id = 200")  # fmt: skip
    sealed.roll_back()
    assert sealed.dump() == before
    states = sealed.query(
        "SELECT right(tgname, 1), tgenabled::text FROM pg_trigger WHERE tgname LIKE 't %s%' ORDER BY 1"
    )
    assert states == [("A", "A"), ("D", "D"), ("O", "O"), ("R", "R")]


def test_sequences_never_go_backwards(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE SEQUENCE down INCREMENT -1; ALTER SEQUENCE down OWNED BY notes.id; SELECT setval('down', -50)",
        "CREATE SEQUENCE called OWNED BY notes.id; SELECT nextval('called')", "CREATE SEQUENCE gone OWNED BY notes.id",
    )  # fmt: skip
    sealed.back_up()
    sealed.execute("INSERT INTO notes (user_id) VALUES (1)", "SELECT setval('down', -10)",
                   "SELECT setval('called', 1, false)", "DROP SEQUENCE gone")  # fmt: skip
    sealed.execute('SELECT setval(\'public."o""dd %s {} files_id_seq"\', 3)')
    sealed.roll_back()
    assert sealed.query("SELECT last_value FROM notes_id_seq") == [(201,)]
    assert sealed.query("SELECT last_value FROM down") == [(-50,)]
    assert sealed.query("SELECT nextval('called')") == [(2,)]
    assert sealed.query('SELECT last_value FROM "o""dd %s {} files_id_seq"') == [(200,)]


def test_unique_values_are_swapped_back(sealed: SealedTarget) -> None:
    sealed.execute(
        "COMMENT ON CONSTRAINT users_email_key ON users IS 'a comment %'", "CREATE UNIQUE INDEX ON users (lower(email))"
    )
    sealed.back_up()
    before = sealed.dump()
    sealed.execute(
        "UPDATE users SET email = 'parked' WHERE id = 1", "UPDATE users SET email = 'u1@x' WHERE id = 2",
        "UPDATE users SET email = 'u2@x' WHERE id = 1",
        "DELETE FROM notes WHERE id = 9", "INSERT INTO notes (id, user_id, provider, v) VALUES (909, 9, 'google', NULL)",
    )  # fmt: skip
    sealed.roll_back()
    assert sealed.dump() == before
    assert sealed.query("SELECT obj_description(oid) FROM pg_constraint WHERE conname = 'users_email_key'") == [
        ("a comment %",)
    ]


def test_a_unique_value_freed_by_a_deletion_needs_no_second_try(sealed: SealedTarget) -> None:
    sealed.back_up()
    before = sealed.dump()
    sealed.execute(
        "DELETE FROM notes WHERE id = 9", "INSERT INTO notes (id, user_id, provider) VALUES (909, 9, 'google')"
    )
    sealed.roll_back()
    assert sealed.dump() == before
    assert not [line for line in sealed.run.lines if "second try" in line[1]]


def test_a_child_that_moved_to_a_new_cascading_parent_survives(sealed: SealedTarget) -> None:
    sealed.back_up()
    before = sealed.dump()
    sealed.execute(
        "INSERT INTO users VALUES (1000, 'new@x')", 'UPDATE "o""dd %s {} files" SET "us""er %" = 1000, size = 9 WHERE id < 9',
        "UPDATE users SET boss = 1000 WHERE id < 50",
    )  # fmt: skip
    sealed.roll_back()
    assert sealed.dump() == before


def test_cycles_and_self_references_are_restored(target_database: str, tmp_path: Path) -> None:
    sealed = SealedTarget(target_database, plan_of("a", "b"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE a (id int PRIMARY KEY, b int, a int NOT NULL REFERENCES a)",
        "CREATE TABLE b (id int PRIMARY KEY, a int NOT NULL REFERENCES a ON DELETE RESTRICT)",
        "INSERT INTO a SELECT i, i, 21 - i FROM generate_series(1, 20) i", "INSERT INTO b SELECT i, i FROM generate_series(1, 20) i",
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b ON DELETE CASCADE ON UPDATE CASCADE NOT VALID",
        "ALTER TABLE a ALTER CONSTRAINT a_a_fkey DEFERRABLE",
    )  # fmt: skip
    sealed.back_up()
    before = sealed.dump()
    sealed.execute("TRUNCATE a, b", "INSERT INTO a VALUES (1, NULL, 1), (50, NULL, 1)", "INSERT INTO b VALUES (50, 50)")
    sealed.roll_back()
    assert sealed.dump() == before


def test_identities_that_always_generate_are_set_back(target_database: str, tmp_path: Path) -> None:
    sealed = SealedTarget(target_database, plan_of("a"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE a (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY)", "INSERT INTO a VALUES (1), (2)"
    )
    sealed.back_up()
    before = sealed.dump()
    sealed.execute("DELETE FROM a WHERE id = 1", "INSERT INTO a VALUES (1)")
    sealed.roll_back()
    assert sealed.dump() == before


def test_only_some_tables(sealed: SealedTarget) -> None:
    sealed.back_up()
    before = sealed.dump()
    edit(sealed)
    edited = sealed.dump()
    sealed.changed("users", "index", "ix", "CREATE INDEX ix ON users (boss)", "DROP INDEX ix")
    results = sealed.roll_back(tables=["notes"], reverts=[str(sealed.migration.run_id)])
    assert list(results[Phase.RESTORE]["tables"]) == ["notes"]
    after = sealed.dump()
    assert (after["notes"], after[ODD], after["users"]) == (before["notes"], edited[ODD], edited["users"])
    assert sealed.migration.changes[1].state == "made"


@pytest.mark.parametrize("action", ["RESTRICT", "NO ACTION", "CASCADE", "SET NULL", "SET DEFAULT"])
def test_rows_outside_that_refer_to_rows_to_be_deleted_refuse(sealed: SealedTarget, action: str) -> None:
    sealed.execute(f'CREATE TABLE "out %s" (id int, u int REFERENCES users ON DELETE {action})')
    sealed.back_up()
    edit(sealed)
    sealed.execute('INSERT INTO "out %s" VALUES (1, 1000), (2, 1000), (3, 4)')
    before = sealed.dump()
    sentence = f"2 rows of public.out %s refer to rows of users that would be deleted (constraint out %s_u_fkey, ON DELETE {action})."
    [entry] = sealed.preview()["outside"]
    assert (entry["table"], entry["action"], entry["of"], entry["rows"]) == ("public.out %s", action, "users", 2)
    assert entry["text"].startswith(sentence)
    with pytest.raises(Refused) as caught:
        sealed.roll_back()
    assert sentence in caught.value.message
    assert list(sealed.context().journal.finished_phases()) == [Phase.STAGE], "the preview says so, before any lock"
    context = sealed.context()
    with pytest.raises(Refused):
        rollback.run_phase(context, Phase.RESTORE)
    assert (sealed.dump(), sealed.scratches()) == (before, [])
    assert sealed.query('SELECT count(*) FROM "out %s" WHERE u = 1000') == [(2,)]


def test_rows_outside_that_are_not_touched_do_not_matter(sealed: SealedTarget) -> None:
    sealed.execute("CREATE TABLE outside (u int REFERENCES users, mail text REFERENCES users (email))")
    sealed.back_up()
    before = sealed.dump()
    edit(sealed)
    sealed.execute("INSERT INTO outside VALUES (4, 'u4@x'), (10, 'u10@x')")
    sealed.roll_back()
    assert sealed.dump() == before


def test_a_parent_outside_that_is_gone_refuses(sealed: SealedTarget) -> None:
    sealed.back_up()
    sealed.execute(
        "DELETE FROM notes WHERE id = 200",
        'DELETE FROM "o""dd %s {} files" WHERE id = 200',
        "DELETE FROM users WHERE id = 200",
    )
    before = sealed.dump()
    with pytest.raises(Refused, match=r"1 row of notes would refer to rows of public\.users that are not there"):
        sealed.roll_back(tables=["notes"])
    assert sealed.dump() == before


def test_counts_that_moved_since_they_were_confirmed_refuse(sealed: SealedTarget) -> None:
    sealed.back_up()
    edit(sealed)
    expected = sealed.preview()["tables"]
    sealed.execute("UPDATE users SET amount = 6 WHERE id = 100")
    before = sealed.dump()
    with pytest.raises(Refused, match=r"users: 12 to update instead of 11"):
        sealed.roll_back(expected=expected)
    context = sealed.context(expected=expected)
    with pytest.raises(Refused, match=r"users: 12 to update instead of 11"):
        rollback.run_phase(context, Phase.RESTORE)
    assert (sealed.dump(), sealed.scratches()) == (before, [])
    expected["users"]["update"] = 12
    sealed.roll_back(expected=expected)


def test_a_constraint_of_others_that_refuses_old_rows_undoes_all(sealed: SealedTarget) -> None:
    sealed.back_up()
    edit(sealed)
    sealed.execute("ALTER TABLE notes ADD CONSTRAINT mine CHECK (id > 5)")
    before = sealed.dump()
    with pytest.raises(RunFailed, match="constraint mine") as caught:
        sealed.roll_back()
    assert "google" not in str(caught.value)
    assert (sealed.dump(), sealed.scratches()) == (before, [])


def test_a_column_added_by_others_stays(sealed: SealedTarget) -> None:
    sealed.back_up()
    before = sealed.dump()
    sealed.execute("ALTER TABLE users ADD extra text DEFAULT 'x'", "UPDATE users SET extra = 'kept' WHERE id = 10")
    edit(sealed)
    sealed.roll_back()
    assert sealed.query("SELECT extra FROM users WHERE id IN (10, 11) ORDER BY id") == [("kept",), ("x",)]
    sealed.execute("ALTER TABLE users DROP extra")
    assert sealed.dump() == before


def test_the_preview_of_a_run_of_another_kind_refuses_nothing(sealed: SealedTarget) -> None:
    sealed.back_up()
    edit(sealed)
    context = sealed.context(RunKind.PREVIEW, expected={"users": {"update": 0, "insert": 0, "delete": 0}})
    rollback.run_phase(context, Phase.STAGE)
    assert rollback.run_phase(context, Phase.PREVIEW)["tables"]["users"]["update"] == 11


def test_restored_tables_are_analysed(sealed: SealedTarget) -> None:
    sealed.back_up()
    edit(sealed)
    sealed.roll_back()
    known = "SELECT relname::text, reltuples FROM pg_class WHERE relname IN ('users', 'notes') ORDER BY 1"
    assert sealed.query(known) == [("notes", 200.0), ("users", 200.0)]
