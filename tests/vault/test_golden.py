"""Backups of every released format version must open: with the program, and with a reader written from the page alone.

golden_making.py says how they were made, and how those of a new version will be. These here are never made anew.
"""

import ast
import json
import shutil
import struct
from pathlib import Path

import pytest
from psycopg import sql

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.domain.manifest import READ_VERSIONS
from briefly_admin.engine import scratch
from briefly_admin.engine.staged import copy_into, create_staged, create_types, staged_digest
from briefly_admin.engine.target import Target
from briefly_admin.vault.escrow import Escrow
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import BackupReader, Vault
from briefly_admin.vault.verify import Level
from tests.vault import stranger
from tests.vault.golden_making import KEY_ID, MASTER
from tests.vault.stranger import Stranger

GOLDEN = Path(__file__).parent.parent / "golden"
VERSIONS = sorted(GOLDEN.glob("v*"), key=lambda folder: int(folder.name[1:]))
TITLES = ["users", 'usage "logs" 100%', "kinds", "other.users", "empty", "no columns"]
# What must never change without a version of its own: the sums of the first version's tables.
DIGESTS = {
    "users": "60:776ac3355e5a0a1277decd2a9da9af1c0019e269fed46862d5c426c29f8315f5",
    'usage "logs" 100%': "240:8fb9115a4f859d9445e1633f60aefc67fcbf0921d0c600043fe8046ea6388475",
    "kinds": "3:c7bd2ed2aeb971a2d5db4801c99e84565a83644cbbf29ad0a5aaa0e56451935f",
    "other.users": "3:f4bbb53f70b9578342ce46a413a90d4555e7af1f82661218ae8ccec94d347a09",
    "empty": "0:0000000000000000000000000000000000000000000000000000000000000000",
    "no columns": "4:8ec3110a63f070506befd32265bee4909eb90791926e4d309256646de14ae154",
}


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.param
    return folder


def opened(golden: Path, root: Path) -> BackupReader:
    """By the program, in a copy."""
    store = DirectoryStore(Path(shutil.copytree(golden, root / "store")))
    escrow = Escrow.parse((golden / "escrow.json").read_bytes())
    return Vault(store, MasterKeys({KEY_ID: MASTER})).open(escrow.backup_id, escrow.shred_key, escrow.manifest_sha256)


def test_every_version_that_is_read_has_golden_files() -> None:
    assert [folder.name for folder in VERSIONS] == [f"v{version}" for version in READ_VERSIONS]


def test_the_program_opens_it(golden: Path, tmp_path: Path) -> None:
    reader = opened(golden, tmp_path)
    assert reader.verify(Level.OBJECTS) == reader.verify(Level.CONTENT) == []
    manifest = reader.manifest
    assert {title: str(table.digest) for title, table in manifest.by_title.items()} == DIGESTS
    assert [len(table.streams) for table in manifest.tables] == [1, 5, 1, 1, 1, 1]
    assert [(key.name, key.table) for table in manifest.tables for key in table.foreign_keys] == [
        ("users_boss_fkey", "users"), ("of a user", "users"),
    ]  # fmt: skip
    assert [(s.name, s.last_value, s.is_called) for s in manifest.sequences] == [
        ("empty_id_seq", 41, False), ("empty_other_seq", -1, False), ('usage "logs" 100%_id_seq', 724, True),
        ("users_id_seq", 60, True),
    ]  # fmt: skip
    assert {each.kind for each in manifest.types} == {
        "enum", "domain", "composite", "range", "multirange", "array", "base",
    }  # fmt: skip
    assert [change.what for change in manifest.schema_changes] == [
        "column tier", "default users_tier_default", "index users_by_email",
    ]  # fmt: skip


def test_it_loads_into_a_database_that_never_saw_it(golden: Path, tmp_path: Path, target_database: str) -> None:
    reader = opened(golden, tmp_path)
    texts = json.loads((golden / "texts.json").read_text(encoding="utf-8"))
    with Target(target_database).session(bulk=True) as connection:
        schema = scratch.create_scratch(connection, reader.manifest.backup_id, 1)
        create_types(connection, reader.manifest, schema)
        for title, table in reader.manifest.by_title.items():
            staged = create_staged(connection, reader.manifest, table, schema)
            for stream in table.streams:
                with connection.cursor().copy(copy_into(staged)) as loading:
                    for piece in reader.read_table_stream(stream):
                        loading.write(piece)
            assert staged_digest(connection, staged) == table.digest
            rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(staged.identifier)).fetchall()
            assert sorted(str(row) for (row,) in rows) == texts[title]


def test_a_stranger_opens_it_by_the_page(golden: Path) -> None:
    reader = Stranger(golden, (golden / "escrow.json").read_bytes(), {KEY_ID: MASTER})
    manifest = reader.manifest
    rows = {title: reader.rows(table) for title, table in zip(TITLES, manifest["tables"], strict=True)}
    assert {title: stranger.digest(rows[title]) for title in TITLES} == DIGESTS
    assert sorted(rows["other.users"]) == [[b"the same name"], [b"twice"], [b"twice"]]
    assert (rows["empty"], rows["no columns"]) == ([], [[], [], [], []])
    names = [column["name"] for column in manifest["tables"][0]["columns"]]
    first = dict(zip(names, min(rows["users"]), strict=True))
    assert first == {
        "id": struct.pack(">i", 1), "email": b"user1@example.org", "boss": None, "feeling": b"it's \"fine\"",
        "born": struct.pack(">i", 0),
    }  # fmt: skip
    kinds = dict(
        zip([c["name"] for c in manifest["tables"][2]["columns"]], zip(*rows["kinds"], strict=True), strict=True)
    )
    text = {column["name"] for column in manifest["tables"][2]["columns"] if not column["binary"]}
    assert text == {"moods", "d", "acl"}
    assert (kinds["moods"][0], kinds["d"][0], kinds["acl"][0]) == (b"{sad,NULL}", b'("(2,y,)",sad)', b"=r/postgres")
    [mood] = [each for each in manifest["types"] if each["name"] == "public.mood"]
    assert mood["labels"] == ["sad", 'it\'s "fine"', "grün ☘"]


def test_a_stranger_notices_a_flipped_bit(golden: Path, tmp_path: Path) -> None:
    """The stranger's checks are checks: without them this page would prove nothing."""
    copy = Path(shutil.copytree(golden, tmp_path / "copy"))
    [stream] = copy.glob("*/streams/2.bma")
    raw = bytearray(stream.read_bytes())
    raw[-20] ^= 1
    stream.write_bytes(raw)
    reader = Stranger(copy, (golden / "escrow.json").read_bytes(), {KEY_ID: MASTER})
    with pytest.raises(AssertionError):
        reader.rows(reader.manifest["tables"][1])
    damaged = opened(copy, tmp_path)
    assert damaged.verify()
    with pytest.raises(BackupDamaged):
        b"".join(damaged.read_table_stream(damaged.manifest.tables[1].streams[0]))


def test_the_stranger_knows_nothing_of_the_program() -> None:
    tree = ast.parse(Path(stranger.__file__).read_text(encoding="utf-8"))
    imported = {
        name.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert not [name for name in imported if name.startswith(("briefly_admin", "tests"))]
