"""Who asks: the session of the cookie, or over /api the bearer of a token. `g.actor` is an Actor or None."""

import ipaddress
from typing import Final

from flask import Flask, Request, Response, current_app, g, request
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin, current_user

from briefly_admin.domain.errors import NotAuthenticated
from briefly_admin.domain.permissions import Actor
from briefly_admin.services import Services
from briefly_admin.services.access import is_polled
from briefly_admin.services.views import SessionView

API: Final = "/api/"
_SESSION: Final = "briefly"
_FORM: Final = "briefly-form"


class Visitor(UserMixin):
    """Flask-Login's user: somebody with a living session."""

    def __init__(self, session: SessionView) -> None:
        self.session = session

    def get_id(self) -> str:
        """The person's id."""
        return self.session.admin.id


class FormState(SecureCookieSessionInterface):
    """Flask's own signed cookie: the CSRF secret and messages of the last action, nothing that signs anybody in."""

    def get_cookie_name(self, app: Flask) -> str:  # noqa: ARG002 - the interface's signature
        """As the session's cookie, so that no other site of the domain can plant one."""
        return cookie_name(_FORM)

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - the interface's signature
        """Over https alone, where that is spoken."""
        return request.is_secure

    def get_cookie_path(self, app: Flask) -> str:  # noqa: ARG002 - the interface's signature
        """Where the program is mounted."""
        return request.script_root or "/"


def services() -> Services:
    """The services of this app."""
    found: Services = current_app.extensions["briefly"]
    return found


def install(app: Flask) -> None:
    """Make Flask-Login ask us."""
    app.session_interface = FormState()
    # Flask-Login's own "remember me" is not used; another program on this host may have set its cookie.
    app.config.update(
        SESSION_COOKIE_HTTPONLY=True, SESSION_COOKIE_SAMESITE="Lax", SESSION_PROTECTION=None,
        REMEMBER_COOKIE_NAME="__Host-briefly-unused",
    )  # fmt: skip
    manager = LoginManager()
    # Templates do not ask who is signed in: an error page must show also where that cannot be found out.
    manager.init_app(app, add_context_processor=False)
    manager.request_loader(_load)
    app.after_request(_send_renewed)


def identify() -> Actor | None:
    """Find out who asks, and keep it in `g.actor`, `g.session` (a page's) and `g.by_bearer`.

    A request with an Authorization header over /api is judged by it alone: its cookies do not count.
    Raises NotAuthenticated for a token that is not good.
    """
    g.session = None
    g.by_bearer = request.path.startswith(API) and "Authorization" in request.headers
    if g.by_bearer:
        g.actor = _bearer()
    else:
        visitor = current_user._get_current_object()  # noqa: SLF001 - werkzeug's way from the proxy to the thing
        g.session = visitor.session if isinstance(visitor, Visitor) else None
        g.actor = g.session.actor if g.session else None
    actor: Actor | None = g.actor
    return actor


def confidential() -> bool:
    """Whether nobody on the way reads along: https, or this very machine."""
    if request.is_secure:
        return True
    name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def cookie_name(base: str) -> str:
    """With the prefix that makes browsers take the cookie only from this host, over https, for this path."""
    if not request.is_secure:
        return base
    return f"__Secure-{base}" if request.script_root else f"__Host-{base}"


def session_token() -> str | None:
    """The token in the session's cookie."""
    return request.cookies.get(cookie_name(_SESSION)) if confidential() else None


def keep_session(response: Response, token: str) -> None:
    """Put a session's token into the cookie; it ends with the browser, or earlier by the services' clocks."""
    response.set_cookie(
        cookie_name(_SESSION), token, secure=request.is_secure, httponly=True, samesite="Lax",
        path=request.script_root or "/",
    )  # fmt: skip


def forget_session(response: Response) -> None:
    """Remove the cookie."""
    response.delete_cookie(
        cookie_name(_SESSION), path=request.script_root or "/", secure=request.is_secure, httponly=True, samesite="Lax"
    )


def renew_session() -> None:
    """A new token for the session at the use of a privilege: a token seen before is worth nothing. Pages call it."""
    token = session_token()
    if token and g.get("session"):
        g.renewed_token = services().sessions.rotate(token)


def _send_renewed(response: Response) -> Response:
    token = g.pop("renewed_token", None)
    if token:
        keep_session(response, token)
    return response


def address() -> str:
    """The client's address, as far as trusted proxies tell."""
    return request.remote_addr or ""


def _load(_: Request) -> Visitor | None:
    token = session_token()
    if not token:
        return None
    found = services().sessions.resolve(token, touch=not _is_poll(), address=address())
    return Visitor(found) if found else None


def _is_poll() -> bool:
    view = current_app.view_functions.get(request.endpoint or "")
    return request.path.endswith("/progress") or (view is not None and is_polled(view, request.method))


def _bearer() -> Actor:
    scheme, _, token = request.headers["Authorization"].partition(" ")
    actor = services().tokens.resolve(token.strip(), address()) if scheme.lower() == "bearer" else None
    if actor is None:
        raise NotAuthenticated(
            "The token is unknown, expired or revoked, or its owner was disabled.",
            remedy="Send `Authorization: Bearer TOKEN` with a token of `briefly-admin token create`.",
        )
    return actor
