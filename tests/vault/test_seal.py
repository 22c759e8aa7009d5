import io
import random
import struct
from collections.abc import Iterator
from itertools import pairwise
from uuid import UUID

import pytest

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.vault.seal import CHUNK_SIZE, PREFIX_SIZE, TAG_SIZE, read_chunks, seal, sealed_size, unseal
from briefly_admin.vault.seal import StreamName as Name

ID = UUID("11111111-2222-3333-4444-555555555555")
OTHER = UUID("11111111-2222-3333-4444-555555555556")
KEY = bytes(32)
CHUNK = 64
FULL = CHUNK + TAG_SIZE


def sealed(data: bytes, *, number: int = 1, backup_id: UUID = ID, kind: int = 1, key: bytes = KEY) -> bytes:
    return b"".join(seal([data], data_key=key, backup_id=backup_id, kind=kind, number=number, chunk_size=CHUNK))


def opened(data: bytes, *, number: int = 1, backup_id: UUID = ID, kind: int = 1, key: bytes = KEY) -> bytes:
    return b"".join(unseal(io.BytesIO(data), data_key=key, backup_id=backup_id, kind=kind, number=number))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 10 * CHUNK + 7])
def test_what_was_sealed_opens(size: int) -> None:
    data = random.Random(size).randbytes(size)
    stream = sealed(data)
    assert opened(stream) == data
    assert len(stream) == sealed_size(size, CHUNK)


def test_the_pieces_it_is_given_in_do_not_matter() -> None:
    data = random.Random(0).randbytes(1000)
    for step in (1, 63, 64, 65, 999):
        pieces = [data[i : i + step] for i in range(0, 1000, step)] + [b""]
        streams = {
            b"".join(seal(given, data_key=KEY, backup_id=ID, kind=1, number=1, chunk_size=CHUNK, randomness=bytes))
            for given in (pieces, [data])
        }
        assert len(streams) == 1


def test_the_layout_is_the_one_of_the_format_page() -> None:
    stream = sealed(b"x" * 65, number=7)
    assert stream[:4] == b"BMA1"
    assert stream[4:6] == bytes([1, 1])
    assert stream[6:22] == ID.bytes
    assert struct.unpack(">I", stream[22:26]) == (7,)
    assert struct.unpack(">I", stream[42:46]) == (CHUNK,)
    assert PREFIX_SIZE == 78
    assert len(stream) == 78 + FULL + 1 + TAG_SIZE


def test_the_same_data_is_never_sealed_the_same() -> None:
    assert sealed(b"data") != sealed(b"data")


def test_every_single_bit_is_guarded() -> None:
    stream = sealed(b"secret" * 30)
    for place in range(len(stream)):
        for bit in (0, 7):
            changed = bytearray(stream)
            changed[place] ^= 1 << bit
            with pytest.raises(BackupDamaged, match="stream 1"):
                opened(bytes(changed))


def test_cutting_anywhere_is_seen() -> None:
    stream = sealed(b"x" * (3 * CHUNK))
    for size in range(len(stream)):
        with pytest.raises(BackupDamaged):
            opened(stream[:size])


def test_a_cut_at_a_chunks_end_is_named() -> None:
    with pytest.raises(BackupDamaged, match=r"stream 1: chunk 1 .*cut off"):
        opened(sealed(b"x" * (3 * CHUNK))[: PREFIX_SIZE + 2 * FULL])


@pytest.mark.parametrize("tail", [b"\0", b"x" * 15, b"x" * 16, b"x" * FULL, b"x" * 1000])
@pytest.mark.parametrize("size", [0, 5, CHUNK, 2 * CHUNK])
def test_trailing_bytes_are_seen(tail: bytes, size: int) -> None:
    with pytest.raises(BackupDamaged):
        opened(sealed(b"x" * size) + tail)


def test_an_empty_chunk_behind_others_is_refused() -> None:
    # A writer of ours never makes one, so it is made by hand: all but the last chunk, then an empty last one.
    from briefly_admin.vault.seal import _nonce, _open_header

    stream = sealed(b"x" * (CHUNK + 1))
    cipher, associated, _ = _open_header(io.BytesIO(stream), Name(ID, 1, 1), KEY)
    forged = stream[: PREFIX_SIZE + FULL] + cipher.encrypt(_nonce(1, last=True), b"", associated)
    with pytest.raises(BackupDamaged, match="chunk 1 is empty"):
        opened(forged)


