"""The settings: the only reader of the environment, read once, checked, one frozen dataclass."""

import base64
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from briefly_admin.domain.config import AUTO, BatchSize
from briefly_admin.domain.errors import SettingError
from briefly_admin.embedded.home import read_addresses, read_private, secret_of_home
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores import check_url

KEY_BYTES = 32
SHORTEST_SECRET = 16
SHORTEST_PASSWORD = 15
EMBEDDABLE = ("DATABASE_URL", "TARGET_DATABASE_URL", "REDIS_URL")
"""Where one of these is not set, `up` starts an embedded server."""

_CHECKOUT = Path(__file__).resolve().parent.parent
_LOG_LEVELS = ("debug", "info", "warning", "error")
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything the program is told from outside; secrets do not appear in its repr.

    Connection strings are libpq URLs (`postgresql://…`). A client of a `rediss://` URL must not ask for a
    certificate that a known authority signed: Heroku signs its own.
    """

    home: Path
    port: int
    app_env: str
    on_dyno: bool
    database_url: str = field(repr=False)
    target_database_url: str = field(repr=False)
    source_database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    audit_key: bytes = field(repr=False)
    base_url: str
    backup_store_url: str = field(repr=False)
    backup_keys: tuple[tuple[str, bytes], ...] = field(repr=False)
    """(id, 32 bytes); the first seals, all open."""
    backup_file_shared: bool
    backup_retention_hours: int
    backup_redis_max_mb: int
    """What a `redis://` store may hold in all."""
    drill_every_hours: int | None
    """None: the clock starts no drills."""
    drill_database_url: str | None = field(repr=False)
    """Where drills restore to; None: a scratch schema of the target."""
    require_approval: bool
    """A second admin approves runs that change data."""
    migration_batch_size: BatchSize
    migration_max_retries: int
    migration_retry_delay: int
    """Milliseconds."""
    migration_plan: str
    lease_seconds: int
    web_concurrency: int
    trusted_proxies: int
    log_level: str
    admin_email: str | None
    admin_password: str | None = field(repr=False)

    @property
    def production(self) -> bool:
        """Whether APP_ENV says so."""
        return self.app_env == "production"

    @property
    def store_lasts(self) -> bool:
        """Whether the store is kept: a platform's disk is not, unless BACKUP_FILE_SHARED says that it is."""
        on_disk = self.backup_store_url.partition(":")[0].lower() == "file"
        return not on_disk or self.backup_file_shared or not (self.production or self.on_dyno)

    @property
    def bind(self) -> str:
        """Where the web process listens: loopback, except in production or on a dyno, behind the platform's router."""
        host = "0.0.0.0" if self.production or self.on_dyno else "127.0.0.1"  # noqa: S104 - the router is outside
        return f"{host}:{self.port}"


def environment() -> dict[str, str]:
    """A copy of this process's environment, to pass on to processes that it starts."""
    return dict(os.environ)


def from_environ() -> Settings:
    """The settings of this process; what is not set comes from the servers that run in the home, if any do."""
    environ = environment()
    return load(environ, embedded=read_addresses(home_of(environ)))


def home_of(environ: Mapping[str, str]) -> Path:
    """BRIEFLY_HOME, or `.briefly` in the checkout; absolute."""
    given = environ.get("BRIEFLY_HOME", "").strip()
    return Path(given).expanduser().absolute() if given else _CHECKOUT / ".briefly"


def embedded_wanted(environ: Mapping[str, str]) -> frozenset[str]:
    """The names of EMBEDDABLE that are not set. SettingError where Supabase's REST settings stand in for the target."""
    _refuse_rest_interface(environ)
    return frozenset(name for name in EMBEDDABLE if not environ.get(name, "").strip())


