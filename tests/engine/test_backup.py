"""The phase backup: one instant, whole or nothing, proven, and the same digests as PostgreSQL computes."""

import resource
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from marshmallow import Schema

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.digest import BucketDigests
from briefly_admin.domain.errors import BackupDamaged, PreflightFailed, Stopped, Unavailable
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import RunKind
from briefly_admin.engine import backup
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.copying import CopyOut
from briefly_admin.engine.snapshot import copied_columns, key_columns, open_snapshot, page_ranges
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import Column, Plan, Table
from briefly_admin.vault.digest import bucket_sql, buckets_of, digest_of, digest_sql
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import open_store
from briefly_admin.vault.vault import BackupReader, Vault
from tests.engine.journal_memory import RunRecord

KEYS = MasterKeys({"k1": bytes(32)})
ACCOUNTS = Table("accounts", Schema, [Column("id", "integer"), Column("balance", "bigint")])
ODD = Table('odd "name" 100%', Schema, [Column("a key", "text")], key=("a key", "n"))
PLAN = Plan("money", "Money", "Two tables.", [ACCOUNTS, ODD])


def make_tables(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "CREATE TABLE accounts (id serial PRIMARY KEY, balance bigint, note text, v public.vector(3))"
        )
        connection.execute(
            "INSERT INTO accounts (balance, note) SELECT 100, repeat('x', i % 50) FROM generate_series(1, 500) i"
        )
        connection.execute("UPDATE accounts SET v = '[1,2,3]' WHERE id % 3 = 0")
        connection.execute(
            'CREATE TABLE "odd ""name"" 100%" ("a key" text, n int, "j%" jsonb, PRIMARY KEY ("a key", n))'
        )
        connection.execute("""INSERT INTO "odd ""name"" 100%" VALUES ('ä%s', 1, '{"a": [1]}'), ('', 2, NULL)""")


@pytest.fixture
def target(target_database: str) -> Target:
    make_tables(target_database)
    return Target(target_database)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "backups"


class Bench:
    """A run to take backups in."""

    def __init__(self, target: Target, store: Path, **extra: Any) -> None:
        self.record = RunRecord()
        self.vault = Vault(open_store(f"file://{store}"), KEYS)
        self.progress: list[Progress] = []
        self.context = RunContext(
            run_id=self.record.run_id, attempt=1, plan=PLAN, target=target, vault=self.vault,
            journal=self.record.next_attempt(), report=self.progress.append, read_config=RunConfig,
            **{"kind": RunKind.BACKUP, **extra},
        )  # fmt: skip

    def take(self) -> dict[str, Any]:
        return backup.run(self.context)

    def reader(self, result: Mapping[str, Any]) -> BackupReader:
        backup_id = UUID(result["backup_id"])
        recorded = self.record.backups[backup_id]
        assert recorded["state"] == "proven"
        return self.vault.open(backup_id, recorded["shred_key"], recorded["manifest_sha256"])

    @staticmethod
    def restored(reader: BackupReader, dsn: str) -> tuple[Any, ...] | None:
        """Sum and count of the accounts, as a restore has them."""
        table = reader.manifest.table("public", "accounts")
        assert table is not None
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TEMP TABLE copy (id int, balance bigint, note text, v public.vector(3))")
            for stream in table.streams:
                with connection.cursor().copy("COPY copy FROM STDIN (FORMAT binary)") as loading:
                    for piece in reader.read_table_stream(stream):
                        loading.write(piece)
            return connection.execute("SELECT sum(balance), count(*) FROM copy").fetchone()

    def nothing_is_left(self) -> bool:
        return not list(self.vault.store.list()) and all(b["state"] == "failed" for b in self.record.backups.values())


def test_a_backup_holds_every_row_and_is_proven(target: Target, store: Path) -> None:
    bench = Bench(target, store)
    result = bench.take()
    assert result["rows"] == 502
    assert [table["rows"] for table in result["tables"]] == [500, 2]
    reader = bench.reader(result)
    assert reader.verify() == []
    assert [(s.name, s.last_value) for s in reader.manifest.sequences] == [("accounts_id_seq", 500)]
    assert reader.manifest.table("public", "accounts").columns[3].type == "public.vector"  # type: ignore[union-attr]
    assert bench.progress
    assert bench.record.lines[0][1] == "accounts: 500 rows sealed by test:1."
    assert "502 rows read back" in bench.record.lines[-1][1]


def test_digests_are_those_that_postgresql_computes(target: Target, store: Path) -> None:
    bench = Bench(target, store, kind=RunKind.MIGRATION)
    result = bench.take()
    with open_snapshot(target, PLAN) as snapshot:
        for table, taken in zip(PLAN.tables, result["tables"], strict=True):
            catalog = snapshot.tables[table.name]
            columns = copied_columns(catalog)
            row = snapshot.connection.execute(digest_sql(catalog.identifier, columns)).fetchone()
            assert row is not None
            assert str(digest_of(row)) == taken["digest"]
            rows = snapshot.connection.execute(
                bucket_sql(catalog.identifier, columns, key_columns(catalog, table.key))
            ).fetchall()
            assert buckets_of(rows) == BucketDigests.from_bytes(bench.record.baselines[table.name])


