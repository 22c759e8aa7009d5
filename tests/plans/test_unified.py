from collections.abc import Iterator
from string import Formatter
from typing import Any

import psycopg
import pytest
from marshmallow import ValidationError, validate
from psycopg import sql

from briefly_admin.plans.base import AggregateRepair, GroupedRepair, Repair, SchemaChange, Table
from briefly_admin.plans.records import StoragePath
from briefly_admin.plans.unified import UNIFIED

TABLES = pytest.mark.parametrize("table", UNIFIED.tables, ids=lambda table: table.name)


def _names(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def _changes(kind: str, table: str) -> list[SchemaChange]:
    return [change for change in UNIFIED.changes if change.kind == kind and change.table == table]


def test_parents_come_before_their_children() -> None:
    seen: set[str] = set()
    for table in UNIFIED.tables:
        assert {key.parent for key in table.foreign_keys} <= seen
        seen.add(table.name)
    assert len(seen) == 8


@TABLES
def test_the_record_judges_exactly_the_plans_columns(table: Table) -> None:
    fields = table.record().fields
    assert set(fields) == {column.name for column in table.columns}
    repaired = {repair.column for repair in table.repairs}
    for column in table.columns:
        optional = fields[column.name].allow_none
        assert column.required == (not optional and not column.expand), column.name
        assert column.expand <= (column.name in repaired), column.name
        assert column.secret == fields[column.name].metadata.get("secret", False), column.name


def test_secrets_are_tokens_chat_content_and_document_text() -> None:
    assert {table.name: set(table.secrets) for table in UNIFIED.tables if table.secrets} == {
        "document_chunks": {"chunk_text"},
        "chat_messages": {"content"},
        "oauth_tokens": {"access_token", "refresh_token"},
    }


@TABLES
def test_templates_name_only_columns_of_the_plan(table: Table) -> None:
    columns = {column.name for column in table.columns}
    for repair in table.repairs:
        assert repair.column in columns
        if isinstance(repair, Repair):
            for text in (repair.expression, *(text for _, text in repair.variants)):
                assert _names(text) <= columns
        elif isinstance(repair, AggregateRepair):
            assert _names(repair.aggregate) <= {column.name for column in UNIFIED.table(repair.child).columns}
        else:
            assert {repair.group_by, *repair.order} <= columns
    for change in UNIFIED.changes:
        if change.table == table.name:
            assert set(change.columns) <= columns
            assert change.kind != "check" or _names(change.expression) == set(change.columns)
    for relation in table.relations:
        assert _names(relation.query) == set(relation.tables)
        assert {column for column, _ in relation.needs} <= columns


@TABLES
def test_the_schema_changes_hold_what_the_record_promises(table: Table) -> None:
    fields = table.record().fields
    never_null = {name for name, field in fields.items() if not field.allow_none} - set(table.key)
    assert {change.columns[0] for change in _changes("not_null", table.name)} == never_null
    checked = {change.columns[0] for change in _changes("check", table.name)}
    ruled = {
        name for name, field in fields.items()
        if type(field).__name__ in {"DateTime", "Dict", "List", "Raw"}
        or any(not isinstance(validator, validate.Email) for validator in field.validators)
    }  # fmt: skip
    assert checked == ruled
    assert {change.columns for change in _changes("unique_index", table.name)} == {u.columns for u in table.uniques}
    assert {(change.columns[0], change.references) for change in _changes("foreign_key", table.name)} == {
        (key.column, (key.parent, key.parent_column)) for key in table.foreign_keys
    }


def test_the_indexes_are_those_that_the_design_lists() -> None:
    assert {(c.table, tuple(c.columns)) for c in UNIFIED.changes if c.kind == "index"} == {
        ("file_metadata", ("user_id",)), ("document_chunks", ("file_id",)), ("chat_messages", ("conversation_id",)),
        ("usage_logs", ("user_id", "created_at")), ("conversations", ("user_id",)),
    }  # fmt: skip
    names = [change.name for change in UNIFIED.changes]
    assert len(set(names)) == len(names)
    assert all(len(name) < 64 for name in names)


def test_every_not_null_column_with_a_constant_repair_gets_a_default() -> None:
    """A program that leaves the column out worked before, and must work after."""
    for table in UNIFIED.tables:
        constant = {r.column for r in table.repairs if isinstance(r, Repair) and "coalesce" in r.expression}
        counted = {r.column for r in table.repairs if isinstance(r, AggregateRepair)}
        expected = (constant | counted) - {"storage_path"}
        assert {change.columns[0] for change in _changes("default", table.name)} == expected


@pytest.fixture
def connection(target_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(target_database, autocommit=True) as session:
        session.execute("SET search_path TO pg_catalog")
        yield session


def _repaired(connection: psycopg.Connection[Any], table: str, column: str, row: dict[str, str], type_: str) -> object:
    """The repair's value, as text, for a row of the columns' SQL."""
    repair = next(r for r in UNIFIED.table(table).repairs if r.column == column)
    assert isinstance(repair, Repair)
    given = {name: sql.SQL("({})").format(sql.SQL(text)) for name, text in row.items()}
    typname = {"text[]": "_text"}.get(type_, type_)
    value = sql.SQL(repair.expression_for(typname)).format(**given)
    found = connection.execute(sql.SQL("SELECT ({})::text, pg_typeof({})::text").format(value, value)).fetchone()
    assert found is not None
    assert found[1] == {"varchar": "character varying"}.get(type_, type_)
    return found[0]


_JSON_OBJECTS = [
    ("users", "settings"),
    ("file_metadata", "metadata"),
    ("usage_logs", "metadata"),
    ("user_settings", "value"),
]
_REPAIRS: list[tuple[str, str, str, str, str | None]] = [
    ("users", "subscription_tier", "text", "NULL", "free"),
    ("users", "subscription_tier", "text", "'pro'", "pro"),
    ("users", "subscription_tier", "text", "''", ""),
    ("users", "subscription_tier", "text", "'platinum'", "platinum"),
    ("users", "subscription_tier", "varchar", "NULL", "free"),
    ("users", "subscription_status", "text", "NULL", "active"),
    ("users", "subscription_status", "text", "'trialing'", "trialing"),
    ("users", "usage_documents", "integer", "NULL", "0"),
    ("users", "usage_documents", "integer", "7", "7"),
    ("users", "usage_documents", "integer", "-1", "-1"),
    ("users", "usage_chat_messages", "integer", "NULL", "0"),
    ("users", "usage_api_calls", "bigint", "NULL", "0"),
    ("file_metadata", "processing_status", "text", "NULL", "completed"),
    ("file_metadata", "processing_status", "text", "'pending'", "pending"),
    *((table, column, "jsonb", "NULL", "{}") for table, column in _JSON_OBJECTS),
    *((table, column, "jsonb", "'null'", "{}") for table, column in _JSON_OBJECTS),
    *((table, column, "jsonb", "'{\"a\": null}'", '{"a": null}') for table, column in _JSON_OBJECTS),
    *((table, column, "jsonb", "'[]'", "[]") for table, column in _JSON_OBJECTS),
    ("user_settings", "value", "jsonb", "'false'", "false"),
    ("user_settings", "value", "text", "'null'", "null"),
    ("chat_messages", "sources", "jsonb", "NULL", "[]"),
    ("chat_messages", "sources", "jsonb", "'null'", "[]"),
    ("chat_messages", "sources", "jsonb", "'[\"a\"]'", '["a"]'),
    ("chat_messages", "sources", "text[]", "NULL", "{}"),
    ("chat_messages", "sources", "text[]", "'{a}'", "{a}"),
    *(
        ("oauth_tokens", "provider", "text", f"'{alias}'", "google")
        for alias in ("google", "google_drive", "google-drive")
    ),
    *(
        ("oauth_tokens", "provider", "text", f"'{alias}'", "microsoft")
        for alias in ("microsoft", "azure-ad", "azure", "onedrive", "microsoft-graph")
    ),
    ("oauth_tokens", "provider", "text", "'dropbox'", "dropbox"),
    ("oauth_tokens", "provider", "text", "'Google'", "Google"),
    ("oauth_tokens", "provider", "text", "NULL", None),
]


@pytest.mark.parametrize(("table", "column", "type_", "before", "after"), _REPAIRS)
def test_a_repair_gives_what_the_design_says(
    connection: psycopg.Connection[Any], table: str, column: str, type_: str, before: str, after: str | None
) -> None:
    assert _repaired(connection, table, column, {column: f"{before}::{type_}"}, type_) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("NULL", "uploads/u1/f1"),
        ("''", "uploads/u1/f1"),
        ("'/'", "uploads/u1/f1"),
        ("'//'", "uploads/u1/f1"),
        (r"'\'", "uploads/u1/f1"),
        ("'/uploads/a'", "uploads/a"),
        ("'///uploads//a/'", "uploads//a/"),
        (r"'uploads\a\b'", "uploads/a/b"),
        (r"'\uploads\a'", "uploads/a"),
        ("'uploads/a'", "uploads/a"),
        ("'100%/a b'", "100%/a b"),
        ("'uploads/../a'", "uploads/../a"),
        (r"'..\a'", "../a"),
    ],
)
def test_a_storage_path_is_repaired(connection: psycopg.Connection[Any], before: str, after: str) -> None:
    row = {"storage_path": f"{before}::text", "user_id": "'u1'::text", "id": "'f1'::text"}
    assert _repaired(connection, "file_metadata", "storage_path", row, "text") == after


