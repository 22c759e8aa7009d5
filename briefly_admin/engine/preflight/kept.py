"""Checks of what is kept: room in the store, the newest proven backup, the last drill, an escrow file."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Final

from briefly_admin.domain.checks import Check
from briefly_admin.engine.preflight.inputs import BackupFacts, PreflightInputs, amber, green, look, red
from briefly_admin.engine.target import Connection

_NEWEST: Final = "A proven backup is at hand"
_DRILL: Final = "A backup has been restored, to try it"
_ESCROW: Final = "The newest backup can be opened without this program's database"


def of_backups(known: BackupFacts, now: datetime) -> Iterator[Check]:
    """The checks of the backups at hand, as the app database knows them."""
    yield _newest(known, now)
    if known.newest is not None:
        yield _drill(known, now)
        if known.production:
            yield _escrow(known)


def _newest(known: BackupFacts, now: datetime) -> Check:
    if known.newest is None:
        return amber("newest_backup", _NEWEST, "There is none yet.",
                     "A run takes one first, unless createBackup is off; or: briefly-admin backup create.")  # fmt: skip
    hours = _hours(now, known.newest)
    found = f"The newest is {hours:.1f} h old."
    if hours > known.retention_hours:
        return amber("newest_backup", _NEWEST, found, "Take a new one: briefly-admin backup create.")
    return green("newest_backup", _NEWEST, found)


def _drill(known: BackupFacts, now: datetime) -> Check:
    remedy = "Drill the newest backup: its page, or briefly-admin backup drill."
    if known.drilled is None:
        if known.drill_every_hours is None:
            return green("last_drill", _DRILL, "None yet; set DRILL_EVERY_HOURS to have the clock do it.")
        return amber("last_drill", _DRILL, "None yet; the clock starts one.", remedy)
    hours = _hours(now, known.drilled)
    if not known.drill_whole:
        return amber("last_drill", _DRILL, f"The last drill, {hours:.1f} h ago, failed.",
                     "Open its run, take a new backup, and drill that.")  # fmt: skip
    found = f"The last drill was {hours:.1f} h ago."
    if known.drill_every_hours is not None and hours > 2 * known.drill_every_hours:
        return amber("last_drill", _DRILL, f"{found} DRILL_EVERY_HOURS is {known.drill_every_hours}.", remedy)
    return green("last_drill", _DRILL, found)


def _escrow(known: BackupFacts) -> Check:
    if known.escrowed:
        return green("escrow", _ESCROW, "Its escrow file was written.")
    return amber("escrow", _ESCROW, "It has no escrow file.", "Write one: briefly-admin backup escrow BACKUP FILE.")


def _hours(now: datetime, then: datetime) -> float:
    return (now - then).total_seconds() / 3600


def store_room(connection: Connection, inputs: PreflightInputs, oids: list[int]) -> Check:
    """Whether the store answers and has room for the tables' size (without indexes); sealed rows are smaller."""
    title = "The store has room for a backup"

    def ask() -> Check:
        assert inputs.store is not None
        list(islice(inputs.store.list(), 1))
        ((needed,),) = connection.execute(
            "SELECT coalesce(sum(pg_table_size(o::oid)), 0)::int8 FROM unnest(%s::int8[]) AS o", (oids,)
        ).fetchall()
        free = inputs.store.free_bytes()
        if free is None:
            return green("store_room", title, f"The tables take {_mb(needed)}; the store has no known limit.")
        found = f"The tables take {_mb(needed)}, the store has {_mb(free)} left."
        remedy = "Make room, delete backups that nobody needs, or set another BACKUP_STORE_URL."
        if free < needed // 2:
            return red("store_room", title, found, remedy)
        if free < needed:
            return amber("store_room", title, found, remedy)
        return green("store_room", title, found)

    return look("store_room", title, ask)


def _mb(size: int) -> str:
    """Bytes in words; of little, more than '0 MB'."""
    return f"{size / 2**20:,.1f} MB"
