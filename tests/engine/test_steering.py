"""How many rows a batch has: simulated servers, whose clock is a sum."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from briefly_admin.domain.config import AUTO
from briefly_admin.engine.steering import LEAST, MOST, TARGET_SECONDS, Steering

Server = Callable[[int], float]
COSTS = st.floats(math.log(2e-6), math.log(0.2)).map(math.exp)
"""Seconds a row."""


def constant(cost: float, overhead: float = 0.0) -> Server:
    return lambda rows: overhead + cost * rows


def drive(steering: Steering, server: Server, batches: int) -> list[int]:
    """The sizes of so many batches."""
    sizes = []
    for _ in range(batches):
        sizes.append(steering.size)
        steering.took(steering.size, server(steering.size))
    return sizes


def near(steering: Steering, server: Server) -> bool:
    """Within 2× of the target, or at the bound that keeps it from there."""
    seconds = server(steering.size)
    if seconds < TARGET_SECONDS / 2:
        return steering.size == MOST
    return seconds <= TARGET_SECONDS * 2 or steering.size == LEAST


def test_automatic_batches_begin_at_100() -> None:
    assert Steering(AUTO).size == 100


@given(cost=COSTS, overhead=st.floats(0, 0.2))
def test_ten_batches_suffice(cost: float, overhead: float) -> None:
    server, steering = constant(cost, overhead), Steering(AUTO)
    drive(steering, server, 10)
    assert near(steering, server), (steering.size, server(steering.size))


@given(cost=COSTS, overhead=st.floats(0, 0.45))
def test_the_size_closes_in_and_does_not_swing(cost: float, overhead: float) -> None:
    sizes = drive(Steering(AUTO), constant(cost, overhead), 60)
    steps = [b - a for a, b in pairwise(sizes) if abs(b - a) > 1]
    assert all(step > 0 for step in steps) or all(step < 0 for step in steps), sizes


@given(first=COSTS, factor=st.floats(2, 100))
def test_a_server_that_slows_down_is_followed(first: float, factor: float) -> None:
    steering = Steering(AUTO)
    drive(steering, constant(first), 15)
    slow = constant(first * factor)
    drive(steering, slow, 10)
    assert near(steering, slow)
    drive(steering, constant(first), 10)
    assert near(steering, constant(first))


@given(st.lists(st.one_of(st.just(-1.0), st.floats(0, 1e6)), max_size=100))
def test_no_step_is_larger_than_twofold_and_bounds_hold(seconds: list[float]) -> None:
    steering = Steering(AUTO)
    for taken in seconds:
        before = steering.size
        if taken < 0:
            steering.halve()
        else:
            steering.took(before, taken)
        assert LEAST <= steering.size <= MOST
        assert before / 2 - 1 <= steering.size <= before * 2 + 1


def test_noise_moves_the_size_by_less_than_the_noise() -> None:
    steering = Steering(AUTO)
    drive(steering, constant(0.001), 15)
    noisy = drive(steering, lambda rows: 0.001 * rows * noisy_factor(rows), 40)
    assert 250 <= min(noisy) <= max(noisy) <= 1000


def noisy_factor(rows: int) -> float:
    return 2.0 if rows % 2 else 0.5


@pytest.mark.parametrize("rows", [0, 3])
def test_the_last_rows_of_a_table_teach_nothing(rows: int) -> None:
    steering = Steering(AUTO)
    drive(steering, constant(0.0005), 15)
    before = steering.size
    steering.took(rows, 0.01)
    assert steering.size == before == 1000


def test_a_few_rows_that_take_long_do_teach() -> None:
    steering = Steering(AUTO)
    drive(steering, constant(0.0005), 15)
    steering.took(3, 4.0)
    assert steering.size == 500


def test_a_halved_automatic_batch_grows_back_slowly() -> None:
    steering, server = Steering(AUTO), constant(0.0005)
    drive(steering, server, 15)
    steering.halve()
    sizes = drive(steering, server, 12)
    assert sizes[0] == 500
    assert all(after <= before * 1.1 + 1 for before, after in pairwise(sizes))
    assert 900 <= sizes[-1] <= 1000


def test_a_size_that_fits_stays() -> None:
    steering, wobble = Steering(AUTO), (1.0, 1.08, 0.94, 1.05, 0.97)
    drive(steering, constant(0.0005), 15)
    for factor in wobble * 5:
        steering.took(steering.size, 0.0005 * factor * steering.size)
        assert steering.size == 1000


def test_a_fixed_size_is_kept() -> None:
    assert drive(Steering(640), constant(1.0), 5) == [640] * 5


def test_a_fixed_size_is_halved_and_doubled_back() -> None:
    steering = Steering(100)
    for expected in (50, 25, 12, 6, 3, 1, 1):
        steering.halve()
        assert steering.size == expected
    sizes = drive(steering, constant(0), 1000)
    assert sizes[-1] == 100
    assert all(after in {before, before * 2, 100} for before, after in pairwise(sizes))


def test_a_size_that_keeps_failing_is_tried_less_and_less_often() -> None:
    steering, failures, batches = Steering(1000), 0, 200
    for _ in range(batches):
        if steering.size > 400:
            failures += 1
            steering.halve()
        else:
            steering.took(steering.size, 0.1)
    assert failures <= 10


def test_a_change_takes_effect_at_once() -> None:
    steering = Steering(100)
    steering.halve()
    steering.want(100)
    assert steering.size == 50, "the same setting again changes nothing"
    steering.want(7)
    assert steering.size == 7
    steering.want(AUTO)
    assert steering.size == LEAST, "it goes on from the size there is, within the bounds"
    drive(steering, constant(0.0005), 12)
    assert near(steering, constant(0.0005))
    steering.want(20)
    assert steering.size == 20
