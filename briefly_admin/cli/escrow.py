"""Write a backup's escrow file: for its owner alone, never over another file, and gone if that was not recorded."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from briefly_admin.cli.session import Session, session
from briefly_admin.domain.errors import InvalidRequest, Refused, Unavailable

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

file_argument = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


class EscrowFile:
    """A new, empty file (0600) that waits for a backup's escrow; see `escrow_file`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recorded = False
        try:
            self._descriptor = os.open(path, _FLAGS, 0o600)
        except FileExistsError as error:
            raise Refused(f"{path} is there already.", remedy="Name a file that is not there yet.") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            what = (isinstance(error, OSError) and error.strerror) or "no such name is possible"
            raise InvalidRequest(
                f"The escrow file {path} cannot be made: {what}.", remedy="Name a file in a directory that is yours."
            ) from error

    def keep(self, active: Session, backup: str) -> str:
        """Write the backup's escrow into it and have that recorded; a sentence for people. Raises as the service."""
        view = active.services.keys.escrow(active.actor, backup, self.write)
        self.recorded = True
        return (
            f"{view.name} is in escrow: {self.path}. With a copy of the store and a master key this file opens it, "
            "without the app database and even after the backup was deleted: keep it apart from both."
        )

    def write(self, data: bytes) -> None:
        """All of it, on the disk before this returns. Raises Unavailable."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
            _sync(self.path.parent)
        except OSError as error:
            raise Unavailable(
                f"The escrow file {self.path} cannot be written: {error.strerror}.", remedy="Name another place."
            ) from error

    def close(self) -> None:
        """Close it; remove it again unless its escrow is on record."""
        try:
            if not self.recorded:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)


def _sync(folder: Path) -> None:
    """Have the names in a directory on the disk, where the file system can."""
    descriptor = os.open(folder, _DIRECTORY_FLAGS)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def escrow_file(path: Path | None) -> Iterator[EscrowFile | None]:
    """The file, made at once, so that a place that takes none is found out before a backup begins; None for None.

    Raises Refused where something has that name, InvalidRequest where no file can be made.
    """
    if path is None:
        yield None
        return
    file = EscrowFile(path)
    try:
        yield file
    finally:
        file.close()


@click.command()
@click.argument("name", metavar="BACKUP")
@file_argument
def escrow(name: str, file: Path) -> None:
    """Write the file that opens a backup when the app database is lost.

    It is as secret as the backup, and outlives it: deleting or expiring the backup does not reach it.
    """
    with session() as active, escrow_file(file) as made:
        if made:
            click.echo(made.keep(active, name))
