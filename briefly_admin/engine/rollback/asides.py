"""What may have to step aside for a restore, and all that the catalog knows of it, so that it comes back whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql
from psycopg.rows import class_row

from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.target import Connection

# Of a key whose triggers somebody switched off by hand, only a superuser could bring the state back: it stays.
_KEYS: Final = """
SELECT o.oid::bigint AS oid, n.nspname AS schema, c.relname AS "table", o.conname AS name,
  pg_get_constraintdef(o.oid) AS definition, obj_description(o.oid, 'pg_constraint') AS comment,
  o.convalidated AS validated, coalesce((to_jsonb(o) ->> 'conenforced')::boolean, true) AS enforced,
  o.condeferrable AS deferrable, o.condeferred AS deferred, o.conindid::bigint AS index,
  o.conrelid = ANY (%(oids)s::oid[]) AS inner
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE o.contype = 'f' AND o.conparentid = 0 AND o.confrelid = ANY (%(oids)s::oid[])
  AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgconstraint = o.oid AND t.tgenabled <> 'O')
ORDER BY n.nspname, c.relname, o.conname
"""
# An index whose expressions read the whole row stands on no column in particular: `columns` is NULL.
_INDEXES: Final = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, pg_get_indexdef(c.oid) AS definition,
  o.conname AS "constraint", pg_get_constraintdef(o.oid) AS constraint_definition,
  obj_description(c.oid, 'pg_class') AS comment, obj_description(o.oid, 'pg_constraint') AS constraint_comment,
  coalesce(s.spcname, '') AS tablespace, i.indisclustered AS clustered, i.indisreplident AS identifies,
  coalesce(c.reloptions, ARRAY[]::text[]) AS options,
  ARRAY(SELECT format('%%s=%%s', a.attnum, a.attstattarget) FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attstattarget >= 0 ORDER BY a.attnum) AS statistics,
  CASE WHEN NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid = 0) THEN
  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0
        AND (a.attnum = ANY (i.indkey::int2[]) OR a.attnum IN (SELECT d.refobjsubid FROM pg_depend d
             WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid))) END AS columns
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
LEFT JOIN pg_constraint o ON o.conindid = i.indexrelid AND o.contype IN ('p', 'u', 'x')
WHERE i.indrelid = %(table)s::oid AND (i.indisunique OR i.indisexclusion) AND i.indisvalid ORDER BY c.relname
"""
_CHECKS: Final = """
SELECT o.conname, pg_get_constraintdef(o.oid), obj_description(o.oid, 'pg_constraint') FROM pg_constraint o
WHERE o.conrelid = %s::oid AND o.contype IN ('c', 'n') AND NOT o.convalidated AND o.coninhcount = 0
  AND coalesce((to_jsonb(o) ->> 'conenforced')::boolean, true) ORDER BY o.conname
"""


@dataclass(frozen=True, slots=True)
class Aside:
    """Statements that take something away, and those that bring it back as it was."""

    title: str
    away: tuple[sql.Composed, ...]
    back: tuple[sql.Composed, ...]
    is_key: bool = False
    """A foreign key: it comes back after all others."""


@dataclass(frozen=True, slots=True)
class Key:
    """A foreign key onto one of the tables (`inner`: from one of them, too), and the parent's `index` it stands on."""

    oid: int
    schema: str
    table: str
    name: str
    definition: str
    comment: str | None
    validated: bool
    enforced: bool
    deferrable: bool
    deferred: bool
    index: int
    inner: bool


@dataclass(frozen=True, slots=True)
class Index:
    """A unique index or an exclusion's, with its constraint where it has one; `columns` None: any of them."""

    oid: int
    schema: str
    name: str
    definition: str
    constraint: str | None
    constraint_definition: str | None
    comment: str | None
    constraint_comment: str | None
    tablespace: str
    clustered: bool
    identifies: bool
    """REPLICA IDENTITY USING INDEX."""
    options: list[str]
    """name=value"""
    statistics: list[str]
    """column number=target"""
    columns: list[str] | None


def keys(connection: Connection, oids: Sequence[int]) -> list[Key]:
    """The foreign keys onto these tables."""
    with connection.cursor(row_factory=class_row(Key)) as cursor:
        return cursor.execute(_KEYS, {"oids": list(oids)}).fetchall()


