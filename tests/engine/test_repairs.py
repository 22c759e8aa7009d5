from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.repairs import changed, compile_repairs, template
from briefly_admin.engine.target import Target
from briefly_admin.plans.unified import UNIFIED

Session = psycopg.Connection[Any]
A, B = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"


@pytest.fixture
def connection(target_database: str) -> Iterator[Session]:
    with Target(target_database).session(bulk=True) as session:
        for table in UNIFIED.tables:
            columns = ", ".join(
                f'"{c.name}" {"text" if c.type.startswith("vector") else c.type}' for c in table.columns
            )
            session.execute(sql.SQL(f'CREATE TABLE public."{table.name}" ({columns}, PRIMARY KEY (id))'))
        yield session


def _catalog(connection: Session) -> dict[str, CatalogTable]:
    found = {table.name: read_table(connection, table.schema, table.name) for table in UNIFIED.tables}
    return {name: table for name, table in found.items() if table is not None}


def _values(connection: Session, name: str, column: str, scope: str | None = None) -> dict[str, tuple[Any, bool]]:
    """The last character of a row's key → (its repaired value, whether the repairs change the row)."""
    catalog = _catalog(connection)
    repairs = compile_repairs(UNIFIED, UNIFIED.table(name), catalog, scope=sql.SQL(scope) if scope else None)
    query = sql.SQL("SELECT right(t.id::text, 1), {}, {} FROM {} AS t {}").format(
        repairs.values[column], changed(repairs.values, "t", catalog[name]), catalog[name].identifier, repairs.joins
    )
    return {key: (value, is_changed) for key, value, is_changed in connection.execute(query).fetchall()}


def _chunk(connection: Session, number: int, index: int | None, file: str | None = A, *, second: int = 0) -> None:
    connection.execute(
        "INSERT INTO public.document_chunks (id, file_id, chunk_index, created_at) "
        "VALUES (%s, %s, %s, timestamptz '2024-01-01' + %s * interval '1 s')",
        (f"00000000-0000-0000-0000-{number:012}", file, index, second),
    )


def test_a_group_goes_on_after_its_highest_number_by_moment_and_key(connection: Session) -> None:
    for number, index, second in ((1, None, 9), (2, 4, 0), (3, None, 1), (4, 1, 0), (5, None, 1)):
        _chunk(connection, number, index, second=second)
    _chunk(connection, 6, None, B)
    _chunk(connection, 7, None, None)
    found = _values(connection, "document_chunks", "chunk_index")
    assert found == {
        "1": (7, True),
        "2": (4, False),
        "3": (5, True),
        "4": (1, False),
        "5": (6, True),
        "6": (0, True),
        "7": (None, False),
    }


def test_a_group_is_numbered_whole_whatever_the_batch(connection: Session) -> None:
    for number in range(1, 5):
        _chunk(connection, number, None, second=number)
    scope = "SELECT id FROM public.document_chunks WHERE right(id::text, 1) = '3'"
    assert _values(connection, "document_chunks", "chunk_index", scope)["3"] == (2, True)


def test_a_group_whose_column_is_missing_is_numbered_from_0(connection: Session) -> None:
    for number in range(1, 4):
        _chunk(connection, number, 7, second=-number)
    connection.execute("ALTER TABLE public.document_chunks DROP COLUMN chunk_index")
    found = _values(connection, "document_chunks", "chunk_index")
    assert {key: value for key, (value, _) in found.items()} == {"3": 0, "2": 1, "1": 2}


@pytest.mark.parametrize(("type_", "highest"), [("smallint", 2**15 - 1), ("integer", 2**31 - 1), ("bigint", 2**63 - 1)])
def test_above_the_types_range_is_a_value_not_an_error(connection: Session, type_: str, highest: int) -> None:
    connection.execute(sql.SQL(f"ALTER TABLE public.document_chunks ALTER COLUMN chunk_index TYPE {type_}"))
    _chunk(connection, 1, highest)
    _chunk(connection, 2, None)
    assert _values(connection, "document_chunks", "chunk_index") == {"1": (highest, False), "2": (highest + 1, True)}


