"""Statements that take long: whoever runs them says meanwhile that it lives, and ends them when a stop is asked for."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

import psycopg

from briefly_admin.domain.errors import BrieflyError
from briefly_admin.engine.context import RunContext
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


@contextmanager
def stoppable(context: RunContext, connection: Connection) -> Iterator[None]:
    """Within, the statements of this connection are cancelled soon after a stop is asked for. Raises Stopped, Fenced.

    To be the inner of a transaction: then nothing is cancelled any more while it commits.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_NOTE_EVERY):
            if _stopping(context):
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=_CANCEL_EVERY)

    watcher = threading.Thread(target=watch, name="stop", daemon=True)
    watcher.start()
    try:
        yield
    except psycopg.errors.QueryCanceled:
        context.check_stop()
        raise
    finally:
        over.set()
        watcher.join()
    context.check_stop()


def _stopping(context: RunContext) -> bool:
    try:
        return context.should_stop() is not None
    except BrieflyError:  # the run is in other hands
        return True
