"""What the clock does: queue what the queue lost, heal what dead leaders left, let backups expire."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from briefly_admin.domain.errors import BrieflyError, Busy, Unavailable
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine import scratch
from briefly_admin.engine.target import Target
from briefly_admin.services.auditing import CLOCK, AuditService
from briefly_admin.services.backups import BackupService
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.rows import RowService
from briefly_admin.services.runs import RunService
from briefly_admin.store import backups, corrections, people, runs

_HEALED: Final = {
    RunState.RUNNING: RunState.INTERRUPTED,
    RunState.PAUSING: RunState.PAUSED,
    RunState.CANCELLING: RunState.CANCELLED,
}
_KEEP_SESSIONS: Final = timedelta(days=30)
PREVIEW_KEPT: Final = timedelta(hours=1)
"""How long after its end a preview's staged tables stay, for a rollback that names it."""


class SweepService:
    """Run by one clock at a time; each method is safe to repeat and to interrupt."""

    def __init__(
        self,
        servers: Servers,
        config: ServiceConfig,
        audit: AuditService,
        kept: BackupService,
        runs_: RunService,
        rows: RowService,
        now: Callable[[], datetime],
    ) -> None:
        self._servers = servers
        self._database = servers.database
        self._config = config
        self._audit = audit
        self._kept = kept
        self._runs = runs_
        self._rows = rows
        self._now = now

    def sweep(self) -> list[str]:
        """Heal runs whose leader has been silent for a lease, and queue those that wait; ids of both, each once.

        Runs that nobody approved in time are cancelled; records of corrections are taken over that a crash left in the
        target.
        """
        self._runs.give_up_unapproved()
        touched = self._heal()
        with self._database.begin() as connection:
            waiting = [row.id for row in runs.waiting(connection, self._config.lease)]
        for run_id in waiting:
            if self._enqueue(str(run_id)):
                touched.append(str(run_id))
                with self._database.begin() as connection:
                    runs.enqueued(connection, run_id)
        with suppress(BrieflyError):  # last: a target that does not answer keeps no run waiting, and is asked again
            self._rows.settle()
        return list(dict.fromkeys(touched))

    def _heal(self) -> list[str]:
        with self._database.begin() as connection:
            silent = runs.abandoned(connection, self._config.lease)
        healed = []
        for row in silent:
            before = RunState(row.state)
            with self._database.begin() as connection:
                if runs.heal(connection, row.id, _HEALED[before], before=before, lease=self._config.lease):
                    facts = {"leader": row.leader, "attempt": row.attempt, "state": _HEALED[before].value}
                    self._audit.write(connection, CLOCK, "run.heal", f"run {row.number}", facts)
                    healed.append(str(row.id))
        return healed

    def _enqueue(self, run_id: str) -> bool:
        with suppress(Unavailable):
            self._servers.queue.enqueue(run_id)
            return True
        return False

    def purge(self) -> int:
        """Delete backups whose time is over (keys first), what crashes left in the store and in scratch schemas, old
        sessions, and values of old corrections; how many backups expired.
        """
        with self._database.begin() as connection:
            people.forget_sessions(connection, before=self._now() - _KEEP_SESSIONS)
            corrections.forget(connection, before=self._now() - self._config.retention)
        try:
            return self._kept.purge()
        finally:  # after it, for what a preview staged of a backup that has just expired is not to outlive its key
            for place in {self._servers.target, self._servers.drill_place}:
                with suppress(BrieflyError):  # a server that does not answer now is asked again in a minute
                    self._sweep_scratch(place)

    def _sweep_scratch(self, place: Target) -> None:
        """What runs that are over have left in the target, or where drills restore to, and what nobody wants of it."""
        for run_id in scratch.sweep(place, self._over):
            self._audit.record(CLOCK, "scratch.sweep", str(run_id), {"place": place.title})

    def _over(self, run_ids: Collection[UUID]) -> Mapping[UUID, int]:
        with self._database.begin() as connection:
            return runs.over(connection, run_ids, previewed_since=self._now() - PREVIEW_KEPT)

    def drill_if_due(self) -> str | None:
        """Begin a drill of the newest proven backup where DRILL_EVERY_HOURS have passed since a drill began; its id.

        Raises Unavailable where the drill's place does not answer.
        """
        every = self._config.drill_every
        if every is None:
            return None
        with self._database.begin() as connection:
            last = runs.newest_of_kind(connection, RunKind.DRILL)
            newest = backups.newest_proven(connection, self._servers.target.title)
        if newest is None or (last is not None and self._now() - last.created_at < every):
            return None
        try:
            return self._runs.drill(CLOCK, newest.name).id
        except Busy:  # the last one takes longer than that
            return None

    @contextmanager
    def try_lead_clock(self) -> Iterator[bool]:
        """Whether this process is the one clock, as long as the context is open."""
        with self._database.alone() as connection:
            leads = runs.try_clock_lock(connection)
            try:
                yield leads
            finally:
                if leads:
                    runs.free_clock_lock(connection)
