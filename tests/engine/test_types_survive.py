"""Everything that PostgreSQL has survives a backup and its staging, byte for byte, here and in another database."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import psycopg
import pytest
from marshmallow import Schema
from psycopg import sql

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import Refused
from briefly_admin.domain.manifest import Manifest, TableManifest
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine import backup, scratch
from briefly_admin.engine.catalog import read_table
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.snapshot import column_list
from briefly_admin.engine.staged import copy_into, create_staged, create_types, staged_digest
from briefly_admin.engine.target import Connection, Target
from briefly_admin.plans.base import Column, Plan, SchemaChange, Table
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import BackupReader, Vault
from tests.engine import every_type
from tests.engine.journal_memory import RunRecord
from tests.engine.sealed_target import SealedTarget, plan_of

EVERY = Plan("every", "Every", "All types.", [Table(every_type.NAME, Schema, [Column("id", "bigint")])])
PEOPLE = Plan("p", "P", "One table.", [Table("people", Schema, [Column("id", "integer")])])
ROWS = 1000
"""Each edge of a type stands in several of them; one row has values of 100 kB."""


@contextmanager
def prepared(dsn: str) -> Iterator[Connection]:
    """A session of ours, in which CREATE makes things in public."""
    with Target(dsn).session(bulk=True) as connection:
        connection.execute("SET search_path TO public")
        yield connection


def take(
    dsn: str, store: Path, plan: Plan = EVERY, *, beyond: Sequence[tuple[str, str]] = (), kind: RunKind = RunKind.BACKUP
) -> BackupReader:
    """Back up, proven; opened again."""
    record = RunRecord()
    vault = Vault(open_store(f"file://{store}"), MasterKeys({"k1": bytes(32)}))
    context = RunContext(
        run_id=record.run_id, attempt=1, kind=kind, plan=plan, target=Target(dsn), vault=vault,
        journal=record.next_attempt(), report=lambda _progress: None, read_config=RunConfig,
        options={"beyond": [list(pair) for pair in beyond]},
    )  # fmt: skip
    backup_id = UUID(backup.run(context)["backup_id"])
    recorded = record.backups[backup_id]
    return vault.open(backup_id, recorded["shred_key"], recorded["manifest_sha256"])


def stage(connection: Connection, reader: BackupReader, *, types: bool = False) -> dict[str, list[bytes]]:
    """Every table into a scratch schema: title → its rows as COPY binary, sorted. Digests are the manifest's."""
    schema, found = scratch.create_scratch(connection, uuid4(), 1), {}
    if types:
        create_types(connection, reader.manifest, schema)
    for title, table in reader.manifest.by_title.items():
        staged = create_staged(connection, reader.manifest, table, schema)
        for stream in table.streams:
            with connection.cursor().copy(copy_into(staged)) as loading:
                for piece in reader.read_table_stream(stream):
                    loading.write(piece)
        assert staged_digest(connection, staged) == table.digest, title
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
        found[title] = rows_of(connection, names, staged.identifier)
    return found


def rows_of(connection: Connection, columns: sql.Composable, relation: sql.Composable) -> list[bytes]:
    copy = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT (FORMAT binary)").format(columns, relation)
    with connection.cursor().copy(copy) as blocks:
        return sorted(bytes(block).removeprefix(b"PGCOPY\n\xff\r\n\0" + bytes(8)) for block in blocks)


def original(connection: Connection, manifest: TableManifest) -> list[bytes]:
    table = read_table(connection, manifest.schema, manifest.name)
    assert table is not None
    return rows_of(connection, column_list(table), table.identifier)


@pytest.fixture
def every(target_database: str) -> str:
    with Target(target_database).session(bulk=True) as connection, connection.transaction():
        every_type.make(connection)
        every_type.fill(connection, ROWS)
    return target_database


def test_the_table_has_every_type_that_a_column_can_have(every: str) -> None:
    """What a newer PostgreSQL brings must be added to every_type."""
    with psycopg.connect(every) as connection:
        there = connection.execute(
            "SELECT t.typname FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND e.typarray = t.oid "
            "WHERE t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm') "
            "AND coalesce(e.typtype, 'b') IN ('b', 'r', 'm') AND coalesce(e.typcategory, '') <> 'Z'"
        ).fetchall()
        used = connection.execute(
            "SELECT DISTINCT t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = %s::regclass AND attnum > 0",
            (sql.Identifier(every_type.NAME).as_string(),),
        ).fetchall()
    assert {name for (name,) in there} - {name for (name,) in used} <= {"_char"}


