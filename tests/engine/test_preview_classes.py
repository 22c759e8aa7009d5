"""Who changed what since the backup: the three-way preview, on a real PostgreSQL."""

import json
from pathlib import Path

import pytest

from briefly_admin.domain.errors import Refused
from tests.engine.sealed_target import SealedTarget, plan_of
from tests.engine.three_way import CLASSES, ODD, WHO, backed_up, edited, migrated


def test_a_migration_alone_is_told_from_nothing(target_database: str, tmp_path: Path) -> None:
    sealed = migrated(target_database, tmp_path)
    result = sealed.preview()
    assert result["classes"] == {
        "users": {"untouched": 25, "migrated": 35, "edited": 0, "created": 0, "deleted": 0},
        ODD: {"untouched": 10, "migrated": 10, "edited": 0, "created": 0, "deleted": 0},
        "chunks": {"untouched": 42, "migrated": 18, "edited": 0, "created": 0, "deleted": 0},
    }
    assert result["keep"] == {"users": {"update": 35}, ODD: {"update": 10}, "chunks": {"update": 18}}
    assert result["tables"]["users"] == {"same": 0, "update": 60, "insert": 0, "delete": 0}  # a trigger wrote them all
    assert (result["left_out"], result["derived"]) == ({"users": ["updated_at"]}, {ODD: ["chunks", "big"]})
    assert result["lost"] == [{"table": "users", "column": "level", "rows": 0}]


