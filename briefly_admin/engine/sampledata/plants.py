"""The planted rows, by name: one for each thing that validation can find in tables of the plan's own types.

Planted rows stand beside the counted ones, so that no fault spoils another row or hides another fault.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from briefly_admin.engine.sampledata.faults import REPAIRABLE
from briefly_admin.engine.sampledata.shape import Shape

_RULES: Final = {
    "missing": "null", "invalid": "email", "duplicate": "unique", "unknown": "one_of", "negative": "range",
    "not_object": "type", "not_text": "type", "empty": "type", "infinite": "type", "before_christ": "type",
    "orphan": "foreign_key", "parent_segment": "storage_path", "above_range": "type_range", "not_owner": "owner",
    "case_alone": "case_alone", "hole": "hole", "dimension": "dimension",
}  # fmt: skip
"""The last word of a name → the rule that finds it."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A row like the table's row `like`, but for `columns` (SQL, as in rows.py; `{…}` filled by `plant_columns`)."""

    name: str
    table: str
    words: str
    columns: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[tuple[str, str], ...] = ()
    """(field, rule) of each finding that the row is counted in."""
    like: int = 0


HOSTS: Final = (
    *(Plant(f"host_{number}", "users", "a right user who holds planted tokens") for number in range(4)),
    Plant("host", "file_metadata", "a right file that holds planted chunks"),
    Plant("holed", "file_metadata", "a right file that holds the chunks with the highest index"),
    Plant("host", "conversations", "a right conversation that holds planted messages"),
)
"""Rows without a fault, parents of planted ones."""

_FILE: Final = {"file_id": "'{host_file}'"}
_HOLED_FILE: Final = {"file_id": "'{holed_file}'"}
_TALK: Final = {"conversation_id": "'{host_conversation}'"}
_NOWHERE: Final = "'{nowhere}'"
_INFINITE: Final = "'infinity'"
_BEFORE_CHRIST: Final = "'0044-03-15 12:00:00+00 BC'"


def _token(host: int, provider: str) -> Mapping[str, str]:
    """A user and a provider that no other token has."""
    return {"user_id": f"'{{host_user_{host}}}'", "provider": f"'{provider}'"}


def _plants(
    table: str, common: Mapping[str, str], *rows: tuple[str, str, Mapping[str, str]],
    fields: Mapping[str, tuple[tuple[str, str], ...]] | None = None,
) -> tuple[Plant, ...]:  # fmt: skip
    """`common`: columns of all of them. `fields`: what is found of a name, where the name alone does not say it."""
    return tuple(
        Plant(f"{table}.{name}", table, words, {**common, **columns}, (fields or {}).get(name) or (_named(name),))
        for name, words, columns in rows
    )


def _named(name: str) -> tuple[str, str]:
    field_name, word = name.split(".")
    return field_name, _RULES[word]


