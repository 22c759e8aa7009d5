"""What the guide names as a cure by hand cures: one correction a row, and nothing blocks any more."""

from collections.abc import Mapping

import psycopg
from psycopg import sql

from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine.sampledata import BLOCKING_FAULTS, Shape
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate.examine import examine
from tests.services.conftest import Stage

_SHAPE = Shape()
_OWNER = str(_SHAPE.key("users", 0))
_MOMENT = "2024-02-29 12:00:00+00"
VALUES: dict[str, str | None] = {
    "created_at": _MOMENT, "updated_at": _MOMENT, "upload_date": _MOMENT, "expires_at": "9999-12-31 00:00:00+00",
    "subscription_tier": "free", "subscription_status": "active", "processing_status": "failed", "role": "user",
    "usage_documents": "0", "usage_chat_messages": "0", "usage_api_calls": "0", "file_size": "0", "chunk_count": "0",
    "embedding_count": "0", "settings": "{}", "metadata": "{}", "sources": '["report.pdf"]', "user_id": _OWNER,
    "file_id": str(_SHAPE.key("file_metadata", "host")), "conversation_id": str(_SHAPE.key("conversations", "host")),
    "filename": "unknown", "file_type": "unknown", "storage_path": "uploads/found", "title": "untitled",
    "chunk_text": "lost", "chunk_index": "7", "content": "lost", "provider": "microsoft", "access_token": "anew",
    "action": "unknown", "resource_type": "unknown", "resource_id": None, "key": "found",
}  # fmt: skip
"""Field → a value that the guide's cure names."""


def _token(user: int | str, provider: str) -> dict[str, str | None]:
    """A user and a provider that no other token has."""
    return {"user_id": str(_SHAPE.key("users", user)), "provider": provider}


OTHERWISE: dict[str, dict[str, str | None]] = {
    "file_metadata.user_id.missing": {"user_id": _OWNER},  # the run makes the path
    "document_chunks.file_id.missing": {"file_id": VALUES["file_id"]},  # the run makes the index
    "document_chunks.chunk_index.above_range": {"chunk_index": "0"},
    "oauth_tokens.user_id.missing": _token(1, "microsoft"),
    "oauth_tokens.user_id.orphan": _token(2, "microsoft"),
    "oauth_tokens.provider.missing": _token(3, "microsoft"),
    "oauth_tokens.provider.duplicate": _token("users.email.case_alone", "microsoft"),
    "user_settings.key.duplicate": {"key": "another"},
    "users.email.missing": {"email": "missing@example.com"},
    "users.email.invalid": {"email": "not-an@address.example.com"},
    "users.email.duplicate": {"email": "another@example.com"},
}
"""Name → what cures it, where the field alone does not say it."""


def test_each_blocking_finding_is_cured_by_hand(stage: Stage) -> None:
    """By a correction the first row of each rule; the others by SQL, for the time that it takes."""
    target, rows, corrected = stage.servers.target, stage.services.rows, set()
    stage.services.sampledata.create(stage.ana, dirty=5, embeddings=0)
    for name, plant in BLOCKING_FAULTS.items():
        key = (str(_SHAPE.key(plant.table, name)),)
        changes = OTHERWISE.get(name) or {field: VALUES[field] for field, _ in plant.findings}
        rule = plant.findings[0][1]
        if rule in corrected:
            _update(target, plant.table, key[0], changes)
            continue
        corrected.add(rule)
        before = rows.get(stage.olga, plant.table, key)
        if rule != "unique":  # either of the two rows may be the one that is found
            assert before.blocks, name
        assert not rows.correct(stage.olga, plant.table, key, version=before.version, changes=changes).blocks, name
    with target.session(bulk=True) as connection:
        found = examine(connection, stage.servers.plan)
    assert [f"{f.table}.{f.field} {f.rule}" for f in found if f.finding_class is FindingClass.BLOCKING] == []


def _update(target: Target, table: str, key: str, changes: Mapping[str, str | None]) -> None:
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in changes.items()]
    query = sql.SQL("UPDATE {} SET {} WHERE id = {}").format(
        sql.Identifier("public", table), sql.SQL(", ").join(pairs), sql.Literal(key)
    )
    with psycopg.connect(target.dsn) as connection:
        assert connection.execute(query).rowcount == 1