def test_every_type_survives_byte_for_byte(every: str, tmp_path: Path) -> None:
    reader = take(every, tmp_path)
    [table] = reader.manifest.tables
    assert (table.rows, reader.verify()) == (ROWS, [])
    text = {column.type for column in table.columns if not column.binary}
    assert {"aclitem", "gtsvector", "pg_node_tree", "pg_mcv_list", "aclitem[]", "public._vector"} <= text
    assert {'"kinds of%".deep', '"kinds of%"._mood', '"kinds of%".words', "jsonb"} & text == {
        '"kinds of%".deep', '"kinds of%"._mood',
    }  # fmt: skip
    with Target(every).session(bulk=True) as connection:
        staged = stage(connection, reader)
        assert staged[every_type.NAME] == original(connection, table)
        assert stage(connection, reader, types=True) == staged


def test_types_are_described_in_order_and_found_again(every: str, tmp_path: Path) -> None:
    manifest = take(every, tmp_path).manifest
    types = {each.name.removeprefix('"kinds of%".'): each for each in manifest.types}
    assert types["mood"].labels == ("sad", "so so", 'it\'s "fine" 100%, really', "grün ☘")
    assert types["small"].base == '"kinds of%".positive'
    assert "code" not in types  # no column has it
    assert types['"a Pair"'].fields[1].name == 'a "note", (odd)'
    assert [(f.type, f.typmod) for f in types['"a Pair"'].fields[4:]] == [("numeric[]", (6 << 16 | 2) + 4)]
    assert (types["words"].element, types["words"].collation) == ("text", 'pg_catalog."C"')
    assert (types['"many Spells"'].kind, types['"many Spells"'].element) == ("multirange", '"kinds of%".spell')
    assert (types["point3"].base, types["point3"].typmod) == ("public.vector", 3)
    assert {each.extension for each in manifest.types} == {"", "vector", "hstore"}
    assert types["public.hstore"].extension == "hstore"
    assert types["_mood"].kind == "array"
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@contextmanager
def another_database(superuser: Callable[[str], str], dsn: str, encoding: str = "UTF8") -> Iterator[str]:
    """Another database of the same owner: no type of ours is there, and vector is in a schema of another name."""
    other = urlsplit(dsn)._replace(path=f"/elsewhere_{uuid4().hex[:12]}")
    name, owner = sql.Identifier(other.path[1:]), sql.Identifier(other.username or "")
    with psycopg.connect(superuser(dsn), autocommit=True) as connection:
        create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LOCALE 'C'")
        connection.execute(create.format(name, owner, sql.Literal(encoding)))
        with psycopg.connect(superuser(other.geturl()), autocommit=True) as inside:
            inside.execute(sql.SQL("CREATE SCHEMA extensions AUTHORIZATION {}").format(owner))
            inside.execute("CREATE EXTENSION vector SCHEMA extensions")
        yield other.geturl()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def elsewhere(superuser_database: Callable[[str], str], target_database: str) -> Iterator[str]:
    with another_database(superuser_database, target_database) as dsn:
        yield dsn


def test_texts_are_utf8_whatever_the_database_holds_them_in(
    superuser_database: Callable[[str], str], target_database: str, elsewhere: str, tmp_path: Path
) -> None:
    with another_database(superuser_database, target_database, "LATIN1") as latin:
        with prepared(latin) as connection:
            connection.execute("CREATE TABLE people (id int PRIMARY KEY, née text, l text[])")
            connection.execute("INSERT INTO people VALUES (1, 'é', '{ÿ}')")
            reader = take(latin, tmp_path, PEOPLE)
            rows = original(connection, reader.manifest.tables[0])
        assert "é".encode() in rows[0]
        with Target(elsewhere).session(bulk=True) as connection:
            assert stage(connection, reader)["people"] == rows


def test_every_type_survives_in_a_database_that_has_none_of_them(every: str, elsewhere: str, tmp_path: Path) -> None:
    reader = take(every, tmp_path)
    with Target(elsewhere).session(bulk=True) as connection:
        with pytest.raises(Refused, match="lacks the types of these columns"):
            stage(connection, reader)
        with pytest.raises(Refused, match="the extension hstore") as raised:
            stage(connection, reader, types=True)
        assert "CREATE EXTENSION hstore" in raised.value.remedy
        connection.execute("CREATE SCHEMA stores")
        connection.execute("CREATE EXTENSION hstore SCHEMA stores")
        with Target(every).session(bulk=True) as here:
            assert stage(connection, reader, types=True)[every_type.NAME] == original(here, reader.manifest.tables[0])


