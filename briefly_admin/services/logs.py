"""Structured logs on standard error, through one processor that takes secrets out."""

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from briefly_admin.domain.errors import BrieflyError

HIDDEN: Final = "[hidden]"
_SECRET_NAME: Final = re.compile(
    r"password|secret|token|authorization|cookie|api_?key|\bkey\b|_key$|dsn|database_url|redis_url|session",
    re.IGNORECASE,
)
_CREDENTIALS: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^\s/@'\"]*@", re.IGNORECASE)
_BEARER: Final = re.compile(r"\bbearer\s+\S+|\bbra_[A-Za-z0-9_-]+", re.IGNORECASE)
_HARMLESS: Final = (BrieflyError, AttributeError, NameError, TypeError, ImportError, OSError)
_MOST_CAUSES: Final = 10
_LIBPQ: Final = re.compile(r"\bpassword=('[^']*'|\S+)", re.IGNORECASE)


def hide(text: str) -> str:
    """The text without credentials in URLs, bearer tokens and libpq passwords."""
    text = _CREDENTIALS.sub(rf"\g<scheme>{HIDDEN}@", text)
    return _LIBPQ.sub(f"password={HIDDEN}", _BEARER.sub(HIDDEN, text))


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict) and depth < 4:  # noqa: PLR2004 - deeper than any log line of ours
        return {k: HIDDEN if _SECRET_NAME.search(str(k)) else _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and depth < 4:  # noqa: PLR2004 - as above
        return [_clean(v, depth + 1) for v in value]
    return value


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor: hides values by their names, and credentials inside texts."""
    return {k: HIDDEN if v and _SECRET_NAME.search(k) else _clean(v) for k, v in event.items()}


def _traceback(exc_info: structlog.typing.ExcInfo) -> str:
    """Where an exception came from and of what type it and its causes are.

    What it says is kept only where it is ours or about code: other texts can hold the rows of tenants, as those of a
    database or of a value that could not be read do.
    """
    parts: list[str] = []
    error: BaseException | None = exc_info[1]
    while error is not None and len(parts) < _MOST_CAUSES:
        state = getattr(error, "sqlstate", None)
        said = f": {error}" if isinstance(error, _HARMLESS) else f" (SQLSTATE {state})" if state else ""
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.append(f"{frames}{type(error).__module__}.{type(error).__qualname__}{said}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\ncaused the one below:\n\n".join(reversed(parts))


_TELL_EXCEPTION: Final = structlog.processors.ExceptionRenderer(_traceback)


def configure(level: str) -> None:
    """Send structlog's and the standard library's logs to standard error as JSON lines, redacted, from `level` up."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _TELL_EXCEPTION,
        redact,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
