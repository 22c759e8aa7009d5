"""A statement that may take longer than a lease: another thread waits for the server, this one says that it lives."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Final, TypeVar

import psycopg

from briefly_admin.engine.target import Connection

_NOTE_EVERY: Final = 0.5
_CANCEL_EVERY: Final = 0.5
T = TypeVar("T")


def while_noting(connection: Connection, note: Callable[[], object], work: Callable[[], T]) -> T:
    """What `work` returns, done on this connection alone, with `note` called twice a second meanwhile.

    Where `note` raises, the statement at hand is cancelled, and that is raised once the connection is free.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="statement") as pool:
        future = pool.submit(work)
        try:
            while not wait([future], timeout=_NOTE_EVERY).done:
                note()
        except BaseException:
            while not future.done():
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=_CANCEL_EVERY)
                wait([future], timeout=_CANCEL_EVERY)
            raise
        return future.result()
