"""When rows hold one another: inner foreign keys and unique indexes step aside for the writes, and come back.

Most rollbacks need none of it: rows are deleted children first, inserted parents first, then updated. But unique values
may have been swapped between rows, foreign keys may form cycles, and a child may have moved from a parent that is to
go. Dropping and adding again inside the transaction is exact, whatever the constraint, and checks every row anew; it
costs ACCESS EXCLUSIVE and an index build, so it is the second try.
"""

from collections.abc import Sequence
from typing import Any, Final

from psycopg import sql

from briefly_admin.engine.rollback import links
from briefly_admin.engine.rollback.difference import Difference
from briefly_admin.engine.target import Connection

_INDEXES: Final = """
SELECT c.relname, n.nspname, pg_get_indexdef(i.indexrelid), o.conname, pg_get_constraintdef(o.oid),
  obj_description(i.indexrelid, 'pg_class'), obj_description(o.oid, 'pg_constraint'),
  ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum > 0
        AND (a.attnum = ANY (i.indkey::int2[]) OR a.attnum IN (SELECT d.refobjsubid FROM pg_depend d
             WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid)))
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_constraint o ON o.conindid = i.indexrelid AND o.contype IN ('p', 'u', 'x')
WHERE i.indrelid = %(table)s::oid AND (i.indisunique OR i.indisexclusion)
  AND NOT EXISTS (SELECT FROM pg_constraint f WHERE f.conindid = i.indexrelid AND f.contype = 'f')
ORDER BY c.relname
"""


def loosen(connection: Connection, differences: Sequence[Difference]) -> list[sql.Composed]:
    """Take them away; the statements that put them back, in the order to run them."""
    back: list[sql.Composed] = []
    # Foreign keys first: they depend on the unique indexes of their parents.
    inner = _foreign_keys(connection, differences)
    for difference in differences:
        if difference.counts.update:
            back += _indexes(connection, difference)
            back += _identities(connection, difference)
    return back + inner


def _foreign_keys(connection: Connection, differences: Sequence[Difference]) -> list[sql.Composed]:
    chosen = {(found.pair.current.schema, found.pair.current.name) for found in differences}
    back: list[sql.Composed] = []
    for link in links.read(connection, [found.pair.current.oid for found in differences]):
        if {link.child, link.parent} <= chosen:
            table = sql.Identifier(*link.child)
            back += _constraint(connection, table, link.name, link.definition, link.comment)
    return back


def _indexes(connection: Connection, difference: Difference) -> list[sql.Composed]:
    """Unique indexes and exclusions that stand on a column that some row will change; never the key's."""
    table = difference.pair.current
    back: list[sql.Composed] = []
    for row in connection.execute(_INDEXES, {"table": table.oid}).fetchall():
        name, schema, definition, constraint, constraint_definition, comment, constraint_comment, columns = row
        if not set(columns) & set(difference.columns) or set(columns) == set(difference.pair.staged.manifest.key):
            continue
        if constraint:
            back += _constraint(connection, table.identifier, constraint, constraint_definition, constraint_comment)
        else:
            index = sql.Identifier(schema, name)
            connection.execute(sql.SQL("DROP INDEX {}").format(index))
            back.append(_text(definition))
            back += _comment(sql.SQL("INDEX {}").format(index), comment)
    return back


def _identities(connection: Connection, difference: Difference) -> list[sql.Composed]:
    """GENERATED ALWAYS refuses an UPDATE, whatever it says; BY DEFAULT takes it."""
    table = difference.pair.current
    alter = "ALTER TABLE {} ALTER COLUMN {} SET GENERATED {}"
    back: list[sql.Composed] = []
    for name in always(difference):
        column = sql.Identifier(name)
        connection.execute(sql.SQL(alter).format(table.identifier, column, sql.SQL("BY DEFAULT")))
        back.append(sql.SQL(alter).format(table.identifier, column, sql.SQL("ALWAYS")))
    return back


def always(difference: Difference) -> list[str]:
    """Columns GENERATED ALWAYS AS IDENTITY in which rows to be updated differ."""
    identities = {column.name for column in difference.pair.current.columns if column.identity == "a"}
    return [name for name in difference.columns if name in identities]


def _constraint(
    connection: Connection, table: sql.Identifier, name: str, definition: str, comment: str | None
) -> list[sql.Composed]:
    constraint = sql.Identifier(name)
    connection.execute(sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, constraint))
    add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(table, constraint, _text(definition))
    return [add, *_comment(sql.SQL("CONSTRAINT {} ON {}").format(constraint, table), comment)]


def _comment(what: sql.Composed, comment: str | None) -> list[sql.Composed]:
    return [sql.SQL("COMMENT ON {} IS {}").format(what, sql.Literal(comment))] if comment else []


def _text(definition: Any) -> sql.Composed:
    """What the catalog's own functions wrote: quoted by PostgreSQL."""
    return sql.Composed([sql.SQL(definition)])