def test_types_that_are_others_elsewhere_are_made_anew(every: str, elsewhere: str, tmp_path: Path) -> None:
    reader = take(every, tmp_path)
    others = """
        CREATE EXTENSION hstore SCHEMA extensions;
        CREATE SCHEMA "kinds of%";
        CREATE TYPE "kinds of%".mood AS ENUM ('sad');
        CREATE DOMAIN "kinds of%".positive AS text CHECK (VALUE = '');
        CREATE TYPE "kinds of%"."a Pair" AS (n int);
        CREATE TYPE "kinds of%".words AS RANGE (SUBTYPE = text, SUBTYPE_OPCLASS = text_pattern_ops);
        CREATE TYPE "kinds of%".floats AS RANGE (SUBTYPE = float4);
        CREATE TABLE "kinds of%".owner (name text)
    """
    with Target(elsewhere).session(bulk=True) as connection, Target(every).session(bulk=True) as here:
        connection.execute(others.encode())
        assert stage(connection, reader, types=True)[every_type.NAME] == original(here, reader.manifest.tables[0])


def test_a_domain_that_refuses_what_it_holds_is_no_damage(target_database: str, tmp_path: Path) -> None:
    with prepared(target_database) as connection:
        connection.execute("CREATE DOMAIN aged AS int; CREATE TABLE people (id int PRIMARY KEY, age aged, more aged[])")
        connection.execute("INSERT INTO people VALUES (1, -1, '{-1}')")
        connection.execute("ALTER DOMAIN aged ADD CONSTRAINT adult CHECK (VALUE > 17) NOT VALID")
        reader = take(target_database, tmp_path, PEOPLE)
        assert [column.binary for column in reader.manifest.tables[0].columns] == [True, False, False]
        assert stage(connection, reader)["people"] == original(connection, reader.manifest.tables[0])


def test_odd_tables_beyond_the_plan_survive(target_database: str, tmp_path: Path) -> None:
    with prepared(target_database) as connection:
        connection.execute("""
            CREATE SCHEMA other;
            CREATE TABLE people (id int PRIMARY KEY);
            CREATE TABLE other.people (note text);
            INSERT INTO other.people SELECT 'same' FROM generate_series(1, 3);
            CREATE TABLE "no ""columns"" %s" ();
            INSERT INTO "no ""columns"" %s" SELECT FROM generate_series(1, 5);
            CREATE TABLE empty (id int GENERATED BY DEFAULT AS IDENTITY, other bigserial);
            CREATE TABLE parts (id int, note text) PARTITION BY LIST (id);
            CREATE TABLE extra (note text, gone int, id int);
            ALTER TABLE extra DROP COLUMN gone;
            ALTER TABLE parts ATTACH PARTITION extra FOR VALUES IN (7);
            INSERT INTO parts VALUES (7, 'seven');
            CREATE TABLE child (more int) INHERITS (other.people);
            INSERT INTO child VALUES ('child', 1);
            SELECT setval('empty_other_seq', 41, false)
        """)
        beyond = [("other", "people"), ("public", 'no "columns" %s'), ("public", "empty"), ("public", "extra"), ("public", "child")]  # fmt: skip
        reader = take(target_database, tmp_path, PEOPLE, beyond=beyond)
        tables = reader.manifest.by_title
        assert {title: (table.rows, table.key) for title, table in tables.items()} == {
            "people": (0, ("id",)), "other.people": (3, ()), 'no "columns" %s': (5, ()), "empty": (0, ()),
            "extra": (1, ()), "child": (1, ()),
        }  # fmt: skip
        assert [column.name for column in tables["extra"].columns] == ["note", "id"]
        assert [(s.name, s.last_value, s.is_called) for s in reader.manifest.sequences] == [
            ("empty_id_seq", 1, False), ("empty_other_seq", 41, False),
        ]  # fmt: skip
        staged = stage(connection, reader)
        assert staged == {title: original(connection, table) for title, table in tables.items()}
    assert reader.verify() == []