def indexes(connection: Connection, table: int) -> list[Index]:
    """The table's valid unique indexes and exclusions."""
    with connection.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(_INDEXES, {"table": table}).fetchall()


def unproven_checks(connection: Connection, table: CatalogTable) -> list[Aside]:
    """Its CHECK and NOT NULL constraints that were never validated: old rows may break them, and new ones may not."""
    found = connection.execute(_CHECKS, (table.oid,)).fetchall()
    return [
        Aside(
            f"{table.name}: {name}", (_drop(table.identifier, name),),
            tuple(_add(table.identifier, name, definition, comment)),
        )
        for name, definition, comment in found
    ]  # fmt: skip


def key(found: Key, *, deferred: bool = False) -> Aside:
    """Dropped and added again (as valid as it was); or, `deferred`, checked at the end of the writes alone."""
    table = sql.Identifier(found.schema, found.table)
    title = f"{found.table}: {found.name}"
    if not deferred:
        back = _add(table, found.name, found.definition, found.comment)
        return Aside(title, (_drop(table, found.name),), tuple(back), is_key=True)
    alter = sql.SQL("ALTER TABLE {} ALTER CONSTRAINT {} ").format(table, sql.Identifier(found.name))
    before = "NOT DEFERRABLE" if not found.deferrable else f"DEFERRABLE INITIALLY {_when(deferred=found.deferred)}"
    return Aside(title, (alter + sql.SQL("DEFERRABLE INITIALLY DEFERRED"),), (alter + sql.SQL(before),), is_key=True)


def index(table: CatalogTable, found: Index) -> Aside:
    """Dropped and built again with its place, parameters, comments, and what it is to CLUSTER and replication."""
    name = sql.Identifier(found.schema, found.name)
    away: list[sql.Composed] = []
    if found.identifies:  # without any identity, a published table refuses to be updated
        away.append(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(table.identifier))
    back = [sql.SQL("SET LOCAL default_tablespace TO {}").format(sql.Literal(found.tablespace))]
    if found.constraint:
        away.append(_drop(table.identifier, found.constraint))
        back += _add(table.identifier, found.constraint, found.constraint_definition or "", found.constraint_comment)
        for option, _, value in (each.partition("=") for each in found.options):
            alter = sql.SQL("ALTER INDEX {} SET ({} = {})")
            back.append(alter.format(name, sql.Identifier(option), sql.Literal(value)))
    else:
        away.append(sql.SQL("DROP INDEX {}").format(name))
        back.append(_written(found.definition))
    for number, _, target in (each.partition("=") for each in found.statistics):
        alter = sql.SQL("ALTER INDEX {} ALTER COLUMN {} SET STATISTICS {}")
        back.append(alter.format(name, sql.Literal(int(number)), sql.Literal(int(target))))
    back += _comment(sql.SQL("INDEX {}").format(name), found.comment)
    if found.clustered:
        back.append(sql.SQL("ALTER TABLE {} CLUSTER ON {}").format(table.identifier, sql.Identifier(found.name)))
    if found.identifies:
        alter = sql.SQL("ALTER TABLE {} REPLICA IDENTITY USING INDEX {}")
        back.append(alter.format(table.identifier, sql.Identifier(found.name)))
    return Aside(f"{table.name}: {found.name}", tuple(away), tuple(back))


def _drop(table: sql.Identifier, name: str) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(name))


def _add(table: sql.Identifier, name: str, definition: str, comment: str | None) -> list[sql.Composed]:
    constraint = sql.Identifier(name)
    add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(table, constraint, _written(definition))
    return [add, *_comment(sql.SQL("CONSTRAINT {} ON {}").format(constraint, table), comment)]


def _comment(what: sql.Composed, comment: str | None) -> list[sql.Composed]:
    return [sql.SQL("COMMENT ON {} IS {}").format(what, sql.Literal(comment))] if comment else []


def _when(*, deferred: bool) -> str:
    return "DEFERRED" if deferred else "IMMEDIATE"


def _written(definition: str) -> sql.Composed:
    """What the catalog's own functions wrote: quoted by PostgreSQL."""
    return sql.Composed([sql.SQL(definition)])
