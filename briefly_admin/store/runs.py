"""Runs in the app database: found, begun, and moved from state to state by conditional UPDATEs."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    String,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.domain.runs import ACTIVE, EXCLUSIVE_KINDS, LED, RunKind, RunState
from briefly_admin.store import tables

_RUN: Final = tables.run.c
_ALTERING: Final = frozenset({RunKind.MIGRATION, RunKind.REPLAY})
"""Kinds that change rows and the schema by the plan."""
CLOCK: Final = func.clock_timestamp()
"""The server's clock: leases are compared by one clock, whatever the machines' say."""


def lock_target(connection: Connection, target_id: str) -> None:
    """Until the transaction ends, nobody else begins or resumes a run on this target."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(target_id, 1))))


def begin(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Insert a run; False where its idempotency key is taken or another run holds the target."""
    statement = insert(tables.run).values(dict(values)).on_conflict_do_nothing().returning(_RUN.number)
    return connection.execute(statement).scalar() is not None


def get(connection: Connection, run_id: UUID) -> Row[Any] | None:
    """The run of that id."""
    return connection.execute(select(tables.run).where(_RUN.id == run_id)).one_or_none()


def by_number(connection: Connection, number: int) -> Row[Any] | None:
    """The run of that number."""
    return connection.execute(select(tables.run).where(_RUN.number == number)).one_or_none()


def by_idempotency_key(connection: Connection, key: str) -> Row[Any] | None:
    """The run that a request with this key began."""
    return connection.execute(select(tables.run).where(_RUN.idempotency_key == key)).one_or_none()


def holder(connection: Connection, target_id: str, *, but: UUID | None = None) -> Row[Any] | None:
    """The run that holds the target."""
    statement = select(tables.run).where(_RUN.target_id == target_id, _of(EXCLUSIVE_KINDS), _in(ACTIVE))
    if but is not None:
        statement = statement.where(_RUN.id != but)
    return connection.execute(statement.limit(1)).one_or_none()


def newest(
    connection: Connection, *, limit: int, before: int | None = None, kind: RunKind | None = None
) -> Sequence[Row[Any]]:
    """Runs, newest first; `before` is a run number."""
    statement = select(tables.run).order_by(_RUN.number.desc()).limit(limit)
    if before is not None:
        statement = statement.where(_RUN.number < before)
    if kind is not None:
        statement = statement.where(_RUN.kind == kind.value)
    return connection.execute(statement).all()


def active(connection: Connection) -> Sequence[Row[Any]]:
    """All runs that are not over, oldest first."""
    return connection.execute(select(tables.run).where(_in(ACTIVE)).order_by(_RUN.number)).all()


def count(connection: Connection) -> int:
    """How many runs there are."""
    return connection.execute(select(func.count()).select_from(tables.run)).scalar_one()


def newest_exclusive(connection: Connection) -> dict[str, int]:
    """target_id → number of the newest run that changes data there."""
    statement = select(_RUN.target_id, func.max(_RUN.number)).where(_of(EXCLUSIVE_KINDS)).group_by(_RUN.target_id)
    return dict(connection.execute(statement).all())


def transition(
    connection: Connection,
    run_id: UUID,
    new: RunState,
    *,
    before: Collection[RunState],
    by: str,
    attempt: int | None = None,
    **values: Any,
) -> bool:
    """Move the run to `new` if it is in one of `before` (and of `attempt`); False if it was not."""
    statement = (
        update(tables.run)
        .where(_RUN.id == run_id, _in(before))
        .values(state=new.value, state_at=func.now(), state_by=by, **values)
    )
    if attempt is not None:
        statement = statement.where(_RUN.attempt == attempt)
    return connection.execute(statement).rowcount == 1


def set_config(
    connection: Connection,
    run_id: UUID,
    config: Mapping[str, Any],
    *,
    old: Mapping[str, Any],
    states: Collection[RunState],
) -> bool:
    """Replace the config if it still is `old` and the run in one of `states`."""
    statement = update(tables.run).where(
        _RUN.id == run_id, _in(states), _RUN.config == literal(dict(old), _RUN.config.type)
    )
    return connection.execute(statement.values(config=dict(config))).rowcount == 1


def enqueued(connection: Connection, run_id: UUID) -> None:
    """A worker was asked to lead the run."""
    connection.execute(update(tables.run).where(_RUN.id == run_id).values(enqueued_at=CLOCK))


def claim(connection: Connection, run_id: UUID, *, leader: str, lease: timedelta) -> Row[Any] | None:
    """Become the run's leader: a new attempt, if it waits for one or its leader has been silent for `lease`."""
    waiting = _in({RunState.PENDING, RunState.INTERRUPTED})
    resumed = _in({RunState.PENDING})
    statement = (
        update(tables.run)
        .where(_RUN.id == run_id, or_(waiting, _abandoned(lease)))
        .values(
            state=case((waiting, literal(RunState.RUNNING.value)), else_=_RUN.state),
            state_at=case((waiting, func.now()), else_=_RUN.state_at),
            state_by=case((waiting, literal("worker")), else_=_RUN.state_by),
            attempt=_RUN.attempt + 1,
            leader=leader,
            heartbeat_at=CLOCK,
            started_at=func.coalesce(_RUN.started_at, func.now()),
            # Who resumes a run has looked at what stopped it.
            breaker_state=case((resumed, literal("closed")), else_=_RUN.breaker_state),
            breaker_failures=case((resumed, literal(0)), else_=_RUN.breaker_failures),
        )
        .returning(tables.run)
    )
    return connection.execute(statement).one_or_none()


def beat(connection: Connection, run_id: UUID, attempt: int) -> Row[Any] | None:
    """The leader lives: its state and config now, or None where another attempt has taken over or the run is over."""
    statement = (
        update(tables.run).where(_RUN.id == run_id, _RUN.attempt == attempt, _in(LED)).values(heartbeat_at=CLOCK)
    )
    return connection.execute(statement.returning(_RUN.state, _RUN.config)).one_or_none()


def look(connection: Connection, run_id: UUID, attempt: int) -> Row[Any] | None:
    """As `beat`, without the beat."""
    statement = select(_RUN.state, _RUN.config).where(_RUN.id == run_id, _RUN.attempt == attempt, _in(LED))
    return cast("Row[Any] | None", connection.execute(statement).one_or_none())


def save_progress(connection: Connection, run_id: UUID, attempt: int, progress: Mapping[str, Any]) -> None:
    """Keep the newest progress, for pages when the queue has none; the phase is the journal's to write, at once."""
    statement = update(tables.run).where(_RUN.id == run_id, _RUN.attempt == attempt)
    connection.execute(statement.values(progress=dict(progress)))


def save_throughput(connection: Connection, run_id: UUID, *, phase: str, done: int, rate: float) -> None:
    """One point of the throughput picture."""
    values = {"run_id": run_id, "at": CLOCK, "phase": phase, "done": done, "rate": rate}
    connection.execute(insert(tables.throughput).values(values).on_conflict_do_nothing())


def abandoned(connection: Connection, lease: timedelta) -> Sequence[Row[Any]]:
    """Runs whose leader has been silent for `lease`."""
    return connection.execute(select(tables.run).where(_abandoned(lease)).order_by(_RUN.number)).all()


def heal(connection: Connection, run_id: UUID, new: RunState, *, before: RunState, lease: timedelta) -> bool:
    """Take an abandoned run out of its dead leader's hands: a new attempt fences it."""
    statement = (
        update(tables.run)
        .where(_RUN.id == run_id, _RUN.state == before.value, _abandoned(lease))
        .values(state=new.value, state_at=func.now(), state_by="clock", attempt=_RUN.attempt + 1, enqueued_at=None)
    )
    if new is RunState.CANCELLED:
        statement = statement.values(completed_at=func.now())
    return connection.execute(statement).rowcount == 1


def waiting(connection: Connection, lease: timedelta) -> Sequence[Row[Any]]:
    """Runs that wait for a worker and were never queued, or queued so long ago that the queue may have lost them."""
    unheard = or_(_RUN.enqueued_at.is_(None), _RUN.enqueued_at < CLOCK - lease)
    statement = select(tables.run).where(_in({RunState.PENDING, RunState.INTERRUPTED}), unheard)
    return connection.execute(statement.order_by(_RUN.number)).all()


def undone_by_restoring(connection: Connection, row: Row[Any], *, since: int) -> Sequence[Row[Any]]:
    """Migrations and replays, from run `since` on, that a whole restore by the rollback `row` takes back."""
    statement = select(tables.run).where(
        _RUN.target_id == row.target_id, _RUN.plan == row.plan, _of(_ALTERING),
        _RUN.number >= since, _RUN.number < row.number, _RUN.started_at.is_not(None),
        ~_RUN.config.contains({"dryRun": True}),
        _in({RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS, RunState.FAILED, RunState.CANCELLED}),
    )  # fmt: skip
    return connection.execute(statement.order_by(_RUN.number)).all()


def altering_since(connection: Connection, origin: Row[Any]) -> Sequence[UUID]:
    """The runs, `origin` and later ones on its target, that may have changed the schema of its plan; oldest first."""
    undone = {RunState.COMPLETED, RunState.ROLLED_BACK}
    statement = select(_RUN.id).where(
        _RUN.target_id == origin.target_id, _RUN.plan == origin.plan, _RUN.number >= origin.number,
        _RUN.started_at.is_not(None), ~_RUN.config.contains({"dryRun": True}),
        # A rollback that did not come to its end changed nothing.
        or_(_of(_ALTERING), and_(_RUN.kind == RunKind.ROLLBACK.value, _in(undone))),
    )  # fmt: skip
    return connection.execute(statement.order_by(_RUN.number)).scalars().all()


def unfinished_replays(connection: Connection, migrations: Collection[UUID]) -> set[UUID]:
    """Those of these migrations whose newest replay failed or was cancelled."""
    of = _RUN.options["of"].astext
    replays = select(of.label("of"), _RUN.state).where(
        _RUN.kind == RunKind.REPLAY.value, of.in_([str(each) for each in migrations])
    )
    newest = {row.of: RunState(row.state) for row in connection.execute(replays.order_by(_RUN.number))}
    return {UUID(each) for each, state in newest.items() if state in {RunState.FAILED, RunState.CANCELLED}}


def add_options(connection: Connection, run_id: UUID, options: Mapping[str, Any]) -> None:
    """Put fields over the run's options."""
    addition = literal(dict(options), _RUN.options.type)
    connection.execute(update(tables.run).where(_RUN.id == run_id).values(options=_RUN.options.op("||")(addition)))


def try_clock_lock(connection: Connection) -> bool:
    """Whether this session is now the one clock; held until the session ends or `free_clock_lock`."""
    return bool(connection.execute(text("SELECT pg_try_advisory_lock(7090, 1)")).scalar())


def free_clock_lock(connection: Connection) -> None:
    """Let another clock take over."""
    connection.execute(text("SELECT pg_advisory_unlock(7090, 1)"))


def server_now(connection: Connection) -> datetime:
    """The server's clock."""
    now: datetime = connection.execute(select(CLOCK)).scalar_one()
    return now


def _in(states: Collection[RunState]) -> ColumnElement[bool]:
    return _RUN.state.in_(sorted(state.value for state in states))


def _of(kinds: Collection[RunKind]) -> ColumnElement[bool]:
    return _RUN.kind.in_(sorted(kind.value for kind in kinds))


def _abandoned(lease: timedelta) -> ColumnElement[bool]:
    silent = func.coalesce(_RUN.heartbeat_at, _RUN.started_at, _RUN.created_at) < CLOCK - lease
    return and_(_in(LED), silent)


def looking_at(connection: Connection, kind: str, backup_id: UUID) -> Row[Any] | None:
    """An unfinished run of the kind that has to do with the backup, or None."""
    wanted = select(tables.run).where(
        _RUN.kind == kind, _RUN.state.in_(sorted(ACTIVE)), _RUN.options["backup_id"].astext == str(backup_id)
    )
    return connection.execute(wanted.order_by(_RUN.number).limit(1)).one_or_none()


def newest_of_kind(connection: Connection, kind: RunKind) -> Row[Any] | None:
    """The run of the kind that was begun last, or None."""
    wanted = select(tables.run).where(_RUN.kind == kind.value)
    return connection.execute(wanted.order_by(_RUN.number.desc()).limit(1)).one_or_none()


def over(connection: Connection, run_ids: Collection[UUID], *, previewed_since: datetime) -> dict[UUID, int]:
    """Run id → its last attempt, of those of these runs that are not active, and whose scratch nobody wants any more.

    That of a preview is wanted while its backup has a key, if the preview ended later than `previewed_since`, or an
    active rollback names it.
    """
    rollback = tables.run.alias()
    named = exists().where(
        rollback.c.kind == RunKind.ROLLBACK.value, rollback.c.state.in_(sorted(ACTIVE)),
        rollback.c.options["preview_id"].astext == _RUN.id.cast(String),
    )  # fmt: skip
    readable = exists().where(
        tables.backup.c.shred_key.is_not(None), _RUN.options["backup_id"].astext == tables.backup.c.id.cast(String)
    )
    fresh = func.coalesce(_RUN.completed_at, _RUN.state_at) > previewed_since
    previewed = and_(_RUN.kind == RunKind.PREVIEW.value, _RUN.state == RunState.COMPLETED.value)
    wanted = and_(previewed, readable.correlate(tables.run), or_(fresh, named.correlate(tables.run)))
    found = select(_RUN.id, _RUN.attempt).where(_RUN.id.in_(list(run_ids)), ~_in(ACTIVE), ~wanted)
    return {row.id: row.attempt for row in connection.execute(found)}
