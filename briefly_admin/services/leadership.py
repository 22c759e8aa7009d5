"""A leader's hold on its run: the heartbeat, what people asked of the run meanwhile, progress for the pages."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import structlog

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import BrieflyError, Fenced, Stopped
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunState
from briefly_admin.store import runs
from briefly_admin.store.database import Connection, Database

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the run's state and config."""
_SAVE_EVERY: Final = 2.0
"""Seconds between two saves of progress and throughput."""
_BEATS: Final = 6
"""Heartbeats a lease."""
_NAP: Final = 0.2
"""Seconds after which a sleeper looks whether SIGTERM came."""
_ASKED: Final = {RunState.PAUSING.value: "pause", RunState.CANCELLING.value: "cancel"}
log = structlog.get_logger("briefly.leadership")


def leader_name() -> str:
    """host:pid of this process: how a run's page and log name its leader."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Leadership:
    """One attempt's hold on one run, beating in a thread with a connection of its own while it is open.

    Fenced once another attempt has taken over, or once the lease may be over because the app database did not answer.
    """

    def __init__(
        self,
        database: Database,
        run_id: UUID,
        attempt: int,
        *,
        lease_seconds: float,
        config: Mapping[str, Any],
        report: Callable[[Progress], None],
        interrupted: Callable[[], bool],
    ) -> None:
        self._database = database
        self._run_id = run_id
        self._attempt = attempt
        self._lease = lease_seconds
        self._report = report
        self._interrupted = interrupted
        self._config = RunConfig().with_json(config)
        self._asked: str | None = None
        self._fenced = False
        self._wake = threading.Event()
        self._over = threading.Event()
        self._progress: Progress | None = None
        self._saved: Progress | None = None
        self._saved_at = 0.0
        self._beaten_at = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name=f"heartbeat {run_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._wake.set()
        self._thread.join()

    def should_stop(self) -> str | None:
        """'pause', 'cancel', 'interrupt' or None. Raises Fenced."""
        if self._fenced or time.monotonic() - self._beaten_at > self._lease:
            raise Fenced("Another attempt leads the run now, or may by now.")
        return self._asked or ("interrupt" if self._interrupted() else None)

    def config(self) -> RunConfig:
        """The config as of a second ago."""
        return self._config

    def report(self, progress: Progress) -> None:
        """Take a snapshot: for the queue's meta at once, for the app database within two seconds."""
        self._progress = progress
        self._report(progress)

    def sleep(self, seconds: float) -> None:
        """Wait; raises Stopped or Fenced as soon as a stop is asked for."""
        end = time.monotonic() + seconds
        while True:
            reason = self.should_stop()
            if reason:
                raise Stopped(reason)
            left = end - time.monotonic()
            if left <= 0:
                return
            self._wake.wait(min(left, _NAP))

    def _keep(self) -> None:
        every = min(_LOOK_EVERY, self._lease / _BEATS)
        while not self._over.is_set() and not self._fenced:
            try:
                with self._database.alone() as connection:
                    self._keep_on(connection, every)
            except BrieflyError as error:
                log.warning("heartbeat failed", run_id=str(self._run_id), reason=error.message)
            except Exception:
                log.exception("heartbeat failed", run_id=str(self._run_id))
            self._over.wait(every)

    def _keep_on(self, connection: Connection, every: float) -> None:
        while not self._over.is_set() and not self._fenced:
            self._look(connection)
            self._save(connection)
            self._over.wait(every)
        self._save(connection, last=True)

    def _look(self, connection: Connection) -> None:
        began = time.monotonic()
        due = began - self._beaten_at >= self._lease / _BEATS
        row = (runs.beat if due else runs.look)(connection, self._run_id, self._attempt)
        if row is None:
            self._fenced = True
            self._wake.set()
            return
        if due:
            self._beaten_at = began
        self._config = RunConfig().with_json(row.config)
        self._asked = _ASKED.get(row.state)
        if self._asked:
            self._wake.set()

    def _save(self, connection: Connection, *, last: bool = False) -> None:
        progress, now = self._progress, time.monotonic()
        if progress is None or progress is self._saved or (not last and now - self._saved_at < _SAVE_EVERY):
            return
        runs.save_progress(connection, self._run_id, self._attempt, progress.to_json())
        runs.save_throughput(connection, self._run_id, phase=progress.phase, done=progress.done, rate=progress.rate)
        self._saved, self._saved_at = progress, now
