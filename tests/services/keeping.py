"""Small backups that are kept, made at once, and the same services over other keys."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg

from briefly_admin.domain.ports import BlobStore
from briefly_admin.engine.identity import identify
from briefly_admin.services import ServiceConfig, Services, assemble
from briefly_admin.store.database import Database
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.vault import Vault
from tests.services.conftest import Stage
from tests.vault.sample_backups import manifest_of, some_rows, table_of, write

ONE, TWO, THREE = (bytes([n]) * 32 for n in range(3))
"""The first is the stage's own, under the id `one`."""


@dataclass(frozen=True)
class KeptBackup:
    """A backup of one table; what the app database knows of it."""

    id: UUID
    name: str
    shred_key: bytes
    sha256: str


def keep(stage: Stage, name: str, *, state: str = "proven", run_id: str | None = None) -> KeptBackup:
    """Write a backup and record it so."""
    writer = stage.servers.vault.begin(uuid4())
    result = write(writer, 1, some_rows(1, 20))
    sha256 = writer.finish(manifest_of([table_of("users", [result])], writer.backup_id))
    with psycopg.connect(stage.app_url) as connection:
        connection.execute(
            "INSERT INTO briefly_admin.backup (id, name, run_id, state, plan, target_id, target_title, shred_key, "
            "manifest_sha256, proven_at, expires_at) VALUES (%s, %s, %s, %s, 'unified', 'x', 'x', %s, %s, now(), %s)",
            (writer.backup_id, name, run_id, state, writer.shred_key, sha256, stage.clock.time + timedelta(hours=24)),
        )
    return KeptBackup(writer.backup_id, name, writer.shred_key, sha256)


def keep_restorable(stage: Stage, name: str, *, run_id: str | None = None, **values: str) -> KeptBackup:
    """One that says to be of the users and oauth_tokens of the stage's target; `values`: target_id or plan."""
    backup = keep(stage, name, run_id=run_id)
    facts = {"target_id": identify(stage.servers.target), "plan": "unified"} | values
    with psycopg.connect(stage.app_url) as connection:
        connection.execute(
            "UPDATE briefly_admin.backup SET target_id = %(target_id)s, plan = %(plan)s,"
            ' tables = \'[{"table": "users"}, {"table": "oauth_tokens"}]\' WHERE name = %(name)s',
            facts | {"name": name},
        )
    return backup


@contextmanager
def services_with(stage: Stage, keys: Mapping[str, bytes], store: BlobStore | None = None) -> Iterator[Services]:
    """The stage's services with these master keys, over connections of their own."""
    vault = Vault(store or stage.servers.vault.store, MasterKeys(dict(keys)))
    servers = replace(stage.servers, vault=vault, database=Database(stage.app_url))
    config = ServiceConfig(plan_name="unified", audit_key=b"k" * 32)
    services = assemble(servers, config, engine=stage.engine, assist=stage.engine.help, now=stage.clock)
    try:
        yield services
    finally:
        services.close()


def opens(stage: Stage, backup: KeptBackup, keys: Mapping[str, bytes]) -> bool:
    """Whether these master keys open it and all of it is there."""
    vault = Vault(stage.servers.vault.store, MasterKeys(dict(keys)))
    return vault.open(backup.id, backup.shred_key, backup.sha256).verify() == []
