"""The plan `unified`: the Briefly tables as they are today, cleaned and constrained in place."""

from typing import Final

from briefly_admin.plans import records
from briefly_admin.plans.base import (
    AggregateRepair,
    Column,
    ForeignKey,
    GroupedRepair,
    Plan,
    Relation,
    Repair,
    Table,
    Unique,
)
from briefly_admin.plans.unified_changes import CHANGES, QUERIES

EMBEDDING_DIMENSION: Final = 1536
PROVIDER_ALIASES: Final = {
    "google": ("google_drive", "google-drive"),
    "microsoft": ("azure-ad", "azure", "onedrive", "microsoft-graph"),
}


def _key(name: str = "id") -> Column:
    return Column(name, "uuid")


def _optional(name: str, type_: str, *, secret: bool = False) -> Column:
    return Column(name, type_, required=False, secret=secret)


def _repaired(name: str, type_: str) -> Column:
    return Column(name, type_, required=False, expand=True)


def _moments(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "timestamptz") for name in names)


def _filled(column: str, value: str, words: str) -> Repair:
    return Repair(column, f"coalesce({{{column}}}, {value})", words, only_wrong=True)


def _filled_json(column: str, empty: str, words: str, *variants: tuple[str, str]) -> Repair:
    """NULL and JSON null become `empty` in a jsonb column; a text 'null' is a text, and stays."""
    as_text = ("text", "varchar"), f"coalesce({{{column}}}, {empty})"
    return Repair(
        column,
        f"coalesce(nullif({{{column}}}, 'null'), {empty})",
        words,
        variants=(*((name, as_text[1]) for name in as_text[0]), *variants),
        only_wrong=True,
    )


def _provider_expression() -> str:
    cases = " ".join(
        f"WHEN {{provider}}::text IN ({', '.join(repr(alias) for alias in aliases)}) THEN '{provider}'"
        for provider, aliases in PROVIDER_ALIASES.items()
    )
    return f"CASE {cases} ELSE {{provider}} END"


USERS: Final = Table(
    name="users",
    record=records.UserRecord,
    columns=(
        _key(),
        Column("email", "text"),
        *_moments("created_at", "updated_at"),
        _repaired("subscription_tier", "text"),
        _repaired("subscription_status", "text"),
        _optional("stripe_customer_id", "text"),
        _repaired("usage_documents", "integer"),
        _repaired("usage_chat_messages", "integer"),
        _repaired("usage_api_calls", "integer"),
        _repaired("settings", "jsonb"),
    ),
    repairs=(
        _filled("subscription_tier", "'free'", "a missing subscription tier becomes 'free'"),
        _filled("subscription_status", "'active'", "a missing subscription status becomes 'active'"),
        _filled("usage_documents", "0", "a missing count of documents becomes 0"),
        _filled("usage_chat_messages", "0", "a missing count of chat messages becomes 0"),
        _filled("usage_api_calls", "0", "a missing count of API calls becomes 0"),
        _filled_json("settings", "'{{}}'", "missing settings become an empty object"),
    ),
    uniques=(Unique(("email",)),),
    relations=(
        Relation(
            name="case_alone",
            field="email",
            finding_class="notice",
            words="e-mails that differ from another user's by upper and lower case alone",
            tables={"users": "users"},
            query=(
                "SELECT u.id AS key FROM {users} AS u WHERE lower(u.email::text) IN "
                "(SELECT lower(o.email::text) FROM {users} AS o GROUP BY 1 "
                'HAVING min(o.email::text COLLATE "C") <> max(o.email::text COLLATE "C"))'
            ),
            needs=(("email", ()),),
        ),
    ),
)

