"""Sealed streams: constant memory, and no byte can be changed, cut, moved, repeated or brought back unseen.

header  = "BMA1" ‖ u8 version ‖ u8 kind ‖ 16 bytes backup id ‖ u32 stream number ‖ 16 bytes salt ‖ u32 chunk size
stream  = header ‖ 32 bytes commitment ‖ chunk 0 ‖ chunk 1 ‖ …                                   (integers big-endian)
K ‖ commitment = HKDF-SHA256(data key, salt, info = "briefly/v1/stream" ‖ header, 64 bytes)
chunk i = AES-256-GCM(K, nonce = u88(i) ‖ u8(last), AAD = SHA-256(header)) = ciphertext ‖ 16 bytes tag

Source: docs/backup-format.md, "A stream".
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from briefly_admin.domain.errors import BackupDamaged

MAGIC: Final = b"BMA1"
VERSION: Final = 1
KIND_MANIFEST: Final = 0
KIND_TABLE: Final = 1
MANIFEST_NUMBER: Final = 0
CHUNK_SIZE: Final = 1 << 20
MAX_CHUNK_SIZE: Final = 1 << 24
KEY_SIZE: Final = 32
TAG_SIZE: Final = 16
_HEADER: Final = struct.Struct(">4sBB16sI16sI")
_COMMIT_SIZE: Final = 32
_MAX_NUMBER: Final = (1 << 32) - 1
PREFIX_SIZE: Final = _HEADER.size + _COMMIT_SIZE
"""Bytes before the first chunk."""

_REMEDY: Final = "Nothing was restored from it. Use another backup, or another copy of this one."


class Readable(Protocol):
    """What a sealed stream is read from: b'' at its end, possibly fewer bytes than asked for before."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes."""


