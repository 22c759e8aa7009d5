"""Work in a thread of its own beside the caller's, over a short queue: hashing, zstd and AES let Python's lock go.

Errors cross over to the other side, and no thread outlives the call that started it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from threading import Condition, Thread
from typing import Final, Generic, TypeVar

DEPTH: Final = 8
"""Items that wait at most."""

T = TypeVar("T")
R = TypeVar("R")


class _Closed(Exception):
    """Nobody takes any more."""


class _Channel(Generic[T]):
    """A bounded queue between one thread that puts and one that iterates."""

    def __init__(self, depth: int) -> None:
        self._items: deque[T] = deque()
        self._depth = depth
        self._changed = Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> None:
        """Wait for room. Raises _Closed where nobody takes any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            if self._closed:
                raise _Closed
            self._items.append(item)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; whoever takes gets the error behind what waits."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    if self._error:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def ahead(items: Iterable[T], *, depth: int = DEPTH) -> Generator[T, None, None]:
    """The same items, made in a thread while the caller works on the ones before; raises what making them raises.

    Close it where it may not be read to its end.
    """
    channel: _Channel[T] = _Channel(depth)
    thread = Thread(target=_fill, args=(channel, items), name="ahead")
    thread.start()
    try:
        yield from channel
    finally:
        channel.close()
        thread.join()


def _fill(channel: _Channel[T], items: Iterable[T]) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            channel.put(item)
    except _Closed:
        return
    except BaseException as raised:  # noqa: BLE001 - it is raised on the other side
        error = raised
    channel.end(error)


def beside(items: Iterable[T], consume: Callable[[Iterator[T]], R], *, depth: int = DEPTH) -> R:
    """What `consume` makes of the items, in a thread, while the caller's makes them; raises what either raises.

    Where making them raises, `consume` gets that error from its iterator, and has ended before it goes on.
    """
    channel: _Channel[T] = _Channel(depth)
    results: list[R] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(consume(iter(channel)))
        except BaseException as raised:  # noqa: BLE001 - it is raised on the other side
            errors.append(raised)
        channel.close()

    thread = Thread(target=run, name="beside")
    thread.start()
    try:
        for item in items:
            channel.put(item)
        channel.end()
    except _Closed:
        pass
    except BaseException as raised:
        channel.end(raised)
        raise
    finally:
        thread.join()
    if errors:
        raise errors[0]
    return results[0]
