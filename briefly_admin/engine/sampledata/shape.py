"""How much sample data, and the ids of its rows."""

import hashlib
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from briefly_admin.domain.errors import InvalidRequest

SEED_COUNTS: Final = {
    "users": 5,
    "file_metadata": 10,
    "document_chunks": 50,
    "conversations": 8,
    "chat_messages": 30,
    "oauth_tokens": 6,
    "usage_logs": 25,
    "user_settings": 5,
}
"""Rows a table at scale 1; a scale of N has N times as many."""

MAX_SCALE: Final = 200_000
DEFAULT_EMBEDDINGS: Final = 20_000
"""Chunks with an embedding where nobody says how many: all of them up to this, 6 KiB each."""

NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "urn:briefly-admin:sample-data")
"""Of the uuid5 ids of all sample rows."""

_COPY_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_TRAILER: Final = struct.pack(">h", -1)
_COPY_ROW: Final = struct.Struct(">hiqi")
_ROWS_A_PIECE: Final = 4096


@dataclass(frozen=True, slots=True)
class Shape:
    """`scale` ≥ 1 multiplies the seed's counts; `dirty` is the percentage of rows with a repairable fault, 0…100.

    `embeddings`: how many chunks get one (at most all); None = all, but DEFAULT_EMBEDDINGS at most.
    """

    scale: int = 1
    dirty: int = 0
    seed: int = 0
    embeddings: int | None = None

    def check(self) -> None:
        """Raises InvalidRequest, naming each option that is out of bounds."""
        details = {}
        if not 1 <= self.scale <= MAX_SCALE:
            details["scale"] = [f"Must be from 1 to {MAX_SCALE}."]
        if not 0 <= self.dirty <= 100:  # noqa: PLR2004 - per cent
            details["dirty"] = ["Must be from 0 to 100 per cent."]
        if not 0 <= self.seed < 2**63:
            details["seed"] = ["Must be from 0 to 2⁶³ - 1."]
        if self.embeddings is not None and self.embeddings < 0:
            details["embeddings"] = ["Must be 'none', or a number of chunks from 0 on."]
        if details:
            words = "; ".join(f"{name}: {texts[0]}" for name, texts in details.items())
            raise InvalidRequest(f"The sample data cannot be made so. {words}", details=details)

    def rows(self, table: str) -> int:
        """How many rows the table gets, planted faults aside. Raises KeyError for a table without sample data."""
        return SEED_COUNTS[table] * self.scale

    @property
    def embedded_chunks(self) -> int:
        """How many chunks get an embedding."""
        wanted = DEFAULT_EMBEDDINGS if self.embeddings is None else self.embeddings
        return min(wanted, self.rows("document_chunks"))

    def key(self, table: str, name: int | str) -> uuid.UUID:
        """The id of the table's row number `name` (from 0), or of the planted row of that name."""
        return uuid.uuid5(NAMESPACE, f"{self.seed}/{table}/{name}")

    def copy_keys(self, table: str) -> Iterator[bytes]:
        """`COPY (n bigint, id uuid) FROM STDIN (FORMAT binary)` of the ids of all rows, in pieces.

        The same ids as `key`, at a tenth of its cost: the hash of what all names begin with is computed once.
        """
        start = hashlib.sha1(NAMESPACE.bytes + f"{self.seed}/{table}/".encode(), usedforsecurity=False)
        pack = _COPY_ROW.pack
        yield _COPY_HEADER
        for first in range(0, self.rows(table), _ROWS_A_PIECE):
            piece = bytearray()
            for number in range(first, min(first + _ROWS_A_PIECE, self.rows(table))):
                hashed = start.copy()
                hashed.update(b"%d" % number)
                digest = bytearray(hashed.digest()[:16])
                digest[6] = digest[6] & 0x0F | 0x50  # version 5, RFC 9562
                digest[8] = digest[8] & 0x3F | 0x80  # its variant
                piece += pack(2, 8, number, 16)
                piece += digest
            yield bytes(piece)
        yield _COPY_TRAILER
