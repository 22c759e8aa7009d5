"""Real servers for every test: one PostgreSQL and one Valkey a pytest process, a fresh database a test."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from playwright.sync_api import Browser, sync_playwright
from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.embedded.home import HomeLock
from briefly_admin.embedded.processes import ProcessBook

_TEMPORARY = Path(tempfile.gettempdir())
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
"""Bytes that must be free there before the servers' data go into memory."""
_OURS = (
    "DATABASE_URL", "TARGET_DATABASE_URL", "SOURCE_DATABASE_URL", "REDIS_URL", "SECRET_KEY", "NEXTAUTH_SECRET", "BASE_URL",
    "NEXTAUTH_URL", "APP_ENV", "AUDIT_KEY", "LEASE_SECONDS", "WEB_CONCURRENCY", "TRUSTED_PROXIES", "LOG_LEVEL", "PORT", "DYNO",
    "NEXT_PUBLIC_SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY",
)  # fmt: skip
_OURS_BY_PREFIX = ("BACKUP_", "MIGRATION_", "ADMIN_", "BRIEFLY_", "PG")


def pytest_configure() -> None:
    """No test, and no process that a test starts, sees the settings or the home of the person who runs it."""
    for name in list(os.environ):
        if name in _OURS or name.startswith(_OURS_BY_PREFIX):
            del os.environ[name]
    os.environ["BRIEFLY_HOME"] = str(_TEMPORARY / f"briefly-unused-{os.getpid()}")
    # The hundreds of processes that tests start would compile the whole program each.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _sweep_homes_of_killed_runs() -> None:
    for book in (book for place in (_TEMPORARY, _MEMORY) for book in place.glob("briefly-tests-*/processes.json")):
        lock = HomeLock(book.parent)
        try:
            lock.take()
        except (Refused, OSError):
            continue
        ProcessBook(book.parent).stop_all(patience=5)
        shutil.rmtree(book.parent, ignore_errors=True)
        lock.release()


def _place() -> Path:
    """Where a fresh database costs least: in memory, where there is room."""
    try:
        roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
    except OSError:
        roomy = False
    return _MEMORY if roomy else _TEMPORARY


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServers]:
    """The servers of this pytest process; nothing of them is kept."""
    _sweep_homes_of_killed_runs()
    # Not pytest's tmp_path: as root its parent is closed to the servers' user.
    home = _place() / f"briefly-tests-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with EmbeddedServers(home, durable=False, options={"scram_iterations": "1"}) as servers:
            _lighten(servers)
            yield servers
    finally:
        shutil.rmtree(home)


def _lighten(servers: EmbeddedServers) -> None:
    """A login as superuser costs next to nothing, too: initdb knows no `scram_iterations`, and tests open many sessions."""
    url = urlsplit(servers.superuser_url())
    role, password = sql.Identifier(url.username or ""), sql.Literal(url.password)
    _execute(servers, sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, password))


def _with_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _execute(servers: EmbeddedServers, statement: sql.Composed) -> None:
    with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
        connection.execute(statement)


def _create(servers: EmbeddedServers, owner_url: str, template: str) -> str:
    """A fresh database owned by the role of `owner_url`, and its connection string."""
    name, owner = f"test_{secrets.token_hex(6)}", urlsplit(owner_url).username or ""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY file_copy")
    _execute(servers, statement.format(*map(sql.Identifier, (name, template, owner))))
    return _with_database(owner_url, name)


def _drop(servers: EmbeddedServers, url: str) -> None:
    name = sql.Identifier(urlsplit(url).path[1:])
    _execute(servers, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@pytest.fixture(scope="session")
def _app_template(embedded: EmbeddedServers) -> str:
    """The name of an app database with all revisions applied; tests get copies."""
    from briefly_admin.store.migrate import upgrade

    url = _create(embedded, embedded.app_url, "template1")
    upgrade(url)
    return urlsplit(url).path[1:]


@pytest.fixture(scope="session")
def _sample_template(embedded: EmbeddedServers) -> tuple[str, dict[str, int]]:
    """The name of a target database with sample data, and its rows by table; tests get copies."""
    from briefly_admin.engine.sampledata import create
    from briefly_admin.engine.target import Target
    from briefly_admin.plans import plan

    url = _create(embedded, embedded.target_url, "template1")
    return urlsplit(url).path[1:], create(Target(url), plan("unified"), embeddings=0)


@pytest.fixture(scope="module")
def module_databases(embedded: EmbeddedServers) -> Iterator[Callable[[str], str]]:
    """Makes targets that a module keeps until its end: copies of the one with this connection string, or empty for ''."""
    made: list[str] = []

    def make(template: str) -> str:
        made.append(_create(embedded, embedded.target_url, urlsplit(template).path[1:] or "template1"))
        return made[-1]

    yield make
    for url in made:
        _drop(embedded, url)


@pytest.fixture(scope="module")
def target_template() -> str:
    """The connection string of what each `target_database` is a copy of; '' for an empty one. Modules have their own.

    Nobody may be connected to it while tests run.
    """
    return ""


@pytest.fixture
def target_database(embedded: EmbeddedServers, target_template: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh database with the vector extension, as its owner (no superuser, no BYPASSRLS).

    It is empty, but where the module has a `target_template`, or the test wants `sample_data`.
    """
    template = urlsplit(target_template).path[1:] or "template1"
    if "sample_data" in request.fixturenames:
        template, _ = request.getfixturevalue("_sample_template")
    url = _create(embedded, embedded.target_url, template)
    yield url
    _drop(embedded, url)


@pytest.fixture
def sample_data(target_database: str, _sample_template: tuple[str, dict[str, int]]) -> dict[str, int]:
    """The plan's tables with the seed's rows stand in `target_database`; rows by table."""
    return dict(_sample_template[1])


@pytest.fixture
def app_database(embedded: EmbeddedServers, _app_template: str) -> Iterator[str]:
    """A fresh app database with all revisions applied, as its owner."""
    url = _create(embedded, embedded.app_url, _app_template)
    yield url
    _drop(embedded, url)


@pytest.fixture
def superuser_database(embedded: EmbeddedServers) -> Callable[[str], str]:
    """From the connection string of a test's database to the same database's as superuser."""
    return lambda url: embedded.superuser_url(urlsplit(url).path[1:])


@pytest.fixture
def redis_url(embedded: EmbeddedServers) -> str:
    """Valkey's URL; it is empty."""
    with redis.Redis.from_url(embedded.redis_url) as client:
        client.flushall()
    return embedded.redis_url


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium a pytest process; each test opens a context of its own."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert path, "Chromium is not installed: the package is called chromium"
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=arguments)
        yield launched
        launched.close()
