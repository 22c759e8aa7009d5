"""The JSON endpoints, and the documentation made from their code."""

from typing import Any, Final

from flask import Flask
from flask_smorest import Api

from briefly_admin import __version__
from briefly_admin.api import backups, documentation, findings, fixes, limits, migration, rows, v1
from briefly_admin.api.errors import answer_error
from briefly_admin.api.schemas import Failure

__all__ = ["answer_error", "install"]

_DESCRIPTION: Final = (
    "Send `Authorization: Bearer TOKEN` (`briefly-admin token create`). The endpoints below /api/migration keep the "
    "paths, names and envelope of the older system."
)


class _Api(Api):
    """Flask-smorest's, without its error handler: ours answers for the whole app."""

    ERROR_SCHEMA = Failure

    def _register_error_handlers(self) -> None:
        pass


def install(app: Flask, *, redis_url: str) -> None:
    """Register all endpoints, their documentation and their rate limit."""
    # The order in which things are declared reads best.
    app.json.sort_keys = False  # type: ignore[attr-defined] # of Flask's default provider
    app.config.update(API_TITLE="Briefly Admin", API_VERSION=__version__, OPENAPI_VERSION="3.1.0")
    options: dict[str, Any] = {
        "info": {"description": _DESCRIPTION},
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
        "security": [{"bearer": []}],
    }
    smorest = _Api(app, spec_kwargs=options)
    found = (findings.findings, findings.quarantine, rows.blueprint, fixes.blueprint)
    for blueprint in (migration.blueprint, v1.runs, *found, backups.blueprint):
        smorest.register_blueprint(blueprint)
    app.register_blueprint(documentation.blueprint)
    app.extensions["briefly.openapi"] = smorest.spec
    limits.install(app, redis_url)
