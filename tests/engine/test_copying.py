"""Rows come as psycopg alone would bring them; the server's count, and its errors, too."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.errors import Stopped
from briefly_admin.domain.partitions import Count
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.copying import BLOCK_BYTES, CopyOut

ROWS = "SELECT i, repeat('x', i % 300) FROM generate_series(1, 30000) i"


@pytest.fixture
def connection(target_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(target_database) as opened:
        yield opened


def copying(connection: psycopg.Connection, query: str, stops: list[str | None] | None = None) -> tuple[CopyOut, Any]:
    reasons = iter(stops or [])

    def check_stop() -> None:
        if reason := next(reasons, None):
            raise Stopped(reason)

    counts: list[Count] = []
    context = cast("RunContext", SimpleNamespace(check_stop=check_stop))
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(sql.SQL(query))
    return CopyOut(context, connection, statement, counts.append), counts


@pytest.mark.parametrize(
    "query", [ROWS, f"{ROWS} LIMIT 1", f"{ROWS} LIMIT 0", "SELECT", "SELECT FROM generate_series(1, 3)"]
)
def test_it_is_what_psycopg_brings(connection: psycopg.Connection, query: str) -> None:
    copied, counts = copying(connection, query)
    blocks = list(copied)
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT binary)") as copy:
            assert b"".join(blocks) == b"".join(copy)
        assert copied.rows == cursor.rowcount
    assert all(len(block) < BLOCK_BYTES + 400 for block in blocks)
    assert len(counts) == len(blocks)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_error_of_the_server_midway_is_its_own(connection: psycopg.Connection) -> None:
    for place in (20, 20_000):
        copied, _ = copying(connection, f"SELECT 1 / ({place} - i), repeat('x', 90) FROM generate_series(1, 30000) i")
        with pytest.raises(psycopg.errors.DivisionByZero):
            list(copied)
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_stop_ends_the_copy(connection: psycopg.Connection) -> None:
    copied, counts = copying(connection, ROWS, [None, None, "cancel"])
    with pytest.raises(Stopped):
        list(copied)
    assert 0 < counts[-1].done < 30_000
    connection.rollback()
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_lost_server_is_told(connection: psycopg.Connection, target_database: str) -> None:
    copied, _ = copying(connection, "SELECT i, repeat('x', 1000) FROM generate_series(1, 300000) i")
    blocks = iter(copied)
    next(blocks)
    with psycopg.connect(target_database, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
    with pytest.raises(psycopg.OperationalError):
        list(blocks)
