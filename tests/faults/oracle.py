"""What a run of the plan `unified` must leave, computed row by row in plain Python from the design's page of the tables.

Nothing of the plan, its SQL or its record schemas is used here: a mistake in them must show as a difference.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from psycopg import sql

Row = dict[str, str | None]
"""Column → its value as PostgreSQL's text; None for NULL."""
Rows = dict[str, dict[str, Row]]
"""Table → id → row."""

TABLES = (
    "users", "file_metadata", "document_chunks", "conversations", "chat_messages", "oauth_tokens", "usage_logs",
    "user_settings",
)  # fmt: skip
_FILLED = {
    "users": {
        "subscription_tier": "free", "subscription_status": "active", "usage_documents": "0", "usage_chat_messages": "0",
        "usage_api_calls": "0", "settings": "{}",
    },
    "file_metadata": {"processing_status": "completed", "metadata": "{}"},
    "chat_messages": {"sources": "[]"},
    "usage_logs": {"metadata": "{}"},
    "user_settings": {"value": "{}"},
}  # fmt: skip
_JSON = {"settings", "metadata", "sources", "value"}
_ALIASES = {
    "google_drive": "google", "google-drive": "google", "azure-ad": "microsoft", "azure": "microsoft",
    "onedrive": "microsoft", "microsoft-graph": "microsoft",
}  # fmt: skip
_WORDS = {
    ("users", "subscription_tier"): {"free", "pro", "pro_byok"},
    ("users", "subscription_status"): {"active", "canceled", "past_due", "trialing"},
    ("file_metadata", "processing_status"): {"pending", "processing", "completed", "failed"},
    ("chat_messages", "role"): {"user", "assistant"},
    ("oauth_tokens", "provider"): {"google", "microsoft"},
}
_NOT_NEGATIVE = {
    "users": ("usage_documents", "usage_chat_messages", "usage_api_calls"),
    "file_metadata": ("file_size", "chunk_count", "embedding_count"), "document_chunks": ("chunk_index",),
    "conversations": ("message_count",),
}  # fmt: skip
_MAY_BE_NULL = {"stripe_customer_id", "embedding_id", "embedding", "refresh_token", "resource_id"}
_OBJECTS = {("users", "settings"), ("file_metadata", "metadata"), ("usage_logs", "metadata")}
_PARENTS = {
    "file_metadata": {"user_id": "users"}, "document_chunks": {"file_id": "file_metadata", "user_id": "users"},
    "conversations": {"user_id": "users"}, "chat_messages": {"conversation_id": "conversations", "user_id": "users"},
    "oauth_tokens": {"user_id": "users"}, "usage_logs": {"user_id": "users"}, "user_settings": {"user_id": "users"},
}  # fmt: skip
_UNIQUE = {"users": ("email",), "oauth_tokens": ("user_id", "provider"), "user_settings": ("user_id", "key")}
_HIGHEST_INTEGER = 2**31 - 1
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
_LAST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Verdict:
    """The right final rows, and the ids of those that a run with onInvalid=skip leaves as they were."""

    rows: Rows
    skipped: Mapping[str, set[str]] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    """Rows of each table that differ from before."""


def read_rows(url: str) -> Rows:
    """All rows of the eight tables, every column as text."""
    found: Rows = {}
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone TO 'UTC'; SET DateStyle TO 'ISO, YMD'")
        for table in TABLES:
            names = [
                name for (name,) in connection.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                    (f"public.{table}",),
                )
            ]  # fmt: skip
            texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(name)) for name in names)
            query = sql.SQL("SELECT {} FROM public.{}").format(texts, sql.Identifier(table))
            rows = (dict(zip(names, row, strict=True)) for row in connection.execute(query))
            found[table] = {str(row["id"]): row for row in rows}
    return found


def read_skipped(url: str) -> dict[str, set[str]]:
    """The quarantine of the target: table → ids."""
    found: dict[str, set[str]] = defaultdict(set)
    with psycopg.connect(url) as connection:
        for table, key in connection.execute('SELECT "table", key[1] FROM briefly_migration.quarantine'):
            found[table].add(key)
    return dict(found)


def judge(before: Rows) -> Verdict:
    """What must become of these rows."""
    repaired = {table: {id_: _repaired(table, row, before) for id_, row in before[table].items()} for table in TABLES}
    _number_chunks(before, repaired)
    doubled = {table: _doubled(table, before[table], rows) for table, rows in repaired.items()}
    skipped = {
        table: doubled[table] | {id_ for id_, row in rows.items() if _is_blocked(table, row, before)}
        for table, rows in repaired.items()
    }
    rows = {
        table: {id_: before[table][id_] if id_ in skipped[table] else row for id_, row in repaired[table].items()}
        for table in TABLES
    }
    changed = {table: sum(row != before[table][id_] for id_, row in rows[table].items()) for table in TABLES}
    return Verdict(rows, {table: ids for table, ids in skipped.items() if ids}, changed)


