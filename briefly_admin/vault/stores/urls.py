"""BACKUP_STORE_URL taken apart. Nothing here connects to anything, and no message repeats the URL."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from briefly_admin.domain.errors import Refused, SettingError
from briefly_admin.vault.stores.naming import require_key

SETTING: Final = "BACKUP_STORE_URL"
BUCKETS: Final = ("s3", "gs", "az")
REDIS: Final = ("redis", "rediss", "unix")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_KNOWN: Final = (
    "Known are file:///absolute/directory, s3://bucket/prefix, redis://, rediss:// and unix:// "
    "(and, untried, gs://bucket/prefix and az://container/prefix)."
)
_REDIS_OPTIONS: Final = {"db", "ssl_cert_reqs"}


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """`scheme`: s3, gs or az; `prefix` is '' or a key."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def shown(self) -> str:
        """The URL for people."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def split(url: str) -> SplitResult:
    """The URL's parts; the scheme is one that is known. Raises SettingError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise SettingError(SETTING, "is no URL.", remedy=_KNOWN) from error
    if parts.scheme not in {"file", *BUCKETS, *REDIS} or ":" not in url:
        raise SettingError(SETTING, "its scheme is not known.", remedy=_KNOWN)
    return parts


def directory_of(parts: SplitResult) -> Path:
    """The directory of `file:/dir` or `file:///dir`, absolute and percent-encoded. Raises SettingError."""
    remedy = "Write it as file:///absolute/directory."
    if parts.netloc not in {"", "localhost"}:
        raise SettingError(SETTING, "a file: URL names no host.", remedy=remedy)
    if parts.query or parts.fragment:
        raise SettingError(SETTING, "'?' and '#' in a path are written %3F and %23.", remedy=remedy)
    path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise SettingError(SETTING, "the directory must be absolute.", remedy=remedy)
    return Path(path)


def bucket_of(parts: SplitResult) -> BucketUrl:
    """Bucket and prefix of an s3:, gs: or az: URL. Raises SettingError."""
    remedy = f"Write it as {parts.scheme}://bucket/prefix."
    if parts.query or parts.fragment or "@" in parts.netloc or ":" in parts.netloc:
        raise SettingError(
            SETTING,
            "names a bucket and a prefix alone.",
            remedy=f"{remedy} Credentials, region and endpoint stand in the cloud's variables, such as AWS_REGION.",
        )
    if not _BUCKET.fullmatch(parts.netloc):
        raise SettingError(SETTING, "names no bucket.", remedy=remedy)
    prefix = unquote(parts.path).strip("/")
    try:
        return BucketUrl(parts.scheme, parts.netloc, require_key(prefix) if prefix else "")
    except Refused as error:
        raise SettingError(
            SETTING, "its prefix is made of letters, digits, '.', '_' and '-'.", remedy=remedy
        ) from error


def redis_of(parts: SplitResult) -> str:
    """The server's name for people, without password, of a redis:, rediss: or unix: URL. Raises SettingError."""
    options = parse_qsl(parts.query, keep_blank_values=True)
    if parts.fragment or any(name not in _REDIS_OPTIONS for name, _ in options):
        raise SettingError(SETTING, "has options that are not known.", remedy="Known are ?db= and ?ssl_cert_reqs=.")
    if parts.scheme == "unix":
        if not parts.path.startswith("/"):
            raise SettingError(SETTING, "names no socket.", remedy="Write it as unix:///path/to/socket?db=0.")
    elif not parts.hostname:
        raise SettingError(SETTING, "names no server.", remedy="Write it as redis://host:port/database.")
    database = dict(options).get("db", "" if parts.scheme == "unix" else parts.path.strip("/"))
    if database and not database.isdecimal():
        raise SettingError(SETTING, "names no database.", remedy="Redis numbers them: 0, 1, …")
    place = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"
    return f"{parts.scheme}://{place}" + (f", database {database}" if database else "")
