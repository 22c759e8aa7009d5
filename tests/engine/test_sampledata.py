import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.errors import InvalidRequest, Refused
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.repairs import changed, compile_repairs
from briefly_admin.engine.sampledata import BLOCKING_FAULTS, NOTICE_FAULTS, SEED_COUNTS, Shape, cleanup, counts, create
from briefly_admin.engine.sampledata.faults import REPAIRABLE
from briefly_admin.engine.sampledata.plants import HOSTS, PLANTED
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import Table
from briefly_admin.plans.unified import UNIFIED

NAMES = [table.name for table in UNIFIED.tables]
FIELD_OF_DUPLICATES = {"users.email.duplicate", "oauth_tokens.provider.duplicate", "user_settings.key.duplicate"}
Session = psycopg.Connection[Any]


@pytest.fixture
def target(target_database: str) -> Target:
    return Target(target_database)


@pytest.fixture
def connection(target: Target) -> Iterator[Session]:
    with target.session(bulk=True) as session:
        yield session


def _all(connection: Session, table: str) -> list[Any]:
    query = sql.SQL("SELECT to_jsonb(t)::text FROM public.{} AS t ORDER BY id").format(sql.Identifier(table))
    return connection.execute(query).fetchall()


def _everything(connection: Session) -> dict[str, list[Any]]:
    return {name: _all(connection, name) for name in NAMES}


def _totals(connection: Session) -> dict[str, int]:
    return {name: len(_all(connection, name)) for name in NAMES}


def _catalog(connection: Session) -> dict[str, CatalogTable]:
    found = {table.name: read_table(connection, table.schema, table.name) for table in UNIFIED.tables}
    return {name: table for name, table in found.items() if table is not None}


