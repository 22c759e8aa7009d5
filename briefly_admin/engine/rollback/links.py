"""Foreign keys as the catalog has them, with what PostgreSQL does to rows when those that they refer to go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from briefly_admin.engine.target import Connection

Label = tuple[str, str]
"""(schema, table)"""

ACTIONS: Final = {"a": "NO ACTION", "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
_LINEAGE: Final = "SELECT %s::oid::bigint UNION SELECT relid::oid::bigint FROM pg_partition_ancestors(%s::oid)"
# What only a newer server has (conenforced, confdelsetcols) is read by name, so that an older one is understood.
_LINKS: Final = """
SELECT o.oid::bigint AS oid, o.conname AS name, ARRAY[cn.nspname, c.relname]::text[] AS child,
  ARRAY[pn.nspname, p.relname]::text[] AS parent, o.conrelid::bigint AS child_oid, o.confrelid::bigint AS parent_oid,
  c.relkind = 'p' AS child_parted, p.relkind = 'p' AS parent_parted, o.confdeltype::text AS on_delete,
  o.confupdtype::text AS on_update, o.confmatchtype = 'f' AS whole, o.condeferrable AS deferrable, k.*
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace
JOIN pg_class p ON p.oid = o.confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace
LEFT JOIN pg_constraint up ON up.oid = o.conparentid
CROSS JOIN LATERAL (
  SELECT array_agg(a.attname::text ORDER BY i) AS columns, array_agg(b.attname::text ORDER BY i) AS "references",
    array_agg(ARRAY[s.nspname, r.oprname]::text[] ORDER BY i) AS operators,
    array_agg(ARRAY[ls.nspname, l.collname]::text[] ORDER BY i) AS collations,
    array_agg(a.attname::text ORDER BY i) FILTER
      (WHERE coalesce(nullif(to_jsonb(o) -> 'confdelsetcols', 'null') @> to_jsonb(u.n), true)) AS sets,
    array_agg(a.attname::text ORDER BY i) FILTER (WHERE a.attnotnull) AS required,
    array_agg(pg_get_expr(d.adbin, d.adrelid) ORDER BY i) AS defaults
  FROM unnest(o.conkey, o.confkey, o.conpfeqop) WITH ORDINALITY u(n, m, operator, i)
  JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = u.n
  JOIN pg_attribute b ON b.attrelid = o.confrelid AND b.attnum = u.m
  JOIN pg_operator r ON r.oid = u.operator JOIN pg_namespace s ON s.oid = r.oprnamespace
  LEFT JOIN pg_collation l ON l.oid = b.attcollation AND b.attcollation <> a.attcollation
  LEFT JOIN pg_namespace ls ON ls.oid = l.collnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''
) k
WHERE o.contype = 'f' AND {side}
ORDER BY cn.nspname, c.relname, o.conname, o.oid
"""
# A partition's copy of a key that its root has, too, is left out where the root's is found.
_ENFORCED: Final = "coalesce((to_jsonb(o) ->> 'conenforced')::boolean, true) AND "
_ONTO: Final = f"{_ENFORCED}o.confrelid = ANY (%(oids)s::oid[]) AND (up.confrelid = ANY (%(oids)s::oid[])) IS NOT TRUE"
_OF: Final = f"{_ENFORCED}o.conrelid = ANY (%(oids)s::oid[]) AND (up.conrelid = ANY (%(oids)s::oid[])) IS NOT TRUE"


@dataclass(frozen=True, slots=True)
class Link:
    """A foreign key: `columns` of `child` refer to `references` of `parent`; NOT VALID ones act like all others."""

    oid: int
    name: str
    child: Label
    parent: Label
    child_oid: int
    parent_oid: int
    child_parted: bool
    parent_parted: bool
    on_delete: str
    on_update: str
    """As `on_delete`, a key of ACTIONS."""
    whole: bool
    """MATCH FULL: all of its columns are NULL, or none."""
    deferrable: bool
    columns: tuple[str, ...]
    references: tuple[str, ...]
    operators: tuple[Label, ...]
    """(schema, operator) with which a reference is compared to its column, in that order."""
    collations: tuple[Label | None, ...]
    """(schema, name) of the reference's collation, where the column has another."""
    sets: tuple[str, ...]
    """The columns that ON DELETE SET NULL or SET DEFAULT sets."""
    required: tuple[str, ...]
    """The columns that are NOT NULL."""
    defaults: tuple[str | None, ...]
    """The columns' defaults, as SQL."""

    def matches(self, parent: Sequence[sql.Composable], child: Sequence[sql.Composable]) -> sql.Composable:
        """Whether the values are equal as the foreign key's own check sees it; NULL where one is NULL."""
        return sql.SQL(" AND ").join(
            sql.SQL("{} OPERATOR({}.{}) {}{}").format(
                left, sql.Identifier(schema), sql.SQL(operator), right,
                sql.SQL(" COLLATE {}").format(sql.Identifier(*collation)) if collation else sql.SQL(""),
            )
            for left, right, (schema, operator), collation in zip(
                parent, child, self.operators, self.collations, strict=True
            )
        )  # fmt: skip

    @property
    def child_source(self) -> sql.Composable:
        """The child table behind FROM, with those partitions, and without those heirs, that the key knows."""
        return _source(self.child, parted=self.child_parted)

    @property
    def parent_source(self) -> sql.Composable:
        """The parent table behind FROM."""
        return _source(self.parent, parted=self.parent_parted)


def onto(connection: Connection, oids: Sequence[int]) -> tuple[Link, ...]:
    """The enforced foreign keys that refer to rows of these relations; `lineage` adds those of partitioned parents."""
    return _read(connection, _ONTO, oids)


def of(connection: Connection, oids: Sequence[int]) -> tuple[Link, ...]:
    """The enforced foreign keys that rows of these relations are held to."""
    return _read(connection, _OF, oids)


def read(connection: Connection, oids: Sequence[int]) -> tuple[Link, ...]:
    """All foreign keys from or onto these tables, enforced or not, but for those that a partition has from its root."""
    either = "o.conparentid = 0 AND (o.conrelid = ANY (%(oids)s::oid[]) OR o.confrelid = ANY (%(oids)s::oid[]))"
    return _read(connection, either, oids)


def lineage(connection: Connection, oid: int) -> frozenset[int]:
    """The relation's OID, and those of the partitioned tables that it is a partition of."""
    return frozenset(one for (one,) in connection.execute(_LINEAGE, (oid, oid)).fetchall())


def _read(connection: Connection, side: str, oids: Sequence[int]) -> tuple[Link, ...]:
    with connection.cursor(row_factory=dict_row) as cursor:
        query = _LINKS.replace("{side}", side).encode()
        return tuple(Link(**_plain(row)) for row in cursor.execute(query, {"oids": list(oids)}))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return plain | {
        "operators": tuple(tuple(each) for each in row["operators"]),
        "collations": tuple(tuple(each) if each[0] else None for each in row["collations"]),
        "sets": tuple(row["sets"] or ()),
        "required": tuple(row["required"] or ()),
    }


def _source(table: Label, *, parted: bool) -> sql.Composable:
    return sql.SQL("{}" if parted else "ONLY {}").format(sql.Identifier(*table))
