"""Sample data in the target, for a first look and for the self-test; each deed is an audit event."""

from collections.abc import Callable

from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.engine import sampledata
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import Plan
from briefly_admin.services.auditing import AuditService, require


class SampleDataService:
    """Makes, counts and removes the plan's sample data."""

    def __init__(self, target: Target, plan: Plan, audit: AuditService) -> None:
        self._target = target
        self._plan = plan
        self._audit = audit

    def create(
        self,
        actor: Actor,
        *,
        scale: int = 1,
        dirty: int = 0,
        seed: int = 0,
        embeddings: int | None = None,
        report: Callable[[str, int], None] = lambda _table, _rows: None,
    ) -> dict[str, int]:
        """Rows made by table; see engine.sampledata.create. Raises NotAllowed, InvalidRequest, Refused, Unavailable."""
        require(actor, Permission.SAMPLE_DATA)
        made = sampledata.create(
            self._target, self._plan, scale=scale, dirty=dirty, seed=seed, embeddings=embeddings, report=report
        )
        self._audit.record(actor, "sample_data.create", self._target.title, {"scale": scale, "dirty": dirty} | made)
        return made

    def cleanup(self, actor: Actor) -> dict[str, int]:
        """Rows removed by table; only sample data. Raises NotAllowed, Refused, Unavailable."""
        require(actor, Permission.SAMPLE_DATA)
        removed = sampledata.cleanup(self._target, self._plan)
        self._audit.record(actor, "sample_data.cleanup", self._target.title, removed)
        return removed

    def counts(self, actor: Actor) -> dict[str, int]:
        """Sample rows by table. Raises NotAllowed, Unavailable."""
        require(actor, Permission.READ)
        return sampledata.counts(self._target, self._plan)
