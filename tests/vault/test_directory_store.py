"""What is particular to the store in a directory."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from briefly_admin.domain.errors import Refused, Unavailable
from briefly_admin.vault.stores.directory import DirectoryStore

_NOBODY = 65534


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


def test_a_directory_that_is_taken_away_while_an_object_is_written_is_no_missing_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")

    def slow() -> Iterator[bytes]:
        yield b"one"
        (tmp_path / "store").rename(tmp_path / "elsewhere")
        yield b"two"

    with pytest.raises(Unavailable, match="lost a while it was being written"):
        store.put("a", slow())


def test_a_disk_that_fails_while_it_is_written_to_fails_the_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_descriptor: int) -> None:  # as the kernel says it: once, whoever asks first
        raise OSError(errno.EIO, "")

    store = DirectoryStore(tmp_path)
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(Unavailable, match="Input/output error"):
        store.put("a/1", [b"x" * (1 << 20)] * 20)
    assert list(store.list()) == []
    assert list((tmp_path / ".partial").iterdir()) == []
