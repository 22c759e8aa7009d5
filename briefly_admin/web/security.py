"""The outer door: access by declared permission, CSRF, and the headers that every answer carries."""

import re
import time
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from flask import Flask, Response, current_app, g, request
from flask_wtf.csrf import CSRFError, CSRFProtect

from briefly_admin.domain.errors import NotAllowed, NotAuthenticated
from briefly_admin.domain.permissions import Actor
from briefly_admin.services.access import PUBLIC, access_of
from briefly_admin.services.auditing import require
from briefly_admin.web.identity import identify

_log = structlog.get_logger("briefly.http")
_SAFE: Final = frozenset({"GET", "HEAD"})
_QUIET: Final = frozenset({"static", "health.healthz", "health.readyz"})
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{8,64}")
_csrf: Final = CSRFProtect()
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}  # fmt: skip
_HSTS: Final = "max-age=31536000"


def install(app: Flask, base_url: str) -> None:
    """Guard every route of the app; forms from `base_url`'s origin count as our own, behind whatever proxy."""
    # Ours is asked after the credentials; a token lives as long as the form's cookie.
    app.config.update(
        WTF_CSRF_CHECK_DEFAULT=False, WTF_CSRF_TIME_LIMIT=None, WTF_CSRF_SSL_STRICT=False, BASE_ORIGIN=_origin(base_url)
    )
    _csrf.init_app(app)
    app.before_request(_begin)
    app.before_request(guard)
    app.after_request(_finish)


def guard() -> None:
    """Default deny. Raises NotAuthenticated, NotAllowed, CSRFError; then the view may look at `g.actor`."""
    g.actor = g.session = None
    g.by_bearer = False
    if request.url_rule is None:
        return
    access = access_of(current_app.view_functions[request.endpoint or ""], request.method)
    if access is None:
        raise NotAllowed("Nobody may use this address: it declares no permission.")
    if access is not PUBLIC:
        require(_somebody(), access)
    if request.method not in _SAFE and not g.by_bearer:
        _refuse_foreign_origin()
        _csrf.protect()


def _somebody() -> Actor:
    actor = identify()
    if actor is None:
        raise NotAuthenticated(
            "This needs somebody signed in, or a token.", remedy="Sign in, or send `Authorization: Bearer TOKEN`."
        )
    structlog.contextvars.bind_contextvars(actor=actor.name)
    return actor


def _refuse_foreign_origin() -> None:
    """Beside the token: browsers say truly where a request comes from."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
        raise CSRFError("The request comes from another site.")
    origin = request.headers.get("Origin")
    if origin is not None and origin not in {request.host_url.rstrip("/"), current_app.config["BASE_ORIGIN"]}:
        raise CSRFError("The request comes from another origin.")


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    g.begun = time.monotonic()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _finish(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = _HSTS
    if request.endpoint != "static":
        # Back and forward buttons must not show what only somebody signed in may see.
        response.headers["Cache-Control"] = "no-store"
        response.vary.update(["HX-Request", "Cookie"])
    response.headers["X-Request-ID"] = g.get("request_id", "")
    if request.endpoint not in _QUIET:
        took = round((time.monotonic() - g.get("begun", time.monotonic())) * 1000)
        _log.info("request", method=request.method, path=request.path, status=response.status_code, ms=took)
    return response


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
