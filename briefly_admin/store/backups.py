"""Backups in the app database: what is known of them, and the keys without which nobody reads them."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, String, and_, cast, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import ACTIVE
from briefly_admin.store import tables

_BACKUP: Final = tables.backup.c
_ACTIVE: Final = sorted(state.value for state in ACTIVE)
SHOWN: Final = ("proven", "damaged", "expired")
"""A backup that was never proven does not exist for people."""


def get(connection: Connection, backup_id: UUID) -> Row[Any] | None:
    """The backup of that id, in whatever state."""
    return connection.execute(select(tables.backup).where(_BACKUP.id == backup_id)).one_or_none()


def by_name(connection: Connection, name: str) -> Row[Any] | None:
    """The backup of that name."""
    return connection.execute(select(tables.backup).where(_BACKUP.name == name)).one_or_none()


def newest(connection: Connection, *, limit: int = 500) -> Sequence[Row[Any]]:
    """Backups that people may see, newest first."""
    shown = select(tables.backup).where(_BACKUP.state.in_(SHOWN)).order_by(_BACKUP.created_at.desc())
    return connection.execute(shown.limit(limit)).all()


def run_numbers(connection: Connection, run_ids: Collection[UUID]) -> dict[UUID, int]:
    """Run id → number."""
    if not run_ids:
        return {}
    statement = select(tables.run.c.id, tables.run.c.number).where(tables.run.c.id.in_(list(run_ids)))
    return dict(connection.execute(statement).all())


def of_runs(connection: Connection, backup_ids: Collection[UUID]) -> dict[UUID, Row[Any]]:
    """Backup id → backup."""
    if not backup_ids:
        return {}
    statement = select(tables.backup).where(_BACKUP.id.in_(list(backup_ids)))
    return {row.id: row for row in connection.execute(statement)}


def begin(connection: Connection, values: Mapping[str, Any]) -> None:
    """Insert a backup that is being written; others that its run left half-written are given up. Raises Refused."""
    give_up = update(tables.backup).where(_BACKUP.run_id == values["run_id"], _BACKUP.state == "writing")
    connection.execute(give_up.values(state="failed", shred_key=None))
    statement = insert(tables.backup).values(dict(values) | {"state": "writing"}).on_conflict_do_nothing()
    if connection.execute(statement.returning(_BACKUP.id)).scalar() is None:
        raise Refused(f"There is another backup {values['name']} of the same millisecond.", remedy="Start it again.")


def add_proof(connection: Connection, backup_id: UUID, run: Row[Any], values: Mapping[str, Any]) -> None:
    """Note a look at a backup by a run: level, whole, damages, rows, seconds, place."""
    whose = {"backup_id": backup_id, "run_id": run.id, "by_whom": run.created_by}
    connection.execute(insert(tables.backup_proof).values(dict(values) | whose))


def proofs(connection: Connection, backup_ids: Collection[UUID]) -> dict[UUID, list[Row[Any]]]:
    """Backup id → every look at it, newest first, with `run_number`."""
    found: dict[UUID, list[Row[Any]]] = {backup_id: [] for backup_id in backup_ids}
    proof = tables.backup_proof
    joined = proof.outerjoin(tables.run, tables.run.c.id == proof.c.run_id)
    statement = select(proof, tables.run.c.number.label("run_number")).select_from(joined)
    statement = statement.where(proof.c.backup_id.in_(list(backup_ids))).order_by(proof.c.id.desc())
    for row in connection.execute(statement):
        found[row.backup_id].append(row)
    return found


def newest_proven(connection: Connection, target_title: str) -> Row[Any] | None:
    """The newest proven backup of the target; by its title, since a target need not answer to be asked about."""
    statement = select(tables.backup).where(_BACKUP.state == "proven", _BACKUP.target_title == target_title)
    return connection.execute(statement.order_by(_BACKUP.created_at.desc()).limit(1)).one_or_none()


def last_drill(connection: Connection) -> Row[Any] | None:
    """The newest drill of any backup, with the backup's `name`; or None."""
    proof = tables.backup_proof
    joined = proof.join(tables.backup, _BACKUP.id == proof.c.backup_id)
    statement = select(proof, _BACKUP.name).select_from(joined).where(proof.c.level == "L2")
    return connection.execute(statement.order_by(proof.c.id.desc()).limit(1)).one_or_none()


