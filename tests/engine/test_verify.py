"""The phase verify: what the migration left is repair(before), row by row, and whatever else differs is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from briefly_admin.domain.errors import VerificationFailed
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import before
from briefly_admin.plans.base import Column, Repair
from tests.engine.library import BOOKS, NAME, PAGES, PLAN, Library


@pytest.fixture
def make(target_database: str, tmp_path: Path) -> Callable[..., Library]:
    def library(**config: Any) -> Library:
        made = Library(target_database, tmp_path / "backups", **config)
        made.fill()
        return made

    return library


def test_a_migration_that_nobody_disturbs_is_explained_whole(make: Callable[..., Library]) -> None:
    library = make(expect_quiet=True)
    library.migrate()
    result = library.verify()
    books = result["unchanged"]['books "100%"']
    assert books["rows_before"] == books["rows_now"] == 100
    assert books["buckets"] > 10
    assert books["others"] == {}
    assert result["unchanged"]["pages"]["buckets"] == 0
    assert result["after"]["queries"][0]["ms"] > 0
    assert result["after"]["queries"][0]["nodes"]
    assert result["before"]["queries"][1]["note"] == "there is no row to ask for"


def test_no_scratch_is_left(make: Callable[..., Library], target_database: str) -> None:
    library = make()
    library.migrate()
    library.verify()
    with psycopg.connect(target_database) as connection:
        assert (
            connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'briefly_scratch%'").fetchall()
            == []
        )


def test_what_others_wrote_is_named(make: Callable[..., Library]) -> None:
    library = make()
    library.migrate()
    library.sql(f"UPDATE {NAME} SET title = 'Mine' WHERE id = 5")
    library.sql(f"INSERT INTO {NAME} VALUES (500, 'New', 'pro', 0)")
    library.sql(f"DELETE FROM {NAME} WHERE id = 6")
    library.sql("DELETE FROM pages WHERE book_id = 6")
    books = library.verify()["unchanged"]['books "100%"']
    assert books["others"] == {"edited": 1, "created": 1, "deleted": 1}
    assert {(s["key"], s["what"]) for s in books["samples"]} == {("5", "edited"), ("500", "created"), ("6", "deleted")}


@pytest.mark.parametrize(
    "wrong",
    [
        f"UPDATE {NAME} SET title = 'Mine' WHERE id = 5",
        f"UPDATE {NAME} SET tier = 'pro' WHERE id = 9",
        "UPDATE pages SET body = 'y' WHERE id = 1",
        f"INSERT INTO {NAME} VALUES (500, 'New', 'pro', 0)",
    ],
)
def test_with_expect_quiet_any_difference_fails(make: Callable[..., Library], wrong: str) -> None:
    library = make(expect_quiet=True)
    library.migrate()
    library.sql(wrong)
    with pytest.raises(VerificationFailed, match="Nobody else was expected to write"):
        library.verify()


def test_what_a_trigger_writes_does_not_count(make: Callable[..., Library]) -> None:
    library = make(expect_quiet=True)
    library.sql(
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at = clock_timestamp(); RETURN NEW; END'"
    )
    library.sql(
        f"CREATE TRIGGER touch BEFORE UPDATE ON {NAME} FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION touch()"
    )
    library.migrate()
    result = library.verify()
    assert result["trigger_columns"] == {'books "100%"': ["updated_at"]}
    assert result["unchanged"]['books "100%"']["others"] == {}


def test_what_is_left_to_repair_fails(make: Callable[..., Library]) -> None:
    library = make()
    library.migrate()
    library.sql(f"UPDATE {NAME} SET tier = NULL WHERE id = 5")
    with pytest.raises(VerificationFailed, match="tier"):
        library.verify()
    assert library.record.findings[Phase.VERIFY]


def test_without_a_backup_the_buckets_say_how_many_differ(make: Callable[..., Library]) -> None:
    library = make(create_backup=False)
    library.migrate()
    unchanged = library.verify()["unchanged"]
    assert unchanged['books "100%"']["compared"] is False
    assert unchanged['books "100%"']["buckets"] > 10
    assert unchanged["pages"] == {
        "rows_before": 250, "rows_now": 250, "buckets": 0, "others": {}, "samples": [], "compared": True,
    }  # fmt: skip


def test_looking_before_changes_nothing(make: Callable[..., Library], target_database: str) -> None:
    library = make()
    library.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'")
    library.sql(f"CREATE TRIGGER refuse BEFORE UPDATE ON {NAME} FOR EACH ROW EXECUTE FUNCTION refuse()")
    seen: list[Progress] = []
    found = before.look(library.context)
    assert found["trigger_columns"] == {'books "100%"': []}
    assert found["columns"]["pages"] == ["id", "book_id", "body"]
    assert seen == []
    with psycopg.connect(target_database) as connection:
        row = connection.execute(f"SELECT count(*) FILTER (WHERE tier IS NULL) FROM {NAME}".encode()).fetchone()
    assert row == (33,)


def test_a_repair_reads_an_array_that_is_backed_up_as_text(make: Callable[..., Library]) -> None:
    library = make()
    library.sql("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    library.sql(f"ALTER TABLE {NAME} ADD COLUMN moods mood[], ADD COLUMN last text")
    library.sql(f"UPDATE {NAME} SET moods = '{{sad,glad}}' WHERE id % 2 = 0")
    repairs = [
        Repair("moods", "coalesce({moods}, ARRAY['sad'::mood])", "sad is the default"),
        Repair("last", "coalesce(({moods})[array_length({moods}, 1)]::text, 'sad')", "the last mood"),
    ]
    columns = [*BOOKS.columns, Column("moods", "mood[]"), Column("last", "text")]
    books = replace(BOOKS, columns=columns, repairs=[*BOOKS.repairs, *repairs])
    library.context = replace(library.context, plan=replace(PLAN, tables=[books, PAGES]))
    library.migrate()
    result = library.verify()
    assert result["unchanged"]['books "100%"']["others"] == {}
    library.sql(f"UPDATE {NAME} SET moods = '{{glad,sad}}' WHERE id = 5")
    assert library.verify()["unchanged"]['books "100%"']["others"] == {"edited": 1}
