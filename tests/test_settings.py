"""The settings: defaults, every bad value named in one line, no secret in a repr or a message."""

import base64
import os
import stat
from pathlib import Path

import pytest

from briefly_admin import settings as settings_module
from briefly_admin.domain.errors import SettingError
from briefly_admin.settings import Settings, embedded_wanted, load

KEY = base64.b64encode(bytes(range(32))).decode()
SERVERS = {
    "DATABASE_URL": "postgresql://app:pw@db/briefly_admin",
    "TARGET_DATABASE_URL": "postgresql://target:pw@db/briefly",
    "REDIS_URL": "redis://:pw@queue:6379/0",
}
PRODUCTION = {
    **SERVERS,
    "APP_ENV": "production",
    "SECRET_KEY": "s" * 32,
    "AUDIT_KEY": "a" * 32,
    "BACKUP_KEYS": f"k1:{KEY}",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def loaded(home: Path, **environ: str) -> Settings:
    return load({**SERVERS, "BRIEFLY_HOME": str(home), **environ})


def test_defaults_are_those_of_the_contract(home: Path) -> None:
    found = loaded(home)
    assert (found.port, found.base_url, found.app_env) == (8000, "http://127.0.0.1:8000", "development")
    assert (found.migration_batch_size, found.migration_max_retries, found.migration_retry_delay) == (100, 3, 1000)
    assert (found.backup_retention_hours, found.lease_seconds, found.web_concurrency) == (24, 30, 2)
    assert (found.migration_plan, found.log_level, found.trusted_proxies) == ("unified", "info", 0)
    assert found.source_database_url == found.target_database_url
    assert found.backup_store_url == (home / "backups").as_uri()
    assert (found.admin_email, found.admin_password) == (None, None)
    assert found.bind == "127.0.0.1:8000"
    assert found.store_lasts


@pytest.mark.parametrize(("value", "expected"), [("auto", "auto"), ("AUTO", "auto"), ("1", 1), ("10000", 10_000)])
def test_the_batch_size_may_be_automatic(home: Path, value: str, expected: object) -> None:
    assert loaded(home, MIGRATION_BATCH_SIZE=value).migration_batch_size == expected


def test_what_is_not_set_comes_from_the_embedded_servers(home: Path) -> None:
    found = load({"BRIEFLY_HOME": str(home), "REDIS_URL": "rediss://:pw@heroku:6380"}, embedded=SERVERS)
    assert found.database_url == SERVERS["DATABASE_URL"]
    assert found.redis_url == "rediss://:pw@heroku:6380"


def test_other_names_and_spellings(home: Path) -> None:
    found = loaded(
        home,
        DATABASE_URL="postgres://app:p%40w@db:5432/name?sslmode=require",
        NEXTAUTH_SECRET="n" * 20,
        NEXTAUTH_URL="https://example.com/briefly/app/",
        SOURCE_DATABASE_URL="postgres://old/briefly",
        DYNO="web.1",
        BACKUP_FILE_SHARED="true",
        PORT=" 9000 ",
        WEB_CONCURRENCY="",
    )
    assert found.database_url == "postgresql://app:p%40w@db:5432/name?sslmode=require"
    assert (found.secret_key, found.base_url) == ("n" * 20, "https://example.com/briefly/app")
    assert found.source_database_url == "postgresql://old/briefly"
    assert (found.trusted_proxies, found.backup_file_shared, found.web_concurrency) == (1, True, 2)
    assert found.bind == "0.0.0.0:9000"


def test_local_secrets_are_made_once_and_private(home: Path) -> None:
    first, second = loaded(home), loaded(home)
    assert (first.secret_key, first.audit_key, first.backup_keys) == (
        second.secret_key,
        second.audit_key,
        second.backup_keys,
    )
    assert len(first.backup_keys[0][1]) == 32
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}


def test_production_takes_what_it_is_given_and_writes_nothing(home: Path) -> None:
    found = load({**PRODUCTION, "BRIEFLY_HOME": str(home), "BACKUP_KEYS": f"k2:{KEY}, k1:{KEY}"})
    assert found.production
    assert [identity for identity, _ in found.backup_keys] == ["k2", "k1"]
    assert found.backup_keys[0][1] == bytes(range(32))
    assert not found.store_lasts
    assert not home.exists()


