"""Processes of ours, by pid: whether they live, what they handle, and ways to hurt them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_SESSION_FIELD, _PARENT_FIELD, _STATE_FIELD = 3, 1, 0  # of /proc/<pid>/stat after the command's name, see proc(5)
T = TypeVar("T")


def until(look: Callable[[], T | None], *, seconds: float = 30, what: str = "what was waited for") -> T:
    """What `look` says as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.01)
    return found


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    fields = _stat(pid)
    return bool(fields) and fields[_STATE_FIELD] not in "ZX"


def parent(pid: int) -> int:
    """The pid of the process that started it."""
    return int(_stat(pid)[_PARENT_FIELD])


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process of ours, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass
class Worker:
    """A process of `briefly-admin worker` (or another command), whose horse is its only child."""

    process: subprocess.Popen[bytes]
    log: Path
    command: str = "worker"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def horse(self) -> int | None:
        """The work horse's pid while it has one."""
        with suppress(OSError):
            for text in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split():
                if alive(int(text)):
                    return int(text)
        return None

    def send(self, number: signal.Signals, *, horse: bool = True) -> None:
        """Signal the worker and its horse."""
        both = [self.horse, self.pid] if horse else [self.pid]
        for pid in both:
            if pid is not None:
                send(pid, number)

    def kill(self) -> None:
        """SIGKILL both; the worker first, so that it does not mourn its horse."""
        horse = self.horse
        send(self.pid, signal.SIGKILL)
        if horse is not None:
            send(horse, signal.SIGKILL)
        self.process.wait(10)


def end_session(session: int) -> None:
    """SIGKILL every process of a session that we started."""
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields and fields[_SESSION_FIELD] == str(session):
            send(int(path.name), signal.SIGKILL)
