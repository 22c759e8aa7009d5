"""`briefly-admin up`: everything on one machine, from the servers to the sample data, kept running until Ctrl-C."""

import contextlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import click

from briefly_admin.cli.supervisor import Supervisor, read_procfile
from briefly_admin.domain.errors import BrieflyError, SettingError
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.embedded.home import secret_of_home, write_private
from briefly_admin.settings import Settings, embedded_wanted, environment, home_of, load

CHECKOUT = Path(__file__).resolve().parent.parent.parent
FIRST_ADMIN = "admin@example.com"
_REVIVE_EVERY = 2.0


@click.command()
def up() -> None:
    """Start everything on this machine, and keep it running until Ctrl-C.

    PostgreSQL and Valkey are started where DATABASE_URL, TARGET_DATABASE_URL or REDIS_URL is not set.
    """
    with _stop_signals() as stopping:
        keep_up(environment(), stopping)


def keep_up(environ: Mapping[str, str], stopping: threading.Event, *, procfile: Path = CHECKOUT / "Procfile") -> None:
    """What `up` does, until `stopping` is set.

    SettingError: a bad setting, or PORT is taken. Refused (exit 4): the home is in use.
    """
    home, wanted = home_of(environ), embedded_wanted(environ)
    commands = read_procfile(procfile)
    postgres = not wanted.isdisjoint({"DATABASE_URL", "TARGET_DATABASE_URL"})
    with EmbeddedServers(home, postgres=postgres, valkey="REDIS_URL" in wanted) as servers:
        found = {name: url for name, url in servers.addresses.items() if name in wanted}
        everything = {**environ, **found, "BRIEFLY_HOME": str(home)}
        settings = load(everything)
        _require_free_port(settings)
        sign_in = _prepare_database(settings)
        if "TARGET_DATABASE_URL" in wanted and not stopping.is_set():
            _make_sample_data(home, everything)
        supervisor = Supervisor(commands, everything, servers.book, CHECKOUT)
        announce = _announcement(settings, sign_in)
        revive = _reviver(servers)
        supervisor.run(stopping, lambda: (announce(), revive())[0])
    print("Stopped; nothing is left running.")


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set; a second one changes nothing."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield stopping
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _require_free_port(settings: Settings) -> None:
    host, port = settings.bind.split(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise SettingError(
                "PORT", f"{port} cannot be used ({error.strerror}).", remedy=f"Try PORT={int(port) % 65535 + 1}."
            ) from error


def _prepare_database(settings: Settings) -> str:
    """Apply the revisions and make the first admin; the line that says how to sign in."""
    from briefly_admin.store.migrate import upgrade
    from briefly_admin.wiring import build

    upgrade(settings.database_url)
    email = settings.admin_email or FIRST_ADMIN
    kept = settings.home / "admin_password"
    known = kept.exists()
    password = settings.admin_password or secret_of_home(settings.home, kept.name, secrets.token_urlsafe(18))
    services = build(settings)
    try:
        services.admins.ensure_first(email, password)
    finally:
        services.close()
    if settings.admin_password:
        return f"Sign in as {email} with ADMIN_PASSWORD."
    if known:
        return f"Sign in as {email}; the first password stands in {kept}."
    return f"Sign in as {email} with the password {password} (kept in {kept})."


def _make_sample_data(home: Path, environ: Mapping[str, str]) -> None:
    """On the first start of a home; a target that has other users refuses them, which is no reason to stop."""
    done = home / "sample-data"
    if done.exists():
        return
    print("Making sample data …", flush=True)
    made = "selftest create-data --dirty 5 --no-list"  # the list would bury the address that follows
    command = [sys.executable, "-m", "briefly_admin.cli", *made.split()]
    if subprocess.run(command, cwd=CHECKOUT, env=dict(environ), check=False).returncode == 0:  # noqa: S603 - ours
        write_private(done, "made on the first start\n")
    else:
        print("There is no sample data; `briefly-admin selftest create-data` makes some.", file=sys.stderr)


def _announcement(settings: Settings, sign_in: str) -> Callable[[], None]:
    """Says once, as soon as the web process answers, where it is."""
    waiting = [True]

    def announce() -> None:
        if waiting and _listens(settings.port):
            waiting.clear()
            print(f"\nBriefly Admin runs at {settings.base_url}\n{sign_in}\nCtrl-C stops everything.\n", flush=True)

    return announce


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _reviver(servers: EmbeddedServers) -> Callable[[], None]:
    """Starts a dead server again, every two seconds until it stays."""
    due = [0.0]

    def revive() -> None:
        if time.monotonic() < due[0]:
            return
        try:
            if servers.revive():
                print("An embedded server had ended; it was started again.", file=sys.stderr)
        except BrieflyError as error:
            print(error, file=sys.stderr)
        due[0] = time.monotonic() + _REVIVE_EVERY

    return revive
