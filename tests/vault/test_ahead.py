import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from briefly_admin.vault.ahead import DEPTH, ahead, beside


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Broken(Exception):
    pass


def breaking(after: int) -> Iterator[int]:
    yield from range(after)
    raise Broken


def test_all_items_come_in_order() -> None:
    assert list(ahead(range(1000))) == list(range(1000))
    assert list(ahead([])) == []
    assert beside(range(1000), list) == list(range(1000))
    assert beside([], list) == []


def test_items_are_made_in_another_thread_and_few_of_them_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(threading.get_ident())
            yield number

    with closing(ahead(items())) as found:
        next(found)
        time.sleep(0.1)
        assert threading.get_ident() not in made
        assert len(made) <= DEPTH + 2


def test_an_error_ahead_comes_behind_what_was_made() -> None:
    taken: list[int] = []
    with pytest.raises(Broken):
        taken.extend(ahead(breaking(50)))
    assert taken == list(range(50))


def test_leaving_early_ends_the_thread_and_its_items() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from iter(int, 1)
        finally:
            closed.set()

    with closing(ahead(items())) as found:
        next(found)
    assert closed.wait(1)


def test_an_error_of_the_maker_reaches_the_consumer_first() -> None:
    seen: list[BaseException] = []

    def consume(items: Iterator[int]) -> None:
        try:
            for _ in items:
                time.sleep(0.01)
        except Broken as error:
            seen.append(error)
            raise

    with pytest.raises(Broken):
        beside(breaking(3), consume)
    assert len(seen) == 1


def test_an_error_of_the_consumer_stops_the_maker() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in iter(int, 1):
            made.append(number)
            yield number

    def consume(items: Iterator[int]) -> None:
        next(items)
        raise Broken

    with pytest.raises(Broken):
        beside(items(), consume)
    assert len(made) < 100
