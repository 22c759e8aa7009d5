"""Drills: a whole backup restores, on the target or elsewhere; what does not is said, all of it; nothing is left."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from briefly_admin.domain.errors import (
    BackupDamaged,
    BackupExpired,
    BackupKeyMissing,
    PreflightFailed,
    RunFailed,
    Unavailable,
    VerificationFailed,
)
from briefly_admin.engine import drill, pipeline
from briefly_admin.engine.target import Target
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.drilled import Drilled, Watched, another_database
from tests.engine.sealed_target import KEYS


@pytest.fixture
def drilled(target_database: str, tmp_path: Path) -> Drilled:
    made = Drilled(target_database, tmp_path / "store")
    made.back_up()
    return made


@pytest.fixture
def elsewhere(drilled: Drilled, superuser_database: Callable[[str], str]) -> Iterator[str]:
    """Another database, which has the extension, and no table."""
    superuser = superuser_database(drilled.dsn)
    with another_database(superuser, drilled.dsn) as dsn:
        drilled.execute("CREATE EXTENSION vector", dsn=superuser_database(dsn))
        yield dsn


def test_a_whole_backup_restores_on_the_target_and_touches_nothing(drilled: Drilled) -> None:
    before = drilled.looks()
    report = pipeline.lead(drilled.context())
    assert drilled.looks() == before
    assert drilled.scratches == []
    assert list(report) == ["preflight", "stage", "verify"]
    assert report["preflight"]["colour"] in {"green", "amber"}
    verify = report["verify"]
    assert (verify["level"], verify["rows"], verify["damage_count"]) == ("L2", 1280, 0)
    assert [(t["table"], t["rows"], t["equal"]) for t in verify["tables"]] == [
        ("parents", 200, True), ("children", 1000, True), ("other.parents", 50, True), ("orders", 30, True),
    ]  # fmt: skip
    assert all(table["bytes"] > 0 and table["seconds"] > 0 for table in verify["tables"])
    keys = {(k["table"], k["references"]): (k["holds"], k["orphans"], k["rows"]) for k in verify["foreign_keys"]}
    assert keys == {
        ("children", "parents"): (True, 0, 1000), ("children", "children"): (True, 0, 1000),
        ("orders", "children"): (True, 0, 30),
    }  # fmt: skip
    assert len(verify["foreign_keys"]) == 4
    [proof] = drilled.recorded["proofs"]
    assert proof == {
        "level": "L2", "damages": [], "rows": 1280, "seconds": verify["seconds"], "place": drilled.place.title
    }  # fmt: skip
    assert verify["seconds"] >= report["stage"]["seconds"] > 0


def test_it_restores_in_another_database_as_well(drilled: Drilled, elsewhere: str) -> None:
    drilled.place = Target(elsewhere)
    drilled.execute("DROP TABLE other.orders")  # the backup's own database has moved on
    verify = pipeline.lead(drilled.context())["verify"]
    assert (verify["rows"], verify["place"]) == (1280, drilled.place.title)
    assert drilled.scratches == []
    assert drilled.query(
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    ) == [(0,)]


def test_tables_whose_names_run_together_are_two(target_database: str, tmp_path: Path) -> None:
    """Schema `a` with the table `b.c`, and schema `a.b` with the table `c`."""
    made = Drilled(target_database, tmp_path / "store")
    made.execute("CREATE SCHEMA a", 'CREATE SCHEMA "a.b"')
    made.execute('CREATE TABLE a."b.c" AS SELECT 1 AS id', 'CREATE TABLE "a.b".c AS SELECT 2 AS id UNION SELECT 3')
    made.back_up(("a", "b.c"), ("a.b", "c"))
    assert made.vault.open(made.id, made.recorded["shred_key"], made.recorded["manifest_sha256"]).verify() == []
    verify = pipeline.lead(made.context())["verify"]
    assert [(table["table"], table["rows"]) for table in verify["tables"]][-2:] == [("b.c", 1), ("c", 2)]
    assert all(table["seconds"] > 0 for table in verify["tables"])


def test_a_place_without_the_extension_or_of_another_encoding_is_refused(
    drilled: Drilled, superuser_database: Callable[[str], str]
) -> None:
    with another_database(superuser_database(drilled.dsn), drilled.dsn, encoding="LATIN1") as dsn:
        drilled.place = Target(dsn)
        with pytest.raises(PreflightFailed) as caught:
            pipeline.lead(drilled.context())
        assert drilled.scratches == []
    for words in ("public.vector", "LATIN1", "CREATE EXTENSION vector"):
        assert words in str(caught.value), words
    assert "proofs" not in drilled.recorded


def test_a_role_that_may_not_make_a_schema_is_refused(
    drilled: Drilled, elsewhere: str, superuser_database: Callable[[str], str]
) -> None:
    facts = psycopg.conninfo.conninfo_to_dict(elsewhere)
    drilled.execute(f'ALTER DATABASE "{facts["dbname"]}" OWNER TO CURRENT_USER', dsn=superuser_database(elsewhere))
    drilled.place = Target(elsewhere)
    with pytest.raises(PreflightFailed, match="GRANT CREATE"):
        pipeline.lead(drilled.context())


def test_types_that_the_place_lacks_are_made_in_the_scratch(
    target_database: str, tmp_path: Path, superuser_database: Callable[[str], str]
) -> None:
    drilled = Drilled(target_database, tmp_path / "store")
    drilled.execute(
        "CREATE TYPE mood AS ENUM ('glad', 'sad')", "CREATE DOMAIN short AS varchar(5) CHECK (VALUE <> '')",
        "CREATE TYPE pair AS (a int, b mood)", "CREATE TYPE span AS RANGE (SUBTYPE = float8)",
        "ALTER TABLE other.parents ADD m mood, ADD s short, ADD p pair, ADD r span, ADD ms mood[]",
        "UPDATE other.parents SET m = 'sad', s = 'x', p = (1, 'glad'), r = '[1,2)', ms = '{glad,sad}'",
    )  # fmt: skip
    drilled.back_up()
    with another_database(superuser_database(drilled.dsn), drilled.dsn) as dsn:
        drilled.execute("CREATE EXTENSION vector", dsn=superuser_database(dsn))
        drilled.place = Target(dsn)
        types = drilled.query("SELECT oid, typname FROM pg_type ORDER BY 1")
        assert pipeline.lead(drilled.context())["verify"]["rows"] == 1280
        assert drilled.query("SELECT oid, typname FROM pg_type ORDER BY 1") == types


def test_a_place_that_does_not_answer_is_no_damage(drilled: Drilled) -> None:
    drilled.place = Target(drilled.dsn.replace(drilled.dsn.rsplit("/", 1)[1], "nobody"))
    with pytest.raises(Unavailable):
        pipeline.lead(drilled.context())
    assert drilled.recorded["state"] == "proven"


def test_all_damage_is_listed(drilled: Drilled) -> None:
    """A flipped bit, a missing stream, and rows that are not the manifest's, in tables of their own."""
    before = drilled.looks()
    manifest = drilled.vault.open(drilled.id, *_keys(drilled)).manifest
    numbers = {title: [stream.number for stream in table.streams] for title, table in manifest.by_title.items()}
    assert len(numbers["children"]) > 2
    drilled.flip(numbers["children"][0])
    drilled.flip(numbers["children"][2])
    drilled.file(numbers["parents"][0]).unlink()
    with pytest.raises(BackupDamaged) as caught:
        drilled.drill()
    places = {line.split(": ")[0].split(", chunk")[0] for line in caught.value.damages}
    assert places == {
        f"public.children, stream {numbers['children'][0]}", f"public.children, stream {numbers['children'][2]}",
        f"public.parents, stream {numbers['parents'][0]}",
    }  # fmt: skip
    assert (drilled.scratches, drilled.looks()) == ([], before)
    assert drilled.recorded["state"] == "damaged"
    assert drilled.recorded["proofs"][-1]["damages"] == list(caught.value.damages)
    assert any(level == "error" and "stream" in line for level, line, _ in drilled.run.lines)


