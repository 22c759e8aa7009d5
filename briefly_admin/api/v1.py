"""Runs below /api/v1: what the older system had no endpoint for."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Response, g, url_for

from briefly_admin.api import examples
from briefly_admin.api.answers import run_json, success
from briefly_admin.api.requests import Blueprint, idempotency_key, services
from briefly_admin.api.row_schemas import ReplayRequest
from briefly_admin.api.schemas import Failure, LiveConfigRequest, MigrationStatusAnswer, RunAnswer, ValidationAnswer
from briefly_admin.api.validation import answer_validation
from briefly_admin.domain.errors import NotFound
from briefly_admin.domain.permissions import Permission
from briefly_admin.domain.runs import RunKind
from briefly_admin.services.access import requires

runs: Final = Blueprint("runs-v1", __name__, url_prefix="/api/v1/runs", description="Runs of every kind.")


@runs.route("/<run_id>", methods=["GET"])
@requires(Permission.READ)
@runs.response(200, RunAnswer, example=examples.PREVIEWED)
@runs.alt_response(404, schema=Failure, description="There is no such run.")
def get_run(run_id: str) -> Response:
    """One run, by its id or number, with its phases and its report."""
    return success(run_json(services().runs.get(g.actor, run_id)))


@runs.route("/<run_id>/validation", methods=["GET"])
@requires(Permission.READ)
@runs.response(200, ValidationAnswer)
@runs.response(202, ValidationAnswer, description="Not done yet: ask again.")
@runs.alt_response(404, schema=Failure, description="There is no such validation.")
def get_validation(run_id: str) -> Response:
    """What a validation found, as `POST /api/migration` answers."""
    run = services().runs.get(g.actor, run_id)
    if run.kind is not RunKind.VALIDATION:
        raise NotFound(f"Run {run.number} is no validation.", remedy="Ask /api/v1/runs/<id>.")
    return answer_validation(services(), run.id, seconds=0)


@runs.route("/<run_id>/pause", methods=["POST"])
@requires(Permission.STEER)
@runs.response(200, RunAnswer)
@runs.alt_response(404, schema=Failure, description="There is no such run.")
@runs.alt_response(409, schema=Failure, description="Its state does not allow it.")
def pause(run_id: str) -> Response:
    """Stop after the batches in hand: `pausing`, then `paused`."""
    return success(run_json(services().runs.pause(g.actor, run_id)))


@runs.route("/<run_id>/resume", methods=["POST"])
@requires(Permission.STEER)
@runs.response(200, RunAnswer)
@runs.alt_response(404, schema=Failure, description="There is no such run.")
@runs.alt_response(409, schema=Failure, description="Wrong state, another run began since, or another plan.")
def resume(run_id: str) -> Response:
    """Go on from the last batch, as soon as a worker takes it."""
    return success(run_json(services().runs.resume(g.actor, run_id)))


@runs.route("/<run_id>/approve", methods=["POST"])
@requires(Permission.APPROVE)
@runs.response(200, RunAnswer)
@runs.alt_response(404, schema=Failure, description="There is no such run.")
@runs.alt_response(409, schema=Failure, description="It waits for no approval, waited too long, or is your own.")
def approve(run_id: str) -> Response:
    """Let a run begin that another admin asked for, where `REQUIRE_APPROVAL` is set: it becomes `pending`.

    With the token of an admin: one that `briefly-admin token create` made has no owner, and approves nothing (403).
    """
    return success(run_json(services().runs.approve(g.actor, run_id)))


@runs.route("/<run_id>/cancel", methods=["POST"])
@requires(Permission.STEER)
@runs.response(200, RunAnswer)
@runs.alt_response(404, schema=Failure, description="There is no such run.")
@runs.alt_response(409, schema=Failure, description="Its state does not allow it.")
def cancel(run_id: str) -> Response:
    """End it: at once where nobody leads it, else after the batches in hand."""
    return success(run_json(services().runs.cancel(g.actor, run_id)))


@runs.route("/<run_id>/change", methods=["POST"])
@requires(Permission.STEER)
@runs.arguments(LiveConfigRequest, example={"batchSize": "auto", "workers": 4})
@runs.response(200, RunAnswer)
@runs.alt_response(404, schema=Failure, description="There is no such run.")
@runs.alt_response(409, schema=Failure, description="Its state does not allow it.")
def change(body: Mapping[str, Any], run_id: str) -> Response:
    """Change batch size, workers or pause of a running or paused run, from the next batch on."""
    return success(run_json(services().runs.change(g.actor, run_id, body)))


@runs.route("/<run_id>/replay", methods=["POST"])
@requires(Permission.RUN)
@runs.arguments(ReplayRequest, examples=examples.REPLAY)
@runs.response(202, MigrationStatusAnswer)
@runs.alt_response(404, schema=Failure, description="There is no such run.")
@runs.alt_response(409, schema=Failure, description="Nothing of it can be replayed, or another run holds the target.")
@runs.alt_response(503, schema=Failure, description="The target does not answer.")
def replay(body: Mapping[str, Any], run_id: str) -> Response:
    """Take rows of a migration's quarantine that block no more, and do to them what the migration did to the others.

    All rows without a body. Those that still block stay in quarantine; once none is left, the migration is `completed`.
    """
    run = services().runs.replay(
        g.actor, run_id, table=body["table"], field=body["field"], cause=body["cause"], key=body["key"],
        idempotency_key=idempotency_key(),
    )  # fmt: skip
    headers = {"Location": url_for("runs-v1.get_run", run_id=run.id)}
    return success(run.status_json(), f"Replay {run.number} has begun.", status=202, headers=headers)
