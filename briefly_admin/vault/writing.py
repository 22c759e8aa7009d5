"""A backup being written: slots, streams, and last the manifest; by several workers at once, whoever dies."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol, TypeVar
from uuid import UUID

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.domain.errors import BackupDamaged, NotFound, Refused
from briefly_admin.domain.manifest import Manifest, StreamManifest
from briefly_admin.domain.ports import BlobStore, StopSignal
from briefly_admin.vault import layout
from briefly_admin.vault.ahead import beside
from briefly_admin.vault.compression import compress, decompress
from briefly_admin.vault.copybinary import CopyParser, blocks
from briefly_admin.vault.digest import RowDigester
from briefly_admin.vault.manifest import seal_manifest
from briefly_admin.vault.seal import KIND_TABLE, seal, unseal
from briefly_admin.vault.verify import Looked, Sought, look_through, objects_of

Written = TypeVar("Written")

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


class Copied(Protocol):
    """A COPY binary of one range of a table, in blocks of any size."""

    @property
    def rows(self) -> int:
        """How many rows it had, as the server says at its end."""

    def __iter__(self) -> Iterator[bytes]:
        """The blocks, once."""


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
        reading = _Reading(columns, tuple(key))
        return reading.result(number, *self._put(number, reading.blocks(copy_chunks)))

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
        written = self._unless_held(
            number, lambda: self.write_table_stream(number, copy_chunks, columns=columns, key=key)
        )
        return written or self._read_back(number, columns, tuple(key))

    def ensure_copied(self, number: int, copied: Copied, *, columns: int) -> StreamManifest:
        """As `ensure_table_stream`, of a COPY that the server counted; its entry in the manifest, without ctids.

        What it holds is not parsed here, but when it is proven: `look_through` counts its rows again and hashes them,
        from the bytes in the store. Until then no manifest names it.
        """

        def write() -> StreamManifest:
            plain, sealed = self._put(number, copied)
            return StreamManifest(number, "", "", copied.rows, plain.size, plain.sha256, sealed.size, sealed.sha256)

        return self._unless_held(number, write) or self._read_back(number, columns, ()).manifest()

    def look_through(
        self,
        sought: Sequence[Sought],
        *,
        progress: Callable[[int, int], None] | None = None,
        should_stop: StopSignal | None = None,
    ) -> list[Looked]:
        """The proof of streams that were written; `progress(done, total)` in sealed bytes. Raises Stopped, Unavailable.

        What they are expected to be is what was written down as they were written.
        """
        return list(
            look_through(
                self._store, self.backup_id, sought, data_key=self._data_key, progress=progress, should_stop=should_stop
            )
        )

    def _unless_held(self, number: int, write: Callable[[], Written]) -> Written | None:
        """What `write` gives, or None where the stream is there already."""
        self._require_open()
        if self._holds(number):
            return None
        try:
            return write()
        except Refused:
            if not self._holds(number):
                raise
        return None

    def _put(self, number: int, blocks: Iterable[bytes]) -> tuple["_Passed", "_Passed"]:
        """Compress, seal and put in a thread what this one makes; the plaintext and the sealed bytes that passed."""
        self._require_open()
        if number < 1:
            raise ValueError("table streams are numbered from 1")
        plain, passed = _Passed(), _Passed()
        stored = layout.stream_key(self.backup_id, number)

        def put(pieces: Iterator[bytes]) -> None:
            sealed = seal(
                compress(pieces, level=self._level),
                data_key=self._data_key,
                backup_id=self.backup_id,
                kind=KIND_TABLE,
                number=number,
                randomness=self._randomness,
            )
            self._store.put(stored, passed.passing(sealed))
            self._require_kept(stored)

        beside(plain.passing(blocks), put)
        return plain, passed

    def _holds(self, number: int) -> bool:
        try:
            self._store.size(layout.stream_key(self.backup_id, number))
        except NotFound:
            return False
        return True

    def _read_back(self, number: int, columns: int, key: tuple[int, ...]) -> StreamResult:
        """What the stream in the store is, found by reading all of it."""
        reading, plain = _Reading(columns, key), _Passed()
        with closing(_HashingFile(self._store.open(layout.stream_key(self.backup_id, number)))) as file:
            opened = unseal(file, data_key=self._data_key, backup_id=self.backup_id, kind=KIND_TABLE, number=number)
            for _ in reading.blocks(plain.passing(decompress(opened, limit=_NO_LIMIT))):
                pass
        return reading.result(number, plain, file.passed)

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


class _Passed:
    """Counts and hashes what passes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def take(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)

    def passing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes, in pieces of 1 MiB at most."""
        for piece in pieces:
            self.take(piece)
            if len(piece) <= _PIECE:
                yield piece
                continue
            for start in range(0, len(piece), _PIECE):
                yield piece[start : start + _PIECE]

    @property
    def sha256(self) -> str:
        """Hexadecimal, of what has passed so far."""
        return self._hash.hexdigest()


class _Reading:
    """What is learnt of a COPY stream's rows while it passes."""

    def __init__(self, columns: int, key: tuple[int, ...]) -> None:
        self._parser = CopyParser(columns, key)
        self._digester = RowDigester(keyed=bool(key))

    def blocks(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes."""
        for block, found in blocks(self._parser, chunks):
            self._digester.add(found.rows, found.keys)
            yield block

    def result(self, number: int, plain: _Passed, sealed: _Passed) -> StreamResult:
        return StreamResult(
            number=number,
            rows=self._parser.row_count,
            plaintext_size=plain.size,
            plaintext_sha256=plain.sha256,
            sealed_size=sealed.size,
            sealed_sha256=sealed.sha256,
            digest=self._digester.digest(),
            buckets=self._digester.buckets(),
        )


class _HashingFile:
    """A file that is counted and hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.passed = _Passed()

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self.passed.take(data)
        return data

    def close(self) -> None:
        self._file.close()
