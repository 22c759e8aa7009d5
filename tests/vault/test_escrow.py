"""The escrow file: opens its backup without the app database, shows nothing by itself, and is refused when it is nonsense."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from briefly_admin.domain.errors import BackupError
from briefly_admin.vault.escrow import MAX_SIZE, Escrow
from briefly_admin.vault.vault import Vault
from tests.vault.sample_backups import KEYS, Sample

ESCROW = Escrow(
    backup_id=UUID("11111111-2222-3333-4444-555555555555"), name="backup_1763812345678",
    created_at=datetime(2025, 11, 22, 12, 0, 0, 345678, UTC), shred_key=bytes(range(64, 96)),
    manifest_sha256="ab" * 32, key_ids=("first", "second"),
)  # fmt: skip
SECRET = base64.b64encode(ESCROW.shred_key).decode()


def changed(**values: Any) -> bytes:
    """The file with other values; None drops a field."""
    data = json.loads(ESCROW.to_bytes()) | values
    return json.dumps({name: value for name, value in data.items() if value is not None}).encode()


def test_it_is_canonical_and_comes_back() -> None:
    assert ESCROW.to_bytes() == (
        b'{"backup_id":"11111111-2222-3333-4444-555555555555","created_at":"2025-11-22T12:00:00.345678+00:00",'
        b'"format":"briefly-escrow","key_ids":["first","second"],"manifest_sha256":"' + b"ab" * 32 + b'",'
        b'"name":"backup_1763812345678","shred_key":"' + SECRET.encode() + b'","version":1}\n'
    )
    assert Escrow.parse(ESCROW.to_bytes()) == ESCROW
    assert Escrow.parse(json.dumps(json.loads(ESCROW.to_bytes()), indent=2).encode() + b"\n\n") == ESCROW


def test_its_repr_shows_no_key() -> None:
    for secret in (SECRET, repr(ESCROW.shred_key), ESCROW.shred_key.hex()):
        assert secret not in repr(ESCROW)


def test_with_it_a_backup_opens_without_the_app_database(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    written = replace(
        ESCROW, backup_id=sample.backup_id, shred_key=sample.shred_key, manifest_sha256=sample.sha256
    ).to_bytes()
    found = Escrow.parse(written)
    reader = Vault(sample.store, KEYS).open(found.backup_id, found.shred_key, found.manifest_sha256)
    assert reader.verify() == []


@pytest.mark.parametrize("size", [0, 1, 50, 200, len(ESCROW.to_bytes()) - 2])
def test_one_that_is_cut_off_is_refused(size: int) -> None:
    with pytest.raises(BackupError, match=r"no escrow file .* cut off"):
        Escrow.parse(ESCROW.to_bytes()[:size])


@pytest.mark.parametrize("version", [2, 0, -1, 10**30])
def test_another_version_says_which_are_read(version: int) -> None:
    with pytest.raises(BackupError, match=rf"version is {version}; this program reads 1\."):
        Escrow.parse(changed(version=version))


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b" " * (MAX_SIZE + 1), "more than 65536 bytes"),
        (b"\xff\xfe", "no JSON"), (b"[" * 60_000, "no JSON"), (b"9" * 10_000, "no JSON"), (b"null", "format"), (b"[]", "format"),
        (changed(format="other"), "format"), (changed(format=None), "format"),
        (changed(version=None), "version"), (changed(version=True), "version"), (changed(version="1"), "version"),
        (changed(name=None), r"fields \('name'\)"), (changed(surprise="\x1b[31m"), r"fields \('surprise'\)"),
        (changed(backup_id="../../etc"), "id of a backup"), (changed(backup_id=ESCROW.backup_id.hex), "id of a backup"),
        (changed(backup_id=7), "id of a backup"), (changed(name=""), "name"), (changed(name="\x1b]0;x\x07"), "name"),
        (changed(name="x" * 201), "name"), (changed(name=7), "name"), (changed(name="\ud800"), "name"),
        (changed(created_at="2025-11-22T12:00:00"), "time"), (changed(created_at="yesterday"), "time"),
        (changed(created_at=1), "time"), (changed(created_at="0001-01-01T00:00:00+14:00"), "time"),
        (changed(shred_key=SECRET[:-4]), "30 bytes instead of 32|29 bytes instead of 32"), (changed(shred_key=""), "0 bytes"),
        (changed(shred_key=SECRET + "AAAA"), "base64|bytes instead"), (changed(shred_key="?" * 44), "not base64"),
        (changed(shred_key="é"), "not base64"), (changed(shred_key=None), "fields"),
        (changed(manifest_sha256="ab" * 31), "SHA-256"), (changed(manifest_sha256="AB" * 32), "SHA-256"),
        (changed(key_ids=[]), "which master keys"), (changed(key_ids={}), "which master keys"),
        (changed(key_ids=["a"] * 1001), "which master keys"), (changed(key_ids=["../x"]), "key id"),
        (changed(key_ids=[7]), "key id"),
        (ESCROW.to_bytes().replace(b'"version":1', b'"version":1,"version":1'), "no JSON"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(raw: bytes, what: str) -> None:
    with pytest.raises(BackupError, match="no escrow file") as caught:
        Escrow.parse(raw)
    assert re.search(what, caught.value.message)
    assert SECRET[:12] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_escrow_of_another_backup_opens_nothing(tmp_path: Path) -> None:
    sample = Sample(tmp_path)
    with pytest.raises(BackupError):
        sample.vault.open(sample.backup_id, ESCROW.shred_key, sample.sha256)
