"""The manifest in the store: canonical JSON, sealed as kind 0, number 0."""

import hashlib
import hmac
import io
from collections.abc import Callable
from contextlib import closing
from typing import Final
from uuid import UUID

from briefly_admin.domain.errors import BackupDamaged, BackupError, NotFound
from briefly_admin.domain.manifest import Manifest
from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault import layout
from briefly_admin.vault.seal import KIND_MANIFEST, MANIFEST_NUMBER, seal, unseal

MAX_SIZE: Final = 1 << 26
"""Bytes of a sealed manifest at most: some 130,000 streams, of 256 MiB each."""
_READ_SIZE: Final = 1 << 16


def seal_manifest(manifest: Manifest, *, data_key: bytes, randomness: Callable[[int], bytes]) -> bytes:
    """The sealed bytes. Raises BackupError if no reader would take so many."""
    sealed = b"".join(
        seal(
            [manifest.to_bytes()],
            data_key=data_key,
            backup_id=manifest.backup_id,
            kind=KIND_MANIFEST,
            number=MANIFEST_NUMBER,
            randomness=randomness,
        )
    )
    if len(sealed) > MAX_SIZE:
        raise BackupError(
            f"The backup's manifest would have {len(sealed)} bytes; readers take {MAX_SIZE}.",
            remedy="Back up fewer tables at once.",
        )
    return sealed


def fetch_manifest(store: BlobStore, backup_id: UUID, *, expected_sha256: str) -> bytes:
    """The sealed bytes, if they are the ones that were written. Raises BackupDamaged."""
    sealed = fetch(store, layout.manifest_key(backup_id), limit=MAX_SIZE, what="the manifest")
    if not hmac.compare_digest(hashlib.sha256(sealed).hexdigest(), expected_sha256):
        raise _damaged("the manifest is not the one that was recorded: it was changed, swapped or replayed")
    return sealed


def open_manifest(sealed: bytes, *, data_key: bytes, backup_id: UUID) -> Manifest:
    """Raises BackupDamaged, and BackupError for a version that is not read."""
    chunks = unseal(
        io.BytesIO(sealed), data_key=data_key, backup_id=backup_id, kind=KIND_MANIFEST, number=MANIFEST_NUMBER
    )
    manifest = Manifest.from_bytes(b"".join(chunks))
    if manifest.backup_id != backup_id:
        raise _damaged("the manifest is that of another backup")
    return manifest


def fetch(store: BlobStore, key: str, *, limit: int, what: str) -> bytes:
    """A small object whole. Raises BackupDamaged if it is missing or has more than `limit` bytes."""
    try:
        file = store.open(key)
    except NotFound as error:
        raise _damaged(f"{what} is missing") from error
    data = bytearray()
    with closing(file):
        while piece := file.read(_READ_SIZE):  # read(limit) would make room for all of it at once
            data += piece
            if len(data) > limit:
                raise _damaged(f"{what} is larger than it can be")
    return bytes(data)


def _damaged(what: str) -> BackupDamaged:
    return BackupDamaged(
        f"The backup is damaged: {what}.", damages=[what], remedy="Use another backup, or another copy of this one."
    )