@dataclass(frozen=True, slots=True)
class StreamName:
    """What a reader asks for: a file that says otherwise of itself is refused."""

    backup_id: UUID
    kind: int
    number: int

    def __str__(self) -> str:
        return "the manifest" if self.kind == KIND_MANIFEST else f"stream {self.number}"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as read: its plaintext, or None and the fault."""

    index: int
    plaintext: bytes | None
    fault: str = ""


def sealed_size(plaintext_size: int, chunk_size: int = CHUNK_SIZE) -> int:
    """Bytes of a stream that seals `plaintext_size` bytes."""
    return PREFIX_SIZE + plaintext_size + TAG_SIZE * max(1, -(-plaintext_size // chunk_size))


def seal(
    plaintext: Iterable[bytes],
    *,
    data_key: bytes,
    backup_id: UUID,
    kind: int,
    number: int,
    chunk_size: int = CHUNK_SIZE,
    randomness: Callable[[int], bytes] = os.urandom,
) -> Iterator[bytes]:
    """The sealed stream, piece by piece; holds a chunk and a piece, twice while they are joined."""
    header = _HEADER.pack(MAGIC, VERSION, kind, backup_id.bytes, number, randomness(16), chunk_size)
    key, commit = _derive(data_key, header)
    cipher, associated = AESGCM(key), hashlib.sha256(header).digest()
    yield header + commit
    index, gathered, size = 0, list[bytes](), 0
    for piece in plaintext:
        gathered.append(piece)
        size += len(piece)
        if size <= chunk_size:  # one that fills the chunk exactly may still be the last
            continue
        joined, start = memoryview(b"".join(gathered)), 0
        while size - start > chunk_size:
            yield cipher.encrypt(_nonce(index, last=False), joined[start : start + chunk_size], associated)
            start += chunk_size
            index += 1
        gathered, size = [bytes(joined[start:])], size - start
    yield cipher.encrypt(_nonce(index, last=True), b"".join(gathered), associated)


def unseal(
    sealed: Readable,
    *,
    data_key: bytes,
    backup_id: UUID,
    kind: int,
    number: int,
) -> Iterator[bytes]:
    """The plaintext, chunk by chunk, each authenticated before it is given out.

    The stream is whole only when the iterator ends without an error. Raises BackupDamaged, naming stream and chunk.
    """
    name = StreamName(backup_id, kind, number)
    for chunk in read_chunks(sealed, name, data_key=data_key):
        if chunk.plaintext is None:
            raise damaged(name, f"chunk {chunk.index} {chunk.fault}")
        yield chunk.plaintext


def damaged(name: StreamName, what: str) -> BackupDamaged:
    """The error that says what is wrong with a stream."""
    return BackupDamaged(f"The backup is damaged: {name}: {what}.", damages=[f"{name}: {what}"], remedy=_REMEDY)


def read_chunks(sealed: Readable, name: StreamName, *, data_key: bytes) -> Iterator[Chunk]:
    """Every chunk, also those behind a damaged one. Raises BackupDamaged where the header is wrong."""
    cipher, associated, chunk_size = _open_header(sealed, name, data_key)
    index, current = 0, _read(sealed, chunk_size + TAG_SIZE)
    while True:
        following = _read(sealed, chunk_size + TAG_SIZE) if len(current) == chunk_size + TAG_SIZE else b""
        yield _open_chunk(cipher, associated, index, current, last=not following)
        if not following:
            return
        index, current = index + 1, following


def _open_chunk(cipher: AESGCM, associated: bytes, index: int, sealed: bytes, *, last: bool) -> Chunk:
    plaintext = _decrypt(cipher, _nonce(index, last=last), sealed, associated)
    if plaintext is None:
        if _decrypt(cipher, _nonce(index, last=not last), sealed, associated) is None:
            return Chunk(index, None, "is not what was sealed")
        return Chunk(index, None, "is followed by nothing: the end is cut off" if last else "is followed by more")
    if not plaintext and index:
        return Chunk(index, None, "is empty")
    return Chunk(index, plaintext)


def _decrypt(cipher: AESGCM, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    if len(sealed) < TAG_SIZE:
        return None
    try:
        return cipher.decrypt(nonce, sealed, associated)
    except InvalidTag:
        return None


def _open_header(sealed: Readable, name: StreamName, data_key: bytes) -> tuple[AESGCM, bytes, int]:
    """The cipher, the associated data and the chunk size."""
    prefix = _read(sealed, PREFIX_SIZE)
    if len(prefix) < PREFIX_SIZE:
        raise damaged(name, "the header is cut off")
    header, commit = prefix[: _HEADER.size], prefix[_HEADER.size :]
    magic, version, _, _, _, salt, chunk_size = _HEADER.unpack(header)
    if magic != MAGIC:
        raise damaged(name, "it is not a sealed stream")
    if version != VERSION:
        raise damaged(name, f"its format version is {version}; this program reads {VERSION}")
    if not 0 <= name.number <= _MAX_NUMBER:
        raise damaged(name, "there is no stream of that number")
    asked = _HEADER.pack(MAGIC, VERSION, name.kind, name.backup_id.bytes, name.number, salt, chunk_size)
    key, expected = _derive(data_key, asked)
    if not hmac.compare_digest(commit, expected) or header != asked:
        raise damaged(name, "the header is not what was sealed, or belongs to another stream, backup or key")
    if not 0 < chunk_size <= MAX_CHUNK_SIZE:
        raise damaged(name, f"a chunk size of {chunk_size} bytes is not allowed")
    return AESGCM(key), hashlib.sha256(header).digest(), chunk_size


def _derive(data_key: bytes, header: bytes) -> tuple[bytes, bytes]:
    """The stream's key and its commitment."""
    salt = _HEADER.unpack(header)[5]
    info = b"briefly/v1/stream" + header
    derived = HKDF(SHA256(), KEY_SIZE + _COMMIT_SIZE, salt, info).derive(data_key)
    return derived[:KEY_SIZE], derived[KEY_SIZE:]


def _nonce(index: int, *, last: bool) -> bytes:
    return index.to_bytes(11, "big") + bytes([last])


def _read(file: Readable, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the file, however short the single reads are."""
    data = file.read(size)
    if len(data) == size or not data:
        return data
    parts, missing = [data], size - len(data)
    while missing and (data := file.read(missing)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)
