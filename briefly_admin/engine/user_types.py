"""The types of columns: which have a binary form that holds anywhere, and what those are that a database may lack.

A value can be copied as COPY binary where its bytes say the same to any database. They do not where the type has no
send function, where its receive function refuses all there is, or where the bytes hold the number (OID) of a type that
is not PostgreSQL's own: that of an array's elements, of a composite's fields. Nor may a domain refuse on the way back
what it never looked at (NOT VALID). Columns of all these are copied, digested and staged as their text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from psycopg.rows import dict_row

from briefly_admin.domain.manifest import FieldManifest, TypeManifest
from briefly_admin.engine.target import Connection

_OWN: Final = 10_000
"""OIDs below are the same in every PostgreSQL (FirstGenbkiObjectId)."""
_REFUSING: Final = (
    "'pg_node_tree_recv', 'pg_ndistinct_recv', 'pg_dependencies_recv', 'pg_mcv_list_recv', 'brin_bloom_summary_recv', "
    "'brin_minmax_multi_summary_recv'"
)
_FIELDS: Final = "a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped"
_PARTS: Final = f"""
SELECT t.typbasetype AS oid, false AS numbered WHERE t.typtype = 'd'
UNION ALL SELECT e.oid, true FROM pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid
UNION ALL SELECT a.atttypid, true FROM pg_attribute a WHERE {_FIELDS}
UNION ALL SELECT r.rngsubtype, false FROM pg_range r WHERE r.rngtypid = t.oid
UNION ALL SELECT r.rngtypid, false FROM pg_range r WHERE r.rngmultitypid = t.oid
"""
"""What the type t is made of; numbered: the OIDs of these types stand in the bytes of its values."""

AS_TEXT: Final = f"""
EXISTS (
  WITH RECURSIVE within (oid, numbered) AS (
    SELECT t.oid, false
    UNION SELECT p.oid, p.numbered FROM within w JOIN pg_type t ON t.oid = w.oid CROSS JOIN LATERAL ({_PARTS}) AS p
  )
  SELECT FROM within w JOIN pg_type x ON x.oid = w.oid LEFT JOIN pg_proc r ON r.oid = x.typreceive
  WHERE (w.numbered AND x.oid >= {_OWN}) OR x.typsend = 0 OR x.typreceive = 0
    OR (r.pronamespace = 'pg_catalog'::regnamespace AND r.proname IN ({_REFUSING}))
    OR EXISTS (SELECT FROM pg_constraint o WHERE o.contypid = x.oid AND NOT o.convalidated)
)
"""
"""A condition over pg_type AS t: its values are copied as text."""


def type_name(t: str, n: str) -> str:
    """An expression over these aliases of pg_type and pg_namespace: the type's name as manifests have it."""
    return (
        f"CASE WHEN {n}.nspname = 'pg_catalog' THEN format_type({t}.oid, NULL) "
        f"ELSE quote_ident({n}.nspname) || '.' || quote_ident({t}.typname) END"
    )


def _named(source: str, condition: str, order: str = "") -> str:
    return (
        f"SELECT {type_name('p', 'pn')} FROM {source} JOIN pg_namespace pn ON pn.oid = p.typnamespace "
        f"WHERE {condition} {order}"
    )


_DESCRIBED: Final = f"""
WITH RECURSIVE within (oid) AS (
  SELECT unnest(%s::oid[])
  UNION SELECT a.atttypid FROM pg_attribute a
  WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
), all_of (oid) AS (
  SELECT oid FROM within
  UNION SELECT p.oid FROM all_of w JOIN pg_type t ON t.oid = w.oid CROSS JOIN LATERAL ({_PARTS}) AS p
)
SELECT {type_name("t", "n")} AS name, CASE WHEN e.oid IS NOT NULL THEN 'a' ELSE t.typtype::text END AS kind,
  t.typtypmod AS typmod,
  ARRAY(SELECT l.enumlabel::text FROM pg_enum l WHERE l.enumtypid = t.oid ORDER BY l.enumsortorder) AS labels,
  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE {_FIELDS} ORDER BY a.attnum) AS fields,
  ARRAY({_named("pg_attribute a JOIN pg_type p ON p.oid = a.atttypid", _FIELDS, "ORDER BY a.attnum")}) AS types,
  ARRAY(SELECT a.atttypmod FROM pg_attribute a WHERE {_FIELDS} ORDER BY a.attnum) AS typmods,
  ({_named("pg_type p", "p.oid = coalesce(e.oid, nullif(t.typbasetype, 0), r.rngsubtype, m.rngtypid)")}) AS part,
  (SELECT quote_ident(cn.nspname) || '.' || quote_ident(c.collname) FROM pg_collation c
    JOIN pg_namespace cn ON cn.oid = c.collnamespace JOIN pg_type s ON s.oid = r.rngsubtype
    WHERE c.oid = r.rngcollation AND c.oid <> s.typcollation) AS collation,
  (SELECT quote_ident(cn.nspname) || '.' || quote_ident(c.opcname) FROM pg_opclass c
    JOIN pg_namespace cn ON cn.oid = c.opcnamespace WHERE c.oid = r.rngsubopc AND NOT c.opcdefault) AS opclass,
  (SELECT x.extname::text FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
    WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_extension'::regclass
      AND d.deptype = 'e') AS extension
FROM all_of w JOIN pg_type t ON t.oid = w.oid JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid
LEFT JOIN pg_range r ON r.rngtypid = t.oid LEFT JOIN pg_range m ON m.rngmultitypid = t.oid
WHERE n.nspname <> 'pg_catalog' ORDER BY 1
"""
_KINDS: Final = {
    "e": "enum", "d": "domain", "c": "composite", "r": "range", "m": "multirange", "a": "array", "b": "base",
}  # fmt: skip


def describe_types(
    connection: Connection, tables: Sequence[int], *, types: Sequence[int] = ()
) -> tuple[TypeManifest, ...]:
    """Every type outside pg_catalog that columns of these relations use, and these types (OIDs), with all that they
    are made of; each behind its parts.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_DESCRIBED.encode(), (list(types), list(tables))).fetchall()
    found = {str(row["name"]): _described(row) for row in rows}
    ordered: dict[str, TypeManifest] = {}

    def add(name: str) -> None:
        if name in found and name not in ordered:
            for part in found[name].made_of:
                add(part)
            ordered[name] = found[name]

    for name in found:
        add(name)
    return tuple(ordered.values())


def _described(row: Mapping[str, Any]) -> TypeManifest:
    kind, part = _KINDS[row["kind"]], row["part"] or ""
    fields = zip(row["fields"], row["types"], row["typmods"], strict=True)
    return TypeManifest(
        name=row["name"], kind=kind, labels=tuple(row["labels"]), base=part if kind == "domain" else "",
        typmod=row["typmod"] if kind == "domain" else -1, element="" if kind == "domain" else part,
        fields=tuple(FieldManifest(*field) for field in fields), collation=row["collation"] or "",
        opclass=row["opclass"] or "", extension=row["extension"] or "",
    )  # fmt: skip
