"""Backups of every released format version must open: with the program, and with a reader written from the page alone."""

import base64
import hashlib
import json
import shutil
import struct
from pathlib import Path
from uuid import UUID

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from briefly_admin.vault.verify import Level
from tests.vault.sample_backups import copy_binary, some_rows

GOLDEN = Path(__file__).parent.parent / "golden" / "v1"
BACKUP_ID = UUID("0b1e4c1e-7d5c-4b8a-9a55-0123456789ab")
KEY_ID, MASTER = "first", bytes(range(32))
SHRED_KEY = bytes.fromhex("7bd5d47e446fcec2a3d811736110e5781bcccea696762e6116c6e9c92d99bf35")
MANIFEST_SHA256 = "ff1f78ff18497e58d96dd99c87eb66c317dd7150e3f3e8df79556c7a36176ad6"
PLAINTEXTS = [
    "13ba65341154d541729df4e357c170cdd4e98208a67c74dc3badd4d75b8de80b",
    "613941dfc56be869089161c1628cf19aeb9ce3617b41c03968a9e077b18baa6d",
    "dd26c89e0f1321f4ddd5029009c3a86dd23940c753955ad650d2db0d71e2b1ab",
]
DIGESTS = [
    "80:79a828145a9de5b77ac1ad97afce3f49ad08479c5daffbab06b1363f4ef657e8",
    "40:15b4bed3bdd1bb480724c8581172ab2a332ae0fbb975a292dfc559e8f3eb7234",
]


def test_the_program_opens_it(tmp_path: Path) -> None:
    store = DirectoryStore(Path(shutil.copytree(GOLDEN, tmp_path / "store")))
    reader = Vault(store, MasterKeys({KEY_ID: MASTER})).open(BACKUP_ID, SHRED_KEY, MANIFEST_SHA256)
    assert reader.verify(Level.OBJECTS) == reader.verify(Level.CONTENT) == []
    streams = [b"".join(reader.read_table_stream(stream)) for stream in reader.manifest.streams]
    assert [hashlib.sha256(stream).hexdigest() for stream in streams] == PLAINTEXTS
    assert streams == [copy_binary(some_rows(seed, 40)) for seed in (2, 3, 4)]
    assert [str(table.digest) for table in reader.manifest.tables] == DIGESTS


def hkdf(material: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    return HKDF(SHA256(), size, salt, info).derive(material)


def open_stream(data: bytes, data_key: bytes, kind: int, number: int) -> bytes:
    header, commitment, rest = data[:46], data[46:78], data[78:]
    salt, (chunk_size,) = header[26:42], struct.unpack(">I", header[42:])
    assert header == b"BMA1\1" + bytes([kind]) + BACKUP_ID.bytes + struct.pack(">I", number) + salt + header[42:]
    derived = hkdf(data_key, salt, b"briefly/v1/stream" + header, 64)
    assert derived[32:] == commitment
    pieces = [rest[start : start + chunk_size + 16] for start in range(0, len(rest), chunk_size + 16)]
    return b"".join(
        AESGCM(derived[:32]).decrypt(
            i.to_bytes(11, "big") + bytes([i == len(pieces) - 1]), piece, hashlib.sha256(header).digest()
        )
        for i, piece in enumerate(pieces)
    )


def test_a_stranger_opens_it_by_the_page() -> None:
    folder = GOLDEN / str(BACKUP_ID)
    slots = {slot["key_id"]: slot["wrapped"] for slot in json.loads((folder / "slots.json").read_bytes())["slots"]}
    wrapping = hkdf(MASTER + SHRED_KEY, BACKUP_ID.bytes, b"briefly/v1/wrap" + KEY_ID.encode(), 32)
    data_key = aes_key_unwrap(wrapping, base64.b64decode(slots[KEY_ID]))
    manifest = json.loads(open_stream((folder / "manifest.bma").read_bytes(), data_key, 0, 0))
    assert [table["name"] for table in manifest["tables"]] == ["users", "usage logs"]
    for stream in [stream for table in manifest["tables"] for stream in table["streams"]]:
        sealed = (folder / "streams" / f"{stream['number']}.bma").read_bytes()
        assert (len(sealed), hashlib.sha256(sealed).hexdigest()) == (stream["sealed_size"], stream["sealed_sha256"])
        plain = (
            zstandard.ZstdDecompressor().decompressobj().decompress(open_stream(sealed, data_key, 1, stream["number"]))
        )
        assert (len(plain), hashlib.sha256(plain).hexdigest()) == (stream["plaintext_size"], stream["plaintext_sha256"])
        assert plain[:11] == b"PGCOPY\n\xff\r\n\0"
