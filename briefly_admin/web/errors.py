"""Every error as an answer: pages get a page, /api gets its envelope; nobody gets a traceback."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from flask import Flask, Response, g, make_response, render_template, request
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError

from briefly_admin.domain.errors import BrieflyError, NotAuthenticated, TooManyRequests
from briefly_admin.web.redirects import home, to_sign_in

_log = structlog.get_logger("briefly.http")
_HEADERS: Final = ("Allow", "Retry-After")
_TITLES: Final = {
    400: "This could not be understood",
    403: "Not allowed",
    404: "There is no such page",
    405: "Not possible here",
    409: "Not now",
    413: "Too large",
    429: "Too many tries",
    500: "Something went wrong",
    503: "A server does not answer",
}
_TEXTS: Final = {
    404: ("There is nothing at this address, or not any more.", ""),
    405: ("This address does not take requests of this method.", ""),
    413: ("More than 1 MiB was sent.", "Send less at once."),
    429: ("More requests came within a minute than are taken.", "Wait, then try again."),
    500: ("It was logged; more could hold data, and is not shown.", "Try again, then ask whoever runs this server."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """An error in words, ready to be shown to people or programs."""

    status: int
    code: str
    message: str
    remedy: str
    details: dict[str, list[str]]
    headers: dict[str, str]


ApiAnswer = Callable[[Failure], Response]


def install(app: Flask, api_answer: ApiAnswer) -> None:
    """Answer errors: those below /api by `api_answer`, the others with a page."""

    def answer(error: Exception) -> ResponseReturnValue:
        if isinstance(error, HTTPException) and (error.code or 500) < 400:  # noqa: PLR2004 - a redirect of the router
            return error.get_response()
        failure = _failure(error)
        if request.path.startswith("/api/") and request.path != "/api/docs":
            return api_answer(failure)
        if isinstance(error, NotAuthenticated):
            return to_sign_in()
        return page(failure)

    for kind in (BrieflyError, HTTPException, Exception):
        app.register_error_handler(kind, answer)


def page(failure: Failure) -> Response:
    """The error as a page."""
    html = render_template(
        "errors/error.html", code=failure.status, title=_TITLES.get(failure.status, "This did not work"),
        message=failure.message, remedy=failure.remedy, home_url=home(), request_id=g.get("request_id", ""),
    )  # fmt: skip
    return make_response(html, failure.status, failure.headers)


def _failure(error: Exception) -> Failure:
    if isinstance(error, BrieflyError):
        return _of_ours(error)
    if isinstance(error, CSRFError):
        return Failure(
            400, "csrf_failed", "This form is too old, or was not sent by a page of this program.",
            "Reload the page and try again; scripts send a bearer token instead.", {}, {},
        )  # fmt: skip
    if isinstance(error, HTTPException) and not isinstance(error, InternalServerError):
        return _of_http(error)
    _log.error("unexpected error", exc_info=error, request_id=g.get("request_id"))
    message, remedy = _TEXTS[500]
    return Failure(500, "internal_error", message, remedy, {}, {})


def _of_ours(error: BrieflyError) -> Failure:
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TooManyRequests) else {}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="Briefly Admin"'
    details: dict[str, list[str]] = {field: list(texts) for field, texts in getattr(error, "details", {}).items()}
    if getattr(error, "run_id", ""):
        details["id"] = [error.run_id]  # type: ignore[attr-defined] # Busy's, asked for above
    if getattr(error, "damages", ()):
        details["damages"] = list(error.damages)  # type: ignore[attr-defined] # BackupDamaged's, likewise
    return Failure(error.http_status, error.code, error.message, error.remedy, details, headers)


def _of_http(error: HTTPException) -> Failure:
    status = error.code or 500
    message, remedy = _TEXTS.get(status, (error.description or error.name, ""))
    headers = {name: value for name, value in error.get_response().headers.items() if name in _HEADERS}
    return Failure(status, error.name.lower().replace(" ", "_"), message, remedy, {}, headers)
