"""What the services are told: the settings that concern them, without the environment's names."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import timedelta

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import Unavailable
from briefly_admin.domain.ports import Queue
from briefly_admin.domain.progress import Progress
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import Plan
from briefly_admin.store.database import Database
from briefly_admin.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """Figures and names of one installation."""

    plan_name: str
    audit_key: bytes = field(repr=False)
    retention: timedelta = timedelta(hours=24)
    lease: timedelta = timedelta(seconds=30)
    """A leader that is silent for longer is replaced."""
    defaults: RunConfig = field(default_factory=RunConfig)
    store_lasts: bool = True
    """The `file:` store's disk is kept by the platform."""
    production: bool = False
    require_approval: bool = False
    """What changes data begins only once another admin has approved it."""
    drill_every: timedelta | None = None
    """How often the clock drills the newest backup; None: never."""


class NoQueue:
    """Where no worker is to be reached: runs wait for whoever leads them, and for the sweeper of another process."""

    def enqueue(self, run_id: str) -> None:
        """Raises Unavailable."""
        raise Unavailable(f"There is no queue to put run {run_id} into.")

    def ask_help(self, run_id: str, slots: Collection[int]) -> None:
        """Raises Unavailable."""
        raise Unavailable(f"There is no queue to ask {len(slots)} helpers of run {run_id} through.")

    def workers(self) -> int:
        """Raises Unavailable."""
        raise Unavailable("There is no queue to ask.")

    def progress(self, run_id: str) -> Progress | None:
        """None: the app database knows."""
        del run_id
        return None


@dataclass(frozen=True, slots=True)
class Servers:
    """What the services work on: the app database, the target, the vault, and the queue."""

    database: Database
    target: Target
    vault: Vault
    plan: Plan
    queue: Queue = field(default_factory=NoQueue)
    drill_target: Target | None = None
    """Where drills restore to, if not to the target."""

    @property
    def drill_place(self) -> Target:
        """Where drills restore to."""
        return self.drill_target or self.target
