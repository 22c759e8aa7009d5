"""Sealed backups in memory, small and of several shapes, with all that somebody who has the store could put into them."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import BinaryIO
from uuid import UUID

from briefly_admin.domain.errors import NotFound, Refused
from briefly_admin.domain.manifest import Manifest
from briefly_admin.vault import layout
from briefly_admin.vault.compression import compress
from briefly_admin.vault.keys import open_slots
from briefly_admin.vault.seal import KIND_MANIFEST, KIND_TABLE, MANIFEST_NUMBER, PREFIX_SIZE, TAG_SIZE, seal
from briefly_admin.vault.vault import Vault
from briefly_admin.vault.verify import StoredObject, all_objects_of
from tests.vault.sample_backups import KEYS, Fields, copy_binary, manifest_of, table_of


@dataclass
class MemoryStore:
    """A BlobStore that is a mapping; `changes` lie over `objects`, None hides one."""

    objects: dict[str, bytes] = field(default_factory=dict)
    changes: Mapping[str, bytes | None] = field(default_factory=dict)

    def _get(self, key: str) -> bytes:
        found = self.changes[key] if key in self.changes else self.objects.get(key)
        if found is None:
            raise NotFound(f"The store does not hold {key}.")
        return found

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        if key in self.objects:
            raise Refused(f"The store already holds {key}.")
        self.objects[key] = b"".join(chunks)
        return len(self.objects[key])

    def replace(self, key: str, data: bytes) -> None:
        self._get(key)
        self.objects[key] = data

    def keep(self, prefix: str, seconds: float | None) -> None:
        """Nothing ends here by itself."""

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self._get(key))

    def size(self, key: str) -> int:
        return len(self._get(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self.objects if key.startswith(prefix) and self.changes.get(key, b"")))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def free_bytes(self) -> int | None:
        return None


@dataclass(frozen=True)
class Shape:
    """Rows of each stream of each table; the bytes of a chunk, and of a chunk of the manifest."""

    tables: Sequence[Sequence[int]]
    chunk: int
    manifest_chunk: int = 1 << 20


SHAPES: Mapping[str, Shape] = {
    "tiny": Shape([[1]], 1 << 20),
    "an empty table": Shape([[0], [3]], 1 << 20),
    "no stream": Shape([[], [2]], 64),
    "several chunks": Shape([[60]], 128),
    "several streams": Shape([[5, 5, 5], [7]], 1 << 20, manifest_chunk=512),
    "streams of chunks": Shape([[20, 20], [20], [1]], 64, manifest_chunk=256),
}


@dataclass(frozen=True)
class Sealed:
    """One finished backup: what opens it, what was recorded of it, and what its streams hold."""

    backup_id: UUID
    shape: Shape
    shred_key: bytes
    data_key: bytes
    sha256: str
    manifest: Manifest
    plain: Mapping[int, bytes]
    recorded: Sequence[StoredObject]

    @property
    def slots(self) -> str:
        return layout.slots_key(self.backup_id)

    @property
    def manifest_key(self) -> str:
        return layout.manifest_key(self.backup_id)

    def stream(self, number: int) -> str:
        return layout.stream_key(self.backup_id, number)

    @property
    def streams(self) -> list[str]:
        return [self.stream(number) for number in sorted(self.plain)]

    @property
    def keys(self) -> list[str]:
        return [self.slots, self.manifest_key, *self.streams]

    def chunk_of(self, key: str) -> int:
        """Bytes of a sealed chunk of the object."""
        return (self.shape.manifest_chunk if key == self.manifest_key else self.shape.chunk) + TAG_SIZE

    def pieces(self, key: str, data: bytes) -> list[bytes]:
        """The object's header with its commitment, and its chunks; slots.json whole."""
        if key == self.slots:
            return [data]
        size = self.chunk_of(key)
        return [data[:PREFIX_SIZE], *(data[at : at + size] for at in range(PREFIX_SIZE, len(data), size))]


