"""What the target's catalog says of tables: columns, keys, constraints, indexes, triggers, sizes, rights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from briefly_admin.domain.manifest import label
from briefly_admin.engine.target import Connection
from briefly_admin.engine.user_types import AS_TEXT


@dataclass(frozen=True, slots=True)
class CatalogColumn:
    """One column; `type` as format_type prints it, `send` the qualified name of its type's binary send function."""

    name: str
    number: int
    type: str
    base_type: str
    """pg_type.typname, of the base type where the type is a domain."""
    nullable: bool
    default: str | None
    generated: str
    """'' no, 's' stored, 'v' virtual."""
    identity: str
    """'' no, 'a' always, 'd' by default."""
    collation: str | None
    send: tuple[str, str] | None
    """(schema, function), None for a type without a binary form that holds anywhere (user_types.AS_TEXT)."""
    type_oid: int
    typmod: int


@dataclass(frozen=True, slots=True)
class CatalogConstraint:
    """One constraint; `kind` is pg_constraint.contype: p, u, c, f, n, x."""

    name: str
    kind: str
    definition: str
    columns: tuple[str, ...]
    validated: bool
    references: tuple[str, str, tuple[str, ...]] | None = None
    """foreign keys: (schema, table, columns)."""
    deferrable: bool = False
    on_delete: str = ""
    """'a' no action, 'r' restrict, 'c' cascade, 'n' set null, 'd' set default."""
    period: bool = False
    """foreign keys: the last columns are compared for containment, not for equality."""


@dataclass(frozen=True, slots=True)
class CatalogIndex:
    """One index; `columns` empty where an expression is in it, `partial` where it has a WHERE."""

    name: str
    unique: bool
    primary: bool
    valid: bool
    partial: bool
    columns: tuple[str, ...]
    definition: str
    immediate: bool = True


@dataclass(frozen=True, slots=True)
class CatalogTrigger:
    """One user trigger (not internal); `enabled` is tgenabled: O, D, R, A."""

    name: str
    enabled: str
    definition: str


@dataclass(frozen=True, slots=True)
class CatalogTable:
    """One relation as the catalog knows it now."""

    schema: str
    name: str
    oid: int
    kind: str
    """relkind: r table, p partitioned, v view, m materialised view, f foreign."""
    owner: str
    owned: bool
    """The session's role is a member of the owner."""
    row_security: bool
    force_row_security: bool
    estimated_rows: int
    bytes: int
    """Heap, TOAST and indexes."""
    pages: int
    has_children: bool
    has_rules: bool
    columns: tuple[CatalogColumn, ...] = ()
    constraints: tuple[CatalogConstraint, ...] = ()
    indexes: tuple[CatalogIndex, ...] = ()
    triggers: tuple[CatalogTrigger, ...] = ()
    referenced_by: tuple[tuple[str, str, str, str], ...] = ()
    """Foreign keys of other tables onto this one: (schema, table, constraint, on_delete)."""
    sequences: tuple[tuple[str, str], ...] = field(default_factory=tuple)
    """Owned sequences: (schema, name)."""

    @property
    def identifier(self) -> sql.Identifier:
        """Quoted and qualified."""
        return sql.Identifier(self.schema, self.name)

    @property
    def label(self) -> str:
        """As the manifest's tables are labelled."""
        return label(self.schema, self.name)

    def column(self, name: str) -> CatalogColumn | None:
        """The column of that name, or None."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key's columns, or ()."""
        return next((c.columns for c in self.constraints if c.kind == "p"), ())

    def has_unique_index(self, columns: Sequence[str]) -> bool:
        """Whether a valid, whole unique index stands on exactly these columns (in any order)."""
        return any(
            i.unique and i.valid and not i.partial and i.columns and set(i.columns) == set(columns)
            for i in self.indexes
        )


