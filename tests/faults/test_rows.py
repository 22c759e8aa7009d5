"""Each row of `make faults`, once or twice: the short form that every change is tried with."""

import json

import pytest

from tests.faults.ground import Ground
from tests.faults.rows import answers, kills, redis_loss, rehearsals, restarts, same_result, starts, traffic, zombies
from tests.faults.rows.all import ROWS
from tests.faults.rows.row import Facts


def says(name: str, facts: Facts) -> str:
    """What the row would print; its facts survive the results file."""
    assert json.loads(json.dumps(facts)) == facts
    return ROWS[name].says([facts])


def test_a_few_kills(ground: Ground) -> None:
    facts = kills.trial(ground, 5, ("session", "worker", "backend", "horse", "worker", "session"))
    assert facts["count"] >= 4
    assert "0 rows lost or doubled" in says("kills", facts)


def test_lost_answers(ground: Ground) -> None:
    facts = answers.trial(ground, 2, answers=8)
    assert facts["count"] == 8
    assert f"{facts['count']} / {facts['count']} answers resolved" in says("lost-commit", facts)


def test_sleepers_wake_fenced_off(ground: Ground) -> None:
    facts = zombies.sleepers(ground, 2)
    assert facts["leader"] + facts["helper"] == 2
    assert "0 stale writes" in says("zombies", facts)


def test_fifty_starts_at_once(ground: Ground) -> None:
    assert says("starts", starts.trial(ground, 1)) == "1 starts, 49 refused, 1 times"


def test_a_killed_redis(ground: Ground) -> None:
    assert "1 / 1 finish (1 with Redis killed)" in says("redis", redis_loss.trial(ground, 3))


@pytest.mark.parametrize("where", ["COPY", "an index build"])
def test_a_restart_where_a_statement_takes_long(ground: Ground, where: str) -> None:
    facts = restarts.trial(ground, list(restarts.WAYS).index(where))
    assert facts["where"] == where
    assert facts["stopped"] <= restarts.SECONDS
    assert "all resumed" in says("sigterm", facts)


def test_a_killed_rehearsal(ground: Ground) -> None:
    facts = rehearsals.trial(ground, 2)
    assert facts["kills"] >= 1
    assert "0 changes" in says("rehearsal", facts)


def test_automatic_batches_of_four_workers(ground: Ground) -> None:
    facts = same_result.trial(ground, same_result.WAYS.index(("auto", 4)))
    assert (facts["batch"], facts["workers"]) == ("auto", 4)
    assert "identical" in says("same-result", facts)


def test_a_writer_at_work(ground: Ground) -> None:
    assert "worst stall" in says("traffic", traffic.trial(ground, 1))
