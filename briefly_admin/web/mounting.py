"""Where the program stands: behind proxies, below a path, and its static files with names that never go stale."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flask import Flask, Response, request, send_from_directory
from werkzeug.middleware.proxy_fix import ProxyFix

from briefly_admin.services.access import public

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_YEAR: Final = 31_536_000


class Mounted:
    """WSGI: the program below a path, whether or not the proxy before it takes the path away."""

    def __init__(self, application: "WSGIApplication", root: str) -> None:
        self._application = application
        self._root = root

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Move the path from PATH_INFO to SCRIPT_NAME."""
        path = environ.get("PATH_INFO", "")
        environ["SCRIPT_NAME"] = self._root
        if path == self._root or path.startswith(f"{self._root}/"):
            environ["PATH_INFO"] = path[len(self._root) :] or "/"
        return self._application(environ, start_response)


def install(app: Flask, *, base_url: str, trusted_proxies: int, static: Path) -> None:
    """Mount the app at the path of `base_url`, believe so many proxies, serve the directory `static`.

    X-Forwarded-Host is never believed: platforms' routers pass on whatever a client sends.
    """
    root = urlsplit(base_url).path.rstrip("/")
    app.config["APPLICATION_ROOT"] = root or "/"
    if root:
        app.wsgi_app = Mounted(app.wsgi_app, root)  # type: ignore[method-assign] # Flask's documented way
    if trusted_proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=trusted_proxies, x_proto=trusted_proxies, x_host=0)  # type: ignore[method-assign] # likewise
    _serve_static(app, static)


def _serve_static(app: Flask, directory: Path) -> None:
    """/static/…, with `?v=` of the content in every URL we write, so that browsers may keep it for a year."""
    versions: dict[tuple[str, float], str] = {}

    def version(filename: str) -> str:
        path = directory / filename
        try:
            key = (filename, path.stat().st_mtime)
            if key not in versions:
                versions[key] = sha256(path.read_bytes()).hexdigest()[:12]
        except OSError:
            return ""
        return versions[key]

    @public
    def static(filename: str) -> Response:
        response = send_from_directory(directory, filename)
        if request.args.get("v"):
            response.headers["Cache-Control"] = f"public, max-age={_YEAR}, immutable"
        return response

    def add_version(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static" and "v" not in values and (found := version(values.get("filename", ""))):
            values["v"] = found

    app.add_url_rule("/static/<path:filename>", "static", static)
    app.url_defaults(add_version)
