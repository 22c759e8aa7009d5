"""The phase verify by several workers: the same report however many they are, and whatever becomes of them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from briefly_admin.domain.errors import BackupDamaged, Stopped, Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.records import QuarantinedRow
from briefly_admin.engine import loading, unchanged, verify
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import help_out
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import AGAIN
from tests.engine.journal_memory import MemoryJournal
from tests.engine.library import NAME, Library

STEPS = {step.name: step for step in (*loading.STEPS, *unchanged.STEPS, AGAIN)}
BOOKS = 'books "100%"'
WRITES = (
    f"UPDATE {NAME} SET title = 'Mine' WHERE id % 10 = 5",
    f"INSERT INTO {NAME} VALUES (500, 'New', 'pro', 0)",
    f"DELETE FROM {NAME} WHERE id = 6",
    "UPDATE pages SET body = 'mine' WHERE id % 40 = 0",
    "DELETE FROM pages WHERE id BETWEEN 1990 AND 2010",
    "INSERT INTO pages SELECT i, 1, 'new' FROM generate_series(-5, 0) i",
)


@pytest.fixture
def library(target_database: str, tmp_path: Path) -> Library:
    made = Library(target_database, tmp_path / "backups", workers=3)
    made.fill(pages=4000)
    made.migrate()
    made.sql(f"UPDATE {NAME} b SET pages = (SELECT count(*) FROM pages WHERE book_id = b.id)")
    return made


def others(library: Library) -> None:
    """What others write; the counts stay right."""
    for statement in WRITES:
        library.sql(statement)
    library.sql(f"UPDATE {NAME} b SET pages = (SELECT count(*) FROM pages WHERE book_id = b.id)")


@contextmanager
def helping(library: Library, *names: str, **changes: Any) -> Iterator[list[str]]:
    """Helpers at work, asked anew whenever they leave; why they left."""
    over, left = threading.Event(), list[str]()

    def help_(context: RunContext) -> None:
        while not over.is_set():
            try:
                help_out(context, STEPS)
            except Unavailable as error:
                left.append(error.message)
                time.sleep(0.2)  # it was asked anew, not at once

    threads = []
    for name in names:
        journal = MemoryJournal(library.record, 1, worker=name)
        context = replace(library.context, journal=journal, sleep=lambda s: time.sleep(s / 10), **changes)
        threads.append(threading.Thread(target=help_, args=(context,)))
    for thread in threads:
        thread.start()
    try:
        yield left
    finally:
        over.set()
        for thread in threads:
            thread.join()


def slowly(library: Library) -> RunContext:
    """The leader dawdles, so that helpers get their share."""

    def dawdle() -> None:
        time.sleep(0.03)

    return replace(library.context, should_stop=dawdle, sleep=lambda s: time.sleep(s / 10))


def workers(library: Library, step: str) -> set[str]:
    return {row.view.worker for row in library.record.partitions.steps[step]}


def scratches(library: Library) -> list[Any]:
    with psycopg.connect(library.dsn) as connection:
        return connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'briefly_scratch%'").fetchall()


def test_three_workers_report_what_one_reports(library: Library) -> None:
    others(library)
    expected = library.verify()["unchanged"]
    assert expected[BOOKS]["others"]["created"] == 1
    assert expected["pages"]["others"] == {"edited": 99, "deleted": 21, "created": 6}
    assert len(expected["pages"]["samples"]) == 20
    assert {len(library.record.partitions.steps[step]) for step in ("digest", "diff")} == {2}
    with helping(library, "test:2", "test:3"):
        found = verify.run(slowly(library), large=1)["unchanged"]
    assert found == expected
    assert len(library.record.partitions.steps["digest"]) > 8
    assert len(library.record.partitions.steps["diff"]) == 10  # nine ranges of pages; books count them, and stay whole
    assert workers(library, "digest") | workers(library, "diff") == {"test:1", "test:2", "test:3"}
    assert scratches(library) == []


def test_helpers_that_are_killed_again_and_again_change_nothing(library: Library) -> None:
    others(library)
    expected = library.verify()["unchanged"]
    over = threading.Event()
    config = replace(library.config, max_retries=0)

    def kill() -> None:
        with psycopg.connect(library.dsn, autocommit=True) as connection:
            while not over.wait(0.02):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a helper'"
                )

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    with helping(
        library, "test:2", "test:3", target=Target(library.dsn, "a helper"), read_config=lambda: config
    ) as left:  # fmt: skip
        found = verify.run(slowly(library), large=1)["unchanged"]
        over.set()
    thread.join()
    assert found == expected
    assert any("to others" in line for line in left)
    assert scratches(library) == []


def test_damage_is_found_and_nothing_is_left(library: Library, tmp_path: Path) -> None:
    for stream in (tmp_path / "backups").rglob("streams/*.bma"):
        data = bytearray(stream.read_bytes())
        data[len(data) // 2] ^= 1
        stream.chmod(0o600)
        stream.write_bytes(bytes(data))
    with helping(library, "test:2"), pytest.raises(BackupDamaged):
        verify.run(slowly(library), large=1)
    assert scratches(library) == []


@pytest.mark.parametrize("last", [5, 20, 35])
def test_a_stop_leaves_nothing(library: Library, last: int) -> None:
    looks = iter(range(1000))
    stopping = replace(library.context, should_stop=lambda: "cancel" if next(looks) >= last else None)
    with pytest.raises(Stopped):
        verify.run(stopping, large=1)
    assert scratches(library) == []


def test_rows_in_quarantine_are_left_aside_as_long_as_nobody_touches_them(library: Library) -> None:
    def alone(key: str) -> None:
        row = QuarantinedRow(BOOKS, (key,), "check", "its tier is wrong")
        library.record.quarantine[BOOKS, (key,)] = row

    # As a run leaves them: 3 and 9 had no tier, and have none now; somebody has written to 9, too.
    library.sql(f"UPDATE {NAME} SET tier = NULL WHERE id IN (3, 9)")
    library.sql(f"UPDATE {NAME} SET pages = id % 4 WHERE id = 3")
    library.sql(f"UPDATE {NAME} SET title = 'Mine' WHERE id = 9")
    alone("3")
    alone("9")
    found = library.verify()["unchanged"][BOOKS]
    assert found["samples"] == [{"key": "9", "what": "edited"}]


def test_a_column_of_another_type_since_is_compared_by_its_bytes(library: Library) -> None:
    library.sql("ALTER TABLE pages ALTER book_id TYPE bigint")
    library.sql("UPDATE pages SET body = 'mine' WHERE id = 7")
    found = library.verify()["unchanged"]["pages"]
    assert found["samples"] == [{"key": "7", "what": "edited"}]
    assert found["buckets"] > 1000


def test_emptied_digests_are_told(library: Library) -> None:
    def report(progress: Progress) -> None:
        for (schema,) in scratches(library) if progress.done else ():
            library.sql(f"TRUNCATE {schema}.parts")

    with pytest.raises(Unavailable, match="emptied the digests"):
        verify.run(replace(library.context, report=report))
    assert scratches(library) == []


def test_the_backup_is_that_of_the_run(library: Library) -> None:
    """Staged are its tables, and only those that differ and what their repairs read."""
    library.verify()
    steps = library.record.partitions.steps
    assert {row.view.partition.table for row in steps["verify-stage"]} == {BOOKS, "pages"}
    assert UUID(str(steps["verify-stage"][0].shared["backup_id"])) in library.record.backups
    assert set(steps["diff"][0].shared) == {"schema", "staged", "columns", "written"}
    assert {row.view.partition.table for row in steps["diff"]} == {BOOKS}
