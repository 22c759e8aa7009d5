"""The one envelope of every answer below /api."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify

from briefly_admin.services.approving import APPROVAL
from briefly_admin.services.views import BackupView, ProofView, RunView


def success(
    data: Mapping[str, Any], message: str = "", *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`{"success": true, "data": …, "message": …}`."""
    response = jsonify({"success": True, "data": data, "message": message})
    response.status_code = status
    response.headers.update(headers or {})
    return response


def failure(status: int, code: str, message: str, details: Mapping[str, list[str]]) -> Response:
    """`{"success": false, "error": CODE, "message": …, "details": {field: [text]}}`."""
    response = jsonify({"success": False, "error": code, "message": message, "details": details})
    response.status_code = status
    return response


def run_json(view: RunView) -> dict[str, Any]:
    """MigrationStatus, and what GET /api/v1/runs/<id> says beside it."""
    return view.status_json() | {
        "number": view.number,
        "sentence": view.sentence,
        **view.work_json(),
        "blocking": view.blocking,
        "approval": _approval_json(view),
        "phases": [{"phase": phase.phase, "state": phase.state, "seconds": phase.seconds} for phase in view.phases],
        "report": view.report,
        "error_code": view.error_code or None,
        "remedy": view.remedy or None,
        "actions": [allowed.action for allowed in view.actions if allowed.allowed],
    }


def _approval_json(view: RunView) -> dict[str, Any] | None:
    """What is to be approved and by whom it was; None of a run that needs no approval."""
    found = view.options.get(APPROVAL)
    if not found:
        return None
    return {
        **found["names"],
        "allow": view.options.get("allow") or [],
        "rules": view.options.get("rules") or {},
        "settled": sum(map(len, (view.options.get("settled") or {}).values())),
        "reason": view.options.get("reason") or "",
        "asked_by": found["asked_by"],
        "asked_until": found["asked_until"],
        "approved_by": found.get("by"),
        "approved_at": found.get("at"),
        "good_until": found.get("until"),
    }


def backup_json(view: BackupView) -> dict[str, Any]:
    """A backup under the names of `GET /api/migration/rollback`; `id` is what `backupId` takes; sizes in bytes."""
    times = {"created_at": view.created_at, "completed_at": view.completed_at, "expires_at": view.expires_at,
             "proven_at": view.proven_at}  # fmt: skip
    return {name: _iso(moment) for name, moment in times.items()} | {
        "id": view.name,
        "run_id": view.run_id,
        "status": view.state,
        "plan": view.plan,
        "target": view.target_title,
        "tables": [dict(table) for table in view.tables],
        "rows": view.rows,
        "bytes": view.bytes,
        "proven_level": view.proven_level,
        "pinned": view.pinned,
    }


def backup_details_json(view: BackupView) -> dict[str, Any]:
    """A backup as everything below /api/v1/backups answers it; sizes in bytes, times as ISO 8601 in UTC."""
    return {
        "backup_id": view.name,
        "id": view.id,
        "state": view.state,
        "plan": view.plan,
        "target": view.target_title,
        "created_at": _iso(view.created_at),
        "rows": view.rows,
        "bytes": view.bytes,
        "tables": [dict(table) for table in view.tables],
        "proofs": [_proof_json(proof) for proof in view.proofs],
        "expires_at": _iso(view.expires_at),
        "pinned": view.pinned,
        "escrowed_at": _iso(view.escrowed_at),
        "run": view.run_number,
        "restorable": view.restorable,
        "why_not": view.why_not,
        "damage": list(view.damage),
    }


def _proof_json(proof: ProofView) -> dict[str, Any]:
    return {
        "level": proof.level,
        "at": _iso(proof.at),
        "whole": proof.whole,
        "damages": proof.damages,
        "rows": proof.rows,
        "seconds": proof.seconds,
        "run": proof.run_number,
        "by": proof.by,
        "place": proof.place,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None