def _repaired(connection: Session, table: Table) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The repaired rows as JSON, by key; and the keys of the rows that a repair changes."""
    catalog = _catalog(connection)
    repairs = compile_repairs(UNIFIED, table, catalog)
    pairs = [sql.SQL("{}, {}").format(sql.Literal(name), value) for name, value in repairs.values.items()]
    query = sql.SQL("SELECT to_jsonb(t) || jsonb_build_object({}), {} FROM {} AS t {}").format(
        sql.SQL(", ").join(pairs), changed(repairs.values, "t", catalog[table.name]), catalog[table.name].identifier,
        repairs.joins,
    )  # fmt: skip
    rows = connection.execute(query).fetchall()
    return {row["id"]: row for row, _ in rows}, {row["id"] for row, is_changed in rows if is_changed}


def _sql_verdicts(connection: Session, table: Table, rows: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    """Broken foreign keys, doubled values and relations: key → fields."""
    broken: dict[str, set[str]] = {}
    for key in table.foreign_keys:
        parents = {json.loads(row)["id"] for (row,) in _all(connection, key.parent)}
        for row in rows.values():
            if row[key.column] is not None and row[key.column] not in parents:
                broken.setdefault(row["id"], set()).add(key.column)
    for unique in table.uniques:
        values = Counter(tuple(row[column] for column in unique.columns) for row in rows.values())
        for row in rows.values():
            if values[tuple(row[column] for column in unique.columns)] > 1:
                broken.setdefault(row["id"], set()).add(unique.columns[-1])
    for relation in table.relations:
        if relation.finding_class == "blocking":
            for key_value in _relation(connection, table, relation.name):
                broken.setdefault(key_value, set()).add(relation.field)
    return broken


def _relation(connection: Session, table: Table, name: str) -> list[str]:
    relation = next(r for r in table.relations if r.name == name)
    tables = {placeholder: sql.Identifier("public", other) for placeholder, other in relation.tables.items()}
    return [str(key) for (key,) in connection.execute(sql.SQL(relation.query).format(**tables)).fetchall()]


def _verdicts(connection: Session, table: Table) -> dict[str, set[str]]:
    """Key → fields with a blocking fault, of all rows."""
    rows, _ = _repaired(connection, table)
    found = _sql_verdicts(connection, table, rows)
    record = table.record()
    for key, row in rows.items():
        for field in record.validate(row):
            found.setdefault(key, set()).add(str(field))
        if row.get("chunk_index") is not None and row["chunk_index"] > 2**31 - 1:
            found.setdefault(key, set()).add("chunk_index")
    return found


def test_the_seeds_exact_counts(target: Target, connection: Session) -> None:
    heard: list[tuple[str, int]] = []
    made = create(target, UNIFIED, report=lambda table, rows: heard.append((table, rows)))
    assert made == {
        "users": 5, "file_metadata": 10, "document_chunks": 50, "conversations": 8, "chat_messages": 30,
        "oauth_tokens": 6, "usage_logs": 25, "user_settings": 5,
    } == _totals(connection) == counts(target, UNIFIED)  # fmt: skip
    assert heard == list(made.items())
    assert connection.execute("SELECT count(embedding), count(*) FROM public.document_chunks").fetchone() == (50, 50)
    emails = connection.execute("SELECT email FROM public.users ORDER BY email").fetchall()
    assert emails == [(f"testuser{number}@example.com",) for number in range(1, 6)]


def test_clean_data_need_no_repair_and_have_no_fault(target: Target, connection: Session) -> None:
    create(target, UNIFIED, scale=3)
    for table in UNIFIED.tables:
        _, repaired = _repaired(connection, table)
        assert repaired == set()
        assert _verdicts(connection, table) == {}
        for relation in table.relations:
            assert _relation(connection, table, relation.name) == []


def test_every_id_is_a_uuid5_of_ours_and_listed(target: Target, connection: Session) -> None:
    create(target, UNIFIED, dirty=10, seed=7)
    shape = Shape(seed=7)
    listed = set(connection.execute('SELECT "table", key FROM briefly_migration.sample').fetchall())
    there = {(name, json.loads(row)["id"]) for name in NAMES for (row,) in _all(connection, name)}
    assert listed == there
    assert {uuid.UUID(key).version for _, key in listed} == {5}
    assert ("users", str(shape.key("users", 4))) in listed


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(target: Target, connection: Session) -> None:
    create(target, UNIFIED, dirty=30, seed=3)
    first = _everything(connection)
    create(target, UNIFIED, dirty=30, seed=3)
    assert _everything(connection) == first
    create(target, UNIFIED, dirty=30, seed=4)
    other = _everything(connection)
    assert all(other[name] != first[name] for name in NAMES)


def test_scale_multiplies_the_counts(target: Target, connection: Session) -> None:
    made = create(target, UNIFIED, scale=40, embeddings=7)
    assert made == {name: 40 * count for name, count in SEED_COUNTS.items()}
    assert connection.execute("SELECT count(embedding) FROM public.document_chunks").fetchone() == (7,)
    assert connection.execute("SELECT sum(embedding_count) FROM public.file_metadata").fetchone() == (7,)
    _, repaired = _repaired(connection, UNIFIED.table("conversations"))
    assert repaired == set()


def test_without_embeddings(target: Target, connection: Session) -> None:
    create(target, UNIFIED, embeddings=0)
    assert connection.execute("SELECT count(embedding), count(*) FROM public.document_chunks").fetchone() == (0, 50)


@pytest.mark.parametrize("dirty", [1, 5, 20, 33, 100])
def test_dirty_is_the_share_of_rows_that_a_repair_changes(target: Target, connection: Session, dirty: int) -> None:
    create(target, UNIFIED, scale=4, dirty=dirty, embeddings=0)
    shape = Shape()
    planted = {str(shape.key(plant.table, plant.name)) for plant in PLANTED}
    for table in UNIFIED.tables:
        _, repaired = _repaired(connection, table)
        base = repaired - planted
        assert not {str(shape.key(plant.table, plant.name)) for plant in HOSTS} & repaired
        assert len(base) == -(-4 * SEED_COUNTS[table.name] * dirty // 100), table.name


def test_every_repairable_kind_occurs(target: Target, connection: Session) -> None:
    create(target, UNIFIED, scale=4, dirty=100, embeddings=0)
    where = {
        "users": ["subscription_tier IS NULL", "subscription_status IS NULL", "usage_documents IS NULL", "settings IS NULL",
                  "usage_chat_messages IS NULL", "usage_api_calls IS NULL", "settings = 'null'"],
        "file_metadata": ["processing_status IS NULL", "chunk_count IS NULL", "embedding_count IS NULL", "storage_path = ''",
                          "storage_path IS NULL", "storage_path = '/'", "storage_path LIKE '//%'", r"strpos(storage_path, '\') > 0",
                          "metadata IS NULL", "metadata = 'null'"],
        "document_chunks": ["chunk_index IS NULL"],
        "conversations": ["message_count IS NULL", "message_count >= 40", "message_count < 0"],
        "chat_messages": ["sources IS NULL", "sources = 'null'"],
        "oauth_tokens": [f"provider = '{alias}'" for alias in ("google_drive", "google-drive", "azure", "azure-ad", "onedrive",
                                                               "microsoft-graph")],
        "usage_logs": ["metadata IS NULL", "metadata = 'null'"],
        "user_settings": ["value IS NULL", "value = 'null'"],
    }  # fmt: skip
    assert set(where) == set(REPAIRABLE)
    for table, conditions in where.items():
        for condition in conditions:
            found = connection.execute(f"SELECT count(*) FROM public.{table} WHERE {condition}").fetchone()
            assert found is not None
            assert found[0] > 0, (table, condition)


@pytest.mark.parametrize(("scale", "dirty"), [(1, 1), (1, 60), (3, 100)])
def test_each_blocking_fault_breaks_its_rule_and_no_other(
    target: Target, connection: Session, scale: int, dirty: int
) -> None:
    create(target, UNIFIED, scale=scale, dirty=dirty, embeddings=3)
    shape = Shape(scale=scale)
    for table in UNIFIED.tables:
        found = _verdicts(connection, table)
        for name, plant in BLOCKING_FAULTS.items():
            if plant.table == table.name:
                fields = {field.split(", ")[-1] for field, _ in plant.findings}
                assert found.pop(str(shape.key(table.name, name))) == fields, name
        # What is left: the right row that a duplicate doubles.
        doubles = sum(name.startswith(f"{table.name}.") for name in FIELD_OF_DUPLICATES)
        assert len(found) == doubles, (table.name, found)


@pytest.mark.parametrize("dirty", [1, 20, 100])
def test_each_notice_is_planted_once(target: Target, connection: Session, dirty: int) -> None:
    heard: list[str] = []
    create(target, UNIFIED, dirty=dirty, report=lambda name, _: heard.append(name))
    assert heard == NAMES
    shape = Shape()
    users, chunks = UNIFIED.table("users"), UNIFIED.table("document_chunks")
    pair = {str(shape.key("users", "users.email.case_alone")), str(shape.key("users", 1))}
    assert set(_relation(connection, users, "case_alone")) == pair
    for relation in ("hole", "dimension"):
        name = next(name for name in NOTICE_FAULTS if name.endswith(relation))
        assert _relation(connection, chunks, relation) == [str(shape.key("document_chunks", name))]


def test_a_fault_that_a_type_rules_out_is_named(target: Target, connection: Session) -> None:
    create(target, UNIFIED)
    type_query = "SELECT split_part(format_type(atttypid, atttypmod), chr(46), -1) FROM pg_attribute WHERE attrelid = 'public.document_chunks'::regclass AND attname = 'embedding'"
    assert connection.execute(type_query).fetchone() == ("vector(1536)",)
    heard: list[tuple[str, int]] = []
    create(target, UNIFIED, dirty=5, report=lambda name, rows: heard.append((name, rows)))
    assert ("not planted: document_chunks.embedding.dimension", 0) in heard
    assert _relation(connection, UNIFIED.table("document_chunks"), "dimension") == []


def test_cleanup_leaves_no_row_and_keeps_the_tables(target: Target, connection: Session) -> None:
    made = create(target, UNIFIED, dirty=20)
    assert cleanup(target, UNIFIED) == made
    assert _totals(connection) == dict.fromkeys(NAMES, 0)
    assert connection.execute("SELECT to_regclass('briefly_migration.sample')").fetchone() == (None,)
    assert counts(target, UNIFIED) == dict.fromkeys(NAMES, 0)
    assert cleanup(target, UNIFIED) == dict.fromkeys(NAMES, 0)


def test_cleanup_of_an_empty_database_is_nothing(target: Target) -> None:
    assert cleanup(target, UNIFIED) == dict.fromkeys(NAMES, 0)


def _somebody(connection: Session) -> None:
    connection.execute("INSERT INTO public.users (id, email) VALUES (gen_random_uuid(), 'testuser9@example.com')")


@pytest.mark.parametrize("scale", [1, 100])
def test_cleanup_takes_only_listed_rows(target: Target, connection: Session, scale: int) -> None:
    """Neither an e-mail like ours nor many rows (which may be truncated) take a foreign row along."""
    made = create(target, UNIFIED, scale=scale, embeddings=0)
    _somebody(connection)
    assert cleanup(target, UNIFIED) == made
    assert connection.execute("SELECT email FROM public.users").fetchall() == [("testuser9@example.com",)]


def test_cleanup_of_many_rows_keeps_tables_outside_the_plan(target: Target, connection: Session) -> None:
    made = create(target, UNIFIED, scale=100, embeddings=0)
    connection.execute("CREATE TABLE public.outside (user_id uuid REFERENCES public.users)")
    assert cleanup(target, UNIFIED) == made
    assert create(target, UNIFIED, scale=100, embeddings=0) == made
    connection.execute("DROP TABLE public.outside")
    assert cleanup(target, UNIFIED) == made
    assert _totals(connection) == dict.fromkeys(NAMES, 0)


def test_cleanup_refuses_where_foreign_rows_hang_on_sample_rows(target: Target, connection: Session) -> None:
    create(target, UNIFIED)
    connection.execute("CREATE TABLE public.outside (user_id uuid REFERENCES public.users)")
    connection.execute("INSERT INTO public.outside SELECT id FROM public.users LIMIT 1")
    with pytest.raises(Refused, match="outside_user_id_fkey") as caught:
        cleanup(target, UNIFIED)
    assert "nothing was changed" in caught.value.remedy
    assert counts(target, UNIFIED) == SEED_COUNTS


def test_users_that_are_not_sample_data_are_refused(target: Target, connection: Session) -> None:
    create(target, UNIFIED)
    _somebody(connection)
    before = _everything(connection)
    with pytest.raises(Refused, match="1 users that are not sample data"):
        create(target, UNIFIED, scale=2)
    assert _everything(connection) == before
    cleanup(target, UNIFIED)
    with pytest.raises(Refused, match="not sample data"):
        create(target, UNIFIED)


def _apply_changes(connection: Session) -> None:
    """The plan's checks, NOT NULLs and unique indexes, as a finished migration leaves them."""
    for change in UNIFIED.changes:
        table, name = sql.Identifier("public", change.table), sql.Identifier(change.name)
        columns = sql.SQL(", ").join(map(sql.Identifier, change.columns))
        if change.kind == "check":
            condition = sql.SQL(change.expression).format(**{c: sql.Identifier(c) for c in change.columns})
            connection.execute(sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})").format(table, name, condition))
        elif change.kind == "not_null":
            connection.execute(sql.SQL("ALTER TABLE {} ALTER {} SET NOT NULL").format(table, columns))
        elif change.kind == "default":
            value = sql.SQL(change.expression_for("jsonb"))
            connection.execute(sql.SQL("ALTER TABLE {} ALTER {} SET DEFAULT {}").format(table, columns, value))
        elif change.kind == "foreign_key":
            assert change.references is not None
            parent = sql.Identifier("public", change.references[0])
            connection.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {}").format(
                    table, name, columns, parent
                )
            )
        else:
            unique = sql.SQL("UNIQUE" if change.kind == "unique_index" else "")
            connection.execute(sql.SQL("CREATE {} INDEX {} ON {} ({})").format(unique, name, table, columns))


