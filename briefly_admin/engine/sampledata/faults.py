"""What `--dirty` breaks: a share of the rows in ways that the plan repairs, and one planted row for each other fault.

Planted rows stand beside the counted ones, so that no fault spoils another row or hides another fault.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from briefly_admin.engine.sampledata.shape import SEED_COUNTS, Shape
from briefly_admin.plans.unified import PROVIDER_ALIASES

_CHUNKS_A_FILE: Final = SEED_COUNTS["document_chunks"] // SEED_COUNTS["file_metadata"]
_JSON_NULL: Final = "'null'::jsonb"


@dataclass(frozen=True, slots=True)
class Plant:
    """A row like the table's row `like`, but for `columns` (SQL, as in rows.py; `{…}` filled by `plant_columns`)."""

    name: str
    table: str
    words: str
    columns: Mapping[str, str] = field(default_factory=dict)
    like: int = 0


def _alias(number: int) -> str:
    google, microsoft = PROVIDER_ALIASES["google"], PROVIDER_ALIASES["microsoft"]
    return (
        "CASE u.n WHEN i.n THEN "  # a user's first token is Google's
        f"'{google[number % len(google)]}' ELSE '{microsoft[number % len(microsoft)]}' END"
    )


REPAIRABLE: Final[Mapping[str, Sequence[Mapping[str, str]]]] = {
    "users": (
        {"subscription_tier": "NULL"},
        {"subscription_status": "NULL"},
        {"usage_documents": "NULL"},
        {"usage_chat_messages": "NULL"},
        {"usage_api_calls": "NULL"},
        {"settings": "NULL"},
        {"settings": _JSON_NULL},
    ),
    "file_metadata": (
        {"processing_status": "NULL"},
        {"chunk_count": "NULL"},
        {"embedding_count": "NULL"},
        {"storage_path": "NULL"},
        {"storage_path": "''"},
        {"storage_path": "'/'"},
        {"storage_path": "'//uploads/' || u.id || '/' || i.id"},
        {"storage_path": r"'uploads\' || u.id || '\' || i.id"},
        {"metadata": "NULL"},
        {"metadata": _JSON_NULL},
    ),
    "document_chunks": ({"chunk_index": "NULL"},),
    "conversations": ({"message_count": "NULL"}, {"message_count": "i.n % 7 + 40"}),
    "chat_messages": ({"sources": "NULL"}, {"sources": _JSON_NULL}),
    "oauth_tokens": tuple({"provider": _alias(number)} for number in range(len(PROVIDER_ALIASES["microsoft"]))),
    "usage_logs": ({"metadata": "NULL"}, {"metadata": _JSON_NULL}),
    "user_settings": ({"value": "NULL"}, {"value": _JSON_NULL}),
}
"""Table → its kinds of repairable fault, dealt out in turn to the rows that get one."""


def fault_kind(table: str, shape: Shape) -> str:
    """SQL over i.n: the number in REPAIRABLE[table] of the row's fault, or -1. Exactly ⌈rows x dirty / 100⌉ have one.

    Of a file's chunks the last ones lose their index: the repair then leaves no hole in the file.
    """
    if not shape.dirty:
        return "-1"
    before, after = (f"(({number} * {shape.dirty} + 99) / 100)" for number in ("n", "(n + 1)"))
    if table == "document_chunks":
        size = _CHUNKS_A_FILE
        before, after = (
            f"((({number}) * {size * shape.dirty} + 99) / 100)" for number in (f"n / {size}", f"n / {size} + 1")
        )
        return f"CASE WHEN n % {size} >= {size} - ({after} - {before}) THEN 0 ELSE -1 END"
    return f"CASE WHEN {after} > {before} THEN ({before} % {len(REPAIRABLE[table])})::integer ELSE -1 END"


HOSTS: Final = (
    Plant(
        "host", "file_metadata", "a right file that holds planted chunks", {"chunk_count": "5", "embedding_count": "5"}
    ),
    Plant(
        "holed",
        "file_metadata",
        "a right file that holds the chunks with the highest index",
        {"chunk_count": "2", "embedding_count": "2"},
    ),
    Plant("host", "conversations", "a right conversation that holds planted messages", {"message_count": "3"}),
)
"""Rows without a fault, parents of planted ones."""

_HOST_FILE: Final = {"file_id": "'{host_file}'"}
_HOLED_FILE: Final = {"file_id": "'{holed_file}'"}
_HOST: Final = {"conversation_id": "'{host_conversation}'"}
_NOWHERE: Final = "'{nowhere}'"


def _plants(table: str, *rows: tuple[str, str, Mapping[str, str]]) -> tuple[Plant, ...]:
    return tuple(Plant(f"{table}.{name}", table, words, columns) for name, words, columns in rows)


