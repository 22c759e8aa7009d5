"""Backups below /api/v1: take, look, prove, keep, delete."""

from collections.abc import Mapping
from typing import Any, Final

from flask import Response, g, url_for

from briefly_admin.api import examples
from briefly_admin.api.answers import backup_details_json, success
from briefly_admin.api.backup_schemas import (
    BackupAnswer,
    BackupListAnswer,
    BackUpRequest,
    NothingRequest,
    VerifyRequest,
)
from briefly_admin.api.requests import Blueprint, idempotency_key, services
from briefly_admin.api.rollback_schemas import PreviewRequest
from briefly_admin.api.schemas import Failure, MigrationStatusAnswer
from briefly_admin.domain.permissions import Permission
from briefly_admin.services.access import requires
from briefly_admin.services.views import BackupView, RunView

blueprint: Final = Blueprint("backups-v1", __name__, url_prefix="/api/v1/backups", description="Sealed backups.")


@blueprint.route("", methods=["GET"])
@requires(Permission.READ)
@blueprint.response(200, BackupListAnswer)
def list_backups() -> Response:
    """All backups, newest first, those that have expired among them."""
    views = services().backups.list(g.actor)
    return success({"backups": [backup_details_json(view) for view in views], "count": len(views)})


@blueprint.route("", methods=["POST"])
@requires(Permission.BACK_UP)
@blueprint.arguments(BackUpRequest, example={"beyond": ["public.invoices"]})
@blueprint.response(202, MigrationStatusAnswer)
@blueprint.alt_response(409, schema=Failure, description="A table cannot be read whole.")
def back_up(body: Mapping[str, Any]) -> Response:
    """Back up the plan's tables, and others if they are named. The run's `backup_id` names the backup at the end."""
    run = services().runs.back_up(g.actor, beyond=body["beyond"], idempotency_key=idempotency_key())
    return _begun(run, "Backup run")


@blueprint.route("/<backup_id>", methods=["GET"])
@requires(Permission.READ)
@blueprint.response(200, BackupAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup.")
def get_backup(backup_id: str) -> Response:
    """One backup, by its name or id."""
    return _backup(services().backups.get(g.actor, backup_id))


@blueprint.route("/<backup_id>", methods=["DELETE"])
@requires(Permission.DELETE_BACKUP)
@blueprint.response(200, BackupAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup.")
@blueprint.alt_response(409, schema=Failure, description="It is pinned, or a run that is not finished needs it.")
def delete_backup(backup_id: str) -> Response:
    """Destroy its key, then its data: nobody can read it afterwards."""
    view = services().backups.delete(g.actor, backup_id)
    return _backup(view, f"{view.name} is deleted: nobody can read it any more.")


@blueprint.route("/<backup_id>/verify", methods=["POST"])
@requires(Permission.VERIFY_BACKUP)
@blueprint.arguments(VerifyRequest, example={"level": "L1"})
@blueprint.response(202, MigrationStatusAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup.")
@blueprint.alt_response(409, schema=Failure, description="It has expired, or is being verified already.")
def verify(body: Mapping[str, Any], backup_id: str) -> Response:
    """Look whether it is whole. If it is not, the run fails with `backup_damaged`, and the backup lists all damage."""
    run = services().runs.verify_backup(
        g.actor, backup_id, level=body["level"], idempotency_key=idempotency_key()
    )  # fmt: skip
    return _begun(run, "Verification")


@blueprint.route("/<backup_id>/drill", methods=["POST"])
@requires(Permission.VERIFY_BACKUP)
@blueprint.arguments(NothingRequest)
@blueprint.response(202, MigrationStatusAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup.")
@blueprint.alt_response(409, schema=Failure, description="It has expired, or is in a drill already.")
def drill(_: Mapping[str, Any], backup_id: str) -> Response:
    """Restore it into a scratch schema, compare every table, check foreign keys, and drop the schema again."""
    run = services().runs.drill(g.actor, backup_id, idempotency_key=idempotency_key())
    return _begun(run, "Drill")


@blueprint.route("/<backup_id>/pin", methods=["POST"])
@requires(Permission.PIN_BACKUP)
@blueprint.arguments(NothingRequest)
@blueprint.response(200, BackupAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup.")
@blueprint.alt_response(409, schema=Failure, description="It has expired.")
def pin(_: Mapping[str, Any], backup_id: str) -> Response:
    """Keep it until it is unpinned."""
    return _backup(services().backups.pin(g.actor, backup_id))


@blueprint.route("/<backup_id>/unpin", methods=["POST"])
@requires(Permission.PIN_BACKUP)
@blueprint.arguments(NothingRequest)
@blueprint.response(200, BackupAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup.")
@blueprint.alt_response(409, schema=Failure, description="It has expired.")
def unpin(_: Mapping[str, Any], backup_id: str) -> Response:
    """Let it expire in its time."""
    return _backup(services().backups.unpin(g.actor, backup_id))


@blueprint.route("/<backup_id>/preview", methods=["POST"])
@requires(Permission.PREVIEW)
@blueprint.arguments(PreviewRequest, examples=examples.PREVIEW)
@blueprint.response(202, MigrationStatusAnswer)
@blueprint.alt_response(404, schema=Failure, description="There is no such backup.")
@blueprint.alt_response(
    409, schema=Failure, description="The backup expired or is damaged, or is of another database or plan."
)
def preview(body: Mapping[str, Any], backup_id: str) -> Response:
    """Count what restoring the backup would do, by exact and by keep.

    It changes nothing. Once it is done, `GET /api/v1/runs/{run_id}` holds the result at `report.preview`, and a
    rollback's `previewId` takes the run.
    """
    run = services().runs.preview(g.actor, backup_id, tables=body["tables"], idempotency_key=idempotency_key())
    return _begun(run, "Preview")


def _begun(run: RunView, what: str) -> Response:
    headers = {"Location": url_for("runs-v1.get_run", run_id=run.id)}
    return success(run.status_json(), f"{what} {run.number} has begun.", status=202, headers=headers)


def _backup(view: BackupView, message: str = "") -> Response:
    return success(backup_details_json(view), message)