_BLOCKING: Final = (
    *_plants(
        "users", {},
        ("email.missing", "a user without an e-mail", {"email": "NULL"}),
        ("email.invalid", "an e-mail that is none", {"email": "'not-an-address'"}),
        ("email.duplicate", "the e-mail of the first user again", {"email": "'testuser1@example.com'"}),
        ("created_at.missing", "a user created at no moment", {"created_at": "NULL"}),
        ("created_at.infinite", "a user created at infinity", {"created_at": _INFINITE}),
        ("updated_at.missing", "a user updated at no moment", {"updated_at": "NULL"}),
        ("updated_at.before_christ", "a user updated before Christ", {"updated_at": _BEFORE_CHRIST}),
        ("subscription_tier.unknown", "the tier 'platinum'", {"subscription_tier": "'platinum'"}),
        ("subscription_status.unknown", "the status 'paused'", {"subscription_status": "'paused'"}),
        ("usage_documents.negative", "a negative count of documents", {"usage_documents": "-1"}),
        ("usage_chat_messages.negative", "a negative count of chat messages", {"usage_chat_messages": "-1"}),
        ("usage_api_calls.negative", "a negative count of API calls", {"usage_api_calls": "-1"}),
        ("settings.not_object", "settings that are a list", {"settings": "'[]'::jsonb"}),
    ),
    *_plants(
        "file_metadata", {},
        ("user_id.missing", "a file without owner or path", {"user_id": "NULL", "storage_path": "NULL"}),
        ("user_id.orphan", "a file of nobody", {"user_id": _NOWHERE, "chunk_count": "1", "embedding_count": "1"}),
        ("filename.missing", "a file without a name", {"filename": "NULL"}),
        ("file_size.missing", "a file without a size", {"file_size": "NULL"}),
        ("file_size.negative", "a negative size", {"file_size": "-1"}),
        ("file_type.missing", "a file without a type", {"file_type": "NULL"}),
        ("upload_date.missing", "a file uploaded at no moment", {"upload_date": "NULL"}),
        ("upload_date.before_christ", "a file uploaded before Christ", {"upload_date": _BEFORE_CHRIST}),
        ("processing_status.unknown", "the status 'archived'", {"processing_status": "'archived'"}),
        ("chunk_count.negative", "a negative chunk count", {"chunk_count": "-5"}),
        ("embedding_count.negative", "a negative embedding count", {"embedding_count": "-5"}),
        ("storage_path.parent_segment", "a path that leaves the store", {"storage_path": "'uploads/../secrets'"}),
        ("metadata.not_object", "metadata that are a text", {"metadata": "'\"text\"'::jsonb"}),
        fields={"user_id.missing": (("user_id", "null"), ("storage_path", "null"))},
    ),
    *_plants(
        "document_chunks", _FILE,
        ("file_id.missing", "a chunk without file or index", {"file_id": "NULL", "chunk_index": "NULL"}),
        ("file_id.orphan", "a chunk of a file that is not there", {"file_id": _NOWHERE, "chunk_index": "0"}),
        ("user_id.missing", "a chunk without a user", {"user_id": "NULL", "chunk_index": "0"}),
        (
            "user_id.orphan", "a chunk of nobody, in the file of nobody",
            {"file_id": "'{orphan_file}'", "user_id": "'{orphan_owner}'", "chunk_index": "0"},
        ),
        ("user_id.not_owner", "a chunk of another user's file", {"user_id": "'{stranger}'", "chunk_index": "1"}),
        ("chunk_text.missing", "a chunk without text", {"chunk_text": "NULL", "chunk_index": "2"}),
        ("created_at.missing", "a chunk of no moment", {"created_at": "NULL", "chunk_index": "3"}),
        ("created_at.infinite", "a chunk created at infinity", {"created_at": _INFINITE, "chunk_index": "4"}),
        ("chunk_index.negative", "a negative chunk index", {"chunk_index": "-1"}),
        ("chunk_index.above_range", "no index left for a chunk without one", {**_HOLED_FILE, "chunk_index": "NULL"}),
        fields={"file_id.missing": (("file_id", "null"), ("chunk_index", "null"))},
    ),
    *_plants(
        "conversations", {"message_count": "0"},
        ("user_id.missing", "a conversation without a user", {"user_id": "NULL"}),
        ("user_id.orphan", "a conversation of nobody", {"user_id": _NOWHERE}),
        ("title.missing", "a conversation without a title", {"title": "NULL"}),
        ("created_at.missing", "a conversation begun at no moment", {"created_at": "NULL"}),
        ("created_at.before_christ", "a conversation begun before Christ", {"created_at": _BEFORE_CHRIST}),
        ("updated_at.missing", "a conversation updated at no moment", {"updated_at": "NULL"}),
        ("updated_at.infinite", "a conversation updated at infinity", {"updated_at": _INFINITE}),
    ),
    *_plants(
        "chat_messages", _TALK,
        ("conversation_id.missing", "a message without a conversation", {"conversation_id": "NULL"}),
        ("conversation_id.orphan", "a message of a conversation that is not there", {"conversation_id": _NOWHERE}),
        ("user_id.missing", "a message without a user", {"user_id": "NULL"}),
        ("user_id.orphan", "a message of nobody", {"user_id": _NOWHERE}),
        ("role.missing", "a message without a role", {"role": "NULL"}),
        ("role.unknown", "the role 'system'", {"role": "'system'"}),
        ("content.missing", "a message without content", {"content": "NULL"}),
        ("sources.not_text", "sources that hold a number", {"sources": "'[1]'::jsonb"}),
        ("created_at.missing", "a message of no moment", {"created_at": "NULL"}),
        ("created_at.infinite", "a message written at infinity", {"created_at": _INFINITE}),
    ),
    *_plants(
        "oauth_tokens", {},
        ("user_id.missing", "a token without a user", {"user_id": "NULL"}),
        ("user_id.orphan", "a token of nobody", {"user_id": _NOWHERE}),
        ("provider.missing", "a token without a provider", {"provider": "NULL"}),
        ("provider.unknown", "the provider 'dropbox'", {"provider": "'dropbox'"}),
        ("provider.duplicate", "a google_drive token beside a google one", {"provider": "'google_drive'"}),
        ("access_token.missing", "no access token", {**_token(0, "google"), "access_token": "NULL"}),
        ("expires_at.missing", "a token that expires at no moment", {**_token(0, "microsoft"), "expires_at": "NULL"}),
        ("expires_at.infinite", "a token that never expires", {**_token(1, "google"), "expires_at": _INFINITE}),
        ("created_at.missing", "a token made at no moment", {**_token(1, "microsoft"), "created_at": "NULL"}),
        ("created_at.infinite", "a token made at infinity", {**_token(2, "google"), "created_at": _INFINITE}),
        ("updated_at.missing", "a token updated at no moment", {**_token(2, "microsoft"), "updated_at": "NULL"}),
        (
            "updated_at.before_christ", "a token updated before Christ",
            {**_token(3, "google"), "updated_at": _BEFORE_CHRIST},
        ),
        fields={"provider.duplicate": (("user_id, provider", "unique"),)},
    ),
    *_plants(
        "usage_logs", {},
        ("user_id.missing", "usage without a user", {"user_id": "NULL"}),
        ("user_id.orphan", "usage of nobody", {"user_id": _NOWHERE}),
        ("action.missing", "usage without an action", {"action": "NULL"}),
        ("resource_type.missing", "usage of no kind of resource", {"resource_type": "NULL"}),
        ("resource_id.empty", "a resource whose id is an empty text", {"resource_id": "''"}),
        ("metadata.not_object", "metadata that are a list", {"metadata": "'[]'::jsonb"}),
        ("created_at.missing", "usage at no moment", {"created_at": "NULL"}),
        ("created_at.before_christ", "usage before Christ", {"created_at": _BEFORE_CHRIST}),
    ),
    *_plants(
        "user_settings", {},
        ("user_id.missing", "a setting without a user", {"user_id": "NULL"}),
        ("user_id.orphan", "a setting of nobody", {"user_id": _NOWHERE}),
        ("key.missing", "a setting without a key", {"key": "NULL"}),
        ("key.duplicate", "a setting of the first user again", {"key": "'preferences'"}),
        ("created_at.missing", "a setting made at no moment", {"created_at": "NULL"}),
        ("created_at.infinite", "a setting made at infinity", {"created_at": _INFINITE}),
        ("updated_at.missing", "a setting updated at no moment", {"updated_at": "NULL"}),
        ("updated_at.before_christ", "a setting updated before Christ", {"updated_at": _BEFORE_CHRIST}),
        fields={"key.duplicate": (("user_id, key", "unique"),)},
    ),
)  # fmt: skip

