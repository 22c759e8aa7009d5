"""A real standby of the tests' PostgreSQL, whose replay can be halted, so that it lags as long as a test wants."""

import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from briefly_admin.embedded import EmbeddedServers
from briefly_admin.embedded.place import Place

NAME = "standby1"
_PORT = 5433
_HBA = "local replication postgres scram-sha-256\n"


class Standby:
    """The standby's superuser session, and the primary's."""

    def __init__(self, primary: psycopg.Connection, standby: psycopg.Connection) -> None:
        self._primary = primary
        self._standby = standby

    def halt(self) -> None:
        """It replays nothing any more; what it would have to replay is written, and its lag grows."""
        self._standby.execute("SELECT pg_wal_replay_pause()")
        _until(lambda: self._ask(self._standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'"))
        self._primary.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 10000), true)")

    def go_on(self) -> None:
        """It replays what has come meanwhile."""
        self._standby.execute("SELECT pg_wal_replay_resume()")

    def wait_for_lag(self, seconds: float) -> None:
        """Until the primary knows of a lag that is longer."""
        behind = f"SELECT coalesce(max(extract(epoch FROM replay_lag)), 0) > {seconds} FROM pg_stat_replication"
        _until(lambda: self._ask(self._primary, behind))

    def wait_until_it_caught_up(self) -> None:
        """Until it has replayed all that there is."""
        query = "SELECT count(*) = 1 FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()"
        _until(lambda: self._ask(self._primary, query))

    @staticmethod
    def _ask(connection: psycopg.Connection, query: str) -> bool:
        row = connection.execute(query.encode()).fetchone()
        return bool(row and row[0])


def _until(true: Callable[[], bool], patience: float = 60.0) -> None:
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


@contextmanager
def standby(servers: EmbeddedServers) -> Iterator[Standby]:
    """A streaming standby beside the servers' own cluster, run by the same account; gone at the end."""
    place = Place.choose(servers.home)
    url = urlsplit(servers.superuser_url())
    folder = place.data / f"standby-{secrets.token_hex(4)}"
    with psycopg.connect(url.geturl(), autocommit=True) as primary:
        (sockets,) = primary.execute("SHOW unix_socket_directories").fetchone() or ("",)
        (hba,) = primary.execute("SHOW hba_file").fetchone() or ("",)
        before = Path(hba).read_text(encoding="utf-8")
        Path(hba).write_text(before + _HBA, encoding="utf-8")
        primary.execute("SELECT pg_reload_conf()")
        process = None
        try:
            _copy(place, folder, f"host={sockets} user=postgres password={url.password} application_name={NAME}")
            process = _start(place, folder)
            with _connected(f"{url.scheme}://{url.netloc}/postgres?host={sockets}&port={_PORT}") as replica:
                replicating = Standby(primary, replica)
                replicating.wait_until_it_caught_up()
                yield replicating
        finally:
            if process is not None:
                process.send_signal(signal.SIGQUIT)
                process.wait(timeout=30)
            Path(hba).write_text(before, encoding="utf-8")
            primary.execute("SELECT pg_reload_conf()")
            shutil.rmtree(folder, ignore_errors=True)


def _copy(place: Place, folder: Path, conninfo: str) -> None:
    command = [str(place.binaries.postgres / "pg_basebackup"), "-D", str(folder), "-d", conninfo, "-R"]
    backup = place.account.spawn([*command, "--checkpoint=fast", "--no-sync", "--wal-method=stream"], subprocess.PIPE)
    output, _ = backup.communicate(timeout=120)
    assert backup.returncode == 0, output.decode()


def _start(place: Place, folder: Path) -> subprocess.Popen[bytes]:
    settings = {"port": _PORT, "wal_receiver_status_interval": 1, "shared_buffers": "16MB"}
    options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
    return place.account.spawn(
        [str(place.binaries.postgres / "postgres"), "-D", str(folder), *options], subprocess.DEVNULL
    )


def _connected(url: str) -> psycopg.Connection:
    end = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            assert time.monotonic() < end, "the standby does not start"
            time.sleep(0.1)
