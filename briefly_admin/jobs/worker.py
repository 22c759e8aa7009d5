"""The worker class: JSON payloads, the allow-listed job, and a SIGTERM that ends a run at its batch's end."""

import os
import signal
import socket
import sys
from typing import Any, Final
from uuid import uuid4

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Queue, Worker, worker_registration
from rq.job import Job

from briefly_admin.domain.errors import Unavailable
from briefly_admin.jobs.connection import QUEUE, SERIALIZER, connect
from briefly_admin.jobs.job import RunJob
from briefly_admin.jobs.leader import interrupt
from briefly_admin.jobs.queue import WORKER_PREFIX, WORKER_TTL

SWITCH_INTERVAL: Final = 0.0002
"""Seconds after which a thread is asked for Python's lock. Those that compress, seal and hash beside a COPY let it go
for a millisecond at a time, and would wait five for it again."""


class BrieflyWorker(Worker):
    """Leads one run at a time in a forked work horse.

    Platforms send SIGTERM to every process at once, and kill ten seconds later: the horse takes it as a wish to stop
    between two batches, and the worker hands it on in case it alone was told.
    """

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """The horse's whole life; its threads hand each other the lock sooner."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """SIGINT is the worker's affair; SIGTERM interrupts the run."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, interrupt)

    def handle_warm_shutdown_request(self) -> None:
        """Hand SIGTERM on to the horse; the worker waits for it."""
        if self.horse_pid:
            self.kill_horse(signal.SIGTERM)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Say that the worker lives, and that it is one: a Redis that lost everything has forgotten it."""
        super().heartbeat(timeout, pipeline)
        worker_registration.register(self, pipeline)

    def maintain_heartbeats(self, job: Job) -> None:
        """The same while the horse works; a Redis that is gone is no reason to leave the horse."""
        try:
            super().maintain_heartbeats(job)
        except (RedisError, OSError) as error:
            self.log.warning("Redis does not answer (%s); the run goes on.", type(error).__name__)


def make_worker(redis_url: str, **options: Any) -> BrieflyWorker:
    """A worker on our queue, named after version, host and process."""
    name = f"{WORKER_PREFIX}{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    return BrieflyWorker(
        [QUEUE], name=name, connection=connect(redis_url), serializer=SERIALIZER, job_class=RunJob,
        worker_ttl=WORKER_TTL, job_monitoring_interval=15, **options,
    )  # fmt: skip


def work(redis_url: str, *, burst: bool = False, log_level: str = "INFO") -> None:
    """Work until told to stop (SIGTERM, SIGINT), or until the queue is empty with `burst`. Raises Unavailable."""
    try:
        make_worker(redis_url).work(burst=burst, logging_level=log_level.upper())
    except RedisError as error:
        raise Unavailable(
            f"Redis does not answer ({type(error).__name__}).", remedy="Check REDIS_URL and that the server runs."
        ) from None
