"""The schema changes of the plan `unified`, and the queries that its report times."""

from collections.abc import Iterator
from typing import Final

from briefly_admin.plans import records
from briefly_admin.plans.base import RepresentativeQuery, SchemaChange

_DEFAULTS: Final = {
    "users": {
        "subscription_tier": "'free'",
        "subscription_status": "'active'",
        "usage_documents": "0",
        "usage_chat_messages": "0",
        "usage_api_calls": "0",
        "settings": "'{}'",
    },
    "file_metadata": {
        "processing_status": "'completed'",
        "chunk_count": "0",
        "embedding_count": "0",
        "metadata": "'{}'",
    },
    "conversations": {"message_count": "0"},
    "chat_messages": {"sources": "'[]'"},
    "usage_logs": {"metadata": "'{}'"},
    "user_settings": {"value": "'{}'"},
}
"""The repairs' values: a program that leaves such a column out must not begin to fail on NOT NULL."""

_NOT_NULL: Final = {
    "users": (
        "email", "created_at", "updated_at", "subscription_tier", "subscription_status", "usage_documents",
        "usage_chat_messages", "usage_api_calls", "settings",
    ),
    "file_metadata": (
        "user_id", "filename", "file_size", "file_type", "upload_date", "processing_status", "chunk_count",
        "embedding_count", "storage_path", "metadata",
    ),
    "document_chunks": ("file_id", "user_id", "chunk_text", "chunk_index", "created_at"),
    "conversations": ("user_id", "title", "created_at", "updated_at", "message_count"),
    "chat_messages": ("conversation_id", "user_id", "role", "content", "sources", "created_at"),
    "oauth_tokens": ("user_id", "provider", "access_token", "expires_at", "created_at", "updated_at"),
    "usage_logs": ("user_id", "action", "resource_type", "metadata", "created_at"),
    "user_settings": ("user_id", "key", "value", "created_at", "updated_at"),
}  # fmt: skip

_WORDS: Final = {
    ("users", "subscription_tier"): records.TIERS,
    ("users", "subscription_status"): records.SUBSCRIPTION_STATUSES,
    ("file_metadata", "processing_status"): records.PROCESSING_STATUSES,
    ("chat_messages", "role"): records.ROLES,
    ("oauth_tokens", "provider"): records.PROVIDERS,
}
_COUNTS: Final = {
    "users": ("usage_documents", "usage_chat_messages", "usage_api_calls"),
    "file_metadata": ("file_size", "chunk_count", "embedding_count"),
    "document_chunks": ("chunk_index",),
    "conversations": ("message_count",),
}
_OBJECTS: Final = {"users": "settings", "file_metadata": "metadata", "usage_logs": "metadata"}
_MOMENTS: Final = {
    "users": ("created_at", "updated_at"),
    "file_metadata": ("upload_date",),
    "document_chunks": ("created_at",),
    "conversations": ("created_at", "updated_at"),
    "chat_messages": ("created_at",),
    "oauth_tokens": ("expires_at", "created_at", "updated_at"),
    "usage_logs": ("created_at",),
    "user_settings": ("created_at", "updated_at"),
}
_FOREIGN_KEYS: Final = (
    ("file_metadata", "user_id", "users"),
    ("document_chunks", "file_id", "file_metadata"),
    ("document_chunks", "user_id", "users"),
    ("conversations", "user_id", "users"),
    ("chat_messages", "conversation_id", "conversations"),
    ("chat_messages", "user_id", "users"),
    ("oauth_tokens", "user_id", "users"),
    ("usage_logs", "user_id", "users"),
    ("user_settings", "user_id", "users"),
)
_UNIQUE_INDEXES: Final = (
    ("users", ("email",)),
    ("oauth_tokens", ("user_id", "provider")),
    ("user_settings", ("user_id", "key")),
)
_INDEXES: Final = (
    ("file_metadata", ("user_id",)),
    ("document_chunks", ("file_id",)),
    ("chat_messages", ("conversation_id",)),
    ("usage_logs", ("user_id", "created_at")),
    ("conversations", ("user_id",)),
)
_TEXT_ARRAY: Final = (
    "jsonb_typeof(to_jsonb({sources})) = 'array' AND "
    """NOT jsonb_path_exists(to_jsonb({sources}), 'strict $[*] ? (@.type() <> "string")', '{{}}', true)"""
)
"""strict: a lax path would look into nested arrays and find their texts; silent: not an array is the first half's."""


