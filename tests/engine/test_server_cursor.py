"""A cursor of the server's is closed whatever becomes of its session."""

import time
from contextlib import suppress

import psycopg
import pytest

from briefly_admin.engine.target import Target, server_cursor

_SERIES = "SELECT generate_series(1, 10)"


def test_it_gives_all_rows_in_chunks(target_database: str) -> None:
    with Target(target_database).session() as connection, connection.transaction():
        with server_cursor(connection, "some", chunk=3) as cursor:
            assert [number for (number,) in cursor.execute(_SERIES)] == list(range(1, 11))
        assert cursor.closed


def test_one_whose_session_was_ended_is_closed_as_well(target_database: str) -> None:
    target = Target(target_database)
    with target.session() as connection, target.session() as other:
        with suppress(psycopg.Error), connection.transaction(), server_cursor(connection, "some", chunk=3) as cursor:
            cursor.execute(_SERIES).fetchone()
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            time.sleep(0.1)  # the server says so before it is asked
            raise psycopg.OperationalError("what the loop met")
        assert cursor.closed


def test_what_the_loop_raises_is_raised(target_database: str) -> None:
    with Target(target_database).session() as connection, connection.transaction():
        with pytest.raises(ZeroDivisionError), server_cursor(connection, "some", chunk=3) as cursor:
            raise ZeroDivisionError
        assert cursor.closed
