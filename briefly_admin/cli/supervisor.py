"""Keeps processes running: a dead one is started again, later and later; stopping leaves none behind."""

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from briefly_admin.domain.errors import Refused
from briefly_admin.embedded.processes import ProcessBook

_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")
_STEADY = 30.0  # seconds; who lived this long starts again at once
_LOOK_EVERY = 0.1


def read_procfile(path: Path) -> dict[str, str]:
    """The commands of a Procfile's long-running processes by name (`release` is run once, by the platform)."""
    commands: dict[str, str] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None or found[1] in commands:
            raise Refused(f"{path.name}, line {number}, is not a new 'name: command'.", remedy="Correct the line.")
        commands[found[1]] = found[2]
    commands.pop("release", None)
    return commands


@dataclass
class _Child:
    command: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0


class Supervisor:
    """Runs commands of a shell in `directory`, each in a session of its own, each recorded in `book`."""

    def __init__(
        self,
        commands: Mapping[str, str],
        environ: Mapping[str, str],
        book: ProcessBook,
        directory: Path,
        *,
        first_wait: float = 0.5,
        longest_wait: float = 15.0,
    ) -> None:
        self._children = {name: _Child(command) for name, command in commands.items()}
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
        self._book, self._directory = book, directory
        self._first_wait, self._longest_wait = first_wait, longest_wait
        self._looking = threading.Lock()
        self._stopped = False

    def run(self, stopping: threading.Event, each_look: Callable[[], None]) -> None:
        """Keep all running until `stopping` is set, then stop them; `each_look` is called between looks."""
        try:
            while not stopping.is_set():
                with self._looking:
                    for name, child in self._children.items():
                        self._look_after(name, child)
                each_look()
                stopping.wait(_LOOK_EVERY)
        finally:
            self.stop()

    def stop(self, patience: float = 12.0) -> None:
        """Ask all to end at once; kill what has not after `patience` seconds. Nothing is started any more."""
        with self._looking:
            self._stopped = True
        self._book.stop_all(patience, self._children)
        for child in self._children.values():
            if child.process is not None:
                child.process.wait()

    def _look_after(self, name: str, child: _Child) -> None:
        now = time.monotonic()
        if self._stopped:
            return
        if child.process is None:
            if now >= child.due:
                self._start(name, child)
        elif (code := child.process.poll()) is not None:
            self._book.stop(name, patience=0)  # what it left in its session
            child.process = None
            child.deaths = 0 if now - child.started > _STEADY else child.deaths + 1
            wait = min(self._longest_wait, self._first_wait * 2 ** min(child.deaths, 16)) if child.deaths else 0.0
            child.due = now + wait * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret
            print(f"{name} ended ({_said(code)}); starting it again in {child.due - now:.1f} s.", file=sys.stderr)

    def _start(self, name: str, child: _Child) -> None:
        # `exec`: the shell expands the line, then is the program, so that signals reach it.
        child.process = subprocess.Popen(  # noqa: S603 - the Procfile is ours
            ["/bin/sh", "-c", f"exec {child.command}"],
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        child.started = time.monotonic()
        self._book.add(name, child.process.pid)


def _said(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
