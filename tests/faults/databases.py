"""What a target holds, as texts that two databases can be compared by; copies of databases."""

import secrets
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from briefly_admin.embedded import EmbeddedServers
from briefly_admin.plans import plan

_SCHEMA = """
SELECT format('%s %s: %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
  WHERE connamespace = 'public'::regnamespace UNION ALL
SELECT format('%s valid=%s', pg_get_indexdef(i.indexrelid), i.indisvalid) FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
  WHERE c.relnamespace = 'public'::regnamespace UNION ALL
SELECT format('%s.%s %s %s default %s', c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid))
  FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""

Contents = dict[str, list[str]]
"""Every row of every table as text, the quarantine, and the schema, each sorted."""


def contents(url: str) -> Contents:
    """What the target holds at one instant: whoever changes the schema waits as long as it is read."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SET TimeZone TO 'UTC'")
        tables = [sql.Identifier("public", table.name) for table in plan("unified").tables]
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.SQL(", ").join(tables)))

        def texts(query: sql.Composable | str) -> list[str]:
            return sorted(str(text) for (text,) in connection.execute(query))  # type: ignore[arg-type]  # our own texts

        found = {
            name: texts(sql.SQL("SELECT t::text FROM public.{} AS t").format(sql.Identifier(name)))
            for name in (table.name for table in plan("unified").tables)
        }
        found["schema"] = texts(_SCHEMA)
        if (connection.execute("SELECT to_regclass('briefly_migration.quarantine')").fetchone() or [None])[0]:
            found["quarantine"] = texts(
                "SELECT format('%s %s %s %s', \"table\", key, cause, message) FROM briefly_migration.quarantine"
            )
        return found


def difference(left: Contents, right: Contents) -> list[str]:
    """What is in one of them alone, a few lines a table; empty where they are equal."""
    lines = []
    for name in left.keys() | right.keys():
        mine, other = left.get(name, []), right.get(name, [])
        if mine != other:
            lines += [f"{name}: {len(mine)} and {len(other)} rows"]
            lines += [f"- {text}" for text in sorted(set(mine) - set(other))[:3]]
            lines += [f"+ {text}" for text in sorted(set(other) - set(mine))[:3]]
    return lines


def copy_database(servers: EmbeddedServers, template: str) -> str:
    """A fresh copy of a database that nobody is connected to, with the target's owner."""
    name = f"faults_{secrets.token_hex(6)}"
    owner = urlsplit(servers.target_url).username or ""
    with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
        connection.execute(query.format(*map(sql.Identifier, (name, template, owner))))
    return urlsplit(servers.target_url)._replace(path=f"/{name}").geturl()


def drop_database(servers: EmbeddedServers, url: str) -> None:
    """Remove it, whoever is connected."""
    with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
        name = sql.Identifier(urlsplit(url).path[1:])
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
