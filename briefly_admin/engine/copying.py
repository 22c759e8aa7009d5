"""COPY … TO STDOUT at the speed of libpq: what it has received is taken at once, and psycopg only waits for more."""

from collections.abc import Iterator
from typing import Final

from psycopg import Copy, generators, sql
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from briefly_admin.domain.partitions import Count
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Note
from briefly_admin.engine.target import Connection

BLOCK_BYTES: Final = 1 << 19
"""Rows are handed on in blocks of about so many bytes."""

_RECEIVE_BYTES: Final = 1 << 20


def widen(connection: Connection) -> None:
    """Have libpq receive about a MiB at a time on this session, not 16 KiB: fewer calls, and the server waits less.

    Its buffer grows to the largest message that it ever received, and stays so. Raises psycopg.Error.
    """
    connection.execute("SELECT pg_catalog.repeat(' ', %s)", (_RECEIVE_BYTES,))


class CopyOut:
    """A COPY as blocks of bytes, to be iterated once; between blocks the stop signal is looked at and `note` is told.

    Raises Stopped, psycopg.Error. `rows`: received so far, and what the server says at the end.
    """

    def __init__(self, context: RunContext, connection: Connection, statement: sql.Composed, note: Note) -> None:
        self._context = context
        self._connection = connection
        self._statement = statement
        self._note = note
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        with self._connection.cursor() as cursor, cursor.copy(self._statement) as copy:
            self._look()
            yield from self._blocks(copy)
            self.rows = cursor.rowcount if cursor.rowcount >= 0 else self._end()

    def _blocks(self, copy: Copy) -> Iterator[bytes]:
        """The server sends a row a message; asking psycopg for each would cost as much as all the rest."""
        take = self._connection.pgconn.get_copy_data
        gathered: list[bytes] = []
        size = 0
        for row in copy:
            length = len(row)
            while length > 0:
                # A copy of Python's own: what libpq allocates is dear to free when thousands of rows are kept.
                gathered.append(bytes(row))
                size += length
                if size >= BLOCK_BYTES:
                    yield b"".join(gathered)
                    self.rows += len(gathered)
                    self._look()
                    gathered, size = [], 0
                # 0: nothing more has come yet; below: that was the end.
                length, row = take(1)  # noqa: PLW2901 - the next row is taken here, not by the loop
            if length < 0:
                break
        yield b"".join(gathered)

    def _end(self) -> int:
        """The rows that the server counted. Raises what it says went wrong."""
        connection = self._connection
        result = ended = connection.wait(generators.fetch(connection.pgconn))
        while ended is not None:
            ended = connection.wait(generators.fetch(connection.pgconn))
        assert result is not None
        if result.status != ExecStatus.COMMAND_OK:
            raise error_from_result(result, encoding=connection.info.encoding)
        return result.command_tuples or 0

    def _look(self) -> None:
        self._context.check_stop()
        self._note(Count(done=self.rows))
