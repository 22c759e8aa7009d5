"""The behaviour of every store. A store that is added joins `STORES`."""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from briefly_admin.domain.errors import NotFound, Refused, SettingError, Unavailable
from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.stores.directory import DirectoryStore

_NOBODY = 65534

STORES: dict[str, Callable[[Path], BlobStore]] = {
    "directory": lambda path: open_store((path / "not" / "yet" / "there").as_uri()),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return STORES[request.param](tmp_path)


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
        for number in range(20):
            store.replace("a/slots.json", old if number % 2 else new)
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    seen = set()
    while not done.is_set():
        seen.add(content(store, "a/slots.json"))
    thread.join()
    assert seen <= {old, new}
    assert content(store, "a/slots.json") == old


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


def test_what_is_no_directory_has_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = DirectoryStore(tmp_path / "file")
    with pytest.raises(Unavailable, match="does not take or give new backups: Not a directory"):
        store.free_bytes()
    with pytest.raises(Unavailable, match="does not take or give its keys: Not a directory"):
        list(store.list())


def test_a_directory_that_takes_nothing_has_no_room() -> None:
    # Not pytest's tmp_path: as root its parent is closed to others, and root itself may write everywhere.
    former = os.geteuid()
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        try:
            if former == 0:
                os.seteuid(_NOBODY)
            with pytest.raises(Unavailable, match="does not take or give new backups: Permission denied"):
                DirectoryStore(Path(directory) / "store").free_bytes()
        finally:
            os.seteuid(former)


def modes(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")]}


def test_a_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        DirectoryStore(tmp_path / "store").put("a/1", [b"x"])
    finally:
        os.umask(former)
    assert modes(tmp_path / "store") == {"store": 0o700, ".partial": 0o700, "a": 0o700, "1": 0o600}


def test_what_a_killed_process_left_is_not_listed_and_goes(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/1", [b"x"])
    left, held = tmp_path / ".partial" / "left", tmp_path / ".partial" / "held"
    left.write_bytes(b"half")
    held.write_bytes(b"half of a living process")
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert list(store.list()) == ["a/1"]
        store.put("a/2", [b"y"])
        assert not left.exists()
        assert held.exists()


def test_deleting_removes_empty_directories(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.put("a/b/1", [b"x"])
    store.delete("a/b/1")
    assert not (tmp_path / "store" / "a").exists()
    assert (tmp_path / "store").exists()


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = DirectoryStore(tmp_path / "store")
    store.put("a/1", [b"x"])
    (tmp_path / "store" / "a" / "2").symlink_to(tmp_path / "secret")
    with pytest.raises(Unavailable):
        store.open("a/2")
    with pytest.raises(Refused):
        store.put("a/2", [b"over the link"])
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_directory_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="does not take"):
        DirectoryStore(tmp_path / "file" / "below").put("a", [b"x"])


def test_a_file_size_limit_leaves_nothing(tmp_path: Path) -> None:
    import resource
    import signal

    store = DirectoryStore(tmp_path)
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(Unavailable, match="File too large") as raised:
            store.put("a/1", [bytes(1 << 19)] * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "room" in raised.value.remedy
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "url",
    ["", "/var/backups", "backups", "file:backups", "file://host/dir", "file:///a?b", "file:///a#b", "http://x/y", "file:///a%00b"],
)  # fmt: skip
def test_other_urls_are_a_setting_error(url: str) -> None:
    with pytest.raises(SettingError, match="BACKUP_STORE_URL"):
        open_store(url)


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "FILE:{}"])
def test_file_urls_name_a_directory(form: str, tmp_path: Path) -> None:
    open_store(form.format(tmp_path / "with%20space")).put("a", [b"x"])
    assert (tmp_path / "with space" / "a").read_bytes() == b"x"
