"""One PostgreSQL cluster: made once, started on a unix socket, its roles and databases ensured at each start."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Unavailable
from briefly_admin.embedded.home import open_log, read_private, write_private
from briefly_admin.embedded.place import Place
from briefly_admin.embedded.processes import ProcessBook, start_of

APP_DATABASE, TARGET_DATABASE = "briefly_admin", "briefly"
APP_ROLE, TARGET_ROLE, SUPERUSER = "briefly_app", "briefly_target", "postgres"
_NAME = "postgres"
_TRIES = 10
"""Further starts, a second apart, while what a kill left is still in the way."""

# The log carries no ERROR (`log` leaves LOG, FATAL and PANIC), statement or DETAIL: all may hold the rows of tenants.
_CONFIGURATION = """\
listen_addresses = ''
port = 5432
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 64MB
max_wal_size = 1GB
checkpoint_timeout = 10min
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_parameter_max_length_on_error = 0
password_encryption = 'scram-sha-256'
"""
_FAST_AND_LOOSE = """\
fsync = off
full_page_writes = off
synchronous_commit = off
io_method = sync
autovacuum_naptime = 1h
"""


class Postgres:
    """The cluster below `place.data`; `durable=False` gives up crash safety for speed (tests).

    `options`: settings of postgresql.conf over ours.
    """

    def __init__(
        self, home: Path, place: Place, *, durable: bool = True, options: Mapping[str, str] | None = None
    ) -> None:
        self._home, self._place, self._durable = home, place, durable
        self._options = "".join(f"{name} = {value}\n" for name, value in (options or {}).items())
        self._data = place.data / "pgdata"
        self._book = ProcessBook(home)
        self._sockets = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, role: str, database: str) -> str:
        """A connection string of this cluster, for libpq and SQLAlchemy alike."""
        host = quote(str(self._sockets), safe="/")
        return f"postgresql://{role}:{self._passwords()[role]}@/{quote(database, safe='')}?host={host}&port=5432"

    def launch(self, sockets: Path) -> None:
        """Start the server with its socket in `sockets`; make the cluster first if there is none."""
        self._sockets = sockets
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()
        self._clear_stale_pid()
        text = _CONFIGURATION.format(sockets=str(sockets).replace("'", "''"))
        self._write("postgresql.auto.conf", "")
        text += self._options
        self._write("postgresql.conf", text if self._durable else text + _FAST_AND_LOOSE)
        self._write("pg_hba.conf", "local all all scram-sha-256\n")
        with open_log(self._home / "postgres.log") as log:
            command = [str(self._place.binaries.postgres / "postgres"), "-D", str(self._data)]
            self._process = self._place.account.spawn(command, log)
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client.
        self._book.add(_NAME, self._process.pid, signal.SIGINT)

    def wait_until_ready(self, patience: float = 300) -> None:
        """Wait for the first answer (recovery after a crash takes its time), then ensure roles and databases.

        A killed server that nobody has reaped yet, or a backend of it that has not noticed, keeps the new one from
        starting for some seconds: it is started again a few times.
        """
        deadline, tries = time.monotonic() + patience, _TRIES
        while True:
            try:
                with psycopg.connect(self.url(SUPERUSER, "postgres"), autocommit=True) as connection:
                    self._provision(connection)
            except psycopg.OperationalError as error:
                if self.died and tries:
                    tries -= 1
                    time.sleep(1)
                    self.launch(self._sockets)
                elif self.died or time.monotonic() > deadline:
                    raise Unavailable(
                        "The embedded PostgreSQL does not start.", remedy=f"See {self._home / 'postgres.log'}."
                    ) from error
                else:
                    time.sleep(0.05)
            else:
                return

    @property
    def died(self) -> bool:
        """Whether it was started and has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, everything committed is on disk."""
        self._book.stop(_NAME, patience=30)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _passwords(self) -> dict[str, str]:
        path = self._home / "postgres.json"
        text = read_private(path)
        if text is None:
            text = json.dumps({role: secrets.token_hex(24) for role in (SUPERUSER, APP_ROLE, TARGET_ROLE)})
            write_private(path, text + "\n")
        kept: dict[str, str] = json.loads(text)
        return kept

    def _write(self, name: str, text: str) -> None:
        write_private(self._data / name, text)
        self._place.account.give(self._data / name)

    def _make_cluster(self) -> None:
        """Initdb into a directory of another name: a cluster that bears the right name is whole."""
        unfinished, password = self._place.data / "pgdata.unfinished", self._place.data / "password"
        shutil.rmtree(unfinished, ignore_errors=True)
        write_private(password, self._passwords()[SUPERUSER])
        self._place.account.give(password)
        command = [str(self._place.binaries.postgres / "initdb"), "-D", str(unfinished), "-U", SUPERUSER]
        command += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums", "--no-instructions"]
        log = self._home / "postgres.log"
        try:
            with open_log(log) as output:
                process = self._place.account.spawn(command if self._durable else [*command, "--no-sync"], output)
                if process.wait() != 0:
                    raise Unavailable("The embedded PostgreSQL cannot be made.", remedy=f"See {log}.")
        finally:
            password.unlink()
        unfinished.rename(self._data)

    def _clear_stale_pid(self) -> None:
        """End a postmaster that nobody recorded; forget a pid that another program has by now (a container's restart).

        The home's lock is held and what it had recorded was stopped, so no other start of ours is under way.
        """
        path = self._data / "postmaster.pid"
        pid = int((read_private(path) or "0").split("\n", 1)[0])
        if pid == 0 or start_of(pid) is None:
            return
        program = Path(f"/proc/{pid}/exe")
        if program.is_symlink() and os.path.basename(os.readlink(program)).split(" ")[0] != "postgres":  # noqa: PTH119, PTH115 - may end in " (deleted)"
            path.unlink()
            return
        self._book.add(_NAME, pid, signal.SIGINT)
        self._book.stop(_NAME, patience=30)

    def _provision(self, connection: psycopg.Connection) -> None:
        for role, database in ((APP_ROLE, APP_DATABASE), (TARGET_ROLE, TARGET_DATABASE)):
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
            verb = sql.SQL("ALTER ROLE" if known else "CREATE ROLE")
            connection.execute(
                sql.SQL("{} {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD {}").format(
                    verb, sql.Identifier(role), sql.Literal(self._passwords()[role])
                )
            )
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone() is None:
                names = sql.Identifier(database), sql.Identifier(role)
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
                connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(names[0]))
        for database in ("template1", TARGET_DATABASE):
            with psycopg.connect(self.url(SUPERUSER, database), autocommit=True) as other:
                other.execute("SET client_min_messages = error")
                other.execute("CREATE EXTENSION IF NOT EXISTS vector")