@pytest.mark.parametrize(
    "path", ["a", "a/b", "", "/", "/a", "a\\b", "..", "../a", "a/..", "a/../b", "a..b", "...", "a/.../b", "a\n..", "a\n/../b", " ", "..\n"]
)  # fmt: skip
def test_the_path_rule_says_the_same_in_sql(connection: psycopg.Connection[Any], path: str) -> None:
    condition = sql.SQL(StoragePath.condition).format(value=sql.Literal(path))
    try:
        StoragePath()(path)
        accepted = True
    except ValidationError:
        accepted = False
    assert connection.execute(sql.SQL("SELECT {}").format(condition)).fetchone() == (accepted,)


def _check(table: str, column: str) -> str:
    return next(change.expression for change in _changes("check", table) if change.columns[0] == column)


@pytest.mark.parametrize(
    ("table", "column", "type_", "good", "bad"),
    [
        ("chat_messages", "sources", "jsonb", ["[]", '["a", ""]'], ["{}", "[1]", '[["a"]]', "[null]", '"a"', "null", '["a", {}]']),
        ("chat_messages", "sources", "text[]", ["{}", "{a,b}"], ["{NULL}", "{{a},{b}}"]),
        ("users", "settings", "jsonb", ["{}", '{"a": 1}'], ["[]", "null", '"x"']),
        ("user_settings", "value", "jsonb", ["{}", "[]", "0", '"null"'], ["null"]),
        ("users", "subscription_tier", "text", ["free", "pro", "pro_byok"], ["", "Free"]),
        ("users", "usage_documents", "integer", ["0", "5"], ["-1"]),
        ("users", "created_at", "timestamptz", ["0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"],
         ["infinity", "-infinity", "10000-01-01 00:00:00+00", "0001-12-31 00:00:00+00 BC"]),
    ],
)  # fmt: skip
def test_a_check_holds_the_rule_of_its_column(
    connection: psycopg.Connection[Any], table: str, column: str, type_: str, good: list[str], bad: list[str]
) -> None:
    connection.execute(sql.SQL("CREATE TABLE public.t ({} {})").format(sql.Identifier(column), sql.SQL(type_)))
    condition = sql.SQL(_check(table, column)).format(**{column: sql.Identifier(column)})
    connection.execute(sql.SQL("ALTER TABLE public.t ADD CHECK ({})").format(condition))
    for value in good:
        connection.execute(sql.SQL("INSERT INTO public.t VALUES ({})").format(sql.Literal(value)))
    for value in bad:
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(sql.SQL("INSERT INTO public.t VALUES ({})").format(sql.Literal(value)))


def test_only_chunk_indexes_are_numbered_in_groups() -> None:
    grouped = [(t.name, r.column, r.group_by, tuple(r.order)) for t in UNIFIED.tables for r in t.repairs if isinstance(r, GroupedRepair)]  # fmt: skip
    assert grouped == [("document_chunks", "chunk_index", "file_id", ("created_at", "id"))]
