"""`briefly-admin up` and its supervisor: what dies is started again, what is stopped leaves nothing."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from briefly_admin.cli.supervisor import Supervisor, read_procfile
from briefly_admin.cli.up import CHECKOUT
from briefly_admin.domain.errors import Refused
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.embedded.home import read_addresses
from briefly_admin.embedded.processes import ProcessBook, start_of


@pytest.fixture
def home() -> Iterator[Path]:
    """A home whose sample data count as made; what a failed test leaves running in it is stopped."""
    path = Path(tempfile.gettempdir()) / f"briefly-tests-up-{secrets.token_hex(4)}"
    path.mkdir(mode=0o711)
    (path / "sample-data").touch()
    yield path
    ProcessBook(path).stop_all(patience=5)
    shutil.rmtree(path)


def wait_for(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def pid_of(home: Path, name: str) -> int:
    entry = ProcessBook(home).entries().get(name)
    return entry.pid if entry is not None and entry.alive else 0


@pytest.fixture
def supervised(home: Path) -> Iterator[Callable[..., Supervisor]]:
    """Starts a supervisor of the given commands in a thread; stops it at the end."""
    stopping, threads = threading.Event(), []

    def start(**commands: str) -> Supervisor:
        environ = {"PATH": os.environ["PATH"], "BRIEFLY_HOME": str(home)}
        supervisor = Supervisor(commands, environ, ProcessBook(home), home, first_wait=0.05, longest_wait=0.2)
        threads.append(threading.Thread(target=supervisor.run, args=(stopping, lambda: None)))
        threads[-1].start()
        return supervisor

    yield start
    stopping.set()
    for thread in threads:
        thread.join()


def test_killed_child_is_started_again(home: Path, supervised: Callable[..., Supervisor]) -> None:
    supervised(web="sleep 600", worker="sleep 600")
    wait_for(lambda: pid_of(home, "web") and pid_of(home, "worker"))
    first, other = pid_of(home, "web"), pid_of(home, "worker")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pid_of(home, "web") not in (0, first))
    assert pid_of(home, "worker") == other


def test_child_that_ends_at_once_is_started_again_and_again(home: Path, supervised: Callable[..., Supervisor]) -> None:
    supervised(web="sh -c 'echo started >> log; exit 3'")
    wait_for(lambda: (home / "log").exists() and len((home / "log").read_text().split()) >= 3)


def test_what_a_dead_child_left_in_its_session_is_killed(home: Path, supervised: Callable[..., Supervisor]) -> None:
    supervised(
        worker=f'{sys.executable} -c \'import os, time; os.fork() or os.setpgrp(); print(1, file=open("log", "a")); time.sleep(600)\''
    )
    wait_for(lambda: (home / "log").exists() and len((home / "log").read_text()) >= 4)
    leader = pid_of(home, "worker")
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    assert len(children) == 1
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: start_of(int(children[0])) is None)


def test_stopping_leaves_nothing_even_of_who_ignores_it(home: Path) -> None:
    command = "sh -c 'trap \"\" TERM; echo ready > ready; while :; do sleep 0.1; done'"
    supervisor = Supervisor({"web": command}, {"BRIEFLY_HOME": str(home)}, ProcessBook(home), home)
    stopping = threading.Event()
    thread = threading.Thread(target=supervisor.run, args=(stopping, lambda: None))
    thread.start()
    wait_for((home / "ready").exists)
    pid = pid_of(home, "web")
    supervisor.stop(patience=0.2)
    assert start_of(pid) is None
    time.sleep(1.5)  # longer than the first wait: whoever still looked after it would have started it again
    assert pid_of(home, "web") == 0
    stopping.set()
    thread.join()
    assert ProcessBook(home).entries() == {}


def test_procfile_of_the_checkout_names_our_processes() -> None:
    assert set(read_procfile(CHECKOUT / "Procfile")) == {"web", "worker", "clock"}


@pytest.mark.parametrize("line", ["no command", "web:", "web: sleep 1\nweb: sleep 2", ": sleep 1"])
def test_bad_line_of_a_procfile_is_named(tmp_path: Path, line: str) -> None:
    procfile = tmp_path / "Procfile"
    procfile.write_text(f"# processes\n\n{line}\n")
    with pytest.raises(Refused, match=r"Procfile, line \d"):
        read_procfile(procfile)


def test_dead_servers_come_back_on_the_same_addresses(home: Path) -> None:
    with EmbeddedServers(home, durable=False) as servers:
        addresses = servers.addresses
        for name in ("postgres", "valkey"):
            dead = pid_of(home, name)
            os.kill(dead, signal.SIGKILL)
            while start_of(dead) is not None:
                time.sleep(0.01)

        def revived() -> bool:
            # A killed process with several threads may not count as ended at once.
            servers.revive()
            return bool(pid_of(home, "postgres") and pid_of(home, "valkey"))

        wait_for(revived)
        assert servers.addresses == addresses


class Up:
    """`up` as a process of its own, its children two that sleep and one that serves the port."""

    def __init__(self, home: Path, **environ: str) -> None:
        procfile = home / "Procfile"
        procfile.write_text(f"web: {sys.executable} -m http.server --bind 127.0.0.1 $PORT\nworker: sleep 600\n")
        code = (
            "import sys; from pathlib import Path; import click; from briefly_admin.cli import Group;"
            "from briefly_admin.cli.up import keep_up, _stop_signals;"
            "from briefly_admin.settings import environment\n"
            "@click.group(cls=Group)\ndef main(): pass\n"
            "@main.command()\n@click.argument('procfile', type=Path)\n"
            "def go(procfile):\n    with _stop_signals() as stopping: keep_up(environment(), stopping, procfile=procfile)\n"
            "main(['go', sys.argv[1]])"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(procfile)],
            cwd=CHECKOUT,
            env={**os.environ, "BRIEFLY_HOME": str(home), "PORT": port, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_it_runs(self) -> str:
        """Everything it printed up to the line that ends the announcement."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                return "".join(lines)
        raise AssertionError("".join(lines))

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=60)
        return self.process.returncode, output

    def kill(self) -> None:
        """Its children live on, and hold its output open."""
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_up_starts_everything_and_stops_everything(home: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        running = Up(home)
        text = running.wait_until_it_runs()
        assert "runs at http://127.0.0.1:" in text
        kept = (home / "admin_password").read_text().strip()
        assert (kept in text) == (number is signal.SIGINT), "the password is printed once"
        assert len(read_addresses(home)) == 3
        pids = [entry.pid for entry in ProcessBook(home).entries().values()]
        assert len(pids) == 4
        code, output = running.end(number)
        assert (code, "nothing is left running" in output) == (0, True), output
        assert [start_of(pid) for pid in pids] == [None] * 4


def test_second_up_on_a_home_is_refused(home: Path) -> None:
    first = Up(home)
    first.wait_until_it_runs()
    second = Up(home)
    output, _ = second.process.communicate(timeout=60)
    assert second.process.returncode == 4
    assert f"in use by process {first.process.pid}" in output
    assert "Traceback" not in output
    assert pid_of(home, "worker")
    first.end(signal.SIGTERM)


def test_up_after_a_killed_up_stops_what_it_left(home: Path) -> None:
    first = Up(home)
    first.wait_until_it_runs()
    orphans = [entry.pid for entry in ProcessBook(home).entries().values()]
    first.kill()
    assert all(start_of(pid) for pid in orphans)
    second = Up(home)
    second.wait_until_it_runs()
    assert [start_of(pid) for pid in orphans] == [None] * 4
    second.end(signal.SIGTERM)


def test_bad_setting_or_taken_port_ends_up_with_one_line(home: Path, embedded: EmbeddedServers) -> None:
    given = {
        "DATABASE_URL": embedded.app_url,
        "TARGET_DATABASE_URL": embedded.target_url,
        "REDIS_URL": embedded.redis_url,
    }
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for environ, name in (
            ({"MIGRATION_BATCH_SIZE": "0"}, "MIGRATION_BATCH_SIZE"),
            ({"PORT": str(taken.getsockname()[1])}, "PORT"),
            ({"TARGET_DATABASE_URL": "", "NEXT_PUBLIC_SUPABASE_URL": "https://x"}, "TARGET_DATABASE_URL"),
        ):
            ended = Up(home, **given, **environ) if "TARGET_DATABASE_URL" not in environ else Up(home, **environ)
            output, _ = ended.process.communicate(timeout=60)
            assert ended.process.returncode == 2, output
            assert f" {name}: " in output
            assert len(output.splitlines()) == 1, output
