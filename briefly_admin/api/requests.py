"""Reading requests: JSON and nothing else, checked by marshmallow, every fault named by its field."""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn, cast

from flask import Request, current_app, request
from flask_smorest import Blueprint as SmorestBlueprint
from marshmallow import Schema, ValidationError
from marshmallow.exceptions import SCHEMA
from webargs.core import missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.services import Services

_CONFIG: Final = "config"


class StrictParser(FlaskParser):
    """Bodies must be JSON objects sent as JSON; faults are 400, as InvalidRequest."""

    DEFAULT_VALIDATION_STATUS = 400

    def load_json(self, req: Request, schema: Schema) -> Any:  # noqa: ARG002 - webargs' signature
        """The body; an empty one is an empty object. Raises InvalidRequest, or what becomes 413 and 415."""
        body = req.get_data(cache=True)
        if req.content_length is None and len(body) >= (req.max_content_length or sys.maxsize):
            # A body that does not say its length is cut off at the limit, without an error.
            raise RequestEntityTooLarge
        if not body.strip():
            return missing
        if not req.is_json:
            raise UnsupportedMediaType("The body must be sent with `Content-Type: application/json`.")
        data = _parsed(body)
        if not isinstance(data, dict):
            raise InvalidRequest("The body must be a JSON object.", remedy='Such as {"action": "status"}.')
        return data

    def handle_error(
        self,
        error: ValidationError,
        req: Request,  # noqa: ARG002 - webargs' signature
        schema: Schema,  # noqa: ARG002 - likewise
        *,
        error_status_code: int | None,  # noqa: ARG002 - likewise
        error_headers: Mapping[str, str] | None,  # noqa: ARG002 - likewise
    ) -> NoReturn:
        """Turn marshmallow's messages into InvalidRequest."""
        messages = error.messages
        details = flat(next(iter(messages.values()), {}) if isinstance(messages, dict) else messages)
        texts = "; ".join(f"{field}: {' '.join(faults)}" for field, faults in details.items())
        raise InvalidRequest(f"The request is not valid: {texts}", details=details) from None


class Blueprint(SmorestBlueprint):
    """Flask-smorest's, with our parser."""

    ARGUMENTS_PARSER = StrictParser()


def flat(messages: Any, prefix: str = "") -> dict[str, list[str]]:
    """Nested messages under dotted names; a field of the config under its own name, as the services name it."""
    if isinstance(messages, dict):
        found: dict[str, list[str]] = {}
        for name, inner in messages.items():
            found |= flat(inner, _dotted(prefix, str(name)))
        return found
    return {prefix: [str(text) for text in messages]}


def _dotted(prefix: str, name: str) -> str:
    if name == SCHEMA:
        return prefix
    return name if prefix in {"", _CONFIG} else f"{prefix}.{name}"


def services() -> Services:
    """The services of this app."""
    return cast("Services", current_app.extensions["briefly"])


def idempotency_key() -> str | None:
    """The header that makes a repeated POST start one run."""
    return request.headers.get("Idempotency-Key")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not JSON in UTF-8 that can be read.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a field that stands in it twice is refused, for nobody knows which of the two was meant."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"The request is not valid: {name}: Given twice.", details={name: ["Given twice."]})
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)