_NOTICES: Final = (
    *_plants(
        "users", {},
        ("email.case_alone", "an e-mail that differs by case alone", {"email": "'TestUser2@example.com'"}),
    ),
    *_plants(
        "document_chunks", {},
        ("chunk_index.hole", "the highest index after a hole", {**_HOLED_FILE, "chunk_index": "{highest}"}),
        ("embedding.dimension", "an embedding of 3 numbers", {**_FILE, "embedding": "'[1,2,3]'", "chunk_index": "5"}),
    ),
)  # fmt: skip

_BESIDE: Final[Mapping[str, Mapping[str, str]]] = {
    "document_chunks": _FILE,
    "conversations": {"message_count": "0"},
    "chat_messages": _TALK,
    "oauth_tokens": _token(3, "microsoft"),
}
"""What planted rows with a repairable fault have beside it."""


def _repairable() -> Iterator[Plant]:
    """Of the kinds that are dealt out, the first of each finding."""
    seen = set()
    for table, kinds in REPAIRABLE.items():
        for kind in kinds:
            finding = (kind.field, kind.rule)
            if (table, *finding) not in seen:
                seen.add((table, *finding))
                columns = {**_BESIDE.get(table, {}), **kind.planted}
                yield Plant(f"{table}.{kind.name}", table, kind.words, columns, (finding,))


