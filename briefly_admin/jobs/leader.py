"""What a worker does with a job: lead one run (with reports into `job.meta`) or help with one, and stop in time when
the platform restarts.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
from redis.exceptions import RedisError
from rq import get_current_job
from rq.job import Job

from briefly_admin import settings, wiring
from briefly_admin.domain.errors import BrieflyError
from briefly_admin.domain.progress import Progress
from briefly_admin.jobs.connection import SERIALIZER, connect
from briefly_admin.services import Services
from briefly_admin.services.leadership import worker_name
from briefly_admin.settings import Settings

INTERRUPTED: Final = threading.Event()
"""Set by SIGTERM in the work horse: the batch in hand ends, the run becomes interrupted and is queued again."""
_BETWEEN: Final = 0.25
"""Seconds between two writes of `job.meta`."""
_REST: Final = 5.0
"""Seconds without another try after Redis did not answer."""
_ANSWER_SECONDS: Final = 1.0
"""How long a report waits for Redis; the batches wait with it."""
log = structlog.get_logger("briefly.leader")


def interrupt(*_: object) -> None:
    """The work horse's SIGTERM handler."""
    INTERRUPTED.set()


class MetaReporter:
    """Writes progress into the job's meta, at most four times a second; a lost Redis never disturbs the run."""

    def __init__(self, job: Job | None) -> None:
        self._job = job
        self._next = 0.0
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        """Take a snapshot; one that comes too soon after another is left out, unless a new phase begins."""
        now = time.monotonic()
        if self._job is None or (now < self._next and progress.phase == self._phase):
            return
        self._phase = progress.phase
        self._next = now + _BETWEEN
        try:
            self._job.meta["progress"] = progress.to_json()
            self._job.save_meta()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        except (RedisError, OSError):
            self._next = now + _REST


def _reporter(redis_url: str) -> MetaReporter:
    """For the job in hand, on a connection of its own: the worker's waits for a Redis that hangs."""
    job = get_current_job()
    if job is None:
        return MetaReporter(None)
    return MetaReporter(Job(job.id, connection=connect(redis_url, timeout=_ANSWER_SECONDS), serializer=SERIALIZER))


def lead(run_id: str) -> None:
    """Lead the run until it ends or is told to stop. A run that is not to be led (any more) is left alone."""
    with _services() as (services, loaded):
        try:
            services.leading.lead(
                run_id, report=_reporter(loaded.redis_url), interrupted=INTERRUPTED.is_set, leader=worker_name()
            )
        except BrieflyError as error:
            log.info("run not led", run_id=run_id, reason=error.message)


def help_out(run_id: str) -> None:
    """Help the run's leader while there is something to do. A run that needs no help (any more) is left alone."""
    with _services() as (services, _):
        try:
            services.helping.help(run_id, interrupted=INTERRUPTED.is_set, worker=worker_name())
        except BrieflyError as error:
            log.info("run not helped", run_id=run_id, reason=error.message)


@contextmanager
def _services() -> Iterator[tuple[Services, Settings]]:
    signal.signal(signal.SIGTERM, interrupt)
    loaded = settings.from_environ()
    services = wiring.build(loaded)
    try:
        yield services, loaded
    finally:
        services.close()
