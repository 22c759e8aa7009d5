import random
import struct
import time

import pytest

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.vault.copybinary import HEADER, MAX_FIELD, SIGNATURE, TRAILER, CopyParser, blocks
from tests.vault.sample_backups import copy_binary, copy_row, field, some_rows

ROWS = some_rows(1, 50)
STREAM = copy_binary(ROWS)


def parse(
    data: bytes, *, columns: int = 3, step: int = 1 << 20, key: tuple[int, ...] = ()
) -> tuple[list[bytes], list[bytes]]:
    parser = CopyParser(columns, key)
    rows, keys = [], []
    for start in range(0, len(data), step):
        found = parser.feed(data[start : start + step])
        rows += found.rows
        keys += found.keys
    parser.finish()
    assert parser.row_count == len(rows)
    return rows, keys


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000, 1 << 20])
def test_rows_come_back_whatever_the_pieces(step: int) -> None:
    rows, keys = parse(STREAM, step=step, key=(2, 0))
    assert rows == [copy_row(row)[2:] for row in ROWS]
    assert keys == [field(row[2]) + field(row[0]) for row in ROWS]


@pytest.mark.parametrize("key", [(0,), (1,), (2,), (0, 1), (2, 1), (2, 1, 0), (0, 2)])
def test_keys_are_given_in_key_order(key: tuple[int, ...]) -> None:
    assert parse(STREAM, key=key)[1] == [b"".join(field(row[place]) for place in key) for row in ROWS]


def test_an_empty_table_is_a_whole_stream() -> None:
    assert parse(HEADER + TRAILER) == ([], [])


def test_rows_without_columns_are_rows() -> None:
    assert parse(HEADER + b"\0\0" * 3 + TRAILER, columns=0) == ([b""] * 3, [])


def test_a_known_extension_is_passed_over() -> None:
    data = SIGNATURE + struct.pack(">II", 0x0000FFFF, 5) + b"extra" + STREAM[len(HEADER) :]
    for step in (1, 1000):
        assert len(parse(data, step=step)[0]) == len(ROWS)


def test_cutting_anywhere_is_seen() -> None:
    for size in range(len(STREAM)):
        with pytest.raises(BackupDamaged):
            parse(STREAM[:size])


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("tail", [b"\0", TRAILER, copy_row(ROWS[0]), STREAM])
def test_nothing_may_follow_the_trailer(tail: bytes, step: int) -> None:
    with pytest.raises(BackupDamaged, match="follow the trailer"):
        parse(copy_binary(ROWS[:1]) + tail, step=step)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "before its trailer"),
        (b"PGCOPX", "signature"),
        (b"X" * 100, "signature"),
        (SIGNATURE[:-1] + b"\1" + bytes(8), "signature"),
        (SIGNATURE + struct.pack(">II", 1 << 16, 0), "flags"),
        (SIGNATURE + struct.pack(">II", 0, 1 << 30), "extension"),
        (HEADER + struct.pack(">h", 2), "2 fields instead of 3"),
        (HEADER + struct.pack(">h", -2), "-2 fields"),
        (HEADER + copy_row(ROWS[0]) + copy_row(ROWS[0][:2]), "row 2 has 2 fields"),
        (HEADER + struct.pack(">hi", 3, -2), "row 1 has a field of -2 bytes"),
        (HEADER + struct.pack(">hi", 3, MAX_FIELD + 1000), "row 1 is longer than"),
        (HEADER + struct.pack(">hi", 3, 0x7FFFFFFF), "row 1 is longer than"),
    ],
)
def test_what_is_no_copy_stream_is_named(data: bytes, what: str) -> None:
    for step in (1, 1000):
        with pytest.raises(BackupDamaged, match=what):
            parse(data, step=step)


def test_blocks_give_back_every_byte() -> None:
    for step in (1, 50, 5000):
        chunks = [STREAM[i : i + step] for i in range(0, len(STREAM), step)]
        parser = CopyParser(3, (0,))
        found = list(blocks(parser, chunks))
        assert b"".join(block for block, _ in found) == STREAM
        assert sum(len(rows.rows) for _, rows in found) == parser.row_count == len(ROWS)


def test_blocks_of_a_cut_stream_end_in_an_error() -> None:
    with pytest.raises(BackupDamaged, match="before its trailer"):
        list(blocks(CopyParser(3), [STREAM[:-1]]))


def test_a_large_row_of_many_fields_is_not_walked_again_and_again() -> None:
    rows = [tuple(bytes(200_000) for _ in range(100))]
    data = copy_binary(rows)
    chunks = [data[i : i + 8192] for i in range(0, len(data), 8192)]
    began = time.perf_counter()
    assert sum(len(found.rows) for _, found in blocks(CopyParser(100), chunks)) == 1
    assert time.perf_counter() - began < 2


def test_random_bytes_never_pass() -> None:
    dice = random.Random(7)
    for _ in range(2000):
        changed = bytearray(STREAM)
        del changed[dice.randrange(len(changed)) : dice.randrange(len(changed) + 1)]
        if changed != STREAM:
            place = dice.randrange(len(changed)) if changed else 0
            changed[place:place] = dice.randbytes(dice.randrange(4))
        try:
            parse(bytes(changed))
        except BackupDamaged:
            continue
        assert len(changed) >= len(HEADER + TRAILER)
