"""Helping the leader of a run: asked for through the queue, one place each, for as long as there is work."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from briefly_admin.domain.errors import Fenced, Refused, Stopped, Unavailable
from briefly_admin.domain.ports import Queue
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunState
from briefly_admin.engine.context import RunContext
from briefly_admin.services.auditing import AuditService
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.contexts import run_context
from briefly_admin.services.holding import Hold
from briefly_admin.services.reading import find_run
from briefly_admin.store import partitions, runs
from briefly_admin.store.database import Connection, Database, Row

LEAVE: Final = "leave"
"""Why a helper stops that is one too many now."""
log = structlog.get_logger("briefly.helping")


class Helping(Hold):
    """One helper's place beside a leader, for as long as that leader's attempt lasts."""

    def __init__(
        self, database: Database, run: Row[Any], *, slot: int, worker: str, lease: timedelta,
        interrupted: Callable[[], bool],
    ) -> None:  # fmt: skip
        super().__init__(
            database, run.id, lease_seconds=lease.total_seconds(), config=run.config, interrupted=interrupted
        )
        self._attempt = run.attempt
        self._slot = slot
        self._worker = worker

    def _beat(self, connection: Connection) -> Row[Any] | None:
        lease = timedelta(seconds=self._lease)
        if not partitions.stay(connection, self._run_id, self._slot, self._worker, lease):
            return None
        partitions.renew(connection, self._run_id, self._worker, lease)
        return self._read(connection)

    def _read(self, connection: Connection) -> Row[Any] | None:
        return runs.look(connection, self._run_id, self._attempt)

    def _save(self, connection: Connection, *, last: bool = False) -> None:
        """The leader keeps what there is to keep."""

    def _wish(self, row: Row[Any]) -> str | None:
        asked = super()._wish(row)
        return asked or (LEAVE if self._slot >= self.config().workers else None)


class HelpService:
    """What a worker does that was asked to help with a run."""

    def __init__(
        self, servers: Servers, config: ServiceConfig, audit: AuditService, assist: Callable[[RunContext], int]
    ) -> None:
        self._servers = servers
        self._database = servers.database
        self._config = config
        self._audit = audit
        self._assist = assist

    def help(self, run_id: str, *, interrupted: Callable[[], bool], worker: str) -> int:
        """Help until there is nothing to do or somebody asks for a stop; how many partitions it did.

        Raises Refused where there is nothing to help with, NotFound, Unavailable.
        """
        row, slot = self._join(run_id, worker)
        with Helping(
            self._database, row, slot=slot, worker=worker, lease=self._config.lease, interrupted=interrupted
        ) as hold:
            context = run_context(self._servers, self._config, self._audit, row, hold, worker=worker, report=_nobody)
            done = self._work(context, worker)
        # Whoever could not help keeps its place for a lease, so that nobody is asked at once to try the same again.
        self._leave(row.id, slot, worker)
        return done

    def _join(self, run_id: str, worker: str) -> tuple[Row[Any], int]:
        with self._database.begin() as connection:
            row = find_run(connection, run_id)
            if row.state != RunState.RUNNING.value:
                raise Refused(f"Run {row.number} is {row.state}: there is nothing to help with.")
            most = int(row.config.get("workers", 1)) - 1
            slot = partitions.join(connection, row.id, worker, most=most, lease=self._config.lease)
        if slot is None:
            raise Refused(f"Run {row.number} has all the workers that it may have.")
        return row, slot

    def _work(self, context: RunContext, worker: str) -> int:
        context.journal.log("info", f"{worker} helps.")
        done = 0
        try:
            try:
                done = self._assist(context)
            except Stopped as stop:
                log.info("helper stops", run_id=str(context.run_id), reason=stop.reason)
            context.journal.log("info", f"{worker} leaves.")
        except Fenced as error:
            log.warning("fenced off", run_id=str(context.run_id), attempt=context.attempt, reason=error.message)
        except Unavailable as error:
            context.journal.log("warning", error.message)
            raise
        return done

    def _leave(self, run_id: UUID, slot: int, worker: str) -> None:
        try:
            with self._database.begin() as connection:
                partitions.leave(connection, run_id, slot, worker)
        except Unavailable as error:
            log.warning("place not given back", run_id=str(run_id), reason=error.message)


def _nobody(_: Progress) -> None:
    """The leader reports for all."""


class CallForHelp:
    """A leader's asking for helpers: as many as the config's `workers` allows and are not there yet."""

    def __init__(
        self, database: Database, queue: Queue, run_id: UUID, hold: Hold, tell: Callable[[str, str], None]
    ) -> None:
        """`tell(level, message)` writes into the run's log."""
        self._database = database
        self._queue = queue
        self._run_id = run_id
        self._hold = hold
        self._tell = tell
        self._told: Mapping[str, int] = {}

    def __call__(self) -> None:
        """Ask for those who are missing; a queue that is gone means that nobody comes, and the run goes on."""
        wanted = self._hold.config().workers
        if wanted < 2:  # noqa: PLR2004 - the leader alone
            return
        with self._database.begin() as connection:
            there = partitions.helping(connection, self._run_id)
        missing = [slot for slot in range(1, wanted) if slot not in there]
        try:
            self._say(wanted, self._queue.workers())
            if missing:
                self._queue.ask_help(str(self._run_id), missing)
        except Unavailable as error:
            log.info("no helpers", run_id=str(self._run_id), reason=error.message)

    def _say(self, wanted: int, listening: int) -> None:
        counts = {"wanted": wanted, "listening": listening}
        if listening < wanted and counts != self._told:
            self._tell("warning", f"{wanted} workers are wanted and {listening} listen: the run goes on with these.")
        self._told = counts
