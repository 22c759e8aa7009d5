"""Real workers and a real clock over a copy of dirty data, ways to hurt them, and what an undisturbed run leaves."""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import errors, sql

from briefly_admin import settings, wiring
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.plans import plan
from briefly_admin.services import Services
from briefly_admin.services.views import RunView

CHECKOUT = Path(__file__).resolve().parents[2]
LEASE = 2
"""Seconds: short, so that a dead leader is soon replaced."""
ANA = Actor("ana@example.com", Role.ADMIN, "page")
CONFIG: Mapping[str, Any] = {
    "batchSize": 20, "pause": 5, "onInvalid": "skip", "maxRetries": 10, "retryDelay": 50, "expectQuiet": True,
}  # fmt: skip
_SESSION_FIELD, _STATE_FIELD, _PARENT_FIELD = 3, 0, 1  # of /proc/<pid>/stat after the command's name, see proc(5)
_SCHEMA = """
SELECT format('%s %s: %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
  WHERE connamespace = 'public'::regnamespace UNION ALL
SELECT format('%s valid=%s', pg_get_indexdef(i.indexrelid), i.indisvalid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
  WHERE c.relnamespace = 'public'::regnamespace UNION ALL
SELECT format('%s.%s %s %s default %s', c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""

T = TypeVar("T")
Contents = dict[str, list[str]]
"""Every row of every table as text, the quarantine, and the schema, each sorted."""


def until(look: Callable[[], T | None], *, seconds: float = 30, what: str = "what was waited for") -> T:
    """What `look` says as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.01)
    return found


def contents(url: str) -> Contents:
    """What the target holds."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone TO 'UTC'")

        def texts(query: sql.Composable | str) -> list[str]:
            return sorted(str(text) for (text,) in connection.execute(query))  # type: ignore[arg-type]  # our own texts

        found = {
            name: texts(sql.SQL("SELECT t::text FROM public.{} AS t").format(sql.Identifier(name)))
            for name in (table.name for table in plan("unified").tables)
        }
        found["schema"] = texts(_SCHEMA)
        if (connection.execute("SELECT to_regclass('briefly_migration.quarantine')").fetchone() or [None])[0]:
            found["quarantine"] = texts(
                "SELECT format('%s %s %s %s', \"table\", key, cause, message) FROM briefly_migration.quarantine"
            )
        return found


def difference(left: Contents, right: Contents) -> list[str]:
    """What is in one of them alone, a few lines a table; empty where they are equal."""
    lines = []
    for name in left.keys() | right.keys():
        mine, other = left.get(name, []), right.get(name, [])
        if mine != other:
            lines += [f"{name}: {len(mine)} and {len(other)} rows"]
            lines += [f"- {text}" for text in sorted(set(mine) - set(other))[:3]]
            lines += [f"+ {text}" for text in sorted(set(other) - set(mine))[:3]]
    return lines


def copy_database(servers: EmbeddedServers, template: str) -> str:
    """A fresh copy of a database that nobody is connected to, with the target's owner."""
    name = f"faults_{secrets.token_hex(6)}"
    owner = urlsplit(servers.target_url).username or ""
    with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
        connection.execute(query.format(*map(sql.Identifier, (name, template, owner))))
    return urlsplit(servers.target_url)._replace(path=f"/{name}").geturl()


def drop_database(servers: EmbeddedServers, url: str) -> None:
    """Remove it, whoever is connected."""
    with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
        name = sql.Identifier(urlsplit(url).path[1:])
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


