import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupDamaged, BackupError
from briefly_admin.domain.manifest import (
    ColumnManifest,
    FieldManifest,
    ForeignKeyManifest,
    Manifest,
    StreamManifest,
    TableManifest,
    TypeManifest,
    table_hash,
)
from tests.vault.sample_backups import COLUMNS, manifest_of

STREAM = StreamManifest(1, "", "(5,0)", 3, 100, "ab" * 32, 90, "cd" * 32)
TABLE = TableManifest(
    "public", 'odd "%s', COLUMNS, ("id",), 3, table_hash([STREAM]), TableDigest(3, (1, 2, 3, 2**64 - 1)), (STREAM,)
)
TYPES = (
    TypeManifest("public.mood", "enum", labels=("sad", "")),
    TypeManifest('"a.b"."c""d"', "domain", base="public.mood", typmod=5),
    TypeManifest("public._mood", "array", element="public.mood"),
    TypeManifest("public.pair", "composite", fields=(FieldManifest("n", "integer"), FieldManifest("m", "public.mood"))),
    TypeManifest("public.words", "range", element="text", collation='pg_catalog."C"', opclass="pg_catalog.text_ops"),
    TypeManifest("public.many", "multirange", element="public.words"),
    TypeManifest("public.vector", "base", extension="vector"),
)
KEY = ForeignKeyManifest("of a title", ("title",), "public", 'odd "%s', ("id",), validated=True)
ODD = ColumnManifest("odd", '"a.b"."c""d"', generated="s", identity="", binary=False)
MANIFEST = replace(
    manifest_of([replace(TABLE, columns=(*COLUMNS, ODD), foreign_keys=(KEY,))]), types=TYPES
)  # fmt: skip


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
    assert MANIFEST.table("public", 'odd "%s') == MANIFEST.tables[0]
    assert MANIFEST.table("public", "none") is None
    assert TABLE.key_positions == (0,)
    assert TYPES[3].made_of == ("integer", "public.mood")


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


EMPTY = table_hash([])


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
        (lambda m: m["sequences"].append(m["sequences"][0]), "names a sequence twice"),
        (lambda m: m["tables"].append(m["tables"][0] | {"streams": [], "rows": 0, "digest": "0:" + "0" * 64, "hash": EMPTY}), "names a table twice"),
        (lambda m: m["tables"][0].update(key=["id", "id"]), "names a key column twice"),
        (lambda m: m["tables"][0]["columns"][0].update(generated="x"), "generated is not one of '', 's', 'v'"),
        (lambda m: m["tables"][0]["columns"][0].update(identity="x"), "identity is not one of '', 'a', 'd'"),
        (lambda m: m["tables"][0]["columns"][0].update(type="public.none"), "has the type public.none, which is not described"),
        (lambda m: m["tables"][0]["columns"][0].update(type='"a.b"."c"'), "which is not described"),
        (lambda m: m["tables"][0].pop("foreign_keys"), r"fields \(foreign_keys\)"),
        (lambda m: m["tables"][0]["foreign_keys"].append(m["tables"][0]["foreign_keys"][0]), "names a foreign key twice"),
        (lambda m: m["tables"][0]["foreign_keys"][0].update(columns=["none"]), "key of columns that it does not have"),
        (lambda m: m["tables"][0]["foreign_keys"][0].update(references=["none"]), "to columns that are not there"),
        (lambda m: m["tables"][0]["foreign_keys"][0].update(references=["id", "id"]), "as many columns"),
        (lambda m: m["tables"][0]["foreign_keys"][0].update(columns=[], references=[]), "as many columns"),
        (lambda m: m["tables"][0]["foreign_keys"][0].update(validated=0), "validated is not bool"),
        (lambda m: m["types"].append(m["types"][0]), "public.mood is described twice"),
        (lambda m: m["types"][0].update(name="integer"), "or built in"),
        (lambda m: m["types"][0].update(name="pg_catalog.mood"), "or built in"),
        (lambda m: m["types"][0].update(kind="shell"), "kind is not one of 'enum', 'domain'"),
        (lambda m: m["types"][0].update(kind=["enum"]), "kind is not str"),
        (lambda m: m["types"][0].update(labels=["a", "a"]), "names a label twice"),
        (lambda m: m["types"][0].update(base="text"), "not made of what its kind, enum"),
        (lambda m: m["types"][0].update(typmod=4), "typmod is not -1"),
        (lambda m: m["types"][0].update(collation="x"), "order, which its kind, enum, has not"),
        (lambda m: m["types"][1].update(base=""), "not made of what its kind, domain"),
        (lambda m: m["types"][1].update(base=m["types"][1]["name"]), "which is not described before it"),
        (lambda m: m["types"].reverse(), "which is not described before it"),
        (lambda m: m["types"][2].update(element=""), "not made of what its kind, array"),
        (lambda m: m["types"][2].update(labels=["a"]), "labels or fields, which its kind, array"),
        (lambda m: m["types"][3]["fields"].append(m["types"][3]["fields"][0]), "names a field twice"),
        (lambda m: m["types"][3]["fields"][0].update(type="public.pair"), "which is not described before it"),
        (lambda m: m["types"][3]["fields"][0].update(typmod=-2), "typmod is out of range"),
        (lambda m: m["types"][6].update(surprise=1), r"fields \(surprise\)"),
    ],
)  # fmt: skip
def test_nonsense_is_damage_and_named(change: Callable[[Any], Any], what: str) -> None:
    with pytest.raises(BackupDamaged, match=what):
        Manifest.from_bytes(changed(change))


def test_times_keep_their_microseconds() -> None:
    manifest = replace(MANIFEST, created_at=datetime(2025, 1, 1, tzinfo=UTC))
    assert Manifest.from_bytes(manifest.to_bytes()).created_at == datetime(2025, 1, 1, tzinfo=UTC)
