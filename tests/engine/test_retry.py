"""Failures by SQLSTATE, and the waits between tries."""

import random

import psycopg
import pytest
from psycopg import errors

from briefly_admin.domain.errors import RunFailed, Unavailable
from briefly_admin.engine.retry import Patience, Verdict, backoff, classify, patiently
from tests.engine.writing_bench import Bench


@pytest.mark.parametrize(
    ("sqlstate", "verdict"),
    [
        ("08006", Verdict.AGAIN), ("40001", Verdict.SMALLER), ("40P01", Verdict.SMALLER), ("53300", Verdict.AGAIN),
        ("53100", Verdict.STOP), ("55P03", Verdict.SMALLER), ("57P01", Verdict.AGAIN), ("57P03", Verdict.AGAIN),
        ("57014", Verdict.SMALLER), ("25006", Verdict.AGAIN), ("25P03", Verdict.AGAIN), ("22003", Verdict.ROWS),
        ("23505", Verdict.ROWS), ("44000", Verdict.ROWS), ("P0001", Verdict.ROWS), ("42P01", Verdict.STOP),
        ("XX000", Verdict.STOP),
    ],
)  # fmt: skip
def test_verdict_by_sqlstate(sqlstate: str, verdict: Verdict) -> None:
    assert classify(errors.lookup(sqlstate)("no matter")) is verdict


def test_a_connection_that_is_gone_is_tried_again() -> None:
    assert classify(psycopg.OperationalError("server closed the connection unexpectedly")) is Verdict.AGAIN
    assert classify(Unavailable("It does not answer.")) is Verdict.AGAIN
    assert classify(ValueError("no")) is Verdict.STOP


def test_waits_double_with_full_jitter_below_a_minute() -> None:
    chance = random.Random(1)
    for tries in range(1, 20):
        longest = min(60.0, 2 ** (tries - 1))
        waits = [backoff(tries, 1000, chance) for _ in range(300)]
        assert 0 <= min(waits) < longest * 0.1
        assert longest * 0.9 < max(waits) <= longest


def test_gives_up_after_max_retries_and_counts_anew_after_a_success(target_database: str) -> None:
    said: list[str] = []
    waits: list[float] = []
    context = Bench(target_database).context(max_retries=2, retry_delay=1000, sleep=waits.append)
    patience = Patience(context, "A batch of t", said.append)
    lost = psycopg.OperationalError("gone")
    patience.failed(lost)
    patience.failed(lost)
    patience.succeeded()
    patience.failed(lost)
    patience.failed(lost)
    with pytest.raises(Unavailable, match="failed 3 times in a row"):
        patience.failed(lost)
    assert len(waits) == 4
    assert "try 2 of 2" in said[1]
    assert said[2] == ""
    patience = Patience(context, "A batch of t", said.append)
    patience.failed(errors.LockNotAvailable())
    patience.failed(errors.LockNotAvailable())
    with pytest.raises(RunFailed, match="55P03"):
        patience.failed(errors.LockNotAvailable())


def test_a_lost_app_database_is_not_waited_for(target_database: str) -> None:
    context = Bench(target_database).context(max_retries=2, sleep=lambda _: pytest.fail("waited"))
    lost = Unavailable("The app database does not answer.")
    lost.__cause__ = OSError()

    def work() -> None:
        raise lost

    with pytest.raises(Unavailable, match="app database") as raised:
        patiently(context, "The phase t", lambda _: None, work)
    assert raised.value is lost
