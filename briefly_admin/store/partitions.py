"""A run's partitions in the app database: laid out by its leader, claimed by whoever works on it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.domain.errors import Fenced
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState, PartitionView
from briefly_admin.domain.runs import RunState
from briefly_admin.store import tables
from briefly_admin.store.database import Database
from briefly_admin.store.runs import CLOCK

_RUN: Final = tables.run.c
_STEP: Final = tables.run_step.c
_PART: Final = tables.run_partition.c
_AFRESH: Final[dict[str, Any]] = {"state": PartitionState.WAITING.value, "worker": "", "lease_until": None, "error": {}}


class DatabasePartitions:
    """domain.partitions.Partitions over the app database, for one worker of one attempt; leases by the server's clock.

    A claim is one conditional UPDATE, so that no two workers hold a partition; `generation` and `claim` are compared
    again whenever its holder says something of it.
    """

    def __init__(self, database: Database, run_id: UUID, attempt: int, *, worker: str, lease: timedelta) -> None:
        self.worker = worker
        self._database = database
        self._run_id = run_id
        self._attempt = attempt
        self._lease = lease

    def lay_out(
        self, step: str, partitions: Sequence[Partition], shared: Mapping[str, Any], *, keep: bool = False
    ) -> Sequence[Partition]:
        """The leader's: the step consists of these partitions, all waiting; those in force. Raises Fenced."""
        with self._database.begin() as connection:
            wanted = select(_RUN.attempt).where(_RUN.id == self._run_id).with_for_update(key_share=True)
            if connection.execute(wanted).scalar() != self._attempt:
                raise self._fenced()
            generation = self._new_generation(connection, step, shared)
            kept = self._of(step)
            if not (keep and connection.execute(select(_PART.partition).where(kept).limit(1)).first()):
                connection.execute(delete(tables.run_partition).where(kept))
                rows = [
                    {"run_id": self._run_id, "step": step, "table": part.table, "partition": part.number,
                     "position": position, "range": dict(part.range), "generation": generation}
                    for position, part in enumerate(partitions)
                ]  # fmt: skip
                if rows:
                    connection.execute(insert(tables.run_partition), rows)
                return partitions
            connection.execute(update(tables.run_partition).where(kept).values(generation=generation))
            undone = and_(kept, _PART.state != PartitionState.DONE.value)
            connection.execute(update(tables.run_partition).where(undone).values(_AFRESH))
            return [_partition(row) for row in connection.execute(self._all(step))]

    def _new_generation(self, connection: Connection, step: str, shared: Mapping[str, Any]) -> int:
        values = {"attempt": self._attempt, "shared": dict(shared)}
        statement = insert(tables.run_step).values(run_id=self._run_id, step=step, generation=1, **values)
        higher = {**values, "generation": _STEP.generation + 1}
        statement = statement.on_conflict_do_update(index_elements=["run_id", "step"], set_=higher)
        return int(connection.execute(statement.returning(_STEP.generation)).scalar_one())

    def claim(self, step: str | None = None) -> Claimed | None:
        """The next partition that waits or whose worker's lease is over; None if none is. Raises Fenced."""
        over = and_(_PART.state == PartitionState.WORKING.value, _PART.lease_until < CLOCK)
        free = or_(_PART.state == PartitionState.WAITING.value, over)
        found = (
            select(_PART.step, _PART.table, _PART.partition, _STEP.shared)
            .join(tables.run_step, and_(_STEP.run_id == _PART.run_id, _STEP.step == _PART.step))
            .join(tables.run, _RUN.id == _PART.run_id)
            .where(
                _PART.run_id == self._run_id, _RUN.attempt == self._attempt, _STEP.attempt == self._attempt,
                _RUN.state == RunState.RUNNING.value, _PART.generation == _STEP.generation, free,
            )
            .order_by(_PART.position)
            .limit(1)
            .with_for_update(of=tables.run_partition, skip_locked=True)
        )  # fmt: skip
        if step is not None:
            found = found.where(_PART.step == step)
        mine = found.cte("free")
        statement = (
            update(tables.run_partition)
            .where(
                _PART.run_id == self._run_id, _PART.step == mine.c.step, _PART.table == mine.c.table,
                _PART.partition == mine.c.partition,
            )
            .values(
                state=PartitionState.WORKING.value, claim=_PART.claim + 1, worker=self.worker,
                lease_until=CLOCK + self._lease,
            )
            .returning(_PART.step, _PART.table, _PART.partition, _PART.range, _PART.claim, _PART.generation,
                       mine.c.shared)
        )  # fmt: skip
        with self._database.begin() as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                self._require(connection)
                return None
        return Claimed(row.step, _partition(row), row.claim, row.generation, row.shared)

    def note(self, claimed: Claimed, count: Count) -> None:
        """How far it has come; its lease begins anew. Raises Fenced where another worker holds it."""
        self._held(claimed, progress=asdict(count), lease_until=CLOCK + self._lease)

    def finish(self, claimed: Claimed, count: Count, result: Mapping[str, Any]) -> None:
        """It is done. Raises Fenced where another worker holds it."""
        self._held(
            claimed, state=PartitionState.DONE.value, progress=asdict(count), result=dict(result), lease_until=None
        )  # fmt: skip

    def fail(self, claimed: Claimed, error: Mapping[str, str]) -> None:
        """It cannot be done: the leader ends the step with this error. Raises Fenced."""
        self._held(claimed, state=PartitionState.FAILED.value, error=dict(error), lease_until=None)

    def give_back(self, claimed: Claimed) -> None:
        """Somebody else may take it; nothing happens where somebody has."""
        with self._database.begin() as connection:
            connection.execute(update(tables.run_partition).where(self._mine(claimed)).values(_AFRESH))

    def survey(self, step: str, *, results: bool = False) -> Sequence[PartitionView]:
        """All partitions of the step, in order; with `results` what was found in each, too. Raises Fenced."""
        wanted = self._all(step)
        if not results:
            # They may be long, and a leader looks twice a second.
            wanted = wanted.with_only_columns(*(c for c in tables.run_partition.c if c.name != "result"))
        with self._database.begin() as connection:
            self._require(connection)
            return [
                PartitionView(
                    _partition(row), PartitionState(row.state), row.worker, Count(**row.progress),
                    row.result if results else {}, row.error,
                )
                for row in connection.execute(wanted)
            ]  # fmt: skip

    def _all(self, step: str) -> Any:
        return select(tables.run_partition).where(self._of(step)).order_by(_PART.position)

    def _of(self, step: str) -> ColumnElement[bool]:
        return and_(_PART.run_id == self._run_id, _PART.step == step)

    def _mine(self, claimed: Claimed) -> ColumnElement[bool]:
        part = claimed.partition
        return and_(
            self._of(claimed.step), _PART.table == part.table, _PART.partition == part.number,
            _PART.state == PartitionState.WORKING.value, _PART.claim == claimed.claim,
            _PART.generation == claimed.generation,
        )  # fmt: skip

    def _held(self, claimed: Claimed, **values: Any) -> None:
        with self._database.begin() as connection:
            statement = update(tables.run_partition).where(self._mine(claimed)).values(values)
            if connection.execute(statement).rowcount != 1:
                self._require(connection)
                part = claimed.partition
                raise Fenced(f"Another worker holds partition {part.number} of {part.table} now; this one leaves it.")

    def _require(self, connection: Connection) -> None:
        statement = select(_RUN.attempt).where(_RUN.id == self._run_id)
        if connection.execute(statement).scalar() != self._attempt:
            raise self._fenced()

    def _fenced(self) -> Fenced:
        return Fenced(f"Another attempt leads the run now; this is attempt {self._attempt}.")


