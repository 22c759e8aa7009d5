"""The embedded servers: private, unprivileged, lasting, and gone when they are stopped."""

import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import sql

from briefly_admin.domain.errors import Refused, SettingError, Unavailable
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.embedded.home import read_addresses, secret_of_home
from briefly_admin.embedded.place import Place
from briefly_admin.embedded.processes import ProcessBook, start_of

CHECKOUT = Path(__file__).resolve().parent.parent
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the servers to another user")


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that is not there yet, whose parents everybody may pass."""
    path = Path(tempfile.gettempdir()) / f"briefly-tests-home-{secrets.token_hex(4)}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def run_pids(home: Path) -> list[int]:
    return [entry.pid for entry in ProcessBook(home).entries().values()]


def start_and_be_killed(home: Path, **chosen: bool) -> None:
    """A start that is killed before it can stop anything."""
    code = (
        "import os, pathlib, sys; from briefly_admin.embedded import EmbeddedServers;"
        f"EmbeddedServers(pathlib.Path(sys.argv[1]), durable=False, **{chosen}).start(); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(home)], cwd=CHECKOUT, check=False)
    assert ended.returncode == -signal.SIGKILL


def test_roles_are_owners_and_nothing_more(target_database: str, app_database: str) -> None:
    for url, role in ((target_database, "briefly_target"), (app_database, "briefly_app")):
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, pg_get_userbyid(datdba) "
                "FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()"
            ).fetchone()
            assert row == (role, False, False, False, False, role)


def test_target_has_vectors_and_no_tables(target_database: str) -> None:
    with psycopg.connect(target_database) as connection:
        assert connection.execute("SELECT '[3,4]'::vector <-> '[0,0]'").fetchone() == (5.0,)
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_nothing_listens_on_tcp_and_nobody_is_trusted(embedded: EmbeddedServers) -> None:
    with psycopg.connect(embedded.superuser_url()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        methods = connection.execute("SELECT DISTINCT type, auth_method FROM pg_hba_file_rules").fetchall()
        assert methods == [("local", "scram-sha-256")]
        hosts = connection.execute("SHOW unix_socket_directories").fetchone()
    assert hosts is not None
    assert stat.S_IMODE(Path(hosts[0]).stat().st_mode) == 0o700
    assert len(hosts[0]) < 100
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres:wrong@/postgres?host={hosts[0]}")
    with redis.Redis.from_url(embedded.redis_url) as client:
        assert client.config_get("port") == {"port": "0"}
    with redis.Redis(unix_socket_path=f"{hosts[0]}/valkey.sock") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_data_survive_a_restart_and_nothing_is_left_running(home: Path) -> None:
    with EmbeddedServers(home) as servers:
        pids = run_pids(home)
        assert len(pids) == 2
        assert read_addresses(home) == servers.addresses
        with psycopg.connect(servers.target_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("kept", "7")
        sockets = Path(servers.redis_url.split("@")[1]).parent
    assert [start_of(pid) for pid in pids] == [None, None]
    assert not sockets.exists()
    assert read_addresses(home) == {}
    with EmbeddedServers(home) as servers:
        with psycopg.connect(servers.target_url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (7,)
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.get("kept") == b"7"


def test_private_files_are_the_owners_alone(home: Path) -> None:
    with EmbeddedServers(home, durable=False):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir() if path.is_file()}
    assert set(modes.values()) == {0o600}, modes


def test_the_servers_log_holds_no_rows(embedded: EmbeddedServers, target_database: str) -> None:
    canary = f"canary-{secrets.token_hex(8)}"
    with psycopg.connect(target_database, autocommit=True) as connection:
        connection.execute(sql.SQL("DO $$ BEGIN RAISE WARNING '%', {}; END $$").format(canary))
        with pytest.raises(psycopg.errors.InvalidTextRepresentation, match=canary):
            connection.execute(sql.SQL("SELECT {}::int").format(canary))
    assert canary not in (embedded.home / "postgres.log").read_text()


def test_second_start_on_a_home_is_refused(embedded: EmbeddedServers) -> None:
    with pytest.raises(Refused, match=f"in use by process {os.getpid()}") as refusal:
        EmbeddedServers(embedded.home).start()
    assert refusal.value.exit_code == 4
    with psycopg.connect(embedded.target_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_servers_of_a_killed_start_are_stopped_first(home: Path) -> None:
    start_and_be_killed(home)
    orphans = run_pids(home)
    assert len(orphans) == 2
    assert all(start_of(pid) for pid in orphans)
    with EmbeddedServers(home, durable=False) as servers:
        assert [start_of(pid) for pid in orphans] == [None, None]
        with psycopg.connect(servers.app_url) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("briefly_admin",)


def test_a_killed_postmaster_that_nobody_has_reaped_is_waited_for(home: Path) -> None:
    with EmbeddedServers(home, valkey=False, durable=False):
        pass
    place = Place.choose(home)
    ended = place.account.spawn(["/bin/true"], subprocess.DEVNULL)
    while start_of(ended.pid) is not None:
        time.sleep(0.01)
    lock = place.data / "pgdata" / "postmaster.pid"
    lock.write_text(f"{ended.pid}\n{place.data / 'pgdata'}\n0\n5432\n\n\n\n")
    place.account.give(lock)
    reaper = threading.Timer(1.5, ended.wait)
    reaper.start()
    with EmbeddedServers(home, valkey=False, durable=False) as servers, psycopg.connect(servers.app_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    reaper.join()


def test_postmaster_that_nobody_recorded_is_stopped(home: Path) -> None:
    start_and_be_killed(home, valkey=False)
    (home / "processes.json").unlink()
    with EmbeddedServers(home, valkey=False, durable=False) as servers, psycopg.connect(servers.app_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_another_process_with_a_recorded_pid_is_spared(home: Path) -> None:
    home.mkdir()
    book = ProcessBook(home)
    book.add("web", os.getpid())
    text = (home / "processes.json").read_text()
    (home / "processes.json").write_text(text.replace('"start": "', '"start": "1'))
    ProcessBook(home).stop_all(patience=1)
    assert book.entries() == {}


def test_half_made_cluster_is_made_anew(home: Path) -> None:
    with EmbeddedServers(home, valkey=False, durable=False):
        pass
    (home / "servers" / "pgdata").rename(home / "servers" / "pgdata.unfinished")
    with EmbeddedServers(home, valkey=False, durable=False) as servers, psycopg.connect(servers.app_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_damaged_cluster_names_its_log_and_leaves_nothing_running(home: Path) -> None:
    with EmbeddedServers(home, durable=False):
        pass
    (home / "servers" / "pgdata" / "global" / "pg_control").unlink()
    with pytest.raises(Unavailable, match=r"postgres\.log"):
        EmbeddedServers(home, durable=False).start()
    assert run_pids(home) == []
    EmbeddedServers(home, postgres=False, durable=False).start().stop()


def test_socket_path_too_long_is_named(home: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with pytest.raises(SettingError, match="TMPDIR: no temporary directory is short"):
        EmbeddedServers(home, durable=False, socket_parents=[deep]).start()
    assert run_pids(home) == []


def test_home_with_a_long_path_works() -> None:
    parent = Path(tempfile.gettempdir()) / f"briefly-tests-{secrets.token_hex(4)}"
    try:
        deep = parent.joinpath(*["deep' \"directory" * 3] * 3)
        with EmbeddedServers(deep, durable=False) as servers, psycopg.connect(servers.target_url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        shutil.rmtree(parent)


def test_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match=r"BRIEFLY_HOME: .* cannot be made"):
        EmbeddedServers(tmp_path / "file" / "home").start()


def test_home_that_is_not_ours_to_use_is_named(home: Path) -> None:
    (home / "lock").mkdir(parents=True)
    with pytest.raises(SettingError, match=r"BRIEFLY_HOME: .* cannot be used"):
        EmbeddedServers(home).start()
    (home / "lock").rmdir()
    (home / "processes.json").mkdir()
    with pytest.raises(SettingError, match=r"BRIEFLY_HOME: .* cannot be used"):
        EmbeddedServers(home).start()
    assert not (home / "servers").exists()


@as_root
def test_root_hands_the_servers_to_an_unprivileged_user(home: Path) -> None:
    with EmbeddedServers(home, durable=False):
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in run_pids(home)}
        assert len(owners) == 1
        assert 0 not in owners
        assert {path.stat().st_uid for path in (home / "servers").rglob("*")} == owners


@as_root
def test_below_a_closed_directory_the_data_live_elsewhere(tmp_path: Path, home: Path) -> None:
    closed, elsewhere = tmp_path / "closed", home
    closed.mkdir(mode=0o700)
    with EmbeddedServers(closed / "home", durable=False, elsewhere=elsewhere) as servers:
        with psycopg.connect(servers.target_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT '[1]'::vector AS n")
        base = Path((closed / "home" / "where").read_text().strip())
        assert base.parent == elsewhere
        assert stat.S_IMODE(base.stat().st_mode) == 0o700
        programs = {Path(f"/proc/{pid}/exe").readlink() for pid in run_pids(closed / "home")}
        assert all(program.is_relative_to(base) for program in programs)
    with (
        EmbeddedServers(closed / "home", durable=False, elsewhere=elsewhere) as servers,
        psycopg.connect(servers.target_url) as connection,
    ):
        assert connection.execute("SELECT n::text FROM kept").fetchone() == ("[1]",)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert not (closed / "home" / "servers").exists()


@as_root
def test_data_that_became_unreachable_are_not_replaced(home: Path, tmp_path: Path) -> None:
    nested = home / "nested"
    home.mkdir(mode=0o755)
    with EmbeddedServers(nested, durable=False):
        pass
    home.chmod(0o700)
    with pytest.raises(Refused, match="can no longer reach"):
        EmbeddedServers(nested, durable=False, elsewhere=tmp_path).start()
    assert (nested / "servers" / "pgdata" / "PG_VERSION").exists()


def test_one_secret_a_name(tmp_path: Path, superuser_database: Callable[[str], str]) -> None:
    assert secret_of_home(tmp_path / "home", "key", "first") == "first"
    assert secret_of_home(tmp_path / "home", "key", "second") == "first"