@dataclass(frozen=True)
class World:
    """A store with the backup that is hurt and an older one of the same shape and keys."""

    shape: str
    store: MemoryStore
    old: Sealed
    new: Sealed
    earlier: Mapping[str, Sequence[bytes]]
    """Key of `new` → objects once sealed for that very place: with the same content, and with another."""

    def bytes_of(self, key: str) -> bytes:
        return self.store.objects[key]


def _rows(dice: Random, count: int) -> list[Fields]:
    """Columns as in sample_backups; text that does not compress, so that a stream has its chunks."""
    return [
        (dice.randbytes(16), dice.randbytes(dice.randrange(60)).hex().encode(), dice.choice((None, dice.randbytes(4))))
        for _ in range(count)
    ]


def _stream(data_key: bytes, backup_id: UUID, number: int, plain: bytes, chunk: int, dice: Random) -> bytes:
    return b"".join(
        seal(
            compress([plain]), data_key=data_key, backup_id=backup_id, kind=KIND_TABLE, number=number, chunk_size=chunk,
            randomness=dice.randbytes,
        )
    )  # fmt: skip


def _manifest(data_key: bytes, manifest: Manifest, chunk: int, dice: Random) -> bytes:
    return b"".join(
        seal(
            [manifest.to_bytes()], data_key=data_key, backup_id=manifest.backup_id, kind=KIND_MANIFEST,
            number=MANIFEST_NUMBER, chunk_size=chunk, randomness=dice.randbytes,
        )
    )  # fmt: skip


def _backup(vault: Vault, shape: Shape, dice: Random) -> Sealed:
    """Written as the program writes it, with chunks of the shape's size."""
    backup_id = UUID(bytes=dice.randbytes(16), version=4)
    writer = vault.begin(backup_id)
    slots = vault.store.open(layout.slots_key(backup_id)).read()
    data_key = open_slots(slots, KEYS, shred_key=writer.shred_key, backup_id=backup_id)
    plain, tables, number = {}, [], 0
    for place, counts in enumerate(shape.tables):
        results = []
        for count in counts:
            number += 1
            plain[number] = copy_binary(_rows(dice, count))
            sealed = _stream(data_key, backup_id, number, plain[number], shape.chunk, dice)
            vault.store.put(layout.stream_key(backup_id, number), [sealed])
            results.append(writer.ensure_table_stream(number, [], columns=3, key=[0]))
        tables.append(table_of(f"table {place}", results))
    manifest = manifest_of(tables, backup_id)
    sealed = _manifest(data_key, manifest, shape.manifest_chunk, dice)
    vault.store.put(layout.manifest_key(backup_id), [sealed])
    sha256 = hashlib.sha256(sealed).hexdigest()
    recorded = all_objects_of(manifest, manifest_size=len(sealed), manifest_sha256=sha256)
    return Sealed(backup_id, shape, writer.shred_key, data_key, sha256, manifest, plain, recorded)


def _earlier(backup: Sealed, dice: Random) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for number, plain in backup.plain.items():
        other = copy_binary(_rows(dice, 4))
        found[backup.stream(number)] = [
            _stream(backup.data_key, backup.backup_id, number, each, backup.shape.chunk, dice)
            for each in (plain, other)
        ]
    smaller = replace(backup.manifest, tables=backup.manifest.tables[:-1], plan="older")
    found[backup.manifest_key] = [
        _manifest(backup.data_key, each, backup.shape.manifest_chunk, dice) for each in (backup.manifest, smaller)
    ]
    return found


@cache
def world(shape: str, seed: int = 1) -> World:
    """The same for the same arguments; nobody changes its store's objects."""
    dice, store = Random(f"{shape} {seed}"), MemoryStore()
    vault = Vault(store, KEYS, randomness=dice.randbytes)
    old, new = (_backup(vault, SHAPES[shape], dice) for _ in range(2))
    return World(shape, store, old, new, _earlier(new, dice))