def test_a_mere_backup_keeps_nothing_to_compare_with(target: Target, store: Path) -> None:
    bench = Bench(target, store)
    result = bench.take()
    assert bench.record.baselines == {}
    assert 0 < result["sealed_seconds"] <= result["seconds"]


def test_rows_that_the_server_did_not_count_are_damage(
    target: Target, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting(CopyOut):
        def __iter__(self) -> Iterator[bytes]:
            yield from super().__iter__()
            self.rows += 1

    monkeypatch.setattr(backup, "CopyOut", Counting)
    bench = Bench(target, store)
    with pytest.raises(BackupDamaged, match="has 500 rows instead of 501"):
        bench.take()
    assert bench.nothing_is_left()


def test_a_backup_is_one_instant_while_money_moves(target: Target, store: Path, target_database: str) -> None:
    stop = threading.Event()

    mover = threading.Thread(target=transfers, args=(target_database, stop))
    mover.start()
    try:
        for _ in range(5):
            bench = Bench(target, store)
            assert bench.restored(bench.reader(bench.take()), target_database) == (50_000, 500)
    finally:
        stop.set()
        mover.join()


def transfers(dsn: str, stop: threading.Event) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        amount = 1
        while not stop.is_set():
            amount = amount % 97 + 1
            with connection.transaction():
                connection.execute("UPDATE accounts SET balance = balance - %s WHERE id = %s", (amount, amount))
                connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, 500 - amount))


def test_large_tables_are_cut_into_ranges_that_cover_them(target: Target, target_database: str) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute(
            "INSERT INTO accounts (balance, note) SELECT i, repeat('y', 500) FROM generate_series(1, 2000) i"
        )
    with open_snapshot(target, PLAN) as snapshot:
        ranges = page_ranges(snapshot.tables["accounts"], stream_bytes=100_000)
    assert len(ranges) > 5
    assert ranges[0][0] == ""
    assert ranges[-1][1] == ""
    assert all(one[1] == two[0] for one, two in pairwise(ranges))


def test_a_stop_leaves_nothing(target: Target, store: Path) -> None:
    bench = Bench(target, store, should_stop=lambda: "interrupt")
    with pytest.raises(Stopped):
        bench.take()
    assert bench.nothing_is_left()


def test_a_missing_table_is_named_and_nothing_is_left(target: Target, store: Path, target_database: str) -> None:
    with psycopg.connect(target_database) as connection:
        connection.execute("DROP TABLE accounts")
    bench = Bench(target, store)
    with pytest.raises(PreflightFailed, match="missing"):
        bench.take()
    assert bench.nothing_is_left()


def test_a_role_that_rows_are_hidden_from_gets_no_smaller_backup(
    target: Target, store: Path, target_database: str, superuser_database: Callable[[str], str]
) -> None:
    with psycopg.connect(superuser_database(target_database)) as connection:
        connection.execute("ALTER TABLE accounts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY half ON accounts USING (id % 2 = 0)")
    bench = Bench(target, store)
    with pytest.raises(PreflightFailed, match="row-level security"):
        bench.take()
    assert bench.nothing_is_left()


def test_a_lost_server_leaves_nothing(
    target: Target, store: Path, target_database: str, superuser_database: Callable[[str], str]
) -> None:
    def kill(_: Progress) -> None:
        with psycopg.connect(superuser_database(target_database), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    bench = Bench(target, store)
    bench.context = replace(bench.context, report=kill)
    with pytest.raises((Unavailable, PreflightFailed)):
        bench.take()
    assert bench.nothing_is_left()


def test_damage_on_the_way_to_the_disk_is_found_before_the_backup_counts(target: Target, store: Path) -> None:
    flipped: list[Path] = []

    def flip(_: Progress) -> None:
        for file in store.glob("*/streams/1.bma") if not flipped else ():
            flipped.append(file)
            raw = bytearray(file.read_bytes())
            raw[len(raw) // 2] ^= 1
            file.chmod(0o600)
            file.write_bytes(raw)

    bench = Bench(target, store)
    clock = iter(range(10_000))
    bench.context = replace(bench.context, report=flip, monotonic=lambda: float(next(clock)))
    with pytest.raises(BackupDamaged, match="stream 1"):
        bench.take()
    assert bench.nothing_is_left()


def test_a_full_store_leaves_nothing(target: Target, store: Path) -> None:

    bench = Bench(target, store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    try:
        with pytest.raises(Unavailable):
            bench.take()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    assert bench.nothing_is_left()