def test_a_migrated_target_takes_clean_data_and_refuses_dirty_ones(target: Target, connection: Session) -> None:
    create(target, UNIFIED)
    _apply_changes(connection)
    before = _everything(connection)
    with pytest.raises(Refused, match="subscription_tier") as caught:
        create(target, UNIFIED, dirty=5)
    assert "--dirty" in caught.value.remedy
    assert _everything(connection) == before
    assert create(target, UNIFIED) == SEED_COUNTS
    assert cleanup(target, UNIFIED) == SEED_COUNTS


def test_a_failed_create_leaves_nothing(target: Target, connection: Session) -> None:
    connection.execute("CREATE TABLE public.user_settings (id uuid PRIMARY KEY, user_id uuid, key text, created_at timestamptz, updated_at timestamptz, tenant text NOT NULL)")  # fmt: skip
    with pytest.raises(Refused, match="column tenant"):
        create(target, UNIFIED)
    assert connection.execute("SELECT to_regclass('public.users'), to_regnamespace('briefly_migration')").fetchone() == (None, None)  # fmt: skip


def test_tables_of_other_types_are_filled_where_they_fit(target: Target, connection: Session) -> None:
    connection.execute("CREATE TYPE public.tier AS ENUM ('free', 'pro', 'pro_byok')")
    connection.execute(
        "CREATE TABLE public.users (id text PRIMARY KEY, email varchar(200), created_at timestamp, updated_at timestamptz,"
        " subscription_tier public.tier, settings json, extra text DEFAULT 'kept')"
    )
    connection.execute(
        "CREATE TABLE public.chat_messages (id uuid PRIMARY KEY, conversation_id uuid, user_id uuid, role text,"
        " content text, sources text[], created_at timestamptz)"
    )
    assert create(target, UNIFIED) == SEED_COUNTS
    assert connection.execute("SELECT count(*), count(extra), count(DISTINCT subscription_tier) FROM public.users").fetchone() == (5, 5, 3)  # fmt: skip
    assert connection.execute(
        "SELECT count(*) FROM public.chat_messages WHERE cardinality(sources) = 1"
    ).fetchone() != (0,)


