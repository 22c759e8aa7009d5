"""What foreign keys do beside what the backup knows: columns added since, MATCH FULL, and rows that are held back."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import Phase
from tests.engine.sealed_target import SealedTarget, plan_of


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """Account 2 was made since the backup."""
    sealed = SealedTarget(target_database, plan_of("accounts", "items"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, a int, b int, UNIQUE (a, b))", "INSERT INTO accounts VALUES (1, 1, 1)",
        "CREATE TABLE items (id int PRIMARY KEY)", "INSERT INTO items VALUES (1), (2)",
    )  # fmt: skip
    sealed.back_up()
    sealed.execute("INSERT INTO accounts VALUES (2, 2, 2)")
    return sealed


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_a_column_of_others_in_the_rollbacks_own_table(sealed: SealedTarget, action: str) -> None:
    sealed.execute(
        f"ALTER TABLE items ADD x int REFERENCES accounts ON DELETE {action}", "UPDATE items SET x = id",
        "INSERT INTO items VALUES (3, 2)",  # this one goes, too
    )  # fmt: skip
    before = sealed.dump()
    [entry] = sealed.preview()["outside"]
    assert (entry["table"], entry["action"], entry["rows"], entry["blocks"]) == ("public.items", action, 1, True)
    with pytest.raises(Refused, match=r"1 row of public\.items refers to rows of accounts that would be deleted"):
        sealed.roll_back(allow=["public.items"])
    assert sealed.dump() == before
    sealed.execute("UPDATE items SET x = NULL WHERE id = 2")
    assert sealed.roll_back()[Phase.RESTORE]["outside"] == {}
    assert sealed.query("SELECT * FROM items ORDER BY id") == [(1, 1), (2, None)]


def test_a_column_of_the_migration_goes_with_its_key(sealed: SealedTarget) -> None:
    column = "ALTER TABLE items ADD x int REFERENCES accounts ON DELETE CASCADE"
    sealed.changed("items", "column", "x", column, "ALTER TABLE items DROP x")
    sealed.execute("UPDATE items SET x = 2")
    sealed.options = {"reverts": [str(sealed.migration.run_id)]}
    assert sealed.preview()["outside"] == []
    sealed.roll_back()
    assert sealed.query("SELECT * FROM items ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize("action", ["SET NULL (a)", "SET DEFAULT"])
def test_match_full_takes_no_half_of_a_key(sealed: SealedTarget, action: str) -> None:
    sealed.execute(
        "CREATE TABLE o (a int, b int DEFAULT 1, FOREIGN KEY (a, b) REFERENCES accounts (a, b) MATCH FULL"
        f" ON DELETE {action})",
        "INSERT INTO o VALUES (2, 2)",
    )
    with pytest.raises(Refused, match="But MATCH FULL takes no row of which only a is NULL"):
        sealed.roll_back(allow=["public.o"])
    sealed.execute("ALTER TABLE o ALTER b DROP DEFAULT")
    if action == "SET DEFAULT":
        assert sealed.roll_back(allow=["public.o"])[Phase.RESTORE]["outside"] == {"public.o": 1}
        assert sealed.query("SELECT * FROM o") == [(None, None)]


def test_rows_that_a_trigger_holds_back_undo_all(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE TABLE o (id int, a int REFERENCES accounts ON DELETE CASCADE)", "INSERT INTO o VALUES (1, 2), (2, 2)",
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.id = 2 THEN RETURN NULL; END IF;"
        " RETURN OLD; END $$",
        "CREATE TRIGGER keep BEFORE DELETE ON o FOR EACH ROW EXECUTE FUNCTION keep()",
    )  # fmt: skip
    before = sealed.dump()
    with pytest.raises(Refused, match=r"did not: 1 row of public\.o \(constraint o_a_fkey\)") as caught:
        sealed.roll_back(allow=["public.o"])
    assert "triggers" in str(caught.value.remedy)
    assert (sealed.dump(), sealed.query("SELECT count(*) FROM o")) == (before, [(2,)])
    sealed.execute("ALTER TABLE o DISABLE TRIGGER keep")
    assert sealed.roll_back(allow=["public.o"])[Phase.RESTORE]["outside"] == {"public.o": 2}


def test_a_foreign_key_that_is_switched_off_undoes_all(
    sealed: SealedTarget, superuser_database: Callable[[str], str]
) -> None:
    sealed.execute("CREATE TABLE o (a int REFERENCES accounts ON DELETE SET NULL)", "INSERT INTO o VALUES (2)")
    with psycopg.connect(superuser_database(sealed.dsn), autocommit=True) as connection:
        connection.execute("ALTER TABLE public.accounts DISABLE TRIGGER ALL")
    with pytest.raises(Refused, match=r"did not: 1 row of public\.o "):
        sealed.roll_back(allow=["public.o"])
    assert sealed.query("SELECT a FROM o") == [(2,)]


def test_what_a_second_key_over_the_same_column_changes_first_undoes_all(sealed: SealedTarget) -> None:
    sealed.execute(
        "CREATE TABLE o (id int PRIMARY KEY, a int REFERENCES accounts ON DELETE SET NULL)",
        "ALTER TABLE o ADD FOREIGN KEY (a) REFERENCES accounts ON DELETE CASCADE",
        "CREATE TABLE under (o int REFERENCES o ON DELETE CASCADE)",
        "INSERT INTO o VALUES (1, 2)", "INSERT INTO under VALUES (1)",
    )  # fmt: skip
    with pytest.raises(Refused, match=r"did not: 1 row of public\.under ") as caught:
        sealed.roll_back(allow=["public.o", "public.under"])
    assert "a second foreign key over the same columns" in str(caught.value.remedy)
    assert sealed.query("SELECT a, o FROM o, under") == [(2, 1)]
    sealed.execute("ALTER TABLE o DROP CONSTRAINT o_a_fkey")
    done = sealed.roll_back(allow=["public.o", "public.under"])[Phase.RESTORE]
    assert done["outside"] == {"public.o": 1, "public.under": 1}
