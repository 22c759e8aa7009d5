"""Processes that a home has started, known by pid and start time, so that a later start can stop what was left."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from briefly_admin.embedded.home import read_private, write_private

_PROC = Path("/proc")
_STATE, _SESSION, _START = 0, 3, 19  # fields of /proc/<pid>/stat after the command's name, see proc(5)


def _stat_fields(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def start_of(pid: int) -> str | None:
    """What tells this process from a later one of the same pid; None if it is gone (or a zombie)."""
    if not _PROC.joinpath("self", "stat").exists():
        ps = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True, check=False).stdout.strip() or None  # noqa: S603 - fixed
    fields = _stat_fields(pid)
    if fields is None or fields[_STATE] in "ZX":
        return None
    boot = read_private(_PROC / "sys/kernel/random/boot_id") or ""
    return f"{fields[_START]}@{boot.strip()}"


@dataclass(frozen=True)
class Started:
    """One process: its pid, what `start_of` said of it, and the signal that asks it to end."""

    pid: int
    start: str
    stop_signal: int

    @property
    def alive(self) -> bool:
        """Whether this very process, not a later one of its pid, still runs."""
        return start_of(self.pid) == self.start


class ProcessBook:
    """The home's list of started processes, on disk before anybody relies on them."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "processes.json"

    def entries(self) -> dict[str, Started]:
        """All recorded processes by name; an unreadable book counts as empty."""
        try:
            kept = json.loads(read_private(self._path) or "{}")
            return {name: Started(**entry) for name, entry in kept.items()}
        except (ValueError, TypeError, AttributeError):
            return {}

    def add(self, name: str, pid: int, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        """Record a process that was just started."""
        start = start_of(pid)
        if start is not None:
            self._keep(self.entries() | {name: Started(pid, start, int(stop_signal))})

    def stop(self, name: str, patience: float) -> None:
        """Ask the process to end, wait `patience` seconds, kill it and its session; then forget it."""
        entries = self.entries()
        entry = entries.pop(name, None)
        if entry is not None:
            self._end(entry, patience)
            self._keep(entries)

    def stop_all(self, patience: float, names: Iterable[str] | None = None) -> None:
        """End the named processes, or all: all are asked at once, then waited for, the newest first."""
        entries = self.entries()
        wanted = [name for name in reversed(entries) if names is None or name in names]
        for name in wanted:
            if entries[name].alive:
                _signal(entries[name].pid, entries[name].stop_signal)
        for name in wanted:
            self._end(entries.pop(name), patience, ask=False)
        self._keep(entries)

    def _keep(self, entries: dict[str, Started]) -> None:
        write_private(self._path, json.dumps({name: asdict(entry) for name, entry in entries.items()}) + "\n")

    def _end(self, entry: Started, patience: float, *, ask: bool = True) -> None:
        if ask and entry.alive:
            _signal(entry.pid, entry.stop_signal)
        if not _gone(entry, patience):
            _signal(entry.pid, signal.SIGKILL)
            _gone(entry, 10)
        for pid in self._left_in_session(entry.pid):
            _signal(pid, signal.SIGKILL)

    def _left_in_session(self, session: int) -> Iterator[int]:
        """Processes that a dead session leader left (an RQ horse has a group of its own, but not a session)."""
        mark = f"BRIEFLY_HOME={self._home}".encode()
        for path in _PROC.glob("[0-9]*"):
            pid = int(path.name)
            fields = _stat_fields(pid)
            if fields is None or fields[_SESSION] != str(session) or fields[_STATE] in "ZX":
                continue
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    yield pid


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _gone(entry: Started, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while entry.alive:
        # Our own children stay zombies, which `alive` knows, until their Popen is asked.
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
