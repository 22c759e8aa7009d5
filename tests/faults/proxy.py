"""A TCP proxy on loopback before PostgreSQL or Valkey (a unix socket or a port) that does to connections what networks do.

It knows of the protocols one thing alone: where a PostgreSQL client sends COMMIT.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

_PIECE = 64 * 1024
_COMMIT = re.compile(rb"(?:^|;)\s*commit\s*;?\s*\0?$", re.IGNORECASE)
_QUERY = b"Q"
_STARTUPS = {
    80877103,
    80877104,
    196608,
    196610,
}  # SSLRequest, GSSENCRequest, protocols 3.0 and 3.2: messages without a type
T = TypeVar("T")


class Fate(StrEnum):
    """What becomes of a COMMIT."""

    PASSES = "passes"
    LOST = "lost"
    """It never reaches the server."""
    UNANSWERED = "unanswered"
    """The server does it; the answer never reaches the client."""
    RACED = "raced"
    """It is sent on, and both sides are cut off at once: the server may do it or not."""


def _passes(_: int) -> Fate:
    return Fate.PASSES


@dataclass(eq=False)
class _Pipe:
    """One client's connection and its counterpart to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    cut: bool = False

    def abort(self) -> None:
        """Both sides see a reset."""
        self.cut = True
        for writer in (self.client, self.server):
            writer.transport.abort()


@dataclass
class Proxy:
    """Listens on a port of 127.0.0.1 while it is open (`with`), in a thread of its own. All methods may be called from
    any other thread, all fields be set at any time; they hold for connections that stand as well.
    """

    upstream: str
    """A path of a unix socket, or host:port."""
    latency: float = 0.0
    """Seconds that each piece waits, in both directions."""
    rate: int = 0
    """Bytes a second from the server to a client; 0: as fast as it goes."""
    refuse: bool = False
    """Whether new connections are cut at once."""
    for_good: bool = False
    """Whether `cut_after` cuts all of them off, and none is let in any more."""
    on_commit: Callable[[int], Fate] = _passes
    """Given the number of a COMMIT (from 1, over all connections), what becomes of it."""
    cuts: dict[Fate, int] = field(default_factory=dict)
    """How many COMMITs met each fate."""
    port: int = 0
    _left: int | None = None
    _commits: int = 0
    _pipes: set[_Pipe] = field(default_factory=set)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, original: str) -> str:
        """The connection string of a database or a Valkey behind this proxy, from that of its unix socket."""
        parts = urlsplit(original)
        place = f"127.0.0.1:{self.port}"
        if parts.scheme == "unix":
            password = parts.netloc.rpartition("@")[0]
            return f"redis://{password}@{place}/{parse_qs(parts.query).get('db', ['0'])[0]}"
        user = parts.netloc.rpartition("@")[0]
        return f"postgresql://{user}@{place}{quote(parts.path)}?sslmode=disable&gssencmode=disable"

    def drop(self) -> int:
        """Cut all connections off; how many there were."""

        async def work() -> int:
            pipes = list(self._pipes)
            for pipe in pipes:
                pipe.abort()
            return len(pipes)

        return self._call(work())

    def half_close(self) -> int:
        """End the direction from the server to each client; the other stays open, and nobody listens there."""

        async def work() -> int:
            pipes = list(self._pipes)
            for pipe in pipes:
                pipe.cut = True
                with suppress(OSError, RuntimeError):
                    pipe.client.write_eof()
            return len(pipes)

        return self._call(work())

    def cut_after(self, count: int) -> None:
        """After so many further bytes from the server, the connection that brought the last of them is cut off."""
        self._left = count

    @property
    def awaits_cut(self) -> bool:
        """Whether what `cut_after` said has not come yet."""
        return self._left is not None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._pipes)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _end(self) -> None:
        self._server.close()
        for pipe in list(self._pipes):
            pipe.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        try:
            upstream, server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pipe = _Pipe(writer, server)
        self._pipes.add(pipe)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._ask(pipe, reader))
                both.create_task(self._answer(pipe, upstream))
        except* (OSError, asyncio.CancelledError):
            pipe.abort()
        finally:
            self._pipes.discard(pipe)
            for each in (writer, server):
                each.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.upstream.startswith("/"):
            return await asyncio.open_unix_connection(self.upstream)
        host, _, port = self.upstream.rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def _ask(self, pipe: _Pipe, reader: asyncio.StreamReader) -> None:
        """From the client to the server."""
        messages = _Messages()
        while piece := await reader.read(_PIECE):
            await self._delay(len(piece), rate=0)
            fate = Fate.PASSES
            if messages.end_in_commit(piece):
                self._commits += 1
                fate = self.on_commit(self._commits)
                self.cuts[fate] = self.cuts.get(fate, 0) + 1
            if fate is Fate.LOST:
                pipe.abort()
                return
            pipe.cut = pipe.cut or fate is Fate.UNANSWERED
            pipe.server.write(piece)
            await pipe.server.drain()
            if fate is Fate.RACED:
                pipe.abort()
                return
        with suppress(OSError, RuntimeError):
            pipe.server.write_eof()

    async def _answer(self, pipe: _Pipe, reader: asyncio.StreamReader) -> None:
        """From the server to the client."""
        while piece := await reader.read(_PIECE):
            await self._delay(len(piece), self.rate)
            if pipe.cut:
                pipe.abort()
                return
            if self._left is not None:
                self._left -= len(piece)
                if self._left <= 0:
                    pipe.client.write(piece[: len(piece) + self._left])
                    self._left, self.refuse = None, self.refuse or self.for_good
                    for each in list(self._pipes) if self.for_good else [pipe]:
                        each.abort()
                    return
            pipe.client.write(piece)
            await pipe.client.drain()
        with suppress(OSError, RuntimeError):
            pipe.client.write_eof()

    async def _delay(self, count: int, rate: int) -> None:
        seconds = self.latency + (count / rate if rate else 0)
        if seconds:
            await asyncio.sleep(seconds)


class _Messages:
    """Finds in a client's bytes where a simple query ends in COMMIT. Only whole messages at a piece's end are looked
    at: that is how a client sends a short query and waits.
    """

    def __init__(self) -> None:
        self._rest = b""

    def end_in_commit(self, piece: bytes) -> bool:
        """Whether the last message that the piece completes is one."""
        data, last = self._rest + piece, b""
        while len(data) >= 8:
            typeless = data[0] == 0 and int.from_bytes(data[4:8]) in _STARTUPS
            size = int.from_bytes(data[:4]) if typeless else 1 + int.from_bytes(data[1:5])
            if len(data) < size:
                break
            last, data = data[:size], data[size:]
        # A terminator of seven bytes or fewer (Sync, Terminate) stays for the next piece, which begins with it.
        self._rest = data
        return last[:1] == _QUERY and _COMMIT.search(last[5:]) is not None


def socket_of(url: str) -> str:
    """The unix socket that a connection string of embedded servers names."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    return str(Path(parse_qs(parts.query)["host"][0]) / ".s.PGSQL.5432")
