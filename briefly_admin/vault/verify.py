"""Verification: every object against the manifest, all damage listed.

L0 needs no key: each object is present, of its size and SHA-256. L1 opens every chunk, decompresses it, parses the
COPY framing, counts and hashes the rows. L2, the drill, needs a database and is not the vault's.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import IntEnum
from typing import BinaryIO, Final
from uuid import UUID

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.domain.errors import BackupDamaged, NotFound, Stopped
from briefly_admin.domain.manifest import Manifest, StreamManifest
from briefly_admin.domain.ports import BlobStore, StopSignal
from briefly_admin.vault import layout
from briefly_admin.vault.ahead import ahead
from briefly_admin.vault.compression import decompress
from briefly_admin.vault.copybinary import CopyParser, blocks
from briefly_admin.vault.digest import RowDigester
from briefly_admin.vault.seal import KIND_TABLE, StreamName, read_chunks

MOST_FAULTS: Final = 1000
"""Damaged chunks of a stream that are listed; behind them it is not read on, for it may never end."""
_READ_SIZE: Final = 1 << 20
MISSING: Final = "is missing"


class Level(IntEnum):
    """How deep a verification looks."""

    OBJECTS = 0
    CONTENT = 1


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong; `table` '' and numbers None where it concerns none."""

    table: str
    stream: int | None
    chunk: int | None
    what: str

    def __str__(self) -> str:
        """`public.users, stream 3, chunk 0: is not what was sealed`."""
        place = [self.table] if self.table else []
        place += [f"stream {self.stream}"] if self.stream is not None else []
        place += [f"chunk {self.chunk}"] if self.chunk is not None else []
        return f"{', '.join(place)}: {self.what}" if place else self.what


@dataclass(frozen=True, slots=True)
class Verdict:
    """What L1 found in some of a backup's streams; verdicts of different streams are judged together by `judge`."""

    damages: tuple[Damage, ...] = ()
    digests: Mapping[str, TableDigest | None] = field(default_factory=dict)
    """Table label → digest of the rows of these streams; None where they could not all be read."""


@dataclass(frozen=True, slots=True)
class Sought:
    """A stream to look through, and its table's label and count of columns; `key`: positions of the key's columns."""

    table: str
    columns: int
    stream: StreamManifest
    key: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """What a stream was found to be; no `digest` where its rows could not all be read, nor `buckets` without a key."""

    table: str
    damages: tuple[Damage, ...]
    digest: TableDigest | None
    buckets: BucketDigests | None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as it was written: what L0 compares; `table` and `stream` name it in the report.

    Where `sha256` is '' the object may change (slots.json does): it need only be there.
    """

    key: str
    size: int
    sha256: str
    table: str = ""
    stream: int | None = None


def objects_of(manifest: Manifest) -> list[StoredObject]:
    """The streams of a backup, for an L0 without keys later on."""
    return [_object_of(manifest.backup_id, table.label, each) for table in manifest.tables for each in table.streams]


def _object_of(backup_id: UUID, table: str, stream: StreamManifest) -> StoredObject:
    key = layout.stream_key(backup_id, stream.number)
    return StoredObject(key, stream.sealed_size, stream.sealed_sha256, table, stream.number)


def all_objects_of(manifest: Manifest, *, manifest_size: int, manifest_sha256: str) -> list[StoredObject]:
    """Every object of a backup: its slots, its sealed manifest, its streams."""
    backup_id = manifest.backup_id
    return [
        StoredObject(layout.slots_key(backup_id), 0, ""),
        StoredObject(layout.manifest_key(backup_id), manifest_size, manifest_sha256),
        *objects_of(manifest),
    ]


class Meter:
    """Counts sealed bytes as they are read, tells the caller, and asks whether to stop. Raises Stopped."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None, should_stop: StopSignal | None) -> None:
        self._done = 0
        self._total = total
        self._progress = progress
        self._should_stop = should_stop

    def add(self, size: int) -> None:
        """So many bytes more."""
        self._done += size
        if self._progress:
            self._progress(self._done, self._total)
        if self._should_stop and (reason := self._should_stop()):
            raise Stopped(reason)


