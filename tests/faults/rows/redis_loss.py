"""Redis emptied, killed, cut off or slow in the middle of a run: the run ends all the same."""

import random
import secrets
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from briefly_admin.embedded import EmbeddedServers
from tests.faults.ground import Ground
from tests.faults.processes import send
from tests.faults.proxy import Proxy, socket_of
from tests.faults.rows.places import come_to, places
from tests.faults.rows.row import Facts, Row

_TIMES = 2


@contextmanager
def own_valkey() -> Iterator[EmbeddedServers]:
    """A Valkey of one trial alone; below the temporary directory, where the servers' user may look."""
    home = Path(tempfile.gettempdir()) / f"briefly-tests-{secrets.token_hex(4)}"
    try:
        with EmbeddedServers(home, postgres=False, durable=False) as servers:
            yield servers
    finally:
        shutil.rmtree(home)


def trial(ground: Ground, seed: int) -> Facts:
    """One run, two losses of the same kind; the first may come before any worker has the job."""
    chance, undisturbed = random.Random(seed), ground.undisturbed
    kind, hurt = list(_KINDS.items())[seed % len(_KINDS)]
    with own_valkey() as servers, Proxy(socket_of(servers.redis_url)) as proxy, ground.field() as field:
        field.use(REDIS_URL=proxy.url(servers.redis_url))
        field.staff(1)
        field.listening(1)
        run = field.migrate(pause=0, batchSize=100)
        if chance.random() < 1 / 4:
            hurt(servers, proxy, chance)
        for place in places(_TIMES, chance):
            if not come_to(field, run, place, undisturbed, workers=1):
                break
            hurt(servers, proxy, chance)
        run = field.ends(run, seconds=120, workers=1)
        undisturbed.require_same(field, run)
    return {"kind": kind, "attempts": run.attempt}


def _empty(servers: EmbeddedServers, proxy: Proxy, chance: random.Random) -> None:
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()


def _kill(servers: EmbeddedServers, proxy: Proxy, chance: random.Random) -> None:
    """SIGKILL; it keeps nothing on disk, and is back, empty, within two seconds."""
    send(servers.book.entries()["valkey"].pid, signal.SIGKILL)
    time.sleep(chance.uniform(0.1, 2))
    servers.revive()


def _cut(servers: EmbeddedServers, proxy: Proxy, chance: random.Random) -> None:
    """Nothing gets through for a while."""
    proxy.refuse = True
    proxy.drop()
    time.sleep(chance.uniform(0, 2))
    proxy.refuse = False


def _half_close(servers: EmbeddedServers, proxy: Proxy, chance: random.Random) -> None:
    proxy.half_close()


def _slow(servers: EmbeddedServers, proxy: Proxy, chance: random.Random) -> None:
    proxy.latency = chance.uniform(0.1, 0.5)
    time.sleep(chance.uniform(0.5, 1.5))
    proxy.latency = 0


_KINDS: Mapping[str, Callable[[EmbeddedServers, Proxy, random.Random], None]] = {
    "emptied": _empty, "killed": _kill, "emptied again": _empty, "killed again": _kill, "cut off": _cut,
    "half closed": _half_close, "slow": _slow,
}  # fmt: skip


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    kinds = Counter(str(trial["kind"]).removesuffix(" again") for trial in trials)
    parts = ", ".join(f"{count} with Redis {kind}" for kind, count in kinds.most_common())
    return f"{len(trials)} / {len(trials)} finish ({parts})"


ROW = Row("redis", 100, "runs", 25, trial, _says)
