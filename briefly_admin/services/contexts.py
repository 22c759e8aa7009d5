"""What the engine is given to work on a run, whether to lead it or to help."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from briefly_admin.domain.errors import Refused, Unavailable
from briefly_admin.domain.ports import Reporter
from briefly_admin.domain.runs import BOUND_TO_PLAN, RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.identity import identify
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan as plan_of
from briefly_admin.plans.base import Plan
from briefly_admin.services.auditing import WORKER, AuditService
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.holding import Hold
from briefly_admin.store.database import Connection, Row
from briefly_admin.store.journal import DatabaseJournal

_WAITS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Seconds before the target is asked again who it is."""
_SHOWN: Final = 12
"""Characters of a fingerprint that tell it from others."""


def run_context(
    servers: Servers, config: ServiceConfig, audit: AuditService, row: Row[Any], hold: Hold, *, worker: str,
    report: Reporter,
) -> RunContext:  # fmt: skip
    """The run's context for one worker. Raises Refused where plan or target are not what the run began with."""
    plan = _plan(row)
    kind = RunKind(row.kind)
    target = servers.drill_place if kind is RunKind.DRILL else servers.target
    if kind is not RunKind.VERIFICATION:  # which needs the store alone
        _require_same_target(target, row)

    def record(connection: Connection, action: str, object_: str, facts: Mapping[str, Any]) -> None:
        audit.write(connection, WORKER, action, object_, facts)

    journal = DatabaseJournal(
        servers.database, row.id, row.attempt, retention=config.retention, record=record, worker=worker,
        lease=config.lease,
    )  # fmt: skip
    return RunContext(
        run_id=row.id, attempt=row.attempt, kind=kind, plan=plan, target=target,
        vault=servers.vault, journal=journal, report=report, read_config=hold.config, options=row.options,
        should_stop=hold.should_stop, sleep=hold.sleep,
    )  # fmt: skip


def _plan(row: Row[Any]) -> Plan:
    plan = plan_of(row.plan)
    if RunKind(row.kind) in BOUND_TO_PLAN:
        require_same_plan(row, plan)
    return plan


def require_same_plan(row: Row[Any], plan: Plan) -> None:
    """Raises Refused where the plan has changed since the run began."""
    if plan.fingerprint != row.plan_fingerprint:
        raise Refused(
            f"The plan {plan.name} is not the one that the run began with: its fingerprint was "
            f"{row.plan_fingerprint[:_SHOWN]}… and is {plan.fingerprint[:_SHOWN]}… now.",
            remedy="Go on with the version of Briefly Admin that began it, or cancel this run and start a new one.",
        )


def _identity(target: Target) -> str:
    """Who the target is; a session that is lost just then fails no run. Raises Unavailable."""
    for wait in _WAITS:
        with suppress(Unavailable):
            return identify(target)
        time.sleep(wait)
    return identify(target)


def _require_same_target(target: Target, row: Row[Any]) -> None:
    if _identity(target) != row.target_id:
        setting = "DRILL_DATABASE_URL" if RunKind(row.kind) is RunKind.DRILL else "TARGET_DATABASE_URL"
        raise Refused(
            f"The run was started on {row.target_title}, which is another database now.",
            remedy=f"Point {setting} back at it, or start a new run.",
        )
