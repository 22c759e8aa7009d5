"""Foreign keys of tables outside act on their rows also where the rollback's own tables hold one another."""

from pathlib import Path
from typing import Any

import pytest

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import Phase
from tests.engine.sealed_target import SealedTarget, plan_of

ALLOW = {"allow": ["public.mails", "public.codes"]}


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """Accounts that refer to one another in a circle: the first try never writes them."""
    sealed = SealedTarget(target_database, plan_of("accounts"), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, email text UNIQUE, code int UNIQUE, boss int REFERENCES accounts)",
        "INSERT INTO accounts SELECT i, 'a' || i, i FROM generate_series(1, 5) i",
        "CREATE TABLE mails (id int PRIMARY KEY, mail text REFERENCES accounts (email) ON UPDATE CASCADE"
        " ON DELETE SET NULL)",
        "CREATE TABLE codes (id int PRIMARY KEY, code int REFERENCES accounts (code) ON UPDATE SET NULL"
        " ON DELETE CASCADE)",
    )
    sealed.back_up()
    # One that stays refers to one that goes.
    sealed.execute("INSERT INTO accounts VALUES (10, 'a10', 10)", "UPDATE accounts SET boss = 10 WHERE id = 5")
    return sealed


def counted(sealed: SealedTarget) -> list[tuple[Any, ...]]:
    return [(entry["table"], entry["action"], entry["rows"], entry["blocks"]) for entry in sealed.preview()["outside"]]


def was_loosened(sealed: SealedTarget) -> bool:
    return any("step aside for a second try" in line for _, line, _ in sealed.run.lines)


def test_what_was_counted_happens_in_the_second_try(sealed: SealedTarget) -> None:
    sealed.execute(
        "UPDATE accounts SET email = 'b' || id, code = code + 100 WHERE id < 3",
        "INSERT INTO mails VALUES (1, 'b1'), (2, 'a10'), (3, 'a3')",
        "INSERT INTO codes VALUES (1, 101), (2, 10), (3, 3)",
    )
    assert counted(sealed) == [
        ("public.codes", "CASCADE", 1, False), ("public.codes", "SET NULL", 1, False),
        ("public.mails", "SET NULL", 1, False), ("public.mails", "CASCADE", 1, False),
    ]  # fmt: skip
    done = sealed.roll_back(**ALLOW)[Phase.RESTORE]
    assert was_loosened(sealed)
    assert done["outside"] == {"public.codes": 2, "public.mails": 2}
    assert sealed.query("SELECT id, mail FROM mails ORDER BY id") == [(1, "a1"), (2, None), (3, "a3")]
    assert sealed.query("SELECT id, code FROM codes ORDER BY id") == [(1, None), (3, 3)]
    assert any("mails" in line and "does not step aside" in line for _, line, _ in sealed.run.lines)


def test_values_swapped_between_rows_that_others_refer_to_refuse(sealed: SealedTarget) -> None:
    swap = "UPDATE accounts SET email = CASE id WHEN 1 THEN 'a2' ELSE 'a1' END WHERE id < 3"
    sealed.execute(
        "ALTER TABLE mails DROP CONSTRAINT mails_mail_fkey", "ALTER TABLE accounts DROP CONSTRAINT accounts_email_key",
        swap, "ALTER TABLE accounts ADD UNIQUE (email)",
        "ALTER TABLE mails ADD FOREIGN KEY (mail) REFERENCES accounts (email) ON UPDATE CASCADE",
        "INSERT INTO mails VALUES (1, 'a1'), (3, 'a3')",
    )  # fmt: skip
    assert counted(sealed) == [("public.mails", "CASCADE", 1, False)]
    before = sealed.dump()
    with pytest.raises(Refused, match="accounts_email_key keeps apart for one another") as caught:
        sealed.roll_back(**ALLOW)
    assert "Nothing was changed" in caught.value.message
    assert sealed.dump() == before
    # Nobody refers to them: the key is out of the way, and comes back.
    sealed.execute("DELETE FROM mails WHERE id = 1")
    assert sealed.roll_back(**ALLOW)[Phase.RESTORE]["outside"] == {}
    assert sealed.query("SELECT email FROM accounts ORDER BY id") == [(f"a{i}",) for i in range(1, 6)]
    assert sealed.query("SELECT confupdtype::text FROM pg_constraint WHERE conname = 'mails_mail_fkey'") == [("c",)]
