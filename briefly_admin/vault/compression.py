"""zstd, one frame with its checksum a stream; reading is bounded whatever the frame claims of itself."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import zstandard

from briefly_admin.domain.errors import BackupDamaged

LEVEL: Final = 1
FAST: Final = -1
"""For what can hardly be compressed, as embeddings are: half the time, and text among it still becomes smaller."""
_TRIED: Final = 1 << 16
"""Bytes that are enough to tell."""
_WORTH: Final = 0.9
_WINDOW: Final = 1 << 23
"""Bytes of window that a reader grants: RFC 8878 recommends 8 MiB, and levels 1 to 3 use less."""
_BLOCKS: Final = 8
"""Blocks that are decompressed at a time, about: 1 MiB comes of them at most, and one block more."""
_BLOCK_HEADER: Final = 3
_REPEATED: Final = 1
"""The kind of block that is one byte, so many times."""
_LONGEST_HEADER: Final = 18


def compress(chunks: Iterable[bytes], *, level: int = LEVEL) -> Iterator[bytes]:
    """One frame, with checksum; at FAST where the first chunk shows that `level` would hardly make it smaller."""
    source = iter(chunks)
    first = next(source, b"")
    if level > FAST and len(first) >= _TRIED and _size(first, level) > _WORTH * len(first):
        level = FAST
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=False).compressobj()
    for chunk in chain([first], source):
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()


def _size(data: bytes, level: int) -> int:
    return len(zstandard.ZstdCompressor(level=level).compress(data))


def decompress(chunks: Iterable[bytes], *, limit: int) -> Iterator[bytes]:
    """What the frame holds. Raises BackupDamaged unless it is one whole frame, with checksum, within `limit` bytes."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    size = 0
    for piece in _pieces(chunks):
        if not piece:
            continue
        if decompressor.eof:
            raise _damaged("bytes follow the compressed data")
        try:
            plain = decompressor.decompress(piece)
        except zstandard.ZstdError as error:
            raise _damaged("the compressed data cannot be read") from error
        size += len(plain)
        if size > limit:
            raise _damaged(f"it decompresses to more than the {limit} bytes that the manifest says")
        if plain:
            yield plain
    if decompressor.unused_data:
        raise _damaged("bytes follow the compressed data")
    if not decompressor.eof:
        raise _damaged("the compressed data ends early")


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, cut where blocks end, few blocks to a piece: what comes of one is bounded, whatever it claims.

    A block makes 128 KiB at most (RFC 8878, section 3.1.1.2); what is no block the decompressor refuses.
    """
    pending, header, last, blocks = b"", -1, False, 0
    for chunk in _checked(chunks):
        pending = pending + chunk if pending else chunk
        header = zstandard.frame_header_size(pending) if header < 0 else header
        given = 0
        while not last and header + _BLOCK_HEADER <= len(pending):
            said = int.from_bytes(pending[header : header + _BLOCK_HEADER], "little")
            last, kind, size = bool(said & 1), said >> 1 & 3, said >> 3
            header += _BLOCK_HEADER + (1 if kind == _REPEATED else size)
            blocks += 1
            if blocks == _BLOCKS:
                yield pending[given:header]
                given, blocks = min(header, len(pending)), 0
        ends = len(pending) if last else min(header, len(pending))
        yield pending[given:ends]
        pending, header = pending[ends:], max(header - ends, 0)
    yield pending


def _checked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, once the frame's header has been looked at."""
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= _LONGEST_HEADER:
            break
    try:
        if not zstandard.get_frame_parameters(head).has_checksum:
            raise _damaged("the compressed data has no checksum")
    except zstandard.ZstdError as error:
        raise _damaged("the compressed data cannot be read") from error
    yield head
    yield from source


def _damaged(what: str) -> BackupDamaged:
    return BackupDamaged(f"The backup is damaged: {what}.", damages=[what], remedy="Use another backup.")