def test_counts_come_from_the_children(connection: Session) -> None:
    connection.execute(
        "INSERT INTO public.file_metadata (id, user_id, chunk_count, embedding_count, processing_status, storage_path, metadata) "
        "VALUES (%s, %s, NULL, NULL, 'completed', 'a', '{}'), (%s, %s, 9, NULL, 'completed', 'a', '{}')", (A, A, B, B),
    )  # fmt: skip
    _chunk(connection, 1, 0)
    _chunk(connection, 2, 1)
    connection.execute("UPDATE public.document_chunks SET embedding_id = 'e' WHERE chunk_index = 1")
    assert _values(connection, "file_metadata", "chunk_count") == {"a": (2, True), "b": (9, True)}
    assert _values(connection, "file_metadata", "embedding_count") == {"a": (1, True), "b": (0, True)}
    connection.execute("ALTER TABLE public.document_chunks DROP COLUMN embedding, DROP COLUMN embedding_id")
    assert _values(connection, "file_metadata", "embedding_count")["a"] == (0, True)


def test_a_wrong_count_is_repaired_too(connection: Session) -> None:
    connection.execute("INSERT INTO public.conversations (id, message_count) VALUES (%s, 5), (%s, 0)", (A, B))
    assert _values(connection, "conversations", "message_count") == {"a": (0, True), "b": (0, False)}


@pytest.mark.parametrize(
    ("table", "column", "before", "after"),
    [
        ("users", "subscription_tier", "NULL", "free"),
        ("users", "subscription_tier", "'platinum'", "platinum"),
        ("users", "settings", "'null'", {}),
        ("users", "settings", "'{\"a\": 1}'", {"a": 1}),
        ("oauth_tokens", "provider", "'google-drive'", "google"),
        ("oauth_tokens", "provider", "'onedrive'", "microsoft"),
        ("oauth_tokens", "provider", "'Google'", "Google"),
        ("file_metadata", "storage_path", "'/'", f"uploads/{B}/{A}"),
        ("file_metadata", "storage_path", r"'\a\b'", "a/b"),
        ("file_metadata", "storage_path", "'a/../b'", "a/../b"),
        ("chat_messages", "sources", "NULL", []),
    ],
)
def test_row_repairs(connection: Session, table: str, column: str, before: str, after: Any) -> None:
    names = {c.name for c in UNIFIED.table(table).columns}
    user = ", user_id" if "user_id" in names else ""
    value = f", '{B}'" if user else ""
    connection.execute(sql.SQL(f"INSERT INTO public.{table} (id, {column}{user}) VALUES ('{A}', {before}{value})"))
    assert _values(connection, table, column)["a"][0] == after


def test_templates(connection: Session) -> None:

    for expression in ("coalesce({x}, 0)", "{{}}"):
        assert template(expression, "t", {"x"}).as_string(connection)
    assert template("{x}", "t", set(), {"x": "integer"}).as_string(connection) == "NULL::integer"
    assert template("{x}", "t", set(), {"x": "vector(3)"}).as_string(connection) == "NULL"


def test_staged_copies_serve_as_well(connection: Session) -> None:
    connection.execute("CREATE TABLE public.copied AS TABLE public.chat_messages; INSERT INTO public.copied (id, conversation_id) "
                       f"VALUES ('{A}', '{A}'), ('{B}', '{A}')")  # fmt: skip
    connection.execute("INSERT INTO public.conversations (id) VALUES (%s)", (A,))
    catalog = _catalog(connection)

    def relation(name: str) -> sql.Composable:
        return sql.Identifier("public", "copied" if name == "chat_messages" else name)

    repairs = compile_repairs(UNIFIED, UNIFIED.table("conversations"), catalog, relation=relation)
    query = sql.SQL("SELECT {} FROM public.conversations AS t {}").format(
        repairs.values["message_count"], repairs.joins
    )
    assert connection.execute(query).fetchall() == [(2,)]
