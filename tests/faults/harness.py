"""Real workers and a real clock over a copy of dirty data, ways to hurt them, and what an undisturbed run leaves."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql

from briefly_admin import settings, wiring
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.embedded.processes import ProcessBook
from briefly_admin.services import Services
from briefly_admin.services.starting import Request
from briefly_admin.services.views import RunView
from tests.faults.databases import Contents, contents, difference
from tests.faults.processes import Worker, alive, end_session, parent, send, until

CHECKOUT = Path(__file__).resolve().parents[2]
LEASE = 2
"""Seconds: short, so that a dead leader is soon replaced."""
ANA = Actor("ana@example.com", Role.ADMIN, "page")
CONFIG: Mapping[str, Any] = {
    "batchSize": 20, "pause": 5, "onInvalid": "skip", "maxRetries": 10, "retryDelay": 50, "expectQuiet": True,
}  # fmt: skip
_WELL = (RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS)


def environment(home: Path, *, app: str, target: str, redis: str, lease: int = LEASE) -> dict[str, str]:
    """All settings of a worker and a clock; the secrets are made into `home`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "BRIEFLY_HOME": str(home), "DATABASE_URL": app, "TARGET_DATABASE_URL": target, "REDIS_URL": redis,
        "LEASE_SECONDS": str(lease), "LOG_LEVEL": "info", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def _answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except psycopg.OperationalError:
        return False
    return True


