"""A generous limit on requests below /api, counted in Redis by all processes, in memory while Redis is away."""

import math
import time
from typing import Any, Final

from flask import Flask, Response, request
from flask_limiter import Limiter, RequestLimit

PER_MINUTE: Final = 1200
_SECONDS: Final = 1


def install(app: Flask, redis_url: str) -> None:
    """Count requests by address, before their credentials are looked at. Beyond the limit: 429 with Retry-After."""
    options: dict[str, Any] = {"socket_connect_timeout": _SECONDS, "socket_timeout": _SECONDS}
    if redis_url.startswith("rediss:"):
        options["ssl_cert_reqs"] = "none"
    limiter = Limiter(
        _who,
        application_limits=[lambda: f"{app.config['API_REQUESTS_PER_MINUTE']} per minute"],
        application_limits_exempt_when=lambda: not request.path.startswith("/api/"),
        storage_uri=f"redis+{redis_url}" if redis_url.startswith("unix:") else redis_url,
        storage_options=options,
        strategy="fixed-window",
        key_prefix="briefly",
        on_breach=_wait,
        in_memory_fallback_enabled=True,
    )
    app.config.setdefault("API_REQUESTS_PER_MINUTE", PER_MINUTE)
    limiter.init_app(app)


def _wait(limit: RequestLimit) -> Response:
    """What the error handler takes Retry-After from."""
    return Response(headers={"Retry-After": str(max(1, math.ceil(limit.reset_at - time.time())))})


def _who() -> str:
    return f"address:{request.remote_addr}"
