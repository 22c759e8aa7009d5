"""A server on loopback that hands HTTP requests on, and misbehaves where it is told to."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FORBIDDEN = b"<Error><Code>InvalidAccessKeyId</Code><Message>unknown</Message></Error>"


class Misbehaving:
    """`judge(method, path)` says what happens to a request.

    '': handed on; '503', '403', '301': answered; 'hang': nothing is answered; 'close': the connection ends without an
    answer; 'cut': in the middle of the answer; 'drop': handed on, and the answer dropped; 'deaf': handed on without
    its conditions.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.judge: Callable[[str, str], str] = lambda _method, _path: ""
        self.stopping = threading.Event()
        self.url = ""

    def always(self, what: str) -> None:
        """The same for every request from now on."""
        self.judge = lambda _method, _path: what


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *arguments: object) -> None:
        pass

    def handle_any(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        verdict = state.judge(self.command, self.path)
        if verdict == "hang":
            state.stopping.wait(30)
        if verdict in {"hang", "close"}:
            self.close_connection = True
        elif verdict.isdigit():
            self.answer(int(verdict), {}, FORBIDDEN if verdict == "403" else b"")
        else:
            self.hand_on(state.upstream, body, verdict)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815 - the names that the library looks for

    def hand_on(self, upstream: str, body: bytes, verdict: str) -> None:
        headers = {
            name: value for name, value in self.headers.items() if verdict != "deaf" or name.lower() != "if-none-match"
        }
        connection = http.client.HTTPConnection(upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if verdict == "drop":
            self.close_connection = True
            return
        self.answer(response.status, dict(response.getheaders()), content, cut=verdict == "cut")

    def answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        head = self.command == "HEAD"
        length = headers.get("Content-Length", "0") if head else str(len(content))
        for name, value in {**headers, "Content-Length": length}.items():
            if name.lower() not in {"transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.end_headers()
        if not head:
            self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: Misbehaving) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client hung up


@contextmanager
def misbehave(upstream: str) -> Iterator[Misbehaving]:
    """The server, which hands everything on as long as nobody tells it otherwise."""
    state = Misbehaving(upstream)
    server = _Server(state)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()
