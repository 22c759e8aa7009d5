"""Digests of rows that do not depend on their order: of a table, and of its 4,096 key buckets.

A row's hash is SHA-256 over its columns in manifest order, each as i32 length (−1 for NULL) ‖ its binary form, as
COPY binary writes a field. A digest is the number of rows and the four u64 words of their hashes (big-endian, in
order), each summed modulo 2⁶⁴. Source: docs/backup-format.md, "The row digest".
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

WORDS: Final = 4
MODULUS: Final = 1 << 64
BUCKETS: Final = 4096
"""Buckets of a table: the first 12 bits of SHA-256 over its key columns, encoded as in the row's hash."""

_TEXT: Final = re.compile(r"(0|[1-9][0-9]{0,18}):([0-9a-f]{64})")
_ENTRY: Final = struct.Struct(">5Q")
_BITMAP_BYTES: Final = BUCKETS // 8


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The count of rows and the four sums; digests of disjoint sets of rows add up to that of their union."""

    count: int = 0
    words: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __add__(self, other: "TableDigest") -> "TableDigest":
        first, second, third, fourth = (
            (mine + theirs) % MODULUS for mine, theirs in zip(self.words, other.words, strict=True)
        )
        return TableDigest(self.count + other.count, (first, second, third, fourth))

    def __str__(self) -> str:
        """`count:64 hex digits`, as manifests and reports write it."""
        return f"{self.count}:{b''.join(word.to_bytes(8, 'big') for word in self.words).hex()}"

    @classmethod
    def from_sums(cls, count: int, sums: Sequence[int]) -> Self:
        """From unreduced sums of the words, signed or not, as SQL and the stream reader collect them."""
        if len(sums) != WORDS:
            raise ValueError(f"a digest has {WORDS} words, not {len(sums)}")
        first, second, third, fourth = (int(word) % MODULUS for word in sums)
        return cls(count, (first, second, third, fourth))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`. Raises ValueError."""
        found = _TEXT.fullmatch(text)
        if not found:
            raise ValueError("not a digest")
        return cls.from_sums(int(found[1]), struct.unpack(">4Q", bytes.fromhex(found[2])))


class BucketDigests(Mapping[int, TableDigest]):
    """One digest a bucket that has rows; immutable, addable, and comparable bucket by bucket."""

    def __init__(self, buckets: Mapping[int, TableDigest] | None = None) -> None:
        self._buckets = {number: digest for number, digest in sorted((buckets or {}).items()) if digest.count}
        if any(not 0 <= number < BUCKETS for number in self._buckets):
            raise ValueError(f"a bucket's number is 0 to {BUCKETS - 1}")

    def __getitem__(self, number: int) -> TableDigest:
        return self._buckets[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._buckets)

    def __len__(self) -> int:
        return len(self._buckets)

    def __add__(self, other: "BucketDigests") -> "BucketDigests":
        empty = TableDigest()
        numbers = self.keys() | other.keys()
        return BucketDigests({number: self.get(number, empty) + other.get(number, empty) for number in numbers})

    def total(self) -> TableDigest:
        """The digest of the whole table."""
        return sum(self._buckets.values(), TableDigest())

    def differing(self, other: "BucketDigests") -> list[int]:
        """The numbers of the buckets that are not the same in both, ascending."""
        numbers = self.keys() | other.keys()
        return sorted(number for number in numbers if self.get(number) != other.get(number))

    def to_bytes(self) -> bytes:
        """512 bytes of bitmap (bit 7 of byte 0 is bucket 0), then 5 × u64 (count, words) a bucket that is set."""
        bitmap = bytearray(_BITMAP_BYTES)
        for number in self._buckets:
            bitmap[number >> 3] |= 0x80 >> (number & 7)
        return bytes(bitmap) + b"".join(_ENTRY.pack(digest.count, *digest.words) for digest in self._buckets.values())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of `to_bytes`. Raises ValueError."""
        numbers = [n for n in range(BUCKETS) if len(data) >= _BITMAP_BYTES and data[n >> 3] & (0x80 >> (n & 7))]
        if len(data) != _BITMAP_BYTES + _ENTRY.size * len(numbers):
            raise ValueError("not bucket digests: the length does not fit the bitmap")
        entries = _ENTRY.iter_unpack(data[_BITMAP_BYTES:])
        return cls(
            {
                number: TableDigest(count, (first, second, third, fourth))
                for number, (count, first, second, third, fourth) in zip(numbers, entries, strict=True)
            }
        )
