"""The clock: one process at a time (a lock in PostgreSQL) heals what crashes left, and lets backups expire."""

import signal
import threading
import time
from typing import Final

import structlog
from redis.exceptions import RedisError
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry

from briefly_admin.domain.errors import BrieflyError
from briefly_admin.jobs.connection import QUEUE, SERIALIZER, connect
from briefly_admin.jobs.job import RunJob
from briefly_admin.services import Services

_PURGE_EVERY: Final = 60.0
log = structlog.get_logger("briefly.clock")


def clean_registries(redis_url: str) -> None:
    """Drop jobs of dead workers from RQ's registries; they decide nothing, but would be kept for ever."""
    connection = connect(redis_url, timeout=2.0)
    try:
        for registry in (StartedJobRegistry, FinishedJobRegistry, FailedJobRegistry):
            registry(QUEUE, connection=connection, job_class=RunJob, serializer=SERIALIZER).cleanup()
    except (RedisError, OSError) as error:
        log.warning("registries not cleaned", reason=type(error).__name__)
    finally:
        connection.close()


def tick(services: Services, redis_url: str, *, purge: bool) -> None:
    """One round: heal runs, clean RQ's registries and, with `purge`, let backups expire."""
    for run_id in services.sweeping.sweep():
        log.info("run queued again", run_id=run_id)
    clean_registries(redis_url)
    if purge:
        services.sweeping.purge()
        drill = services.sweeping.drill_if_due()
        if drill is not None:
            log.info("drill begun", run_id=drill)


def run_clock(services: Services, redis_url: str, *, every: float) -> None:
    """Tick every `every` seconds until SIGTERM or SIGINT; a fault of one round is logged and the next one tries."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    purged = float("-inf")
    while not stop.is_set():
        try:
            with services.sweeping.try_lead_clock() as leading:
                if leading:
                    due = time.monotonic() - purged >= _PURGE_EVERY
                    tick(services, redis_url, purge=due)
                    purged = time.monotonic() if due else purged
        except BrieflyError as error:
            log.warning("clock round failed", reason=error.message)
        except Exception:
            log.exception("clock round failed")
        stop.wait(every)
