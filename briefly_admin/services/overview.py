"""The first page in one view."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from briefly_admin.domain.checks import Colour, worst
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import RunState
from briefly_admin.engine.sizes import sizes
from briefly_admin.services.auditing import require
from briefly_admin.services.checks import CheckService
from briefly_admin.services.config import Servers
from briefly_admin.services.reading import Reader
from briefly_admin.services.sentences import duration
from briefly_admin.services.views import Attention, BackupView, OverviewView, RunView
from briefly_admin.store import backups, details, runs

_RECENT: Final = 8
_EXPIRES_SOON: Final = timedelta(hours=4)
_NEEDS_SOMEBODY: Final = frozenset({RunState.FAILED, RunState.PAUSED})


class OverviewService:
    """Builds the overview."""

    def __init__(self, servers: Servers, reader: Reader, checks: CheckService, now: Callable[[], datetime]) -> None:
        self._servers = servers
        self._reader = reader
        self._checks = checks
        self._now = now

    def view(self, actor: Actor) -> OverviewView:
        """Everything that the page shows; a target that does not answer leaves `rows` None."""
        require(actor, Permission.READ)
        with self._servers.database.begin() as connection:
            recent = self._reader.runs(connection, runs.newest(connection, limit=_RECENT), actor)
            active = self._reader.runs(connection, runs.active(connection), actor)
            kept = tuple(
                self._reader.backup_with(row, row.run_number) for row in backups.newest(connection, limit=_RECENT)
            )
            quarantined = details.open_quarantine(connection)
            numbers = backups.run_numbers(connection, list(quarantined))
        cached = self._checks.cached(actor)
        checks = cached[1] if cached else ()
        listed = [
            Attention(f"{count:,} rows in quarantine from run {numbers[run_id]}", "quarantine", str(run_id))
            for run_id, count in quarantined.items()
        ]
        return OverviewView(
            checks_at=cached[0] if cached else None,
            colour=worst(checks) if cached else None,
            green=sum(check.colour is Colour.GREEN for check in checks),
            amber=tuple(check for check in checks if check.colour is Colour.AMBER),
            red=tuple(check for check in checks if check.colour is Colour.RED),
            active=active,
            recent=recent,
            backups=kept,
            attention=(*listed, *_of_runs(recent), *self._of_backups(kept)),
            target_title=self._servers.target.title,
            tables=len(self._servers.plan.tables),
            rows=self._rows(),
        )

    def _of_backups(self, kept: Sequence[BackupView]) -> list[Attention]:
        now, listed = self._now(), []
        for backup in kept:
            if backup.state == "damaged":
                listed.append(Attention(f"{backup.name} is damaged", "backup", backup.name))
            elif backup.restorable and not backup.pinned and backup.expires_at is not None:
                left = backup.expires_at - now
                if left <= _EXPIRES_SOON:
                    whose = f"Backup of run {backup.run_number}" if backup.run_number else backup.name
                    listed.append(
                        Attention(f"{whose} expires in {duration(left.total_seconds())}", "backup", backup.name)
                    )
        return listed

    def _rows(self) -> int | None:
        try:
            with self._servers.target.session() as connection:
                return sum(size.rows or 0 for size in sizes(connection, self._servers.plan))
        except BrieflyError:
            return None


def _of_runs(recent: Sequence[RunView]) -> list[Attention]:
    return [
        Attention(f"Run {run.number} is {run.state}", "run", run.id) for run in recent if run.state in _NEEDS_SOMEBODY
    ]
