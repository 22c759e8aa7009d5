"""Failures by SQLSTATE, and the waits between tries."""

import random

import psycopg
import pytest
from psycopg import errors

from briefly_admin.domain.errors import RunFailed, Unavailable
from briefly_admin.engine.retry import Patience, Verdict, backoff, classify, describe, lost_connection, patiently
from tests.engine.writing_bench import Bench

KNOWN = sorted({found.sqlstate for found in vars(errors).values() if isinstance(getattr(found, "sqlstate", None), str)})
"""Every SQLSTATE that psycopg knows."""
AGAIN = {
    "57P01", "57P02", "57P03", "25006", "25P03",
    # The session is ended by these two, as by 25P03.
    "57P05", "25P04",
}  # fmt: skip


def _wanted(state: str) -> Verdict:
    """As the design's "Failures by SQLSTATE" says."""
    if state[:2] == "40" or state in {"55P03", "57014"}:
        return Verdict.SMALLER
    if state[:2] in {"08", "53"} and state != "53100":
        return Verdict.AGAIN
    if state in AGAIN:
        return Verdict.AGAIN
    return Verdict.ROWS if state[:2] in {"22", "23", "44", "P0"} else Verdict.STOP


def test_every_sqlstate_has_the_verdict_of_the_design() -> None:
    assert len(KNOWN) > 250
    assert {state: classify(errors.lookup(state)("no matter")) for state in KNOWN} == {s: _wanted(s) for s in KNOWN}


@pytest.mark.parametrize(
    ("sqlstate", "verdict"),
    [
        ("08000", Verdict.AGAIN), ("08003", Verdict.AGAIN), ("08006", Verdict.AGAIN), ("08P01", Verdict.AGAIN),
        ("40001", Verdict.SMALLER), ("40003", Verdict.SMALLER), ("40P01", Verdict.SMALLER),
        ("53000", Verdict.AGAIN), ("53200", Verdict.AGAIN), ("53300", Verdict.AGAIN), ("53400", Verdict.AGAIN),
        ("53100", Verdict.STOP), ("55P03", Verdict.SMALLER), ("55006", Verdict.STOP), ("57014", Verdict.SMALLER),
        ("57P01", Verdict.AGAIN), ("57P02", Verdict.AGAIN), ("57P03", Verdict.AGAIN), ("57P04", Verdict.STOP),
        ("57P05", Verdict.AGAIN), ("25006", Verdict.AGAIN), ("25P02", Verdict.STOP), ("25P03", Verdict.AGAIN),
        ("25P04", Verdict.AGAIN), ("22003", Verdict.ROWS), ("23505", Verdict.ROWS), ("23P01", Verdict.ROWS),
        ("44000", Verdict.ROWS), ("P0001", Verdict.ROWS), ("42P01", Verdict.STOP), ("42501", Verdict.STOP),
        ("0A000", Verdict.STOP), ("58030", Verdict.STOP), ("XX000", Verdict.STOP),
    ],
)  # fmt: skip
def test_verdict_by_sqlstate(sqlstate: str, verdict: Verdict) -> None:
    assert classify(errors.lookup(sqlstate)("no matter")) is verdict


def test_a_connection_that_is_gone_is_tried_again() -> None:
    for error in (
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.InterfaceError("the connection is closed"),
    ):
        assert classify(error) is Verdict.AGAIN
        assert lost_connection(error)
    assert classify(Unavailable("It does not answer.")) is Verdict.AGAIN
    assert classify(ValueError("no")) is Verdict.STOP
    for state in ("08006", "57P01", "57P02", "57P05", "25P03", "25P04"):
        assert lost_connection(errors.lookup(state)("no matter"))
    assert not lost_connection(errors.lookup("53300")("no matter"))


def test_what_is_said_of_an_error_is_one_sentence_without_its_remedy() -> None:
    assert describe(Unavailable("It does not answer.", remedy="Look at it.")) == "It does not answer"
    assert "55P03" in describe(errors.LockNotAvailable("values of tenants"))
    assert "tenants" not in describe(errors.LockNotAvailable("values of tenants"))


def test_waits_double_with_full_jitter_below_a_minute() -> None:
    chance = random.Random(1)
    for tries in range(1, 20):
        longest = min(60.0, 2 ** (tries - 1))
        waits = [backoff(tries, 1000, chance) for _ in range(300)]
        assert 0 <= min(waits) < longest * 0.1
        assert longest * 0.9 < max(waits) <= longest


def test_gives_up_after_max_retries_and_counts_anew_after_a_success(target_database: str) -> None:
    said: list[tuple[str, str]] = []
    waits: list[float] = []

    def announce(text: str, until: str = "") -> None:
        said.append((text, until))

    context = Bench(target_database).context(max_retries=2, retry_delay=1000, sleep=waits.append)
    patience = Patience(context, "A batch of t", announce)
    lost = psycopg.OperationalError("gone")
    patience.failed(lost)
    patience.failed(lost)
    patience.succeeded()
    patience.failed(lost)
    patience.failed(lost)
    with pytest.raises(Unavailable, match="failed 3 times in a row"):
        patience.failed(lost)
    assert len(waits) == 4
    assert "try 2 of 2" in said[1][0]
    assert said[1][1].endswith("+00:00")
    assert said[2] == ("", "")


def test_what_cures_the_last_failure_is_told(target_database: str) -> None:
    context = Bench(target_database).context(max_retries=0)
    patience = Patience(context, "The phase verify", lambda _text, _until="": None)
    with pytest.raises(Unavailable) as caught:
        patience.failed(Unavailable("The backup store holds nothing at all.", remedy="Look at BACKUP_STORE_URL."))
    assert caught.value.remedy == "Look at BACKUP_STORE_URL. Then resume the run: it goes on at the last batch."
    with pytest.raises(Unavailable) as caught:
        patience.failed(psycopg.OperationalError("gone"))
    assert caught.value.remedy.startswith("See what holds the target database. Then resume")


def test_conflicts_in_a_row_beyond_max_retries_fail_the_run(target_database: str) -> None:
    context = Bench(target_database).context(max_retries=2, sleep=lambda _: None)
    patience = Patience(context, "A batch of t", lambda _text, _until="": None)
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
        patiently(context, "The phase t", lambda _text, _until="": None, work)
    assert raised.value is lost
    assert context.journal.breaker.look().failures == 0
