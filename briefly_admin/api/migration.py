"""The four endpoints of the seed: same paths, same field names, same envelope."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Response, current_app, g, url_for

from briefly_admin.api import examples
from briefly_admin.api.answers import backup_json, success
from briefly_admin.api.requests import Blueprint, idempotency_key, services
from briefly_admin.api.rollback_schemas import RollbackRequest
from briefly_admin.api.schemas import (
    AvailableBackupsAnswer,
    Failure,
    MigrationListAnswer,
    MigrationRequest,
    MigrationStatusAnswer,
    RollbackAnswer,
    StatusQuery,
    ValidationAnswer,
)
from briefly_admin.api.validation import answer_validation
from briefly_admin.domain.permissions import Permission
from briefly_admin.domain.runs import RunKind
from briefly_admin.services.access import requires

blueprint: Final = Blueprint(
    "migration", __name__, url_prefix="/api/migration", description="Validate, run, watch and roll back a migration."
)
_NEWEST: Final = 100


@blueprint.route("", methods=["POST"])
@requires(Permission.READ)
@blueprint.arguments(MigrationRequest, example={"action": "run", "config": {"batchSize": 500}})
@blueprint.response(200, MigrationListAnswer, description="status: the runs.")
@blueprint.response(200, ValidationAnswer, description="validate: what was found.")
@blueprint.response(202, MigrationStatusAnswer, description="run: begun.")
@blueprint.alt_response(409, schema=Failure, description="Another run holds the target.")
def post(body: Mapping[str, Any]) -> Response:
    """Validate, run, or tell the status.

    A validation that takes longer than 20 s answers 202 with `"valid": null` and a Location that answers 200 once it
    is done. A repeated request with the same Idempotency-Key starts one run; another request with it is refused (409).
    """
    if body["action"] == "status":
        return _list(None)
    kind = RunKind.VALIDATION if body["action"] == "validate" else RunKind.MIGRATION
    run = services().runs.start(g.actor, kind, config=body.get("config", {}), idempotency_key=idempotency_key())
    if kind is RunKind.VALIDATION:
        return answer_validation(services(), run.id, seconds=current_app.config["VALIDATION_WAIT_SECONDS"])
    headers = {"Location": url_for("runs-v1.get_run", run_id=run.id)}
    return success(run.status_json(), f"Run {run.number} has begun.", status=202, headers=headers)


@blueprint.route("", methods=["GET"])
@requires(Permission.READ)
@blueprint.arguments(StatusQuery, location="query")
@blueprint.response(200, MigrationListAnswer)
def get(query: Mapping[str, Any]) -> Response:
    """The newest runs, or one of them."""
    return _list(query.get("id"))


@blueprint.route("/rollback", methods=["POST"])
@requires(Permission.ROLL_BACK)
@blueprint.arguments(RollbackRequest, examples=examples.ROLLBACK)
@blueprint.response(202, RollbackAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup, or no such preview.")
@blueprint.alt_response(
    409,
    schema=Failure,
    description="Busy; the backup expired or is damaged, of another database or plan; nothing to keep; no finished "
    "preview of this backup and these tables; a table of `allow` cannot be backed up; the Idempotency-Key began "
    "something else.",
)
def roll_back(body: Mapping[str, Any]) -> Response:
    """Restore a backup. Anything but `"confirm": true` is refused, and nothing happens.

    What is there now is backed up first, the tables of `allow` with it. Where the counts of `previewId` moved since by
    more than `allowance`, or rows outside stand against it, the run fails with `refused` before anything is written.
    """
    run = services().runs.rollback(
        g.actor, body["backupId"], confirm=body.get("confirm") is True, mode=body["mode"], tables=body["tables"],
        reason=body["reason"], preview_id=body["previewId"], rules=body["rules"], settled=body["settled"],
        allow=body["allow"], allowance=body["allowance"], idempotency_key=idempotency_key(),
    )  # fmt: skip
    headers = {"Location": url_for("runs-v1.get_run", run_id=run.id)}
    data = {"backupId": run.backup_name or body["backupId"], "id": run.id}
    return success(data, f"Rollback {run.number} has begun.", status=202, headers=headers)


@blueprint.route("/rollback", methods=["GET"])
@requires(Permission.READ)
@blueprint.response(200, AvailableBackupsAnswer)
def available() -> Response:
    """The backups that can be restored."""
    restorable = [view for view in services().backups.list(g.actor) if view.restorable]
    data = {
        "availableBackups": [view.name for view in restorable],
        "backups": [backup_json(view) for view in restorable],
        "count": len(restorable),
    }
    return success(data)


def _list(run_id: str | None) -> Response:
    runs = services().runs
    if run_id is not None:
        found = [runs.get(g.actor, run_id).status_json()]
        return success({"migrations": found, "count": 1, "latest": found[0]})
    listed = [run.status_json() for run in runs.list(g.actor, limit=_NEWEST)]
    return success({"migrations": listed, "count": runs.count(g.actor), "latest": listed[0] if listed else None})
