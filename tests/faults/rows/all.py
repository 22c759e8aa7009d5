"""All rows, in the order in which `make faults` runs them."""

from tests.faults.rows import (
    answers,
    drills,
    edits,
    instants,
    kills,
    mutations,
    redis_loss,
    rehearsals,
    restarts,
    rollbacks,
    rotations,
    same_result,
    starts,
    traffic,
    types,
    verdict,
    whole,
    zombies,
)
from tests.faults.rows.row import Row

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        kills.KILLS_ROW, answers.ROW, zombies.ROW, starts.ROW, redis_loss.ROW, kills.DEFAULT_ROW, restarts.ROW,
        rehearsals.ROW, same_result.ROW, traffic.ROW, instants.ROW, mutations.ROW, whole.ROW, rotations.ROW, types.ROW, drills.ROW,
        rollbacks.ROW, edits.ROW, verdict.ROW,
    )
}  # fmt: skip