def test_each_class_is_counted(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    result = sealed.preview()
    assert result["classes"] == CLASSES
    # File 13 is as the backup has it, but for what is computed, and that is right.
    assert result["keep"] == {"users": {"update": 32}, ODD: {"update": 10}, "chunks": {"update": 17}}
    assert result["lost"] == [{"table": "users", "column": "level", "rows": 2}]
    assert [each["class"] for each in result["samples"]["users"]].count("migrated") == 20
    assert sealed.preview(mode="keep")["classes"] == CLASSES


def test_samples_show_before_migrated_and_now(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    sealed.execute("UPDATE users SET tier = 'gold', token = 'HIDDEN more', email = repeat('é', 300) WHERE id = 2",
                   """UPDATE "o""dd %s {} files" SET "wh""o %" = E'\\\\ ''"' WHERE id = 7""")  # fmt: skip
    samples = sealed.preview()["samples"]
    users = {(each["class"], *each["key"]): {c["name"]: c for c in each["columns"]} for each in samples["users"]}
    assert [key for key in users if key[0] == "edited"] == [("edited", i) for i in ("1", "2", "31", "33")]
    two = users["edited", "2"]
    assert two["tier"] == {"name": "tier", "before": None, "migrated": "free", "now": "gold", "secret": False}
    assert two["token"] == {"name": "token", "before": None, "migrated": None, "now": None, "secret": True}
    assert two["email"]["now"] == "é" * 200
    assert set(two) == {"tier", "token", "email"}
    assert users["edited", "33"]["amount"] | {"secret": None} == {
        "name": "amount", "before": "1.00", "migrated": "1.00", "now": "1.0", "secret": None,
    }  # fmt: skip
    new, gone = users["created", "100"], users["deleted", "60"]
    assert (new["email"]["before"], new["email"]["migrated"], new["email"]["now"]) == (None, None, "new")
    assert (gone["tier"]["before"], gone["tier"]["migrated"], gone["tier"]["now"]) == (None, "free", None)
    assert set(new) == set(gone) == {"id", "email", "tier", "token", "amount", "note"}
    files = {(each["class"], *each["key"]): {c["name"]: c for c in each["columns"]} for each in samples[ODD]}
    assert files["edited", "7"][WHO]["now"] == "\\ '\""
    assert files["edited", "2"]["chunks"] == {
        "name": "chunks", "before": None, "migrated": "3", "now": "99", "secret": False,
    }  # fmt: skip
    shown = json.dumps(samples).lower()
    assert "hidden" not in shown
    assert "unknown" not in shown  # of a column that the plan does not know


def test_rows_in_quarantine_were_left_as_they_were(target_database: str, tmp_path: Path) -> None:
    sealed = migrated(target_database, tmp_path, "2", "4")
    assert sealed.preview()["classes"]["users"] == {
        "untouched": 27, "migrated": 33, "edited": 0, "created": 0, "deleted": 0,
    }  # fmt: skip
    sealed.execute("UPDATE users SET tier = 'free', token = upper(token), level = 'level 4' WHERE id = 4")
    result = sealed.preview()
    assert result["lost"] == [{"table": "users", "column": "level", "rows": 1}]  # what a repair would have put there
    assert result["classes"]["users"]["edited"] == 1  # a correction
    [shown] = [each for each in result["samples"]["users"] if each["class"] == "edited"]
    assert [(c["name"], c["migrated"]) for c in shown["columns"]] == [("tier", None), ("token", None)]


def test_a_backup_of_no_migration_has_nothing_to_undo(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    sealed.execute("UPDATE users SET tier = 'free' WHERE id = 2", "INSERT INTO chunks VALUES (101, 1)")
    result = sealed.preview()
    assert (result["keep"], result["derived"], result["left_out"], result["lost"]) == (None, {}, {}, [])
    assert result["classes"]["users"] == {"untouched": 59, "migrated": 0, "edited": 1, "created": 0, "deleted": 0}
    assert result["classes"]["chunks"]["created"] == 1


def test_a_table_whose_child_is_not_chosen(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    result = sealed.preview(tables=[ODD])
    assert result["classes"] == {ODD: CLASSES[ODD]}
    assert result["tables"].keys() == result["samples"].keys() == {ODD}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("ALTER TABLE chunks RENAME size TO length", "column size is gone"),
        ("ALTER TABLE chunks ALTER size TYPE text", "column size is text, and was pg_catalog.int4"),
        ("ALTER TABLE chunks DROP file_id", "column file_id is gone"),
    ],
)
def test_a_child_that_is_not_chosen_and_has_changed(
    target_database: str, tmp_path: Path, change: str, fault: str
) -> None:
    sealed = edited(target_database, tmp_path)
    sealed.execute(change, "ALTER TABLE chunks DROP number")  # which no aggregate reads
    for ask in (sealed.preview, lambda **options: sealed.roll_back(mode="keep", **options)):
        with pytest.raises(Refused, match=f"^public.chunks, which aggregates .*: {fault}\\. ") as caught:
            ask(tables=[ODD])
        assert "Bring the columns back" in str(caught.value.remedy)
    sealed.execute("DROP TABLE chunks")
    assert sealed.preview(tables=[ODD])["classes"][ODD]["created"] == 0
    with pytest.raises(Refused, match=r"^public\.chunks is gone, and aggregates"):
        sealed.roll_back(mode="keep", tables=[ODD])


def test_arrays_staged_as_text_and_large_tables_of_samples(target_database: str, tmp_path: Path) -> None:
    sealed = SealedTarget(target_database, plan_of("t"), tmp_path / "store")
    sealed.execute(
        "CREATE TYPE colour AS ENUM ('red', 'blue')",
        "CREATE TABLE t (id text PRIMARY KEY, c colour[], d date)",
        "INSERT INTO t SELECT 'k' || i, '{red}', 'infinity' FROM generate_series(1, 150) i",
    )
    sealed.back_up()
    sealed.execute("UPDATE t SET c = '{blue,NULL}' WHERE id <> 'k1'", "DELETE FROM t WHERE id = 'k1'")
    result = sealed.preview()
    assert result["classes"]["t"] == {"untouched": 0, "migrated": 0, "edited": 149, "created": 0, "deleted": 1}
    edits = [each for each in result["samples"]["t"] if each["class"] == "edited"]
    assert [edits[0]["key"], len(edits)] == [["k10"], 100]
    assert edits[0]["columns"] == [{"name": "c", "before": None, "migrated": None, "now": None, "secret": True}]
