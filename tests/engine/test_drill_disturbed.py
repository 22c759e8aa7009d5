"""Drills that are stopped, killed, crashed under, or shared: they end as one alone does, and leave nothing."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import (
    BackupDamaged,
    Stopped,
    Unavailable,
)
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import drill, helping, pipeline, scratch
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.drilled import Drilled, Watched
from tests.engine.sealed_target import KEYS


@pytest.fixture
def drilled(target_database: str, tmp_path: Path) -> Drilled:
    made = Drilled(target_database, tmp_path / "store")
    made.back_up()
    return made


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


@pytest.mark.parametrize("failures", [1, 9])
def test_a_connection_that_is_lost_while_dropping_leaves_no_scratch_behind(
    drilled: Drilled, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once is tried again; a place that stays away fails the run, and the next attempt drops what is there."""
    context, real, tries = drilled.context(), scratch.drop_scratch, iter(range(failures))
    drilled.stage(context)

    def lost(*args: Any, **options: Any) -> None:
        if next(tries, None) is not None:
            raise psycopg.OperationalError("the connection is lost")
        real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(scratch, "drop_scratch", lost)
        if failures == 1:
            drill.verify(context)
        else:
            with pytest.raises(Unavailable, match="Dropping"):
                drill.verify(context)
            assert "proofs" not in drilled.recorded
    if failures > 1:
        assert drilled.scratches != []
        pipeline.lead(drilled.context())
    assert drilled.scratches == []
    assert [proof["level"] for proof in drilled.recorded["proofs"]] == ["L2"]


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
