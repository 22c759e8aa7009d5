"""Undoing the migration alone: what others did since stays, or goes by rule, or row by row."""

from pathlib import Path
from typing import Any

import pytest

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import rollback
from briefly_admin.engine.rollback import difference, preview, restore, selection, settling
from briefly_admin.engine.rollback.classes import Classifier
from tests.engine.sealed_target import SealedTarget
from tests.engine.three_way import CLASSES, ODD, backed_up, edited, migrated

_FILES = '"o""dd %s {} files"'
_DUMPS = {
    "users": "SELECT id, email, tier, token, amount FROM users",
    ODD: f'SELECT id, "user id", chunks, big, "wh""o %" FROM {_FILES}',
    "chunks": "SELECT id, file_id, number, size FROM chunks",
}


def rows(sealed: SealedTarget) -> dict[str, dict[int, tuple[Any, ...]]]:
    """Table → key → the other values of what counts, as texts."""
    return {
        name: {row[0]: tuple(map(str, row[1:])) for row in sealed.query(query)}
        for name, query in _DUMPS.items()
    }  # fmt: skip


def keep(sealed: SealedTarget, **options: Any) -> dict[str, Any]:
    return sealed.roll_back(mode="keep", **options)[Phase.RESTORE]


def test_a_migration_alone_is_undone_wholly(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    before = sealed.dump()
    sealed = migrated(target_database, tmp_path, existing=sealed)
    stale = "SELECT count(*) FROM users WHERE updated_at = '2020-01-01'"
    assert sealed.query(stale) == [(0,)]
    done = keep(sealed)
    after = sealed.dump()
    assert (after[ODD], after["chunks"]) == (before[ODD], before["chunks"])
    assert sealed.query(stale) == [(35,)]  # a row that goes back goes back wholly; others are not touched
    assert done["tables"]["users"] == {"same": 25, "update": 35, "insert": 0, "delete": 0}
    assert (done["mode"], done["recomputed"], done["outside"]) == ("keep", {ODD: 0}, {})
    assert list(done["seconds"]) == ["lock", "compare", "write", "constraints", "verify"]
    assert done["reverted"] == {str(sealed.migration.run_id): [1, 2]}
    names = {line[0] for line in after["users: catalog"]}
    assert "by_tier" in names  # a plain index stays
    assert not names & {"level", "tiers"}
    assert [change.state for change in sealed.migration.changes.values()] == ["reverted", "reverted", "made"]
    assert [change.name for change in sealed.run.changes.values()] == ["tiers", "level"]


def test_what_others_did_stays(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    before = rows(sealed)
    edited(target_database, tmp_path, existing=sealed)
    now = rows(sealed)
    assert sealed.preview()["keep"]["users"] == {"update": 32}
    done = keep(sealed)
    after = rows(sealed)
    expected = before["users"] | {i: now["users"][i] for i in (1, 31, 33, 100)}
    assert after["users"] == {i: row for i, row in expected.items() if i not in {59, 60}}
    # What the backup had right is right again, over the rows of now; what it had wrong is wrong again.
    assert after[ODD] == before[ODD] | {2: now[ODD][2], 12: ("12", "4", "102", "x"), 13: ("13", "4", "53", "x")}
    expected = before["chunks"] | {i: now["chunks"][i] for i in (3, 101, 102, 113, 115)}
    assert after["chunks"] == {i: row for i, row in expected.items() if i != 4}
    assert done["tables"]["users"] == {"same": 28, "update": 32, "insert": 0, "delete": 0}
    assert done["tables"][ODD]["update"] == 9
    assert done["recomputed"] == {ODD: 1}  # the largest chunk of file 12
    assert sealed.query("SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'touch'") == [("O",)]


def test_rules_for_all_rows_of_a_class(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    before = rows(sealed)
    edited(target_database, tmp_path, existing=sealed)
    rules = {"edited": "restore", "created": "delete", "deleted": "bring_back"}
    done = keep(sealed, rules=rules)
    assert rows(sealed) == before
    assert done["tables"]["users"] == {"same": 23, "update": 35, "insert": 2, "delete": 1}
    assert done["recomputed"] == {ODD: 2}  # files 12 and 13 have their three chunks again


def test_rows_are_settled_one_by_one(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    before = rows(sealed)
    edited(target_database, tmp_path, existing=sealed)
    now = rows(sealed)
    settled = {
        "users": [
            {"key": ["1"], "how": "edit", "values": {"tier": None, "email": "é '\\%s"}},
            {"key": ["31"], "how": "keep", "values": {}},
        ],
        ODD: [{"key": ["2"], "how": "restore", "values": {}}],
        "chunks": [{"key": ["3"], "how": "edit", "values": {"size": "7"}}],
    }
    done = keep(sealed, rules={"edited": "restore"}, settled=settled)
    after = rows(sealed)
    assert after["users"][1] == ("é '\\%s", "None", "HIDDEN1", "1.00")
    assert after["users"][31] == now["users"][31]
    assert after["users"][33] == before["users"][33]
    assert (after[ODD][2], after["chunks"][3]) == (before[ODD][2], (*now["chunks"][3][:2], "7"))
    assert done["tables"]["users"]["update"] == 34
    assert sealed.scratches() == []


def test_a_row_edited_to_what_it_was_stands(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    values = {"email": "u1", "amount": "1.00"}  # as the migration left it
    keep(sealed, settled={"users": [{"key": ["1"], "how": "edit", "values": values}]})
    assert rows(sealed)["users"][1] == ("u1", "paid", "HIDDEN1", "1.00")


def test_settled_rows_that_do_not_fit_refuse(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    sealed.execute("ALTER TABLE chunks ALTER number SET NOT NULL, ALTER number ADD GENERATED ALWAYS AS IDENTITY")
    before = sealed.dump()
    with pytest.raises(Refused, match="level cannot be edited"):  # it goes with the schema changes
        keep(sealed, settled={"users": [{"key": ["1"], "how": "edit", "values": {"level": "9"}}]})
    assert (sealed.dump(), sealed.scratches()) == (before, [])
    context = sealed.context(mode="keep", tables=["users", "chunks"])
    rollback.run_phase(context, Phase.STAGE)
    chosen = selection.choose(context)
    with sealed.target.session(bulk=True) as connection, connection.transaction():
        schema, staged = preview.ensure_staged(context, connection, chosen, chosen.staged_tables)
        pairs = [selection.pair(connection, table, schema, number) for number, table in enumerate(staged)]
        classifier = Classifier(context, connection, schema, pairs, staged)
        classified = [classifier.classify(difference.find(connection, pair)) for pair in pairs]

        def settle(table: str, rows: tuple[dict[str, Any], ...]) -> None:
            for row in settling.read(connection, sealed.plan, classified, {table: rows})[table]:
                settling.edit(connection, next(pair for pair in pairs if pair.name == table), row)

        def refused(table: str, *rows: dict[str, Any]) -> str:
            with pytest.raises(Refused) as caught:
                settle(table, rows)
            return str(caught.value)

        def edit(key: str, **values: str | None) -> dict[str, Any]:
            return {"key": [key], "how": "edit", "values": values}

        one = {"key": ["1"], "how": "keep"}
        assert "not edited any more (2)" in refused("users", one | {"key": ["2"]})
        assert "new preview" in refused("users", one | {"key": ["1000"]})
        assert "has not the key id" in refused("users", one | {"key": ["1", "1"]})
        assert "one twice" in refused("users", one, one | {"how": "restore"})
        assert "which is not restored" in refused(ODD, one)
        assert "chunks, row 3: the value of size does not fit" in refused("chunks", edit("3", size="many", file_id="3"))
        assert "number cannot be edited, because it is generated" in refused("chunks", edit("3", number="7"))
        assert "the value of tier does not fit" in refused("users", edit("1", tier="longer than eight"))
        assert "the value of email does not fit" in refused("users", edit("1", email=None, tier="gold"))
        assert "the value of email does not fit" in refused("users", edit("1", email="\0"))
        assert "token cannot be edited, because it is secret" in refused("users", edit("1", token="x"))
        assert "id cannot be edited, because it is of the key" in refused("users", edit("1", id="9"))
        assert "twice cannot be edited" in refused("users", edit("1", twice="9"))
        assert "note cannot be edited" in refused("users", edit("1", note="9"))  # the plan does not know it


def test_counts_that_moved_beyond_the_allowance_refuse(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    expected = sealed.preview()["classes"]
    sealed.execute("UPDATE users SET email = 'moved' || id WHERE id IN (2, 37)")
    before = sealed.dump()
    rollback.run_phase(sealed.context(mode="keep"), Phase.STAGE)
    for step in (preview.run, restore.run):
        context = sealed.context(mode="keep", expected_classes=expected, allowance=1)
        with pytest.raises(Refused, match="users: 5 edited instead of 3") as caught:
            step(context)
        assert "new preview" in caught.value.remedy
    assert sealed.dump() == before
    keep(sealed, expected_classes=expected, allowance=2)
    assert rows(sealed)["users"][2][:2] == ("moved2", "free")


def test_some_tables_count_children_that_are_not_chosen(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    before = rows(sealed)
    edited(target_database, tmp_path, existing=sealed)
    now = rows(sealed)
    done = keep(sealed, tables=[ODD])
    after = rows(sealed)
    assert (after["users"], after["chunks"]) == (now["users"], now["chunks"])
    assert after[ODD] == before[ODD] | {2: now[ODD][2], 12: ("12", "4", "102", "x"), 13: ("13", "4", "53", "x")}
    assert list(done["tables"]) == [ODD]


def test_a_count_over_a_table_that_is_gone_is_refused(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    sealed.execute("DROP TABLE chunks")
    before = sealed.query(f"SELECT * FROM {_FILES} ORDER BY id")
    with pytest.raises(Refused, match=r"public\.chunks is gone, and aggregates"):
        keep(sealed, tables=[ODD])
    assert (sealed.query(f"SELECT * FROM {_FILES} ORDER BY id"), sealed.scratches()) == (before, [])


def test_a_backup_of_no_migration_is_refused(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    sealed.execute("UPDATE users SET tier = 'free'")
    for phase in (Phase.PREVIEW, Phase.RESTORE):
        with pytest.raises(Refused, match="no migration"):
            rollback.run_phase(sealed.context(mode="keep"), phase)
    assert sealed.query("SELECT count(*) FROM users WHERE tier = 'free'") == [(60,)]


def test_rows_that_stay_and_hold_rows_that_go_refuse(target_database: str, tmp_path: Path) -> None:
    sealed = migrated(target_database, tmp_path)
    sealed.execute(
        f"INSERT INTO {_FILES} VALUES (50, 1)", "UPDATE chunks SET file_id = 50 WHERE id = 5",
    )  # fmt: skip
    before = sealed.dump()
    # The product's CASCADE would take an edited row with it.
    with pytest.raises(Refused, match="1 rows of chunks that were to stay"):
        keep(sealed, rules={"created": "delete"})
    sealed.execute("ALTER TABLE chunks DROP CONSTRAINT chunks_file_id_fkey",
                   f"ALTER TABLE chunks ADD CONSTRAINT held FOREIGN KEY (file_id) REFERENCES {_FILES}")  # fmt: skip
    with pytest.raises(Refused, match=r"Rows that stay as they are stand against rows that go back .*held"):
        keep(sealed, rules={"created": "delete"})
    assert sealed.query("SELECT file_id FROM chunks WHERE id = 5") == [(50,)]
    keep(sealed, rules={"created": "delete"}, settled={"chunks": [{"key": ["5"], "how": "restore"}]})
    assert sealed.query(f"SELECT count(*) FROM {_FILES}, chunks c WHERE c.id = 5 AND c.file_id = 5") == [(20,)]
    assert sealed.dump()["chunks"] != before["chunks"]


def test_a_value_that_somebody_else_took_refuses(target_database: str, tmp_path: Path) -> None:
    sealed = migrated(target_database, tmp_path)
    sealed.execute("DELETE FROM users WHERE id = 58", "INSERT INTO users (id, email) VALUES (200, 'u58')")
    before = sealed.dump()
    with pytest.raises(Refused, match="users_email_key"):
        keep(sealed, rules={"deleted": "bring_back"})
    assert sealed.dump() == before
    keep(sealed, rules={"deleted": "bring_back", "created": "delete"})
    assert sealed.query("SELECT id FROM users WHERE email = 'u58'") == [(58,)]


def test_what_was_confirmed_of_the_classes_binds_keep_alone(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    wrong = {"users": CLASSES["users"] | {"edited": 9}}
    result = sealed.roll_back(expected_classes=wrong, allowance=0)
    assert result[Phase.RESTORE]["mode"] == "exact"
    assert result[Phase.RESTORE]["recomputed"] == {}
