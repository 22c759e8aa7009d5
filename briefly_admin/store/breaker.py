"""The circuit breaker as columns of the run: each step is one conditional UPDATE, so that all workers see one breaker.

It needs the app database alone: with Redis gone it holds as before.
"""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import Float, Row, Select, and_, case, extract, func, literal, null, or_, select, update

from briefly_admin.domain.breaker import LONGEST, OPENS_AT, SHORTEST, BreakerState, BreakerView
from briefly_admin.domain.errors import Fenced
from briefly_admin.store import tables
from briefly_admin.store.database import Connection, Database
from briefly_admin.store.runs import CLOCK
from briefly_admin.store.texts import storable

_RUN: Final = tables.run.c
_LONGEST_WHY: Final = 500
_MOST_DOUBLINGS: Final = 30
_SHUT: Final[dict[str, Any]] = {
    "breaker_state": BreakerState.CLOSED.value, "breaker_failures": 0, "breaker_why": "", "breaker_until": None,
    "breaker_worker": "",
}  # fmt: skip


class DatabaseBreaker:
    """domain.breaker.Breaker over the app database, for one worker of one attempt."""

    def __init__(self, database: Database, run_id: UUID, attempt: int, *, worker: str) -> None:
        self.worker = worker
        self._database = database
        self._led = and_(_RUN.id == run_id, _RUN.attempt == attempt)
        self._attempt = attempt
        self._probing = and_(_RUN.breaker_state == BreakerState.HALF_OPEN.value, _RUN.breaker_worker == worker)

    def look(self) -> BreakerView:
        """How it stands. Raises Fenced, Unavailable."""
        with self._database.begin() as connection:
            return self._look(connection)

    def failed(self, why: str, *, delay: float, jitter: float) -> BreakerView | None:
        """One more failure; how it stands then, or None where others had opened it. Raises Fenced, Unavailable."""
        failures = _RUN.breaker_failures + 1
        doubled = func.power(2.0, func.least(failures - OPENS_AT, _MOST_DOUBLINGS), type_=Float)
        seconds = func.greatest(SHORTEST, func.least(LONGEST, doubled * (delay * jitter)))
        opens = failures >= OPENS_AT
        statement = (
            update(tables.run)
            .where(self._led, or_(_RUN.breaker_state == BreakerState.CLOSED.value, self._probing))
            .values(
                breaker_failures=failures,
                breaker_why=storable(why[:_LONGEST_WHY]),
                breaker_state=case((opens, BreakerState.OPEN.value), else_=BreakerState.CLOSED.value),
                breaker_until=case((opens, CLOCK + func.make_interval(0, 0, 0, 0, 0, 0, seconds)), else_=null()),
                breaker_worker="",
            )
        )
        with self._database.begin() as connection:
            changed = connection.execute(statement).rowcount == 1
            view = self._look(connection)
        return view if changed else None

    def succeeded(self) -> bool:
        """The row of failures has ended, or this worker's probe closed it. Raises Fenced, Unavailable."""
        counted = and_(_RUN.breaker_state == BreakerState.CLOSED.value, _RUN.breaker_failures > 0)
        return self._change(or_(counted, self._probing), _SHUT)

    def try_probe(self, lease: float) -> bool:
        """Whether this worker may probe, for `lease` seconds. Raises Fenced, Unavailable."""
        over = and_(_RUN.breaker_state != BreakerState.CLOSED.value, _RUN.breaker_until <= CLOCK)
        values = {
            "breaker_state": BreakerState.HALF_OPEN.value, "breaker_worker": self.worker,
            "breaker_until": CLOCK + func.make_interval(0, 0, 0, 0, 0, 0, literal(lease, Float)),
        }  # fmt: skip
        return self._change(or_(over, self._probing), values)

    def _change(self, condition: Any, values: dict[str, Any]) -> bool:
        statement = update(tables.run).where(self._led, condition).values(values)
        with self._database.begin() as connection:
            changed = connection.execute(statement).rowcount == 1
            if not changed:
                self._look(connection)
            return changed

    def _look(self, connection: Connection) -> BreakerView:
        row = connection.execute(_columns().where(self._led)).one_or_none()
        if row is None:
            raise Fenced(f"Another attempt leads the run now; this is attempt {self._attempt}.")
        return _view(row)


def _columns() -> Select[Any]:
    left = extract("epoch", _RUN.breaker_until - CLOCK).label("left")
    return select(
        _RUN.breaker_state, _RUN.breaker_failures, _RUN.breaker_why, _RUN.breaker_until, _RUN.breaker_worker, left
    )


def _view(row: Row[Any]) -> BreakerView:
    return BreakerView(
        BreakerState(row.breaker_state), row.breaker_failures, row.breaker_why, row.breaker_until, float(row.left or 0),
        row.breaker_worker,
    )  # fmt: skip
