"""Where sealed backups stand: one port (`domain.ports.BlobStore`), opened by URL.

file:///directory                 `directory`: fsynced, for its owner alone
s3://bucket/prefix                `buckets`: tried against a server of the S3 protocol
gs://bucket/prefix, az://…        `buckets`: they come with the library and are untried
redis:// rediss:// unix://        `redis`: for small data, on a server that forgets nothing
"""

from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault.stores import urls
from briefly_admin.vault.stores.directory import DirectoryStore


def check_url(url: str) -> None:
    """Raises SettingError unless `open_store` would take the URL; connects to nothing."""
    parts = urls.split(url)
    if parts.scheme in urls.BUCKETS:
        urls.bucket_of(parts)
    elif parts.scheme in urls.REDIS:
        urls.redis_of(parts)
    else:
        urls.directory_of(parts)


def open_store(url: str, *, redis_max_bytes: int = 256 << 20, lifetime: float = 86400.0) -> BlobStore:
    """The store that `url` names. Raises SettingError.

    `redis_max_bytes`: what all objects may take together in Redis; `lifetime`: seconds that they stay there unless
    they are kept longer. Nothing is made, written or connected to until the store is used.
    """
    parts = urls.split(url)
    if parts.scheme in urls.BUCKETS:
        # Imported where it is needed: the library brings a runtime of its own.
        from briefly_admin.vault.stores.opening import open_bucket

        return open_bucket(urls.bucket_of(parts))
    if parts.scheme in urls.REDIS:
        from briefly_admin.vault.stores.redis import RedisStore

        return RedisStore(url, urls.redis_of(parts), max_bytes=redis_max_bytes, lifetime=lifetime)
    return DirectoryStore(urls.directory_of(parts))
