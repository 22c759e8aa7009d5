"""SIGKILL of workers, horses and PostgreSQL's backends, anywhere: no row is lost, none is done twice."""

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

from briefly_admin.services.views import RunView
from tests.faults.ground import Ground, name_of
from tests.faults.harness import Field
from tests.faults.processes import send, until
from tests.faults.rows.places import come_to, places
from tests.faults.rows.row import Facts, Row, total

KILLS = 15
"""Of each run."""
_LEASE = 1
VICTIMS = {"worker": 34, "horse": 30, "session": 30, "backend": 6}
"""How often each dies; the SIGKILL of a backend makes PostgreSQL end all sessions and recover."""
_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = ANY(%s) AND backend_type = 'client backend' "
    "AND pid <> pg_backend_pid() ORDER BY backend_start"
)


def trial(ground: Ground, seed: int, victims: Sequence[str] = ()) -> Facts:
    """One run of one to three workers, killed at many places; its data and its report are those of no kill.

    `victims`: who dies, one after the other; drawn where nobody is named.
    """
    chance = random.Random(seed)
    victims = victims or chance.choices(list(VICTIMS), list(VICTIMS.values()), k=KILLS)
    workers = chance.randint(1, 3)
    undisturbed, died = ground.undisturbed, Counter[str]()
    with ground.field(lease=_LEASE) as field:
        field.staff(workers + 1)
        field.listening(workers + 1)
        run = field.migrate(workers=workers)
        for place, victim in zip(places(len(victims), chance), victims, strict=True):
            if not come_to(field, run, place, undisturbed, workers=workers + 1):
                break
            if strike(ground, field, victim, chance):
                died[victim] += 1
        run = field.ends(run, seconds=240, workers=workers + 1)
        undisturbed.require_same(field, run)
    return {"count": died.total(), "workers": workers, "attempts": run.attempt, **died}


def strike(ground: Ground, field: Field, victim: str, chance: random.Random) -> bool:
    """Kill one; False where there was none just then."""
    if victim in {"worker", "horse"}:
        return _strike_worker(field, victim, chance)
    databases = [name_of(field.environ[name]) for name in ("TARGET_DATABASE_URL", "DATABASE_URL")]
    # The run's own sessions stand on the target; one in four times the app database's may be hit as well.
    databases = databases if chance.random() < 1 / 4 else databases[:1]
    with psycopg.connect(ground.servers.superuser_url(), autocommit=True) as superuser:
        if victim == "backend":
            superuser.execute("CHECKPOINT")  # what is to be replayed is this trial's
        pids = [pid for (pid,) in superuser.execute(_SESSIONS, (databases,))]
        if not pids:
            return False
        pid = chance.choice(pids)
        if victim == "session":
            superuser.execute("SELECT pg_terminate_backend(%s)", (pid,))
            return True
    return field.crash(pid)


def _strike_worker(field: Field, victim: str, chance: random.Random) -> bool:
    busy = field.busy
    if not busy:
        return False
    worker = chance.choice(busy)
    horse = worker.horse
    if victim == "worker":
        worker.kill()
    elif horse is not None:
        send(horse, signal.SIGKILL)
    return True


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    parts = ", ".join(
        f"{total(trials, name):,} {words}"
        for name, words in (
            ("worker", "of a worker with its horse"),
            ("horse", "of a horse"),
            ("session", "of a session by PostgreSQL"),
            ("backend", "of a backend by SIGKILL"),
        )
    )
    return f"{total(trials):,} kills ({parts}) in {len(trials):,} runs of 1 to 3 workers, 0 rows lost or doubled"


KILLS_ROW = Row("kills", 500, "kills", 20, trial, _says)


def _restarted(field: Field, run: RunView, before: int) -> bool:
    pid = field.leading_pid(run)
    return pid is not None and pid != before


def default_trial(ground: Ground, seed: int) -> Facts:
    """With the default lease, the leader's whole worker is killed: how long until the run is led again.

    Another worker listens; with an odd seed there is none, and `up` starts one anew.
    """
    chance = random.Random(seed)
    alone = bool(seed % 2)
    undisturbed = ground.undisturbed
    with ground.field(lease=30) as field:
        if alone:
            field.up()
        else:
            field.staff(2)
        field.listening(1 if alone else 2, seconds=90)
        run = field.migrate()
        (place,) = places(1, chance, phases=("validate", "backup", "migrate", "constrain"))
        assert come_to(field, run, place, undisturbed)
        leader = field.leading_pid(run)
        assert leader is not None
        began = time.monotonic()
        field.kill_worker_of(leader)
        until(lambda: _restarted(field, run, leader), seconds=120, what="another leader")
        seconds = time.monotonic() - began
        assert seconds <= 60, f"led again after {seconds:.1f} s\n{field.said()}"
        run = field.ends(run, seconds=180)
        undisturbed.require_same(field, run)
    return {"again": round(seconds, 1), "up": alone, "phase": place.phase}


def _default_says(trials: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    for up, words in ((False, "another worker listening"), (True, "restarted by `up`")):
        seconds = [float(trial["again"]) for trial in trials if trial["up"] is up]
        if seconds:
            parts.append(f"{words}: led again after {min(seconds):.0f} to {max(seconds):.0f} s, {len(seconds)} times")
    return f"{len(trials)} kills with the default lease, 0 rows lost or doubled; " + ", ".join(parts)


DEFAULT_ROW = Row("kills-default", 10, "kills", 12, default_trial, _default_says)
