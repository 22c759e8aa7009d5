from typing import Any

import pytest

from briefly_admin.plans import records

_ID = "7d444840-9dc0-11d1-b245-5ffdce74fad2"
_WHEN = "2024-01-02T03:04:05.1+00:00"

GOOD: dict[type[records.Record], dict[str, Any]] = {
    records.UserRecord: {
        "id": _ID, "email": "ann@example.com", "created_at": _WHEN, "updated_at": _WHEN, "subscription_tier": "pro_byok",
        "subscription_status": "past_due", "stripe_customer_id": None, "usage_documents": 0, "usage_chat_messages": 3,
        "usage_api_calls": 2**40, "settings": {},
    },
    records.FileRecord: {
        "id": _ID, "user_id": _ID, "filename": "a.pdf", "file_size": 0, "file_type": "pdf", "upload_date": _WHEN,
        "processing_status": "failed", "chunk_count": 1, "embedding_count": 0, "storage_path": "a..b/c", "metadata": {"a": [1]},
    },
    records.ChunkRecord: {
        "id": _ID, "file_id": _ID, "user_id": _ID, "chunk_text": "", "chunk_index": 0, "embedding_id": None,
        "embedding": "[1,2,3]", "created_at": _WHEN,
    },
    records.ConversationRecord: {
        "id": _ID, "user_id": _ID, "title": "", "created_at": _WHEN, "updated_at": _WHEN, "message_count": 0,
    },
    records.MessageRecord: {
        "id": _ID, "conversation_id": _ID, "user_id": _ID, "role": "assistant", "content": "Hi", "sources": ["a", ""],
        "created_at": _WHEN,
    },
    records.TokenRecord: {
        "id": _ID, "user_id": _ID, "provider": "google", "access_token": "t", "refresh_token": None, "expires_at": _WHEN,
        "created_at": _WHEN, "updated_at": _WHEN,
    },
    records.UsageRecord: {
        "id": _ID, "user_id": _ID, "action": "chat", "resource_type": "file", "resource_id": None, "metadata": {},
        "created_at": _WHEN,
    },
    records.SettingRecord: {
        "id": _ID, "user_id": _ID, "key": "theme", "value": False, "created_at": _WHEN, "updated_at": _WHEN,
    },
}  # fmt: skip

OPTIONAL = {
    records.UserRecord: {"stripe_customer_id"},
    records.FileRecord: set[str](),
    records.ChunkRecord: {"embedding_id", "embedding"},
    records.ConversationRecord: set[str](),
    records.MessageRecord: set[str](),
    records.TokenRecord: {"refresh_token"},
    records.UsageRecord: {"resource_id"},
    records.SettingRecord: set[str](),
}

BAD: list[tuple[type[records.Record], str, list[Any]]] = [
    (records.UserRecord, "id", ["", True, 1.5, {}]),
    (records.UserRecord, "email", ["not-an-address", "", "a@", 7]),
    (records.UserRecord, "created_at", ["infinity", "-infinity", "0044-03-15T00:00:00+00:00 BC", "10000-01-01T00:00:00+00:00", 7]),
    (records.UserRecord, "subscription_tier", ["platinum", "", "Free", 1]),
    (records.UserRecord, "subscription_status", ["paused", "cancelled"]),
    (records.UserRecord, "usage_documents", [-1, 1.0, "1", True]),
    (records.UserRecord, "settings", [[], "{}", 1]),
    (records.FileRecord, "file_size", [-1, 0.5]),
    (records.FileRecord, "processing_status", ["archived"]),
    (records.FileRecord, "storage_path", ["", "/", "/a", "a\\b", "..", "../a", "a/..", "a/../b"]),
    (records.FileRecord, "metadata", [[], "x"]),
    (records.ChunkRecord, "chunk_index", [-1, "0"]),
    (records.ChunkRecord, "embedding", [True, 1, {}, "1,2", ["a"], [True]]),
    (records.ConversationRecord, "message_count", [-1]),
    (records.MessageRecord, "role", ["system", "User"]),
    (records.MessageRecord, "sources", [{}, "a", [1], [None], [["a"]]]),
    (records.TokenRecord, "provider", ["google_drive", "dropbox", ""]),
    (records.TokenRecord, "expires_at", ["infinity"]),
    (records.UsageRecord, "resource_id", ["", 1.5]),
]  # fmt: skip


@pytest.mark.parametrize("record", GOOD, ids=lambda record: record.__name__)
def test_a_right_row_passes(record: type[records.Record]) -> None:
    assert record().validate(GOOD[record]) == {}


@pytest.mark.parametrize("record", GOOD, ids=lambda record: record.__name__)
def test_columns_beyond_ours_are_not_judged(record: type[records.Record]) -> None:
    assert record().validate({**GOOD[record], "extra": object()}) == {}


@pytest.mark.parametrize("record", GOOD, ids=lambda record: record.__name__)
def test_what_may_be_null_may_be_missing_and_nothing_else_may(record: type[records.Record]) -> None:
    for name in GOOD[record]:
        without = {key: value for key, value in GOOD[record].items() if key != name}
        expected = set() if name in OPTIONAL[record] else {name}
        assert set(record().validate(without)) == expected
        assert set(record().validate({**without, name: None})) == expected


@pytest.mark.parametrize(("record", "name", "values"), BAD, ids=lambda part: getattr(part, "__name__", None))
def test_a_wrong_value_is_found_by_its_field(record: type[records.Record], name: str, values: list[Any]) -> None:
    for value in values:
        assert set(record().validate({**GOOD[record], name: value})) == {name}, value


@pytest.mark.parametrize("identifier", [_ID, "user-7", 7, -1, 2**63])
def test_ids_of_text_and_integer_keys_pass(identifier: str | int) -> None:
    assert records.UserRecord().validate({**GOOD[records.UserRecord], "id": identifier}) == {}


@pytest.mark.parametrize("embedding", ["[]", "[1]", [1, 2.5], None])
def test_an_embedding_of_any_dimension_passes(embedding: object) -> None:
    assert records.ChunkRecord().validate({**GOOD[records.ChunkRecord], "embedding": embedding}) == {}


@pytest.mark.parametrize("value", [{}, [], "", 0, False])
def test_a_setting_is_any_json_but_null(value: object) -> None:
    assert records.SettingRecord().validate({**GOOD[records.SettingRecord], "value": value}) == {}
