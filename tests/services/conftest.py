"""A whole set of services over real servers, a clock that tests move, and the named cast."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.permissions import Actor, Role
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunState
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.services import Servers, ServiceConfig, Services, assemble
from briefly_admin.services.passwords import hash_password
from briefly_admin.services.views import RunView
from briefly_admin.store import people
from briefly_admin.store.database import Database
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import Vault

PASSWORD = "correct horse battery staple"


class Clock:
    """The people's clock; `move` it."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def move(self, **duration: float) -> None:
        self.time += timedelta(**duration)


@dataclass
class ListQueue:
    """A queue in this process: what was asked for, in order; `down` is a Redis that does not answer."""

    asked: list[str] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    """Of helpers that were asked for."""
    listening: int = 1
    down: bool = False

    def enqueue(self, run_id: str) -> None:
        if self.down:
            raise Unavailable("Redis does not answer.")
        self.asked.append(run_id)

    def ask_help(self, run_id: str, slots: Collection[int]) -> None:
        del run_id
        if self.down:
            raise Unavailable("Redis does not answer.")
        self.slots.extend(slots)

    def workers(self) -> int:
        if self.down:
            raise Unavailable("Redis does not answer.")
        return self.listening

    def progress(self, run_id: str) -> Progress | None:
        del run_id
        return None


@dataclass
class Engine:
    """What a leader does with a context; tests say what."""

    work: Callable[[RunContext], Mapping[str, Any]] = lambda _: {}

    assist: Callable[[RunContext], int] = lambda _: 0
    """What a helper does with one."""

    def __call__(self, context: RunContext) -> Mapping[str, Any]:
        return self.work(context)

    def help(self, context: RunContext) -> int:
        return self.assist(context)


@dataclass
class Stage:
    """Everything a test of services touches."""

    services: Services
    servers: Servers
    queue: ListQueue
    clock: Clock
    engine: Engine
    app_url: str
    ana: Actor
    olga: Actor
    vito: Actor
    stranger: Actor

    def lead(
        self,
        run: RunView,
        work: Callable[[RunContext], Mapping[str, Any]] | None = None,
        *,
        report: Callable[[Progress], None] = lambda _: None,
        interrupted: Callable[[], bool] = lambda: False,
        leader: str = "host:1",
    ) -> RunView:
        """Lead the run in this process, doing `work`."""
        self.engine.work = work or (lambda _: {})
        return self.services.leading.lead(run.id, report=report, interrupted=interrupted, leader=leader)

    def actions(self) -> list[str]:
        """The audit events so far, oldest first; the chain holds."""
        assert self.services.audit.verify(self.ana).ok
        return [event.action for event in reversed(self.services.audit.list(self.ana, limit=1000))]

    def state(self, run: RunView) -> RunState:
        return self.services.runs.get(self.vito, run.id).state


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Of PASSWORD: made once, for it takes time on purpose."""
    return hash_password(PASSWORD)


@pytest.fixture
def stage(app_database: str, target_database: str, tmp_path: Path, password_hash: str) -> Iterator[Stage]:
    clock, queue, engine = Clock(), ListQueue(), Engine()
    servers = Servers(
        database=Database(app_database), target=Target(target_database), plan=plan("unified"), queue=queue,
        vault=Vault(open_store(f"file://{tmp_path}/backups"), MasterKeys({"one": bytes(32)})),
    )  # fmt: skip
    config = ServiceConfig(plan_name="unified", audit_key=b"k" * 32, lease=timedelta(seconds=2))
    services = assemble(servers, config, engine=engine, assist=engine.help, now=clock)
    actors = {}
    with servers.database.begin() as connection:
        for name, role in (("ana", Role.ADMIN), ("olga", Role.OPERATOR), ("vito", Role.VIEWER)):
            email, admin_id = f"{name}@example.com", uuid4()
            people.add_admin(connection, id=admin_id, email=email, role=role.value, password_hash=password_hash)
            actors[name] = Actor(email, role, "page", "127.0.0.1", str(admin_id))
    services.audit.record(actors["ana"], "test.begin", "the cast")
    stranger = Actor("stranger@example.org", Role.VIEWER, "page", "203.0.113.9", "00000000-0000-4000-8000-000000000000")
    yield Stage(services, servers, queue, clock, engine, app_database, **actors, stranger=stranger)
    services.close()
