"""What a rollback would do to rows of tables outside it: counted by action, refused unless allowed."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.errors import Refused, VerificationFailed
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.rollback import difference, outside, reuse, selection, writing
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.staged import StagedTable
from briefly_admin.engine.target import Connection
from tests.engine.sealed_target import SealedTarget, plan_of

Entries = list[dict[str, Any]]


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """Accounts, and items of theirs; people made the accounts 100 to 104 since the backup."""
    sealed = SealedTarget(target_database, plan_of("accounts", "items"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, email text UNIQUE, code numeric UNIQUE)",
        "CREATE TABLE items (id int PRIMARY KEY, account int REFERENCES accounts ON DELETE CASCADE, other int)",
        "INSERT INTO accounts SELECT i, 'a' || i, i FROM generate_series(0, 20) i",
        "INSERT INTO items SELECT i, i, NULL FROM generate_series(1, 20) i",
    )
    sealed.back_up()
    sealed.execute("INSERT INTO accounts SELECT i, 'a' || i, i FROM generate_series(100, 104) i")
    return sealed


@contextmanager
def staged(
    sealed: SealedTarget, tables: Sequence[str] | None = None
) -> Iterator[tuple[Connection, str, Sequence[StagedTable]]]:
    """In a transaction that is undone: the staged tables."""
    context = sealed.context(RunKind.PREVIEW, tables=tables)
    chosen = selection.choose(context)
    with sealed.target.session(bulk=True) as connection:
        schema, tables_ = reuse.ensure_staged(context, connection, chosen.reader, chosen.tables)
        with connection.transaction(force_rollback=True):
            yield connection, schema, tables_


def compare(connection: Connection, schema: str, tables: Sequence[StagedTable]) -> list[Difference]:
    pairs = [selection.pair(connection, table, schema, number) for number, table in enumerate(tables)]
    return [difference.find(connection, pair) for pair in pairs]


def found(sealed: SealedTarget, tables: Sequence[str] | None = None, *, lock: bool = False) -> Entries:
    with staged(sealed, tables) as (connection, schema, there):
        differences = compare(connection, schema, there)
        return outside.hold(connection, differences).entries if lock else outside.consequences(connection, differences)


def write(connection: Connection, differences: Sequence[Difference]) -> str:
    """Write as the restore does; what stood against it, or ''. Nothing is undone unless something did."""
    try:
        with connection.transaction():
            connection.execute("SET CONSTRAINTS ALL DEFERRED")
            for step, order in (
                (writing.delete, differences[::-1]), (writing.insert, differences), (writing.update, differences),
            ):  # fmt: skip
                for each in order:
                    step(connection, each)
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for each in differences:
                digest = writing.digest(connection, each.pair)
                if digest != each.pair.staged.manifest.digest:
                    raise VerificationFailed("Not as it was.")  # noqa: TRY301 - undone with the transaction
    except (psycopg.errors.IntegrityError, VerificationFailed) as error:
        return str(error) or type(error).__name__
    return ""


def brief(entries: Entries) -> list[tuple[Any, ...]]:
    return [(e["table"], e["action"], e["of"], e["rows"], e["blocks"]) for e in entries]


def rows_of(connection: Connection, tables: Sequence[str]) -> dict[str, dict[int, str]]:
    rows: dict[str, dict[int, str]] = {}
    for table in tables:
        query = sql.SQL("SELECT id, t::text FROM {} AS t").format(sql.Identifier("public", table))
        rows[table] = dict(connection.execute(query).fetchall())
    return rows


OUTER = ("o0", "o1", "o2", "o3")
ACTIONS = ("CASCADE", "SET NULL", "SET DEFAULT", "CASCADE", "NO ACTION", "RESTRICT")
"""A round draws from the first 3, 4, 5 or 6."""


def tangle(dice: random.Random) -> str:
    """Outside tables that refer to the plan's and to one another at random, in cycles, too, and sometimes back."""
    actions = ACTIONS[: dice.randint(3, 6)]
    script, keys = [], []
    for name in OUTER:
        parents = [dice.choice(("accounts", "accounts", *OUTER)) for _ in "xy"]
        rows = [
            [
                "NULL"
                if dice.random() < 0.4
                else dice.randint(100, 104)
                if parent == "accounts"
                else dice.randint(0, 9)
                for parent in parents
            ]
            for _ in range(10)
        ]
        values = ", ".join(f"({number}, {x}, {y})" for number, (x, y) in enumerate(rows))
        script.append(
            f"DROP TABLE IF EXISTS {name} CASCADE; CREATE TABLE {name} (id int PRIMARY KEY, x int DEFAULT 0,"
            f" y int DEFAULT 0); INSERT INTO {name} VALUES {values}"
        )
        keys += [(name, column, parent) for column, parent in zip("xy", parents, strict=True)]
    script.append("DELETE FROM items WHERE id > 20; UPDATE items SET other = NULL WHERE other IS NOT NULL")
    if dice.random() < 0.3:
        script.append("UPDATE items SET other = 5 WHERE id < 4")
        script.append("INSERT INTO items SELECT i, 100, 5 FROM generate_series(100, 103) i")
        keys.append(("items", "other", dice.choice(OUTER)))
    for child, column, parent in keys:
        later = dice.choice(("", "", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"))
        script.append(
            f"ALTER TABLE {child} ADD FOREIGN KEY ({column}) REFERENCES {parent} ON DELETE {dice.choice(actions)} {later}"
        )
    return "; ".join(script)


def test_what_is_foretold_is_what_postgresql_does(sealed: SealedTarget) -> None:
    dice = random.Random(5)
    passed, refused = 0, 0
    with staged(sealed) as (connection, schema, tables):
        for _ in range(12):
            sealed.execute(tangle(dice))
            with connection.transaction(force_rollback=True):
                differences = compare(connection, schema, tables)
                foreseen = outside.hold(connection, differences)
                entries = foreseen.entries
                before = rows_of(connection, OUTER)
                against = write(connection, differences)
                assert bool(against) == any(entry["blocks"] for entry in entries), (against, entries)
                if against:
                    refused += 1
                    continue
                passed += 1
                foreseen.require_done()
                after = rows_of(connection, OUTER)
                for table in OUTER:
                    mine = [entry for entry in entries if entry["table"] == f"public.{table}"]
                    changed = sum(after[table][key] != before[table][key] for key in after[table])
                    counts = [entry["rows"] for entry in mine if entry["action"] != "CASCADE"]
                    gone = len(before[table]) - len(after[table])
                    assert sum(entry["rows"] for entry in mine if entry["action"] == "CASCADE") == gone, entries
                    assert max(counts, default=0) <= changed <= sum(counts), entries
    assert passed >= 3
    assert refused >= 3


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT", "RESTRICT", "NO ACTION"])
def test_refused_unless_allowed(sealed: SealedTarget, action: str) -> None:
    sealed.execute(
        'CREATE SCHEMA "o""dd %s {}"',
        f'CREATE TABLE "o""dd %s {{}}"."t %s" (id int, a int DEFAULT 0 REFERENCES accounts ON DELETE {action})',
        'INSERT INTO "o""dd %s {}"."t %s" VALUES (1, 100), (2, 101), (3, 5)',
    )
    table, blocks = 'o"dd %s {}.t %s', action in ("RESTRICT", "NO ACTION")
    assert brief(sealed.preview()["outside"]) == [(table, action, "accounts", 2, blocks)]
    with pytest.raises(Refused, match=r"2 rows of o\"dd %s \{\}.t %s refer") as caught:
        sealed.roll_back(allow=[table] if blocks else ["public.other"])
    assert (f"Allow rows of {table}" in str(caught.value.remedy)) is not blocks
    if blocks:
        return
    results = sealed.roll_back(allow=[table])
    assert results[Phase.RESTORE]["outside"] == {table: 2}
    assert results[Phase.VERIFY]["verified"]
    left = {"CASCADE": [(3, 5)], "SET NULL": [(1, None), (2, None), (3, 5)], "SET DEFAULT": [(1, 0), (2, 0), (3, 5)]}
    assert sealed.query('SELECT * FROM "o""dd %s {}"."t %s" ORDER BY id') == left[action]


def test_chains_cycles_and_rows_that_refer_to_their_own_table(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE TABLE posts (id int PRIMARY KEY, a int REFERENCES accounts ON DELETE CASCADE, best int)",
        "CREATE TABLE notes (id int PRIMARY KEY, post int REFERENCES posts ON DELETE CASCADE,"
        " reply_to int REFERENCES notes ON DELETE CASCADE, seen int REFERENCES posts ON DELETE SET NULL)",
        "ALTER TABLE posts ADD FOREIGN KEY (best) REFERENCES notes ON DELETE SET NULL",
        "INSERT INTO posts VALUES (1, 100), (2, 100), (3, 5)",
        # Two go with their posts, two with those that they reply to (one of them twice); one only loses what it saw.
        "INSERT INTO notes VALUES (1, 1, NULL, NULL), (2, 2, 1, 1), (3, 3, 2, NULL), (4, 3, 3, 1), (5, 3, NULL, 2)",
        "UPDATE posts SET best = 4",
    )
    assert brief(found(sealed)) == [
        ("public.notes", "CASCADE", "public.posts", 2, False),
        ("public.notes", "CASCADE", "public.notes", 2, False),
        ("public.notes", "SET NULL", "public.posts", 1, False),
        ("public.posts", "CASCADE", "accounts", 2, False),
        ("public.posts", "SET NULL", "public.notes", 1, False),
    ]
    with pytest.raises(Refused, match=r"public\.notes") as caught:
        sealed.roll_back(allow=["public.posts"])
    assert "public.posts refer" not in caught.value.message
    results = sealed.roll_back(allow=["public.posts", "public.notes"])
    assert results[Phase.RESTORE]["outside"] == {"public.notes": 5, "public.posts": 3}
    assert sealed.query("SELECT id, best FROM posts") == [(3, None)]
    assert sealed.query("SELECT id, seen FROM notes") == [(5, None)]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_what_comes_back_to_the_rollbacks_own_tables_blocks(sealed: SealedTarget, action: str) -> None:
    sealed.execute(
        "CREATE TABLE posts (id int PRIMARY KEY, a int REFERENCES accounts ON DELETE CASCADE)",
        "INSERT INTO posts VALUES (1, 100), (2, 101)",
        f"ALTER TABLE items ADD FOREIGN KEY (other) REFERENCES posts ON DELETE {action}",
        "UPDATE items SET other = 1 WHERE id IN (3, 4)",
        # This one goes before its post does.
        "INSERT INTO items VALUES (30, 3, 2)",
    )
    entries = found(sealed)
    assert brief(entries)[0] == ("public.items", action, "public.posts", 2, True)
    assert "a table of this rollback" in entries[0]["text"]
    with pytest.raises(Refused, match=r"2 rows of public\.items"):
        outside.require_allowed(entries, ["public.posts", "public.items"])


def test_rows_brought_back_miss_parents_that_are_gone_or_go_themselves(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE TABLE posts (id int PRIMARY KEY, a int REFERENCES accounts ON DELETE CASCADE)",
        "INSERT INTO posts VALUES (1, 5), (2, 5)",
        "ALTER TABLE items ADD FOREIGN KEY (other) REFERENCES posts",
        "UPDATE items SET other = id WHERE id < 3",
        "DELETE FROM accounts WHERE id >= 100",
    )
    sealed.backup_id = uuid4()
    sealed.back_up()
    sealed.execute(
        "INSERT INTO accounts VALUES (100)", "UPDATE items SET other = NULL", "UPDATE posts SET a = 100 WHERE id = 1",
        "DELETE FROM items WHERE id = 7",
    )  # fmt: skip
    assert brief(found(sealed)) == [
        ("public.posts", "NO ACTION", "items", 1, True),
        ("public.posts", "CASCADE", "accounts", 1, False),
    ]
    sealed.execute("DELETE FROM accounts WHERE id = 7")
    assert brief(found(sealed, ["items"])) == [("public.accounts", "NO ACTION", "items", 1, True)]


@pytest.mark.parametrize(
    ("action", "after"),
    [("CASCADE", [("a3",), ("a5",)]), ("SET NULL", [("a5",), (None,)]), ("RESTRICT", []), ("NO ACTION", [])],
)
def test_referenced_values_that_change(sealed: SealedTarget, action: str, after: list[Any]) -> None:
    sealed.execute(
        f"CREATE TABLE mails (mail text REFERENCES accounts (email) ON UPDATE {action})",
        "UPDATE accounts SET email = 'new' WHERE id = 3", "UPDATE accounts SET code = 5.00 WHERE id = 5",
        "INSERT INTO mails VALUES ('new'), ('a5')", "DELETE FROM accounts WHERE id >= 100",
        "CREATE TABLE codes (code numeric REFERENCES accounts (code))", "INSERT INTO codes VALUES (5)",
    )  # fmt: skip
    assert brief(found(sealed)) == [("public.mails", action, "accounts", 1, not after)]
    if after:
        sealed.roll_back(allow=["public.mails"])
        assert sealed.query("SELECT mail FROM mails ORDER BY mail") == after


def test_all_kinds_of_foreign_keys_count(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE TABLE parted (id int, a int REFERENCES accounts ON DELETE CASCADE) PARTITION BY LIST (id)",
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)",
        "CREATE TABLE parted_2 PARTITION OF parted DEFAULT",
        "ALTER TABLE parted_2 ADD PRIMARY KEY (id)",
        "CREATE TABLE under (p int REFERENCES parted_2 ON DELETE CASCADE)",
        "INSERT INTO parted VALUES (1, 100), (2, 100), (3, 5)",
        "INSERT INTO under VALUES (2), (3)",
        "CREATE TABLE loose (a int)",
        "INSERT INTO loose VALUES (100), (999)",
        "ALTER TABLE loose ADD FOREIGN KEY (a) REFERENCES accounts ON DELETE CASCADE NOT VALID",
        "CREATE TABLE later (mail text REFERENCES accounts (email) DEFERRABLE)",
        # The address of a row that goes comes back with another one: a check that is put off finds it.
        "UPDATE accounts SET email = NULL WHERE id = 3", "UPDATE accounts SET email = 'a3' WHERE id = 100",
        "INSERT INTO later VALUES ('a3')",
        "CREATE TABLE partly (id int, a int NOT NULL, b int, FOREIGN KEY (a) REFERENCES accounts ON DELETE SET NULL)",
        "INSERT INTO partly VALUES (1, 102)",
        "CREATE TABLE homeless (a int DEFAULT 104 REFERENCES accounts ON DELETE SET DEFAULT)",
        "INSERT INTO homeless VALUES (103)",
        "CREATE TABLE idle (a int REFERENCES accounts ON DELETE RESTRICT)", "INSERT INTO idle VALUES (1), (NULL)",
    )  # fmt: skip
    entries = found(sealed)
    assert brief(entries) == [
        ("public.homeless", "SET DEFAULT", "accounts", 1, True),
        ("public.partly", "SET NULL", "accounts", 1, True),
        ("public.loose", "CASCADE", "accounts", 1, False),
        ("public.parted", "CASCADE", "accounts", 2, False),
        ("public.under", "CASCADE", "public.parted_2", 1, False),
    ]
    assert "no row of public.accounts has that default" in entries[0]["text"]
    assert "a takes no NULL" in entries[1]["text"]


def test_a_foreign_key_that_the_rollback_takes_away_does_nothing(sealed: SealedTarget) -> None:
    sealed.execute("CREATE TABLE t (a int CONSTRAINT k REFERENCES accounts)", "INSERT INTO t VALUES (100)")
    with staged(sealed) as (connection, schema, tables):
        differences = compare(connection, schema, tables)
        assert outside.consequences(connection, differences, without=[("public.t", "k")]) == []
        assert outside.consequences(connection, differences, without=[("t", "other")]) != []
        assert connection.execute("SELECT to_regclass(%s)", (f"{schema}.reached",)).fetchone() == (None,)


def test_tables_that_must_not_be_read_refuse_only_where_it_matters(
    sealed: SealedTarget, superuser_database: Callable[[str], str]
) -> None:
    with psycopg.connect(superuser_database(sealed.dsn), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.theirs (a int REFERENCES public.accounts ON DELETE CASCADE)")
        connection.execute("INSERT INTO public.theirs VALUES (100)")
        with pytest.raises(Refused, match=r"theirs_a_fkey of public\.theirs .*SQLSTATE 42501"):
            found(sealed)
        connection.execute("GRANT SELECT ON public.theirs TO PUBLIC")
        with pytest.raises(Refused, match=r"rows of public\.theirs cannot be held") as caught:
            found(sealed)
        assert "GRANT UPDATE" in str(caught.value.remedy)
        with pytest.raises(Refused, match=r"public\.theirs .*SQLSTATE 42501"):
            found(sealed, lock=True)
        connection.execute("GRANT UPDATE ON public.theirs TO PUBLIC")
        assert brief(found(sealed)) == [("public.theirs", "CASCADE", "accounts", 1, False)]
        connection.execute("ALTER TABLE public.theirs ENABLE ROW LEVEL SECURITY")
        with pytest.raises(Refused, match=r"public\.theirs .*SQLSTATE 42501") as caught:
            found(sealed)
        assert "row-level security" in str(caught.value.remedy)
        connection.execute("TRUNCATE public.theirs")
        connection.execute("DELETE FROM public.accounts WHERE id >= 100")
        connection.execute("UPDATE public.accounts SET email = 'changed'  WHERE id = 5")
    assert found(sealed) == []


def test_nobody_refers_to_held_rows(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE TABLE posts (id int PRIMARY KEY, a int REFERENCES accounts ON DELETE CASCADE)",
        "CREATE TABLE notes (post int REFERENCES posts ON DELETE CASCADE)", "INSERT INTO posts VALUES (1, 100), (2, 5)",
    )  # fmt: skip
    with staged(sealed) as (connection, schema, tables), sealed.target.session() as other:
        outside.hold(connection, compare(connection, schema, tables))
        other.execute("SET lock_timeout TO '50ms'")
        for statement in (b"posts VALUES (3, 101)", b"notes VALUES (1)"):
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(b"INSERT INTO public." + statement)
        other.execute("INSERT INTO public.notes VALUES (2)")


def test_what_is_allowed_is_added_up() -> None:
    entry = {"table": "a.b", "rows": 2, "blocks": False, "text": "Two."}
    assert outside.require_allowed([entry, entry | {"rows": 3}], ["a.b", "x.y"]) == {"a.b": 5}
    assert outside.require_allowed([], []) == {}
    for allow in ([], ["b"]):
        with pytest.raises(Refused, match="Two"):
            outside.require_allowed([entry], allow)
    with pytest.raises(Refused, match="Two"):
        outside.require_allowed([entry | {"blocks": True}], ["a.b"])
