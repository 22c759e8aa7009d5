"""Lost answers: a proxy cuts connections after a COMMIT was sent, and whether it happened is for the run to find out."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.faults.ground import Ground
from tests.faults.proxy import Fate, Proxy, socket_of
from tests.faults.rows.row import Facts, Row, total

_CUT = (Fate.LOST, Fate.UNANSWERED, Fate.RACED)
_TARGET, _APP = 1 / 7, 1 / 100
"""How many of the COMMITs to each database are cut: the target's are the batches'."""
ANSWERS = 25
"""Of each run."""
_OF_APP = 3
"""Each that the app database loses ends an attempt."""


def _coin(seed: str, share: float, most: int) -> Callable[[int], Fate]:
    chance, left = random.Random(seed), most

    def toss(_: int) -> Fate:
        nonlocal left
        if not left or chance.random() >= share:
            return Fate.PASSES
        left -= 1
        return chance.choice(_CUT)

    return toss


def trial(ground: Ground, seed: int, answers: int = ANSWERS) -> Facts:
    """One run behind two proxies that cut so many answers off."""
    undisturbed, socket = ground.undisturbed, socket_of(ground.servers.target_url)
    with ground.field() as field, Proxy(socket) as target, Proxy(socket) as app:
        # The processes go through the proxies; what looks on goes past them.
        field.elsewhere = {
            "TARGET_DATABASE_URL": target.url(field.environ["TARGET_DATABASE_URL"]),
            "DATABASE_URL": app.url(field.environ["DATABASE_URL"]),
        }
        workers = seed % 2 + 1
        field.staff(workers)
        field.listening(workers)
        run = field.migrate(workers=workers)
        field.in_phase(run, "validate", seconds=120)  # a check that loses its session stops a run; nothing is changed
        target.on_commit = _coin(f"{seed} target", _TARGET, answers)
        app.on_commit = _coin(f"{seed} app", _APP, min(_OF_APP, answers // 6))
        run = field.ends(run, seconds=240, workers=workers)
        target.on_commit = app.on_commit = lambda _: Fate.PASSES
        undisturbed.require_same(field, run)
        cuts = {fate.value: target.cuts.get(fate, 0) for fate in _CUT}
        others = sum(app.cuts.get(fate, 0) for fate in _CUT)
    return {"count": sum(cuts.values()), **cuts, "app": others, "attempts": run.attempt}


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    parts = ", ".join(
        f"{total(trials, fate):,} {words}"
        for fate, words in (
            (Fate.LOST, "never arrived"),
            (Fate.UNANSWERED, "were done unheard"),
            (Fate.RACED, "either way"),
        )
    )
    count = total(trials)
    return f"{count:,} / {count:,} answers resolved ({parts}), and {total(trials, 'app'):,} of the app database"


ROW = Row("lost-commit", 200, "answers", 8, trial, _says)