def _keys(drilled: Drilled) -> tuple[bytes, str]:
    return drilled.recorded["shred_key"], drilled.recorded["manifest_sha256"]


def test_staged_rows_that_are_not_the_backups_are_damage_in_every_table(drilled: Drilled) -> None:
    context = drilled.context()
    drilled.stage(context)
    [schema] = drilled.scratches
    drilled.execute(f"UPDATE {schema}.t2 SET id = 7 WHERE id = 8", f"DELETE FROM {schema}.t3 WHERE id = 3",
                    f"UPDATE {schema}.t1 SET id = 5 WHERE id = 6")  # fmt: skip
    with pytest.raises(BackupDamaged) as caught:
        drill.verify(context)
    assert [line.split(":")[0] for line in caught.value.damages] == ["public.children", "other.parents", "other.orders"]
    assert drilled.scratches == []


def test_rows_without_a_counterpart_say_that_the_copy_is_not_one_instant(
    target_database: str, tmp_path: Path, superuser_database: Callable[[str], str]
) -> None:
    """A superuser has gone around a validated key; another key was never validated."""
    drilled = Drilled(target_database, tmp_path / "store")
    drilled.execute(
        "SET session_replication_role TO replica; DELETE FROM parents WHERE id IN (3, 4);"
        "UPDATE other.orders SET note = -1 WHERE id < 4",
        dsn=superuser_database(target_database),
    )
    drilled.execute("ALTER TABLE other.orders ADD CONSTRAINT late FOREIGN KEY (note) REFERENCES children NOT VALID")
    drilled.back_up()
    before = drilled.looks()
    with pytest.raises(VerificationFailed, match="one instant"):
        drilled.drill()
    first, second = drilled.recorded["proofs"][-1]["damages"]
    assert "10 rows have no counterpart in parents (foreign key children_code_fkey)" in first
    assert "10 rows have no counterpart in parents (foreign key children_parent_id_fkey)" in second
    assert (drilled.scratches, drilled.looks()) == ([], before)
    assert drilled.recorded["state"] == "proven", "its bytes are what was backed up"
    assert any(
        level == "warning" and "orders, foreign key late: 3 rows have no counterpart" in line
        for level, line, _ in drilled.run.lines
    )


