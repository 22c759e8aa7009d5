"""A right row of each table, as SQL over its number, its parents' ids and the pool of words.

In these texts `i` is the row (i.n its number from 0, i.id), `u`, `f`, `c` its user, file and conversation (n and id),
`p` and `q` two rows of the pool, `va` and `vb` two vectors. All of it is our own text: no name or value of a target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from briefly_admin.engine.sampledata.pool import SIZE, VECTORS
from briefly_admin.engine.sampledata.shape import SEED_COUNTS, Shape

_EPOCH: Final = "timestamptz '2024-01-01 00:00:00+00'"
_CHUNKS_A_FILE: Final = SEED_COUNTS["document_chunks"] // SEED_COUNTS["file_metadata"]


@dataclass(frozen=True, slots=True)
class RowTexts:
    """`columns` maps a column to its SQL; `joins` follows `FROM … AS i`."""

    columns: Mapping[str, str]
    joins: str


def _share(table: str, parent: str, number: str = "i.n") -> str:
    """The parent's number where the table's rows are dealt out to the parents in order."""
    return f"({number} * {SEED_COUNTS[parent]} / {SEED_COUNTS[table]})"


def _first_of(table: str, parent: str, number: str) -> str:
    """The number of the table's first row that `_share` gives to that parent."""
    mine, theirs = SEED_COUNTS[table], SEED_COUNTS[parent]
    return f"(({number} * {mine} + {theirs - 1}) / {theirs})"


def _moment(number: str, stride: int = 7919) -> str:
    """Spread over 2024, the same for the same number."""
    return f"({_EPOCH} + ({number} * {stride} % 500000) * interval '1 minute')"


def _pick(alias: str, stride: int, number: str = "i.n") -> str:
    return f" JOIN pg_temp.pool AS {alias} ON {alias}.k = ({number} * {stride} + {number} / {SIZE}) % {SIZE}"


def _join(alias: str, parent: str, number: str) -> str:
    return f" JOIN pg_temp.ids_{parent} AS {alias} ON {alias}.n = {number}"


def _choice(*words: str, number: str = "i.n") -> str:
    listed = ", ".join(f"'{word}'" for word in words)
    return f"(ARRAY[{listed}])[{number} % {len(words)} + 1]"


def _users(shape: Shape) -> RowTexts:
    columns = {
        "email": "'testuser' || i.n + 1 || '@example.com'",
        "created_at": _moment("i.n"),
        "updated_at": f"{_moment('i.n')} + (i.n % 30) * interval '1 day'",
        "subscription_tier": _choice("free", "free", "pro", "free", "pro_byok"),
        "subscription_status": _choice("active", "active", "active", "trialing", "past_due", "active", "canceled"),
        "stripe_customer_id": (
            f"CASE WHEN i.n % 5 IN (2, 4) THEN 'cus_' || substr(md5('{shape.seed}/' || i.n), 1, 14) END"
        ),
        "usage_documents": "2",
        "usage_chat_messages": "i.n * 31 % 90",
        "usage_api_calls": "i.n * 137 % 900",
        "settings": (
            "jsonb_build_object('name', p.name, 'theme', CASE i.n % 2 WHEN 0 THEN 'dark' ELSE 'light' END, "
            "'notifications', i.n % 3 <> 0)"
        ),
    }
    return RowTexts(columns, _pick("p", 7))


def _files(shape: Shape) -> RowTexts:
    owner = _share("file_metadata", "users")
    embedded = f"greatest(0, least({_CHUNKS_A_FILE}, {shape.embedded_chunks} - i.n * {_CHUNKS_A_FILE}))"
    columns = {
        "user_id": "u.id",
        "filename": "p.filename",
        "file_size": "1024 + i.n * 7919 % 5000000",
        "file_type": "p.file_type",
        "upload_date": f"{_moment(owner)} + (i.n % 50 + 1) * interval '1 hour'",
        "processing_status": _choice(*["completed"] * 7, "processing", "completed", "failed"),
        "chunk_count": str(_CHUNKS_A_FILE),
        "embedding_count": embedded,
        "storage_path": "'uploads/' || u.id || '/' || i.id",
        "metadata": "jsonb_build_object('title', p.title, 'pages', i.n % 40 + 1)",
    }
    return RowTexts(columns, _join("u", "users", owner) + _pick("p", 11))


