"""Money that moves while a few backups are taken; and that a backup of no one instant is noticed."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from psycopg import sql

from briefly_admin.engine import backup, snapshot
from briefly_admin.engine.target import Connection, Target
from briefly_admin.plans.base import Plan
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.rows import instants
from tests.faults.stored import opened
from tests.faults.test_rows import says


def test_the_sum_is_exact(ground: Ground) -> None:
    facts = instants.trial(ground, 1, 2)
    assert facts["streams"] > 10
    assert facts["helped"] >= 1
    assert "exact in all of 2 backups" in says("instants", facts)


@contextmanager
def _at_no_instant(target: Target, plan: Plan, beyond: Sequence[tuple[str, str]]) -> Iterator[Connection]:
    """As the real one, but every statement sees an instant of its own."""
    with target.session(bulk=True) as connection:
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
        for name in snapshot._titles(plan, beyond).values():
            connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(sql.Identifier(*name)))
        yield connection


def test_a_backup_of_no_instant_is_noticed(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_locked", _at_no_instant)
    monkeypatch.setitem(backup.run.__kwdefaults__ or {}, "stream_bytes", instants.STREAM_BYTES)
    movers = instants.Movers(field.environ["TARGET_DATABASE_URL"], random.Random(1))
    with movers, pytest.raises(AssertionError, match=r"instead of|counted|twice"):
        _take(field, 20)


def _take(field: Field, count: int) -> None:
    for _ in range(count):
        run = field.back_up(beyond=instants.BEYOND)
        field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
        field.ends(run)
        instants.require_exact(opened(field, field.services.backups.list(ANA)[0]))
