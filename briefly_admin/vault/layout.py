"""The keys of a backup's objects: built from its id alone, never from input."""

from typing import Final
from uuid import UUID

_SLOTS: Final = "slots.json"
_MANIFEST: Final = "manifest.bma"


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
    """The backup that a key belongs to, or None if it is not one of ours."""
    name = key.partition("/")[0]
    try:
        backup_id = UUID(name)
    except ValueError:
        return None
    return backup_id if str(backup_id) == name else None
