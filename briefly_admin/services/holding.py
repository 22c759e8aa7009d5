"""A worker's hold on a run: it says that it lives, and hears what people asked of the run meanwhile."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import structlog

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import BrieflyError, Fenced, Stopped
from briefly_admin.domain.runs import RunState
from briefly_admin.store.database import Connection, Database, Row

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the run's state and config."""
_BEATS: Final = 6
"""Heartbeats a lease."""
_NAP: Final = 0.2
"""Seconds after which a sleeper looks whether SIGTERM came."""
_ASKED: Final = {RunState.PAUSING.value: "pause", RunState.CANCELLING.value: "cancel"}
log = structlog.get_logger("briefly.holding")


class Hold(ABC):
    """One worker's hold on one run, beating in a thread with a connection of its own while it is open.

    Fenced once the run is in other hands, or once the lease may be over because the app database did not answer.
    """

    def __init__(
        self, database: Database, run_id: UUID, *, lease_seconds: float, config: Mapping[str, Any],
        interrupted: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._database = database
        self._run_id = run_id
        self._lease = lease_seconds
        self._interrupted = interrupted
        self._config = RunConfig().with_json(config)
        self._asked: str | None = None
        self._fenced = False
        self._wake = threading.Event()
        self._over = threading.Event()
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
        """'pause', 'cancel', 'interrupt', 'leave' (a helper that is one too many) or None. Raises Fenced."""
        if self._fenced or time.monotonic() - self._beaten_at > self._lease:
            raise Fenced("The run is in other hands now, or may be by now.")
        return self._asked or ("interrupt" if self._interrupted() else None)

    def config(self) -> RunConfig:
        """The config as of a second ago."""
        return self._config

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

    @abstractmethod
    def _beat(self, connection: Connection) -> Row[Any] | None:
        """Say that this worker lives; the run's state and config, or None where it is in other hands."""

    @abstractmethod
    def _read(self, connection: Connection) -> Row[Any] | None:
        """As `_beat`, without the beat."""

    @abstractmethod
    def _save(self, connection: Connection, *, last: bool = False) -> None:
        """Keep what else is to be kept, now and then and at the end."""

    def _wish(self, row: Row[Any]) -> str | None:
        """What is asked of this worker."""
        return _ASKED.get(row.state)

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
        row = (self._beat if due else self._read)(connection)
        if row is None:
            self._fenced = True
            self._wake.set()
            return
        if due:
            self._beaten_at = began
        self._config = RunConfig().with_json(row.config)
        self._asked = self._wish(row)
        if self._asked:
            self._wake.set()
