"""What a rollback or its preview may restore: checked before anything begins, kept in the run's options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, InvalidRequest, Refused
from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.plans.base import Plan
from briefly_admin.services.reading import find_backup, find_run, why_not_restorable
from briefly_admin.store import details, runs
from briefly_admin.store.database import Connection, Row
from briefly_admin.store.texts import storable

MODES: Final = ("exact",)
_LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """Which backup, how, which tables (None: all), why, and the preview that was confirmed."""

    backup: str
    mode: str
    tables: Sequence[str] | None
    reason: str
    preview_id: str | None


def check_form(*, confirm: bool, mode: str, reason: str) -> None:
    """Raises InvalidRequest unless it is confirmed and well-formed."""
    faults: dict[str, list[str]] = {}
    if confirm is not True:
        faults["confirm"] = ["Must be true: a rollback replaces data."]
    if mode not in MODES:
        faults["mode"] = [f"Must be one of: {', '.join(MODES)}."]
    if len(reason) > _LONGEST_REASON:
        faults["reason"] = [f"Must have at most {_LONGEST_REASON} characters."]
    if faults:
        texts = " ".join(f"{field}: {text[0]}" for field, text in faults.items())
        raise InvalidRequest(f"Nothing was rolled back. {texts}", details=faults)


def options_of(connection: Connection, wish: Wish, plan: Plan, now: datetime) -> tuple[dict[str, Any], str]:
    """The run's options and the target that the backup is of. Raises NotFound, BackupError, Refused, InvalidRequest."""
    backup = find_backup(connection, wish.backup)
    _require_restorable(backup, plan, now)
    origin = runs.get(connection, backup.run_id) if backup.run_id else None
    since = runs.altering_since(connection, origin) if origin is not None else ()
    options = {
        "backup_id": str(backup.id), "backup_name": backup.name, "mode": wish.mode,
        "tables": _checked_tables(backup, wish.tables), "reason": storable(wish.reason),
        "preview_id": None, "expected": None,
        "reverts": [str(run_id) for run_id in since],
    }  # fmt: skip
    if wish.preview_id is not None:
        preview, expected = _confirmed(connection, wish.preview_id, backup, options["tables"])
        options |= {"preview_id": preview, "expected": expected}
    return options, backup.target_id


def _require_restorable(backup: Row[Any], plan: Plan, now: datetime) -> None:
    why = why_not_restorable(backup, now)
    message = f"{backup.name} cannot be restored: {why}"
    if backup.state == "damaged":
        raise BackupDamaged(message, damages=tuple(backup.damage), remedy="Use another backup.")
    if why:
        raise BackupExpired(message, remedy="Use another backup.")
    if backup.plan != plan.name:
        raise Refused(
            f"{backup.name} is of the plan '{backup.plan}'; this installation runs '{plan.name}'.",
            remedy=f"Set MIGRATION_PLAN={backup.plan}.",
        )


def _checked_tables(backup: Row[Any], tables: Sequence[str] | None) -> list[str] | None:
    """None for all of them, however they were named."""
    if tables is None:
        return None
    known = [table["table"] for table in backup.tables]
    unknown = [name for name in tables if name not in known]
    if unknown or not tables:
        text = f"Must be tables of the backup: {', '.join(known)}."
        raise InvalidRequest(f"{backup.name} cannot be restored so: {text}", details={"tables": [text]})
    chosen = [name for name in known if name in tables]
    return None if chosen == known else chosen


def _confirmed(
    connection: Connection, preview_id: str, backup: Row[Any], tables: Sequence[str] | None
) -> tuple[str, Mapping[str, Any]]:
    row = find_run(connection, preview_id)
    done = row.kind == RunKind.PREVIEW and row.state == RunState.COMPLETED
    if not done or row.options.get("backup_id") != str(backup.id):
        raise Refused(
            f"Run {row.number} is no finished preview of {backup.name}.",
            remedy="Preview this backup, then confirm that.",
        )
    previewed = row.options.get("tables")
    if previewed is not None and not (tables is not None and set(tables) <= set(previewed)):
        raise Refused(
            f"Run {row.number} is a preview of {', '.join(previewed)} alone.",
            remedy="Preview all tables that are to go back, then confirm that.",
        )
    counted: Mapping[str, Any] = (row.report or {}).get("preview", {}).get("tables", {})
    return str(row.id), counted


def undone(connection: Connection, row: Row[Any]) -> dict[str, str]:
    """Settle what a finished rollback undid: run id → its former state, in words of the run's options.

    Migrations that a whole restore takes back become rolled_back, their quarantine is closed. Where the backup was an
    earlier rollback's own, that rollback is undone instead, and what it had undone gets its former state back.
    """
    if row.options.get("tables") is not None:
        return {}
    backup = find_backup(connection, row.options["backup_id"])
    origin = runs.get(connection, backup.run_id) if backup.run_id else None
    if origin is None:
        return {}
    taken_back = list(runs.undone_by_restoring(connection, row, since=origin.number))
    if RunKind(origin.kind) is RunKind.ROLLBACK:
        taken_back.append(origin)
        _give_back(connection, origin)
    former = {str(other.id): str(other.state) for other in taken_back}
    for other in taken_back:
        runs.transition(
            connection, other.id, RunState.ROLLED_BACK, before={RunState(other.state)}, by=f"run {row.number}"
        )
        details.close_quarantine(connection, other.id, by=row.id)
    return former


def _give_back(connection: Connection, rollback: Row[Any]) -> None:
    for run_id, state in (rollback.options.get("undone") or {}).items():
        other = find_run(connection, run_id)
        runs.transition(
            connection, other.id, RunState(state), before={RunState.ROLLED_BACK}, by=f"run {rollback.number}"
        )
    details.reopen_quarantine(connection, closed_by=rollback.id)
