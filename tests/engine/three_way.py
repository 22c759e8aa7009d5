"""A small plan with every kind of repair, its data, a migration of it: for the tests of what others did since."""

from pathlib import Path

from marshmallow import Schema

from briefly_admin.plans.base import AggregateRepair, Column, GroupedRepair, Plan, Repair, Table
from tests.engine.sealed_target import SealedTarget

ODD = 'o"dd %s {} files'
WHO = 'wh"o %'
USERS = Table(
    "users", Schema,
    (Column("id", "int"), Column("email", "text"), Column("tier", "varchar(8)"), Column("token", "text", secret=True),
     Column("amount", "numeric"), Column("level", "text", required=False, expand=True)),
    repairs=(Repair("tier", "coalesce({tier}, 'free')", "a missing tier"), Repair("token", "upper({token})", "upper"),
             Repair("level", "'level ' || {id}::text", "a level")),
)  # fmt: skip
FILES = Table(
    ODD, Schema,
    (Column("id", "int"), Column("user id", "int"), Column("chunks", "int"), Column("big", "int"), Column(WHO, "text")),
    repairs=(AggregateRepair("chunks", "chunks", "file_id", "count(*)", "0", "counted"),
             AggregateRepair("big", "chunks", "file_id", "max({size})", "0", "largest", only_missing=False),
             Repair(WHO, "ltrim({wh\"o %}, '/')", "no slash")),
)  # fmt: skip
CHUNKS = Table(
    "chunks", Schema, (Column("id", "int"), Column("file_id", "int"), Column("number", "int"), Column("size", "int")),
    repairs=(GroupedRepair("number", "file_id", ("id",), "numbered"),),
)  # fmt: skip
PLAN = Plan("tiny", "Tiny", "Every kind of repair.", (USERS, FILES, CHUNKS))


def backed_up(dsn: str, tmp_path: Path) -> SealedTarget:
    """60 users (35 to repair), 20 files (10 to repair), 60 chunks (18 to repair)."""
    sealed = SealedTarget(dsn, PLAN, tmp_path / "store")
    sealed.execute(
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL UNIQUE, tier varchar(8), token text,"
        " amount numeric, note text, twice int GENERATED ALWAYS AS (id * 2) STORED, updated_at timestamptz)",
        "INSERT INTO users (id, email, tier, token, amount, note, updated_at) SELECT i, 'u' || i, CASE WHEN i % 2 = 1 THEN 'paid' END,"
        " CASE WHEN i > 10 THEN 'HIDDEN' ELSE 'hidden' END || i, 1.00, 'unknown ' || i, '2020-01-01'"
        " FROM generate_series(1, 60) i",
        'CREATE TABLE "o""dd %s {} files" (id int PRIMARY KEY, "user id" int REFERENCES users, chunks int, big int,'
        ' "wh""o %" text)',
        'INSERT INTO "o""dd %s {} files" SELECT i, i, CASE WHEN i > 10 THEN 3 END, CASE WHEN i > 5 THEN 40 + i ELSE 0'
        " END, CASE WHEN i < 3 THEN '/x' ELSE 'x' END FROM generate_series(1, 20) i",
        'CREATE TABLE chunks (id int PRIMARY KEY, file_id int REFERENCES "o""dd %s {} files" ON DELETE CASCADE,'
        " number int, size int)",
        "INSERT INTO chunks SELECT i, (i - 1) % 20 + 1, CASE WHEN ((i - 1) % 20 + 1) % 3 > 0 THEN (i - 1) / 20 END, i"
        " FROM generate_series(1, 60) i",
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END"
        " $$",
        "CREATE TRIGGER touch BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch()",
    )
    sealed.back_up()
    return sealed


def migrated(dsn: str, tmp_path: Path, *aside: str, existing: SealedTarget | None = None) -> SealedTarget:
    """The same after its migration, which put these users in quarantine."""
    sealed = existing or backed_up(dsn, tmp_path)
    sealed.changed("users", "column", "level", "ALTER TABLE users ADD level text", "ALTER TABLE users DROP level")
    sealed.migrate(aside={"users": aside} if aside else None)
    check = "ALTER TABLE users ADD CONSTRAINT tiers CHECK (tier IN ('free', 'paid', 'gold'))"
    sealed.changed("users", "check", "tiers", check, "ALTER TABLE users DROP CONSTRAINT tiers")
    sealed.changed("users", "index", "by_tier", "CREATE INDEX by_tier ON users (tier)", "DROP INDEX public.by_tier")
    sealed.options = sealed.origin | {"trigger_columns": {"users": ["twice", "updated_at"]}}
    return sealed


def edited(dsn: str, tmp_path: Path, *aside: str, existing: SealedTarget | None = None) -> SealedTarget:
    """The same after others were at work on it; `CLASSES` says what a preview finds."""
    sealed = migrated(dsn, tmp_path, *aside, existing=existing)
    sealed.execute(
        "UPDATE users SET email = 'mine' || id WHERE id IN (1, 31)",  # one was migrated, one was not
        "UPDATE users SET amount = 1.0 WHERE id = 33",  # other bytes, though it is equal
        "UPDATE users SET level = 'mine' WHERE id = 35",
        "UPDATE users SET tier = NULL WHERE id = 12",  # as it was
        "INSERT INTO users VALUES (100, 'new', 'gold', 'HIDDEN', 2, 'unknown', DEFAULT, now(), 'mine')",
        "DELETE FROM users WHERE id IN (59, 60)",
        "INSERT INTO chunks VALUES (101, 1, 3, 101), (102, 12, 3, 102), (113, 13, 3, 0), (115, 15, 3, 115)",
        'UPDATE "o""dd %s {} files" SET chunks = 4 WHERE id IN (1, 12, 13)',  # as the product counts
        'UPDATE "o""dd %s {} files" SET chunks = 99 WHERE id = 2',
        "UPDATE chunks SET size = -1 WHERE id = 3",
        "DELETE FROM chunks WHERE id = 4",
    )
    return sealed


CLASSES = {
    "users": {"untouched": 23, "migrated": 32, "edited": 3, "created": 1, "deleted": 2},
    ODD: {"untouched": 8, "migrated": 11, "edited": 1, "created": 0, "deleted": 0},
    "chunks": {"untouched": 41, "migrated": 17, "edited": 1, "created": 4, "deleted": 1},
}
