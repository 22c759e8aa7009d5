"""Canonical JSON: written in one way only, and read field by field, so that nothing in it goes unnoticed.

UTF-8, keys sorted, no white space, integers alone (no fractions), every field present and no other.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupDamaged

MIN_INTEGER: Final = -(1 << 63)
MAX_INTEGER: Final = (1 << 63) - 1
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_CTID: Final = re.compile(r"\([0-9]{1,10},[0-9]{1,5}\)")
_T = TypeVar("_T")


def canonical(value: Any) -> bytes:
    """The one text of a dataclass, or of plain JSON values."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def damaged(path: str, what: str) -> BackupDamaged:
    """What to raise: the path into the manifest, and what is wrong there."""
    return BackupDamaged(f"The backup's manifest is damaged: {path} {what}.", remedy="Use another backup.")


class JsonObject:
    """One JSON object, read field by field; every surprise is BackupDamaged with the path to it."""

    def __init__(self, data: Any, path: str, kind: type) -> None:
        self.path = path
        if not isinstance(data, dict):
            raise damaged(path, "is not an object")
        self._data: dict[str, Any] = data
        surprises = sorted({each.name for each in fields(kind)} ^ data.keys())
        if surprises:
            raise damaged(path, f"has missing or unknown fields ({', '.join(surprises)})")

    def _get(self, name: str, kind: type[_T]) -> _T:
        value = self._data[name]
        if type(value) is not kind:  # bool is an int, and must not pass for one
            raise damaged(f"{self.path}.{name}", f"is not {kind.__name__}")
        return value

    def text(self, name: str) -> str:
        """A text that PostgreSQL could hold."""
        value = self._get(name, str)
        if "\0" in value:
            raise damaged(f"{self.path}.{name}", "holds a NUL")
        return value

    def place(self, name: str) -> str:
        """A ctid as PostgreSQL writes it, or ''."""
        value = self._get(name, str)
        if value and not _CTID.fullmatch(value):
            raise damaged(f"{self.path}.{name}", "is not a ctid")
        return value

    def one_of(self, name: str, values: Sequence[str]) -> str:
        """One of these texts."""
        value = self._get(name, str)
        if value not in values:
            raise damaged(f"{self.path}.{name}", f"is not one of {', '.join(map(repr, values))}")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        return self._get(name, bool)

    def integer(self, name: str, *, least: int = 0) -> int:
        """From `least` up to what 64 bits hold."""
        value = self._get(name, int)
        if not least <= value <= MAX_INTEGER:
            raise damaged(f"{self.path}.{name}", "is out of range")
        return value

    def sha256(self, name: str) -> str:
        """64 hexadecimal digits, lower case."""
        value = self._get(name, str)
        if not _HEX.fullmatch(value):
            raise damaged(f"{self.path}.{name}", "is not a SHA-256 in hexadecimal")
        return value

    def items(self, name: str) -> list[tuple[Any, str]]:
        """A list's items, each with its path."""
        return [(item, f"{self.path}.{name}[{i}]") for i, item in enumerate(self._get(name, list))]

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        for item, path in self.items(name):
            if type(item) is not str:
                raise damaged(path, "is not str")
        return tuple(self._get(name, list))

    def mapping(self, name: str) -> dict[str, str]:
        """An object whose values are texts."""
        found = self._get(name, dict)
        for key, value in found.items():
            if type(value) is not str:
                raise damaged(f"{self.path}.{name}.{key}", "is not str")
        return found


def plain(value: Any) -> Any:
    """A dataclass, and what it holds, as plain JSON values."""
    if isinstance(value, UUID | TableDigest):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    return value
