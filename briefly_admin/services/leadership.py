"""A leader's hold on its run: the heartbeat, what people asked of the run meanwhile, progress for the pages."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from briefly_admin.domain.progress import Progress
from briefly_admin.services.holding import Hold
from briefly_admin.store import partitions, runs
from briefly_admin.store.database import Connection, Database, Row

_SAVE_EVERY: Final = 2.0
"""Seconds between two saves of progress and throughput."""


def worker_name() -> str:
    """host:pid of this process: how a run's page and log name who works on it."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Leadership(Hold):
    """One attempt's hold on one run."""

    def __init__(
        self,
        database: Database,
        run_id: UUID,
        attempt: int,
        *,
        leader: str,
        lease_seconds: float,
        config: Mapping[str, Any],
        report: Callable[[Progress], None],
        interrupted: Callable[[], bool],
    ) -> None:
        super().__init__(database, run_id, lease_seconds=lease_seconds, config=config, interrupted=interrupted)
        self._attempt = attempt
        self._leader = leader
        self._report = report
        self._progress: Progress | None = None
        self._saved: Progress | None = None
        self._saved_at = 0.0

    def report(self, progress: Progress) -> None:
        """Take a snapshot: for the queue's meta at once, for the app database within two seconds."""
        self._progress = progress
        self._report(progress)

    def _beat(self, connection: Connection) -> Row[Any] | None:
        row = runs.beat(connection, self._run_id, self._attempt)
        if row is not None:
            partitions.renew(connection, self._run_id, self._leader, timedelta(seconds=self._lease))
        return row

    def _read(self, connection: Connection) -> Row[Any] | None:
        return runs.look(connection, self._run_id, self._attempt)

    def _save(self, connection: Connection, *, last: bool = False) -> None:
        progress, now = self._progress, time.monotonic()
        if progress is None or progress is self._saved or (not last and now - self._saved_at < _SAVE_EVERY):
            return
        runs.save_progress(connection, self._run_id, self._attempt, progress.to_json())
        runs.save_throughput(connection, self._run_id, phase=progress.phase, done=progress.done, rate=progress.rate)
        self._saved, self._saved_at = progress, now
