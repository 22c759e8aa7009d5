"""Every command of the README (but `make test`, which runs this) and every curl, run as printed on a home of its own."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from briefly_admin.embedded.processes import ProcessBook, start_of
from tests.docs.readme import GUIDE, README, ROOT, Command, code, commands, section, table

_ADDRESS = "127.0.0.1:8000"
_OURS = {name for row in table(section(README, "Settings"), "variable") for name in code(row[0])}
_MAKES = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "PYTEST_ARGS"}
"""What `make test` hands down is nothing that a person's shell has."""


@dataclass
class Machine:
    """`make run` as a person starts it, and a shell that keeps its variables from one command to the next."""

    home: Path
    port: str
    process: subprocess.Popen[str]
    variables: dict[str, str]
    output: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if line.startswith("Ctrl-C"):
                self.ready.set()
        self.ready.set()

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        kept = self.home / "variables"
        kept.touch()
        text = command.replace(_ADDRESS, f"127.0.0.1:{self.port}")
        script = f'set -a; . {kept}; {text}\ncode=$?\nfor name in TOKEN RUN BACKUP KEY VERSION ROWS; do printf "%s=%q\\n" "$name" "${{!name}}"; done > {kept}\nexit $code'
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", script], cwd=ROOT, env=self.variables, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    def json(self, command: str) -> Any:
        return json.loads(self.shell(command).stdout)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def make_run() -> Iterator[Machine]:
    """The README's first command, stopped as Ctrl-C stops it. What a failure leaves behind is killed."""
    home, port = Path(tempfile.gettempdir()) / f"briefly-tests-readme-{secrets.token_hex(4)}", _free_port()
    home.mkdir(mode=0o711)
    environ = {name: value for name, value in os.environ.items() if name not in _OURS | _MAKES}
    environ |= {"BRIEFLY_HOME": str(home), "PORT": port}
    process = subprocess.Popen(
        ["make", "run"], cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    running = Machine(home, port, process, environ)
    reader = threading.Thread(target=running.read)
    reader.start()
    try:
        assert running.ready.wait(120)
        assert process.poll() is None, "".join(running.output)
        yield running
        _press_ctrl_c(running)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ProcessBook(home).stop_all(patience=5)
        reader.join(20)
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(home, ignore_errors=True)


def _press_ctrl_c(running: Machine) -> None:
    """A terminal gives Ctrl-C to make and to what it started."""
    pids = [entry.pid for entry in ProcessBook(running.home).entries().values()]
    assert len(pids) == 5, "PostgreSQL, Valkey, web, worker, clock"
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.wait(60)
    assert [start_of(pid) for pid in pids] == [None] * len(pids), "something is left running"


def test_every_command_and_curl_works_as_printed() -> None:
    """One test, so that the program is started once however tests are dealt out to processes."""
    printed = commands()
    assert [command.text for command in printed[:2]] == ["make run", "make test"]
    assert sum(command.curls for command in printed) >= 10
    with make_run() as machine:
        _check_announcement(machine)
        for command in printed[2:]:
            done = machine.shell(command.text)
            assert done.returncode == command.code, f"{command.text}\n{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr, command.text
            if command.curls:
                _check_answer(command, done.stdout)
        _check_ending(machine)
        _check_guide(machine)
        answer = machine.json('curl -s http://127.0.0.1:8000/api/migration -H "Authorization: Bearer wrong"')
        assert (answer["success"], answer["error"]) == (False, "not_authenticated")
    assert "nothing is left running" in "".join(machine.output)


def _check_announcement(machine: Machine) -> None:
    text = "".join(machine.output)
    assert f"Briefly Admin runs at http://127.0.0.1:{machine.port}" in text
    assert (machine.home / "admin_password").read_text().strip() in text
    assert "document_chunks" in text, "there is sample data"


def _check_answer(command: Command, text: str) -> None:
    answer = json.loads(text)
    if "/api/openapi.json" in command.text:
        assert answer["openapi"].startswith("3.1")
    elif "/healthz" in command.text or "/readyz" in command.text:
        assert answer["status"] in {"ok", "ready"}
    else:
        assert answer["success"] is True, f"{command.text}\n{text}"


def _check_ending(machine: Machine) -> None:
    """The rollback that the last curls began comes to its end, and all migrations since the first are rolled back."""
    for start in ("RUN=", "until "):
        assert machine.shell(next(c.text for c in commands() if c.text.startswith(start))).returncode == 0
    curl = 'curl -s http://127.0.0.1:8000/api/migration -H "Authorization: Bearer $TOKEN"'
    runs = machine.json(curl)["data"]["migrations"]
    assert runs[0]["kind"] == "rollback"
    assert runs[0]["status"] == "completed", runs[0]["error"]
    assert [run["status"] for run in runs if run["kind"] == "migration"].count("rolled_back") == 3


def _check_guide(machine: Machine) -> None:
    """It names every check of the checklist."""
    found = machine.json(".venv/bin/briefly-admin check --json")
    listed = {row[0] for row in table(section(GUIDE, "The checklist"), "check")}
    assert {check["title"] for check in found["checks"]} <= listed


def test_the_shell_blocks_are_all_read() -> None:
    assert "`make test`" in section(README, "Development")
    assert code("`a` and `b c`") == ["a", "b c"]
    multiline = (
        "```sh\nX=$(curl -s \\\n  'a\nb')\nuntil true \\\n  | false; do sleep 1; done\nls # exits with 3: why\n```\n"
    )
    assert [(command.text.split()[0], command.code) for command in commands(multiline)] == [
        ("X=$(curl", 0), ("until", 0), ("ls", 3),
    ]  # fmt: skip
