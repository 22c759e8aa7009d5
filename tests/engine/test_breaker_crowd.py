"""Eight workers meet an outage together, over the app database's breaker: one at a time finds out whether it is over."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from random import Random
from uuid import UUID

import psycopg
import pytest

from briefly_admin.domain.breaker import BreakerView
from briefly_admin.domain.errors import Unavailable
from briefly_admin.engine.breaker import PROBE_ROWS
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.retry import Patience
from briefly_admin.store import runs
from briefly_admin.store.database import Database
from briefly_admin.store.journal import DatabaseJournal
from tests.engine.writing_bench import Bench

OUTAGE = 2.5
"""Seconds."""


@pytest.fixture
def database(app_database: str) -> Iterator[Database]:
    with closing(Database(app_database)) as opened:
        yield opened


def _context(database: Database, worker: str) -> RunContext:
    """One worker's context of one and the same run."""
    context = Bench("postgresql://nobody@/none?host=/nonexistent").context(max_retries=10, retry_delay=20)
    context = replace(context, run_id=UUID(int=5), random=Random(worker))
    journal = DatabaseJournal(
        database, context.run_id, 1, retention=timedelta(hours=24), record=lambda *_: None, worker=worker
    )
    return replace(context, journal=journal)


def _begin(database: Database) -> None:
    values = {
        "id": UUID(int=5), "kind": "migration", "state": "running", "plan": "unified", "plan_fingerprint": "f",
        "target_id": "x", "target_title": "t", "config": {}, "created_by": "ana", "attempt": 1,
    }  # fmt: skip
    with database.begin() as connection:
        assert runs.begin(connection, values)


def test_a_crowd_waits_while_one_at_a_time_probes(database: Database) -> None:
    _begin(database)
    over_at = time.monotonic() + OUTAGE
    tried: list[tuple[float, int | None]] = []
    failures: list[Exception] = []

    def work(name: str) -> None:
        context = _context(database, name)
        patience = Patience(context, "A batch of t", lambda _text, _until="": None)
        try:
            while True:
                rows = patience.admit()
                now = time.monotonic()
                tried.append((now, rows))
                if now < over_at:
                    patience.failed(psycopg.OperationalError("connection lost"))
                    continue
                patience.succeeded()
                return
        except Exception as error:  # noqa: BLE001 - collected and shown
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"host:{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
    during = [rows for at, rows in tried if at < over_at]
    # Those that were under way when it opened, then one probe a second.
    assert during.count(PROBE_ROWS) <= OUTAGE + 1
    assert during.count(None) <= 8 + 2
    after = [rows for at, rows in tried if at >= over_at]
    assert sorted(after, key=str) == [PROBE_ROWS] + [None] * 7
    assert _context(database, "host:9").journal.breaker.look() == BreakerView()


def test_without_the_app_database_nobody_goes_on(database: Database) -> None:
    with closing(Database("postgresql://nobody@/none?host=/nonexistent")) as lost:
        patience = Patience(_context(lost, "host:1"), "A batch of t", lambda _text, _until="": None)
        for step in (patience.admit, lambda: patience.failed(psycopg.OperationalError("connection lost"))):
            with pytest.raises(Unavailable, match="app database"):
                step()
