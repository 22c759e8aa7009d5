"""Random edits of the unified tables after a migration, hostile ones among them.

They need two schemas beside the tables: `was` and `became`, copies of them from before and after the migration.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from uuid import UUID

import psycopg
from psycopg import errors, sql

from tests.faults import outsiders
from tests.faults.oracle import TABLES

_REFUSED = (errors.IntegrityError, errors.DataError, errors.RaiseException, errors.LockNotAvailable)
LOOSE = """
DO $$ DECLARE each record; BEGIN
  FOR each IN SELECT c.conrelid::regclass AS rel, c.conname AS name FROM pg_constraint AS c
    WHERE c.contype IN ('c', 'f') AND c.connamespace = 'public'::regnamespace
  LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', each.rel, each.name); END LOOP;
  FOR each IN SELECT a.attrelid::regclass AS rel, a.attname AS name FROM pg_attribute AS a
    JOIN pg_class AS r ON r.oid = a.attrelid AND r.relkind = 'r' AND r.relnamespace = 'public'::regnamespace
    WHERE a.attnotnull AND a.attnum > 0 AND a.attname <> 'id'
  LOOP EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', each.rel, each.name); END LOOP;
END $$
"""
"""Takes away by hand the constraints that the migration made."""
_CHILDREN = {
    "document_chunks": ("file_id", "file_metadata", ("chunk_count", "embedding_count")),
    "chat_messages": ("conversation_id", "conversations", ("message_count",)),
}
_NEW: Mapping[str, Callable[[Random], str]] = {
    "text": lambda dice: dice.choice(("", " ", "pro", "trialing", "O'Neil % \\ {x}", "ünïcode ✓", f"x{dice.random()}")),
    "int4": lambda dice: str(dice.choice((0, 1, 2, 3, 7, 2**31 - 1))),
    "int8": lambda dice: str(dice.choice((0, 1, 2**40))),
    "numeric": lambda dice: dice.choice(("1.0", "1.00", "1", "0", "-0.0", "NaN", "1e3", "1000")),
    "float8": lambda dice: dice.choice(("0", "-0", "NaN", "Infinity", "1", "1e-300")),
    "json": lambda dice: dice.choice(('{"a":1,"b":2}', '{"b":2,"a":1}', '{"a": 1,"b":2}', '{"a":1.0,"b":2}')),
    "_text": lambda dice: dice.choice(("{}", '{""}', "{NULL}", '{"NULL",a}', "[0:1]={a,b}", "{a,b}", "{{a},{b}}")),
    "mood": lambda dice: dice.choice(("glad", "sad")),
    "jsonb": lambda dice: dice.choice(('{"cost": 1.0}', '{"cost": 1.00}', "{}", "[]", '["a"]', '{"b": null}', "1", '"x"')),
    "timestamptz": lambda dice: f"2025-0{dice.randint(1, 9)}-1{dice.randint(0, 9)} 12:00:00.{dice.randint(0, 999999):06}+00",
    "uuid": lambda dice: str(UUID(int=dice.getrandbits(128))),
}  # fmt: skip
"""Type → a new value, as text."""


class Editor:
    """One round's edits of one database."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], dice: Random) -> None:
        self._connection, self._dice = connection, dice
        self.done: Counter[str] = Counter()
        """How often each kind of edit was made; those that a constraint of the table refused are not in it."""
        rows = connection.execute(
            "SELECT n.nspname, c.relname, a.attname, t.typname FROM pg_attribute AS a JOIN pg_class AS c"
            " ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_type AS t ON t.oid = a.atttypid"
            " WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname IN ('public', 'was', 'became')"
            " AND c.relkind = 'r' AND a.attgenerated = '' AND c.relname = ANY (%s) ORDER BY c.relname, a.attnum",
            [list(TABLES)],
        ).fetchall()  # fmt: skip
        self._types: dict[str, dict[str, str]] = {table: {} for table in TABLES}
        self._known: dict[tuple[str, str], set[str]] = {}
        for schema, table, column, type_ in rows:
            self._known.setdefault((str(schema), str(table)), set()).add(str(column))
            if schema == "public":
                self._types[str(table)][str(column)] = str(type_)

    def edit(self, count: int, *, loose: float = 0.25) -> None:
        """So many edits; `loose`: how probably constraints that the migration made are dropped by hand before."""
        if self._dice.random() < loose:
            self._connection.execute(LOOSE)
        self.some(count, [*_KINDS, "orphan", "follow", "follow", "outside"])

    def some(self, count: int, kinds: Sequence[str], tables: Sequence[str] = TABLES) -> None:
        """So many edits of these kinds, each in a transaction of its own, or a savepoint; of these tables, mostly."""
        for _ in range(count):
            kind = self._dice.choice(kinds)
            try:
                with self._connection.transaction():
                    _KINDS[kind](self, self._dice.choice(tables))
            except _REFUSED:
                continue
            self.done[kind] += 1

    def _execute(self, query: str, *values: object, **names: sql.Composable) -> None:
        self._connection.execute(sql.SQL(query).format(**names), values)

    def _key(self, table: str) -> object:
        """Of any row that is there."""
        row = self._connection.execute(
            sql.SQL("SELECT id FROM {} ORDER BY md5(id::text || {}) LIMIT 1").format(
                sql.Identifier("public", table), sql.Literal(str(self._dice.random()))
            )
        ).fetchone()
        return row[0] if row else None

    def _columns(self, table: str) -> list[str]:
        """A few, never the key."""
        names = [name for name in self._types[table] if name != "id"]
        return self._dice.sample(names, self._dice.randint(1, min(3, len(names))))

    def _shared(self, table: str, old: str) -> list[str]:
        """The columns that the table has now, and in that schema."""
        return [name for name in self._types[table] if name in self._known[old, table]]

    def change(self, table: str) -> None:
        """New values."""
        for name in self._columns(table):
            if (type_ := self._types[table][name]) in _NEW:
                self._set(table, self._key(table), name, _NEW[type_](self._dice))

    def empty(self, table: str) -> None:
        """NULL."""
        for name in self._columns(table):
            self._set(table, self._key(table), name, None)

    def _set(self, table: str, key: object, name: str, value: str | None) -> None:
        self._execute(
            "UPDATE {table} SET {name} = %s WHERE id = %s", value, key,
            table=sql.Identifier("public", table), name=sql.Identifier(name),
        )  # fmt: skip

    def back(self, table: str) -> None:
        """Values of before the migration, or of after it, in one column, a few, or all of them."""
        old = self._old()
        shared = [name for name in self._shared(table, old) if name != "id"]
        names = self._dice.choice((self._dice.sample(shared, self._dice.randint(1, 3)), shared))
        sets = [sql.SQL("{} = o.{}").format(sql.Identifier(name), sql.Identifier(name)) for name in names]
        self._execute(
            "UPDATE {table} AS t SET {sets} FROM {old} AS o WHERE o.id = t.id AND t.id = %s", self._key(table),
            table=sql.Identifier("public", table), sets=sql.SQL(", ").join(sets), old=sql.Identifier(old, table),
        )  # fmt: skip

    def _old(self) -> str:
        return self._dice.choice(("was", "became"))

    def migrate_again(self) -> None:
        """The rows that are there become what the migration had made of them, in most tables."""
        for table in TABLES:
            try:
                with self._connection.transaction():
                    if self._dice.random() < 0.8:
                        self._migrate(table)
            except _REFUSED:
                continue

    def _migrate(self, table: str) -> None:
        public = sql.Identifier("public", table)
        names = [sql.Identifier(name) for name in self._shared(table, "became") if name not in {"id", "slot"}]
        now, then = (sql.SQL(", ").join(sql.SQL(of).format(name) for name in names) for of in ("t.{}", "o.{}"))
        if table in _STAMPED:
            self._execute("ALTER TABLE {table} DISABLE TRIGGER stamp", table=public)
        self._execute(
            "UPDATE {table} AS t SET {sets} FROM {old} AS o WHERE o.id = t.id"
            " AND NOT ROW({now})::record *= ROW({then})::record",
            table=public, sets=sql.SQL(", ").join(sql.SQL("{} = o.{}").format(name, name) for name in names),
            old=sql.Identifier("became", table), now=now, then=then,
        )  # fmt: skip
        if table in _STAMPED:
            self._execute("ALTER TABLE {table} ENABLE TRIGGER stamp", table=public)

    def touch(self, table: str) -> None:
        """An update of some rows to what they are: triggers fire, and nothing else changes."""
        self._execute(
            "UPDATE {table} SET id = id WHERE hashtext(id::text || %s) & 7 = 0", str(self._dice.random()),
            table=sql.Identifier("public", table),
        )  # fmt: skip

    def stamp(self, _: str) -> None:
        """A column that a trigger writes, by hand, with the triggers off."""
        table, old = self._dice.choice(("users", "conversations")), self._dice.random() < 0.5
        named = sql.Identifier("public", table)
        self._execute("ALTER TABLE {table} DISABLE TRIGGER USER", table=named)
        value = "(SELECT updated_at FROM {old} AS o WHERE o.id = t.id)" if old else "now()"
        self._execute(
            "UPDATE {table} AS t SET updated_at = " + value + " WHERE id = %s", self._key(table), table=named,
            old=sql.Identifier("was", table),
        )  # fmt: skip
        self._execute("ALTER TABLE {table} ENABLE TRIGGER USER", table=named)

    def triggers(self, _: str) -> None:
        """A trigger is disabled, or fires in another way from now on."""
        how = sql.SQL(self._dice.choice(("DISABLE", "ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA")))
        self._execute(
            "ALTER TABLE {table} {how} TRIGGER stamp",
            table=sql.Identifier("public", self._dice.choice(_STAMPED)),
            how=how,
        )

    def count(self, _: str) -> None:
        """A sequence goes on, or is set back."""
        self._execute("SELECT setval('public.numbers', %s, %s)", self._dice.randint(1, 40), self._dice.random() < 0.5)

    def derive(self, _: str) -> None:
        """A counted column: one more, one less, or what is right now; of one row or of all."""
        child, (reference, parent, columns) = self._dice.choice(list(_CHILDREN.items()))
        value = self._dice.choice(("{name} + 1", "{name} - 1", "{name}", "{right}", "{right}"))
        where = self._dice.choice(("id = %s", "id = %s OR true"))
        name = self._dice.choice([name for name in columns if name in self._types[parent]])
        embedded = "embedding IS NOT NULL OR embedding_id IS NOT NULL" if name == "embedding_count" else "true"
        right = "(SELECT count(*) FROM {child} AS c WHERE c.{reference} = t.id AND (" + embedded + "))"
        text = "UPDATE {table} AS t SET {name} = " + value.replace("{right}", right) + " WHERE " + where
        self._execute(
            text, self._key(parent), table=sql.Identifier("public", parent), name=sql.Identifier(name),
            child=sql.Identifier("public", child), reference=sql.Identifier(reference),
        )  # fmt: skip

    def follow(self, _: str) -> None:
        """A parent that was counted right before the migration gets one more child; its count may follow."""
        child, (reference, parent, columns) = self._dice.choice(list(_CHILDREN.items()))
        names = {
            "child": sql.Identifier(child), "parent": sql.Identifier(parent), "name": sql.Identifier(columns[0]),
            "reference": sql.Identifier(reference),
        }  # fmt: skip
        right = "(SELECT count(*) FROM {schema}.{child} AS c WHERE c.{reference} = p.id)"
        query = "SELECT p.id FROM was.{parent} AS p JOIN public.{parent} USING (id) WHERE p.{name} = " + right
        query += " ORDER BY md5(p.id::text || %s) LIMIT 1"
        found = self._connection.execute(
            sql.SQL(query).format(schema=sql.Identifier("was"), **names), [str(self._dice.random())]
        ).fetchone()
        if found is None:
            return
        self._execute(
            "UPDATE public.{child} SET {reference} = %s WHERE id = %s", found[0], self._key(child), **names
        )  # fmt: skip
        if self._dice.random() < 0.5:
            follow = "UPDATE public.{parent} AS p SET {name} = " + right + " WHERE id = %s"
            self._execute(follow, found[0], schema=sql.Identifier("public"), **names)

    def remove(self, table: str) -> None:
        """A row, or a few children of one parent."""
        self._execute("DELETE FROM {table} WHERE id = %s", self._key(table), table=sql.Identifier("public", table))

    def orphan(self, _: str) -> None:
        """A parent with or without its children; some of the children alone; children given to another parent."""
        child, (reference, parent, _columns) = self._dice.choice(list(_CHILDREN.items()))
        key, way = self._key(parent), self._dice.randrange(3)
        names = {
            "child": sql.Identifier("public", child), "parent": sql.Identifier("public", parent),
            "reference": sql.Identifier(reference),
        }  # fmt: skip
        if way == 0:
            self._execute("UPDATE {child} SET {reference} = %s WHERE {reference} = %s", self._key(parent), key, **names)
            return
        self._execute("DELETE FROM {child} WHERE {reference} = %s AND hashtext(id::text) & 1 = 0", key, **names)
        if way == 1:
            self._execute("DELETE FROM {child} WHERE {reference} = %s", key, **names)
            self._execute("DELETE FROM {parent} WHERE id = %s", key, **names)

    def again(self, table: str) -> None:
        """Rows that went come again, all of them or one, as they were before or after the migration."""
        limit, old = sql.SQL(self._dice.choice(("LIMIT 1", ""))), self._old()
        self._execute(
            "INSERT INTO {table} ({names}) SELECT {names} FROM {old} AS o WHERE NOT EXISTS"
            " (SELECT FROM {table} AS t WHERE t.id = o.id) ORDER BY md5(id::text || %s) {limit}",
            str(self._dice.random()), table=sql.Identifier("public", table), old=sql.Identifier(old, table),
            names=sql.SQL(", ").join(map(sql.Identifier, self._shared(table, old))), limit=limit,
        )  # fmt: skip

    def replace(self, table: str) -> None:
        """A row goes, and another with its key comes."""
        key, names = self._key(table), [name for name in self._types[table] if name != "id"]
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        schema = sql.Identifier("public", table)
        self._execute("CREATE TEMP TABLE other ON COMMIT DROP AS SELECT * FROM {t} WHERE id = %s", key, t=schema)
        self._execute("DELETE FROM {t} WHERE id = %s", key, t=schema)
        self._execute("UPDATE other SET {name} = NULL", name=sql.Identifier(self._dice.choice(names)))
        self._execute("INSERT INTO {t} (id, {names}) SELECT id, {names} FROM other", t=schema, names=listed)
        self._execute("DROP TABLE other")

    def create(self, table: str) -> None:
        """A new row, like one that is there; a child's parent may be told, or not."""
        types = self._types[table]
        names = [name for name in types if name != "id"]
        unique = {"email", "key", "provider"}
        values = [
            sql.SQL("{} || 'x' || md5(random()::text)").format(sql.Identifier(name))
            if name in unique and not (name == "provider" and self._dice.random() < 0.5)
            else sql.SQL("(1000 + 9000 * random())::int4")
            if name == "slot"
            else sql.Identifier(name)
            for name in names
        ]
        self._execute(
            "INSERT INTO {table} (id, {names}) SELECT %s::uuid, {values} FROM {table} WHERE id = %s",
            str(UUID(int=self._dice.getrandbits(128))), self._key(table), table=sql.Identifier("public", table),
            names=sql.SQL(", ").join(map(sql.Identifier, names)), values=sql.SQL(", ").join(values),
        )  # fmt: skip
        if table in _CHILDREN and self._dice.random() < 0.5:
            self.derive(table)

    def swap(self, _: str) -> None:
        """Two users' e-mails, or numbers, which are unique."""
        one, two = self._key("users"), self._key("users")
        column, aside = self._dice.choice((("email", "'swapped'"), ("slot", "-1")))
        users, name = sql.Identifier("public", "users"), sql.Identifier(column)
        give = "UPDATE {t} AS t SET {name} = p.{name} FROM pair AS p WHERE t.id = %s AND p.id = %s"
        self._execute("CREATE TEMP TABLE pair ON COMMIT DROP AS SELECT id, {name} FROM {t}", t=users, name=name)
        self._execute("UPDATE {t} SET {name} = " + aside + " WHERE id = %s", one, t=users, name=name)
        self._execute(give, two, one, t=users, name=name)
        self._execute(give, one, two, t=users, name=name)
        self._execute("DROP TABLE pair")

    def rekey(self, table: str) -> None:
        """A row's key changes to a new one, or to that of a row that is gone; or two rows change keys."""
        key, name = self._key(table), sql.Identifier("public", table)
        if self._dice.random() < 0.3:
            other, aside = self._key(table), str(UUID(int=self._dice.getrandbits(128)))
            for old, new in ((key, aside), (other, key), (aside, other)):
                self._execute("UPDATE {t} SET id = %s WHERE id = %s", new, old, t=name)
            return
        gone = self._connection.execute(
            sql.SQL("SELECT o.id FROM {} AS o WHERE NOT EXISTS (SELECT FROM {} AS t WHERE t.id = o.id) LIMIT 1").format(
                sql.Identifier("was", table), name
            )
        ).fetchone()
        new = str(UUID(int=self._dice.getrandbits(128)))
        self._execute("UPDATE {t} SET id = %s WHERE id = %s", gone[0] if gone else new, key, t=name)

    def adopt(self, _: str) -> None:
        """A user has another one as his lead; a child has any other parent."""
        if self._dice.random() < 0.5:
            self._set("users", self._key("users"), "lead", str(self._key("users")))
            return
        table = self._dice.choice([table for table in TABLES if "user_id" in self._types[table]])
        self._set(table, self._key(table), "user_id", str(self._key("users")))

    def outside(self, _: str) -> None:
        """Rows of tables outside refer to a new user, or to any."""
        if self._dice.random() < 0.6:
            self.create("users")
        newest = sql.SQL(
            "SELECT id FROM public.users AS t ORDER BY EXISTS (SELECT FROM was.users AS o WHERE o.id = t.id), id LIMIT 1"
        )
        row = self._connection.execute(newest).fetchone()
        if row is not None:
            outsiders.refer(self._connection, row[0] if self._dice.random() < 0.7 else self._key("users"), self._dice)


_STAMPED = ("users", "conversations")
_KINDS: Mapping[str, Callable[[Editor, str], None]] = {
    "change": Editor.change, "empty": Editor.empty, "back": Editor.back, "touch": Editor.touch,
    "stamp": Editor.stamp, "derive": Editor.derive, "remove": Editor.remove, "orphan": Editor.orphan,
    "again": Editor.again, "replace": Editor.replace, "create": Editor.create, "swap": Editor.swap,
    "rekey": Editor.rekey, "adopt": Editor.adopt, "outside": Editor.outside, "triggers": Editor.triggers,
    "count": Editor.count, "follow": Editor.follow,
}  # fmt: skip
