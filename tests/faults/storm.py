"""An HTTP proxy on loopback before an object store that does to requests what stores and networks do to them."""

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"}
_SECONDS = 30


class Weather(StrEnum):
    """What becomes of a request."""

    ERROR = "answers 500"
    BUSY = "answers 503"
    HANGS = "hangs"
    LOST = "is cut off before"
    """The store never sees the request."""
    UNANSWERED = "is cut off after"
    """The store does what it is asked to; the answer never arrives."""
    HALF = "is cut off within"
    """Half of the answer arrives."""


@dataclass
class Storm:
    """Listens while it is open (`with`); `begin` lets requests pass and then hurts them, until `end`."""

    upstream: str
    """The store's URL."""
    seen: int = 0
    """Requests so far."""
    hurt: int = 0
    """How many of them were hurt."""
    _weather: Weather | None = None
    _from: int = 0
    _until: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"storm": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="storm", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def begin(self, weather: Weather, *, after: int, times: int) -> None:
        """`after` so many further requests, so many meet the weather."""
        with self._lock:
            self._weather, self._from, self._until = weather, self.seen + after, self.seen + after + times
            self._over.clear()

    def end(self) -> None:
        """Requests pass again; those that hang are cut off."""
        with self._lock:
            self._weather = None
            self._over.set()

    def forecast(self) -> Weather | None:
        """For the request that arrives now."""
        with self._lock:
            self.seen += 1
            meets = self._weather is not None and self._from < self.seen <= self._until
            self.hurt += meets
            return self._weather if meets else None

    def hold(self) -> None:
        """Until the storm is over."""
        self._over.wait(10 * _SECONDS)


class _Handler(BaseHTTPRequestHandler):
    """Each request on a connection of its own to the store."""

    storm: Storm
    protocol_version = "HTTP/1.1"
    timeout = 2 * _SECONDS

    def handle_one_request(self) -> None:
        with suppress(OSError):
            super().handle_one_request()

    def do_any(self) -> None:
        weather = self.storm.forecast()
        if weather in {Weather.LOST, Weather.HANGS}:
            if weather is Weather.HANGS:
                self.storm.hold()
            self._cut()
            return
        body = self._body()
        if weather in {Weather.ERROR, Weather.BUSY}:
            self.send_response(500 if weather is Weather.ERROR else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status, headers, answer = self._ask(body)
        if weather is Weather.UNANSWERED:
            self._cut()
            return
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if weather is Weather.HALF:
            self.wfile.write(answer[: len(answer) // 2])
            self._cut()
            return
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815 - http.server's names

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers["Content-Length"] = str(len(body))
        with _connected(self.storm.upstream) as upstream:
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            data = answer.read()
        kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP_BY_HOP]
        if self.command != "HEAD":
            kept = [(n, v) for n, v in kept if n.lower() != "content-length"]
            kept.append(("Content-Length", str(len(data))))
        return answer.status, kept, data

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@contextmanager
def _connected(url: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_SECONDS)
    try:
        yield connection
    finally:
        connection.close()