def test_integer_ids_are_refused(target: Target, connection: Session) -> None:
    connection.execute("CREATE TABLE public.users (id bigint PRIMARY KEY, email text, created_at timestamptz, updated_at timestamptz)")  # fmt: skip
    with pytest.raises(Refused, match="bigint"):
        create(target, UNIFIED)


def test_a_table_that_lacks_a_column_is_refused(target: Target, connection: Session) -> None:
    connection.execute("CREATE TABLE public.users (id uuid PRIMARY KEY, created_at timestamptz)")
    with pytest.raises(Refused, match="lacks email, updated_at"):
        create(target, UNIFIED)


def test_the_vector_type_is_found_in_any_schema(
    target: Target, target_database: str, superuser_database: Callable[[str], str], connection: Session
) -> None:
    with psycopg.connect(superuser_database(target_database), autocommit=True) as superuser:
        superuser.execute('CREATE SCHEMA "My ext"')
        superuser.execute('ALTER EXTENSION vector SET SCHEMA "My ext"')
        superuser.execute('GRANT USAGE ON SCHEMA "My ext" TO public')
    assert create(target, UNIFIED) == SEED_COUNTS
    create(target, UNIFIED, dirty=5)
    assert cleanup(target, UNIFIED)["users"] > 5


def test_a_target_without_the_vector_extension_is_refused(
    target: Target, target_database: str, superuser_database: Callable[[str], str], connection: Session
) -> None:
    with psycopg.connect(superuser_database(target_database), autocommit=True) as superuser:
        superuser.execute("DROP EXTENSION vector")
    with pytest.raises(Refused, match="no vector extension"):
        create(target, UNIFIED)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"scale": 0}, "scale"), ({"scale": -1}, "scale"), ({"scale": 10**9}, "scale"), ({"dirty": -1}, "dirty"),
     ({"dirty": 101}, "dirty"), ({"embeddings": -1}, "embeddings"), ({"seed": -1}, "seed")],
)  # fmt: skip
def test_options_out_of_bounds_are_named(target: Target, wrong: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create(target, UNIFIED, **wrong)  # type: ignore[arg-type]
    assert list(caught.value.details) == [field]


def test_a_role_without_rights_is_told_so(target: Target, connection: Session, target_database: str, superuser_database: Callable[[str], str]) -> None:  # fmt: skip
    with psycopg.connect(superuser_database(target_database), autocommit=True) as superuser:
        superuser.execute("CREATE TABLE public.users (id uuid PRIMARY KEY, email text)")
    with pytest.raises(Refused, match="may not"):
        create(target, UNIFIED)


def test_ids_streamed_to_the_server_are_uuid5() -> None:
    shape = Shape(seed=5)
    streamed = b"".join(shape.copy_keys("users"))
    for number in range(5):
        assert shape.key("users", number).bytes in streamed
