"""What `--dirty` breaks in a share of the rows: ways that the plan repairs. What it plants beside is in plants.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from briefly_admin.engine.sampledata.shape import SEED_COUNTS, Shape
from briefly_admin.plans.unified import PROVIDER_ALIASES

_CHUNKS_A_FILE: Final = SEED_COUNTS["document_chunks"] // SEED_COUNTS["file_metadata"]
_JSON_NULL: Final = "'null'::jsonb"


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault that a repair cures: `field` holds `value` (SQL, as in rows.py), and `rule` finds it."""

    name: str
    """'settings.json_null': the field, and what is wrong with it; variants may share it."""
    rule: str
    words: str
    value: str
    plant: str = ""
    """The value in a planted row, where that is another."""

    @property
    def field(self) -> str:
        """The column."""
        return self.name.split(".", maxsplit=1)[0]

    @property
    def planted(self) -> Mapping[str, str]:
        """Column → SQL for a planted row."""
        return {self.field: self.plant or self.value}


def _missing(field: str, words: str) -> Kind:
    return Kind(f"{field}.missing", "null", words, "NULL")


def _json_null(field: str, words: str) -> Kind:
    return Kind(f"{field}.json_null", "null", words, _JSON_NULL)


def _alias(number: int) -> str:
    google, microsoft = PROVIDER_ALIASES["google"], PROVIDER_ALIASES["microsoft"]
    return (
        "CASE u.n WHEN i.n THEN "  # a user's first token is Google's
        f"'{google[number % len(google)]}' ELSE '{microsoft[number % len(microsoft)]}' END"
    )


REPAIRABLE: Final[Mapping[str, Sequence[Kind]]] = {
    "users": (
        _missing("subscription_tier", "no subscription tier"),
        _missing("subscription_status", "no subscription status"),
        _missing("usage_documents", "no count of documents"),
        _missing("usage_chat_messages", "no count of chat messages"),
        _missing("usage_api_calls", "no count of API calls"),
        _missing("settings", "no settings"),
        _json_null("settings", "settings that are JSON null"),
    ),
    "file_metadata": (
        _missing("processing_status", "no processing status"),
        _missing("chunk_count", "no chunk count"),
        _missing("embedding_count", "no embedding count"),
        _missing("storage_path", "no storage path"),
        Kind("storage_path.empty", "storage_path", "an empty path", "''"),
        Kind("storage_path.slash", "storage_path", "a path that is a slash alone", "'/'"),
        Kind("storage_path.leading_slashes", "storage_path", "leading slashes", "'//uploads/' || u.id || '/' || i.id"),
        Kind("storage_path.backslashes", "storage_path", "backslashes", r"'uploads\' || u.id || '\' || i.id"),
        _missing("metadata", "no metadata"),
        _json_null("metadata", "metadata that are JSON null"),
    ),
    "document_chunks": (_missing("chunk_index", "a chunk without an index"),),
    "conversations": (
        _missing("message_count", "no message count"),
        Kind("message_count.wrong", "repair", "a wrong message count", "i.n % 7 + 40"),
        Kind("message_count.negative", "range", "a negative message count", "-1"),
    ),
    "chat_messages": (
        _missing("sources", "no sources"),
        _json_null("sources", "sources that are JSON null"),
    ),
    "oauth_tokens": tuple(
        Kind("provider.alias", "one_of", "an alias of a provider", _alias(number), "'onedrive'")
        for number in range(len(PROVIDER_ALIASES["microsoft"]))
    ),
    "usage_logs": (
        _missing("metadata", "no metadata"),
        _json_null("metadata", "metadata that are JSON null"),
    ),
    "user_settings": (
        _missing("value", "a setting without a value"),
        _json_null("value", "a value that is JSON null"),
    ),
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
