"""Connections to Redis or Valkey, and the one serializer that every client uses."""

from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.serializers import JSONSerializer

QUEUE: Final = "briefly"
SERIALIZER: Final = JSONSerializer


def connect(url: str, *, timeout: float | None = None) -> "Redis":
    """A client for `url`; `timeout` seconds for each answer (None: as long as it takes, for a worker's blocking pop).

    Platforms hand out `rediss://` with self-signed certificates: the channel is encrypted, the peer not proven.
    """
    options: dict[str, object] = {"socket_connect_timeout": timeout or 5, "health_check_interval": 30}
    if timeout:
        options |= {"socket_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
    if url.startswith("rediss:"):
        options["ssl_cert_reqs"] = "none"
    return Redis.from_url(url, **options)
