"""One Valkey server on a unix socket, with a password, its data kept in an append-only file."""

import secrets
import socket
import subprocess
import time
from pathlib import Path

from briefly_admin.domain.errors import Unavailable
from briefly_admin.embedded.home import open_log, secret_of_home, write_private
from briefly_admin.embedded.place import Place
from briefly_admin.embedded.processes import ProcessBook

_NAME = "valkey"
_CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 700
requirepass "{password}"
dir {directory}
daemonize no
save ""
appendonly {durable}
appendfsync everysec
maxmemory-policy noeviction
loglevel warning
"""


class Valkey:
    """The server whose data are below `place.data`; `durable=False` keeps nothing on disk (tests)."""

    def __init__(self, home: Path, place: Place, *, durable: bool = True) -> None:
        self._home, self._place, self._durable = home, place, durable
        self._book = ProcessBook(home)
        self._socket = Path()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """A `unix://` URL of database 0, as redis-py reads it."""
        return f"unix://:{self._password()}@{self._socket}?db=0"

    def launch(self, sockets: Path) -> None:
        """Start the server with its socket in `sockets`."""
        self._socket = sockets / "valkey.sock"
        directory, configuration = self._place.data / "valkey", self._place.data / "valkey.conf"
        directory.mkdir(mode=0o700, exist_ok=True)
        self._place.account.give(directory)
        durable = "yes" if self._durable else "no"
        write_private(
            configuration,
            _CONFIGURATION.format(
                socket=_quoted(self._socket), password=self._password(), directory=_quoted(directory), durable=durable
            ),
        )
        self._place.account.give(configuration)
        with open_log(self._home / "valkey.log") as log:
            self._process = self._place.account.spawn([str(self._place.binaries.valkey), str(configuration)], log)
        self._book.add(_NAME, self._process.pid)

    def wait_until_ready(self, patience: float = 120) -> None:
        """Wait until it answers a command (it loads its file first)."""
        deadline = time.monotonic() + patience
        while not self._answers():
            if self.died or time.monotonic() > deadline:
                raise Unavailable("The embedded Valkey does not start.", remedy=f"See {self._home / 'valkey.log'}.")
            time.sleep(0.02)

    @property
    def died(self) -> bool:
        """Whether it was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """Ask it to write its file and end."""
        self._book.stop(_NAME, patience=15)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _password(self) -> str:
        return secret_of_home(self._home, "valkey_password", secrets.token_hex(24))

    def _answers(self) -> bool:
        # The protocol by hand: redis clients belong to the mouths.
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self._socket))
                client.sendall(f"AUTH {self._password()}\r\nPING\r\n".encode())
                with client.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
            except OSError:
                return False


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
