"""The same data by batches of 1, 7, 100 and automatic ones, by one worker and by four, with kills: one result."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from tests.faults.ground import Ground
from tests.faults.rows.kills import strike
from tests.faults.rows.places import come_to, places
from tests.faults.rows.row import Facts, Row, total

WAYS = tuple(product((1, 7, 100, "auto"), (1, 4)))
_KILLS = 3


def trial(ground: Ground, seed: int) -> Facts:
    """One way of them; every second round of all ways goes without kills."""
    chance, undisturbed = random.Random(seed), ground.undisturbed
    batch, workers = WAYS[seed % len(WAYS)]
    wanted, kills = (_KILLS if seed // len(WAYS) % 2 == 0 else 0), 0
    with ground.field() as field:
        field.staff(workers)
        field.listening(workers)
        run = field.migrate(batchSize=batch, workers=workers, pause=0)
        for place in places(wanted, chance, phases=("backup", "migrate", "constrain")):
            if not come_to(field, run, place, undisturbed, workers=workers):
                break
            kills += strike(ground, field, chance.choice(("worker", "horse", "session")), chance)
        run = field.ends(run, seconds=240, workers=workers)
        undisturbed.require_same(field, run)
    return {"batch": batch, "workers": workers, "kills": kills}


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    ways = Counter((trial["batch"], trial["workers"]) for trial in trials)
    return f"identical: {len(ways)} ways of batch and workers, {len(trials)} runs, {total(trials, 'kills')} kills"


ROW = Row("same-result", 24, "runs", 12, trial, _says)
