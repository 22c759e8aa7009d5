"""What the preview found is used again under the lock where the table holds still, and never where it does not."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from briefly_admin.domain.errors import Refused, VerificationFailed
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import rollback, scratch
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.rollback import writing
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.target import Connection
from tests.engine.sealed_target import SealedTarget, plan_of

ROWS = "SELECT id, email, mood::text FROM users ORDER BY id"
FILES = "SELECT id, user_id FROM files ORDER BY id"
BOTH = ["files has moved: it is compared again.", "users has moved: it is compared again."]


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """A backup of two tables, both of which were written to since; `mood` is of a type that may be exchanged."""
    sealed = SealedTarget(target_database, plan_of("users", "files"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE users (id int PRIMARY KEY, email text UNIQUE, mood text)",
        "CREATE TABLE files (id int PRIMARY KEY, user_id int REFERENCES users)",
        "INSERT INTO users SELECT i, 'u' || i, 'calm' FROM generate_series(1, 60) i",
        "INSERT INTO files SELECT i, i FROM generate_series(1, 60) i",
    )
    sealed.back_up()
    edit(sealed)
    return sealed


def edit(sealed: SealedTarget) -> None:
    sealed.execute(
        "UPDATE users SET email = 'new' || id WHERE id > 50", "DELETE FROM files WHERE id <= 5",
        "INSERT INTO users VALUES (100, 'u100', 'calm')", "DELETE FROM users WHERE id = 3",
    )  # fmt: skip


def previewed(sealed: SealedTarget, **options: Any) -> RunContext:
    """A rollback that has come to its restore."""
    context = sealed.context(**options)
    for phase in (Phase.STAGE, Phase.PREVIEW):
        rollback.run_phase(context, phase)
    return context


def restored(sealed: SealedTarget, context: RunContext) -> tuple[dict[str, Any], list[str]]:
    """What the restore did, and which tables it compared again; all is as it was backed up."""
    told = rollback.run_phase(context, Phase.RESTORE)
    assert sealed.query(ROWS) == [(i, f"u{i}", "calm") for i in range(1, 61)]
    assert sealed.query(FILES) == [(i, i) for i in range(1, 61)]
    rollback.run_phase(context, Phase.VERIFY)
    assert sealed.scratches() == []
    return told, sorted(line for _, line, _ in sealed.run.lines if "has moved" in line)


def test_what_held_still_is_not_compared_again(sealed: SealedTarget) -> None:
    context = previewed(sealed)
    sealed.execute("SELECT * FROM users FOR UPDATE", "VACUUM (FREEZE, ANALYZE) users", "VACUUM files")
    told, again = restored(sealed, context)
    assert again == []
    assert told["tables"]["users"] == {"same": 49, "update": 10, "insert": 1, "delete": 1}
    assert told["digests"]["users"].startswith("60:")


def test_tables_of_which_much_was_written_are_analysed(sealed: SealedTarget) -> None:
    """12 of 61 rows, and 5 of 60."""
    sealed.execute("ANALYZE")
    [(before,)] = sealed.query("SELECT clock_timestamp()::text")
    restored(sealed, previewed(sealed))
    analysed = f"SELECT relname::text FROM pg_stat_user_tables WHERE last_analyze > '{before}'"
    assert sealed.query(analysed) == [("users",)]


MOVES = {
    "an update": ["UPDATE users SET email = 'x' WHERE id = 7"],
    "an update that changes nothing": ["UPDATE users SET email = email WHERE id = 7"],
    "there and back": ["UPDATE users SET mood = 'x' WHERE id = 7", "UPDATE users SET mood = 'calm' WHERE id = 7"],
    "an insert": ["INSERT INTO users VALUES (101, 'u101', 'calm')"],
    "a delete": ["DELETE FROM users WHERE id = 4"],
    "a delete of what would go": ["DELETE FROM users WHERE id = 100"],
    "one goes, one comes": ["DELETE FROM users WHERE id = 4", "INSERT INTO users VALUES (101, 'u101', 'calm')"],
    "all go, and come again": ["CREATE TEMP TABLE held AS TABLE files", "TRUNCATE files", "INSERT INTO files TABLE held"],
    "rows in other places": ["VACUUM FULL users"],
    "in another order": ["CLUSTER users USING users_email_key"],
    "another column of the name": [
        "ALTER TABLE users DROP COLUMN mood", "ALTER TABLE users ADD COLUMN mood text DEFAULT 'sad'",
    ],
}  # fmt: skip


@pytest.mark.parametrize("statements", MOVES.values(), ids=MOVES)
def test_what_moved_since_is_compared_again(sealed: SealedTarget, statements: list[str]) -> None:
    context = previewed(sealed)
    sealed.execute(*statements)
    _, again = restored(sealed, context)
    assert again == (BOTH[:1] if "TRUNCATE files" in statements else BOTH[1:])


def test_a_transaction_that_was_open_during_the_preview_counts_as_a_move(sealed: SealedTarget) -> None:
    with psycopg.connect(sealed.dsn) as other:
        other.execute("UPDATE users SET email = 'late' WHERE id = 7")
        other.execute("SAVEPOINT within")
        other.execute("UPDATE users SET email = 'later' WHERE id = 8")
        context = previewed(sealed)
        other.commit()
    assert restored(sealed, context)[1] == BOTH[1:]


def test_rows_of_a_transaction_still_open_in_another_database_do_no_harm(sealed: SealedTarget) -> None:
    """Rows written while it runs look new: compared again, for they cannot be told from new ones."""
    with psycopg.connect(sealed.dsn) as other:
        other.execute("SELECT pg_current_xact_id()")
        sealed.execute("UPDATE files SET user_id = user_id WHERE id = 9")
        context = previewed(sealed)
        assert restored(sealed, context)[1] == BOTH[:1]


def test_enums_and_virtual_columns_are_always_compared_again(sealed: SealedTarget) -> None:
    """Their values change without their rows: a label's other name is other bytes."""
    sealed.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'sad')", "ALTER TABLE users ALTER COLUMN mood TYPE mood USING mood::mood",
        "UPDATE users SET email = 'u' || id", "INSERT INTO users VALUES (3, 'u3', 'calm')",
        "DELETE FROM users WHERE id = 100", "INSERT INTO files SELECT i, i FROM generate_series(1, 5) i",
    )  # fmt: skip
    sealed.backup_id = uuid4()
    sealed.back_up()
    edit(sealed)
    context = previewed(sealed)
    found = sealed.query(f"SELECT result FROM {scratch.scratch_schema(context.run_id, 1)}.parts WHERE what = 'seen'")
    assert list(found[0][0]) == ["files"]
    sealed.execute("ALTER TYPE mood RENAME VALUE 'calm' TO 'quiet'")
    with pytest.raises(VerificationFailed, match="users is not, byte for byte"):
        rollback.run_phase(context, Phase.RESTORE)
    sealed.execute("ALTER TYPE mood RENAME VALUE 'quiet' TO 'calm'")
    sealed.roll_back()
    assert sealed.query(ROWS) == [(i, f"u{i}", "calm") for i in range(1, 61)]