@pytest.mark.parametrize(
    "name", ["SECRET_KEY", "AUDIT_KEY", "BACKUP_KEYS", "DATABASE_URL", "TARGET_DATABASE_URL", "REDIS_URL"]
)
def test_production_misses_nothing_silently(home: Path, name: str) -> None:
    environ = {key: value for key, value in PRODUCTION.items() if key != name}
    with pytest.raises(SettingError) as refusal:
        load({**environ, "BRIEFLY_HOME": str(home)})
    assert refusal.value.name == name
    assert refusal.value.exit_code == 2
    assert str(refusal.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://hidden@db/x"),
        ("DATABASE_URL", "host=db dbname=hidden"),
        ("DATABASE_URL", "postgresql://user:hidden%zz@db/x"),
        ("TARGET_DATABASE_URL", "postgresql://user:hidden@db"),
        ("TARGET_DATABASE_URL", "postgresql://user:hidden@db/x?nonsense=1"),
        ("SOURCE_DATABASE_URL", "postgresql:/hidden"),
        ("REDIS_URL", "http://:hidden@queue"),
        ("REDIS_URL", "redis://:hidden@queue:notaport"),
        ("SECRET_KEY", "hidden"),
        ("NEXTAUTH_SECRET", "hidden"),
        ("AUDIT_KEY", "hidden"),
        ("BASE_URL", "example.com"),
        ("BASE_URL", "https://example.com/?a=hidden"),
        ("NEXTAUTH_URL", "ftp://example.com"),
        ("NEXTAUTH_URL", "http://[::1"),
        ("BACKUP_STORE_URL", "ftp://host/prefix"),
        ("BACKUP_STORE_URL", "file:relative"),
        ("BACKUP_STORE_URL", "file://host/dir"),
        ("BACKUP_STORE_URL", "file:///a%00b"),
        ("BACKUP_KEYS", "hidden"),
        ("BACKUP_KEYS", "k1:hidden!"),
        ("BACKUP_KEYS", "k1:" + base64.b64encode(b"hidden").decode()),
        ("BACKUP_KEYS", f"k1:{KEY},k1:{KEY}"),
        ("BACKUP_KEYS", f"k1:{KEY},"),
        ("BACKUP_RETENTION_HOURS", "0"),
        ("BACKUP_RETENTION_HOURS", "a day"),
        ("MIGRATION_BATCH_SIZE", "10001"),
        ("MIGRATION_BATCH_SIZE", "1.5"),
        ("MIGRATION_BATCH_SIZE", "automatic"),
        ("MIGRATION_BATCH_SIZE", "-1"),
        ("MIGRATION_BATCH_SIZE", "١٠"),
        ("MIGRATION_MAX_RETRIES", "11"),
        ("MIGRATION_RETRY_DELAY", "60001"),
        ("MIGRATION_PLAN", "../unified"),
        ("APP_ENV", "staging"),
        ("BACKUP_FILE_SHARED", "perhaps"),
        ("LEASE_SECONDS", "0"),
        ("WEB_CONCURRENCY", "0"),
        ("TRUSTED_PROXIES", "many"),
        ("LOG_LEVEL", "loud"),
        ("PORT", "65536"),
        ("ADMIN_EMAIL", "ana"),
        ("ADMIN_PASSWORD", "hidden"),
    ],
)
def test_bad_value_is_named_in_one_line_and_not_shown(home: Path, name: str, value: str) -> None:
    with pytest.raises(SettingError) as refusal:
        loaded(home, **{name: value})
    assert refusal.value.name == name
    text = str(refusal.value)
    assert "\n" not in text
    assert "hidden" not in text
    assert KEY not in text


@pytest.mark.parametrize("name", ["NEXT_PUBLIC_SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY"])
def test_rest_interface_is_no_target(name: str) -> None:
    for read in (load, embedded_wanted):
        with pytest.raises(SettingError, match=r"TARGET_DATABASE_URL: is not set; .*Copy it from Supabase"):
            read({name: "hidden"})
    assert embedded_wanted({name: "x", "TARGET_DATABASE_URL": "postgres://db/x"}) == {"DATABASE_URL", "REDIS_URL"}


def test_repr_shows_no_secret(home: Path) -> None:
    shown = repr(
        loaded(home, SECRET_KEY="hidden" * 5, ADMIN_PASSWORD="hidden" * 5, DATABASE_URL="postgres://u:hidden@h/d")
    )
    assert "hidden" not in shown
    assert "pw@" not in shown


def test_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="BRIEFLY_HOME"):
        loaded(tmp_path / "file" / "home")


def test_this_process_reads_its_own_environment(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name, value in {**SERVERS, "BRIEFLY_HOME": str(home), "PORT": "8123"}.items():
        monkeypatch.setenv(name, value)
    assert settings_module.from_environ().port == 8123
    assert settings_module.environment() == dict(os.environ)


def test_home_defaults_to_the_checkout() -> None:
    assert settings_module.home_of({}) == Path(__file__).resolve().parent.parent / ".briefly"