FILES: Final = Table(
    name="file_metadata",
    record=records.FileRecord,
    columns=(
        _key(),
        _key("user_id"),
        Column("filename", "text"),
        Column("file_size", "bigint"),
        Column("file_type", "text"),
        *_moments("upload_date"),
        _repaired("processing_status", "text"),
        _repaired("chunk_count", "integer"),
        _repaired("embedding_count", "integer"),
        _repaired("storage_path", "text"),
        _repaired("metadata", "jsonb"),
    ),
    repairs=(
        _filled("processing_status", "'completed'", "a missing processing status becomes 'completed'"),
        AggregateRepair(
            "chunk_count",
            "document_chunks",
            "file_id",
            "count(*)",
            "0",
            "a missing chunk count becomes the file's chunks",
        ),
        AggregateRepair(
            "embedding_count",
            "document_chunks",
            "file_id",
            "count(*) FILTER (WHERE {embedding} IS NOT NULL OR {embedding_id} IS NOT NULL)",
            "0",
            "a missing embedding count becomes the file's chunks that have an embedding",
        ),
        Repair(
            "storage_path",
            r"coalesce(nullif(ltrim(replace({storage_path}, '\', '/'), '/'), ''), "
            "'uploads/' || {user_id}::text || '/' || {id}::text)",
            "an empty storage path becomes uploads/<user>/<file>; leading slashes go, backslashes become slashes",
            only_wrong=True,
        ),
        _filled_json("metadata", "'{{}}'", "missing metadata become an empty object"),
    ),
    foreign_keys=(ForeignKey("user_id", "users"),),
)

_BITS: Final = "bit_or(CASE WHEN b.chunk_index < 62 THEN 1::bigint << b.chunk_index::integer END)"

CHUNKS: Final = Table(
    name="document_chunks",
    record=records.ChunkRecord,
    columns=(
        _key(),
        _key("file_id"),
        _key("user_id"),
        Column("chunk_text", "text", secret=True),
        _repaired("chunk_index", "integer"),
        _optional("embedding_id", "text"),
        _optional("embedding", f"vector({EMBEDDING_DIMENSION})"),
        *_moments("created_at"),
    ),
    repairs=(
        GroupedRepair(
            "chunk_index",
            group_by="file_id",
            order=("created_at", "id"),
            words="chunks without an index follow the file's highest one, oldest first",
        ),
    ),
    foreign_keys=(ForeignKey("file_id", "file_metadata"), ForeignKey("user_id", "users")),
    relations=(
        Relation(
            name="owner",
            field="user_id",
            finding_class="blocking",
            words="chunks whose user is not the owner of their file",
            tables={"chunks": "document_chunks", "files": "file_metadata"},
            query=(
                "SELECT c.id AS key FROM {chunks} AS c JOIN {files} AS f ON f.id = c.file_id "
                "WHERE c.user_id <> f.user_id"
            ),
            needs=(("file_id", ()), ("user_id", ())),
            test="{user_id} <> {parent.user_id}",
            through="file_id",
        ),
        Relation(
            name="hole",
            field="chunk_index",
            finding_class="notice",
            words="chunks before which the file's chunk indexes have a hole",
            tables={"chunks": "document_chunks"},
            # A file of few chunks has no hole where the bits of its indexes are 1, 11, 111 …; the others are sorted.
            query=(
                "SELECT s.id AS key FROM (SELECT c.id, c.chunk_index::numeric - coalesce(lag(c.chunk_index) "
                "OVER (PARTITION BY c.file_id ORDER BY c.chunk_index), -1) AS step FROM (SELECT a.id, a.file_id, "
                "a.chunk_index FROM {chunks} AS a WHERE a.chunk_index >= 0 AND a.file_id IN (SELECT b.file_id "
                "FROM {chunks} AS b WHERE b.chunk_index >= 0 GROUP BY b.file_id "
                f"HAVING max(b.chunk_index) >= 62 OR {_BITS} & ({_BITS} + 1) <> 0) OFFSET 0) AS c) AS s "
                "WHERE s.step > 1"
            ),
            needs=(("chunk_index", ("int2", "int4", "int8")), ("file_id", ())),
        ),
        Relation(
            name="dimension",
            field="embedding",
            finding_class="notice",
            words=f"embeddings that have not {EMBEDDING_DIMENSION} dimensions",
            tables={"chunks": "document_chunks"},
            # The cast needs no search path.
            query=(
                "SELECT c.id AS key FROM {chunks} AS c "
                f"WHERE cardinality(c.embedding::real[]) <> {EMBEDDING_DIMENSION}"
            ),
            needs=(("embedding", ("vector", "_float4")),),
            test=f"cardinality({{embedding}}::real[]) <> {EMBEDDING_DIMENSION}",
            settled=(("embedding", EMBEDDING_DIMENSION),),
        ),
    ),
)

