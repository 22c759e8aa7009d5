"""Errors below /api, in the envelope."""

from typing import Protocol

from flask import Response

from briefly_admin.api.answers import failure


class Failure(Protocol):
    """An error in words, as the app's error handler gives it."""

    @property
    def status(self) -> int:
        """HTTP's."""

    @property
    def code(self) -> str:
        """A short stable word."""

    @property
    def message(self) -> str:
        """What is wrong."""

    @property
    def remedy(self) -> str:
        """What to do, or ''."""

    @property
    def details(self) -> dict[str, list[str]]:
        """Field by field."""

    @property
    def headers(self) -> dict[str, str]:
        """Such as Retry-After."""


def answer_error(error: Failure) -> Response:
    """The envelope of an error; the remedy stands in its message."""
    response = failure(error.status, error.code, f"{error.message} {error.remedy}".strip(), error.details)
    response.headers.update(error.headers)
    return response
