"""What is particular to the store in Redis: what it refuses, what expires, and servers that fail."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from briefly_admin.domain.errors import BrieflyError, NotFound, Refused, Unavailable
from briefly_admin.domain.ports import BlobStore
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.stores.redis import RedisStore

_MIB = 1 << 20


@pytest.fixture
def server(redis_url: str) -> Iterator["redis.Redis"]:
    """The server itself; its settings go back to what they were."""
    with redis.Redis.from_url(redis_url) as client:
        former = {name: client.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
        yield client
        client.client_unpause()
        for name, value in former.items():
            client.config_set(name, value)
        client.acl_deluser("limited")
        client.flushall()


def opened(url: str, *, max_bytes: int = 64 * _MIB, lifetime: float = 100, partial: float = 60, timeout: float = 5) -> RedisStore:  # fmt: skip
    return RedisStore(url, "redis://here", max_bytes=max_bytes, lifetime=lifetime, partial=partial, timeout=timeout)


def names(server: "redis.Redis") -> list[bytes]:
    return sorted(name for name in server.scan_iter() if isinstance(name, bytes))


def content(store: RedisStore, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "volatile-ttl", "volatile-lru", "allkeys-random"])
def test_a_server_that_may_evict_is_refused(server: "redis.Redis", redis_url: str, policy: str) -> None:
    store = opened(redis_url)
    store.put("a/1", [b"x"])
    server.config_set("maxmemory-policy", policy)
    for ask in (lambda: store.put("a/2", [b"x"]), lambda: store.replace("a/1", b"y")):
        with pytest.raises(Refused, match=f"maxmemory-policy is {policy}") as raised:
            ask()
        assert "noeviction" in raised.value.remedy
    with pytest.raises(Unavailable, match=f"maxmemory-policy is {policy}"):
        store.free_bytes()
    assert names(server) == [b"briefly:backup:a/1"]
    assert content(store, "a/1") == b"x"


def limited(server: "redis.Redis", redis_url: str, *denied: str) -> str:
    """The URL of a user who may touch our keys alone, and not all commands."""
    server.acl_setuser(
        "limited", enabled=True, passwords=["+canary-pass"], keys=["briefly:backup:*"], commands=["+@all", *denied]
    )
    return redis_url.replace(f":{urlsplit(redis_url).password}@", "limited:canary-pass@")


def test_where_config_is_forbidden_the_server_is_asked_otherwise(server: "redis.Redis", redis_url: str) -> None:
    store = opened(limited(server, redis_url, "-config"))
    store.put("a/1", [b"x"])
    assert store.free_bytes() > 0
    server.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(Refused, match="allkeys-lru"):
        store.put("a/2", [b"x"])
    assert list(store.list()) == ["a/1"]


def test_what_is_not_permitted_is_unavailable_and_leaves_nothing(server: "redis.Redis", redis_url: str) -> None:
    store = opened(limited(server, redis_url, "-renamenx"))
    with pytest.raises(Unavailable, match="does not permit") as raised:
        store.put("a/1", [b"x"])
    assert "canary-pass" not in "".join(traceback.format_exception(raised.value))
    assert names(server) == []


def test_all_objects_together_have_a_limit(server: "redis.Redis", redis_url: str) -> None:
    store = opened(redis_url, max_bytes=2 * _MIB)
    store.put("a/1", [b"x" * _MIB])
    assert store.free_bytes() == _MIB
    with pytest.raises(Refused, match="would take more than 2 MB") as raised:
        store.put("a/2", [b"x" * _MIB, b"x"])
    assert "BACKUP_REDIS_MAX_MB" in raised.value.remedy
    assert names(server) == [b"briefly:backup:a/1"]
    store.put("a/2", [b"x" * _MIB])
    assert store.free_bytes() == 0
    store.delete("a/1")
    assert store.free_bytes() == _MIB


def test_puts_at_once_do_not_pass_the_limit_together(server: "redis.Redis", redis_url: str) -> None:
    store = opened(redis_url, max_bytes=2 * _MIB)
    together = threading.Barrier(3, timeout=60)

    def source() -> Iterator[bytes]:
        together.wait()  # all have seen an empty store
        yield b"x" * _MIB
        together.wait()
        yield b"x" * 1000

    outcomes: list[str] = []

    def write(number: int) -> None:
        try:
            store.put(f"a/{number}", source())
            outcomes.append("written")
        except Refused:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") >= 2
    assert len(names(server)) == outcomes.count("written")
    assert sum(server.strlen(name) for name in names(server)) <= 2 * _MIB


def test_a_full_memory_is_unavailable_and_leaves_nothing(server: "redis.Redis", redis_url: str) -> None:
    store = opened(redis_url)
    store.put("a/1", [b"x"])
    server.config_set("maxmemory", server.info("memory")["used_memory"] + 6 * _MIB)
    assert 0 < store.free_bytes() < 7 * _MIB
    with pytest.raises(Unavailable, match="its memory is full"):
        store.put("a/2", [b"x" * _MIB] * 30)
    assert names(server) == [b"briefly:backup:a/1"]


def test_objects_expire_unless_they_are_kept(server: "redis.Redis", redis_url: str) -> None:
    store = open_store(redis_url, lifetime=1000)
    for key in ("a/1", "a/2", "b/1"):
        store.put(key, [b"x"])
    assert all(990 < server.ttl(name) <= 1000 for name in names(server))
    store.keep("a/", 5000)
    store.replace("a/1", b"y")
    assert [round(server.ttl(f"briefly:backup:{key}") / 1000) for key in ("a/1", "a/2", "b/1")] == [5, 5, 1]
    store.keep("a/", None)
    assert [server.ttl(f"briefly:backup:{key}") for key in ("a/1", "a/2")] == [-1, -1]
    store.keep("", 0.2)
    time.sleep(0.3)
    assert list(store.list()) == []
    with pytest.raises(NotFound):
        store.open("a/1")


def test_a_source_that_takes_too_long_is_no_short_object(server: "redis.Redis", redis_url: str) -> None:
    def slow() -> Iterator[bytes]:
        yield b"x"
        time.sleep(0.4)
        yield b"y"

    with pytest.raises(Unavailable, match="expired while it was being written"):
        opened(redis_url, partial=0.2).put("a/1", slow())
    assert names(server) == []


def test_a_server_shared_with_others_is_left_alone(server: "redis.Redis", redis_url: str) -> None:
    strange = [f"briefly:backup:{key}" for key in ("../x", "/etc/passwd", "a//b", "a\0b", "", "ä", ".x", "a/", "a:b")]
    for name in (*strange, "rq:queue:briefly", "a/1", "briefly:backup"):
        server.set(name, b"theirs")
    server.lpush("briefly:backup:list", "x")
    store = opened(redis_url)
    store.put("a/1", [b"ours"])
    assert list(store.list()) == ["a/1", "list"]
    assert list(store.list("a/")) == ["a/1"]
    with pytest.raises(Unavailable, match="answers with an error"):
        store.size("list")
    store.delete("a/1")
    assert server.get("a/1") == b"theirs"
    assert len(names(server)) == len(strange) + 4


OPERATIONS: dict[str, Callable[[BlobStore], object]] = {
    "put": lambda store: store.put("a/new", [b"x"]),
    "replace": lambda store: store.replace("a/1", b"y"),
    "keep": lambda store: store.keep("a/", None),
    "open": lambda store: store.open("a/1"),
    "size": lambda store: store.size("a/1"),
    "list": lambda store: list(store.list()),
    "delete": lambda store: store.delete("a/1"),
    "free": lambda store: store.free_bytes(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_hangs_is_unavailable_soon(server: "redis.Redis", redis_url: str, operation: str) -> None:
    store = opened(redis_url, timeout=0.3)
    store.put("a/1", [b"x"])
    server.client_pause(1500, all=True)
    start = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer in time"):
        OPERATIONS[operation](store)
    assert time.monotonic() - start < 1.4
    server.client_unpause()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_server_that_is_not_there_is_unavailable(operation: str, tmp_path: Path) -> None:
    for url in ("redis://:canary-pass@127.0.0.1:9/0", f"unix://:canary-pass@{tmp_path}/none?db=0"):
        with pytest.raises(Unavailable, match="cannot be reached") as raised:
            OPERATIONS[operation](open_store(url))
        assert "canary-pass" not in "".join(traceback.format_exception(raised.value))


def test_a_wrong_password_is_unavailable(redis_url: str) -> None:
    store = open_store(redis_url.replace(urlsplit(redis_url).password or "", "canary-pass"))
    with pytest.raises(Unavailable, match="refuses our user or password") as raised:
        store.free_bytes()
    assert "canary-pass" not in "".join(traceback.format_exception(raised.value))


def test_a_server_that_dies_during_a_put_holds_nothing() -> None:
    with tempfile.TemporaryDirectory() as parent:
        with EmbeddedServers(Path(parent) / "home", postgres=False, durable=False) as servers:
            store, url = opened(servers.redis_url), servers.redis_url

            def source() -> Iterator[bytes]:
                yield b"x" * _MIB
                with redis.Redis.from_url(url) as client:
                    victim = int(client.info("server")["process_id"])
                os.kill(victim, signal.SIGKILL)
                yield b"x" * _MIB

            with pytest.raises(Unavailable, match="cannot be reached, or the connection was lost"):
                store.put("a/1", source())
            with pytest.raises(Unavailable):
                list(store.list())
        with EmbeddedServers(Path(parent) / "home", postgres=False, durable=False) as servers:
            again = opened(servers.redis_url)
            assert list(again.list()) == []
            again.put("a/1", [b"whole"])
            assert content(again, "a/1") == b"whole"


_WRITER = """
    import sys, time
    from briefly_admin.vault.stores.redis import RedisStore
    store = RedisStore(sys.argv[1], "here", max_bytes=1 << 28, lifetime=1000, partial=2)
    def source():
        yield b"x" * 3_000_000
        print("written", flush=True)
        time.sleep(60)
    store.put("a/1", source())
