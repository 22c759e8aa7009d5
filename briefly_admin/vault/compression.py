"""zstd, one frame with its checksum a stream; reading is bounded whatever the frame claims of itself."""

from collections.abc import Iterable, Iterator
from typing import Final

import zstandard

from briefly_admin.domain.errors import BackupDamaged

LEVEL: Final = 1
_WINDOW: Final = 1 << 23
"""Bytes of window that a reader grants: RFC 8878 recommends 8 MiB, and levels 1 to 3 use less."""
_SLICE: Final = 1 << 11
"""Bytes fed at a time: a frame of nothing but repeats makes 128 KiB of four bytes, so at most 64 MiB come of one."""
_LONGEST_HEADER: Final = 18


def compress(chunks: Iterable[bytes], *, level: int = LEVEL) -> Iterator[bytes]:
    """One frame, with checksum."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=False).compressobj()
    for chunk in chunks:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()


def decompress(chunks: Iterable[bytes], *, limit: int) -> Iterator[bytes]:
    """What the frame holds. Raises BackupDamaged unless it is one whole frame, with checksum, within `limit` bytes."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    size = 0
    for chunk in _checked(chunks):
        for start in range(0, len(chunk), _SLICE):
            if decompressor.eof:
                raise _damaged("bytes follow the compressed data")
            try:
                plain = decompressor.decompress(chunk[start : start + _SLICE])
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
