"""The keys of a backup's objects: built from its id alone, never from input."""

import re
from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

from briefly_admin.domain.errors import BackupError

MOST_KEYS: Final = 1 << 22
"""Objects that a store may list: at 256 MiB a stream, a petabyte."""

_SLOTS: Final = "slots.json"
_MANIFEST: Final = "manifest.bma"
_OBJECT: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]{0,127}/){0,3}[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def prefix(backup_id: UUID) -> str:
    """What all keys of the backup start with."""
    return f"{backup_id}/"


def slots_key(backup_id: UUID) -> str:
    """The wrapped data key."""
    return f"{backup_id}/{_SLOTS}"


def manifest_key(backup_id: UUID) -> str:
    """Written last: without it the backup does not exist."""
    return f"{backup_id}/{_MANIFEST}"


def stream_key(backup_id: UUID, number: int) -> str:
    """A table stream, number 1 and up."""
    return f"{backup_id}/streams/{number}.bma"


def backup_of(key: str) -> UUID | None:
    """The backup that a key belongs to, or None if it is not one of ours: stores may list what they like."""
    name, slash, rest = key.partition("/")
    if not slash or not _OBJECT.fullmatch(rest):
        return None
    try:
        backup_id = UUID(name)
    except ValueError:
        return None
    return backup_id if str(backup_id) == name else None


def limited(keys: Iterable[str]) -> Iterator[str]:
    """The same keys. Raises BackupError where a listing does not end."""
    for number, key in enumerate(keys, start=1):
        if number > MOST_KEYS:
            raise BackupError(
                f"The backup store lists more than {MOST_KEYS} objects.",
                remedy="Look at what is in it; give Briefly Admin a store, or a prefix, of its own.",
            )
        yield key
