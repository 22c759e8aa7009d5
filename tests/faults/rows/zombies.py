"""Jobs delivered five times, and leaders and helpers that sleep past their lease and wake: none of them writes."""

import random
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rq import Queue

from briefly_admin.jobs.connection import QUEUE, SERIALIZER, connect
from briefly_admin.jobs.job import LEAD, RunJob
from briefly_admin.services.views import RunView
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.processes import Worker, alive, send, until
from tests.faults.rows.places import come_to, places
from tests.faults.rows.row import Facts, Row, total

_TIMES = 5
_SLOWLY = 200
"""Milliseconds between batches while somebody is to be stopped, so that the run is not over before."""
_HELPER_SECONDS = 5
"""How long to wait for a helper to come."""


def trial(ground: Ground, seed: int) -> Facts:
    """An odd seed delivers the run's job five times, an even one stops who works on it and wakes them."""
    return duplicates(ground, seed) if seed % 2 else sleepers(ground, seed)


def duplicates(ground: Ground, seed: int) -> Facts:
    """Three workers get the same job five times: one of them leads, once."""
    chance, undisturbed = random.Random(seed), ground.undisturbed
    with ground.field(lease=30) as field:
        field.staff(3)
        field.listening(3)
        run = field.migrate()
        (place,) = places(1, chance)
        early = chance.random() < 1 / 2
        if not early:
            come_to(field, run, place, undisturbed)
        with connect(field.environ["REDIS_URL"], timeout=2) as client:
            queue = Queue(QUEUE, connection=client, serializer=SERIALIZER, job_class=RunJob)
            for _ in range(_TIMES - 1):
                queue.enqueue_call(LEAD, args=(run.id,), timeout=-1)
        run = field.ends(run, seconds=180)
        assert run.attempt == 1, f"{run.attempt} attempts\n{field.said()}"
        undisturbed.require_same(field, run)
        until(lambda: field.said().count("run not led") == _TIMES - 1, what="jobs that leave the run alone")
    return {"kind": "duplicates", "delivered": _TIMES}


def sleepers(ground: Ground, seed: int) -> Facts:
    """Who works is stopped past the lease, another goes on, the sleeper wakes: it finds itself fenced off, and ends."""
    chance, undisturbed = random.Random(seed), ground.undisturbed
    woken = {"leader": 0, "helper": 0}
    with ground.field() as field:
        field.staff(3)
        field.listening(3)
        run = field.migrate(workers=2, pause=_SLOWLY)
        shares = chance.uniform(0.02, 0.3), chance.uniform(0.4, 0.7)
        for number, share in enumerate(shares):
            field.has_looked_at(run, int(share * undisturbed.migrate["looked"]), seconds=120)
            field.services.runs.change(ANA, run.id, {"pause": _SLOWLY})
            helper = _helper(field, run) if number == seed // 2 % 2 else None
            _sleep_and_wake(field, run, helper or field.led(run), chance, leader=helper is None)
            woken["helper" if helper else "leader"] += 1
            field.services.runs.change(ANA, run.id, {"pause": 10})
        run = field.ends(run, seconds=180, workers=3)
        undisturbed.require_same(field, run)
    return {"kind": "sleepers", **woken}


def _helper(field: Field, run: RunView) -> Worker | None:
    """A worker that helps, if one comes."""
    end = time.monotonic() + _HELPER_SECONDS
    while time.monotonic() < end:
        leader = field.leader(run)
        for each in field.busy:
            if leader is not None and each is not leader:
                return each
        time.sleep(0.02)
    return None


def _sleep_and_wake(field: Field, run: RunView, sleeper: Worker, chance: random.Random, *, leader: bool) -> None:
    horse = sleeper.horse
    if horse is None:
        return
    send(horse, signal.SIGSTOP)
    try:
        if leader:
            field.led(run, but=sleeper, seconds=60)
        else:
            time.sleep(2 * int(field.environ["LEASE_SECONDS"]))
        time.sleep(chance.uniform(0, 1))
    finally:
        send(horse, signal.SIGCONT)
    until(lambda: not alive(horse), seconds=60, what=f"the end of the sleeper {horse}")
    if leader:
        said = sleeper.log.read_text(encoding="utf-8", errors="replace")
        assert "fenced" in said.lower(), f"the sleeper does not say that it is fenced off\n{said}"


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    delivered = len([t for t in trials if t["kind"] == "duplicates"])
    return (
        f"0 stale writes: {delivered} runs delivered {_TIMES} times and led once, {total(trials, 'leader')} leaders and "
        f"{total(trials, 'helper')} helpers stopped past their lease and woken"
    )


ROW = Row("zombies", 40, "trials", 15, trial, _says)
