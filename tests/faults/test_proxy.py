"""The proxy does what it says, or the rows that use it prove nothing."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis

from briefly_admin.embedded import EmbeddedServers
from tests.faults.processes import until
from tests.faults.proxy import Fate, Proxy, socket_of


@pytest.fixture
def proxy(embedded: EmbeddedServers) -> Iterator[Proxy]:
    with Proxy(socket_of(embedded.target_url)) as made:
        yield made


def connect(proxy: Proxy, url: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(proxy.url(url), autocommit=True, prepare_threshold=None)


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        return len(connection.execute("SELECT 1 FROM t").fetchall())


def test_it_passes_everything(proxy: Proxy, target_database: str) -> None:
    with connect(proxy, target_database) as connection:
        assert connection.execute("SELECT repeat('x', 5000000)").fetchone() == ("x" * 5_000_000,)
        assert connection.execute("SELECT length(%s)", ("y" * 3_000_000,)).fetchone() == (3_000_000,)
        assert proxy.connections == 1
    until(lambda: not proxy.connections, what="the end of the connection")


@pytest.mark.parametrize(("fate", "kept"), [(Fate.PASSES, 1), (Fate.LOST, 0), (Fate.UNANSWERED, 1)])
def test_a_commit_meets_its_fate(proxy: Proxy, target_database: str, fate: Fate, kept: int) -> None:
    with psycopg.connect(target_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n integer)")
    proxy.on_commit = lambda _: fate
    client = connect(proxy, target_database)
    client.execute("BEGIN; INSERT INTO t VALUES (1); SELECT 'commit'")
    if fate is Fate.PASSES:
        client.execute("SET LOCAL synchronous_commit TO on; COMMIT")
    else:
        with pytest.raises(psycopg.OperationalError):
            client.execute("SET LOCAL synchronous_commit TO on; COMMIT")
    client.close()
    assert proxy.cuts == {fate: 1}
    assert rows(target_database) == kept


def test_a_transaction_block_of_psycopg_is_seen_too(proxy: Proxy, target_database: str) -> None:
    proxy.on_commit = lambda number: Fate.LOST if number == 2 else Fate.PASSES
    client = connect(proxy, target_database)
    with client.transaction():
        client.execute("CREATE TABLE t (n integer)")
    with pytest.raises(psycopg.OperationalError), client.transaction():
        client.execute("INSERT INTO t SELECT %s", (1,))
    assert proxy.cuts == {Fate.PASSES: 1, Fate.LOST: 1}
    assert rows(target_database) == 0


def test_a_raced_commit_is_cut(proxy: Proxy, target_database: str) -> None:
    proxy.on_commit = lambda _: Fate.RACED
    client = connect(proxy, target_database)
    client.execute("BEGIN")
    with pytest.raises(psycopg.OperationalError):
        client.execute("COMMIT")


def test_drop_half_close_and_refuse(proxy: Proxy, target_database: str) -> None:
    for hurt in (proxy.drop, proxy.half_close):
        client = connect(proxy, target_database)
        assert hurt() == 1
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        client.close()
        until(lambda: not proxy.connections, what="the end of the connection")
    proxy.refuse = True
    with pytest.raises(psycopg.OperationalError):
        connect(proxy, target_database)


def test_latency_rate_and_a_cut_after_some_bytes(proxy: Proxy, target_database: str) -> None:
    client = connect(proxy, target_database)
    proxy.latency = 0.1
    began = time.monotonic()
    client.execute("SELECT 1")
    assert time.monotonic() - began >= 0.2  # there and back
    proxy.latency, proxy.rate = 0.0, 1_000_000
    began = time.monotonic()
    client.execute("SELECT repeat('x', 300000)")
    assert time.monotonic() - began >= 0.3
    proxy.rate = 0
    proxy.cut_after(100_000)
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT repeat('x', 300000)")
    with connect(proxy, target_database) as other:
        other.execute("SELECT 1")  # the cut was one connection's


def test_a_cut_for_good_is_everybodys(proxy: Proxy, target_database: str) -> None:
    one, other = connect(proxy, target_database), connect(proxy, target_database)
    proxy.for_good = True
    proxy.cut_after(100_000)
    with pytest.raises(psycopg.OperationalError):
        one.execute("SELECT repeat('x', 300000)")
    with pytest.raises(psycopg.OperationalError):
        other.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        connect(proxy, target_database)


def test_it_stands_before_valkey(embedded: EmbeddedServers) -> None:
    with Proxy(socket_of(embedded.redis_url)) as proxy, redis.Redis.from_url(proxy.url(embedded.redis_url)) as client:
        assert client.ping()
        proxy.refuse = True
        assert proxy.drop() == 1
        with pytest.raises(redis.ConnectionError):
            client.ping()
    with pytest.raises(redis.ConnectionError):
        client.ping()
