"""The first page in one view."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from briefly_admin.domain.checks import Colour, worst
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import RunState
from briefly_admin.engine.sizes import sizes
from briefly_admin.services.attention import backup_facts, of_backups
from briefly_admin.services.auditing import require
from briefly_admin.services.checks import CheckService
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.reading import Reader
from briefly_admin.services.views import Attention, OverviewView, RunView
from briefly_admin.store import backups, details, runs

_RECENT: Final = 8
_NEEDS_SOMEBODY: Final = frozenset({RunState.FAILED, RunState.PAUSED})


class OverviewService:
    """Builds the overview."""

    def __init__(
        self, servers: Servers, config: ServiceConfig, reader: Reader, checks: CheckService,
        now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._servers = servers
        self._config = config
        self._reader = reader
        self._checks = checks
        self._now = now

    def view(self, actor: Actor) -> OverviewView:
        """Everything that the page shows; a target that does not answer leaves `rows` None."""
        require(actor, Permission.READ)
        with self._servers.database.begin() as connection:
            recent = self._reader.runs(connection, runs.newest(connection, limit=_RECENT), actor)
            active = self._reader.runs(connection, runs.active(connection), actor)
            kept = self._reader.backups(connection, backups.newest(connection, limit=_RECENT))
            quarantined = details.open_quarantine(connection)
            numbers = backups.run_numbers(connection, list(quarantined))
            facts = backup_facts(connection, self._config, self._servers.target.title)
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
            attention=(*listed, *_of_runs(recent), *of_backups(kept, facts, self._now())),
            target_title=self._servers.target.title,
            tables=len(self._servers.plan.tables),
            rows=self._rows(),
        )

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