CONVERSATIONS: Final = Table(
    name="conversations",
    record=records.ConversationRecord,
    columns=(
        _key(),
        _key("user_id"),
        Column("title", "text"),
        *_moments("created_at", "updated_at"),
        _repaired("message_count", "integer"),
    ),
    repairs=(
        AggregateRepair(
            "message_count",
            "chat_messages",
            "conversation_id",
            "count(*)",
            "0",
            "a missing or wrong message count becomes the conversation's messages",
            only_missing=False,
        ),
    ),
    foreign_keys=(ForeignKey("user_id", "users"),),
)

MESSAGES: Final = Table(
    name="chat_messages",
    record=records.MessageRecord,
    columns=(
        _key(),
        _key("conversation_id"),
        _key("user_id"),
        Column("role", "text"),
        Column("content", "text", secret=True),
        _repaired("sources", "jsonb"),
        *_moments("created_at"),
    ),
    repairs=(
        _filled_json(
            "sources",
            "'[]'",
            "missing sources become an empty list",
            ("_text", "coalesce({sources}, '{{}}')"),
            ("_varchar", "coalesce({sources}, '{{}}')"),
        ),
    ),
    foreign_keys=(ForeignKey("conversation_id", "conversations"), ForeignKey("user_id", "users")),
)

TOKENS: Final = Table(
    name="oauth_tokens",
    record=records.TokenRecord,
    columns=(
        _key(),
        _key("user_id"),
        Column("provider", "text"),
        Column("access_token", "text", secret=True),
        _optional("refresh_token", "text", secret=True),
        *_moments("expires_at", "created_at", "updated_at"),
    ),
    repairs=(
        Repair(
            "provider",
            _provider_expression(),
            "a known alias of a provider becomes its name (google_drive → google, azure-ad → microsoft)",
            only_wrong=True,
        ),
    ),
    foreign_keys=(ForeignKey("user_id", "users"),),
    uniques=(Unique(("user_id", "provider")),),
)

USAGE: Final = Table(
    name="usage_logs",
    record=records.UsageRecord,
    columns=(
        _key(),
        _key("user_id"),
        Column("action", "text"),
        Column("resource_type", "text"),
        _optional("resource_id", "text"),
        _repaired("metadata", "jsonb"),
        *_moments("created_at"),
    ),
    repairs=(_filled_json("metadata", "'{{}}'", "missing metadata become an empty object"),),
    foreign_keys=(ForeignKey("user_id", "users"),),
)

SETTINGS: Final = Table(
    name="user_settings",
    record=records.SettingRecord,
    columns=(
        _key(),
        _key("user_id"),
        Column("key", "text"),
        _repaired("value", "jsonb"),
        *_moments("created_at", "updated_at"),
    ),
    repairs=(_filled_json("value", "'{{}}'", "a missing value becomes an empty object"),),
    foreign_keys=(ForeignKey("user_id", "users"),),
    uniques=(Unique(("user_id", "key")),),
)

UNIFIED: Final = Plan(
    name="unified",
    title="Unified layout",
    summary=(
        "Fills what is missing, corrects counts, paths and provider names, and adds the keys, constraints and indexes "
        "that keep the eight Briefly tables right."
    ),
    tables=(USERS, FILES, CHUNKS, CONVERSATIONS, MESSAGES, TOKENS, USAGE, SETTINGS),
    changes=CHANGES,
    queries=QUERIES,
)
