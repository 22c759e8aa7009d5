"""A backup's types in a database that may lack them: found where they stand, or made in a scratch schema.

Made there, a type is called y0, y1, …: its place in the manifest. Made types win over those that stand elsewhere, so
that every session on the scratch schema comes to the same ones by looking.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.manifest import Manifest, TypeManifest
from briefly_admin.engine.target import Connection, safe_message
from briefly_admin.engine.user_types import describe_types

_FIND: Final = """
SELECT w.name, made.oid::bigint, coalesce(to_regtype(w.name)::oid, brought.oid)::bigint
FROM unnest(%s::text[], %s::text[], %s::text[]) AS w(name, made, extension)
LEFT JOIN LATERAL (SELECT t.oid FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE n.nspname = %s AND t.typname = w.made) AS made ON true
LEFT JOIN LATERAL (SELECT t.oid FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid AND d.deptype = 'e'
  AND d.refclassid = 'pg_extension'::regclass AND d.classid = 'pg_type'::regclass JOIN pg_type t ON t.oid = d.objid
  WHERE e.extname = w.extension AND '.' || quote_ident(t.typname) = right(w.name, 1 + length(quote_ident(t.typname)))
  LIMIT 1) AS brought ON true
"""
_MULTIRANGE: Final = "SELECT rngmultitypid::bigint FROM pg_range WHERE rngtypid = %s::oid"
_PRINTED: Final = "SELECT format_type(coalesce(%s::oid, to_regtype(%s)), %s::int)"


def create_types(connection: Connection, manifest: Manifest, schema: str) -> None:
    """Make in the scratch schema what the backup's columns need and the database lacks, or has otherwise.

    Domains are made without their checks, which are no part of a backup. Raises Refused that names the extension to
    create, or what cannot be made.
    """
    wanted = _needed(manifest)
    known = resolve_types(connection, manifest, schema)
    standing = {each.name: each for each in describe_types(connection, (), types=tuple(known.values()))}
    for place, described in enumerate(manifest.types):
        if described not in wanted or described.kind == "multirange":
            continue
        if described.extension or described.kind == "base":
            _require(described, known)
        elif not _stands(described, standing, known):
            statement = _statement(connection, described, sql.Identifier(schema, _made(place)), known)
            try:
                connection.execute(statement)
            except psycopg.Error as error:
                raise Refused(
                    f"The type {described.name} cannot be made in the scratch schema ({safe_message(error)}).",
                    remedy="Create it in that database as it was, then try again.",
                ) from None
            standing.pop(described.name, None)
            known = resolve_types(connection, manifest, schema)


def resolve_types(connection: Connection, manifest: Manifest, schema: str) -> dict[str, int]:
    """The manifest's types, by name, that there are in this database or in the scratch schema: their OIDs."""
    if not manifest.types:
        return {}
    columns = (
        [each.name for each in manifest.types],
        [_made(place) for place in range(len(manifest.types))],
        [each.extension for each in manifest.types],
    )
    rows = connection.execute(_FIND, (*columns, schema)).fetchall()
    known = {name: made or stands for name, made, stands in rows if made or stands}
    for described in manifest.types:
        if described.kind == "multirange" and described.element in known:
            row = connection.execute(_MULTIRANGE, (known[described.element],)).fetchone()
            known |= {described.name: row[0]} if row else {}
    return known


def _made(place: int) -> str:
    return f"y{place}"


def _needed(manifest: Manifest) -> set[TypeManifest]:
    """What columns with a binary form are made of: all others are staged as text."""
    described = {each.name: each for each in manifest.types}
    todo = [column.type for table in manifest.tables for column in table.columns if column.binary]
    found: set[TypeManifest] = set()
    while todo:
        each = described.get(todo.pop())
        if each and each not in found:
            found.add(each)
            todo += each.made_of
    return found


def _require(described: TypeManifest, known: Mapping[str, int]) -> None:
    if described.name not in known:
        brought = f"the extension {described.extension}" if described.extension else "a type made by hand"
        raise Refused(
            f"The database lacks {described.name}: {brought}.",
            remedy=f"CREATE EXTENSION {described.extension}; there, then try again."
            if described.extension
            else "Create it in that database as it was, then try again.",
        )


def _stands(described: TypeManifest, standing: Mapping[str, TypeManifest], known: Mapping[str, int]) -> bool:
    """Whether the database's own type takes the backup's values: a domain may refuse some, one made here will not."""
    found = standing.get(described.name)
    if found is None or described.name not in known or described.kind == "domain":
        return False
    if described.kind == "enum":
        return found.kind == "enum" and set(described.labels) <= set(found.labels)
    own = all(part in standing or part not in known for part in described.made_of)
    return own and replace(found, extension="") == described


def _statement(
    connection: Connection, described: TypeManifest, name: sql.Identifier, known: Mapping[str, int]
) -> sql.Composed:
    def printed(type_name: str, typmod: int = -1) -> sql.SQL:
        """As format_type quotes it."""
        row: Any = connection.execute(_PRINTED, (known.get(type_name), type_name, typmod)).fetchone()
        if row[0] is None:
            raise Refused(
                f"The database lacks the type {type_name}, of which {described.name} is made.",
                remedy="Use a server of the version that was backed up.",
            )
        return sql.SQL(row[0])

    if described.kind == "enum":
        labels = sql.SQL(", ").join(map(sql.Literal, described.labels))
        return sql.SQL("CREATE TYPE {} AS ENUM ({})").format(name, labels)
    if described.kind == "domain":
        return sql.SQL("CREATE DOMAIN {} AS {}").format(name, printed(described.base, described.typmod))
    if described.kind == "composite":
        fields = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(field.name), printed(field.type, field.typmod))
            for field in described.fields
        )
        return sql.SQL("CREATE TYPE {} AS ({})").format(name, fields)
    options = [sql.SQL("SUBTYPE = {}").format(printed(described.element))]
    options += [
        sql.SQL("{} = {}").format(sql.SQL(option), sql.SQL(value))  # quoted by quote_ident
        for option, value in (("COLLATION", described.collation), ("SUBTYPE_OPCLASS", described.opclass))
        if value
    ]
    return sql.SQL("CREATE TYPE {} AS RANGE ({})").format(name, sql.SQL(", ").join(options))
