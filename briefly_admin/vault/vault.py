"""The vault: keys, sealed streams, and the store that holds them.

Order of writing: slots, streams, manifest. Order of destroying: slots, manifest, streams; the shred key goes first, by
whoever holds it.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.domain.errors import BackupDamaged, BackupExpired, NotFound, Refused
from briefly_admin.domain.manifest import Manifest, StreamManifest
from briefly_admin.domain.ports import BlobStore, StopSignal
from briefly_admin.vault import layout
from briefly_admin.vault.compression import LEVEL, compress, decompress
from briefly_admin.vault.copybinary import CopyParser, blocks
from briefly_admin.vault.digest import RowDigester
from briefly_admin.vault.keys import KEY_SIZE, MAX_SLOTS_SIZE, MasterKeys, make_slots, open_slots
from briefly_admin.vault.manifest import fetch, fetch_manifest, open_manifest, seal_manifest
from briefly_admin.vault.seal import KIND_TABLE, StreamName, damaged, seal, unseal
from briefly_admin.vault.verify import Damage, Level, objects_of, verify_content, verify_objects

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StreamResult:
    """A stream as it was written; sizes in bytes, `buckets` None without a key."""

    number: int
    rows: int
    plaintext_size: int
    plaintext_sha256: str
    sealed_size: int
    sealed_sha256: str
    digest: TableDigest
    buckets: BucketDigests | None

    def manifest(self, ctid_from: str = "", ctid_to: str = "") -> StreamManifest:
        """Its entry in the manifest; the bounds are those of its ctid range, '' for none."""
        return StreamManifest(
            number=self.number,
            ctid_from=ctid_from,
            ctid_to=ctid_to,
            rows=self.rows,
            plaintext_size=self.plaintext_size,
            plaintext_sha256=self.plaintext_sha256,
            sealed_size=self.sealed_size,
            sealed_sha256=self.sealed_sha256,
        )


class Vault:
    """Sealed backups in a store. `randomness(n)` gives n bytes that nobody can guess."""

    def __init__(
        self,
        store: BlobStore,
        keys: MasterKeys,
        *,
        level: int = LEVEL,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.store = store
        self.keys = keys
        self._level = level
        self._randomness = randomness

    def begin(self, backup_id: UUID) -> "BackupWriter":
        """Start a backup under a new id: makes its keys, writes slots.json. Raises Refused if the id is in use."""
        data_key, shred_key = self._randomness(KEY_SIZE), self._randomness(KEY_SIZE)
        slots = make_slots(self.keys, data_key=data_key, shred_key=shred_key, backup_id=backup_id)
        self.store.put(layout.slots_key(backup_id), [slots])
        return BackupWriter(
            self, backup_id, data_key=data_key, shred_key=shred_key, level=self._level, randomness=self._randomness
        )

    def open(self, backup_id: UUID, shred_key: bytes | None, expected_manifest_sha256: str) -> "BackupReader":
        """Open a backup whose sealed manifest has the recorded SHA-256 (hexadecimal).

        Raises BackupExpired without a shred key, BackupKeyMissing, BackupDamaged, Unavailable.
        """
        if not shred_key:
            raise BackupExpired("The backup was shredded: nobody can read it any more.", remedy="Use another backup.")
        sealed = fetch_manifest(self.store, backup_id, expected_sha256=expected_manifest_sha256)
        slots = fetch(self.store, layout.slots_key(backup_id), limit=MAX_SLOTS_SIZE, what="slots.json")
        data_key = open_slots(slots, self.keys, shred_key=shred_key, backup_id=backup_id)
        return BackupReader(self.store, open_manifest(sealed, data_key=data_key, backup_id=backup_id), data_key)

    def destroy(self, backup_id: UUID) -> None:
        """Delete all of a backup, slots first; safe to repeat. Delete the shred key before. Raises Unavailable."""
        self.store.delete(layout.slots_key(backup_id))
        self.store.delete(layout.manifest_key(backup_id))
        for key in list(self.store.list(layout.prefix(backup_id))):
            self.store.delete(key)

    def sweep_orphans(self, known_ids: Collection[UUID]) -> list[UUID]:
        """Destroy what crashes left: backups without a manifest that are not among `known_ids`; their ids.

        `known_ids` must hold every backup being written just now.
        """
        whole: set[UUID] = set()
        found: set[UUID] = set()
        for key in self.store.list():
            if backup_id := layout.backup_of(key):
                found.add(backup_id)
                if key == layout.manifest_key(backup_id):
                    whole.add(backup_id)
        orphans = sorted(found - whole - set(known_ids))
        for backup_id in orphans:
            self.destroy(backup_id)
        return orphans


class BackupWriter:
    """A backup being written. `shred_key` goes into the app database before any stream is worth keeping."""

    def __init__(
        self,
        vault: Vault,
        backup_id: UUID,
        *,
        data_key: bytes,
        shred_key: bytes,
        level: int,
        randomness: Callable[[int], bytes],
    ) -> None:
        self.backup_id = backup_id
        self.shred_key = shred_key
        self._vault = vault
        self._data_key = data_key
        self._level = level
        self._randomness = randomness
        self._closed = False

    def write_table_stream(
        self, number: int, copy_chunks: Iterable[bytes], *, columns: int, key: Sequence[int] = ()
    ) -> StreamResult:
        """Write one COPY binary stream of rows with `columns` fields; `key`: positions of the key's columns, in order.

        Whole or not at all: if anything raises, nothing is left and the number may be used again. Threads may write
        different numbers at once. Raises BackupDamaged if the data is no whole COPY binary, Refused if the number
        exists, Unavailable, and whatever `copy_chunks` raises.
        """
        self._require_open()
        if number < 1:
            raise ValueError("table streams are numbered from 1")
        reading = _Reading(columns, tuple(key))
        hashed = hashlib.sha256()
        sealed = seal(
            compress(reading.pieces(copy_chunks), level=self._level),
            data_key=self._data_key,
            backup_id=self.backup_id,
            kind=KIND_TABLE,
            number=number,
            randomness=self._randomness,
        )
        size = self._vault.store.put(layout.stream_key(self.backup_id, number), _hashing(sealed, hashed.update))
        return reading.result(number, size, hashed.hexdigest())

    def finish(self, manifest: Manifest) -> str:
        """Write the manifest: from now on the backup exists. The SHA-256 of its sealed bytes, in hexadecimal.

        Raises BackupDamaged if the store lacks a stream that it names, Unavailable.
        """
        self._require_open()
        if manifest.backup_id != self.backup_id:
            raise ValueError("the manifest is that of another backup")
        for expected in objects_of(manifest):
            self._require_stored(expected.key, expected.size)
        sealed = seal_manifest(manifest, data_key=self._data_key, randomness=self._randomness)
        self._vault.store.put(layout.manifest_key(self.backup_id), [sealed])
        self._closed = True
        return hashlib.sha256(sealed).hexdigest()

    def abort(self) -> None:
        """Delete everything that was written; safe to repeat. Raises Unavailable (then the sweep deletes it)."""
        self._closed = True
        self._vault.destroy(self.backup_id)

    def _require_open(self) -> None:
        if self._closed:
            raise Refused("This backup is finished or was given up.", remedy="Start another one.")

    def _require_stored(self, key: str, size: int) -> None:
        try:
            stored = self._vault.store.size(key)
        except NotFound:
            stored = -1
        if stored != size:
            what = f"{key} is missing" if stored < 0 else f"{key} has {stored} bytes instead of {size}"
            raise BackupDamaged(
                f"The backup cannot be finished: {what}.", damages=[what], remedy="Take another backup."
            )


class _Reading:
    """What is learnt of a COPY stream while it passes."""

    def __init__(self, columns: int, key: tuple[int, ...]) -> None:
        self._parser = CopyParser(columns, key)
        self._digester = RowDigester(keyed=bool(key))
        self._hash = hashlib.sha256()
        self._size = 0

    def pieces(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes, in pieces of 1 MiB at most."""
        for block, found in blocks(self._parser, chunks):
            self._hash.update(block)
            self._size += len(block)
            self._digester.add(found.rows, found.keys)
            for start in range(0, len(block), _PIECE):
                yield block[start : start + _PIECE]

    def result(self, number: int, sealed_size: int, sealed_sha256: str) -> StreamResult:
        return StreamResult(
            number=number,
            rows=self._parser.row_count,
            plaintext_size=self._size,
            plaintext_sha256=self._hash.hexdigest(),
            sealed_size=sealed_size,
            sealed_sha256=sealed_sha256,
            digest=self._digester.digest(),
            buckets=self._digester.buckets(),
        )


