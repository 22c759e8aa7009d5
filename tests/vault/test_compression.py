import random
from itertools import islice

import pytest
import zstandard

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.vault.compression import compress, decompress

DATA = random.Random(1).randbytes(5000) + b"text " * 100_000


def frame(data: bytes = DATA) -> bytes:
    return b"".join(compress([data]))


def plain(compressed: bytes, *, limit: int = len(DATA), step: int = 1 << 20) -> bytes:
    return b"".join(decompress([compressed[i : i + step] for i in range(0, len(compressed), step)], limit=limit))


@pytest.mark.parametrize("step", [1, 7, 2048, 1 << 20])
def test_it_comes_back(step: int) -> None:
    assert plain(frame(), step=step) == DATA


def test_a_frame_carries_a_checksum() -> None:
    assert zstandard.get_frame_parameters(frame()).has_checksum
    with pytest.raises(BackupDamaged, match="no checksum"):
        plain(zstandard.ZstdCompressor(write_checksum=False).compress(DATA))


def test_a_wrong_checksum_is_seen() -> None:
    compressed = bytearray(frame())
    compressed[-1] ^= 1
    with pytest.raises(BackupDamaged, match="cannot be read"):
        plain(bytes(compressed))


def test_cut_or_lengthened_data_is_seen() -> None:
    compressed = frame()
    for size in (0, 1, 5, 17, 18, 100, len(compressed) - 4, len(compressed) - 1):
        with pytest.raises(BackupDamaged):
            plain(compressed[:size])
    for tail in (b"\0", compressed):
        for step in (1, 1 << 20):
            with pytest.raises(BackupDamaged, match="follow"):
                plain(compressed + tail, step=step)


def test_a_bomb_is_stopped_at_the_limit() -> None:
    bomb = b"".join(compress(bytes(1 << 20) for _ in range(4096)))
    assert len(bomb) < 1 << 20
    pieces = decompress([bomb], limit=1 << 20)
    with pytest.raises(BackupDamaged, match="more than the 1048576 bytes"):
        list(pieces)
    largest = max(len(piece) for piece in islice(decompress([bomb], limit=1 << 40), 20))
    assert largest <= 9 << 17


def test_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_checksum=1)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(BackupDamaged, match="cannot be read"):
        plain(compressor.compress(DATA) + compressor.flush())


def test_what_hardly_becomes_smaller_is_not_tried_for_long() -> None:
    noise, text = random.Random(1).randbytes(1 << 20), b"a line of a document, " * 50_000
    for first, second in ((noise, text), (text, noise)):
        frame = b"".join(compress([first, second]))
        assert b"".join(decompress([frame], limit=1 << 23)) == first + second
    # What the first chunk shows decides; the text behind it becomes smaller all the same.
    assert len(b"".join(compress([noise, text]))) < len(noise) + len(text) // 4
    prose = b"".join(b"%d words of a document, " % n for n in range(50_000))
    assert len(b"".join(compress([noise, prose]))) > len(noise) + len(b"".join(compress([prose]))) * 1.1
