"""Brings the app database's schema up to the newest revision: `up` and Procfile's `release` call it."""

from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from briefly_admin.store.database import Database
from briefly_admin.store.tables import SCHEMA, metadata

_HERE: Final = Path(__file__).parent
_LOCK: Final = 0x627269_65666C79
"""The advisory lock that lets one process upgrade at a time."""
VERSION_TABLE: Final = "revision"


def upgrade(database_url: str) -> None:
    """Apply all revisions that are not applied yet; concurrent calls wait for each other. Raises Unavailable."""
    database = Database(database_url)
    try:
        with database.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            _upgrade(connection)
    finally:
        database.close()


def newest() -> str:
    """The id of the newest revision."""
    return _scripts().get_current_head() or ""


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_HERE), version_locations=[str(_HERE / "revisions")])


def _upgrade(connection: Connection) -> None:
    scripts = _scripts()

    def steps(current: Any, _context: Any) -> Any:
        return scripts._upgrade_revs("head", current)  # noqa: SLF001 - what Alembic's own `upgrade` command calls

    with EnvironmentContext(Config(), scripts, fn=steps) as environment:
        environment.configure(
            connection=connection, target_metadata=metadata, version_table=VERSION_TABLE, version_table_schema=SCHEMA
        )
        environment.run_migrations()
