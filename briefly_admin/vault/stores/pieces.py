"""A readable stream over an object that is fetched piece by piece."""

import io
from collections.abc import Callable
from typing import BinaryIO


def read_in_pieces(size: int, first: bytes, fetch: Callable[[int, int], bytes], *, piece: int) -> BinaryIO:
    """A buffered stream over `size` bytes, of which `first` are known; at most two pieces are in memory.

    `fetch(start, length)` gives exactly that much, or raises.
    """
    return io.BufferedReader(_Pieces(size, first, fetch, piece), buffer_size=piece)


class _Pieces(io.RawIOBase):
    def __init__(self, size: int, first: bytes, fetch: Callable[[int, int], bytes], piece: int) -> None:
        self._size = size
        self._fetch = fetch
        self._piece = piece
        self._held = memoryview(first)
        self._fetched = len(first)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override] # it is only ever given views of bytes
        if not self._held:
            if self._fetched >= self._size:
                return 0
            self._held = memoryview(self._fetch(self._fetched, min(self._piece, self._size - self._fetched)))
            self._fetched += len(self._held)
        given = self._held[: len(buffer)]
        buffer[: len(given)] = given
        self._held = self._held[len(given) :]
        return len(given)
