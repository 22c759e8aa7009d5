"""Values that an admin gives to an edited row change no row that no preview has shown."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import Phase
from tests.engine.sealed_target import SealedTarget
from tests.engine.three_way import ODD, edited, migrated


def keep(sealed: SealedTarget, **values: str | None) -> object:
    settled = {"users": [{"key": ["1"], "how": "edit", "values": values}]}
    return sealed.roll_back(mode="keep", settled=settled)[Phase.RESTORE]["outside"]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_rows_that_refer_to_an_edited_value_refuse_the_edit(target_database: str, tmp_path: Path, action: str) -> None:
    sealed = edited(target_database, tmp_path)
    sealed.execute(
        f"CREATE TABLE mails (m text REFERENCES users (email) ON UPDATE {action})", "INSERT INTO mails VALUES ('mine1')"
    )
    before = sealed.dump()
    with pytest.raises(Refused, match=r"users, row 1: email cannot be edited, because 1 row of public\.mails refer"):
        keep(sealed, email="other", amount="7")
    assert sealed.dump() == before
    with pytest.raises(Refused, match="the value of amount does not fit"):  # that is said in its place
        keep(sealed, email="mine1", amount="no number")
    assert keep(sealed, email="mine1", amount="7") == {}
    assert sealed.query("SELECT email, amount::text, m FROM users, mails WHERE id = 1") == [("mine1", "7", "mine1")]


def test_what_nobody_may_count_refuses_the_edit(
    target_database: str, tmp_path: Path, superuser_database: Callable[[str], str]
) -> None:
    sealed = migrated(target_database, tmp_path)
    sealed.execute("UPDATE users SET amount = 5 WHERE id = 1")
    with psycopg.connect(superuser_database(sealed.dsn), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.theirs (m text REFERENCES public.users (email) ON UPDATE CASCADE)")
    with pytest.raises(Refused, match=r"email cannot be edited, because some rows of public\.theirs may refer"):
        keep(sealed, email="other")
    assert keep(sealed, amount="7") == {}


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_an_edit_leads_a_row_away_from_what_goes(target_database: str, tmp_path: Path, action: str) -> None:
    sealed = migrated(target_database, tmp_path)
    files = '"o""dd %s {} files"'
    sealed.execute(
        f'ALTER TABLE {files} DROP CONSTRAINT "o""dd %s {{}} files_user id_fkey"',
        f'ALTER TABLE {files} ADD CONSTRAINT owner FOREIGN KEY ("user id") REFERENCES users ON DELETE {action}',
        "INSERT INTO users (id, email) VALUES (100, 'n')",
        f'UPDATE {files} SET "user id" = 100 WHERE id = 1',
    )
    settled = {ODD: [{"key": ["1"], "how": "edit", "values": {"user id": "2"}}]}
    sealed.roll_back(mode="keep", settled=settled, rules={"created": "delete"})
    assert sealed.query(f'SELECT "user id" FROM {files} WHERE id = 1') == [(2,)]
    assert sealed.query("SELECT count(*) FROM users WHERE id = 100") == [(0,)]
    kept = {"CASCADE": "c", "SET NULL": "n"}[action]
    assert sealed.query("SELECT confdeltype::text FROM pg_constraint WHERE conname = 'owner'") == [(kept,)]
