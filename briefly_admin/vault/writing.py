"""A backup being written: slots, streams, and last the manifest; by several workers at once, whoever dies."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Final
from uuid import UUID

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.domain.errors import BackupDamaged, NotFound, Refused
from briefly_admin.domain.manifest import Manifest, StreamManifest
from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault import layout
from briefly_admin.vault.compression import compress, decompress
from briefly_admin.vault.copybinary import CopyParser, blocks
from briefly_admin.vault.digest import RowDigester
from briefly_admin.vault.manifest import seal_manifest
from briefly_admin.vault.seal import KIND_TABLE, seal, unseal
from briefly_admin.vault.verify import objects_of

_PIECE: Final = 1 << 20
_NO_LIMIT: Final = 1 << 62
"""Bytes: a stream that no manifest describes yet may be as large as it is; it is read piece by piece."""


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


def destroy(store: BlobStore, backup_id: UUID) -> None:
    """Delete all of a backup, slots first; safe to repeat. Raises Unavailable."""
    store.delete(layout.slots_key(backup_id))
    store.delete(layout.manifest_key(backup_id))
    for key in list(layout.limited(store.list(layout.prefix(backup_id)))):
        if layout.backup_of(key) == backup_id:  # a hostile listing may name what is another's
            store.delete(key)


class BackupWriter:
    """A backup being written. `shred_key` goes into the app database before any stream is worth keeping."""

    def __init__(
        self,
        store: BlobStore,
        backup_id: UUID,
        *,
        data_key: bytes,
        shred_key: bytes,
        level: int,
        randomness: Callable[[int], bytes],
    ) -> None:
        self.backup_id = backup_id
        self.shred_key = shred_key
        self._store = store
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
        exists or the backup was given up meanwhile, Unavailable, and whatever `copy_chunks` raises.
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
        stored = layout.stream_key(self.backup_id, number)
        size = self._store.put(stored, _hashing(sealed, hashed.update))
        self._require_kept(stored)
        return reading.result(number, size, hashed.hexdigest())

    def ensure_table_stream(
        self, number: int, copy_chunks: Iterable[bytes], *, columns: int, key: Sequence[int] = ()
    ) -> StreamResult:
        """As `write_table_stream`; but a stream of that number that is there already is read back whole and adopted.

        For workers that claim a stream after another one died, or seems to have. Objects are never overwritten nor
        deleted while a backup is being written, so whoever puts a stream first has put the only one, and all others
        describe that very object: what the manifest says of it is true whoever finishes, and a worker that wakes late
        can replace nothing. Adopting is safe because a stream is sealed for this backup and this number, and a backup
        has one snapshot and one layout: whatever stands under the number holds the same rows.
        `copy_chunks` is not touched where the stream is there. Raises also BackupDamaged if what is there is not whole.
        """
        self._require_open()
        if not self._holds(number):
            try:
                return self.write_table_stream(number, copy_chunks, columns=columns, key=key)
            except Refused:
                if not self._holds(number):
                    raise
        return self._read_back(number, columns, tuple(key))

    def _holds(self, number: int) -> bool:
        try:
            self._store.size(layout.stream_key(self.backup_id, number))
        except NotFound:
            return False
        return True

    def _read_back(self, number: int, columns: int, key: tuple[int, ...]) -> StreamResult:
        """What the stream in the store is, found by reading all of it."""
        reading = _Reading(columns, key)
        with closing(_HashingFile(self._store.open(layout.stream_key(self.backup_id, number)))) as file:
            opened = unseal(file, data_key=self._data_key, backup_id=self.backup_id, kind=KIND_TABLE, number=number)
            for _ in reading.pieces(decompress(opened, limit=_NO_LIMIT)):
                pass
        return reading.result(number, file.size, file.sha256)

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
        self._store.put(layout.manifest_key(self.backup_id), [sealed])
        self._closed = True
        return hashlib.sha256(sealed).hexdigest()

    def abort(self) -> None:
        """Delete everything that was written; safe to repeat. Raises Unavailable (then the sweep deletes it)."""
        self._closed = True
        destroy(self._store, self.backup_id)

    def _require_open(self) -> None:
        if self._closed:
            raise Refused("This backup is finished or was given up.", remedy="Start another one.")

    def _require_kept(self, stored: str) -> None:
        """Nothing is left of a backup given up meanwhile: `destroy` deletes the slots first, then what it lists.

        With the slots still there it will list what was put just now; with them gone, this is ours to delete.
        """
        try:
            self._store.size(layout.slots_key(self.backup_id))
        except NotFound as error:
            self._closed = True
            self._store.delete(stored)
            raise Refused(
                "This backup was given up while it was being written.", remedy="Start another one."
            ) from error

    def _require_stored(self, key: str, size: int) -> None:
        try:
            stored = self._store.size(key)
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


class _HashingFile:
    """A file that is counted and hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def close(self) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        """Hexadecimal, of what was read so far."""
        return self._hash.hexdigest()


def _hashing(chunks: Iterable[bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    for chunk in chunks:
        update(chunk)
        yield chunk
