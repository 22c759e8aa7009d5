"""Pages over HTTP."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, g, request
from htmx_flask import Htmx

from briefly_admin import __version__
from briefly_admin.web import errors, identity, mounting, security
from briefly_admin.web.formats import filters
from briefly_admin.web.pages import BLUEPRINTS
from briefly_admin.web.parts import Person, Site, navigation

__all__ = ["install"]


def install(app: Flask, *, base_url: str, trusted_proxies: int, static: Path, api_answer: errors.ApiAnswer) -> None:
    """Put identity, access, errors and all pages into the app; `api_answer` makes the errors below /api."""
    Htmx(app)
    mounting.install(app, base_url=base_url, trusted_proxies=trusted_proxies, static=static)
    identity.install(app)
    security.install(app, base_url)
    errors.install(app, api_answer)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(filters(lambda: datetime.now(UTC)))
    app.context_processor(_context)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)


def _context() -> dict[str, Any]:
    return {"site": _site()}


def _site() -> Site:
    """What the layout shows; of nobody's, where nobody is signed in."""
    root, session = request.script_root, g.get("session")
    if session is None:
        return Site(__version__, home_url=f"{root}/")
    actor = session.actor
    return Site(
        version=__version__,
        home_url=f"{root}/",
        nav=navigation(actor.role, root, request.path),
        person=Person(session.admin.email, actor.role.value, f"{root}/me", f"{root}/sign-out"),
        target=identity.services().servers.target.title,
        idle_seconds=session.idle_left_seconds,
    )
