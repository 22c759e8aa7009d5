"""The queue's adapter: progress out of job.meta, workers that listen, and a Redis that does not answer."""

from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis
from rq.executions import Execution
from rq.job import Job

from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.jobs.connection import SERIALIZER, connect
from briefly_admin.jobs.job import HELP
from briefly_admin.jobs.leader import MetaReporter
from briefly_admin.jobs.queue import RqQueue, pointer_key
from briefly_admin.jobs.worker import make_worker

RUN = str(uuid4())
HALF = Progress("migrate", (TableProgress("users", total=10, done=5, changed=2, rate=3.5),), rate=3.5, eta_seconds=1.4)


def newest_job(client: Redis, run_id: str) -> Job:
    pointed = client.get(pointer_key(run_id))
    assert isinstance(pointed, bytes)
    return Job.fetch(pointed.decode(), connection=client, serializer=SERIALIZER)


def test_progress_reported_by_the_job_is_read_back(redis_url: str) -> None:
    queue = RqQueue(redis_url)
    assert queue.progress(RUN) is None
    queue.enqueue(RUN)
    assert queue.progress(RUN) is None
    MetaReporter(newest_job(connect(redis_url, timeout=2), RUN))(HALF)
    assert queue.progress(RUN) == HALF
    queue.close()


def test_progress_is_written_at_most_four_times_a_second(redis_url: str) -> None:
    queue = RqQueue(redis_url)
    queue.enqueue(RUN)
    report = MetaReporter(newest_job(connect(redis_url, timeout=2), RUN))
    report(HALF)
    report(Progress("migrate"))
    assert queue.progress(RUN) == HALF
    report(Progress("verify"))
    assert queue.progress(RUN) == Progress("verify")
    queue.close()


def test_a_nonsense_meta_is_no_progress(redis_url: str) -> None:
    queue = RqQueue(redis_url)
    queue.enqueue(RUN)
    client = connect(redis_url, timeout=2)
    for nonsense in ("", "[]", "{", '{"progress": 3}', '{"progress": {"tables": [1]}}'):
        client.hset(newest_job(client, RUN).key, "meta", nonsense)
        assert queue.progress(RUN) is None
    queue.close()


def test_only_workers_of_our_version_count(redis_url: str) -> None:
    queue = RqQueue(redis_url)
    assert queue.workers() == 0
    worker = make_worker(redis_url)
    worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    assert queue.workers() == 1
    other = make_worker(redis_url)
    other.name = "briefly-9_9_9-elsewhere"
    other.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    assert queue.workers() == 1
    worker.register_death()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    assert queue.workers() == 0
    queue.close()


def test_a_worker_that_an_emptied_redis_forgot_is_known_again(redis_url: str) -> None:
    queue, worker = RqQueue(redis_url), make_worker(redis_url)
    worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    connect(redis_url, timeout=2).flushall()
    assert queue.workers() == 0
    worker.heartbeat()
    assert queue.workers() == 1
    worker.register_death()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    assert queue.workers() == 0
    queue.close()


def test_a_worker_stays_with_its_horse_while_redis_is_gone(tmp_path: Path) -> None:
    worker = make_worker(f"unix://{tmp_path}/nobody.sock", prepare_for_work=False)
    job = Job.create("f", connection=worker.connection, serializer=SERIALIZER)
    worker.execution = Execution("e", job.id, connection=worker.connection)
    worker.maintain_heartbeats(job)


def test_a_redis_that_does_not_answer_is_said_and_harmless(tmp_path: Path) -> None:
    queue = RqQueue(f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(Unavailable, match="REDIS_URL"):
        queue.enqueue(RUN)
    with pytest.raises(Unavailable, match="does not answer"):
        queue.workers()
    with pytest.raises(Unavailable, match="REDIS_URL"):
        queue.ask_help(RUN, [1])
    assert queue.progress(RUN) is None
    MetaReporter(
        Job.create("f", connection=connect(f"unix://{tmp_path}/nobody.sock", timeout=1), serializer=SERIALIZER)
    )(HALF)


def test_help_is_asked_for_once_a_slot_and_lapses(redis_url: str) -> None:
    queue, client = RqQueue(redis_url), connect(redis_url, timeout=2)
    queue.ask_help(RUN, [1, 2])
    queue.ask_help(RUN, [1, 2, 3])
    assert client.llen("rq:queue:briefly") == 3
    job = Job.fetch(f"{RUN}_help_3", connection=client, serializer=SERIALIZER)
    assert (job.args, job.func_name) == ([RUN], HELP)
    assert 0 < client.ttl(job.key) <= 60
    queue.close()


def test_a_run_waits_in_the_queue_once(redis_url: str) -> None:
    queue, client = RqQueue(redis_url), connect(redis_url, timeout=2)
    for _ in range(3):
        queue.enqueue(RUN)
    assert client.llen("rq:queue:briefly") == 1
    client.flushall()
    queue.enqueue(RUN)
    assert client.llen("rq:queue:briefly") == 1
    client.delete("rq:queue:briefly")
    queue.enqueue(RUN)
    assert client.llen("rq:queue:briefly") == 1
    queue.close()
