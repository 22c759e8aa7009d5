"""The behaviour of every store: each test runs on all of them."""

import errno
import random
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from briefly_admin.domain.errors import NotFound, Refused, Unavailable
from briefly_admin.domain.ports import BlobStore
from tests.object_storage import ACCESS_KEY, SECRET_KEY
from tests.vault.conftest import Opened

_MIB = 1 << 20


def content(store: BlobStore, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()


def test_an_object_comes_back_as_it_was_put(store: BlobStore) -> None:
    assert store.put("a/streams/1.bma", [b"one", b"", b"two"]) == 6
    assert content(store, "a/streams/1.bma") == b"onetwo"
    assert store.size("a/streams/1.bma") == 6


def test_an_empty_object_is_one(store: BlobStore) -> None:
    assert store.put("empty", []) == 0
    assert content(store, "empty") == b""
    assert list(store.list()) == ["empty"]


def test_nothing_is_overwritten(store: BlobStore) -> None:
    store.put("a", [b"first"])
    with pytest.raises(Refused, match="already holds a"):
        store.put("a", [b"second"])
    assert content(store, "a") == b"first"


def test_an_object_that_came_meanwhile_is_not_overwritten(store: BlobStore) -> None:
    def slow() -> Iterator[bytes]:
        store.put("a", [b"theirs"])
        yield b"ours"

    with pytest.raises(Refused):
        store.put("a", slow())
    assert content(store, "a") == b"theirs"
    assert list(store.list()) == ["a"]


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), FileNotFoundError(errno.ENOENT, "theirs"), KeyboardInterrupt()]
)
def test_a_source_that_fails_leaves_nothing_and_its_error_passes(store: BlobStore, error: BaseException) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        assert list(store.list()) == []
        raise error

    with pytest.raises(type(error)) as raised:
        store.put("b/1", broken())
    assert raised.value is error
    assert list(store.list()) == []
    with pytest.raises(NotFound):
        store.open("b/1")
    store.put("b/1", [b"again"])
    assert content(store, "b/1") == b"again"


def test_what_is_not_there_is_not_found(store: BlobStore) -> None:
    for ask in (store.open, store.size):
        with pytest.raises(NotFound, match="does not hold"):
            ask("nowhere/1")
    assert list(store.list("nowhere/")) == []
    store.delete("nowhere/1")


def test_listing_is_sorted_and_by_prefix(store: BlobStore) -> None:
    keys = ["a/2", "a/10", "a/b/c", "ab", "b/1", "a-b"]
    for key in keys:
        store.put(key, [b"x"])
    assert list(store.list()) == sorted(keys)
    assert list(store.list("a/")) == ["a/10", "a/2", "a/b/c"]
    assert list(store.list("a/1")) == ["a/10"]
    assert list(store.list("a")) == sorted(key for key in keys if key.startswith("a"))


def test_deleting_takes_that_one_alone(store: BlobStore) -> None:
    store.put("a/1", [b"x"])
    store.put("a/2", [b"y"])
    store.delete("a/1")
    store.delete("a/1")
    assert list(store.list()) == ["a/2"]
    store.put("a/1", [b"new"])
    assert content(store, "a/1") == b"new"


def test_an_object_is_replaced_whole(store: BlobStore) -> None:
    store.put("a/slots.json", [b"old and longer"])
    store.put("a/other", [b"x"])
    store.replace("a/slots.json", b"new")
    assert content(store, "a/slots.json") == b"new"
    assert list(store.list()) == ["a/other", "a/slots.json"]
    with pytest.raises(NotFound, match="does not hold"):
        store.replace("a/nothing", b"x")
    with pytest.raises(NotFound):
        store.replace("nowhere/nothing", b"x")
    assert list(store.list()) == ["a/other", "a/slots.json"]


def test_whoever_reads_meanwhile_finds_the_old_or_the_new_object(store: BlobStore) -> None:
    old, new = b"o" * 30_000, b"n" * 20_000
    store.put("a/slots.json", [old])
    done = threading.Event()

    def replace() -> None:
        try:
            for number in range(20):
                store.replace("a/slots.json", old if number % 2 else new)
        finally:
            done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    seen = set()
    while not done.is_set():
        seen.add(content(store, "a/slots.json"))
    thread.join()
    assert seen <= {old, new}
    assert content(store, "a/slots.json") == old


