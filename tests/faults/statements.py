"""Blows at chosen statements of a rollback, struck from within the process that restores.

The statements on the target's session are counted over all processes of a field, from the first one on with which a
rollback's own preview leaves something to its restore; a COMMIT, and the end of a savepoint, are statements, too, and so is
the instant between the two phases. After a blow the phase begins anew, and so does the count: the gap to the next blow is
a statement's number in the next attempt.
"""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from briefly_admin.domain.runs import Phase, RunKind

STAGES = ("before", "during", "after")
VICTIMS = ("worker", "horse", "session", "backend", "restart")


@dataclass(frozen=True)
class StatementBlow:
    """Who dies at which statement (counted from 1 since the last blow), and when: see STAGES."""

    number: int
    victim: str
    stage: str


def settings(logs: Path) -> dict[str, str]:
    """The environment of processes that look for blows."""
    return {"FAULTS_STATEMENTS": str(logs / "statements")}


def arrange(logs: Path, blows: Sequence[StatementBlow]) -> None:
    """From now on, and counted anew, these."""
    plan, count = _files(logs / "statements")
    count.write_bytes(b"")
    part = plan.with_suffix(".part")
    part.write_text("".join(f"{each.number} {each.victim} {each.stage}\n" for each in blows), encoding="utf-8")
    part.rename(plan)


def struck(logs: Path) -> list[int]:
    """The numbers of the statements at which blows have fallen, in order."""
    _, count = _files(logs / "statements")
    return [len(part) for part in count.read_bytes().split(b"!")[:-1]] if count.exists() else []


def counted(logs: Path) -> int:
    """Statements since the last blow."""
    _, count = _files(logs / "statements")
    return len(count.read_bytes().rpartition(b"!")[2])


def _files(stem: Path) -> tuple[Path, Path]:
    return stem.with_suffix(".plan"), stem.with_suffix(".count")


class _Counter:
    """Counts in one process; a dot a statement, and ! where a blow falls."""

    def __init__(self, stem: Path) -> None:
        self._plan, self._count = _files(stem)
        self.active: int | None = None
        """The thread that restores."""

    def next(self) -> StatementBlow | None:
        """The blow at this very statement."""
        try:
            lines = self._plan.read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        descriptor = os.open(self._count, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            done = os.pread(descriptor, 1 << 20, 0)
            fallen = done.count(b"!")
            os.write(descriptor, b".")
            number = len(done) - (done.rindex(b"!") if fallen else -1)
            if fallen >= len(lines):
                return None
            wanted, victim, stage = lines[fallen].split()
            if number < int(wanted):
                return None
            os.write(descriptor, b"!")
            return StatementBlow(number, victim, stage)
        finally:
            os.close(descriptor)

    def between(self) -> None:
        """The instant before a phase: there is no session yet, only who would open it."""
        blow = self.next()
        if blow is not None:
            _striker(blow.victim if blow.victim in _PROCESSES else "horse")()

    def around(self, session: Any, statement: Callable[[], Any]) -> Any:
        """The statement, and the blow that may fall at it."""
        if threading.get_ident() != self.active or not _of_target(session):
            return statement()
        blow = self.next()
        if blow is None:
            return statement()
        strike = _striker(blow.victim, session.info.backend_pid)
        if blow.stage == "before":
            strike()
            return statement()
        if blow.stage == "during":
            thread = threading.Timer(0.002 * (blow.number % 5), strike)
            thread.start()
            try:
                return statement()
            finally:
                thread.join()
        try:
            return statement()
        finally:
            strike()


def _of_target(session: Any) -> bool:
    return not session.closed and session.info.dbname == urlsplit(os.environ["TARGET_DATABASE_URL"]).path[1:]


_PROCESSES = frozenset({"worker", "horse", "restart"})


def _striker(victim: str, backend: int = 0) -> Callable[[], None]:
    """What kills, ready to: a process of ours, the session by PostgreSQL's own means, or its server process."""
    leader, horse = os.getsid(0), os.getpid()
    if victim == "session":
        witness = psycopg.connect(os.environ["TARGET_DATABASE_URL"], autocommit=True, application_name="faults")

        def terminate() -> None:
            with witness:
                witness.execute("SELECT pg_terminate_backend(%s)", (backend,))

        return terminate
    deeds = {
        "worker": ((leader, signal.SIGKILL), (horse, signal.SIGKILL)),
        "horse": ((horse, signal.SIGKILL),),
        "backend": ((backend, signal.SIGKILL),),
        "restart": ((leader, signal.SIGTERM), (horse, signal.SIGTERM)),
    }[victim]

    def kill() -> None:
        for pid, number in deeds:
            os.kill(pid, number)

    return kill


def arm() -> None:
    """Count in this process, where the environment says so."""
    if not os.environ.get("FAULTS_STATEMENTS"):
        return
    from briefly_admin.engine import pipeline, rollback  # not sooner: the store is hurt first, see hurt.py
    from briefly_admin.engine.rollback import unmoved

    counter = _Counter(Path(os.environ["FAULTS_STATEMENTS"]))
    execute, leave, run_phase = psycopg.Cursor.execute, psycopg.Transaction.__exit__, rollback.run_phase
    note = unmoved.note

    def counted_execute(self: Any, *arguments: Any, **options: Any) -> Any:
        return counter.around(self.connection, lambda: execute(self, *arguments, **options))

    def counted_exit(self: Any, *error: Any) -> Any:
        return counter.around(self.connection, lambda: leave(self, *error))

    def counted_note(*arguments: Any, **options: Any) -> None:
        counter.active = threading.get_ident()  # to the end of the phase
        note(*arguments, **options)

    def counted_phase(context: Any, phase: Phase) -> Any:
        try:
            if (context.kind, phase) == (RunKind.ROLLBACK, Phase.RESTORE):
                counter.active = threading.get_ident()
                counter.between()
            return run_phase(context, phase)
        finally:
            counter.active = None

    psycopg.Cursor.execute = counted_execute  # type: ignore[method-assign]
    psycopg.Transaction.__exit__ = counted_exit  # type: ignore[method-assign]
    vars(unmoved)["note"] = counted_note
    vars(pipeline)["run_phase"] = counted_phase
