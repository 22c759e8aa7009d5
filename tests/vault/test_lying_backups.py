"""Backups that lie although they are sealed with the right keys: bombs, manifests, versions. An error, nothing worse."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupDamaged, BackupError
from briefly_admin.domain.manifest import titles
from briefly_admin.vault import layout
from briefly_admin.vault.copybinary import HEADER, TRAILER
from briefly_admin.vault.seal import CHUNK_SIZE, MAX_CHUNK_SIZE, PREFIX_SIZE
from briefly_admin.vault.verify import MOST_FAULTS, Level
from tests.vault.hostile import ENDLESS, Forger, Repeating, bomb, bounded
from tests.vault.sample_backups import BACKUP_ID, contents, copy_binary

STREAM = layout.stream_key(BACKUP_ID, 1)
GIB = 1 << 30
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def forger(tmp_path: Path) -> Forger:
    return Forger(tmp_path / "store")


def lie(forger: Forger, change: Change, *, consistent: bool = False) -> bytes:
    """The sample's manifest as canonical JSON, changed; `consistent`: with its tables' hashes recomputed."""
    data = json.loads(forger.sample.manifest.to_bytes())
    change(data)
    for table in data["tables"] if consistent else ():
        in_order = sorted(table["streams"], key=lambda stream: stream["number"])
        table["hash"] = hashlib.sha256(b"".join(bytes.fromhex(s["plaintext_sha256"]) for s in in_order)).hexdigest()
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def read_all(forger: Forger) -> list[str]:
    """All that verification finds, at both levels; also what reading says."""
    reader = forger.open()
    found = [str(damage) for level in Level for damage in reader.verify(level)]
    try:
        for stream in reader.manifest.streams:
            for _ in reader.read_table_stream(stream):
                pass
    except BackupDamaged as error:
        found += error.damages
    return found


# Compressed streams


def _describe(forger: Forger, sealed: bytes, *, plaintext_size: int) -> None:
    """Let the manifest describe stream 1 as this object."""

    def change(data: dict[str, Any]) -> None:
        stream = data["tables"][0]["streams"][0]
        stream["sealed_size"], stream["sealed_sha256"] = len(sealed), hashlib.sha256(sealed).hexdigest()
        stream["plaintext_size"] = plaintext_size

    forger.manifest(lie(forger, change))


@pytest.mark.parametrize("claimed", [0, 10_000, 1 << 24])
def test_a_bomb_stops_at_the_size_that_the_manifest_says(forger: Forger, claimed: int) -> None:
    """64 GiB of zeros in 2 MiB; the COPY stream that they pass for awaits a field that they could fill."""
    row = struct.pack(">hi", 3, GIB)
    _describe(forger, forger.stream(bomb(HEADER + row, 64 * GIB)), plaintext_size=claimed)
    with bounded():
        (damage,) = forger.open().verify()
        assert f"decompresses to more than the {claimed} bytes" in str(damage)
    with bounded(), pytest.raises(BackupDamaged, match="decompresses to more"):
        list(contents(forger.open()))


def test_a_bomb_whose_size_is_admitted_is_no_copy_stream(forger: Forger) -> None:
    _describe(forger, forger.stream(bomb(HEADER, 64 * GIB)), plaintext_size=65 * GIB)
    with bounded():
        (damage,) = forger.open().verify()
    assert "row 1 has 0 fields instead of 3" in str(damage)


def _frame(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True, **options).compress(data)


WHOLE = copy_binary([(b"a", b"b", None)])
FRAMES = {
    "a window of 2 GiB": bomb(HEADER, GIB, window=0xA8),
    "a content size of 4 EiB": bomb(HEADER, GIB, content_size=ENDLESS),
    "two frames": _frame(WHOLE) * 2,
    "a skippable frame": b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(1000),
    "no checksum": zstandard.ZstdCompressor().compress(WHOLE),
    "a dictionary": b"\x28\xb5\x2f\xfd\x07\x68\xff\xff\xff\xff" + bytes(40),
    "a reserved block": b"\x28\xb5\x2f\xfd\x04\x68" + (0b111).to_bytes(3, "little") + bytes(40),
    "no frame": b"PGCOPY\n\xff\r\n\0" + bytes(40),
    "nothing": b"",
    "half a frame": _frame(WHOLE * 100)[:-9],
    "a wrong checksum": _frame(WHOLE)[:-1] + b"\0",
    "a field of 2 GiB": _frame(HEADER + struct.pack(">hi", 3, 0x7FFFFFFF) + bytes(100)),
    "a field of negative size": _frame(HEADER + struct.pack(">hi", 3, -2) + bytes(100)),
    "32,767 fields": _frame(HEADER + struct.pack(">h", 0x7FFF) + b"\xff" * 200_000 + TRAILER),
    "a huge header extension": _frame(HEADER[:-4] + b"\xff" * 4 + bytes(1000)),
    "other data": _frame(WHOLE),
}


@pytest.mark.parametrize("what", FRAMES)
def test_what_a_stream_holds_is_bounded_and_checked(forger: Forger, what: str) -> None:
    _describe(forger, forger.stream(FRAMES[what]), plaintext_size=2 * GIB)
    with bounded(mib=150):
        damages = read_all(forger)
    assert "stream 1" in damages[0]


@pytest.mark.parametrize("chunk_size", [0, MAX_CHUNK_SIZE + 1, (1 << 32) - 1])
def test_a_chunk_size_that_is_not_allowed_makes_no_room(forger: Forger, chunk_size: int) -> None:
    whole = forger.stream(_frame(WHOLE), chunk_size=chunk_size or 1 << 20)
    header = whole[:42] + struct.pack(">I", chunk_size) + whole[46:]
    for sealed in (header, whole):
        _describe(forger, sealed, plaintext_size=len(WHOLE))
        forger.plant(STREAM, sealed + bytes(1 << 20))
        with bounded(mib=20):
            assert all("stream 1" in damage for damage in read_all(forger))


def test_a_stream_of_tiny_chunks_that_never_ends_is_listed_up_to_a_bound(forger: Forger) -> None:
    sealed = forger.stream(_frame(WHOLE), chunk_size=16)
    _describe(forger, sealed, plaintext_size=len(WHOLE))

    def endless(data: dict[str, Any]) -> None:
        data["tables"][0]["streams"][0]["sealed_size"] = ENDLESS

    forger.manifest(lie(forger, endless))
    forger.store.opened[STREAM] = lambda _, truth: Repeating(truth)
    with bounded():
        damages = forger.open().verify()
    assert len(damages) == MOST_FAULTS + 1
    assert "the others were not read" in str(damages[-1])


# Manifests


def _table(**values: Any) -> Change:
    return lambda data: data["tables"][0].update(values)


def _stream(**values: Any) -> Change:
    return lambda data: data["tables"][0]["streams"][0].update(values)


def _column(**values: Any) -> Change:
    return lambda data: data["tables"][0]["columns"][0].update(values)


def _all(**values: Any) -> Change:
    return lambda data: data.update(values)


def _rows(data: dict[str, Any]) -> None:
    """One row more, everywhere that the manifest itself can compare."""
    table = data["tables"][0]
    table["rows"] += 1
    table["streams"][0]["rows"] += 1
    number, colon, sums = table["digest"].partition(":")
    table["digest"] = f"{int(number) + 1}{colon}{sums}"


def _digest(data: dict[str, Any]) -> None:
    table = data["tables"][0]
    table["digest"] = table["digest"][:-1] + ("0" if table["digest"][-1] != "0" else "1")


def _swap_streams(data: dict[str, Any]) -> None:
    one, two = (stream["number"] for stream in data["tables"][0]["streams"])
    data["tables"][0]["streams"][0]["number"], data["tables"][0]["streams"][1]["number"] = two, one


def _fewer_columns(data: dict[str, Any]) -> None:
    data["tables"][0]["columns"].pop()


REFUSED: dict[str, Change] = {
    "rows alone": _table(rows=1), "rows of a stream": _stream(rows=1), "negative rows": _table(rows=-1), "rows as text": _table(rows="40"),
    "true rows": _table(rows=True), "fractions": _table(rows=80.0), "huge rows": _table(rows=1 << 64),
    "a hash": _table(hash="ab" * 32), "a hash of a stream": _stream(plaintext_sha256="ab" * 32), "no hash": _stream(sealed_sha256="x"),
    "no digest": _table(digest="80"), "a digest of megabytes": _table(digest="8" * 5_000_000), "stream 0": _stream(number=0),
    "a stream twice": _stream(number=2), "a stream of another table": _stream(number=3), "a huge stream number": _stream(number=1 << 64),
    "a negative size": _stream(plaintext_size=-1), "a table twice": lambda data: data["tables"].append(data["tables"][0]),
    "a column twice": lambda data: data["tables"][0]["columns"].append(data["tables"][0]["columns"][0]),
    "a key of no column": _table(key=["nothing"]), "a key column twice": _table(key=["id", "id"]), "columns as text": _table(columns="id"),
    "a generated column of no kind": _column(generated="x"), "a nullable of no kind": _column(nullable=1), "a typmod": _column(typmod=-2),
    "a type that is not described": _column(type="public.mood"),
    "another backup": _all(backup_id="00000000-0000-4000-8000-000000000001"), "an id in capitals": _all(backup_id=str(BACKUP_ID).upper()),
    "a path for an id": _all(backup_id="../../x"), "a time without a zone": _all(created_at="2025-11-22T12:00:00"),
    "a time at the edge": _all(created_at="0001-01-01T00:00:00.000000+14:00"), "no time": _all(created_at=""),
    "version 2": _all(format_version=2), "version 0": _all(format_version=0), "version true": _all(format_version=True),
    "no tables": _all(tables={}), "a surprise": _all(surprise=1), "extensions as a list": _all(extensions=[]),
    "half a character": _all(plan="\ud800"), "half a character in a name": _table(name="\udfff"), "a NUL in a name": _table(name="a\0b"),
    "a ctid that is none": _stream(ctid_from="1; DROP TABLE x"), "a ctid that is half": _stream(ctid_to="(1,"),
    "a sequence beyond bigint": lambda data: data["sequences"][0].update(last_value=1 << 63),
}  # fmt: skip
FOUND: dict[str, Change] = {
    "one row more": _rows, "a digest": _digest, "swapped streams": _swap_streams,
    "fewer columns": _fewer_columns, "a missing stream": _stream(number=9), "a stream number beyond the header's": _stream(number=1 << 40),
    "a sealed size": _stream(sealed_size=1), "an endless sealed size": _stream(sealed_size=ENDLESS),
    "a sealed hash": _stream(sealed_sha256="ab" * 32), "a plaintext size": _stream(plaintext_size=1),
    "an endless plaintext size": _stream(plaintext_size=ENDLESS),
    "a plaintext hash": _stream(plaintext_sha256="ab" * 32),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_manifest_that_lies_is_refused(forger: Forger, what: str) -> None:
    forger.manifest(lie(forger, REFUSED[what]))
    with bounded(), pytest.raises(BackupError):
        forger.open()


@pytest.mark.parametrize("what", FOUND)
def test_a_manifest_that_lies_of_its_streams_is_found_out(forger: Forger, what: str) -> None:
    forger.manifest(lie(forger, FOUND[what], consistent=True))
    with bounded():
        assert forger.open().verify()


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"[" * 100_000, b"\xff", b"{}", b'{"format_version":1}', b"1" * 5000]
)
def test_a_manifest_that_is_none_is_refused(forger: Forger, raw: bytes) -> None:
    forger.manifest(raw)
    with bounded(), pytest.raises(BackupDamaged):
        forger.open()


def test_an_honest_manifest_opens(forger: Forger) -> None:
    forger.manifest(lie(forger, lambda _: None))
    assert forger.open().verify() == []


def test_names_that_look_like_others_keep_their_tables_apart(forger: Forger) -> None:
    """A dot is a letter like others: x.y may be table y of x, or a table of that name."""
    names = [("public", "x.y"), ("z", "y"), ("x", "y"), ("q", "x.y")]
    found = titles(names)
    assert list(found.values()) == names
    assert list(found)[:2] == ["x.y", "y"]

    def rename(data: dict[str, Any]) -> None:
        one, two = data["tables"]
        one.update(schema="public", name="x.y")
        two.update(
            schema="x", name="y", streams=[], rows=0, hash=hashlib.sha256().hexdigest(), digest=str(TableDigest())
        )
        data["tables"].insert(1, two | {"schema": "z"})

    forger.manifest(lie(forger, rename))
    assert [table.label for table in forger.open().manifest.by_title.values()] == ['public."x.y"', "z.y", "x.y"]


# Versions


def test_an_unknown_version_says_which_are_read(forger: Forger) -> None:
    forger.manifest(lie(forger, _all(format_version=2)))
    with pytest.raises(BackupError, match=r"format version is 2; this program reads 1\."):
        forger.open()
    sealed = forger.stream(_frame(WHOLE))
    later = sealed[:4] + b"\x02" + sealed[5:]
    _describe(forger, later, plaintext_size=len(WHOLE))
    forger.plant(STREAM, later)
    (damage,) = forger.open().verify()
    assert "its format version is 2; this program reads 1" in str(damage)
    manifest = (forger.store.root / layout.manifest_key(BACKUP_ID)).read_bytes()
    forger.plant(layout.manifest_key(BACKUP_ID), manifest[:4] + b"\x02" + manifest[5:])
    forger.sha256 = hashlib.sha256(manifest[:4] + b"\x02" + manifest[5:]).hexdigest()
    with pytest.raises(BackupError, match="the manifest: its format version is 2; this program reads 1"):
        forger.open()


def test_a_chunk_of_the_wrong_length_is_damage_not_a_crash(forger: Forger) -> None:
    sealed = forger.stream(_frame(WHOLE), chunk_size=CHUNK_SIZE)
    for size in (0, 1, 45, PREFIX_SIZE - 1, PREFIX_SIZE, PREFIX_SIZE + 1, PREFIX_SIZE + 15, len(sealed) - 1):
        _describe(forger, sealed[:size], plaintext_size=len(WHOLE))
        forger.plant(STREAM, sealed[:size])
        assert read_all(forger)