class _Hashing:
    """A file that counts and hashes what is read from it; it ends a byte behind where it should, at the latest."""

    def __init__(self, file: BinaryIO, meter: Meter, expected: StoredObject) -> None:
        self._file = file
        self._limit = expected.size + 1
        self._meter = meter
        self._hash = hashlib.sha256()
        self._told = 0
        self.size = 0

    def read(self, size: int, /) -> bytes:
        data = self._file.read(max(0, min(size, self._limit - self.size)))
        self._hash.update(data)
        self.size += len(data)
        return data

    def tell(self) -> None:
        """Have the meter know what was read since, in the thread that asks. Raises Stopped."""
        told, self._told = self._told, self.size
        self._meter.add(self._told - told)

    def fault(self, expected: StoredObject) -> str:
        """Read to the end; what is wrong with the object, or ''."""
        while self.size <= expected.size and self.read(_READ_SIZE):
            self.tell()
        self.tell()
        if self.size < expected.size:
            return f"has {self.size} bytes instead of {expected.size}"
        if self.size > expected.size:
            return f"has more than its {expected.size} bytes"
        return "" if self._hash.hexdigest() == expected.sha256 else "is not what was sealed (its SHA-256 differs)"


def verify_objects(
    store: BlobStore,
    objects: Iterable[StoredObject],
    *,
    progress: Callable[[int, int], None] | None = None,
    should_stop: StopSignal | None = None,
) -> list[Damage]:
    """L0: presence, size and SHA-256 of every object; `progress(done, total)` in bytes. Raises Stopped, Unavailable."""
    expected = list(objects)
    meter = Meter(sum(each.size for each in expected), progress, should_stop)
    return [damage for each in expected for damage in _verify_object(store, each, meter)]


def _verify_object(store: BlobStore, expected: StoredObject, meter: Meter) -> Iterator[Damage]:
    place = expected.table or expected.key.rpartition("/")[2]
    try:
        file = store.open(expected.key)
    except NotFound:
        yield Damage(place, expected.stream, None, MISSING)
        return
    with closing(file):
        if expected.sha256 and (fault := _Hashing(file, meter, expected).fault(expected)):
            yield Damage(place, expected.stream, None, fault)


def verify_content(
    store: BlobStore,
    manifest: Manifest,
    *,
    data_key: bytes,
    progress: Callable[[int, int], None] | None = None,
    should_stop: StopSignal | None = None,
) -> list[Damage]:
    """L1, and L0 with it, in one pass. Raises Stopped, Unavailable."""
    numbers = [stream.number for stream in manifest.streams]
    verdict = verify_streams(store, manifest, numbers, data_key=data_key, progress=progress, should_stop=should_stop)
    return judge(manifest, [verdict])


def verify_streams(
    store: BlobStore,
    manifest: Manifest,
    numbers: Collection[int],
    *,
    data_key: bytes,
    progress: Callable[[int, int], None] | None = None,
    should_stop: StopSignal | None = None,
) -> Verdict:
    """L1 of the streams of these numbers alone. Raises Stopped, Unavailable."""
    wanted = frozenset(numbers)
    sought = [
        Sought(table.label, len(table.columns), stream)
        for table in manifest.tables
        for stream in table.streams
        if stream.number in wanted
    ]
    damages: list[Damage] = []
    digests: dict[str, TableDigest | None] = {}
    for looked in look_through(
        store, manifest.backup_id, sought, data_key=data_key, progress=progress, should_stop=should_stop
    ):
        damages += looked.damages
        digests[looked.table] = added(digests.get(looked.table, TableDigest()), looked.digest)
    return Verdict(tuple(damages), digests)


def look_through(
    store: BlobStore,
    backup_id: UUID,
    sought: Sequence[Sought],
    *,
    data_key: bytes,
    progress: Callable[[int, int], None] | None = None,
    should_stop: StopSignal | None = None,
) -> Iterator[Looked]:
    """Each of these streams opened, decompressed, parsed, counted and hashed. Raises Stopped, Unavailable."""
    meter = Meter(sum(each.stream.sealed_size for each in sought), progress, should_stop)
    for each in sought:
        yield _StreamCheck(each, backup_id, data_key, meter).run(store)