class BackupReader:
    """An open backup: its manifest is authentic."""

    def __init__(self, store: BlobStore, manifest: Manifest, data_key: bytes) -> None:
        self.manifest = manifest
        self._store = store
        self._data_key = data_key

    def read_table_stream(self, stream: StreamManifest) -> Iterator[bytes]:
        """One whole COPY binary, in pieces; every byte was authenticated before it is given out.

        It is whole only when the iterator ends without an error: load it where it can be undone.
        Raises BackupDamaged, naming stream and chunk; Unavailable.
        """
        name = StreamName(self.manifest.backup_id, KIND_TABLE, stream.number)
        try:
            file = self._store.open(layout.stream_key(self.manifest.backup_id, stream.number))
        except NotFound as error:
            raise damaged(name, "is missing") from error
        hashed, size = hashlib.sha256(), 0
        with closing(file):
            sealed = unseal(file, data_key=self._data_key, backup_id=name.backup_id, kind=name.kind, number=name.number)
            try:
                for piece in decompress(sealed, limit=stream.plaintext_size):
                    hashed.update(piece)
                    size += len(piece)
                    yield piece
            except BackupDamaged as error:
                what = "; ".join(error.damages)
                raise damaged(name, what.removeprefix(f"{name}: ")) from error
        if size != stream.plaintext_size or hashed.hexdigest() != stream.plaintext_sha256:
            raise damaged(name, "does not hold the data that the manifest describes")

    def verify(
        self,
        level: Level = Level.CONTENT,
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: StopSignal | None = None,
    ) -> list[Damage]:
        """All damage; an empty list is a proof. `progress(done, total)` in sealed bytes.

        Raises Stopped when `should_stop` says why, Unavailable.
        """
        if level == Level.OBJECTS:
            return verify_objects(self._store, objects_of(self.manifest), progress=progress, should_stop=should_stop)
        return verify_content(
            self._store, self.manifest, data_key=self._data_key, progress=progress, should_stop=should_stop
        )


def _hashing(chunks: Iterable[bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    for chunk in chunks:
        update(chunk)
        yield chunk
