"""Blobs in a directory: 0700 and 0600, whole or absent, on the disk before `put` returns.

An object is written under a name of its own in `.partial`, under an exclusive flock, and linked to its key when it is
whole; link() refuses to overwrite. What a killed process leaves in `.partial` nobody has locked: the next `put`,
or look at all keys, removes it.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from briefly_admin.domain.errors import Unavailable
from briefly_admin.vault.stores.naming import absent, exists, is_key, require_key, require_prefix

_PARTIAL: Final = ".partial"
_FLUSH: Final = 16 << 20
"""Bytes."""
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class DirectoryStore:
    """A BlobStore on a file system."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self._root)!r})"

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Write a new object; see BlobStore.put."""
        target = self._path(key)
        with self._failures(key):
            if os.path.lexists(target):
                raise exists(key)
        with self._partial(key) as (partial, descriptor):
            with _Flushing(descriptor) as flushing:
                size = 0
                for chunk in chunks:  # its own errors stay its own
                    with self._failures(key):
                        size += _write(descriptor, chunk)
                        flushing.at(size)
                with self._failures(key):
                    flushing.end()
            with self._failures(key):
                try:
                    self._link(partial, target, key)
                except FileNotFoundError as error:  # a new object that is not found would be nobody's fault
                    raise _gone(key) from error
        return size

    def replace(self, key: str, data: bytes) -> None:
        """Put a small object in the place of the one there; see BlobStore.replace."""
        target = self._path(key)
        with self._failures(key):
            target.lstat()
        with self._partial(key) as (partial, descriptor), self._failures(key):
            _write(descriptor, data)
            os.fsync(descriptor)
            with self._alone():
                target.lstat()  # what was deleted meanwhile does not come back
                partial.rename(target)
            _sync(target.parent)

    def keep(self, prefix: str, seconds: float | None) -> None:
        """Nothing: files stay until they are deleted."""

    def open(self, key: str) -> BinaryIO:
        """A readable, closable stream over the object. Raises NotFound."""
        with self._failures(key):
            return os.fdopen(os.open(self._path(key), _READ_FLAGS), "rb")

    def size(self, key: str) -> int:
        """Bytes of the object. Raises NotFound."""
        with self._failures(key):
            return self._path(key).lstat().st_size

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with `prefix`, sorted; asked for all, it also removes what killed processes left."""
        require_prefix(prefix)
        if not prefix:
            with suppress(OSError):  # a store that is only read is listed as it is
                self._sweep()
        start = self._root.joinpath(*prefix.split("/")[:-1])
        keys: list[str] = []
        with self._failures(prefix or "its keys"):
            for folder, folders, names in os.walk(start, onerror=_raise_unless_absent):
                folders[:] = [name for name in folders if not name.startswith(".")]
                keys += [(Path(folder) / name).relative_to(self._root).as_posix() for name in names]
        return iter(sorted(key for key in keys if key.startswith(prefix) and is_key(key)))

    def delete(self, key: str) -> None:
        """Remove the object, and the directories that it leaves empty."""
        path = self._path(key)
        with self._failures(key), suppress(FileNotFoundError):
            with self._alone():
                path.unlink()
            _sync(path.parent)
            for parent in path.parents:
                if parent == self._root:
                    break
                try:
                    parent.rmdir()
                except OSError:  # not empty, or filled or removed by somebody else just now
                    break
                _sync(parent.parent)

    def free_bytes(self) -> int:
        """Room left on the file system. Raises Unavailable where nothing could be put into it."""
        with self._failures("new backups"):
            existing = next(path for path in (self._root, *self._root.parents) if path.exists())
            if not existing.is_dir():
                raise OSError(errno.ENOTDIR, existing)
            if not os.access(existing, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
                raise OSError(errno.EACCES, existing)
            room = os.statvfs(existing)
        return room.f_bavail * room.f_frsize

    def _path(self, key: str) -> Path:
        return self._root.joinpath(*require_key(key).split("/"))

    @contextmanager
    def _partial(self, key: str) -> Iterator[tuple[Path, int]]:
        """A new file in `.partial`, open and locked; gone at the end under that name."""
        with self._failures(key):
            self._make(self._root / _PARTIAL)
            self._sweep()
            partial, descriptor = self._begin()
        try:
            yield partial, descriptor
        finally:
            partial.unlink(missing_ok=True)
            os.close(descriptor)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process or thread deletes or replaces here meanwhile."""
        descriptor = os.open(self._root, _DIRECTORY_FLAGS)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @staticmethod
    def _make(folder: Path) -> None:
        """Make a directory and its parents, 0700 each, and have their names on the disk."""
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        for path in reversed(missing):
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            _sync(path.parent)

    def _begin(self) -> tuple[Path, int]:
        """A new locked file in `.partial`."""
        while True:
            path = self._root / _PARTIAL / secrets.token_hex(16)
            descriptor = os.open(path, _WRITE_FLAGS, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
            os.close(descriptor)  # swept between its making and its lock

    def _sweep(self) -> None:
        """Remove what killed processes left: files in `.partial` that nobody has locked."""
        for path in (self._root / _PARTIAL).iterdir():
            with suppress(FileNotFoundError, BlockingIOError):
                descriptor = os.open(path, _READ_FLAGS)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                finally:
                    os.close(descriptor)

    def _link(self, partial: Path, target: Path, key: str) -> None:
        while True:
            self._make(target.parent)
            try:
                os.link(partial, target)
                break
            except FileExistsError as error:
                raise exists(key) from error
            except FileNotFoundError:  # a `delete` beside us removed the empty directory
                if not partial.exists():
                    raise
        try:
            _sync(target.parent)
        except OSError:
            target.unlink()
            raise

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise absent(key) from error
        except OSError as error:
            raise _unavailable(key, error) from error


class _Flushing:
    """Has a file go to the disk while it is written, so that the last fsync has little left to wait for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._thread = ThreadPoolExecutor(1, "flushing")
        self._under_way: Future[None] | None = None
        self._flushed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def at(self, size: int) -> None:
        """So many bytes are written. Raises OSError for what could not be flushed: the system says it only once."""
        if size - self._flushed >= _FLUSH and (self._under_way is None or self._under_way.done()):
            self._wait()
            self._flushed = size
            self._under_way = self._thread.submit(os.fdatasync, self._descriptor)

    def end(self) -> None:
        """All is written: wait until it is on the disk. Raises OSError."""
        self._wait()
        os.fsync(self._descriptor)

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()


def _write(descriptor: int, chunk: bytes) -> int:
    """Write all of it; its length."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(chunk)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, _DIRECTORY_FLAGS)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _gone(key: str) -> Unavailable:
    return Unavailable(
        f"The backup store lost {key} while it was being written: its directory was taken away.",
        remedy="Look at BACKUP_STORE_URL and its disk, then try again.",
    )


def _unavailable(key: str, error: OSError) -> Unavailable:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    remedy = "Free some room or name another store." if full else "Check BACKUP_STORE_URL and its permissions."
    return Unavailable(f"The backup store does not take or give {key}: {os.strerror(error.errno or 0)}.", remedy=remedy)