_BLOCKING: Final = (
    *_plants(
        "users",
        ("email.missing", "a user without an e-mail", {"email": "NULL"}),
        ("email.invalid", "an e-mail that is none", {"email": "'not-an-address'"}),
        ("email.duplicate", "the e-mail of the first user again", {"email": "'testuser1@example.com'"}),
        ("subscription_tier.unknown", "the tier 'platinum'", {"subscription_tier": "'platinum'"}),
        ("subscription_status.unknown", "the status 'paused'", {"subscription_status": "'paused'"}),
        ("usage_documents.negative", "a negative count of documents", {"usage_documents": "-1"}),
        ("settings.not_object", "settings that are a list", {"settings": "'[]'::jsonb"}),
        ("created_at.infinite", "created at infinity", {"created_at": "'infinity'"}),
    ),
    *_plants(
        "file_metadata",
        ("user_id.orphan", "a file of nobody", {"user_id": _NOWHERE}),
        ("filename.missing", "a file without a name", {"filename": "NULL"}),
        ("file_size.negative", "a negative size", {"file_size": "-1"}),
        ("processing_status.unknown", "the status 'archived'", {"processing_status": "'archived'"}),
        ("chunk_count.negative", "a negative chunk count", {"chunk_count": "-5"}),
        ("storage_path.parent_segment", "a path that leaves the store", {"storage_path": "'uploads/../secrets'"}),
        ("metadata.not_object", "metadata that are a text", {"metadata": "'\"text\"'::jsonb"}),
    ),
    *_plants(
        "document_chunks",
        ("file_id.orphan", "a chunk of no file", {"file_id": _NOWHERE, "chunk_index": "0"}),
        (
            "user_id.not_owner",
            "a chunk of another user's file",
            {**_HOST_FILE, "user_id": "'{stranger}'", "chunk_index": "0"},
        ),
        ("chunk_text.missing", "a chunk without text", {**_HOST_FILE, "chunk_text": "NULL", "chunk_index": "1"}),
        ("created_at.missing", "a chunk of no moment", {**_HOST_FILE, "created_at": "NULL", "chunk_index": "2"}),
        ("chunk_index.negative", "a negative chunk index", {**_HOST_FILE, "chunk_index": "-1"}),
        ("chunk_index.above_range", "no index left for a chunk without one", {**_HOLED_FILE, "chunk_index": "NULL"}),
    ),
    *_plants(
        "conversations",
        ("user_id.orphan", "a conversation of nobody", {"user_id": _NOWHERE, "message_count": "0"}),
        ("title.missing", "a conversation without a title", {"title": "NULL", "message_count": "0"}),
    ),
    *_plants(
        "chat_messages",
        ("conversation_id.orphan", "a message of no conversation", {"conversation_id": _NOWHERE}),
        ("role.unknown", "the role 'system'", {**_HOST, "role": "'system'"}),
        ("content.missing", "a message without content", {**_HOST, "content": "NULL"}),
        ("sources.not_text", "sources that hold a number", {**_HOST, "sources": "'[1]'::jsonb"}),
    ),
    *_plants(
        "oauth_tokens",
        ("provider.unknown", "the provider 'dropbox'", {"provider": "'dropbox'"}),
        ("provider.duplicate", "a google_drive token beside a google one", {"provider": "'google_drive'"}),
        ("access_token.missing", "no access token", {"access_token": "NULL", "provider": "'microsoft'"}),
        ("expires_at.infinite", "a token that never expires", {"expires_at": "'infinity'", "provider": "'microsoft'"}),
    ),
    *_plants(
        "usage_logs",
        ("user_id.orphan", "usage of nobody", {"user_id": _NOWHERE}),
        ("action.missing", "usage without an action", {"action": "NULL"}),
        ("metadata.not_object", "metadata that are a list", {"metadata": "'[]'::jsonb"}),
        ("created_at.before_christ", "usage before Christ", {"created_at": "'0044-03-15 12:00:00+00 BC'"}),
    ),
    *_plants(
        "user_settings",
        ("user_id.orphan", "a setting of nobody", {"user_id": _NOWHERE}),
        ("key.missing", "a setting without a key", {"key": "NULL"}),
        ("key.duplicate", "a setting of the first user again", {"key": "'preferences'"}),
    ),
)

_NOTICES: Final = (
    *_plants(
        "users", ("email.case_alone", "an e-mail that differs by case alone", {"email": "'TestUser2@example.com'"})
    ),
    *_plants(
        "document_chunks",
        ("chunk_index.hole", "the highest index after a hole", {**_HOLED_FILE, "chunk_index": "{highest}"}),
        (
            "embedding.dimension",
            "an embedding of 3 dimensions",
            {**_HOST_FILE, "embedding": "'[1,2,3]'", "chunk_index": "3"},
        ),
    ),
)

BLOCKING_FAULTS: Final = {plant.name: plant for plant in _BLOCKING}
"""Name → the planted row. Each breaks exactly the rule of its name (a duplicate is found with the row it doubles)."""

NOTICE_FAULTS: Final = {plant.name: plant for plant in _NOTICES}
"""Name → the planted row."""

_HIGHEST: Final = {"int2": 2**15 - 1, "int4": 2**31 - 1, "int8": 2**63 - 1}


def planted(table: str) -> tuple[Plant, ...]:
    """What is planted into that table, hosts first."""
    return tuple(plant for plant in (*HOSTS, *_BLOCKING, *_NOTICES) if plant.table == table)


def plant_columns(plant: Plant, number: int, shape: Shape, index_type: str) -> dict[str, str]:
    """The SQL of the columns that differ, unique values included.

    `number`: which of its table's plants it is. `index_type`: pg_type.typname of chunk_index.
    """
    own = {
        "users": {"email": f"'testuser{shape.rows('users') + 1 + number}@example.com'"},
        "user_settings": {"key": f"'planted-{number}'"},
        "file_metadata": {"chunk_count": "0", "embedding_count": "0"},
    }.get(plant.table, {})
    names = {
        "host_file": shape.key("file_metadata", "host"),
        "holed_file": shape.key("file_metadata", "holed"),
        "host_conversation": shape.key("conversations", "host"),
        "nowhere": shape.key("nowhere", plant.name),
        "stranger": shape.key("users", 1),
        "highest": _HIGHEST.get(index_type, _HIGHEST["int4"]),
    }
    return {**own, **{column: text.format(**names) for column, text in plant.columns.items()}}


def like_row(plant: Plant, number: int, shape: Shape) -> int:
    """The number of the row that the planted one is like: for tokens one of a user who has Google's alone."""
    return shape.rows("users") - 1 - number if plant.table == "oauth_tokens" else plant.like