def judge(manifest: Manifest, verdicts: Sequence[Verdict]) -> list[Damage]:
    """All damage of a backup whose streams were each looked through once; an empty list is a proof.

    The digests of a table's streams must add up to its own, where they could be read.
    """
    damages = [damage for verdict in verdicts for damage in verdict.damages]
    for table in manifest.tables:
        digest: TableDigest | None = TableDigest()
        for verdict in verdicts:
            digest = added(digest, verdict.digests.get(table.label, TableDigest()))
        if digest and digest != table.digest:
            damages.append(Damage(table.label, None, None, f"its row digest is {digest} instead of {table.digest}"))
    return damages


def added(one: TableDigest | None, other: TableDigest | None) -> TableDigest | None:
    """Their sum; None is a digest that nobody knows."""
    return one + other if one and other else None


class _StreamCheck:
    """One stream, looked through whole.

    What needs no Python a row (the store, AES, zstd, the hashes of whole streams) goes on in a thread of its own.
    """

    def __init__(self, sought: Sought, backup_id: UUID, data_key: bytes, meter: Meter) -> None:
        self._sought = sought
        self._stream = sought.stream
        self._name = StreamName(backup_id, KIND_TABLE, sought.stream.number)
        self._data_key = data_key
        self._meter = meter
        self._digester = RowDigester(keyed=bool(sought.key))
        self._plain_hash = hashlib.sha256()
        self._plain_size = 0
        self._faults: list[Damage] = []
        self._read = False

    def run(self, store: BlobStore) -> Looked:
        """Raises Stopped, Unavailable."""
        expected = _object_of(self._name.backup_id, self._sought.table, self._stream)
        try:
            file = store.open(expected.key)
        except NotFound:
            self._faults.append(self._damage(MISSING))
        else:
            with closing(file):
                hashing = _Hashing(file, self._meter, expected)
                self._content(hashing)
                if not self._faults and (fault := hashing.fault(expected)):
                    self._faults.append(self._damage(fault))
        buckets = self._digester.buckets() if self._read else None
        digest = self._digester.digest() if self._read else None
        return Looked(self._sought.table, tuple(self._faults), digest, buckets)

    def _content(self, file: _Hashing) -> None:
        chunks = self._good_chunks(file)
        try:
            self._rows(chunks, file)
        except BackupDamaged as error:
            for _ in chunks:  # the chunks behind it are still opened
                pass
            if not self._faults:
                self._faults = [self._damage(what.removeprefix(f"{self._name}: ")) for what in error.damages]

    def _good_chunks(self, file: _Hashing) -> Iterator[bytes]:
        """The chunks before the first damaged one; the others are opened and listed, not given."""
        for chunk in read_chunks(file, self._name, data_key=self._data_key):
            if chunk.plaintext is None:
                self._faults.append(self._damage(chunk.fault, chunk.index))
                if len(self._faults) == MOST_FAULTS:
                    self._faults.append(self._damage("so many chunks are damaged that the others were not read"))
                    return
            elif not self._faults:
                yield chunk.plaintext

    def _plain(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        # Whoever gives up on the plaintext must not close the chunks: those behind are still looked at.
        kept_open = (chunk for chunk in chunks)
        for piece in decompress(kept_open, limit=self._stream.plaintext_size):
            self._plain_hash.update(piece)
            self._plain_size += len(piece)
            yield piece

    def _rows(self, chunks: Iterable[bytes], file: _Hashing) -> None:
        stream = self._stream
        parser = CopyParser(self._sought.columns, self._sought.key)
        with closing(ahead(self._plain(chunks))) as plain:
            for _, found in blocks(parser, plain):
                self._digester.add(found.rows, found.keys)
                file.tell()
        if self._faults:
            return
        if parser.row_count != stream.rows:
            self._faults.append(self._damage(f"has {parser.row_count} rows instead of {stream.rows}"))
        if self._plain_size != stream.plaintext_size or self._plain_hash.hexdigest() != stream.plaintext_sha256:
            self._faults.append(self._damage("does not hold the data that the manifest describes"))
        self._read = True

    def _damage(self, what: str, chunk: int | None = None) -> Damage:
        return Damage(self._sought.table, self._stream.number, chunk, what)
