"""The use cases: who may do what, state and audit event in one transaction, and the views that mouths render."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from briefly_admin.domain.ports import Queue
from briefly_admin.engine.context import RunContext
from briefly_admin.services.admins import AdminService
from briefly_admin.services.auditing import AuditService
from briefly_admin.services.backups import BackupService
from briefly_admin.services.checks import CheckService
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.findings import FindingService
from briefly_admin.services.helping import HelpService
from briefly_admin.services.keys import KeyService
from briefly_admin.services.leading import LeadService
from briefly_admin.services.overview import OverviewService
from briefly_admin.services.reading import Reader
from briefly_admin.services.rows import RowService
from briefly_admin.services.runs import RunService
from briefly_admin.services.sampledata import SampleDataService
from briefly_admin.services.sessions import SessionService
from briefly_admin.services.sweeping import SweepService
from briefly_admin.services.throttling import Throttle
from briefly_admin.services.tokens import TokenService

__all__ = ["Servers", "ServiceConfig", "Services", "assemble"]


@dataclass(frozen=True, slots=True)
class Services:
    """One service a noun; mouths call these and nothing below them."""

    runs: RunService
    backups: BackupService
    keys: KeyService
    findings: FindingService
    rows: RowService
    audit: AuditService
    admins: AdminService
    sessions: SessionService
    tokens: TokenService
    checks: CheckService
    overview: OverviewService
    leading: LeadService
    helping: HelpService
    sweeping: SweepService
    sampledata: SampleDataService
    queue: Queue
    servers: Servers

    def close(self) -> None:
        """Close pooled connections; they open again when needed (after a fork, call this first)."""
        self.servers.database.close()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def assemble(
    servers: Servers,
    config: ServiceConfig,
    *,
    engine: Callable[[RunContext], Mapping[str, Any]],
    assist: Callable[[RunContext], int],
    now: Callable[[], datetime] = _utc_now,
) -> Services:
    """All services over the same servers; `engine` leads a run and gives its report, `assist` helps with one,
    `now` is the people's clock.
    """
    database = servers.database
    audit = AuditService(database, config.audit_key, now)
    throttle = Throttle(database, now)
    reader = Reader(servers, config, now)
    backups = BackupService(servers, audit, reader, now)
    runs = RunService(servers, config, audit, reader, now)
    rows = RowService(servers, audit, now)
    checks = CheckService(servers, config, audit, now)
    return Services(
        runs=runs,
        backups=backups,
        keys=KeyService(servers, audit, reader, now),
        findings=FindingService(servers),
        rows=rows,
        audit=audit,
        admins=AdminService(database, audit, throttle, now),
        sessions=SessionService(database, audit, throttle, now),
        tokens=TokenService(database, audit, now),
        checks=checks,
        overview=OverviewService(servers, config, reader, checks, now),
        leading=LeadService(servers, config, audit, reader, now, engine),
        helping=HelpService(servers, config, audit, assist),
        sweeping=SweepService(servers, config, audit, backups, runs, rows, now),
        sampledata=SampleDataService(servers.target, servers.plan, audit),
        queue=servers.queue,
        servers=servers,
    )
