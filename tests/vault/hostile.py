"""What a hostile store can do, and what somebody could who has the right keys: streams and manifests made to lie."""

import hashlib
import io
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from briefly_admin.vault import layout
from briefly_admin.vault.seal import CHUNK_SIZE, KIND_MANIFEST, KIND_TABLE, MANIFEST_NUMBER, seal
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import BackupReader, Vault
from tests.vault.sample_backups import BACKUP_ID, KEYS, Sample

ENDLESS = 1 << 62
_RLE_BLOCK = 1 << 17


@contextmanager
def bounded(*, mib: int = 100, seconds: float = 20) -> Iterator[None]:
    """What is done inside takes no more memory of Python's, and no more time."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < mib << 20, f"{peak >> 20} MiB"
    assert time.monotonic() - began < seconds


class Repeating(io.RawIOBase):
    """A file that begins so, and then has zeros for ever."""

    def __init__(self, begin: bytes = b"") -> None:
        self._begin = begin

    def read(self, size: int = -1, /) -> bytes:
        assert size >= 0, "somebody reads all of an endless file at once"
        begin, self._begin = self._begin[:size], self._begin[size:]
        return begin or bytes(size)


class Dripping(io.BytesIO):
    """A file that gives a byte or two at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 2))


@dataclass
class HostileStore(DirectoryStore):
    """A directory whose answers tests make up: what it opens, by key, call after call; what it lists, and deletes."""

    root: Path
    opened: dict[str, Callable[[int, bytes], BinaryIO | io.RawIOBase]] = field(default_factory=dict)
    """key → (how many times it was opened before, what it holds in truth) → what is given."""
    listed: Callable[[str], Iterable[str]] | None = None
    deleted: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def open(self, key: str) -> BinaryIO:
        count = self.counts[key] = self.counts.get(key, -1) + 1
        given = self.opened.get(key)
        if given is None:
            return super().open(key)
        return given(count, (self.root / key).read_bytes())  # type: ignore[return-value]

    def list(self, prefix: str = "") -> Iterator[str]:
        return super().list(prefix) if self.listed is None else iter(self.listed(prefix))

    def delete(self, key: str) -> None:
        self.deleted.append(key)
        super().delete(key)


class Forger:
    """Somebody with the keys of a sample, who seals what the program would not; and the store that gives it out."""

    def __init__(self, root: Path, **options: int) -> None:
        self.sample = Sample(root, **options)  # type: ignore[arg-type]
        self.store = HostileStore(root)
        self.vault = Vault(self.store, KEYS)
        self.sha256 = self.sample.sha256
        self.key = self.vault._data_key(BACKUP_ID, self.sample.shred_key)

    def open(self) -> BackupReader:
        return self.vault.open(BACKUP_ID, self.sample.shred_key, self.sha256)

    def plant(self, key: str, data: bytes) -> None:
        """Put an object in the place of another."""
        path = self.store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def manifest(self, raw: bytes, *, recorded: bool = True) -> None:
        """Seal these bytes as the manifest; `recorded`: the app database knows it as the right one."""
        common = {"data_key": self.key, "backup_id": BACKUP_ID}
        sealed = b"".join(seal([raw], kind=KIND_MANIFEST, number=MANIFEST_NUMBER, **common))  # type: ignore[arg-type]
        self.plant(layout.manifest_key(BACKUP_ID), sealed)
        if recorded:
            self.sha256 = hashlib.sha256(sealed).hexdigest()

    def stream(self, compressed: bytes, *, number: int = 1, chunk_size: int = CHUNK_SIZE) -> bytes:
        """Seal these bytes, which pass for compressed ones, as a table stream; the object."""
        sealed = b"".join(
            seal(
                [compressed],
                data_key=self.key,
                backup_id=BACKUP_ID,
                kind=KIND_TABLE,
                number=number,
                chunk_size=chunk_size,
            )
        )
        self.plant(layout.stream_key(BACKUP_ID, number), sealed)
        return sealed


def bomb(begin: bytes, size: int, *, window: int = 0x68, content_size: int | None = None) -> bytes:
    """A zstd frame of `begin` (raw) and about `size` zeros, four bytes for 128 KiB of them; its checksum is a lie.

    `window` is the frame's window descriptor (0x68: 8 MiB); see RFC 8878, 3.1.1.
    """
    flags, size_field = (0x04, b"") if content_size is None else (0xC4, struct.pack("<Q", content_size))
    header = bytes([flags, window]) + size_field
    blocks = (len(begin) << 3).to_bytes(3, "little") + begin
    blocks += ((_RLE_BLOCK << 3) | 0b010).to_bytes(3, "little").ljust(4, b"\0") * (size // _RLE_BLOCK)
    return b"\x28\xb5\x2f\xfd" + header + blocks + b"\x01\x00\x00" + bytes(4)
