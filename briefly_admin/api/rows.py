"""Single rows below /api/v1: look, try a correction, correct, leave alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flask import Response, g

from briefly_admin.api import examples
from briefly_admin.api.answers import success
from briefly_admin.api.requests import Blueprint, services
from briefly_admin.api.row_schemas import (
    CheckRequest,
    CorrectRequest,
    RowAnswer,
    RowQuery,
    SkipAnswer,
    SkipRequest,
    UnskipRequest,
)
from briefly_admin.api.schemas import Failure
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.exporting import row_json

blueprint: Final = Blueprint("rows-v1", __name__, url_prefix="/api/v1/rows", description="Single rows, and their cure.")
_NO_ROW: Final = "There is no such table in the plan, or no such row."
_BUSY: Final = "A run holds the target, or the row is another one than was shown."
_AWAY: Final = "The target does not answer."


@blueprint.route("/<table>", methods=["GET"])
@requires(Permission.READ)
@blueprint.arguments(RowQuery, location="query", unknown=None)
@blueprint.response(200, RowAnswer, example=examples.ROW)
@blueprint.alt_response(404, schema=Failure, description=_NO_ROW)
@blueprint.alt_response(503, schema=Failure, description=_AWAY)
def get_row(query: Mapping[str, Any], table: str) -> Response:
    """A row with everything that is wrong with it; values of secret columns are not told."""
    row = services().rows.get(g.actor, table, query["key"])
    return success(row_json(row) | {"skipped": services().rows.skipped(g.actor, row.table, row.key) or None})


@blueprint.route("/<table>/check", methods=["POST"])
@requires(Permission.CORRECT)
@blueprint.arguments(CheckRequest, example=examples.CHECK)
@blueprint.response(200, RowAnswer)
@blueprint.alt_response(404, schema=Failure, description=_NO_ROW)
@blueprint.alt_response(503, schema=Failure, description=_AWAY)
def check_row(body: Mapping[str, Any], table: str) -> Response:
    """What the row would be with these changes, and what would be wrong with it. Nothing is written."""
    return success(row_json(services().rows.check(g.actor, table, body["key"], body["changes"])))


@blueprint.route("/<table>/correct", methods=["POST"])
@requires(Permission.CORRECT)
@blueprint.arguments(CorrectRequest, example=examples.CORRECT)
@blueprint.response(200, RowAnswer)
@blueprint.alt_response(404, schema=Failure, description=_NO_ROW)
@blueprint.alt_response(409, schema=Failure, description=_BUSY)
@blueprint.alt_response(503, schema=Failure, description=_AWAY)
def correct_row(body: Mapping[str, Any], table: str) -> Response:
    """Change the row, as one transaction with its record, if it still is the one of `version`.

    The changed columns must be right afterwards: a fault of theirs is answered 400 under the column's name. Faults of
    other columns may stay, and stand in the answer.
    """
    found = services().rows.correct(
        g.actor, table, body["key"], version=body["version"], changes=body["changes"]
    )  # fmt: skip
    return success(row_json(found), f"The row of {table} is corrected.")


@blueprint.route("/<table>/skip", methods=["POST"])
@requires(Permission.CORRECT)
@blueprint.arguments(SkipRequest, example=examples.SKIP)
@blueprint.response(200, SkipAnswer)
@blueprint.alt_response(404, schema=Failure, description=_NO_ROW)
@blueprint.alt_response(503, schema=Failure, description=_AWAY)
def skip_row(body: Mapping[str, Any], table: str) -> Response:
    """Leave the row alone from now on: it blocks nothing, and no migration or replay touches it."""
    services().rows.skip(g.actor, table, body["key"], reason=body["reason"])
    return _skipped(table, body["key"], body["reason"], "The row is left alone from now on.")


@blueprint.route("/<table>/unskip", methods=["POST"])
@requires(Permission.CORRECT)
@blueprint.arguments(UnskipRequest, example=examples.UNSKIP)
@blueprint.response(200, SkipAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such table, or the row is not left alone.")
@blueprint.alt_response(503, schema=Failure, description=_AWAY)
def unskip_row(body: Mapping[str, Any], table: str) -> Response:
    """Treat the row as others again."""
    services().rows.unskip(g.actor, table, body["key"])
    return _skipped(table, body["key"], None, "The row is treated as others again.")


def _skipped(table: str, key: Sequence[str], reason: str | None, message: str) -> Response:
    return success({"table": table, "key": list(key), "skipped": reason}, message)