def test_an_emptied_note_is_none(sealed: SealedTarget) -> None:
    """A crash of the server empties differences and note together."""
    context = previewed(sealed)
    sealed.execute(f"TRUNCATE {scratch.scratch_schema(context.run_id, 1)}.parts")
    assert restored(sealed, context)[1] == []


def test_a_note_goes_with_its_own_difference(sealed: SealedTarget) -> None:
    """As where a leader that was believed dead looked again."""
    context = previewed(sealed)
    schema = scratch.scratch_schema(context.run_id, 1)
    sealed.execute(
        f"CREATE TABLE other AS TABLE {schema}.d0", "DELETE FROM other WHERE there IS NULL",
        f"DROP TABLE {schema}.d0", f"ALTER TABLE other SET SCHEMA {schema}", f"ALTER TABLE {schema}.other RENAME TO d0",
    )  # fmt: skip
    assert restored(sealed, context)[1] == BOTH[1:]


def test_a_preview_repeated_by_the_next_attempt_is_the_one_that_counts(sealed: SealedTarget) -> None:
    context = previewed(sealed)
    sealed.execute("UPDATE users SET email = 'x' WHERE id = 7")
    rollback.run_phase(context, Phase.PREVIEW)
    assert restored(sealed, context)[1] == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [("DROP TABLE files", "files is gone"), ("ALTER TABLE files DROP user_id", "column user_id is gone"),
     ("DROP TABLE users CASCADE", "users is gone")],
)  # fmt: skip
def test_what_goes_after_the_preview_is_refused_by_name(sealed: SealedTarget, statement: str, said: str) -> None:
    context = previewed(sealed)
    sealed.execute(statement)
    with pytest.raises(Refused, match=said):
        rollback.run_phase(context, Phase.RESTORE)


HARM = {
    "lost": "DELETE FROM public.files WHERE id = 30",
    "others written": "UPDATE public.files SET user_id = 1 WHERE id = 30",
    "written wrongly": "UPDATE public.files SET user_id = 1 WHERE id = 4",
}


@pytest.mark.parametrize("statement", HARM.values(), ids=HARM)
def test_rows_that_end_in_another_way_are_found_by_the_digest(
    sealed: SealedTarget, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """As a rule of the table, or a faulty statement of ours, would do it: everything is undone."""
    context = previewed(sealed)
    before = sealed.query(ROWS)
    update = writing.update

    def harmful(connection: Connection, found: Difference) -> None:
        update(connection, found)
        connection.execute(statement.encode())

    monkeypatch.setattr(writing, "update", harmful)
    with pytest.raises(VerificationFailed, match="files is not, byte for byte"):
        rollback.run_phase(context, Phase.RESTORE)
    assert sealed.query(ROWS) == before


def test_no_table_is_digested_whole_under_the_lock(sealed: SealedTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    context = previewed(sealed)

    def whole(*_: Any) -> Any:
        raise AssertionError("a whole table was digested under the lock")

    with monkeypatch.context() as patched:
        patched.setattr(writing, "digest", whole)
        restored(sealed, context)
