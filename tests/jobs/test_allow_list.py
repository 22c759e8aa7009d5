"""Whatever a payload in Redis names, a worker runs nothing but the leader, and calls nobody back."""

import json
import os
import zlib
from pathlib import Path
from uuid import uuid4

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

from briefly_admin.jobs import job as job_module
from briefly_admin.jobs.connection import QUEUE, SERIALIZER, connect
from briefly_admin.jobs.job import HELP, LEAD, RunJob
from briefly_admin.jobs.queue import RqQueue, pointer_key
from briefly_admin.jobs.worker import make_worker

RUN = str(uuid4())


@pytest.fixture
def client(redis_url: str) -> Redis:
    return connect(redis_url, timeout=2)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def work(redis_url: str) -> None:
    make_worker(redis_url).work(burst=True, logging_level="CRITICAL")


def status(client: Redis, job_id: str) -> JobStatus:
    return Job.fetch(job_id, connection=client, serializer=SERIALIZER).get_status()


def plant(client: Redis, function: str, *args: object, **extra: object) -> str:
    """Put a job into the queue as an attacker with access to Redis would."""
    queue = Queue(QUEUE, connection=client, serializer=SERIALIZER)
    return queue.enqueue_call(function, args=args, timeout=30, **extra).id  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["os.system", "subprocess.check_call", "builtins.eval", "briefly_admin.cli.main"])
def test_other_functions_do_not_run(redis_url: str, client: Redis, marker: Path, function: str) -> None:
    job_id = plant(client, function, f"touch {marker}")
    work(redis_url)
    assert status(client, job_id) is JobStatus.FAILED
    assert not marker.exists()


@pytest.mark.parametrize("function", [LEAD, HELP])
@pytest.mark.parametrize(
    "args", [(), ("1",), (RUN, RUN), (f"{RUN}; rm",), (RUN.upper(),), (["x"],), ({"a": 1},), (None,)]
)
def test_other_arguments_do_not_run(
    redis_url: str, client: Redis, function: str, args: tuple[object, ...]
) -> None:  # fmt: skip
    job_id = plant(client, function, *args)
    work(redis_url)
    assert status(client, job_id) is JobStatus.FAILED


def test_keyword_arguments_and_instances_are_refused(redis_url: str, client: Redis) -> None:
    job_id = plant(client, LEAD, RUN, kwargs={"home": "/tmp"})
    work(redis_url)
    assert status(client, job_id) is JobStatus.FAILED
    hostile = RunJob.create(LEAD, args=(RUN,), connection=client, serializer=SERIALIZER)
    hostile._instance = "os"
    with pytest.raises(Exception, match="do not run"):
        hostile.func  # noqa: B018 - the property decides


def test_pickles_do_not_run(redis_url: str, client: Redis, marker: Path) -> None:
    evil = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    job_id = plant(client, LEAD, RUN)
    client.hset(f"rq:job:{job_id}", "data", zlib.compress(evil))
    work(redis_url)
    assert not marker.exists()
    assert client.llen(f"rq:queue:{QUEUE}") == 0


def test_callbacks_and_webhooks_are_never_called(redis_url: str, client: Redis, marker: Path) -> None:
    job_id = plant(client, "os.system", f"touch {marker}")
    for name in ("success_callback_name", "failure_callback_name", "stopped_callback_name"):
        client.hset(f"rq:job:{job_id}", name, "os.abort")
    client.hset(f"rq:job:{job_id}", "webhooks", json.dumps([{"url": "http://127.0.0.1:9/", "job_status": "failed"}]))
    work(redis_url)
    fetched = RunJob.fetch(job_id, connection=client, serializer=SERIALIZER)
    assert (fetched.success_callback, fetched.failure_callback, fetched.stopped_callback) == (None, None, None)
    assert status(client, job_id) is JobStatus.FAILED
    assert not marker.exists()


def test_the_leader_runs_with_its_run(
    redis_url: str, client: Redis, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(job_module.ALLOWED, LEAD, lambda run_id: marker.write_text(f"{run_id} {os.getppid()}") and None)
    queue = RqQueue(redis_url)
    queue.enqueue(RUN)
    work(redis_url)
    assert marker.read_text() == f"{RUN} {os.getpid()}"
    pointed = client.get(pointer_key(RUN))
    assert isinstance(pointed, bytes)
    assert status(client, pointed.decode()) is JobStatus.FINISHED
    queue.close()


def test_payloads_carry_a_run_id_alone(redis_url: str, client: Redis) -> None:
    queue = RqQueue(redis_url)
    queue.enqueue(RUN)
    queue.close()
    pointed = client.get(pointer_key(RUN))
    assert isinstance(pointed, bytes)
    raw = client.hget(f"rq:job:{pointed.decode()}", "data")
    assert isinstance(raw, bytes)
    assert json.loads(zlib.decompress(raw)) == [LEAD, None, [RUN], {}]
