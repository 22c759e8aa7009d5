"""Fifty starts at the same instant: one run begins, the others are told so."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from briefly_admin import settings, wiring
from briefly_admin.domain.errors import Busy
from briefly_admin.domain.runs import RunKind
from tests.faults.ground import Ground
from tests.faults.harness import ANA, CONFIG, Field
from tests.faults.rows.row import Facts, Row, total

STARTS = 50
_PROGRAMS = 2
"""Sets of services, each with a pool of connections of its own, as so many web processes have."""


def trial(ground: Ground, seed: int) -> Facts:
    """Every start waits at one barrier."""
    with ground.field() as field:
        outcomes = _start_at_once(field)
        runs = field.ask("SELECT state FROM briefly_admin.run")
        assert outcomes == {"started": 1, "refused": STARTS - 1}, (outcomes, runs)
        assert runs == ["pending"], runs
        (audited,) = field.ask("SELECT count(*) FROM briefly_admin.audit WHERE action = 'run.start'")
        assert audited == 1, audited
    return {"starts": STARTS, **outcomes}


def _start_at_once(field: Field) -> Counter[str]:
    programs = [wiring.build(settings.load(field.environ)) for _ in range(_PROGRAMS)]
    barrier = threading.Barrier(STARTS)

    def start(number: int) -> str:
        barrier.wait(60)
        try:
            programs[number % _PROGRAMS].runs.start(ANA, RunKind.MIGRATION, config=CONFIG)
        except Busy:
            return "refused"
        return "started"

    try:
        with ThreadPoolExecutor(STARTS) as threads:
            return Counter(threads.map(start, range(STARTS)))
    finally:
        for program in programs:
            program.close()


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    times = len(trials)
    each = f"{total(trials, 'started') // times} starts, {total(trials, 'refused') // times} refused"
    return f"{each}, {times} times"


ROW = Row("starts", 20, "trials", 2, trial, _says)
