"""Whether this process lives, and whether the whole is ready: for platforms and monitors, without details."""

import time
from typing import Final

from flask import Blueprint, current_app, jsonify
from flask.typing import ResponseReturnValue

from briefly_admin.services.access import public
from briefly_admin.services.readiness import unready
from briefly_admin.web.identity import services

blueprint: Final = Blueprint("health", __name__)
_ANSWER_SECONDS: Final = 2.0
"""An answer is given again for so long: everybody may ask, and each look costs connections."""


@blueprint.get("/healthz")
@public
def healthz() -> ResponseReturnValue:
    """Whether this process answers."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
@public
def readyz() -> ResponseReturnValue:
    """200, or 503 with one word: app_database, target_database, redis or worker."""
    reason = _reason()
    if reason:
        return jsonify({"status": "unavailable", "reason": reason}), 503, {"Retry-After": "5"}
    return jsonify({"status": "ready"})


def _reason() -> str:
    """From the last look if it is fresh, else from a new one."""
    at, reason = current_app.extensions.get("briefly.ready", (-_ANSWER_SECONDS, ""))
    if time.monotonic() - at >= _ANSWER_SECONDS:
        reason = unready(services().servers)
        current_app.extensions["briefly.ready"] = (time.monotonic(), reason)
    return str(reason)
