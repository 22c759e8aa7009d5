"""The home directory: private files, the lock that marks it in use, the addresses of what runs in it."""

import contextlib
import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import IO, Self

from briefly_admin.domain.errors import Refused, SettingError

ADDRESSES = "addresses.json"
_LONGEST_LOG = 10 * 1024 * 1024


def prepare_home(home: Path) -> None:
    """Make the home if it is not there.

    An ordinary user's is 0700. Root's is 0711: PostgreSQL refuses to run as root, so another user has to pass through
    to the data; every file in it is 0600. A home that exists keeps the mode it has.
    """
    if home.is_dir():
        return
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise SettingError(
            "BRIEFLY_HOME", f"{home} cannot be made ({error.strerror}).", remedy="Name a directory you may write to."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Write a file 0600, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_private(path: Path) -> str | None:
    """The text of a private file, or None if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def secret_of_home(home: Path, name: str, new: str) -> str:
    """The secret kept in the home under `name`; the first caller's `new` is kept, for all later ones."""
    path = home / name
    kept = read_private(path)
    if kept is None:
        prepare_home(home)
        temporary = home / f".{name}.{secrets.token_hex(4)}"
        write_private(temporary, new + "\n")
        # A link fails where a file stands: two processes that start at once agree on one secret.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
        kept = path.read_text(encoding="utf-8")
    return kept.strip()


def read_addresses(home: Path) -> dict[str, str]:
    """What runs in the home: `DATABASE_URL`, `TARGET_DATABASE_URL`, `REDIS_URL` of the embedded servers; {} if none."""
    try:
        text = read_private(home / ADDRESSES)
        found = json.loads(text) if text else {}
    except (OSError, ValueError):
        return {}
    return {str(name): str(url) for name, url in found.items()} if isinstance(found, dict) else {}


def open_log(path: Path) -> IO[bytes]:
    """A server's log, 0600, appended to; begun anew where it has grown beyond 10 MiB."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(descriptor).st_size > _LONGEST_LOG:
        os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "ab")


class HomeLock:
    """Marks a home as in use for as long as it is held; a killed holder's lock is gone with it."""

    def __init__(self, home: Path) -> None:
        self._path = home / "lock"
        self._descriptor: int | None = None

    def take(self) -> Self:
        """Take the lock. Refused (exit 4) if another process holds it; SettingError if the home is not ours to use."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SettingError(
                "BRIEFLY_HOME",
                f"{self._path.parent} cannot be used ({error.strerror}).",
                remedy="Name a directory of your own.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Refused(
                f"{self._path.parent} is in use by process {holder or 'unknown'}.",
                remedy="Stop that one first (Ctrl-C), or set BRIEFLY_HOME to another directory.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the home free; nothing happens if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