"""


def test_what_a_killed_put_leaves_expires(server: "redis.Redis", redis_url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(_WRITER), redis_url], stdout=subprocess.PIPE) as put:
        assert put.stdout is not None
        put.stdout.readline()
        put.send_signal(signal.SIGKILL)
    store = opened(redis_url)
    assert list(store.list()) == []
    assert all(0 < server.pttl(name) <= 2000 for name in names(server))
    store.put("a/1", [b"new"])
    time.sleep(2)
    assert names(server) == [b"briefly:backup:a/1"]


def self_signed(folder: Path) -> ssl.SSLContext:
    """What a platform's server shows: a certificate that only it itself vouches for, of another name."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "platform.invalid")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(certificate + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@contextmanager
def behind_tls(path: str, context: ssl.SSLContext) -> Iterator[int]:
    """A port on loopback that leads to the socket, encrypted."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            target.close()

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            client, server = context.wrap_socket(plain, server_side=True), socket.socket(socket.AF_UNIX)
            server.connect(path)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_self_signed_certificate_is_taken(server: "redis.Redis", redis_url: str, tmp_path: Path) -> None:
    parts = urlsplit(redis_url)
    with behind_tls(parts.path, self_signed(tmp_path)) as port:
        store = open_store(f"rediss://:{parts.password}@127.0.0.1:{port}/{parse_qs(parts.query)['db'][0]}")
        store.put("a/1", [b"x" * 100_000])
        with store.open("a/1") as file:
            assert file.read() == b"x" * 100_000
        with pytest.raises(BrieflyError):
            store.put("a/1", [b"y"])
    assert names(server) == [b"briefly:backup:a/1"]