def test_a_key_that_was_not_validated_fails_no_drill(target_database: str, tmp_path: Path) -> None:
    drilled = Drilled(target_database, tmp_path / "store")
    drilled.execute("UPDATE other.orders SET note = -1 WHERE id < 4",
                    "ALTER TABLE other.orders ADD CONSTRAINT late FOREIGN KEY (note) REFERENCES children NOT VALID",
                    "CREATE TABLE apart (id int PRIMARY KEY)",
                    "ALTER TABLE other.parents ADD far int REFERENCES apart")  # fmt: skip
    drilled.back_up()
    keys = {key["name"]: key for key in drilled.drill()["foreign_keys"]}
    assert (keys["late"]["holds"], keys["late"]["orphans"], keys["late"]["validated"]) == (False, 3, False)
    assert keys["parents_far_fkey"]["holds"] is None
    assert keys["parents_far_fkey"]["remark"] == "public.apart is not in the backup"
    assert drilled.recorded["proofs"][-1]["damages"] == []


def test_rows_that_the_place_refuses_fail_the_drill_and_are_no_damage(drilled: Drilled) -> None:
    def change(number: int) -> None:
        if number == 1:
            drilled.execute(f"ALTER TABLE {drilled.scratches[0]}.t3 ALTER note TYPE bigint")

    drilled.execute("UPDATE other.orders SET note = 1")
    drilled.back_up()
    with pytest.raises(RunFailed, match=r"refuses rows of other\.orders"):
        drilled.drill(vault=Vault(Watched(drilled.root, change), KEYS))
    assert (drilled.recorded["state"], drilled.scratches) == ("proven", [])


def test_damage_that_keeps_it_from_being_opened(drilled: Drilled) -> None:
    (drilled.root / str(drilled.id) / "manifest.bma").unlink()
    with pytest.raises(BackupDamaged):
        pipeline.lead(drilled.context())
    assert drilled.recorded["state"] == "damaged"
    assert drilled.recorded["proofs"][-1]["level"] == "L2"


def test_a_missing_key_or_a_shredded_backup_is_no_damage(drilled: Drilled) -> None:
    other = Vault(DirectoryStore(drilled.root), MasterKeys({"k9": bytes(32)}))
    with pytest.raises(BackupKeyMissing, match="first"):
        pipeline.lead(drilled.context(vault=other))
    assert "proofs" not in drilled.recorded
    drilled.recorded["shred_key"] = None
    with pytest.raises(BackupExpired):
        pipeline.lead(drilled.context())
    assert "proofs" not in drilled.recorded


def test_a_store_that_is_lost_on_the_way_is_no_damage(drilled: Drilled) -> None:
    def lose(number: int) -> None:
        if number == 3 and drilled.root.exists():
            drilled.root.rename(drilled.root.with_name("elsewhere"))

    with pytest.raises(Unavailable, match="nothing at all"):
        drilled.drill(vault=Vault(Watched(drilled.root, lose), KEYS))
    assert ("proofs" in drilled.recorded, drilled.scratches) == (False, [])
