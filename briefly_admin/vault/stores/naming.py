"""What may be a key or a prefix of a store, and the errors that all stores share."""

import re
from typing import Final

from briefly_admin.domain.errors import NotFound, Refused

_SEGMENT: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_KEY: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_PREFIX: Final = re.compile(rf"(?:{_SEGMENT}/)*(?:{_SEGMENT})?")


def is_key(name: str) -> bool:
    """Whether a store may hold an object of this name; what else a store lists is not ours."""
    return _KEY.fullmatch(name) is not None


def require_key(key: str) -> str:
    """The key. Raises Refused."""
    if not is_key(key):
        raise _no_key(key)
    return key


def require_prefix(prefix: str) -> str:
    """The prefix, which may be '' for all. Raises Refused."""
    if not _PREFIX.fullmatch(prefix):
        raise _no_key(prefix)
    return prefix


def exists(key: str) -> Refused:
    """The error of a put to a key that is taken."""
    return Refused(f"The store already holds {key}.", remedy="Objects of a backup are never overwritten.")


def absent(key: str) -> NotFound:
    """The error of asking for an object that is not there."""
    return NotFound(f"The store does not hold {key}.", remedy="Verify the backup.")


def _no_key(key: str) -> Refused:
    return Refused(f"{key!r} is no key of a backup store.", remedy="Keys are built from a backup's id alone.")