def test_what_is_deleted_while_it_is_replaced_does_not_come_back(store: BlobStore) -> None:
    outcomes: list[str] = []
    for number in range(20):
        store.put(key := f"a/{number}", [b"old"])
        start = threading.Barrier(2, timeout=60)

        def replace(key: str = key, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                store.replace(key, b"new")
                outcomes.append("replaced")
            except NotFound:
                outcomes.append("not found")

        thread = threading.Thread(target=replace)
        thread.start()
        start.wait()
        store.delete(key)
        thread.join()
    assert len(outcomes) == 20
    assert list(store.list()) == []


def test_what_is_kept_stays(store: BlobStore) -> None:
    store.put("a/1", [b"x"])
    for seconds in (None, 60.0, None):
        store.keep("a/", seconds)
        assert content(store, "a/1") == b"x"
    store.keep("nowhere/", None)


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "a/", "./a", ".partial/x", "a\0b", "a\n", "a\\b", "%2e%2e/x", "ä", "a" * 300],
)  # fmt: skip
def test_keys_that_are_not_ours_are_refused(store: BlobStore, key: str) -> None:
    for ask in (
        store.open,
        store.size,
        store.delete,
        lambda key: store.put(key, [b"x"]),
        lambda key: store.replace(key, b"x"),
    ):
        with pytest.raises(Refused, match="no key"):
            ask(key)
    assert list(store.list()) == []


def test_prefixes_that_are_not_ours_are_refused(store: BlobStore) -> None:
    for prefix in ("../", "/", "a/../", ".partial/"):
        with pytest.raises(Refused):
            list(store.list(prefix))


def test_many_threads_write_at_once(store: BlobStore) -> None:
    outcomes: list[str] = []

    def write(number: int) -> None:
        store.put(f"a/{number}", [b"x" * 10_000] * 10)
        try:
            store.put("same", [b"y"])
            outcomes.append("written")
        except Refused:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["written"]
    assert len(list(store.list("a/"))) == 8


def test_room_is_told(store: BlobStore) -> None:
    free = store.free_bytes()
    assert free is None or free > 0


def large(seed: int, size: int = 13 * _MIB + 7) -> Iterator[bytes]:
    """Pieces like a sealed stream's, different for each seed."""
    dice = random.Random(seed)
    while size > 0:
        piece = dice.randbytes(min(size, _MIB + 16))
        size -= len(piece)
        yield piece


def test_a_large_object_comes_back_in_small_reads(opened: Opened) -> None:
    assert opened.store.put("a/streams/1.bma", large(1)) == 13 * _MIB + 7
    expected, dice = b"".join(large(1)), random.Random(2)
    with opened.store.open("a/streams/1.bma") as file:
        seen = bytearray()
        while piece := file.read(dice.choice((1, 15, 4096, 3 * _MIB))):
            seen += piece
        assert seen == expected
        assert file.read(1) == b""
    assert opened.store.size("a/streams/1.bma") == len(expected)
    assert opened.everything() == ["a/streams/1.bma"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), OSError(errno.ENOSPC, "theirs"), KeyboardInterrupt()])
def test_a_large_source_that_fails_leaves_nothing_anywhere(opened: Opened, error: BaseException) -> None:
    def broken() -> Iterator[bytes]:
        yield from large(1)
        raise error

    with pytest.raises(type(error)) as raised:
        opened.store.put("a/1", broken())
    assert raised.value is error
    assert opened.everything() == []


def test_a_refused_put_leaves_nothing_else(opened: Opened) -> None:
    opened.store.put("a/1", [b"first"])
    for source in ([b"second"], large(1)):
        with pytest.raises(Refused, match="already holds a/1"):
            opened.store.put("a/1", source)
    assert opened.everything() == ["a/1"]
    assert content(opened.store, "a/1") == b"first"


@pytest.mark.parametrize("size", [1000, 6 * _MIB])
def test_of_puts_of_one_key_at_once_one_wins_whole(opened: Opened, size: int) -> None:
    together = threading.Barrier(4, timeout=60)
    winners: list[int] = []
    refused: list[Refused] = []

    def source(number: int) -> Iterator[bytes]:
        pieces = list(large(number, size))
        yield from pieces[:-1]
        together.wait()
        yield pieces[-1]

    def write(number: int) -> None:
        try:
            opened.store.put("a/1", source(number))
            winners.append(number)
        except Refused as error:
            refused.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(winners), len(refused)) == (1, 3)
    assert content(opened.store, "a/1") == b"".join(large(winners[0], size))
    assert opened.everything() == ["a/1"]


def test_the_room_that_is_asked_for_leaves_nothing(opened: Opened) -> None:
    opened.store.free_bytes()
    assert opened.everything() == []


def test_an_object_that_goes_while_it_is_read_is_no_short_object(opened: Opened) -> None:
    opened.store.put("a/1", large(1))
    with opened.store.open("a/1") as file:
        seen = file.read(10)
        opened.store.delete("a/1")
        if opened.kind == "directory":  # an open file stays
            assert seen + file.read() == b"".join(large(1))
        else:
            with pytest.raises(Unavailable, match="while it was read"):
                file.read()


def test_a_store_shows_no_password(opened: Opened) -> None:
    assert opened.kind in repr(opened.store).lower().replace("bucket", "s3")
    for secret in (urlsplit(opened.url).password, SECRET_KEY, ACCESS_KEY):
        assert not secret or secret not in repr(opened.store)
