"""Files that appear only when they are whole: 0600, in a directory of their own, never in the place of another."""

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from briefly_admin.domain.errors import InvalidRequest, Unavailable

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST: Final = 80
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def file_name(title: str, suffix: str, taken: Collection[str]) -> str:
    """A safe name for the file of what is called `title`, whatever that holds; unlike those taken, in any case."""
    stem = _UNSAFE.sub("_", title).strip("._-")[:_LONGEST] or "table"
    used = {name.lower() for name in taken}
    name, number = f"{stem}.{suffix}", 1
    while name.lower() in used:
        number += 1
        name = f"{stem}-{number}.{suffix}"
    return name


def new_directory(directory: Path) -> None:
    """Make it, 0700, unless it is there and empty. Raises InvalidRequest."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise InvalidRequest(f"{directory} is no directory.", remedy="Name one that is new or empty.") from None
        try:
            full = any(directory.iterdir())
        except OSError as error:
            raise InvalidRequest(f"{directory} cannot be read ({error.strerror}).") from error
        if full:
            raise InvalidRequest(f"{directory} is not empty.", remedy="Name one that is new or empty.") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path"
        raise InvalidRequest(f"{directory} cannot be made ({why}).", remedy="Name another directory.") from error


class NewFile:
    """A file under a temporary name until `keep`; gone if the block ends before. Raises Unavailable where it cannot be
    written (disk full, no right).
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / name
        self.size = 0
        self._partial = directory / f".{name}.partial"
        self._hash = hashlib.sha256()
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._partial, _FLAGS, 0o600)
        except OSError as error:
            raise self._unavailable(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        self._partial.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        """Hexadecimal, of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """All of it."""
        self._hash.update(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise self._unavailable(error) from error
        self.size += len(data)

    def keep(self) -> None:
        """It is whole: from now on it has its name."""
        try:
            os.fsync(self._descriptor)
            if os.path.lexists(self.path):
                raise FileExistsError(17, "a file of that name came up meanwhile")
            self._partial.rename(self.path)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"{self.path} cannot be written: {error.strerror or type(error).__name__}.",
            remedy="Make room or name another place, and open the backup again into a new directory.",
        )