def environment(home: Path, *, app: str, target: str, redis: str, lease: int = LEASE) -> dict[str, str]:
    """All settings of a worker and a clock; the secrets are made into `home`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "BRIEFLY_HOME": str(home), "DATABASE_URL": app, "TARGET_DATABASE_URL": target, "REDIS_URL": redis,
        "LEASE_SECONDS": str(lease), "LOG_LEVEL": "info", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


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


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (caught,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def _answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except psycopg.OperationalError:
        return False
    return True


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process of ours, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass
class Worker:
    """A process of `briefly-admin worker`, whose horse is its only child."""

    process: subprocess.Popen[bytes]
    log: Path

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


@dataclass
class Field:
    """One run's servers, processes and services; use it within `with field.cleaned()`."""

    environ: dict[str, str]
    logs: Path
    services: Services = field(init=False)
    started: list[Worker] = field(default_factory=list)

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
                self._end_session(each.pid)
                each.process.wait(10)
            self.services.close()

    def _end_session(self, session: int) -> None:
        for path in Path("/proc").glob("[0-9]*"):
            fields = _stat(int(path.name))
            if fields and fields[_SESSION_FIELD] == str(session):
                send(int(path.name), signal.SIGKILL)

    def _start(self, command: str) -> Worker:
        log = self.logs / f"{len(self.started)}-{command}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "briefly_admin.cli", command], cwd=CHECKOUT, env=self.environ,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.started.append(Worker(process, log))
        return self.started[-1]

    def clock(self) -> Worker:
        """Start a clock."""
        return self._start("clock")

    def worker(self) -> Worker:
        """Start a worker."""
        return self._start("worker")

    def listening(self, count: int) -> None:
        """Wait until so many workers listen; one starts in a second or two."""
        queue = self.services.servers.queue
        assert queue is not None
        until(lambda: queue.workers() >= count, what=f"{count} workers listening")

    def said(self) -> str:
        """What the processes wrote, for a failing test."""
        return "\n".join(f"== {each.log.name}\n{each.log.read_text(errors='replace')}" for each in self.started)

    def migrate(self, **config: Any) -> RunView:
        """Begin a migration."""
        return self.services.runs.start(ANA, RunKind.MIGRATION, config={**CONFIG, **config})

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

    def ends(self, run: RunView, *, seconds: float = 60) -> RunView:
        """Wait until the run has ended well."""
        return self.reaches(run, RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS, seconds=seconds)

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

    def leader(self, run: RunView) -> Worker | None:
        """The worker whose horse leads the run."""
        query = "SELECT split_part(leader, ':', 2) FROM briefly_admin.run WHERE id = %s AND state = 'running'"
        pids = self.ask(query, run.id)
        return next((each for each in self.started if pids == [str(each.horse)]), None)

    def led(self, run: RunView, *, but: Worker | None = None) -> Worker:
        """Wait until one of our workers leads it, another than `but`."""
        return until(lambda: found if (found := self.leader(run)) is not but else None, what="a leader")

    @contextmanager
    def held(self, variable: str, table: str, mode: str) -> Iterator[None]:
        """A lock on a table of the database that the setting names, so that something waits."""
        with psycopg.connect(self.environ[variable]) as connection:
            connection.execute(
                sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(*table.split(".")), sql.SQL(mode))
            )
            yield

    def waits_for(self, variable: str) -> None:
        """Wait until some session of ours waits for a lock there."""
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        with psycopg.connect(self.environ[variable], autocommit=True) as connection:
            until(lambda: (connection.execute(query).fetchone() or (0,))[0], what="a wait for a lock")

    def ask(self, query: str, *values: object, variable: str = "DATABASE_URL") -> list[Any]:
        """The first column of the answers."""
        with psycopg.connect(self.environ[variable]) as connection:
            return [row[0] for row in connection.execute(query, values)]

    def crash(self, backend: int) -> None:
        """SIGKILL a server process; the server then ends all sessions and replays its log. Wait until it is back."""
        with psycopg.connect(self.environ["DATABASE_URL"], autocommit=True) as witness:
            send(backend, signal.SIGKILL)
            until(lambda: not _answers(lambda: witness.execute("SELECT 1")), what="the crash")
        until(lambda: _answers(lambda: self.ask("SELECT 1")), what="an answer of the server")

    def contents(self) -> Contents:
        """What the target holds now."""
        return contents(self.environ["TARGET_DATABASE_URL"])


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nobody disturbs."""

    before: Contents
    after: Contents
    migrate: Mapping[str, Any]
    """The migrate phase's result: rows looked at, changed, skipped."""

    def points(self, count: int, seed: int) -> list[int]:
        """So many random places in the middle of migrating, in rows looked at, in order."""
        chance, looked = random.Random(seed), int(self.migrate["looked"])
        width = looked * 3 // 4 // count
        return [looked // 20 + number * width + chance.randrange(width) for number in range(count)]

    def require_same(self, field: Field, run: RunView) -> None:
        """The run left the same data, schema, quarantine and counters."""
        assert difference(self.after, field.contents()) == [], field.said()
        view = field.view(run)
        assert (view.report or {})["migrate"] == self.migrate
        assert field.services.audit.verify(ANA).ok
