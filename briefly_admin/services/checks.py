"""Preflight on demand: the checklist that says whether a run could start now."""

from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from briefly_admin.domain.checks import Check, Colour, worst
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.domain.runs import EXCLUSIVE_KINDS
from briefly_admin.engine.preflight import PreflightInputs, check_all
from briefly_admin.services.attention import backup_facts
from briefly_admin.services.auditing import AuditService, require
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.store import checklist, runs


class CheckService:
    """Runs preflight and keeps its newest answer for all processes."""

    def __init__(
        self, servers: Servers, config: ServiceConfig, audit: AuditService, now: Callable[[], datetime]
    ) -> None:
        self._servers = servers
        self._config = config
        self._audit = audit
        self._now = now

    def run(self, actor: Actor, *, workers: int | None = None) -> tuple[Check, ...]:
        """Look now; `workers` listen, if the caller knows. Raises NotAllowed; whatever is wrong is a red check."""
        require(actor, Permission.CHECK)
        checks = tuple(self._look(workers))
        with self._servers.database.begin() as connection:
            checklist.save(connection, self._key, at=self._now(), checks=[check.to_json() for check in checks])
            facts = {"colour": worst(checks).value, "red": [c.name for c in checks if c.colour is Colour.RED]}
            self._audit.write(connection, actor, "checks.run", self._servers.target.title, facts)
        return checks

    def cached(self, actor: Actor) -> tuple[datetime, tuple[Check, ...]] | None:
        """When the newest checklist was made, and it; None before the first."""
        require(actor, Permission.READ)
        with self._servers.database.begin() as connection:
            row = checklist.load(connection, self._key)
        return (row.at, tuple(_check(data) for data in row.checks)) if row is not None else None

    @property
    def _key(self) -> str:
        """Of the target's address: there is a checklist also of a target that does not answer."""
        return sha256(self._servers.target.title.encode()).hexdigest()

    def _look(self, known: int | None) -> Sequence[Check]:
        servers, config = self._servers, self._config
        with servers.database.begin() as connection:
            holder = next((row for row in runs.active(connection) if row.kind in EXCLUSIVE_KINDS), None)
            facts = backup_facts(connection, config, servers.target.title)
        inputs = PreflightInputs(
            plan=servers.plan,
            target=servers.target,
            ping_app_database=self._ping,
            store=servers.vault.store,
            store_is_kept=config.store_lasts,
            key_sizes={name: len(key) for name, key in servers.vault.keys.items()},
            workers=servers.queue.workers if known is None else lambda: known,
            active_run=f"run {holder.number} ({holder.kind}, {holder.state})" if holder else "",
            backups=facts,
            now=self._now,
        )
        return check_all(inputs)

    def _ping(self) -> None:
        with self._servers.database.begin() as connection:
            runs.server_now(connection)


def _check(data: dict[str, Any]) -> Check:
    return Check(**data | {"colour": Colour(data["colour"])})
