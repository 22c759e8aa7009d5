"""What others do to a table between a rollback's preview and its restore: every way by which rows move, or seem to."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from random import Random

import psycopg
from psycopg import errors, sql

from tests.faults import outsiders
from tests.faults.editing import LOOSE, Editor
from tests.faults.oracle import TABLES

Connection = psycopg.Connection[tuple[object, ...]]
_ORDINARY = (
    "change",
    "empty",
    "back",
    "touch",
    "derive",
    "remove",
    "orphan",
    "again",
    "replace",
    "create",
    "swap",
    "rekey",
)
_REFUSED = (
    errors.IntegrityError, errors.DataError, errors.LockNotAvailable, errors.DependentObjectsStillExist, errors.ObjectInUse,
    errors.InvalidColumnReference, errors.DatatypeMismatch, errors.UndefinedFunction, errors.UndefinedColumn,
)  # fmt: skip
_THERE = 0.8
"""How often they are at the very tables that are rolled back."""
_QUIET = 0.3
"""How often nobody does anything."""
_OPEN = 0.25
"""How often a transaction is open during the preview."""
_LATE = 0.1
"""How often such a transaction ends only when the restore waits for it."""


class Mover:
    """One rollback's others. `open` before its preview, `move` after it, `wait` whenever its restore waits."""

    def __init__(self, url: str, dice: Random, tables: Sequence[str]) -> None:
        self._dice = dice
        self._tables = tables if dice.random() < _THERE else TABLES
        self._connection: Connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("SET lock_timeout TO '200ms'")
        self._url = url
        self._long: Connection | None = None
        self.done: list[str] = []

    def close(self) -> None:
        """What is still open is undone."""
        self._end("ROLLBACK")
        self._connection.close()

    def open(self) -> None:
        """Perhaps a transaction begins that writes, or locks rows alone, and stays open."""
        if self._dice.random() >= _OPEN:
            return
        self._long = psycopg.connect(self._url, autocommit=True)
        self._long.execute("BEGIN")
        editor = Editor(self._long, self._dice)
        if self._dice.random() < 0.3:
            self._hold(self._long)
        else:
            editor.some(
                self._dice.choice((1, 3)), ("change", "remove", "create", "again", "replace", "touch"), self._tables
            )
        self.done.append("open")

    def move(self) -> None:
        """What happens between; an open transaction ends before it, after it, or not yet."""
        late = self._long is not None and self._dice.random() < _LATE
        first = self._dice.random() < 0.5
        if first and not late:
            self._end(self._dice.choice(("COMMIT", "COMMIT", "ROLLBACK")))
        if self._dice.random() >= _QUIET:
            for _ in range(self._dice.choice((1, 1, 2))):
                self._one(self._dice.choices(list(_WAYS), [_OFTEN.get(way, 1) for way in _WAYS])[0])
        if not late:
            self._end(self._dice.choice(("COMMIT", "COMMIT", "ROLLBACK")))

    def wait(self) -> None:
        """The restore waits: whoever holds it up comes to an end."""
        self._end(self._dice.choice(("COMMIT", "COMMIT", "ROLLBACK")))

    def _end(self, how: str) -> None:
        if self._long is not None:
            self._long.execute(how.encode())
            self._long.close()
            self._long = None

    def _one(self, way: str) -> None:
        table = self._dice.choice(self._tables)
        with suppress(*_REFUSED):
            _WAYS[way](self, table)
            self.done.append(way)

    def _run(self, query: str, *values: object, **names: sql.Composable) -> None:
        self._connection.execute(sql.SQL(query).format(**names), values or None)

    def _columns(self, table: str, *, plain: bool = True) -> list[str]:
        rows = self._connection.execute(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' AND (attname <> 'id' OR NOT %s) ORDER BY attnum", [f"public.{table}", plain],
        ).fetchall()  # fmt: skip
        return [str(name) for (name,) in rows]

    def _some(self, *kinds: str) -> None:
        Editor(self._connection, self._dice).some(self._dice.choice((1, 1, 4)), kinds, self._tables)

    def edit(self, _: str) -> None:
        """Ordinary edits."""
        self._some(*_ORDINARY)

    def one(self, _: str) -> None:
        """Of one kind alone: rows come, go, or change."""
        self._some(self._dice.choice(("create", "remove", "change")))

    def refer(self, _: str) -> None:
        """Rows outside refer to users."""
        self._some("outside")

    def twin(self, table: str) -> None:
        """As many rows as before: one goes, another comes."""
        editor = Editor(self._connection, self._dice)
        with self._connection.transaction():
            editor.some(1, ("remove",), (table,))
            editor.some(1, ("create", "again"), (table,))

    def gone(self, table: str) -> None:
        """A row goes, and nothing else happens."""
        Editor(self._connection, self._dice).some(1, ("remove",), (table,))

    def same(self, table: str) -> None:
        """A row goes, and the same comes again."""
        name = sql.Identifier("public", table)
        columns = sql.SQL(", ").join(map(sql.Identifier, self._columns(table, plain=False)))
        with self._connection.transaction():
            self._run(
                "CREATE TEMP TABLE it ON COMMIT DROP AS SELECT {c} FROM {t} ORDER BY random() LIMIT 1",
                t=name,
                c=columns,
            )
            self._run("DELETE FROM {t} WHERE id IN (SELECT id FROM it)", t=name)
            self._run("INSERT INTO {t} ({c}) SELECT {c} FROM it", t=name, c=columns)

    def there_and_back(self, table: str) -> None:
        """A value changes, and is changed back; in one transaction, two, or with savepoints."""
        name, column = sql.Identifier("public", table), sql.Identifier(self._dice.choice(self._columns(table)))
        row = self._connection.execute(
            sql.SQL("SELECT t.id FROM {} AS t JOIN {} AS o USING (id) ORDER BY t.id LIMIT 1").format(
                name, sql.Identifier("was", table)
            )
        ).fetchone()
        shared = "SELECT {c} FROM {t} WHERE id = %s"
        with self._connection.transaction():
            self._run("CREATE TEMP TABLE it ON COMMIT DROP AS " + shared, row and row[0], t=name, c=column)
            with self._connection.transaction():
                self._run("UPDATE {t} SET {c} = (SELECT {c} FROM {t} WHERE id <> %s LIMIT 1) WHERE id = %s",
                    row and row[0], row and row[0], t=name, c=column)  # fmt: skip
            with self._connection.transaction(force_rollback=self._dice.random() < 0.3):
                self._run("UPDATE {t} SET {c} = (SELECT {c} FROM it) WHERE id = %s", row and row[0], t=name, c=column)

    def undone(self, _: str) -> None:
        """Edits that are undone: all of them, or those of a savepoint."""
        with self._connection.transaction(force_rollback=self._dice.random() < 0.5):
            self._some("change")
            with self._connection.transaction(force_rollback=True):
                self._some("change", "remove", "create")
            with self._connection.transaction():
                self._some("change", "touch")

    def _hold(self, connection: Connection) -> None:
        how = sql.SQL(self._dice.choice(("UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE")))
        for table in TABLES:
            connection.execute(sql.SQL("SELECT FROM {} FOR {}").format(sql.Identifier("public", table), how))

    def hold(self, _: str) -> None:
        """Rows are locked, and let go."""
        with self._connection.transaction():
            self._hold(self._connection)

    def refill(self, _: str) -> None:
        """All tables are emptied and filled again, as they were or nearly so; by INSERT or by COPY FREEZE."""
        every = [*TABLES, *outsiders.TABLES]
        with self._connection.transaction():
            columns = {each: self._columns(each, plain=False) for each in every}
            listed = {each: sql.SQL(", ").join(map(sql.Identifier, columns[each])) for each in every}
            for each in every:
                self._run("CREATE TEMP TABLE {n} ON COMMIT DROP AS SELECT {c} FROM {t}", c=listed[each],
                    n=sql.Identifier(f"it_{each}"), t=sql.Identifier("public", each))  # fmt: skip
            if self._dice.random() < 0.5:
                self._run(
                    "DELETE FROM {n} WHERE id IN (SELECT id FROM {n} LIMIT 1)", n=sql.Identifier("it_oauth_tokens")
                )
                self._run("UPDATE {n} SET content = content || '!' WHERE id IN (SELECT id FROM {n} LIMIT 1)",
                    n=sql.Identifier("it_chat_messages"))  # fmt: skip
            self._run("TRUNCATE {all}", all=sql.SQL(", ").join(sql.Identifier("public", each) for each in every))
            for each in every:
                names = {"n": sql.Identifier(f"it_{each}"), "t": sql.Identifier("public", each), "c": listed[each]}
                if self._dice.random() < 0.5:
                    self._run("INSERT INTO {t} ({c}) SELECT {c} FROM {n}", **names)
                    continue
                with self._connection.cursor().copy(sql.SQL("COPY {n} ({c}) TO STDOUT").format(**names)) as out:
                    data = b"".join(out)
                into = sql.SQL("COPY {t} ({c}) FROM STDIN (FREEZE)").format(**names)
                with self._connection.cursor().copy(into) as given:
                    given.write(data)

    def vacuum(self, table: str) -> None:
        """VACUUM in one of its forms, or CLUSTER; often right after edits."""
        if self._dice.random() < 0.6:
            self._some(*_ORDINARY)
        name = sql.Identifier("public", table)
        how = self._dice.choice(
            ("VACUUM {t}", "VACUUM FREEZE {t}", "VACUUM FREEZE {t}", "VACUUM FULL {t}", "CLUSTER {t} USING {k}")
        )
        self._run(how, t=name, k=sql.Identifier(f"{table}_pkey"))

    def rewrite(self, table: str) -> None:
        """Other storage, and the table is written anew."""
        self._run("ALTER TABLE {t} SET (fillfactor = 50)", t=sql.Identifier("public", table))
        self._run("VACUUM FULL {t}", t=sql.Identifier("public", table))

    def _at_hand(self, ways: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
        """One of the ways, each of a table: of one that these others are at, if there is any."""
        return self._dice.choice([way for way in ways if way[0] in self._tables] or list(ways))

    def retype(self, _: str) -> None:
        """A column's type changes and changes back, its values with it or not; the rows are written anew."""
        table, name, there, back = self._at_hand(
            (("users", "usage_documents", "int8", "int4 USING usage_documents + 1"),
             ("users", "usage_documents", "int8", "int4 USING usage_documents"),
             ("document_chunks", "chunk_index", "text USING chunk_index::text || '1'", "int4 USING chunk_index::int4"),
             ("conversations", "title", "bytea USING convert_to(title, 'UTF8')", "text USING convert_from(title, 'UTF8')"),
             ("oauth_tokens", "provider", "char(20)", "text"), ("usage_logs", "action", "varchar", "text"))
        )  # fmt: skip
        with self._connection.transaction():
            for type_ in (there, back):
                alter = "ALTER TABLE {t} ALTER COLUMN {c} TYPE " + type_
                self._run(alter, t=sql.Identifier("public", table), c=sql.Identifier(name))

    def column(self, table: str) -> None:
        """A column goes, and comes again: with its values, or all of them alike, without a row being written."""
        columns = [column for column in self._columns(table) if column != "number"]  # its sequence would go with it
        name, column = sql.Identifier("public", table), self._dice.choice(columns)
        row = self._connection.execute(
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
            [f"public.{table}", column],
        ).fetchone()
        assert row is not None
        names = {"t": name, "c": sql.Identifier(column), "y": sql.SQL(row[0])}  # type: ignore[arg-type]  # as quoted by PostgreSQL
        with self._connection.transaction():
            self._run("CREATE TEMP TABLE it ON COMMIT DROP AS SELECT id, {c} FROM {t}", **names)
            self._run("ALTER TABLE {t} DROP COLUMN {c}", **names)
            if self._dice.random() < 0.5:
                value = self._connection.execute(
                    sql.SQL("SELECT {c}::text FROM it ORDER BY id LIMIT 1").format(**names)
                ).fetchone()
                given = sql.Literal(value[0] if value else None)
                self._run("ALTER TABLE {t} ADD COLUMN {c} {y} DEFAULT {v}", **names, v=given)
                return
            self._run("ALTER TABLE {t} ADD COLUMN {c} {y}", **names)
            self._run("UPDATE {t} AS t SET {c} = it.{c} FROM it WHERE it.id = t.id", **names)

    def rename(self, _: str) -> None:
        """Two columns of a table change names: no row is written, and all of them differ."""
        table, one, two = self._at_hand(
            (("users", "usage_documents", "usage_chat_messages"), ("oauth_tokens", "created_at", "updated_at"),
             ("chat_messages", "role", "content"), ("conversations", "created_at", "updated_at"),
             ("user_settings", "created_at", "updated_at"), ("usage_logs", "action", "resource_type"),
             ("file_metadata", "filename", "file_type"))
        )  # fmt: skip
        if not {one, two} <= set(self._columns(table)):
            return
        with self._connection.transaction():
            self._connection.execute(LOOSE)  # a constraint would go with its column, and stand where none was made
            for old, new in ((one, "aside"), (two, one), ("aside", two)):
                self._run("ALTER TABLE {t} RENAME COLUMN {o} TO {n}", t=sql.Identifier("public", table),
                    o=sql.Identifier(old), n=sql.Identifier(new))  # fmt: skip


_WAYS: Mapping[str, Callable[[Mover, str], None]] = {
    "edit": Mover.edit, "one": Mover.one, "refer": Mover.refer, "twin": Mover.twin, "gone": Mover.gone, "same": Mover.same,
    "there_and_back": Mover.there_and_back, "undone": Mover.undone, "hold": Mover.hold, "refill": Mover.refill,
    "vacuum": Mover.vacuum, "rewrite": Mover.rewrite, "retype": Mover.retype, "column": Mover.column,
    "rename": Mover.rename,
}  # fmt: skip
_OFTEN = {"column": 3, "rename": 2, "twin": 2, "gone": 2, "vacuum": 2}
"""What leaves the fewest traces comes more often than the rest."""