def load(environ: Mapping[str, str], *, embedded: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings; `embedded` names what is used where EMBEDDABLE variables are not set.

    Outside production, SECRET_KEY, BACKUP_KEYS and AUDIT_KEY that are not set are made once and kept 0600 in the home.
    SettingError (exit 2) names the first variable that is missing or malformed.
    """
    _refuse_rest_interface(environ)
    read = _Reader(environ)
    home, port = home_of(environ), read.whole("PORT", 8000, 1, 65535)
    app_env = read.choice("APP_ENV", "development", ("development", "production"))
    on_dyno = bool(environ.get("DYNO"))
    local = None if app_env == "production" else home
    target = read.database("TARGET_DATABASE_URL", embedded)
    return Settings(
        home=home,
        port=port,
        app_env=app_env,
        on_dyno=on_dyno,
        database_url=read.database("DATABASE_URL", embedded),
        target_database_url=target,
        source_database_url=read.database("SOURCE_DATABASE_URL", {"SOURCE_DATABASE_URL": target}),
        redis_url=read.redis(embedded),
        secret_key=read.secret("SECRET_KEY", "NEXTAUTH_SECRET", local=local),
        audit_key=read.secret("AUDIT_KEY", local=local).encode(),
        base_url=read.base_url(f"http://127.0.0.1:{port}"),
        backup_store_url=read.store(home),
        backup_keys=read.backup_keys(local),
        backup_file_shared=read.flag("BACKUP_FILE_SHARED"),
        backup_retention_hours=read.whole("BACKUP_RETENTION_HOURS", 24, 1, 87600),
        backup_redis_max_mb=read.whole("BACKUP_REDIS_MAX_MB", 256, 1, 100_000),
        drill_every_hours=read.whole("DRILL_EVERY_HOURS", 24, 1, 8760) if read.text("DRILL_EVERY_HOURS") else None,
        drill_database_url=read.database("DRILL_DATABASE_URL", None) if read.text("DRILL_DATABASE_URL") else None,
        require_approval=read.flag("REQUIRE_APPROVAL"),
        migration_batch_size=read.batch_size(),
        migration_max_retries=read.whole("MIGRATION_MAX_RETRIES", 3, 0, 10),
        migration_retry_delay=read.whole("MIGRATION_RETRY_DELAY", 1000, 0, 60_000),
        migration_plan=read.plan(),
        lease_seconds=read.whole("LEASE_SECONDS", 30, 1, 3600),
        web_concurrency=read.whole("WEB_CONCURRENCY", 2, 1, 64),
        trusted_proxies=read.whole("TRUSTED_PROXIES", int(on_dyno), 0, 10),
        log_level=read.choice("LOG_LEVEL", "info", _LOG_LEVELS),
        admin_email=read.email("ADMIN_EMAIL"),
        admin_password=read.password("ADMIN_PASSWORD"),
    )


@dataclass(frozen=True, kw_only=True)
class VaultSettings:
    """What opening a backup takes where there is nothing but its store: no database, no queue."""

    backup_store_url: str = field(repr=False)
    backup_keys: tuple[tuple[str, bytes], ...] = field(repr=False)


def vault_settings(environ: Mapping[str, str]) -> VaultSettings:
    """The store and the keys alone; where they are not set, those of the home. Makes nothing. Raises SettingError."""
    home, name = home_of(environ), "BACKUP_KEYS"
    read = _Reader(environ)
    try:
        keys = read.text(name) or read_private(home / name.lower())
    except (OSError, ValueError) as error:
        raise SettingError(name, f"is not set, and {home / name.lower()} cannot be read.") from error
    if not keys:
        remedy = "Set it to the keys that sealed the backup, id:base64,id:base64."
        raise SettingError(name, f"is not set, and {home} keeps none.", remedy=remedy)
    return VaultSettings(backup_store_url=read.store(home), backup_keys=tuple(MasterKeys.parse(keys.strip()).items()))


def _refuse_rest_interface(environ: Mapping[str, str]) -> None:
    rest = environ.get("NEXT_PUBLIC_SUPABASE_URL") or environ.get("SUPABASE_SERVICE_ROLE_KEY")
    if rest and not environ.get("TARGET_DATABASE_URL", "").strip():
        raise SettingError(
            "TARGET_DATABASE_URL",
            "is not set; Supabase's REST interface (NEXT_PUBLIC_SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY) caps reads at "
            "1,000 rows and has no transactions, so it cannot migrate safely.",
            remedy="Copy it from Supabase: your project, Connect, Direct connection or Session pooler.",
        )


class _Reader:
    """Reads one variable at a time; an empty value counts as not set."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def whole(self, name: str, default: int, lowest: int, highest: int) -> int:
        given = self.text(name)
        if given is None:
            return default
        if not re.fullmatch(r"[0-9]{1,9}", given) or not lowest <= int(given) <= highest:
            raise SettingError(name, f"must be a whole number from {lowest} to {highest}.")
        return int(given)

    def batch_size(self) -> BatchSize:
        name = "MIGRATION_BATCH_SIZE"
        if (self.text(name) or "").lower() == AUTO:
            return AUTO
        try:
            return self.whole(name, 100, 1, 10_000)
        except SettingError:
            raise SettingError(name, f"must be a whole number from 1 to 10000, or {AUTO}.") from None

    def flag(self, name: str) -> bool:
        given = (self.text(name) or "0").lower()
        if given not in _YES + _NO:
            raise SettingError(name, "must be 0 or 1.")
        return given in _YES

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        given = (self.text(name) or default).lower()
        if given not in choices:
            raise SettingError(name, f"must be one of {', '.join(choices)}.")
        return given

    def plan(self) -> str:
        given = self.text("MIGRATION_PLAN") or "unified"
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", given):
            raise SettingError(
                "MIGRATION_PLAN", "must be the name of a plan.", remedy="`briefly-admin plans` lists them."
            )
        return given

    def _url(self, name: str, embedded: Mapping[str, str] | None) -> str:
        found = self.text(name) or (embedded or {}).get(name)
        if not found:
            raise SettingError(
                name, "is not set, and no embedded server runs here.", remedy="Set it, or start `make run` first."
            )
        return found

    def database(self, name: str, embedded: Mapping[str, str] | None) -> str:
        """A libpq URL. What libpq says of a bad one is not shown: it may hold the password."""
        scheme, separator, rest = self._url(name, embedded).partition("://")
        if scheme not in ("postgres", "postgresql") or not separator:
            raise SettingError(name, "must be a URL such as postgresql://user:password@host:5432/database.")
        url = f"postgresql://{rest}"
        try:
            parts = conninfo_to_dict(url)
        except psycopg.Error as error:
            raise SettingError(
                name, "cannot be read as a PostgreSQL URL.", remedy="Percent-encode special characters of the password."
            ) from error
        if not parts.get("dbname"):
            raise SettingError(name, "names no database.", remedy="Add one after the host: …@host:5432/database.")
        return url

    def redis(self, embedded: Mapping[str, str] | None) -> str:
        url = self._url("REDIS_URL", embedded)
        if _split("REDIS_URL", url).scheme not in ("redis", "rediss", "unix"):
            raise SettingError("REDIS_URL", "must begin with redis://, rediss:// or unix://.")
        return url

    def secret(self, *names: str, local: Path | None) -> str:
        for name in names:
            given = self.text(name)
            if given is not None:
                if len(given) < SHORTEST_SECRET:
                    raise SettingError(name, f"must have at least {SHORTEST_SECRET} characters.")
                return given
        return self._made(names[0], local, secrets.token_hex(KEY_BYTES))

    def _made(self, name: str, local: Path | None, new: str) -> str:
        if local is None:
            raise SettingError(name, "is required where APP_ENV=production.", remedy=_HOW_TO_MAKE[name])
        try:
            return secret_of_home(local, name.lower(), new)
        except OSError as error:
            raise SettingError(
                "BRIEFLY_HOME", f"{local} cannot be read or written ({error.strerror}).", remedy=f"Or set {name}."
            ) from error

    def base_url(self, default: str) -> str:
        name = "BASE_URL" if self.text("BASE_URL") else "NEXTAUTH_URL"
        given = (self.text(name) or default).rstrip("/")
        parts = _split(name, given)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise SettingError(name, "must be a URL such as https://admin.example.com, without query and fragment.")
        return given

    def store(self, home: Path) -> str:
        given = self.text("BACKUP_STORE_URL") or f"file://{quote(str(home / 'backups'))}"
        check_url(given)
        return given

    def backup_keys(self, local: Path | None) -> tuple[tuple[str, bytes], ...]:
        """`id:base64,…`; the keys themselves never get into a message."""
        given = self.text("BACKUP_KEYS")
        if given is None:
            fresh = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
            given = self._made("BACKUP_KEYS", local, f"local-1:{fresh}")
        return tuple(MasterKeys.parse(given).items())

    def email(self, name: str) -> str | None:
        given = self.text(name)
        if given is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+", given):
            raise SettingError(name, "must be an e-mail address.")
        return given

    def password(self, name: str) -> str | None:
        given = self._environ.get(name) or None
        if given is not None and len(given) < SHORTEST_PASSWORD:
            raise SettingError(name, f"must have at least {SHORTEST_PASSWORD} characters.")
        return given


_HOW_TO_MAKE = {
    "SECRET_KEY": "Make one: openssl rand -hex 32",
    "AUDIT_KEY": "Make one: openssl rand -hex 32",
    "BACKUP_KEYS": "Make one: echo key-1:$(openssl rand -base64 32)",
}


def _split(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise SettingError(name, "is not a URL.") from error
    return parts