BLOCKING_FAULTS: Final = {plant.name: plant for plant in _BLOCKING}
"""Name → the planted row. Each is found by the rule of its name (a duplicate with the row that it doubles), and by no
other but those of `findings`: where an owner is missing nothing can be made out of it."""

NOTICE_FAULTS: Final = {plant.name: plant for plant in _NOTICES}
"""Name → the planted row."""

REPAIRABLE_FAULTS: Final = {plant.name: plant for plant in _repairable()}
"""Name → the planted row: one a finding, so that each is there however few rows get a fault."""

PLANTED: Final = (*HOSTS, *BLOCKING_FAULTS.values(), *NOTICE_FAULTS.values(), *REPAIRABLE_FAULTS.values())
"""All planted rows, those that hold others first."""

_HIGHEST: Final = {"int2": 2**15 - 1, "int4": 2**31 - 1, "int8": 2**63 - 1}


def planted(table: str) -> tuple[Plant, ...]:
    """What is planted into that table, hosts first."""
    return tuple(plant for plant in PLANTED if plant.table == table)


def plant_columns(plant: Plant, number: int, shape: Shape, index_type: str) -> dict[str, str]:
    """The SQL of the columns that differ, unique values included.

    `number`: which of its table's plants it is. `index_type`: pg_type.typname of chunk_index.
    """
    own = {
        "users": {"email": f"'testuser{shape.rows('users') + 1 + number}@example.com'"},
        "user_settings": {"key": f"'planted-{number}'"},
        "file_metadata": {"chunk_count": "0", "embedding_count": "0"} | _held(plant, shape),
        "conversations": _held(plant, shape),
    }.get(plant.table, {})
    names = {
        "host_file": shape.key("file_metadata", "host"),
        "holed_file": shape.key("file_metadata", "holed"),
        "host_conversation": shape.key("conversations", "host"),
        **{f"host_user_{host}": shape.key("users", f"host_{host}") for host in range(4)},
        "orphan_file": shape.key("file_metadata", "file_metadata.user_id.orphan"),
        "orphan_owner": shape.key("nowhere", "file_metadata.user_id.orphan"),
        "nowhere": shape.key("nowhere", plant.name),
        "stranger": shape.key("users", 1),
        "highest": _HIGHEST.get(index_type, _HIGHEST["int4"]),
    }
    return {**own, **{column: text.format(**names) for column, text in plant.columns.items()}}


def _held(plant: Plant, shape: Shape) -> dict[str, str]:
    """The counts of a host, as the rows that it holds make them."""
    if plant not in HOSTS:
        return {}
    if plant.table == "conversations":
        return {
            "message_count": str(sum(p.columns.get("conversation_id") == _TALK["conversation_id"] for p in PLANTED))
        }
    place = (_FILE if plant.name == "host" else _HOLED_FILE)["file_id"]
    chunks = [p for p in PLANTED if p.columns.get("file_id") == place]
    embedded = [p for p in chunks if shape.embedded_chunks or "embedding" in p.columns]
    return {"chunk_count": str(len(chunks)), "embedding_count": str(len(embedded))}


def like_row(plant: Plant, shape: Shape) -> int:
    """The number of the row that the planted one is like: for tokens the last user's, who has Google's alone."""
    return shape.rows("users") - 1 if plant.table == "oauth_tokens" else plant.like
