"""The pattern never changes what a stream says: the same rows, or the same refusal, as walking field by field."""

import random
import struct

import pytest

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.vault.copybinary import HEADER, TRAILER, CopyParser
from briefly_admin.vault.copypattern import RowPattern
from tests.vault.sample_backups import copy_binary, copy_row, field

Row = tuple[bytes | None, ...]


def drawn(seed: int, count: int, *, odd: float = 0.02) -> list[Row]:
    """Rows of few shapes, among them some whose text has a length of its own, or looks like a row."""
    dice = random.Random(seed)
    rows: list[Row] = []
    for _ in range(count):
        text: bytes | None = dice.choice([b"chat", b"upload", None, b"", b"\0\4\0\0\0\x10" + bytes(16)])
        if dice.random() < odd:
            text = dice.randbytes(dice.randrange(400))
        rows.append((dice.randbytes(16), text, dice.choice([dice.randbytes(8), None]), dice.randbytes(4)))
    return rows


def walked(data: bytes, step: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[bytes]] | str:
    with monkeypatch.context() as patched:
        patched.setattr(RowPattern, "learn", lambda *_: None)
        return read(data, step)


def read(data: bytes, step: int, key: tuple[int, ...] = (3, 0)) -> tuple[list[bytes], list[bytes]] | str:
    parser, rows, keys = CopyParser(4, key), [], []
    try:
        for start in range(0, len(data), step):
            found = parser.feed(data[start : start + step])
            rows += found.rows
            keys += found.keys
        parser.finish()
    except BackupDamaged as error:
        return error.message
    return rows, keys


@pytest.mark.parametrize("odd", [0, 0.02, 0.5, 1])
@pytest.mark.parametrize("step", [500, 7777, 1 << 20])
def test_rows_and_keys_are_the_same(odd: float, step: int) -> None:
    rows = drawn(1, 5000, odd=odd)
    assert read(copy_binary(rows), step) == (
        [copy_row(row)[2:] for row in rows],
        [field(row[3]) + field(row[0]) for row in rows],
    )


@pytest.mark.parametrize("key", [(), (0,), (1,), (0, 1), (1, 0), (3, 2, 0)])
def test_keys_come_in_their_order(key: tuple[int, ...]) -> None:
    rows = drawn(2, 2000)
    parser = CopyParser(4, key)
    found = [parser.feed(HEADER), *(parser.feed(copy_row(row)) for row in rows[:1000])]
    found.append(parser.feed(b"".join(map(copy_row, rows[1000:])) + TRAILER))
    parser.finish()
    assert [row for each in found for row in each.rows] == [copy_row(row)[2:] for row in rows]
    expected = [b"".join(field(row[place]) for place in key) for row in rows] if key else []
    assert [each_key for each in found for each_key in each.keys] == expected


def test_most_rows_are_not_walked() -> None:
    learnt: list[bytes] = []
    pattern = RowPattern(4, ())
    data = [copy_row(row) for row in drawn(3, 10_000, odd=0)]
    for row in data[:256]:
        pattern.learn(row[2:])
    buffer = b"".join(data)
    assert pattern.take(buffer, 0, learnt, [], hopeful=True) == len(buffer)
    assert learnt == [row[2:] for row in data]


def test_damage_anywhere_is_judged_as_by_walking(monkeypatch: pytest.MonkeyPatch) -> None:
    data = copy_binary(drawn(4, 1500))
    dice = random.Random(5)
    refused = 0
    for trial in range(300):
        changed = bytearray(data)
        place = dice.randrange(len(HEADER), len(changed))
        if trial % 3 == 0:
            changed[place] ^= 1 << dice.randrange(8)
        elif trial % 3 == 1:
            del changed[place : place + dice.randrange(1, 60)]
        else:
            changed[place:place] = dice.randbytes(dice.randrange(1, 9))
        step = dice.choice([999, 20_000, 1 << 20])
        judged = read(bytes(changed), step)
        assert judged == walked(bytes(changed), step, monkeypatch)
        refused += isinstance(judged, str)
    assert refused > 100


def test_a_count_of_fields_that_differs_is_seen_among_known_rows() -> None:
    rows = b"".join(copy_row(row) for row in drawn(6, 3000, odd=0))
    other = struct.pack(">h", 3) + field(b"x") * 3
    assert read(HEADER + rows + other + rows + TRAILER, 1 << 20) == (
        "The data is no COPY binary stream: row 3001 has 3 fields instead of 4."
    )


def test_rows_that_are_never_alike_cost_no_pattern() -> None:
    dice = random.Random(7)
    rows = [(dice.randbytes(dice.randrange(300)),) * 4 for _ in range(17_000)]
    pattern = RowPattern(4, ())
    for row in rows:
        pattern.learn(copy_row(row)[2:])
    assert pattern.take(copy_row(rows[0]), 0, [], [], hopeful=True) == 0