def _chunks(shape: Shape) -> RowTexts:
    file = f"(i.n / {_CHUNKS_A_FILE})"
    owner = _share("file_metadata", "users", file)
    columns = {
        "file_id": "f.id",
        "user_id": "u.id",
        "chunk_text": "p.paragraph || ' ' || q.paragraph",
        "chunk_index": f"i.n % {_CHUNKS_A_FILE}",
        "embedding_id": f"CASE WHEN i.n < {shape.embedded_chunks} THEN 'emb_' || i.n END",
        "created_at": f"{_moment(owner)} + interval '3 days' + (i.n % {_CHUNKS_A_FILE}) * interval '1 second'",
    }
    joins = _join("f", "file_metadata", file) + _join("u", "users", owner) + _pick("p", 13) + _pick("q", 17)
    if shape.embedded_chunks:
        columns["embedding"] = "va.v OPERATOR({vector_schema}.+) vb.v"
        for alias, count in (("va", VECTORS), ("vb", VECTORS - 3)):
            within = f"i.n < {shape.embedded_chunks}"
            joins += f" LEFT JOIN pg_temp.vectors AS {alias} ON {alias}.k = i.n % {count} AND {within}"
    return RowTexts(columns, joins)


def _conversations(_: Shape) -> RowTexts:
    owner = _share("conversations", "users")
    first, after = (_first_of("chat_messages", "conversations", number) for number in ("i.n", "(i.n + 1)"))
    columns = {
        "user_id": "u.id",
        "title": "p.title",
        "created_at": f"{_moment('i.n', 6007)} + interval '1 year'",
        "updated_at": f"{_moment('i.n', 6007)} + interval '1 year 1 hour'",
        "message_count": f"{after} - {first}",
    }
    return RowTexts(columns, _join("u", "users", owner) + _pick("p", 19))


def _messages(_: Shape) -> RowTexts:
    conversation = _share("chat_messages", "conversations")
    owner = _share("conversations", "users", conversation)
    position = f"(i.n - {_first_of('chat_messages', 'conversations', conversation)})"
    columns = {
        "conversation_id": "c.id",
        "user_id": "u.id",
        "role": _choice("user", "assistant", number=position),
        "content": f"CASE {position} % 2 WHEN 0 THEN p.question ELSE q.paragraph END",
        "sources": f"CASE {position} % 2 WHEN 0 THEN '[]' ELSE jsonb_build_array(q.filename) END",
        "created_at": f"{_moment(conversation, 6007)} + interval '1 year' + {position} * interval '1 minute'",
    }
    joins = _join("c", "conversations", conversation) + _join("u", "users", owner)
    return RowTexts(columns, joins + _pick("p", 23) + _pick("q", 29))


def _tokens(shape: Shape) -> RowTexts:
    users = shape.rows("users")
    token = f"md5('{shape.seed}/{{}}/' || i.n)"
    columns = {
        "user_id": "u.id",
        "provider": f"CASE WHEN i.n < {users} THEN 'google' ELSE 'microsoft' END",
        "access_token": f"'sample-access-' || {token.format('access')}",
        "refresh_token": f"CASE WHEN i.n % 4 <> 3 THEN 'sample-refresh-' || {token.format('refresh')} END",
        "expires_at": f"{_moment('i.n')} + interval '2 years 1 hour'",
        "created_at": _moment("i.n"),
        "updated_at": f"{_moment('i.n')} + interval '2 years'",
    }
    return RowTexts(columns, _join("u", "users", f"(i.n % {users})"))


def _usage(_: Shape) -> RowTexts:
    columns = {
        "user_id": "u.id",
        "action": _choice("chat", "embed", "file_upload", "api_call"),
        "resource_type": _choice("conversation", "chunk", "file", "endpoint"),
        "resource_id": "CASE WHEN i.n % 3 <> 0 THEN md5('resource/' || i.n)::uuid::text END",
        "metadata": "jsonb_build_object('milliseconds', i.n * 37 % 2000, 'model', 'small')",
        "created_at": f"{_moment('i.n', 4001)} + interval '1 year'",
    }
    return RowTexts(columns, _join("u", "users", _share("usage_logs", "users")))


def _settings(_: Shape) -> RowTexts:
    columns = {
        "user_id": "u.id",
        "key": _choice("preferences", "editor", "digest"),
        "value": "jsonb_build_object('enabled', i.n % 2 = 0, 'label', p.title)",
        "created_at": _moment("i.n"),
        "updated_at": f"{_moment('i.n')} + interval '10 days'",
    }
    return RowTexts(columns, _join("u", "users", _share("user_settings", "users")) + _pick("p", 37))


_TABLES: Final = {
    "users": _users,
    "file_metadata": _files,
    "document_chunks": _chunks,
    "conversations": _conversations,
    "chat_messages": _messages,
    "oauth_tokens": _tokens,
    "usage_logs": _usage,
    "user_settings": _settings,
}


def row_texts(table: str, shape: Shape) -> RowTexts:
    """A right row of that table. Raises KeyError for a table without sample data."""
    texts = _TABLES[table](shape)
    return RowTexts({"id": "i.id", **texts.columns}, texts.joins)