def test_foreign_keys_are_named_and_those_over_periods_are_not(target_database: str, tmp_path: Path) -> None:
    with prepared(target_database) as connection:
        connection.execute("""
            CREATE TABLE people (id int, "b %" int, PRIMARY KEY ("b %", id));
            CREATE TABLE pets (owner int, house int, boss int, FOREIGN KEY (house, owner) REFERENCES people ("b %", id));
            ALTER TABLE pets ADD CONSTRAINT "later on" FOREIGN KEY (house, boss) REFERENCES people NOT VALID
        """)
        manifest = take(target_database, tmp_path, PEOPLE, beyond=[("public", "pets")]).manifest
    found = [(k.name, k.columns, k.schema, k.table, k.references, k.validated) for k in manifest.tables[1].foreign_keys]
    assert found == [
        ("later on", ("house", "boss"), "public", "people", ("b %", "id"), False),
        ("pets_house_owner_fkey", ("house", "owner"), "public", "people", ("b %", "id"), True),
    ]


def test_every_type_is_rolled_back(every: str, tmp_path: Path) -> None:
    """What no input function takes (pg_node_tree) cannot be written again; all else is, from binary or from text."""
    sealed = SealedTarget(every, plan_of(every_type.NAME, "by list"), tmp_path)
    table = sql.Identifier("public", every_type.NAME).as_string()
    [tree] = [column.name for column in every_type.columns() if column.type == "pg_node_tree"]
    sealed.execute(
        f"UPDATE {table} SET {sql.Identifier(tree).as_string()} = NULL",
        'CREATE TABLE "by list" (id "kinds of%".mood[] PRIMARY KEY, note text)',
        """INSERT INTO "by list" VALUES ('{sad}', 'a'), ('{sad,NULL}', 'b'), ('{}', 'c')""",
    )
    sealed.back_up()
    before = sealed.dump()
    names = [column.name for column in every_type.columns()]
    emptied = ", ".join(f"{sql.Identifier(name).as_string()} = NULL" for name in names)
    sealed.execute(
        f"DELETE FROM {table} WHERE id BETWEEN 900 AND 999",
        f"UPDATE {table} SET {emptied} WHERE id BETWEEN 1 AND 150",
        """DELETE FROM "by list" WHERE note = 'a'""",
        """UPDATE "by list" SET note = 'd' WHERE note = 'b'""",
    )
    results = sealed.roll_back()
    assert results[Phase.RESTORE]["tables"] == {
        every_type.NAME: {"same": ROWS - 250, "update": 150, "insert": 100, "delete": 0},
        "by list": {"same": 1, "update": 1, "insert": 1, "delete": 0},
    }
    assert sealed.dump() == before


CHANGED = Plan(
    "p", "P", "Changes.",
    [Table("people", Schema, [Column("id", "integer"), Column("tier", "text", expand=True), Column("age", "integer")])],
    changes=[
        SchemaChange("default", "people", ("tier",), "tier_default", expression="'free'"),
        SchemaChange("not_null", "people", ("age",), "age_filled"),
        SchemaChange("check", "people", ("age",), "grown", expression="{age} > 17"),
        SchemaChange("index", "people", ("age",), "by_age"),
        SchemaChange("unique_index", "people", ("id",), "stands_already"),
    ],
)  # fmt: skip


def test_a_migrations_backup_says_what_will_change_and_how_to_take_it_back(
    target_database: str, tmp_path: Path
) -> None:
    with prepared(target_database) as connection:
        connection.execute("CREATE TABLE people (id int PRIMARY KEY, age int); CREATE TABLE by_age ()")
        connection.execute("INSERT INTO people VALUES (1, 18)")
        changes = take(target_database, tmp_path, CHANGED, kind=RunKind.MIGRATION).manifest.schema_changes
        described = [(change.table, change.what) for change in changes]
        assert described == [
            ("public.people", "column tier"), ("public.people", "default tier_default"),
            ("public.people", "not_null age_filled"), ("public.people", "check grown"), ("public.people", "index by_age"),
        ]  # fmt: skip
        before = read_table(connection, "public", "people")
        for change in changes:
            connection.execute(change.sql.encode())
        during: Any = read_table(connection, "public", "people")
        assert (during.column("tier").default, [i.name for i in during.indexes]) == (
            "'free'::text",
            ["by_age_1", "people_pkey"],
        )
        for change in reversed(changes):
            connection.execute(change.inverse.encode())
        after = read_table(connection, "public", "people")
        assert before
        assert after
        assert (after.columns, after.constraints, after.indexes) == (before.columns, before.constraints, before.indexes)
        assert take(target_database, tmp_path / "own", CHANGED).manifest.schema_changes == ()