def faults(verdict: Verdict, url: str) -> list[str]:
    """What the target holds otherwise than it should, a few lines a table; empty where all is right."""
    lines, after, skipped = [], read_rows(url), read_skipped(url)
    for table, expected in verdict.rows.items():
        found = after[table]
        lines += [f"{table} {id_} is lost" for id_ in sorted(expected.keys() - found.keys())[:3]]
        lines += [f"{table} {id_} came from nowhere" for id_ in sorted(found.keys() - expected.keys())[:3]]
        for id_ in [id_ for id_ in expected if id_ in found and found[id_] != expected[id_]][:3]:
            columns = [name for name in expected[id_] if found[id_].get(name) != expected[id_][name]]
            lines += [
                f"{table} {id_} {name}: {found[id_].get(name)!r}, not {expected[id_][name]!r}" for name in columns
            ]
    for table in verdict.skipped.keys() | skipped.keys():
        right, is_ = verdict.skipped.get(table, set()), skipped.get(table, set())
        lines += [f"{table} {id_} should have been skipped" for id_ in sorted(right - is_)[:3]]
        lines += [f"{table} {id_} should not have been skipped" for id_ in sorted(is_ - right)[:3]]
    return lines


def _missing(column: str, value: str | None) -> bool:
    return value is None or (column in _JSON and value == "null")


def _repaired(table: str, row: Row, before: Rows) -> Row:
    new = row | {c: value for c, value in _FILLED.get(table, {}).items() if _missing(c, row[c])}
    if table in _REPAIRS:
        _REPAIRS[table](new, before)
    return new


def _repair_file(new: Row, before: Rows) -> None:
    chunks = [chunk for chunk in before["document_chunks"].values() if chunk["file_id"] == new["id"]]
    if new["chunk_count"] is None:
        new["chunk_count"] = str(len(chunks))
    if new["embedding_count"] is None:
        embedded = [c for c in chunks if c["embedding"] is not None or c["embedding_id"] is not None]
        new["embedding_count"] = str(len(embedded))
    path = (new["storage_path"] or "").replace("\\", "/").lstrip("/")
    new["storage_path"] = path or f"uploads/{new['user_id']}/{new['id']}"


def _repair_conversation(new: Row, before: Rows) -> None:
    messages = before["chat_messages"].values()
    new["message_count"] = str(sum(message["conversation_id"] == new["id"] for message in messages))


def _repair_token(new: Row, before: Rows) -> None:
    new["provider"] = _ALIASES.get(str(new["provider"]), new["provider"])


_REPAIRS: Mapping[str, Callable[[Row, Rows], None]] = {
    "file_metadata": _repair_file, "conversations": _repair_conversation, "oauth_tokens": _repair_token,
}  # fmt: skip


def _moment(text: str | None) -> datetime:
    """As Python can hold it; NULL, infinity, BC and years above 9999 come last."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return _LAST


def _number_chunks(before: Rows, repaired: Rows) -> None:
    files: dict[str | None, list[Row]] = defaultdict(list)
    for chunk in before["document_chunks"].values():
        files[chunk["file_id"]].append(chunk)
    for chunks in files.values():
        highest = max((int(c["chunk_index"]) for c in chunks if c["chunk_index"] is not None), default=-1)
        bare = [chunk for chunk in chunks if chunk["chunk_index"] is None]
        for number, chunk in enumerate(sorted(bare, key=lambda c: (_moment(c["created_at"]), str(c["id"]))), 1):
            repaired["document_chunks"][str(chunk["id"])]["chunk_index"] = str(highest + number)


def _doubled(table: str, before: Mapping[str, Row], repaired: Mapping[str, Row]) -> set[str]:
    """Of rows with equal unique values all but one: that stays which had the value already, the lowest id of those."""
    equals: dict[tuple[str | None, ...], list[tuple[bool, str]]] = defaultdict(list)
    columns = _UNIQUE.get(table, ("id",))
    for id_, row in repaired.items():
        was_other = any(row[column] != before[id_][column] for column in columns)
        equals[tuple(row[column] for column in columns)].append((was_other, id_))
    return {id_ for value, rows in equals.items() if None not in value for _, id_ in sorted(rows)[1:]}


def _is_blocked(table: str, row: Row, before: Rows) -> bool:
    if any(_is_wrong(table, name, row[name]) for name in row):
        return True
    for column, parent in _PARENTS.get(table, {}).items():
        if row[column] not in before[parent]:
            return True
    if table == "document_chunks":
        return before["file_metadata"][str(row["file_id"])]["user_id"] != row["user_id"]
    return False


def _is_wrong(table: str, column: str, value: str | None) -> bool:
    if value is None:
        return column not in _MAY_BE_NULL
    if column in _NOT_NEGATIVE.get(table, ()):
        # file_size is a bigint: whatever it holds is in its range.
        return int(value) < 0 or (column != "file_size" and int(value) > _HIGHEST_INTEGER)
    if (table, column) in _WORDS:
        return value not in _WORDS[table, column]
    if column.endswith("_at") or column == "upload_date":
        return _moment(value) == _LAST
    if column in _JSON:
        return _is_wrong_json(table, column, json.loads(value))
    return (
        (column == "email" and not _EMAIL.fullmatch(value))
        or (column == "resource_id" and value == "")
        or (column == "storage_path" and ".." in value.split("/"))
    )


def _is_wrong_json(table: str, column: str, value: object) -> bool:
    if (table, column) in _OBJECTS:
        return not isinstance(value, dict)
    if column == "sources":
        return not (isinstance(value, list) and all(isinstance(each, str) for each in value))
    return value is None
