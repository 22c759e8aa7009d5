"""A bucket's client, with limits for every request: a store that hangs or fails is unavailable, not waited for."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from briefly_admin.domain.errors import SettingError
from briefly_admin.vault.stores.buckets import BucketStore
from briefly_admin.vault.stores.urls import SETTING, BucketUrl

if TYPE_CHECKING:
    from obstore.store import RetryConfig


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for one request and its answer, for connecting, and after which a failing one is not tried again."""

    request: float = 20.0
    connect: float = 5.0
    patience: float = 10.0
    retries: int = 5


_LIMITS: Final = Limits()


def open_bucket(url: BucketUrl, limits: Limits = _LIMITS) -> BucketStore:
    """The store in that bucket; nothing is connected to yet.

    Raises SettingError where the library lacks something in the environment or finds it malformed.
    """
    # Given flat, beside the cloud's own options: `client_options` would hide AWS_ALLOW_HTTP of the environment.
    options: dict[str, Any] = {"timeout": _span(limits.request), "connect_timeout": _span(limits.connect)}
    retry: RetryConfig = {
        "max_retries": limits.retries,
        "retry_timeout": timedelta(seconds=limits.patience),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
    }
    prefix = url.prefix or None
    try:
        if url.scheme == "s3":
            # One DELETE an object: not every server of the protocol knows the request that deletes many.
            options |= {"copy_if_not_exists": "multipart", "disable_bulk_delete": True}
            return BucketStore(S3Store(url.bucket, prefix=prefix, retry_config=retry, **options), url.shown)
        if url.scheme == "gs":
            return BucketStore(GCSStore(url.bucket, prefix=prefix, retry_config=retry, **options), url.shown)
        return BucketStore(AzureStore(url.bucket, prefix=prefix, retry_config=retry, **options), url.shown)
    except (BaseError, ValueError, OSError) as error:
        raise SettingError(
            SETTING,
            f"{url.shown} cannot be used: {type(error).__name__}.",
            remedy="Check the cloud's variables: region, endpoint, account and credentials.",
        ) from error


def _span(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
