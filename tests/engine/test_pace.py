"""Pace: a standby that lags and a slow server are waited for, and said so; nothing else is."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from briefly_admin.domain.checks import Check, Colour
from briefly_admin.domain.errors import Stopped
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine.breaker import Announce
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.pace import MOST_LAG, Pace
from briefly_admin.engine.preflight.servers import of_server
from briefly_admin.engine.target import Connection, Target
from tests.engine.standby import NAME, Standby, standby
from tests.engine.writing_bench import Bench

NOW = datetime(2026, 5, 4, 12, 3, 20, tzinfo=UTC)


@pytest.fixture
def said() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def announce(said: list[tuple[str, str]]) -> Announce:
    def say(text: str, until: str = "") -> None:
        said.append((text, until))

    return say


@pytest.fixture
def connection(target_database: str) -> Iterator[Connection]:
    with Target(target_database).session() as opened:
        yield opened


def _context(dsn: str, sleep: Callable[[float], None]) -> RunContext:
    return Bench(dsn).context(sleep=sleep, now=lambda: NOW)


@pytest.mark.parametrize(
    ("took", "target", "rests"), [(3.2, 0.5, 3.2), (2.1, 0.5, 2.1), (45.0, 0.5, 10.0), (9.0, 2.0, 9.0)]
)
def test_a_slow_batch_is_followed_by_as_long_a_rest(
    connection: Connection, target_database: str, said: list[tuple[str, str]], announce: Announce,
    took: float, target: float, rests: float,
) -> None:  # fmt: skip
    slept: list[float] = []
    Pace(_context(target_database, slept.append), announce).after(connection, took, target)
    assert slept == [rests]
    assert said[0][0] == f"The server is slow: a batch took {took:.1f} s; waiting {rests:.1f} s."
    assert said[0][1].startswith("2026-05-04T12:03:2") or rests > 5
    assert said[1] == ("", "")


def test_a_batch_within_four_times_its_target_is_not(
    connection: Connection, target_database: str, said: list[tuple[str, str]], announce: Announce
) -> None:
    pace = Pace(_context(target_database, lambda _: pytest.fail("waited")), announce)
    pace.after(connection, 2.0)
    pace.after(connection, 3.9, target_seconds=1.0)
    assert said == []


def test_a_stop_ends_the_rest(connection: Connection, target_database: str, announce: Announce) -> None:
    def stop(_: float) -> None:
        raise Stopped("pause")

    with pytest.raises(Stopped):
        Pace(_context(target_database, stop), announce).after(connection, 5.0)


def test_a_look_that_fails_is_the_next_batchs_to_meet(
    target_database: str, said: list[tuple[str, str]], announce: Announce
) -> None:
    context = _context(target_database, lambda _: pytest.fail("waited"))
    with Target(target_database).session() as connection, Target(target_database).session() as other:
        who = {"pid": connection.info.backend_pid}
        with connection.transaction():
            connection.execute("SELECT 'mine'")
            Pace(context, announce).after(connection, 0.1)
            last = other.execute("SELECT query FROM pg_stat_activity WHERE pid = %(pid)s", who).fetchone()
            assert last == ("SELECT 'mine'",), "it asked inside a transaction"
        other.execute("SELECT pg_terminate_backend(%(pid)s, 5000)", who)
        Pace(context, announce).after(connection, 0.1)
        assert connection.closed
        Pace(context, announce).after(connection, 0.1)
    assert said == []


@pytest.fixture(scope="module")
def replica(embedded: EmbeddedServers) -> Iterator[Standby]:
    with standby(embedded) as running:
        yield running


@pytest.fixture
def lagging(replica: Standby) -> Iterator[Standby]:
    replica.halt()
    replica.wait_for_lag(0.6)
    yield replica
    replica.go_on()
    replica.wait_until_it_caught_up()


def test_a_standby_that_lags_is_waited_for(
    lagging: Standby, target_database: str, superuser_database: Callable[[str], str], said: list[tuple[str, str]],
    announce: Announce,
) -> None:  # fmt: skip
    over = threading.Event()
    began = time.monotonic()

    def work() -> None:
        with Target(superuser_database(target_database)).session() as connection:
            Pace(_context(target_database, time.sleep), announce, most_lag=0.5).after(connection, 0.1)
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not over.wait(1.5), "it went on although the standby lags"
    lagging.go_on()
    thread.join(timeout=30)
    assert over.is_set()
    assert time.monotonic() - began < 20
    assert said[0][0].startswith("Replication lag is ")
    assert said[0][0].endswith(f" s ({NAME}); waiting until it is below 0 s.")
    assert said[-1] == ("", "")


def test_a_stop_ends_the_wait_for_a_standby(
    lagging: Standby, target_database: str, superuser_database: Callable[[str], str],
    announce: Announce,
) -> None:  # fmt: skip
    assert lagging

    def stop(_: float) -> None:
        raise Stopped("interrupt")

    with Target(superuser_database(target_database)).session() as connection, pytest.raises(Stopped):
        Pace(_context(target_database, stop), announce, most_lag=0.5).after(connection, 0.1)


def test_a_lag_that_is_allowed_or_hidden_is_not_waited_for(
    lagging: Standby, target_database: str, superuser_database: Callable[[str], str], connection: Connection,
    announce: Announce,
) -> None:  # fmt: skip
    assert lagging
    context = _context(target_database, lambda _: pytest.fail("waited"))
    with Target(superuser_database(target_database)).session() as seeing:
        assert MOST_LAG == 10.0
        Pace(context, announce).after(seeing, 0.1)
    hidden = connection.execute("SELECT replay_lag FROM pg_stat_replication").fetchall()
    assert hidden == [(None,)]
    Pace(context, announce, most_lag=0.5).after(connection, 0.1)


def test_preflight_says_that_the_lag_is_hidden(
    replica: Standby, target_database: str, superuser_database: Callable[[str], str]
) -> None:
    replica.wait_until_it_caught_up()

    def check(dsn: str) -> Check:
        target = Target(dsn)
        with target.session() as connection:
            return next(found for found in of_server(connection, target) if found.name == "replication_lag")

    hidden = check(target_database)
    assert hidden.colour is Colour.AMBER
    assert "may not see how far behind" in hidden.found
    assert "pg_read_all_stats" in hidden.remedy
    seen = check(superuser_database(target_database))
    assert (seen.colour, seen.found) == (Colour.GREEN, "1, at most 0 MB behind.")


def test_it_looks_every_two_seconds(
    lagging: Standby, target_database: str, superuser_database: Callable[[str], str], said: list[tuple[str, str]],
    announce: Announce,
) -> None:  # fmt: skip
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        lagging.go_on()
        lagging.wait_until_it_caught_up()

    context = Bench(target_database).context(sleep=sleep, monotonic=lambda: now[0])
    with Target(superuser_database(target_database)).session() as connection:
        pace = Pace(context, announce, most_lag=0.5)
        pace.after(connection, 0.1)
        assert len(said) == 2
        lagging.halt()
        lagging.wait_for_lag(0.6)
        now[0] += 1.9
        pace.after(connection, 0.1)
        assert len(said) == 2
        now[0] += 0.1
        pace.after(connection, 0.1)
        assert len(said) == 4
