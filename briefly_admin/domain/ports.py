"""What the inner layers ask of the outer ones: structural types, no code."""

from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO, Protocol

from briefly_admin.domain.progress import Progress


class BlobStore(Protocol):
    """Where sealed backups stand. Keys are '/'-separated names that we build ourselves, never input."""

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Write a new object atomically and durably; the number of bytes written.

        Nothing is visible under `key` until everything is; if the iterable raises, nothing is left.
        Raises Refused if `key` exists, Unavailable if the store does not take it (disk full, refused).
        """

    def replace(self, key: str, data: bytes) -> None:
        """Put a small object in the place of the one there, atomically: a reader finds the old or the new one, whole.

        Raises NotFound where there is none, Unavailable.
        """

    def keep(self, prefix: str, seconds: float | None) -> None:
        """What stands under `prefix` stays at least that long from now, None = for ever.

        Stores whose objects have no lifetime do nothing. Raises Unavailable.
        """

    def open(self, key: str) -> BinaryIO:
        """A readable, closable stream over the object. Raises NotFound."""

    def size(self, key: str) -> int:
        """Bytes of the object. Raises NotFound."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if there is none."""

    def free_bytes(self) -> int | None:
        """Room left, or None where the store cannot say. Raises Unavailable where nothing could be put."""


class Queue(Protocol):
    """The way to a worker."""

    def enqueue(self, run_id: str) -> None:
        """Ask for a worker to lead the run. Raises Unavailable; the sweeper asks again."""

    def ask_help(self, run_id: str, slots: Collection[int]) -> None:
        """Ask for workers to help the run's leader, one a slot; what nobody hears lapses. Raises Unavailable."""

    def workers(self) -> int:
        """How many workers of our version listen. Raises Unavailable."""

    def progress(self, run_id: str) -> Progress | None:
        """The newest progress that the run's job reported, or None where the queue has none."""


class Reporter(Protocol):
    """Takes a snapshot of progress; cheap to call, throttled by whoever receives it."""

    def __call__(self, progress: Progress, /) -> None:
        """Take it."""


class StopSignal(Protocol):
    """Says whether the run should stop now."""

    def __call__(self) -> str | None:
        """'pause', 'cancel', 'interrupt' (SIGTERM) or None."""
