"""What `keep` proves before it commits: all that was written is as it should be, and nothing moved meanwhile."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from marshmallow import Schema

from briefly_admin.domain.errors import Refused, Unavailable, VerificationFailed
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import rollback
from briefly_admin.engine.rollback import restore
from briefly_admin.plans.base import Column, Plan, Repair, Table
from tests.engine.sealed_target import SealedTarget
from tests.engine.three_way import ODD, edited

_MOODS = Plan("tiny", "Tiny", "One table.", (
    Table("t", Schema, (Column("id", "int"), Column("moods", "mood[]"), Column("code", "text"), Column("loud", "text"),
                        Column("peer", "text")),
          repairs=(Repair("moods", "coalesce({moods}, ARRAY['calm']::mood[])", "no mood"),)),
))  # fmt: skip


@pytest.fixture
def moods(target_database: str, tmp_path: Path) -> SealedTarget:
    """Four rows, of which two were repaired; then one of each was edited, and one is gone."""
    sealed = SealedTarget(target_database, _MOODS, tmp_path / "store")
    sealed.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'glad', 'sad')",
        "CREATE TABLE t (id int PRIMARY KEY, moods mood[], code text UNIQUE, loud text GENERATED ALWAYS AS (upper(code))"
        " STORED, peer text REFERENCES t (code) ON UPDATE CASCADE)",
        "INSERT INTO t SELECT i, CASE WHEN i % 2 = 1 THEN '{sad}'::mood[] END, 'c' || i FROM generate_series(1, 4) i",
    )
    sealed.back_up()
    sealed.migrate()
    sealed.options = sealed.origin
    sealed.execute("UPDATE t SET moods = '{calm,sad}' WHERE id IN (1, 2)", "DELETE FROM t WHERE id = 3")
    return sealed


WHOLLY: dict[str, dict[str, Any]] = {
    "brought back": {"rules": {"deleted": "bring_back"}},
    "by rule": {"rules": {"edited": "restore"}},
    "settled": {"settled": {"t": [{"key": ["1"], "how": "restore"}]}},
}


@pytest.mark.parametrize("wish", WHOLLY.values(), ids=WHOLLY)
def test_a_row_that_does_not_come_back_as_it_was_undoes_all(moods: SealedTarget, wish: dict[str, Any]) -> None:
    """Somebody's own cast to the type gives other values back than were backed up, and never the same ones."""
    moods.execute(
        "CREATE SEQUENCE calls",
        "CREATE FUNCTION feel(text) RETURNS mood[] LANGUAGE sql AS $$ SELECT array_fill('glad'::mood, ARRAY[nextval('public.calls')::int]) $$",
        "CREATE CAST (text AS mood[]) WITH FUNCTION feel(text)",
    )
    before = moods.dump()
    with pytest.raises(VerificationFailed, match=r"t: [13] rows would have to be written once more"):
        moods.roll_back(mode="keep", **wish)
    assert (moods.dump(), moods.scratches()) == (before, [])


def test_an_edit_that_another_edit_takes_along_refuses(moods: SealedTarget) -> None:
    before = moods.dump()
    settled = [
        {"key": ["1"], "how": "edit", "values": {"peer": "c2"}},
        {"key": ["2"], "how": "edit", "values": {"code": "other"}},
    ]
    with pytest.raises(Refused, match=r"Rows that stay as they are stand against rows that go back .*peer"):
        moods.roll_back(mode="keep", settled={"t": settled})
    with pytest.raises(Refused, match="loud cannot be edited, because it is generated"):
        moods.roll_back(mode="keep", settled={"t": [{"key": ["1"], "how": "edit", "values": {"loud": "C9"}}]})
    assert (moods.dump(), moods.scratches()) == (before, [])


def test_children_that_are_counted_cannot_move(
    target_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore, "_LOCK_TRIES", 1)
    sealed = edited(target_database, tmp_path)
    rollback.run_phase(sealed.context(mode="keep", tables=[ODD]), Phase.STAGE)
    with psycopg.connect(target_database) as writer:
        writer.execute("UPDATE chunks SET size = 1000 WHERE id = 1")
        with pytest.raises(Unavailable, match="The tables are in use"):
            rollback.run_phase(sealed.context(mode="keep", tables=[ODD]), Phase.RESTORE)
