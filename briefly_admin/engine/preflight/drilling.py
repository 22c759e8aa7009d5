"""Checks of a drill's place: whether it can take a backup's rows into a scratch schema."""

from typing import Final

from psycopg import sql

from briefly_admin.domain.checks import Check, Colour
from briefly_admin.domain.manifest import Manifest
from briefly_admin.engine.preflight.inputs import amber, green, look, red
from briefly_admin.engine.preflight.servers import of_server, target_reachable
from briefly_admin.engine.staged import create_types, staged_table
from briefly_admin.engine.target import Connection, Target

_OF_SERVER: Final = frozenset({"server_version", "writable", "pooler"})
_TO_LOOK: Final = frozenset({"writable", "drill_rights"})
"""Where these are red, it cannot be looked at types."""
_ROOM: Final = 1.5
"""Bytes of a table, its index with it, a byte of COPY binary; about."""


def check_place(target: Target, manifest: Manifest) -> list[Check]:
    """The checks of the place. Raises Unavailable where it does not answer, psycopg.Error where the session is lost."""
    with target.session(bulk=True) as connection:
        checks = [
            target_reachable(target),
            *(check for check in of_server(connection, target) if check.name in _OF_SERVER),
            look("drill_rights", "The role may make a schema", lambda: _rights(connection)),
            look("drill_encoding", "The encoding is the backup's", lambda: _encoding(connection, manifest)),
            look("drill_version", "The server is as new as the backup's", lambda: _age(connection, manifest)),
            _room(manifest),
        ]
        if all(check.colour is not Colour.RED for check in checks if check.name in _TO_LOOK):
            title = "The types of all columns can be had"
            checks.append(look("drill_types", title, lambda: _types(connection, manifest)))
        return checks


def _rights(connection: Connection) -> Check:
    ((may,),) = connection.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchall()
    title = "The role may make a schema"
    if may:
        return green("drill_rights", title, "It may.")
    return red("drill_rights", title, "It may not: a drill needs a scratch schema.",
               "GRANT CREATE ON DATABASE to the role, or give a DRILL_DATABASE_URL of its own.")  # fmt: skip


def _encoding(connection: Connection, manifest: Manifest) -> Check:
    ((here,),) = connection.execute("SELECT current_setting('server_encoding')").fetchall()
    title = "The encoding is the backup's"
    if here == manifest.encoding:
        return green("drill_encoding", title, f"Both are {here}.")
    return red("drill_encoding", title, f"It is {here}, and the backup's is {manifest.encoding}.",
               f"Drill in a database whose encoding is {manifest.encoding}.")  # fmt: skip


def _age(connection: Connection, manifest: Manifest) -> Check:
    title = "The server is as new as the backup's"
    here, there = connection.info.server_version // 10000, manifest.server_version.partition(".")[0]
    if there.isdigit() and here < int(there):
        return amber("drill_version", title, f"It is PostgreSQL {here}; the backup is of PostgreSQL {there}.",
                     "What the older one does not know is refused: drill on the same version.")  # fmt: skip
    return green("drill_version", title, f"PostgreSQL {here}, and {there}.")


def _types(connection: Connection, manifest: Manifest) -> Check:
    """Made for a moment, and taken back: what cannot be made is refused by name."""
    schema = f"briefly_scratch_{manifest.backup_id.hex}_look"
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        create_types(connection, manifest, schema)
        for table in manifest.tables:
            staged_table(connection, manifest, table, schema)
    return green("drill_types", "The types of all columns can be had", "They stand there, or can be made.")


def _room(manifest: Manifest) -> Check:
    size = sum(stream.plaintext_size for stream in manifest.streams) * _ROOM
    found = f"About {size / 2**20:,.0f} MiB for a while; PostgreSQL does not say how much is free."
    return green("drill_room", "There is room for the rows", found)