def set_values(connection: Connection, backup_id: UUID, *, states: Collection[str], **values: Any) -> bool:
    """Change a backup that is in one of `states`; False if it is not."""
    statement = update(tables.backup).where(_BACKUP.id == backup_id, _BACKUP.state.in_(list(states))).values(**values)
    return connection.execute(statement).rowcount == 1


def used_by(connection: Connection, backup_id: UUID) -> int | None:
    """The number of an unfinished run that made this backup or restores it."""
    run = tables.run.c
    statement = (
        select(run.number)
        .join_from(tables.run, tables.backup, _BACKUP.id == backup_id)
        .where(run.state.in_(_ACTIVE), or_(run.id == _BACKUP.run_id, run.options["backup_id"].astext == str(backup_id)))
    )
    return connection.execute(statement.limit(1)).scalar()


def shred(connection: Connection, backup_id: UUID) -> bool:
    """Forget the key of a backup that no unfinished run needs: from now on nobody reads it."""
    statement = update(tables.backup).where(
        _BACKUP.id == backup_id, _BACKUP.state.in_(("proven", "damaged")), ~_pinned_or_used()
    )
    return connection.execute(statement.values(state="expired", shred_key=None, expires_at=func.now())).rowcount == 1


def expired(connection: Connection, now: datetime) -> Sequence[UUID]:
    """Backups whose time is over, neither pinned nor needed by an unfinished run."""
    statement = select(_BACKUP.id).where(
        _BACKUP.state.in_(("proven", "damaged")), _BACKUP.expires_at <= now, ~_pinned_or_used()
    )
    return connection.execute(statement.order_by(_BACKUP.created_at)).scalars().all()


def unpurged(connection: Connection) -> Sequence[UUID]:
    """Backups without a key of which the store may still hold something; half-written ones of runs that are over."""
    over = ~exists().where(tables.run.c.id == _BACKUP.run_id, tables.run.c.state.in_(_ACTIVE)).correlate(tables.backup)
    half = and_(_BACKUP.state == "writing", over)
    statement = select(_BACKUP.id).where(
        _BACKUP.purged_at.is_(None), or_(_BACKUP.state.in_(("expired", "failed")), half)
    )
    return connection.execute(statement).scalars().all()


def purged(connection: Connection, backup_id: UUID) -> None:
    """Nothing of it is in the store any more."""
    half = update(tables.backup).where(_BACKUP.id == backup_id, _BACKUP.state == "writing")
    connection.execute(half.values(state="failed", shred_key=None))
    connection.execute(update(tables.backup).where(_BACKUP.id == backup_id).values(purged_at=func.now()))


def kept_ids(connection: Connection) -> set[UUID]:
    """Every backup that the store may rightly hold."""
    statement = select(_BACKUP.id).where(_BACKUP.state.in_(("writing", "proven", "damaged")))
    return set(connection.execute(statement).scalars())


def anything_led(connection: Connection) -> bool:
    """Whether a run is at work: it may have begun a backup that is not recorded yet."""
    led = tables.run.c.state.in_(("running", "pausing", "cancelling"))
    return bool(connection.execute(select(exists().where(led))).scalar())


def _pinned_or_used() -> Any:
    run = tables.run.c
    restoring = run.options["backup_id"].astext == cast(_BACKUP.id, String)
    used = exists().where(run.state.in_(_ACTIVE), or_(run.id == _BACKUP.run_id, restoring)).correlate(tables.backup)
    return or_(_BACKUP.pinned, used)
