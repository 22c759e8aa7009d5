"""SIGTERM to every process at once, as a platform restarts an app: all stop within ten seconds, and the run goes on."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from briefly_admin.domain.runs import RunState
from briefly_admin.services.views import RunView
from tests.faults.ground import Ground
from tests.faults.harness import Field
from tests.faults.processes import alive, until
from tests.faults.proxy import Proxy, socket_of
from tests.faults.rows.places import come_to, places
from tests.faults.rows.row import Facts, Row, most

SECONDS = 10
"""How long a platform waits between SIGTERM and SIGKILL."""
_LATENCY, _RATE = 0.03, 100_000
_TABLES = ("users", "file_metadata", "conversations", "user_settings")
"""Of which no index is built before the migrate phase: a lock on one keeps no phase but constrain waiting."""
_TARGET = "TARGET_DATABASE_URL"


@contextmanager
def _anywhere(field: Field, proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """Nothing is in its way."""
    yield


@contextmanager
def _far_away(field: Field, proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """Every answer of the target comes late, so that phases of many questions last."""
    proxy.latency = _LATENCY
    yield


@contextmanager
def _thin_line(field: Field, proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """A COPY takes many seconds."""
    proxy.rate = _RATE
    yield


@contextmanager
def _old_snapshot(field: Field, proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """CREATE INDEX CONCURRENTLY waits for this transaction; nothing else does."""
    with psycopg.connect(field.environ[_TARGET], autocommit=True) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        yield


@contextmanager
def _locked_table(field: Field, proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """VALIDATE and all other changes of one table's schema wait; reading and writing go on."""
    with field.held(_TARGET, f"public.{chance.choice(_TABLES)}", "SHARE UPDATE EXCLUSIVE"):
        yield


@contextmanager
def _locked_rows(field: Field, proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """A batch meets rows that somebody else is changing."""
    with psycopg.connect(field.environ[_TARGET]) as connection:
        connection.execute("SELECT 1 FROM public.usage_logs WHERE metadata IS NULL FOR UPDATE")
        yield


_ACTIVE = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query ~* %s"
)
_BUILDING = (
    "SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase ~ 'old snap'"
)


def _copies(field: Field) -> None:
    until(lambda: field.ask(_ACTIVE, "^COPY ", variable=_TARGET)[0], seconds=60, what="a COPY")


def _builds(field: Field) -> None:
    until(lambda: field.ask(_BUILDING, variable=_TARGET)[0], seconds=60, what="an index build that waits")


def _waits(field: Field) -> None:
    field.waits_for(_TARGET, seconds=60)


Hold = Callable[[Field, Proxy, random.Random], Any]
WAYS: Mapping[str, tuple[str, Hold, Callable[[Field], None] | None]] = {
    "validate": ("validate", _far_away, None),
    "COPY": ("backup", _thin_line, _copies),
    "migrate": ("migrate", _anywhere, None),
    "a locked row": ("migrate", _locked_rows, _waits),
    "an index build": ("expand", _old_snapshot, _builds),
    "VALIDATE and ALTER": ("constrain", _locked_table, _waits),
    "verify": ("verify", _far_away, None),
    "any phase": ("", _anywhere, None),
}
"""Where: the phase, what makes it last, and how to see that it is there (None: at a random place of it)."""


def trial(ground: Ground, seed: int) -> Facts:
    """One restart in one place, by turns; then processes start again, and the run ends as if nothing had been."""
    chance, undisturbed = random.Random(seed), ground.undisturbed
    where, (phase, hold, seen) = list(WAYS.items())[seed % len(WAYS)]
    workers = chance.randint(1, 2)
    with ground.field() as field, Proxy(socket_of(ground.servers.target_url)) as proxy:
        field.elsewhere = {_TARGET: proxy.url(field.environ[_TARGET])}
        field.staff(workers)
        field.listening(workers)
        with ExitStack() as holding:
            if seen:
                holding.enter_context(hold(field, proxy, chance))
                run = field.migrate(workers=workers)
                field.in_phase(run, phase, seconds=120)
                seen(field)
            else:
                run = field.migrate(workers=workers)
                if phase:
                    field.in_phase(run, phase, seconds=120)
                holding.enter_context(hold(field, proxy, chance))
                (place,) = places(1, chance, phases=(phase,)) if phase else places(1, chance)
                come_to(field, run, place, undisturbed)
            view, seconds = field.view(run), _restart(field)
            stopped = field.view(run)
            assert seconds <= SECONDS, f"{where}: stopped after {seconds:.1f} s\n{field.said()}"
            _require_interrupted(stopped, field, finished_is_fine=seen is None)
        proxy.latency = proxy.rate = 0
        field.staff(workers)
        run = field.ends(run, seconds=180, workers=workers)
        assert run.attempt > view.attempt or stopped.finished, field.said()
        undisturbed.require_same(field, run)
    return {"where": where, "stopped": round(seconds, 2), "phase": view.phase, "workers": workers}


def _restart(field: Field) -> float:
    """SIGTERM to all processes at once; the seconds until the last one is gone."""
    everybody = [pid for each in field.started for pid in (each.pid, each.horse) if pid is not None]
    began = time.monotonic()
    for each in field.started:
        each.send(signal.SIGTERM)

    def gone() -> bool:
        for each in field.started:
            each.process.poll()
        return not any(alive(pid) for pid in everybody)

    until(gone, seconds=6 * SECONDS, what="the end of all processes")
    return time.monotonic() - began


def _require_interrupted(view: RunView, field: Field, *, finished_is_fine: bool) -> None:
    well = view.finished and not view.error and finished_is_fine
    # Queued and not yet led: the signal came between two leaders.
    waiting = view.state in {RunState.INTERRUPTED, RunState.PENDING}
    assert well or waiting, (view.state, view.error, view.remedy, field.said())


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    where = Counter(str(trial["where"]) for trial in trials)
    parts = ", ".join(f"{count} in {name}" for name, count in where.most_common())
    return f"{len(trials)} restarts ({parts}): stopped within {most(trials, 'stopped'):.1f} s, all resumed"


ROW = Row("sigterm", 24, "restarts", 10, trial, _says)
