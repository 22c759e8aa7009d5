"""Looking at runs: one, many, their log and throughput, and until they end."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine.blockers import blockers
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.planning import plan_view
from briefly_admin.services.reading import Reader, find_run
from briefly_admin.services.starting import Starter
from briefly_admin.services.views import LogLine, PlanView, RunView, ThroughputPoint
from briefly_admin.store import details, runs
from briefly_admin.store.database import Row

_POLL: Final = 0.2
_POINTS: Final = 2000


class Watching:
    """What everybody may do who reads. Every method checks permission first."""

    def __init__(
        self,
        servers: Servers,
        config: ServiceConfig,
        audit: AuditService,
        reader: Reader,
        now: Callable[[], datetime],
    ) -> None:
        self._servers = servers
        self._database = servers.database
        self._config = config
        self._audit = audit
        self._reader = reader
        self._starter = Starter(servers, config, audit, now)
        self._now = now

    def get(self, actor: Actor, run_id: str) -> RunView:
        """A run by its id or number. Raises NotAllowed, NotFound."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            view = self._reader.run(connection, find_run(connection, run_id), actor)
        return replace(view, blocking=blockers(self._servers.target)) if view.waiting else view

    def list(
        self, actor: Actor, *, limit: int = 50, before: int | None = None, kind: RunKind | None = None
    ) -> tuple[RunView, ...]:
        """Runs, newest first; `before` is a run number."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            return self._reader.runs(connection, runs.newest(connection, limit=limit, before=before, kind=kind), actor)

    def count(self, actor: Actor) -> int:
        """How many runs there are."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            return runs.count(connection)

    def log(self, actor: Actor, run_id: str, limit: int = 200) -> tuple[LogLine, ...]:
        """The newest lines of the run's log, newest first."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            rows = details.log(connection, find_run(connection, run_id).id, limit=limit)
        return tuple(LogLine(row.at, row.level, row.phase or "", row.message) for row in rows)

    def throughput(self, actor: Actor, run_id: str) -> tuple[ThroughputPoint, ...]:
        """Points of the throughput picture, oldest first."""
        require(actor, Permission.READ)
        with self._database.begin() as connection:
            rows = details.throughput(connection, find_run(connection, run_id).id, limit=_POINTS)
        return tuple(ThroughputPoint(row.at, row.phase, row.done, row.rate) for row in rows)

    def wait(self, actor: Actor, run_id: str, *, seconds: float) -> RunView:
        """The run once it is finished, or as it is when the time is over."""
        end = time.monotonic() + seconds
        while True:
            view = self.get(actor, run_id)
            left = end - time.monotonic()
            if view.finished or left <= 0:
                return view
            time.sleep(min(_POLL, left))

    def plan_view(self, actor: Actor) -> PlanView:
        """The plan over the target, with an estimate. Raises NotAllowed, Unavailable."""
        require(actor, Permission.READ)
        return plan_view(self._servers, self._config)

    def _view(self, row: Row[Any], actor: Actor) -> RunView:
        with self._database.begin() as connection:
            return self._reader.run(connection, row, actor)
