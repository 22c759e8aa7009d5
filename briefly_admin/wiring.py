"""The composition root below the mouths: from settings to services."""

from datetime import timedelta

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.ports import Queue
from briefly_admin.engine import helping, pipeline
from briefly_admin.engine.target import Target
from briefly_admin.jobs.queue import RqQueue
from briefly_admin.plans import plan
from briefly_admin.services import Servers, ServiceConfig, Services, assemble
from briefly_admin.services.backups import SPARE
from briefly_admin.settings import Settings
from briefly_admin.store.database import Database
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import Vault

_MEGABYTE = 1 << 20


def build(settings: Settings, *, queue: Queue | None = None) -> Services:
    """All services; nothing connects before it is used, so that a process may fork after this.

    `queue` is the way to a worker; by default RQ's, on the settings' Redis.
    Raises SettingError, NotFound for an unknown plan.
    """
    retention = timedelta(hours=settings.backup_retention_hours)
    servers = Servers(
        database=Database(settings.database_url),
        target=Target(settings.target_database_url),
        vault=Vault(
            open_store(
                settings.backup_store_url,
                redis_max_bytes=settings.backup_redis_max_mb * _MEGABYTE,
                lifetime=(retention + SPARE).total_seconds(),
            ),
            MasterKeys(dict(settings.backup_keys)),
        ),
        drill_target=Target(settings.drill_database_url) if settings.drill_database_url else None,
        plan=plan(settings.migration_plan),
        queue=queue or RqQueue(settings.redis_url),
    )
    config = ServiceConfig(
        plan_name=settings.migration_plan,
        audit_key=settings.audit_key,
        retention=retention,
        lease=timedelta(seconds=settings.lease_seconds),
        defaults=RunConfig(
            batch_size=settings.migration_batch_size,
            max_retries=settings.migration_max_retries,
            retry_delay=settings.migration_retry_delay,
        ),
        store_lasts=settings.store_lasts,
        production=settings.production,
        require_approval=settings.require_approval,
        drill_every=timedelta(hours=settings.drill_every_hours) if settings.drill_every_hours else None,
    )
    return assemble(servers, config, engine=pipeline.lead, assist=helping.assist)
