"""A backup whose making is disturbed is whole in the end, or it is not there: nobody sees it, and nothing of it is left."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from briefly_admin.domain.runs import RunState
from briefly_admin.services.views import RunView
from tests.faults.ground import Ground
from tests.faults.harness import ANA, Field
from tests.faults.rows.breaking import WAYS, Outcome
from tests.faults.rows.row import Facts, Row, total
from tests.faults.stored import opened, require_no_residue

_SHOWN = 160
_SETTINGS = {"MIGRATION_MAX_RETRIES": "2", "MIGRATION_RETRY_DELAY": "50"}


def trial(ground: Ground, seed: int) -> Facts:
    """One disturbance, by turns; afterwards a backup that nothing disturbs."""
    chance = random.Random(seed)
    way, disturb = WAYS[seed % len(WAYS)]
    with ground.field() as field:
        field.use(**_SETTINGS)
        with disturb(ground, field, chance) as outcome:
            run = field.view(outcome.run)
            field.dismiss()
            _require_whole_or_nothing(field, run, outcome)
            field.services.sweeping.purge()
            objects = require_no_residue(field)
            _require_another(field)
    # Where the fault came too late, or not at all, the run is none that was disturbed.
    return {
        "count": int(outcome.struck), "way": way, "state": str(run.state), "attempts": run.attempt, "left": objects,
        "error": (run.error or "")[:_SHOWN],
    }  # fmt: skip


def _require_whole_or_nothing(field: Field, run: RunView, outcome: Outcome) -> None:
    listed = field.services.backups.list(ANA)
    if run.state is RunState.COMPLETED:
        assert [backup.run_id for backup in listed] == [run.id], listed
        reader = opened(field, listed[0])
        assert reader.manifest.rows == listed[0].rows > 0
    else:
        assert not listed, listed
    if run.state not in {RunState.COMPLETED, RunState.CANCELLED}:
        assert run.state is RunState.FAILED, (run.state, field.said())
        assert run.error, field.said()
        assert "unexpected error" not in run.error, (run.error, field.said())
        assert run.remedy, run.error
    assert outcome.allows(run), (outcome, run.state, run.error, field.said())


def _require_another(field: Field) -> None:
    """A backup that nothing disturbs, in this process, succeeds, and is all that it adds."""
    before, run = field.services.backups.list(ANA), field.back_up()
    field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
    field.ends(run)
    newest, *others = field.services.backups.list(ANA)
    assert (newest.run_id, [each.id for each in others]) == (run.id, [each.id for each in before])
    opened(field, newest)
    field.services.sweeping.purge()
    require_no_residue(field)


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    ways = Counter(str(trial["way"]) for trial in trials if trial["count"])
    parts = ", ".join(f"{count} {name}" for name, count in sorted(ways.items()))
    states = Counter(str(trial["state"]) for trial in trials if trial["count"])
    return (
        f"0 silent partials, 0 leftovers in {total(trials):,} backups disturbed ({parts}): "
        f"{states['completed']} went on and were whole, {states['failed']} failed and said why, "
        f"{states['cancelled']} were cancelled"
    )


ROW = Row("whole", 150, "disturbed backups", 25, trial, _says)
