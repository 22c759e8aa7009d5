"""Drills: a whole backup restores, on the target or elsewhere; what does not is said, all of it; nothing is left."""

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import (
    BackupDamaged,
    BackupExpired,
    BackupKeyMissing,
    PreflightFailed,
    RunFailed,
    Stopped,
    Unavailable,
)
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import drill, helping, pipeline
from briefly_admin.engine.target import Target
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.drilled import Drilled, Watched, another_database
from tests.engine.sealed_target import KEYS

TABLES = ["parents", "children", "other.parents", "orders"]


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
    with pytest.raises(BackupDamaged, match="one instant") as caught:
        drilled.drill()
    first, second = caught.value.damages
    assert "10 rows have no counterpart in parents (foreign key children_code_fkey)" in first
    assert "10 rows have no counterpart in parents (foreign key children_parent_id_fkey)" in second
    assert (drilled.scratches, drilled.looks()) == ([], before)
    assert drilled.recorded["state"] == "damaged"
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


@pytest.mark.parametrize("reason", ["cancel", "pause", "interrupt"])
@pytest.mark.parametrize("phase", [Phase.STAGE, Phase.VERIFY])
def test_a_stop_leaves_no_scratch_and_the_drill_can_be_resumed(drilled: Drilled, reason: str, phase: Phase) -> None:
    stopped: list[str] = []

    def report(progress: Progress) -> None:
        if progress.phase == phase and any(table.done for table in progress.tables):
            stopped.append(reason)

    with pytest.raises(Stopped):
        pipeline.lead(drilled.context(report=report, should_stop=lambda: stopped[0] if stopped else None))
    assert (drilled.scratches, "proofs" in drilled.recorded) == ([], False)
    assert pipeline.lead(drilled.context())["verify"]["rows"] == 1280
    assert drilled.scratches == []


@pytest.mark.parametrize("phase", [Phase.STAGE, Phase.VERIFY])
def test_the_next_attempt_clears_what_a_killed_worker_left(drilled: Drilled, phase: Phase) -> None:
    class Killed(BaseException):
        pass

    def dead() -> Any:
        raise psycopg.OperationalError("this worker is dead, and drops nothing")

    context = drilled.context()
    if phase is Phase.VERIFY:
        drilled.stage(context)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("briefly_admin.engine.staging.drop_quietly", lambda *_: None)
            patch.setattr("briefly_admin.engine.staging.fill", lambda *_: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                drill.stage(context)
    assert len(drilled.scratches) == 1
    assert pipeline.lead(drilled.context())["verify"]["rows"] == 1280
    assert drilled.scratches == []


@pytest.mark.parametrize("at", ["digests", "foreign keys"])
def test_tables_that_a_crash_of_the_server_empties_are_staged_again(drilled: Drilled, at: str) -> None:
    emptied: list[str] = []

    def crash() -> None:
        [schema] = drilled.scratches
        emptied.append(schema)
        tables = ", ".join(f"{schema}.{name}" for name in ("t0", "t1", "t2", "t3", "parts"))
        drilled.execute(f"TRUNCATE {tables}")

    def report(progress: Progress) -> None:
        if not emptied and at == "foreign keys" and any("foreign" in table.table for table in progress.tables):
            crash()

    context = drilled.context(report=report)
    drilled.stage(context)
    if at == "digests":
        crash()
    assert drill.verify(context)["rows"] == 1280
    assert len(emptied) == 1
    assert drilled.scratches == []
    assert any("emptied" in line for _, line, _ in drilled.run.lines)


def test_a_server_that_always_crashes_ends_the_drill(drilled: Drilled) -> None:
    def report(progress: Progress) -> None:
        if any("foreign" in table.table for table in progress.tables):
            [schema] = drilled.scratches
            drilled.execute(f"TRUNCATE {schema}.t0, {schema}.t1, {schema}.t2, {schema}.t3, {schema}.parts")

    with pytest.raises(Unavailable, match="crashed"):
        drilled.drill(report=report)
    assert (drilled.scratches, "proofs" in drilled.recorded) == ([], False)


def test_helpers_take_their_part_and_one_with_another_store_leaves(drilled: Drilled, tmp_path: Path) -> None:
    drilled.flip(3)
    meeting, met, over = threading.Barrier(2, timeout=10), set[str](), threading.Event()

    def together(_: int) -> None:
        name = threading.current_thread().name
        if name not in met:
            met.add(name)
            meeting.wait()  # passes only if two work at once

    vault = Vault(Watched(drilled.root, together), KEYS)
    context = drilled.context(vault=vault)
    empty = tmp_path / "empty"
    shutil.copytree(drilled.root, empty)
    shutil.rmtree(empty / str(drilled.id) / "streams")
    ends: list[Exception] = []

    def help_(helper: Any) -> None:
        try:
            while not over.is_set():
                helping.assist(helper)
        except Exception as error:  # noqa: BLE001 - the test looks at whatever it was
            ends.append(error)

    lost = replace(drilled.helper(context), vault=Vault(DirectoryStore(empty), KEYS))
    threads = [threading.Thread(target=help_, args=(helper,)) for helper in (drilled.helper(context), lost)]
    for thread in threads:
        thread.start()
    try:
        with pytest.raises(BackupDamaged) as caught:
            drilled.stage(context)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {line.split(", chunk")[0] for line in caught.value.damages} == {"public.children, stream 3"}
    assert {row.view.worker for row in drilled.run.partitions.steps["stage"]} >= {"test:1", "test:2"}
    assert all("to others" in str(end) for end in ends)
    assert drilled.scratches == []
