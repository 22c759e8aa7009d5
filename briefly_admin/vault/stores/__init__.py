"""Where sealed backups stand: one port (`domain.ports.BlobStore`), opened by URL."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from briefly_admin.domain.errors import SettingError
from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault.stores.directory import DirectoryStore

_SETTING = "BACKUP_STORE_URL"


def open_store(url: str, *, redis_max_bytes: int = 256 << 20, lifetime: float = 86400.0) -> BlobStore:  # noqa: ARG001 - the signature all use; Redis reads them
    """The store that `url` names: `file:/dir` or `file:///dir`, absolute and percent-encoded. Raises SettingError.

    Nothing is made or written until something is put.
    """
    remedy = "Write it as file:///absolute/directory."
    scheme, colon, _ = url.partition(":")
    if not colon or scheme.lower() != "file":
        raise SettingError(_SETTING, "only file: stores are known.", remedy=remedy)
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise SettingError(_SETTING, "a file: URL names no host.", remedy=remedy)
    if parts.query or parts.fragment:
        raise SettingError(_SETTING, "'?' and '#' in a path are written %3F and %23.", remedy=remedy)
    path = unquote(parts.path)
    if not path.startswith("/") or "\0" in path:
        raise SettingError(_SETTING, "the directory must be absolute.", remedy=remedy)
    return DirectoryStore(Path(path))


def check_url(url: str) -> None:
    """Raises SettingError where `open_store` would; nothing connects."""
    open_store(url)
