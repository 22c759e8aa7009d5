"""A run in each state, as only its leader would leave it, and what may be done with it there."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg

from briefly_admin.domain.runs import RunState

_S: Final = RunState
RESULTS: Final[Mapping[str, Mapping[RunState, RunState]]] = {
    "pause": {_S.RUNNING: _S.PAUSING},
    "resume": dict.fromkeys((_S.PAUSED, _S.INTERRUPTED, _S.FAILED, _S.CANCELLED), _S.PENDING),
    "cancel": dict.fromkeys((_S.AWAITING_APPROVAL, _S.PENDING, _S.PAUSED, _S.INTERRUPTED), _S.CANCELLED)
    | {_S.RUNNING: _S.CANCELLING},
    "change": {_S.RUNNING: _S.RUNNING, _S.PAUSED: _S.PAUSED},
}
"""Action → state that allows it → the state after it (design: pages.md)."""


def cases() -> Iterator[tuple[str, RunState, RunState | None]]:
    """Every action in every state: what it becomes, or None where it is refused."""
    for action, results in RESULTS.items():
        for state in RunState:
            yield action, state, results.get(state)


def put(app_database: str, state: RunState, **columns: Any) -> None:
    """Run 1 is in that state, with its settings as they were; a dict goes into a JSON column."""
    values = {"state": state.value, "enqueued_at": None} | {
        name: json.dumps(value) if isinstance(value, dict) else value for name, value in columns.items()
    }
    settings = ", ".join(f"{name} = %({name})s" for name in values)
    with psycopg.connect(app_database) as connection:
        connection.execute(
            f"UPDATE briefly_admin.run SET {settings}, config = jsonb_set(config, '{{batchSize}}', '100'), "
            "heartbeat_at = now()",
            values,
        )