def test_chunks_cannot_be_moved() -> None:
    stream, other = sealed(bytes(range(256)) * 2), sealed(bytes(range(256)) * 2)
    ends = [0, *range(PREFIX_SIZE, len(stream), FULL), len(stream)]
    header, *chunks = [stream[a:b] for a, b in pairwise(ends)]
    foreign = other[PREFIX_SIZE + FULL : PREFIX_SIZE + 2 * FULL]
    moved = {
        "swapped": [chunks[1], chunks[0], *chunks[2:]],
        "dropped": [chunks[0], *chunks[2:]],
        "first dropped": chunks[1:],
        "repeated": [chunks[0], chunks[0], *chunks[1:]],
        "last repeated": [*chunks, chunks[-1]],
        "spliced from the same data": [chunks[0], foreign, *chunks[2:]],
    }
    for how, order in moved.items():
        with pytest.raises(BackupDamaged):
            pytest.fail(f"{how}: {opened(header + b''.join(order))!r}")
    with pytest.raises(BackupDamaged):
        opened(other[:PREFIX_SIZE] + b"".join(chunks))


def test_a_reader_trusts_what_it_asked_for_and_not_the_file() -> None:
    stream = sealed(b"data")
    for asked in ({"number": 2}, {"backup_id": OTHER}, {"kind": 0}, {"key": bytes(31) + b"\1"}):
        with pytest.raises(BackupDamaged, match="header"):
            opened(stream, **asked)


def test_a_foreign_header_is_named() -> None:
    with pytest.raises(BackupDamaged, match="not a sealed stream"):
        opened(b"PK\3\4" + bytes(200))
    stream = bytearray(sealed(b""))
    stream[4] = 9
    with pytest.raises(BackupDamaged, match="format version is 9"):
        opened(bytes(stream))


def test_all_damaged_chunks_are_listed() -> None:
    stream = bytearray(sealed(b"x" * (6 * CHUNK)))
    for index in (1, 4):
        stream[PREFIX_SIZE + index * FULL] ^= 1
    chunks = list(read_chunks(io.BytesIO(bytes(stream)), Name(ID, 1, 1), data_key=KEY))
    assert [chunk.index for chunk in chunks if chunk.plaintext is None] == [1, 4]
    assert len(chunks) == 6


def test_short_reads_do_no_harm() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(7, size or 0))

    data = b"x" * 500
    assert b"".join(unseal(Trickle(sealed(data)), data_key=KEY, backup_id=ID, kind=1, number=1)) == data


def test_memory_is_a_few_chunks() -> None:
    import tracemalloc

    def source() -> Iterator[bytes]:
        for _ in range(96):
            yield bytes(CHUNK_SIZE)

    tracemalloc.start()
    total = sum(map(len, seal(source(), data_key=KEY, backup_id=ID, kind=1, number=1)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == sealed_size(96 * CHUNK_SIZE)
    assert peak < 8 * CHUNK_SIZE


def test_every_mutation_is_found() -> None:
    dice = random.Random(20251122)
    data = dice.randbytes(700)
    stream, other = sealed(data), sealed(data)
    missed = []
    for trial in range(4000):
        a, b = sorted(dice.randrange(len(stream) + 1) for _ in range(2))
        changed = dice.choice(
            [
                stream[:a] + dice.randbytes(b - a) + stream[b:],
                stream[:a] + stream[b:],
                stream[:b] + stream[a:b] + stream[b:],
                stream[:a] + other[a:b] + stream[b:],
                stream[:a] + bytes([dice.randrange(256)]) + stream[a:],
                stream[:a] + stream[b:] + stream[a:b],
                stream[:a] + bytes(b - a) + stream[b:],
            ]
        )
        if changed in (stream, other):
            continue
        try:
            opened(changed)
        except BackupDamaged:
            continue
        missed.append(trial)
    assert missed == []
