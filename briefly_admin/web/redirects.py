"""Where to go next: only ever a path of our own."""

import re
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from flask import Response, flash, make_response, redirect, url_for
from htmx_flask import make_response as make_htmx_response
from htmx_flask import request

_NOT_IN_A_PATH: Final = re.compile(r"[\x00-\x20\x7f-\x9f\\]")


def local_path(text: str | None, root: str) -> str | None:
    r"""`text` if it is a path below `root` ('' or '/briefly') on this very host, else None.

    Browsers read '//x', '/\x' and a path with a tab or line break in it as another host.
    """
    if not text or not text.startswith("/"):
        return None
    decoded = unquote(unquote(text))
    if any(part.startswith("//") or _NOT_IN_A_PATH.search(part.replace(" ", "")) for part in (text, decoded)):
        return None
    parts = urlsplit(text)
    if parts.scheme or parts.netloc or {".", ".."} & set(decoded.split("?")[0].split("/")):
        return None
    return text if not root or parts.path == root or parts.path.startswith(f"{root}/") else None


def home() -> str:
    """The overview's path."""
    return f"{request.script_root}/"


def asked_by_htmx() -> bool:
    """Whether a script of the page asks, which cannot follow a redirect to another page."""
    return bool(request.htmx)


def go(path: str) -> Response:
    """Lead the browser to a path of ours, whether it asked itself or htmx did."""
    if asked_by_htmx():
        led: Response = make_htmx_response("", 200, redirect=path)
        return led
    return make_response(redirect(path, code=303))


def to_sign_in() -> Response:
    """Lead to the sign-in page, which leads back to where one was; says so if a form was sent in vain."""
    wanted = _where_one_was()
    if request.method != "GET" and wanted:
        flash("You were signed out before this was sent, so nothing was done. Sign in, then send it again.", "warning")
    path = url_for("session.sign_in") + (f"?next={quote(wanted)}" if wanted and wanted != home() else "")
    if asked_by_htmx():
        led: Response = make_htmx_response("", 401, redirect=path)
        return led
    return make_response(redirect(path, code=303))


def _where_one_was() -> str | None:
    if asked_by_htmx():
        current = urlsplit(request.htmx.current_url or "")
        path = current.path + (f"?{current.query}" if current.query else "")
    elif request.method == "GET":
        path = request.script_root + request.full_path.rstrip("?")
    else:
        path = _page_of_the_form()
    return local_path(path, request.script_root)


def _page_of_the_form() -> str:
    """The page of ours that a form was sent from, or ''."""
    page = urlsplit(request.referrer or "")
    if page.netloc != request.host:
        return ""
    return page.path + (f"?{page.query}" if page.query else "")
