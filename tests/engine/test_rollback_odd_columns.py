"""Generated keys, columns named like our own aliases and SQL's words, dropped columns, and tables without rows."""

from pathlib import Path

from briefly_admin.domain.runs import Phase
from tests.engine.sealed_target import SealedTarget, plan_of

_ODD = '%s "k'
_MADE = (
    ('CREATE TABLE t (a int, gone int, "%s ""k" text, g int GENERATED ALWAYS AS (a * 2) STORED, here int, there int,'
    ' class text, differs bool, stale bool, m0 int, "now" int, was int, "select" text, PRIMARY KEY (g, "%s ""k"))'),
    "ALTER TABLE t DROP gone",
    'INSERT INTO t (a, "%s ""k", here, class) SELECT i, \'%s {x}\' || i, i, \'c\' FROM generate_series(1, 20) i',
    "CREATE TABLE empty (id int PRIMARY KEY, gone int)", "ALTER TABLE empty DROP gone",
    'CREATE TABLE u ("select" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "from" int UNIQUE DEFERRABLE INITIALLY DEFERRED)',
    'INSERT INTO u ("from") SELECT i FROM generate_series(1, 10) i',
    ('CREATE TABLE "o %s" (g int, "%s ""k" text DEFAULT \'%\', FOREIGN KEY (g, "%s ""k") REFERENCES t MATCH FULL'
    " ON DELETE CASCADE)"),
)  # fmt: skip


def backed_up(dsn: str, path: Path) -> SealedTarget:
    plan = plan_of("t", "empty", "u", keys={"t": ("g", _ODD), "u": ("select",)})
    sealed = SealedTarget(dsn, plan, path / "store")
    sealed.execute(*_MADE)
    sealed.back_up()
    return sealed


def test_exact_leads_back_to_the_same_bytes(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    before = sealed.dump()
    sealed.execute(
        "UPDATE t SET a = 21 - a WHERE a < 5",  # other keys, so other rows
        "UPDATE t SET here = NULL, \"select\" = '%s' WHERE a = 7", "DELETE FROM t WHERE a = 9",
        'INSERT INTO "o %s" VALUES (40, \'%s {x}1\'), (20, \'%s {x}10\')', "INSERT INTO empty VALUES (1), (2)",
        'UPDATE u SET "from" = 11 - "from"', 'DELETE FROM u WHERE "select" = 3',
    )  # fmt: skip
    preview = sealed.preview()
    assert preview["classes"]["t"] == {"untouched": 14, "migrated": 0, "edited": 1, "created": 4, "deleted": 5}
    assert preview["classes"]["empty"] == {"untouched": 0, "migrated": 0, "edited": 0, "created": 2, "deleted": 0}
    assert [(entry["table"], entry["rows"], entry["blocks"]) for entry in preview["outside"]] == [
        ("public.o %s", 1, False)
    ]
    done = sealed.roll_back(allow=["public.o %s"])[Phase.RESTORE]
    assert (sealed.dump(), done["outside"]) == (before, {"public.o %s": 1})
    assert sealed.query('SELECT * FROM "o %s"') == [(20, "%s {x}10")]


def test_keep_settles_rows_by_such_keys(target_database: str, tmp_path: Path) -> None:
    sealed = backed_up(target_database, tmp_path)
    sealed.options = sealed.origin
    sealed.execute(
        "UPDATE t SET here = NULL WHERE a IN (7, 8)", "DELETE FROM t WHERE a = 9", "INSERT INTO empty VALUES (1)"
    )
    shown = [each["key"] for each in sealed.preview()["samples"]["t"] if each["class"] == "edited"]
    assert shown == [["14", "%s {x}7"], ["16", "%s {x}8"]]
    settled = {"t": [{"key": ["14", "%s {x}7"], "how": "restore"}]}
    done = sealed.roll_back(mode="keep", settled=settled, rules={"deleted": "bring_back", "created": "delete"})
    assert done[Phase.RESTORE]["tables"] == {
        "t": {"same": 18, "update": 1, "insert": 1, "delete": 0}, "empty": {"same": 0, "update": 0, "insert": 0, "delete": 1},
        "u": {"same": 10, "update": 0, "insert": 0, "delete": 0},
    }  # fmt: skip
    assert sealed.query("SELECT a FROM t WHERE here IS NULL") == [(8,)]
