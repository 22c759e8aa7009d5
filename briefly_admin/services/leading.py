"""Leading a run: claim it, let the engine work, and write down how it ended. A failed run is an ending like others."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

import structlog

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import BrieflyError, Fenced, Refused, Stopped, Unavailable
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import LED, RunKind, RunState
from briefly_admin.engine.context import RunContext
from briefly_admin.services import approving, replaying, restoring
from briefly_admin.services.auditing import WORKER, AuditService
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.contexts import run_context
from briefly_admin.services.helping import CallForHelp
from briefly_admin.services.leadership import Leadership
from briefly_admin.services.reading import Reader, find_run
from briefly_admin.services.views import RunView
from briefly_admin.store import details, partitions, runs
from briefly_admin.store.database import Connection, Row
from briefly_admin.store.texts import storable

_STOPPED: Final = {
    RunState.PAUSING: RunState.PAUSED,
    RunState.CANCELLING: RunState.CANCELLED,
    RunState.RUNNING: RunState.INTERRUPTED,
}
_TRIES: Final = 5
log = structlog.get_logger("briefly.leading")


class LeadService:
    """What a worker, or the command itself, does with a run."""

    def __init__(
        self,
        servers: Servers,
        config: ServiceConfig,
        audit: AuditService,
        reader: Reader,
        now: Callable[[], datetime],
        engine: Callable[[RunContext], Mapping[str, Any]],
    ) -> None:
        self._engine = engine
        self._servers = servers
        self._database = servers.database
        self._config = config
        self._audit = audit
        self._reader = reader
        self._now = now

    def lead(
        self, run_id: str, *, report: Callable[[Progress], None], interrupted: Callable[[], bool], leader: str
    ) -> RunView:
        """Lead the run until it ends or is told to stop; the run as it is then, failed or not.

        Raises Refused if there is nothing to lead, NotFound, and Unavailable if the app database is lost for good.
        """
        actor = Actor(leader, Role.ADMIN, "worker")
        row = self._claim(run_id, leader)
        with Leadership(
            self._database, row.id, row.attempt, leader=leader, lease_seconds=self._config.lease.total_seconds(),
            config=row.config, report=report, interrupted=interrupted,
        ) as leadership:  # fmt: skip
            ending = self._work(row, leadership, interrupted, leader)
        _patiently(lambda: ending(row))
        with self._database.begin() as connection:
            return self._reader.run(connection, find_run(connection, run_id), actor)

    def _claim(self, run_id: str, leader: str) -> Row[Any]:
        with self._database.begin() as connection:
            wanted = find_run(connection, run_id)
            row = runs.claim(connection, wanted.id, leader=leader, lease=self._config.lease)
            if row is None:
                led = f" by {wanted.leader}" if RunState(wanted.state) in LED else ""
                raise Refused(f"Run {wanted.number} is {wanted.state}{led}: there is nothing to lead.")
            action = "run.lead" if row.attempt == 1 else "run.take_over"
            self._audit.write(
                connection, WORKER, action, f"run {row.number}", {"attempt": row.attempt, "leader": leader}
            )
            return row

    def _work(
        self, row: Row[Any], leadership: Leadership, interrupted: Callable[[], bool], leader: str
    ) -> Callable[[Row[Any]], None]:
        """Run the engine; what to write down then."""
        try:
            self._require_approved(row)
            self._require_replayable(row)
            report = self._engine(self._context(row, leadership, leader))
        except Stopped as stop:
            return partial(self._stopped, reason=stop.reason)
        except Fenced:
            log.warning("fenced", run_id=str(row.id), attempt=row.attempt)
            return _leave
        except BrieflyError as error:
            return self._after(error)
        except Exception as error:
            if interrupted():
                return partial(self._stopped, reason="interrupt")
            # The traceback goes to the log alone: its text could carry tenant data.
            log.exception("unexpected error", run_id=str(row.id))
            return partial(self._failed, message=f"unexpected error: {type(error).__name__}", code="unexpected",
                           remedy="The worker's log has the details.")  # fmt: skip
        except BaseException:
            self._stopped(row, reason="interrupt")
            raise
        return partial(self._completed, report=report)

    def _require_approved(self, row: Row[Any]) -> None:
        """Raises Refused where the approval expired before anybody began."""
        noted = approving.begun(row, self._now())
        if noted is not None:
            with self._database.begin() as connection:
                runs.add_options(connection, row.id, {approving.APPROVAL: noted})

    def _require_replayable(self, row: Row[Any]) -> None:
        if RunKind(row.kind) is RunKind.REPLAY:
            with self._database.begin() as connection:
                replaying.require_still_replayable(connection, row)

    def _after(self, error: BrieflyError) -> Callable[[Row[Any]], None]:
        if isinstance(error, Unavailable) and self._database.was_lost(error):
            return partial(self._stopped, reason="interrupt")
        return partial(self._failed, message=error.message, code=error.code, remedy=error.remedy)

    def _context(self, row: Row[Any], leadership: Leadership, leader: str) -> RunContext:
        context = run_context(
            self._servers, self._config, self._audit, row, leadership, worker=leader, report=leadership.report
        )
        call = CallForHelp(self._database, self._servers.queue, row.id, leadership, context.journal.log)
        return replace(context, ask_help=call)

    def _completed(self, row: Row[Any], *, report: Mapping[str, Any]) -> None:
        with self._database.begin() as connection:
            skipped = (report.get("migrate") or {}).get("skipped") or details.open_quarantine(connection, [row.id])
            skips = bool(skipped) and RunKind(row.kind) is RunKind.MIGRATION
            state = RunState.COMPLETED_WITH_SKIPS if skips and not _rehearsal(row) else RunState.COMPLETED
            if not self._finish(connection, row, state, before=LED, report=dict(report), completed_at=self._now()):
                return
            partitions.forget(connection, row.id)
            facts: dict[str, Any] = {"state": state.value, "attempt": row.attempt}
            if RunKind(row.kind) is RunKind.ROLLBACK:
                runs.add_options(connection, row.id, restoring.undone(connection, row))
            if RunKind(row.kind) is RunKind.REPLAY:
                facts |= replaying.concluded(connection, row)
            if RunKind(row.kind) is RunKind.MIGRATION and not _rehearsal(row):
                details.close_earlier(connection, row)
            self._audit.write(connection, WORKER, "run.finish", f"run {row.number}", facts)

    def _failed(self, row: Row[Any], *, message: str, code: str, remedy: str) -> None:
        with self._database.begin() as connection:
            values = {"error": storable(message), "error_code": code, "remedy": storable(remedy)}
            if self._finish(connection, row, RunState.FAILED, before=LED, completed_at=self._now(), **values):
                facts = {"code": code, "error": message}
                self._audit.write(connection, WORKER, "run.fail", f"run {row.number}", facts)

    def _stopped(self, row: Row[Any], *, reason: str) -> None:
        """Where it ends depends on what people asked for, not only on what the leader heard of it."""
        with self._database.begin() as connection:
            for before, after in _STOPPED.items():
                over = {"completed_at": self._now()} if after is RunState.CANCELLED else {"enqueued_at": None}
                if self._finish(connection, row, after, before={before}, **over):
                    facts = {"reason": reason, "state": after.value}
                    self._audit.write(connection, WORKER, "run.stop", f"run {row.number}", facts)
                    return

    def _finish(
        self, connection: Connection, row: Row[Any], state: RunState, *, before: frozenset[RunState] | set[RunState],
        **values: Any,
    ) -> bool:  # fmt: skip
        """Only its own attempt finishes a run; who asked for the stop keeps standing beside it."""
        now_row = runs.get(connection, row.id)
        asked = state in {RunState.PAUSED, RunState.CANCELLED} and now_row is not None
        by = now_row.state_by if asked and now_row is not None else "worker"
        return runs.transition(connection, row.id, state, before=before, by=by, attempt=row.attempt, **values)


def _leave(_: Row[Any]) -> None:
    """Another attempt writes down how the run ends."""


def _rehearsal(row: Row[Any]) -> bool:
    return RunConfig().with_json(row.config).dry_run


def _patiently(write: Callable[[], None]) -> None:
    """The ending must be written; where it cannot be, the sweeper finds the run abandoned and it goes on."""
    for number in range(_TRIES):
        try:
            write()
        except Unavailable:
            if number == _TRIES - 1:
                raise
            time.sleep(2.0**number / 2)
        else:
            return
