"""Redis holds nothing that a run needs: emptied, killed or hanging, the run ends."""

import signal
from collections.abc import Iterator

import pytest
import redis

from briefly_admin.embedded import EmbeddedServers
from tests.faults.harness import Field, Undisturbed
from tests.faults.processes import alive, send
from tests.faults.rows import redis_loss


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedServers]:
    """A Valkey of this test alone."""
    with redis_loss.own_valkey() as servers:
        yield servers


def test_an_emptied_redis_loses_no_run(field: Field, undisturbed: Undisturbed) -> None:
    run = field.migrate()
    with redis.Redis.from_url(field.environ["REDIS_URL"]) as client:
        client.flushall()  # the job that waits for a worker is gone
        field.clock()
        worker = field.worker()
        for place in undisturbed.points(2, seed=8):
            field.has_looked_at(run, place)
            client.flushall()
    field.ends(run)
    undisturbed.require_same(field, run)
    assert alive(worker.pid)
    field.listening(1)


def test_a_redis_that_hangs_and_then_is_gone_loses_no_run(
    field: Field, undisturbed: Undisturbed, own_valkey: EmbeddedServers
) -> None:
    field.use(REDIS_URL=own_valkey.redis_url)
    field.clock()
    field.worker()
    field.listening(1)
    run = field.migrate()
    hangs, dies = undisturbed.points(2, seed=9)
    server = own_valkey.book.entries()["valkey"].pid
    try:
        field.has_looked_at(run, hangs)
        send(server, signal.SIGSTOP)
        field.has_looked_at(run, dies)
    finally:
        send(server, signal.SIGKILL)
    field.ends(run)
    undisturbed.require_same(field, run)
