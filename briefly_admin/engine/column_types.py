"""The types of the plan's columns as the target has them, of all tables at once."""

from collections.abc import Mapping
from typing import Final

from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Plan

_TYPES: Final = """
SELECT n.nspname, c.relname, jsonb_object_agg(a.attname, coalesce(b.typname, t.typname))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype AND t.typtype = 'd'
WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
GROUP BY 1, 2
"""


def column_types(connection: Connection, plan: Plan) -> dict[str, Mapping[str, str]]:
    """Table of the plan → column → pg_type.typname, of the base type where the type is a domain.

    A table that is not there is left out.
    """
    names = [table.name for table in plan.tables]
    found: dict[tuple[str, str], Mapping[str, str]] = {
        (schema, name): types
        for schema, name, types in connection.execute(_TYPES, ([t.schema for t in plan.tables], names))
    }
    return {t.name: found[t.schema, t.name] for t in plan.tables if (t.schema, t.name) in found}
