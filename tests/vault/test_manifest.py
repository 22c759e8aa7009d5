import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupDamaged, BackupError
from briefly_admin.domain.manifest import Manifest, StreamManifest, TableManifest, table_hash
from tests.vault.sample_backups import COLUMNS, manifest_of

STREAM = StreamManifest(1, "", "(5,0)", 3, 100, "ab" * 32, 90, "cd" * 32)
TABLE = TableManifest(
    "public", 'odd "%s', COLUMNS, ("id",), 3, table_hash([STREAM]), TableDigest(3, (1, 2, 3, 2**64 - 1)), (STREAM,)
)
MANIFEST = manifest_of([TABLE])


def test_it_comes_back_as_it_was() -> None:
    assert Manifest.from_bytes(MANIFEST.to_bytes()) == MANIFEST


def test_the_text_is_canonical() -> None:
    raw = MANIFEST.to_bytes()
    assert raw == json.dumps(json.loads(raw), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    elsewhere = replace(MANIFEST, created_at=MANIFEST.created_at.astimezone(timezone(timedelta(hours=5))))
    assert elsewhere.to_bytes() == raw


def test_it_answers_what_pages_ask() -> None:
    assert MANIFEST.rows == 3
    assert MANIFEST.sealed_size == 90
    assert MANIFEST.table("public", 'odd "%s') == TABLE
    assert MANIFEST.table("public", "none") is None
    assert TABLE.key_positions == (0,)


def test_the_tables_hash_goes_by_stream_number() -> None:
    second = replace(STREAM, number=2, plaintext_sha256="ef" * 32)
    assert table_hash([second, STREAM]) == table_hash([STREAM, second]) != table_hash([STREAM])


def test_another_version_is_named_and_not_called_damage() -> None:
    with pytest.raises(BackupError, match="version is 2; this program reads 1") as raised:
        Manifest.from_bytes(replace(MANIFEST, format_version=2).to_bytes())
    assert not isinstance(raised.value, BackupDamaged)


def changed(change: Callable[[Any], Any]) -> bytes:
    data = json.loads(MANIFEST.to_bytes())
    change(data)
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xff", b"null", b"[]", b"{}", b"[" * 100_000, MANIFEST.to_bytes() + b" ", b" " + MANIFEST.to_bytes(), MANIFEST.to_bytes()[:-1],
        MANIFEST.to_bytes().replace(b'"plan":', b'"plan":"x","plan":'),
        MANIFEST.to_bytes().replace(b"ab", b"\\u0061b", 1),
    ],
)  # fmt: skip
def test_what_is_no_canonical_manifest_is_damage(raw: bytes) -> None:
    with pytest.raises(BackupDamaged, match="manifest is damaged"):
        Manifest.from_bytes(raw)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.pop("plan"), r"fields \(plan\)"),
        (lambda m: m.update(surprise=1), r"fields \(surprise\)"),
        (lambda m: m.update(plan=1), "manifest.plan is not str"),
        (lambda m: m.update(format_version=True), "format_version is not int"),
        (lambda m: m.update(format_version="1"), "format_version is not int"),
        (lambda m: m.update(backup_id="x"), "malformed id"),
        (lambda m: m.update(created_at="yesterday"), "malformed id or time"),
        (lambda m: m.update(created_at="2025-11-22T12:00:00+05:00"), "canonical"),
        (lambda m: m.update(extensions={"vector": 1}), "extensions.vector is not str"),
        (lambda m: m.update(tables={}), "tables is not list"),
        (lambda m: m["tables"].append(m["tables"][0]), "names a stream twice"),
        (lambda m: m["tables"][0].update(rows=4), "rows is not the sum"),
        (lambda m: m["tables"][0].update(rows=3.0), "rows is not int"),
        (lambda m: m["tables"][0].update(digest="3:00"), "digest is not a digest"),
        (lambda m: m["tables"][0].update(digest="4:" + "0" * 64), "digest's count"),
        (lambda m: m["tables"][0].update(hash="00" * 32), "hash is not that of its streams"),
        (lambda m: m["tables"][0].update(key=["none"]), "key of columns that it does not have"),
        (lambda m: m["tables"][0].update(key=[7]), r"key\[0\] is not str"),
        (lambda m: m["tables"][0]["columns"].append(m["tables"][0]["columns"][0]), "names a column twice"),
        (lambda m: m["tables"][0]["columns"][0].update(nullable=1), r"columns\[0\].nullable is not bool"),
        (lambda m: m["tables"][0]["streams"][0].update(number=0), "number is out of range"),
        (lambda m: m["tables"][0]["streams"][0].update(sealed_size=-1), "sealed_size is out of range"),
        (lambda m: m["tables"][0]["streams"][0].update(plaintext_sha256="AB" * 32), "not a SHA-256"),
        (lambda m: m["tables"][0].update(streams=[7]), r"streams\[0\] is not an object"),
        (lambda m: m["sequences"][0].update(last_value=1 << 63), "last_value is out of range"),
        (lambda m: m["schema_changes"][0].update(inverse=None), "inverse is not str"),
    ],
)  # fmt: skip
def test_nonsense_is_damage_and_named(change: Callable[[Any], Any], what: str) -> None:
    with pytest.raises(BackupDamaged, match=what):
        Manifest.from_bytes(changed(change))


def test_times_keep_their_microseconds() -> None:
    manifest = replace(MANIFEST, created_at=datetime(2025, 1, 1, tzinfo=UTC))
    assert Manifest.from_bytes(manifest.to_bytes()).created_at == datetime(2025, 1, 1, tzinfo=UTC)