def _partition(row: Row[Any]) -> Partition:
    return Partition(row.table, row.partition, row.range)


def renew(connection: Connection, run_id: UUID, worker: str, lease: timedelta) -> None:
    """The worker lives: the lease of what it holds begins anew."""
    statement = update(tables.run_partition).where(
        _PART.run_id == run_id, _PART.worker == worker, _PART.state == PartitionState.WORKING.value
    )
    connection.execute(statement.values(lease_until=CLOCK + lease))


def forget(connection: Connection, run_id: UUID) -> None:
    """The run is over for good: nobody asks for its partitions any more."""
    for table in (tables.run_partition, tables.run_step, tables.run_helper):
        connection.execute(delete(table).where(table.c.run_id == run_id))


def join(connection: Connection, run_id: UUID, worker: str, *, most: int, lease: timedelta) -> int | None:
    """A helper's place beside the leader: the lowest of 1…`most` that nobody holds; None where all are taken."""
    helper = tables.run_helper.c
    # Two that join at once must not both see the same place free.
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(run_id), 2))))
    taken = select(helper.slot).where(helper.run_id == run_id, helper.lease_until >= CLOCK)
    held = set(connection.execute(taken).scalars())
    slot = next((number for number in range(1, most + 1) if number not in held), None)
    if slot is not None:
        values = {"worker": worker, "lease_until": CLOCK + lease}
        statement = insert(tables.run_helper).values(run_id=run_id, slot=slot, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "slot"], set_=values))
    return slot


def stay(connection: Connection, run_id: UUID, slot: int, worker: str, lease: timedelta) -> bool:
    """The helper lives: its place is kept; False where another has it."""
    helper = tables.run_helper.c
    statement = update(tables.run_helper).where(helper.run_id == run_id, helper.slot == slot, helper.worker == worker)
    return connection.execute(statement.values(lease_until=CLOCK + lease)).rowcount == 1


def leave(connection: Connection, run_id: UUID, slot: int, worker: str) -> None:
    """The helper's place is free."""
    helper = tables.run_helper.c
    connection.execute(
        delete(tables.run_helper).where(helper.run_id == run_id, helper.slot == slot, helper.worker == worker)
    )


def helping(connection: Connection, run_id: UUID) -> dict[int, str]:
    """Slot → worker of those who help now."""
    helper = tables.run_helper.c
    statement = select(helper.slot, helper.worker).where(helper.run_id == run_id, helper.lease_until >= CLOCK)
    return dict(connection.execute(statement).all())
