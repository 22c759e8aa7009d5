"""The app database's schema: revisions make what tables.py says, once, whoever asks at the same time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from briefly_admin.domain.errors import Unavailable
from briefly_admin.store.database import Database
from briefly_admin.store.migrate import VERSION_TABLE, newest, upgrade
from briefly_admin.store.tables import SCHEMA, metadata


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    database = Database(url)
    try:
        with database.begin() as connection:
            yield connection
    finally:
        database.close()


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    return name == SCHEMA if kind == "schema" else name != VERSION_TABLE


def test_revisions_make_what_the_tables_say(app_database: str) -> None:
    with _connected(app_database) as connection:
        options = {"include_schemas": True, "include_name": _ours, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        assert connection.execute(text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}")).scalar() == newest()


def test_upgrades_at_once_and_again_apply_each_revision_once(target_database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [target_database] * 4))
    upgrade(target_database)
    with _connected(target_database) as connection:
        assert connection.execute(text(f"SELECT count(*) FROM {SCHEMA}.{VERSION_TABLE}")).scalar() == 1


@pytest.mark.parametrize("statement", ["UPDATE {} SET actor = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_audit_table_takes_no_change(
    app_database: str, superuser_database: Callable[[str], str], statement: str
) -> None:
    with psycopg.connect(superuser_database(app_database)) as connection:
        connection.execute(
            "INSERT INTO briefly_admin.audit VALUES (1, now(), 'ana', 'admin', 'page', '', 'a.b', 'c', '{}', 'k', 'p', 'l')"
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.format("briefly_admin.audit").encode())


def test_an_unreachable_database_says_so_without_its_password() -> None:
    with pytest.raises(Unavailable) as caught:
        upgrade("postgresql://ana:geheim@127.0.0.1:1/nothing")
    assert "geheim" not in str(caught.value)
    assert "DATABASE_URL" in caught.value.remedy
