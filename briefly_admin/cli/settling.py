"""Reading the file of --settle: rows edited since, and what becomes of each."""

import json
from pathlib import Path
from typing import Any, Final, NoReturn

from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.services.settling import fault_of_settled

_LARGEST: Final = 16 * 1024 * 1024
_REMEDY: Final = 'Such as {"users": [{"key": ["42"], "how": "edit", "values": {"name": "Ana"}}]}.'


def settled_rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """What the file says: {table: [{"key": [texts], "how": …, "values": …}]}. Raises InvalidRequest: what and where."""
    given = _parsed(path, _read(path))
    fault = fault_of_settled(given)
    if fault:
        raise InvalidRequest(f"--settle {path}: {fault}.", remedy=_REMEDY)
    return dict(given)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise InvalidRequest(f"--settle {path}: {error.strerror or 'cannot be read'}.") from None
    if len(content) > _LARGEST:
        raise InvalidRequest(f"--settle {path}: is larger than {_LARGEST // 1024**2} MiB.")
    return content


def _parsed(path: Path, content: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InvalidRequest(f"--settle {path}: '{twice}' is there twice in one object.")
        return dict(pairs)

    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"--settle {path}: is not JSON: {error.msg} at {where}.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest(f"--settle {path}: is not JSON in UTF-8 that can be read.") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