def _defaults() -> Iterator[SchemaChange]:
    empty_array = (("_text", "'{}'"), ("_varchar", "'{}'"))
    for table, columns in _DEFAULTS.items():
        for column, value in columns.items():
            variants = empty_array if column == "sources" else ()
            yield SchemaChange("default", table, (column,), f"{table}_{column}_default", value, variants=variants)


def _check(table: str, columns: tuple[str, ...], name: str, expression: str) -> SchemaChange:
    return SchemaChange("check", table, columns, f"{table}_{name}", expression)


def _checks() -> Iterator[SchemaChange]:
    for (table, column), words in _WORDS.items():
        known = ", ".join(f"'{word}'" for word in words)
        yield _check(table, (column,), f"{column}_known", f"{{{column}}} IN ({known})")
    for table, columns in _COUNTS.items():
        for column in columns:
            yield _check(table, (column,), f"{column}_not_negative", f"{{{column}}} >= 0")
    for table, column in _OBJECTS.items():
        yield _check(table, (column,), f"{column}_object", f"jsonb_typeof(to_jsonb({{{column}}})) = 'object'")
    yield _check("chat_messages", ("sources",), "sources_text_array", _TEXT_ARRAY)
    yield _check("user_settings", ("value",), "value_not_json_null", "jsonb_typeof(to_jsonb({value})) <> 'null'")
    path = records.StoragePath.condition.replace("{value}", "{storage_path}")
    yield _check("file_metadata", ("storage_path",), "storage_path_below_root", path)
    for table, columns in _MOMENTS.items():
        for column in columns:
            expression = f"{{{column}}} >= '0001-01-01 00:00:00+00' AND {{{column}}} < '10000-01-01 00:00:00+00'"
            yield _check(table, (column,), f"{column}_in_range", expression)


def _changes() -> Iterator[SchemaChange]:
    yield from _defaults()
    yield from _checks()
    for table, columns in _NOT_NULL.items():
        for column in columns:
            yield SchemaChange("not_null", table, (column,), f"{table}_{column}_not_null")
    for table, column, parent in _FOREIGN_KEYS:
        yield SchemaChange("foreign_key", table, (column,), f"{table}_{column}_fkey", references=(parent, "id"))
    for table, columns in _UNIQUE_INDEXES:
        yield SchemaChange("unique_index", table, columns, f"{table}_{'_'.join(columns)}_key")
    for table, columns in _INDEXES:
        yield SchemaChange("index", table, columns, f"{table}_{'_'.join(columns)}_idx")


CHANGES: Final = tuple(_changes())

QUERIES: Final = (
    RepresentativeQuery(
        "A user by e-mail",
        "SELECT * FROM {users} WHERE email = %(email)s",
        "SELECT email FROM {users} WHERE email IS NOT NULL ORDER BY id LIMIT 1",
    ),
    RepresentativeQuery(
        "A user's files, newest first",
        "SELECT * FROM {file_metadata} WHERE user_id = %(user_id)s ORDER BY upload_date DESC",
        "SELECT user_id FROM {file_metadata} WHERE user_id IS NOT NULL ORDER BY id LIMIT 1",
    ),
    RepresentativeQuery(
        "A file's chunks in order",
        "SELECT * FROM {document_chunks} WHERE file_id = %(file_id)s ORDER BY chunk_index",
        "SELECT file_id FROM {document_chunks} WHERE file_id IS NOT NULL ORDER BY id LIMIT 1",
    ),
    RepresentativeQuery(
        "A conversation's messages in order",
        "SELECT * FROM {chat_messages} WHERE conversation_id = %(conversation_id)s ORDER BY created_at",
        "SELECT conversation_id FROM {chat_messages} WHERE conversation_id IS NOT NULL ORDER BY id LIMIT 1",
    ),
    RepresentativeQuery(
        "A user's usage of the last 30 days",
        "SELECT * FROM {usage_logs} WHERE user_id = %(user_id)s AND created_at > now() - interval '30 days'",
        "SELECT user_id FROM {usage_logs} WHERE user_id IS NOT NULL ORDER BY id LIMIT 1",
    ),
    RepresentativeQuery(
        "A user's token by provider",
        "SELECT * FROM {oauth_tokens} WHERE user_id = %(user_id)s AND provider = %(provider)s",
        "SELECT user_id, provider FROM {oauth_tokens} WHERE user_id IS NOT NULL AND provider IS NOT NULL "
        "ORDER BY id LIMIT 1",
    ),
)