@dataclass
class Field:
    """One run's servers, processes and services; use it within `with field.cleaned()`."""

    environ: dict[str, str]
    logs: Path
    services: Services = field(init=False)
    started: list[Worker] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Settings of the processes alone, put over `environ`."""
    module: str = "briefly_admin.cli"
    """What is started: the command, or `tests.faults.hurt`, which hurts it from within."""

    def __post_init__(self) -> None:
        self.services = wiring.build(settings.load(self.environ))

    def use(self, **settings_: str) -> None:
        """Other settings, before anything is started."""
        self.services.close()
        self.environ |= settings_
        self.services = wiring.build(settings.load(self.environ))

    @contextmanager
    def cleaned(self) -> Iterator["Field"]:
        """Afterwards no process that the field started is left, whatever happened."""
        try:
            yield self
        finally:
            for each in self.started:
                end_session(each.pid)
                each.process.wait(10)
            # What `up` started has sessions of its own.
            ProcessBook(self.logs).stop_all(patience=0)
            self.services.close()

    def start(self, command: str) -> Worker:
        """Start a process of the command."""
        log = self.logs / f"{len(self.started)}-{command.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", self.module, *command.split()], cwd=CHECKOUT, env=self.environ | self.elsewhere,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.started.append(Worker(process, log, command))
        return self.started[-1]

    def clock(self) -> Worker:
        """Start a clock."""
        return self.start("clock")

    def worker(self) -> Worker:
        """Start a worker."""
        return self.start("worker")

    def staff(self, workers: int) -> None:
        """A clock and so many workers live: what has ended is started again, as a platform does."""
        living = [each.command for each in self.started if each.process.poll() is None]
        for command, wanted in (("clock", 1), ("worker", workers)):
            for _ in range(wanted - living.count(command)):
                self.start(command)

    @property
    def busy(self) -> list[Worker]:
        """The workers that have a horse."""
        return [each for each in self.started if each.command == "worker" and each.horse is not None]

    def listening(self, count: int, *, seconds: float = 60) -> None:
        """Wait until so many workers listen; one starts in a second or two."""
        queue = self.services.servers.queue
        assert queue is not None
        until(lambda: queue.workers() >= count, seconds=seconds, what=f"{count} workers listening")

    def said(self) -> str:
        """What the processes wrote, for a failing test."""
        return "\n".join(f"== {each.log.name}\n{each.log.read_text(errors='replace')}" for each in self.started)

    def migrate(self, **config: Any) -> RunView:
        """Begin a migration."""
        return self.services.runs.start(ANA, RunKind.MIGRATION, config={**CONFIG, **config})

    def back_up(self, *, workers: int = 1, beyond: Sequence[tuple[str, str]] = ()) -> RunView:
        """Begin a backup of its own, of the plan's tables and of those beyond it."""
        options = {"beyond": [list(name) for name in beyond]} if beyond else {}
        request = Request(kind=RunKind.BACKUP, config={"workers": workers}, options=options)
        return self.services.runs.get(ANA, str(self.services.runs._starter.start(ANA, request).id))

    def view(self, run: RunView) -> RunView:
        """The run as it is now."""
        return self.services.runs.get(ANA, run.id)

    def reaches(self, run: RunView, *states: RunState, seconds: float = 30) -> RunView:
        """Wait until the run is in one of these states; any other end fails at once."""

        def look() -> RunView | None:
            view = self.view(run)
            assert view.state in states or not view.finished, (view.state, view.error, view.remedy, self.said())
            return view if view.state in states else None

        return until(look, seconds=seconds, what=f"run becoming {', '.join(states)} ({self.view(run).state})")

    def ends(self, run: RunView, *, seconds: float = 60, workers: int = 0) -> RunView:
        """Wait until the run has ended well; with `workers`, so many are kept alive until then, and a clock."""

        def look() -> RunView | None:
            if workers:
                self.staff(workers)
            view = self.view(run)
            assert view.state in _WELL or not view.finished, (view.state, view.error, view.remedy, self.said())
            return view if view.state in _WELL else None

        return until(look, seconds=seconds, what=f"the end of the run ({self.view(run).state})")

    def settles(self, run: RunView, *, seconds: float = 60, workers: int = 0) -> RunView:
        """Wait until the run has ended, well or not; with `workers`, so many are kept alive until then, and a clock."""

        def look() -> RunView | None:
            if workers:
                self.staff(workers)
            view = self.view(run)
            return view if view.finished else None

        return until(look, seconds=seconds, what=f"an end of the run ({self.view(run).state})")

    def dismiss(self) -> None:
        """End all processes at once: the next ones have other settings."""
        for each in self.started:
            end_session(each.pid)
            each.process.wait(10)

    def looked(self, run: RunView) -> int:
        """Rows that the run's checkpoints say were looked at."""
        query = (
            "SELECT coalesce(sum((counters->>'looked')::bigint), 0) FROM briefly_migration.checkpoint WHERE run_id = %s"
        )
        with suppress(errors.UndefinedTable, errors.InvalidSchemaName):
            return int(self.ask(query, run.id, variable="TARGET_DATABASE_URL")[0])
        return 0

    def has_looked_at(self, run: RunView, rows: int, *, seconds: float = 30) -> None:
        """Wait until the run has come so far."""

        def look() -> bool:
            view = self.view(run)
            assert not view.finished, (view.state, view.error, f"before row {rows}", self.said())
            return self.looked(run) >= rows

        until(look, seconds=seconds, what=f"row {rows}")

    def in_phase(self, run: RunView, phase: str, *, seconds: float = 30) -> None:
        """Wait until a leader has come to the phase."""

        def look() -> bool:
            view = self.view(run)
            assert not view.finished, (view.state, view.error, f"before {phase}", self.said())
            return any(each.phase == phase and each.state in {"running", "done"} for each in view.phases)

        until(look, seconds=seconds, what=f"the phase {phase}")

    def up(self) -> Worker:
        """Start `up` over our databases: a web process, a worker and a clock that it starts again when they end."""
        (self.logs / "sample-data").touch()  # it makes none
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.environ["PORT"] = str(probe.getsockname()[1])
        return self.start("up")

    def leading_pid(self, run: RunView) -> int | None:
        """The pid of the horse that leads the run, while it lives."""
        query = "SELECT split_part(leader, ':', 2)::integer FROM briefly_admin.run WHERE id = %s AND state = 'running'"
        return next((pid for pid in self.ask(query, run.id) if alive(pid)), None)

    def leads(self, run: RunView) -> bool:
        """Whether the run is led by a horse that lives."""
        return self.leading_pid(run) is not None

    def kill_worker_of(self, horse: int) -> None:
        """SIGKILL a horse and the worker that it belongs to, whoever started that; the worker first."""
        send(parent(horse), signal.SIGKILL)
        send(horse, signal.SIGKILL)

    def leader(self, run: RunView) -> Worker | None:
        """The worker whose horse leads the run."""
        pid = self.leading_pid(run)
        return next((each for each in self.started if pid is not None and each.horse == pid), None)

    def led(self, run: RunView, *, but: Worker | None = None, seconds: float = 30) -> Worker:
        """Wait until one of our workers leads it, another than `but`."""
        return until(
            lambda: found if (found := self.leader(run)) is not but else None, seconds=seconds, what="a leader"
        )

    @contextmanager
    def held(self, variable: str, table: str, mode: str) -> Iterator[None]:
        """A lock on a table of the database that the setting names, so that something waits."""
        with psycopg.connect(self.environ[variable]) as connection:
            connection.execute(
                sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(*table.split(".")), sql.SQL(mode))
            )
            yield

    def waits_for(self, variable: str, *, seconds: float = 30) -> None:
        """Wait until some session of ours waits for a lock there."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with psycopg.connect(self.environ[variable], autocommit=True) as connection:
            until(lambda: (connection.execute(query).fetchone() or (0,))[0], seconds=seconds, what="a wait for a lock")

    def ask(self, query: str, *values: object, variable: str = "DATABASE_URL") -> list[Any]:
        """The first column of the answers."""
        with psycopg.connect(self.environ[variable]) as connection:
            return [row[0] for row in connection.execute(query, values)]

    def crash(self, backend: int) -> bool:
        """SIGKILL a server process; the server then ends all sessions and replays its log. Waits until it is back.

        False where the process ended by itself at the same instant, so that nothing crashed.
        """
        with psycopg.connect(self.environ["DATABASE_URL"], autocommit=True) as witness:
            send(backend, signal.SIGKILL)
            end = time.monotonic() + 5
            while _answers(lambda: witness.execute("SELECT 1")):
                if time.monotonic() > end:
                    assert not alive(backend), f"process {backend} outlives SIGKILL"
                    return False
                time.sleep(0.01)
        return until(lambda: _answers(lambda: self.ask("SELECT 1")), seconds=60, what="an answer of the server")

    def contents(self) -> Contents:
        """What the target holds now."""
        return contents(self.environ["TARGET_DATABASE_URL"])


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nobody disturbs."""

    before: Contents
    after: Contents
    migrate: Mapping[str, Any]
    """The migrate phase's counts: rows looked at, changed, skipped, and the same of each table."""
    seconds: Mapping[str, float]
    """How long each phase took."""

    @classmethod
    def of(cls, before: Contents, field: Field, run: RunView) -> "Undisturbed":
        """From a field whose run has just ended well."""
        view = field.view(run)
        assert view.state in _WELL, (view.state, view.error, view.remedy)
        query = (
            "SELECT jsonb_object_agg(phase, extract(epoch FROM finished_at - started_at)) "
            "FROM briefly_admin.run_phase WHERE run_id = %s AND finished_at IS NOT NULL"
        )
        (seconds,) = field.ask(query, run.id)
        return cls(before, field.contents(), counts(view), seconds)

    def points(self, count: int, seed: int) -> list[int]:
        """So many random places in the middle of migrating, in rows looked at, in order."""
        chance, looked = random.Random(seed), int(self.migrate["looked"])
        width = looked * 3 // 4 // count
        return [looked // 20 + number * width + chance.randrange(width) for number in range(count)]

    def require_same(self, field: Field, run: RunView) -> None:
        """The run left the same data, schema, quarantine and counters."""
        assert difference(self.after, field.contents()) == [], field.said()
        assert counts(field.view(run)) == self.migrate
        assert field.services.audit.verify(ANA).ok


def counts(view: RunView) -> dict[str, Any]:
    """What the run's report says of migrating, without what depends on how it went."""
    found, names = (view.report or {})["migrate"], ("looked", "changed", "skipped")
    tables = {each["table"]: {name: each[name] for name in names} for each in found["tables"]}
    return {name: found[name] for name in names} | {"tables": tables}
