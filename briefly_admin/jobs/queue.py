"""The queue port's adapter: RQ with JSON payloads. If Redis loses everything, the sweeper queues runs again."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.worker import BaseWorker

from briefly_admin import __version__
from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.jobs.connection import QUEUE, SERIALIZER, connect
from briefly_admin.jobs.job import HELP, LEAD, RunJob

WORKER_PREFIX: Final = f"briefly-{__version__.replace('.', '_')}-"
"""Workers of our version carry it in their names."""
WORKER_TTL: Final = 60
"""Seconds after which a worker that does not answer no longer counts."""
_KEEP: Final = 24 * 3600
_HELP_TTL: Final = 60
"""Seconds that an asking for help stands; the leader asks again."""
_ANSWER_SECONDS: Final = 2.0


def pointer_key(run_id: str) -> str:
    """The Redis key that holds the id of the run's newest job."""
    return f"briefly:run:{run_id}:job"


class RqQueue:
    """domain.ports.Queue over RQ; connects when it is first asked."""

    def __init__(self, redis_url: str) -> None:
        self._redis = connect(redis_url, timeout=_ANSWER_SECONDS)

    def enqueue(self, run_id: str) -> None:
        """Ask for a worker to lead the run; nothing is added while an earlier asking waits. Raises Unavailable."""
        with _translated():
            if self._waits(run_id):
                return
            queue = Queue(QUEUE, connection=self._redis, serializer=SERIALIZER, job_class=RunJob)
            job_id = f"{run_id}_{uuid4().hex[:12]}"
            self._redis.set(pointer_key(run_id), job_id, ex=_KEEP)
            queue.enqueue_call(
                LEAD, args=(run_id,), job_id=job_id, timeout=-1, result_ttl=3600, failure_ttl=_KEEP,
                description=f"lead run {run_id}",
            )  # fmt: skip

    def _waits(self, run_id: str) -> bool:
        """Whether the run's newest job stands in the queue, untaken."""
        job_id = self._redis.get(pointer_key(run_id))
        return isinstance(job_id, bytes) and self._stands(job_id.decode())

    def _stands(self, job_id: str) -> bool:
        return self._redis.lpos(f"rq:queue:{QUEUE}", job_id) is not None

    def ask_help(self, run_id: str, slots: Collection[int]) -> None:
        """Ask for workers to help the run's leader, one a slot, where that asking does not stand yet.

        An asking that nobody hears within a minute lapses. Raises Unavailable.
        """
        with _translated():
            queue = Queue(QUEUE, connection=self._redis, serializer=SERIALIZER, job_class=RunJob)
            for slot in slots:
                job_id = f"{run_id}_help_{slot}"
                if not self._stands(job_id):
                    queue.enqueue_call(
                        HELP, args=(run_id,), job_id=job_id, timeout=-1, result_ttl=60, failure_ttl=3600,
                        ttl=_HELP_TTL, description=f"help with run {run_id}",
                    )  # fmt: skip

    def workers(self) -> int:
        """How many workers of our version answered within the last minute. Raises Unavailable."""
        with _translated():
            known = Worker.all(connection=self._redis, serializer=SERIALIZER, job_class=RunJob)
            fresh = datetime.now(UTC) - timedelta(seconds=WORKER_TTL + 10)
            return len([worker for worker in known if worker.name.startswith(WORKER_PREFIX) and _beat(worker) > fresh])

    def progress(self, run_id: str) -> Progress | None:
        """The newest progress in the meta of the run's job; None where Redis or the job is gone."""
        try:
            job_id = self._redis.get(pointer_key(run_id))
            meta = self._redis.hget(f"rq:job:{job_id.decode()}", "meta") if isinstance(job_id, bytes) else None
        except (RedisError, OSError):
            return None
        return _progress(meta)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


def _progress(meta: Any) -> Progress | None:
    try:
        data = json.loads(meta)["progress"] if meta else None
        return Progress.from_json(data) if data else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _beat(worker: BaseWorker) -> datetime:
    beat = worker.last_heartbeat
    if beat is None:
        return datetime.min.replace(tzinfo=UTC)
    return beat if beat.tzinfo else beat.replace(tzinfo=UTC)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(
            f"Redis does not answer ({type(error).__name__}).",
            remedy="Check REDIS_URL and that the server runs; runs already queued are not lost.",
        ) from None
