"""Rows left alone: put, for another reason, listed by target and plan, and removed."""

from briefly_admin.store import skips
from briefly_admin.store.database import Database


def test_a_row_is_left_alone_for_a_reason_and_treated_as_others_again(database: Database) -> None:
    here = {"target_id": "t", "plan": "unified"}
    with database.begin() as connection:
        skips.put(connection, **here, table="users", key=("1", "ü"), reason="asked for", by="ana")
        skips.put(connection, **here, table="users", key=("1", "ü"), reason="a\0b", by="ben")
        skips.put(connection, **here, table="tags", key=["2"], reason="r", by="ana")
        skips.put(connection, target_id="t", plan="other", table="users", key=["3"], reason="r", by="ana")
        skips.put(connection, target_id="u", plan="unified", table="users", key=["4"], reason="r", by="ana")
    with database.begin() as connection:
        found = [(row.table, row.key, row.reason, row.by_whom) for row in skips.all_of(connection, **here)]
        assert found == [("tags", '["2"]', "r", "ana"), ("users", '["1", "ü"]', "a\ufffdb", "ben")]
        assert [row.table for row in skips.all_of(connection, **here, table="tags")] == ["tags"]
        assert not skips.remove(connection, **here, table="users", key=["3"])
        assert skips.remove(connection, **here, table="users", key=("1", "ü"))
        assert not skips.remove(connection, **here, table="users", key=("1", "ü"))
        assert [row.table for row in skips.all_of(connection, **here)] == ["tags"]