_TABLE: Final = """
SELECT n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid, c.relkind::text AS kind,
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'MEMBER') AS owned,
       c.relrowsecurity AS row_security, c.relforcerowsecurity AS force_row_security,
       greatest(c.reltuples, 0)::bigint AS estimated_rows,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END AS bytes,
       CASE WHEN c.relkind IN ('r', 'm') THEN pg_relation_size(c.oid) / current_setting('block_size')::int ELSE 0 END
         AS pages,
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_children,
       EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1') AS has_rules
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS: Final = f"""
SELECT a.attname AS name, a.attnum::int AS number, format_type(a.atttypid, a.atttypmod) AS type,
       coalesce(b.typname, t.typname) AS base_type,
       NOT a.attnotnull AS nullable, pg_get_expr(d.adbin, d.adrelid) AS default,
       a.attgenerated::text AS generated, a.attidentity::text AS identity,
       CASE WHEN a.attcollation <> t.typcollation THEN
         (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname)
          FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = a.attcollation) END
         AS collation,
       ps.nspname AS send_schema, p.proname AS send_name, a.atttypid::bigint AS type_oid, a.atttypmod AS typmod
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd'
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_proc p ON p.oid = t.typsend AND NOT {AS_TEXT} LEFT JOIN pg_namespace ps ON ps.oid = p.pronamespace
WHERE a.attrelid = %s::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_CONSTRAINTS: Final = """
SELECT o.conname AS name, o.contype::text AS kind, pg_get_constraintdef(o.oid) AS definition,
       o.convalidated AS validated, o.condeferrable AS deferrable, o.confdeltype::text AS on_delete,
       coalesce((to_jsonb(o) ->> 'conperiod')::boolean, false) AS period,
       ARRAY(SELECT a.attname::text FROM unnest(o.conkey) WITH ORDINALITY k(n, i)
             JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.n ORDER BY k.i) AS columns,
       fn.nspname AS f_schema, f.relname AS f_table,
       ARRAY(SELECT a.attname::text FROM unnest(o.confkey) WITH ORDINALITY k(n, i)
             JOIN pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.n ORDER BY k.i) AS f_columns
FROM pg_constraint o LEFT JOIN pg_class f ON f.oid = nullif(o.confrelid, 0)
LEFT JOIN pg_namespace fn ON fn.oid = f.relnamespace
WHERE o.conrelid = %s::oid AND o.contype <> 't' ORDER BY o.conname
"""
_INDEXES: Final = """
SELECT c.relname AS name, i.indisunique AS unique, i.indisprimary AS primary, i.indisvalid AND i.indisready AS valid,
       i.indpred IS NOT NULL AS partial, pg_get_indexdef(i.indexrelid) AS definition, i.indimmediate AS immediate,
       CASE WHEN 0 = ANY (i.indkey::int2[]) THEN ARRAY[]::text[] ELSE
         ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(n, o)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
               WHERE k.o <= i.indnkeyatts ORDER BY k.o) END AS columns
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = %s::oid ORDER BY c.relname
"""
_TRIGGERS: Final = """
SELECT tgname AS name, tgenabled::text AS enabled, pg_get_triggerdef(oid) AS definition
FROM pg_trigger WHERE tgrelid = %s::oid AND NOT tgisinternal ORDER BY tgname
"""
_REFERENCED_BY: Final = """
SELECT n.nspname, c.relname, o.conname, o.confdeltype::text FROM pg_constraint o
JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE o.confrelid = %s::oid AND o.contype = 'f' AND o.conrelid <> o.confrelid ORDER BY 1, 2, 3
"""
_SEQUENCES: Final = """
SELECT n.nspname, s.relname FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_namespace n ON n.oid = s.relnamespace
WHERE d.refobjid = %s::oid AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_class'::regclass
  AND d.deptype IN ('a', 'i') ORDER BY 1, 2
"""


def read_table(connection: Connection, schema: str, name: str) -> CatalogTable | None:
    """The relation as it is now, or None. Reads the catalog only; takes no lock on the relation."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_TABLE, (schema, name)).fetchone()
        if row is None:
            return None
        oid = (row["oid"],)
        columns = tuple(_column(c) for c in cursor.execute(_COLUMNS.encode(), oid).fetchall())
        constraints = tuple(_constraint(c) for c in cursor.execute(_CONSTRAINTS, oid).fetchall())
        indexes = tuple(
            CatalogIndex(**(i | {"columns": tuple(i["columns"])})) for i in cursor.execute(_INDEXES, oid).fetchall()
        )
        triggers = tuple(CatalogTrigger(**t) for t in cursor.execute(_TRIGGERS, oid).fetchall())
    referenced_by = tuple(connection.execute(_REFERENCED_BY, oid).fetchall())
    sequences = tuple(connection.execute(_SEQUENCES, oid).fetchall())
    return CatalogTable(
        **row, columns=columns, constraints=constraints, indexes=indexes, triggers=triggers,
        referenced_by=referenced_by, sequences=sequences,
    )  # fmt: skip


def _column(row: dict[str, Any]) -> CatalogColumn:
    schema, name = row.pop("send_schema"), row.pop("send_name")
    return CatalogColumn(**row, send=(schema, name) if name else None)


def _constraint(row: dict[str, Any]) -> CatalogConstraint:
    schema, table, columns = row.pop("f_schema"), row.pop("f_table"), row.pop("f_columns")
    row["columns"] = tuple(row["columns"])
    return CatalogConstraint(**row, references=(schema, table, tuple(columns)) if table else None)
