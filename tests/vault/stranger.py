"""A reader of sealed backups written from docs/backup-format.md alone: it imports nothing of the program."""

import base64
import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

Row = list[bytes | None]


def hkdf(material: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt, info).derive(material)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Stranger:
    """Has the store, the escrow file, and master keys by id."""

    def __init__(self, store: Path, escrow: bytes, masters: Mapping[str, bytes]) -> None:
        said = json.loads(escrow)
        assert (said["format"], said["version"]) == ("briefly-escrow", 1)
        self.folder = store / said["backup_id"]
        self.backup_id = UUID(said["backup_id"]).bytes
        slots = json.loads((self.folder / "slots.json").read_bytes())["slots"]
        [key_id] = [slot["key_id"] for slot in slots if slot["key_id"] in masters]
        [wrapped] = [slot["wrapped"] for slot in slots if slot["key_id"] == key_id]
        material = masters[key_id] + base64.b64decode(said["shred_key"])
        wrapping = hkdf(material, self.backup_id, b"briefly/v1/wrap" + key_id.encode(), 32)
        self.data_key = aes_key_unwrap(wrapping, base64.b64decode(wrapped))
        sealed = (self.folder / "manifest.bma").read_bytes()
        assert sha256(sealed) == said["manifest_sha256"]
        raw = self.open_stream(sealed, 0, 0)
        self.manifest: dict[str, Any] = json.loads(raw)
        again = json.dumps(self.manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert again.encode() == raw

    def open_stream(self, data: bytes, kind: int, number: int) -> bytes:
        header, commitment, rest = data[:46], data[46:78], data[78:]
        salt, (chunk_size,) = header[26:42], struct.unpack(">I", header[42:])
        assert header == b"BMA1\1" + bytes([kind]) + self.backup_id + struct.pack(">I", number) + salt + header[42:]
        derived = hkdf(self.data_key, salt, b"briefly/v1/stream" + header, 64)
        assert derived[32:] == commitment
        pieces = [rest[start : start + chunk_size + 16] for start in range(0, len(rest), chunk_size + 16)]
        return b"".join(
            AESGCM(derived[:32]).decrypt(
                i.to_bytes(11, "big") + bytes([i == len(pieces) - 1]), piece, hashlib.sha256(header).digest()
            )
            for i, piece in enumerate(pieces)
        )

    def rows(self, table: Mapping[str, Any]) -> list[Row]:
        """A table's rows, every figure that the manifest has of them checked."""
        found: list[Row] = []
        hashes = b""
        for stream in sorted(table["streams"], key=lambda stream: int(stream["number"])):
            sealed = (self.folder / "streams" / f"{stream['number']}.bma").read_bytes()
            assert (len(sealed), sha256(sealed)) == (stream["sealed_size"], stream["sealed_sha256"])
            frame = zstandard.ZstdDecompressor().decompressobj()
            plain = frame.decompress(self.open_stream(sealed, 1, stream["number"]))
            assert (len(plain), sha256(plain)) == (stream["plaintext_size"], stream["plaintext_sha256"])
            rows = copied(plain, len(table["columns"]))
            assert len(rows) == stream["rows"]
            found += rows
            hashes += bytes.fromhex(stream["plaintext_sha256"])
        assert (len(found), sha256(hashes), digest(found)) == (table["rows"], table["hash"], table["digest"])
        return found


def copied(plain: bytes, columns: int) -> list[Row]:
    """The rows of a COPY binary."""
    signature, _flags, extension = struct.unpack_from(">11sII", plain)
    assert signature == b"PGCOPY\n\xff\r\n\0"
    at, rows = 19 + extension, []
    while (count := struct.unpack_from(">h", plain, at)[0]) != -1:
        assert count == columns
        at += 2
        row: Row = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", plain, at)
            at += 4
            row.append(None if size < 0 else plain[at : at + size])
            at += max(size, 0)
        rows.append(row)
    assert at + 2 == len(plain)
    return rows


def digest(rows: list[Row]) -> str:
    """The row digest as text."""
    sums = [0, 0, 0, 0]
    for row in rows:
        fields = b"".join(struct.pack(">i", -1 if field is None else len(field)) + (field or b"") for field in row)
        words = struct.unpack(">4Q", hashlib.sha256(fields).digest())
        sums = [(total + word) % (1 << 64) for total, word in zip(sums, words, strict=True)]
    return f"{len(rows)}:" + "".join(f"{total:016x}" for total in sums)
