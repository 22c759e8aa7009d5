"""Both servers of a home, from the lock to the last clean-up."""

import json
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from briefly_admin.domain.errors import SettingError
from briefly_admin.embedded.home import ADDRESSES, HomeLock, prepare_home, read_private, write_private
from briefly_admin.embedded.place import ELSEWHERE, Place, socket_directory
from briefly_admin.embedded.postgres import APP_DATABASE, APP_ROLE, SUPERUSER, TARGET_DATABASE, TARGET_ROLE, Postgres
from briefly_admin.embedded.processes import ProcessBook
from briefly_admin.embedded.valkey import Valkey


class EmbeddedServers:
    """PostgreSQL and Valkey of a home, private to their owner; data stay in the home over restarts.

    `postgres`, `valkey`: which to run. `durable=False`: no fsync, nothing kept by Valkey (tests).
    `options`: PostgreSQL's settings over ours. `with EmbeddedServers(home) as servers: …` starts and stops them.
    """

    def __init__(
        self,
        home: Path,
        *,
        postgres: bool = True,
        valkey: bool = True,
        durable: bool = True,
        options: Mapping[str, str] | None = None,
        elsewhere: Path = ELSEWHERE,
        socket_parents: Sequence[Path] | None = None,
    ) -> None:
        self.home = home.absolute()
        self.book = ProcessBook(self.home)
        self._wanted = (postgres, valkey)
        self._durable, self._elsewhere, self._socket_parents = durable, elsewhere, socket_parents
        self._options = options
        self._sockets = Path()
        self._lock = HomeLock(self.home)
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None

    @property
    def app_url(self) -> str:
        """`postgresql://` of the app database, as its owner."""
        return self._running_postgres.url(APP_ROLE, APP_DATABASE)

    @property
    def target_url(self) -> str:
        """`postgresql://` of the target database, as its owner."""
        return self._running_postgres.url(TARGET_ROLE, TARGET_DATABASE)

    @property
    def redis_url(self) -> str:
        """`unix://` of Valkey's database 0."""
        assert self._valkey is not None, "Valkey was not started"
        return self._valkey.url

    def superuser_url(self, dbname: str = "postgres") -> str:
        """`postgresql://` of any database of the cluster, as its superuser."""
        return self._running_postgres.url(SUPERUSER, dbname)

    @property
    def addresses(self) -> dict[str, str]:
        """The environment variables that name the servers that run here."""
        found: dict[str, str] = {}
        if self._postgres is not None:
            found |= {"DATABASE_URL": self.app_url, "TARGET_DATABASE_URL": self.target_url}
        if self._valkey is not None:
            found["REDIS_URL"] = self.redis_url
        return found

    def start(self) -> Self:
        """Take the home, end what a killed start left, start the servers, write down their addresses.

        Refused (exit 4): the home is in use, or the wheels are not installed. Unavailable: a server does not start.
        SettingError: the home, or the directory for temporary files, cannot be used.
        """
        prepare_home(self.home)
        self._lock.take()
        try:
            self.book.stop_all(patience=15)
            self._remove_sockets()
            if any(self._wanted):
                self._launch()
            write_private(self.home / ADDRESSES, json.dumps(self.addresses) + "\n")
        except OSError as error:
            self.stop()
            raise SettingError("BRIEFLY_HOME", f"{self.home} cannot be used: {error.strerror}.") from error
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the servers and give the home free. Doing it twice does no harm."""
        for server in (self._valkey, self._postgres):
            if server is not None:
                server.stop()
        self._valkey = self._postgres = None
        if self._lock.held:
            (self.home / ADDRESSES).unlink(missing_ok=True)
            self._remove_sockets()
        self._lock.release()

    def revive(self) -> bool:
        """Start servers that have died again, on the same addresses; whether there was one.

        Unavailable: one does not start (the backends of a killed PostgreSQL may need a moment to notice): try again.
        """
        dead = [server for server in (self._postgres, self._valkey) if server is not None and server.died]
        for server in dead:
            server.launch(self._sockets)
            server.wait_until_ready()
        return bool(dead)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _running_postgres(self) -> Postgres:
        assert self._postgres is not None, "PostgreSQL was not started"
        return self._postgres

    def _launch(self) -> None:
        place = Place.choose(self.home, elsewhere=self._elsewhere)
        sockets = self._sockets = socket_directory(place.account, self._socket_parents)
        write_private(self.home / "sockets", f"{sockets}\n")
        if self._wanted[0]:
            self._postgres = Postgres(self.home, place, durable=self._durable, options=self._options)
            self._postgres.launch(sockets)
        if self._wanted[1]:
            self._valkey = Valkey(self.home, place, durable=self._durable)
            self._valkey.launch(sockets)
            self._valkey.wait_until_ready()
        if self._postgres is not None:
            self._postgres.wait_until_ready()

    def _remove_sockets(self) -> None:
        """Remove the recorded socket directory, if it is what we made: a private directory of our name."""
        path = Path((read_private(self.home / "sockets") or "").strip())
        if path.name.startswith("briefly-") and path.is_dir() and stat.S_IMODE(path.lstat().st_mode) == stat.S_IRWXU:
            shutil.rmtree(path, ignore_errors=True)
        (self.home / "sockets").unlink(missing_ok=True)
