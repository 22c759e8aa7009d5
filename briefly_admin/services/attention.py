"""What of the backups needs somebody: damaged, about to expire, old, or a drill that failed."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from briefly_admin.engine.preflight import BackupFacts
from briefly_admin.services.config import ServiceConfig
from briefly_admin.services.sentences import duration
from briefly_admin.services.views import Attention, BackupView
from briefly_admin.store import backups
from briefly_admin.store.database import Connection

_EXPIRES_SOON: Final = timedelta(hours=4)
_HOUR: Final = timedelta(hours=1)


def backup_facts(connection: Connection, config: ServiceConfig, target_title: str) -> BackupFacts:
    """What checklist and overview go by: backups of another target are none of this one's."""
    newest, drill = backups.newest_proven(connection, target_title), backups.last_drill(connection)
    return BackupFacts(
        newest=newest.completed_at if newest else None,
        escrowed=newest is not None and newest.escrowed_at is not None,
        drilled=drill.at if drill else None,
        drill_whole=drill is None or drill.whole,
        drilled_backup=drill.name if drill else "",
        retention_hours=round(config.retention / _HOUR),
        drill_every_hours=round(config.drill_every / _HOUR) if config.drill_every else None,
        production=config.production,
    )


def of_backups(kept: Sequence[BackupView], known: BackupFacts, now: datetime) -> Iterator[Attention]:
    """One line each, the worst first; `kept`: the newest backups."""
    for backup in kept:
        if backup.state == "damaged":
            yield Attention(f"{backup.name} is damaged", "backup", backup.name)
    if not known.drill_whole:
        yield Attention(f"The drill of {known.drilled_backup} failed", "backup", known.drilled_backup)
    if known.newest is None and kept:
        yield Attention("No proven backup is left", "backups", "")
    if known.newest is not None and now - known.newest > known.retention_hours * _HOUR:
        age = duration((now - known.newest).total_seconds())
        yield Attention(f"The newest proven backup is {age} old", "backups", "")
    for backup in kept:
        if not backup.restorable or backup.pinned or backup.expires_at is None:
            continue
        left = backup.expires_at - now
        if left <= _EXPIRES_SOON:
            whose = f"Backup of run {backup.run_number}" if backup.run_number else backup.name
            yield Attention(f"{whose} expires in {duration(left.total_seconds())}", "backup", backup.name)
