"""Random places of a run, in every phase, in order; and waiting until the run is there."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from briefly_admin.services.views import RunView
from tests.faults.harness import Field, Undisturbed

_WEIGHTS = {
    "preflight": 4, "validate": 10, "backup": 12, "expand": 4, "migrate": 46, "constrain": 14, "verify": 10,
}  # fmt: skip
_ORDER = list(_WEIGHTS)


@dataclass(frozen=True)
class Place:
    """A share (0…1) of a phase: of its rows while migrating, else of the time that it takes undisturbed."""

    phase: str
    share: float


def places(count: int, chance: random.Random, *, phases: Sequence[str] = _ORDER) -> list[Place]:
    """So many, in the order in which a run comes to them."""
    drawn = chance.choices(phases, [_WEIGHTS[phase] for phase in phases], k=count)
    return sorted((Place(phase, chance.random()) for phase in drawn), key=lambda p: (_ORDER.index(p.phase), p.share))


def come_to(
    field: Field, run: RunView, place: Place, undisturbed: Undisturbed, *, workers: int = 0, seconds: float = 120
) -> bool:
    """Wait until a leader is there, or beyond; whether one is: a run may end before. With `workers`, so many are kept
    alive, and a clock.
    """
    end, since = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        if workers:
            field.staff(workers)
        view = field.view(run)
        if view.finished:
            assert not view.error, (view.state, view.error, view.remedy, field.said())
            return False
        if field.leads(run) and _is_at(field, view, place, undisturbed, since):
            return True
        if view.phase == place.phase:
            since = since or time.monotonic()
        time.sleep(0.005)
    raise AssertionError(f"{place} was not reached within {seconds} s: {field.view(run)}\n{field.said()}")


def _is_at(field: Field, view: RunView, place: Place, undisturbed: Undisturbed, since: float) -> bool:
    if view.phase not in _ORDER or _ORDER.index(view.phase) < _ORDER.index(place.phase):
        return False
    if view.phase != place.phase:
        return True
    if place.phase == "migrate" and not view.config["dryRun"]:  # a rehearsal keeps no checkpoint
        return field.looked(view) >= place.share * int(undisturbed.migrate["looked"])
    return bool(since) and time.monotonic() - since >= place.share * undisturbed.seconds.get(place.phase, 0.1)
