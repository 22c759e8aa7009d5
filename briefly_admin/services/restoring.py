"""What a rollback or its preview may restore: checked before anything begins, kept in the run's options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from unicodedata import category
from uuid import UUID

from briefly_admin.domain.errors import BackupDamaged, BackupExpired, InvalidRequest, NotFound, Refused
from briefly_admin.domain.runs import ACTIVE, Phase, RunKind, RunState
from briefly_admin.engine.constrain import BY_REPLAY
from briefly_admin.plans.base import Plan
from briefly_admin.services.reading import find_backup, find_run, why_not_restorable
from briefly_admin.services.settling import Settled, checked_settled, fault_of_settled
from briefly_admin.store import details, runs
from briefly_admin.store.database import Connection, Row
from briefly_admin.store.texts import storable

EXACT: Final = "exact"
KEEP: Final = "keep"
MODES: Final = (EXACT, KEEP)
RULES: Final[Mapping[str, tuple[str, ...]]] = {
    "edited": ("keep", "restore"), "created": ("keep", "delete"), "deleted": ("leave", "bring_back"),
}  # fmt: skip
"""What `keep` does with rows that others wrote since; the first of each is the default."""
MOST_ALLOWANCE: Final = 1_000_000_000
_PREVIEW: Final = "Preview this backup, then confirm that."
_SHOWN: Final = 80
_TOUCHING: Final = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})
_LONGEST_REASON: Final = 500
_MOST_REOPENED: Final = 10_000
_WAITS_AGAIN: Final = "waiting for rows that are in quarantine again"
_CONTROLS: Final = frozenset({"Cc", "Cs"})
_BREAKS: Final = "\n\r\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which backup, how, which tables (None: all), why, and the preview that was confirmed; the rest as options."""

    backup: str
    mode: str = EXACT
    tables: Sequence[str] | None = None
    reason: str = ""
    preview_id: str | None = None
    rules: Mapping[str, str] = field(default_factory=dict)
    settled: Settled = field(default_factory=dict)
    """Rows edited since."""
    allow: Sequence[str] = ()
    """Tables outside, "schema.table", whose rows foreign keys may delete or change."""
    allowance: int = 0
    """Rows by which each count of the preview may have moved."""


def check_form(wish: Wish, *, confirm: bool) -> None:
    """Raises InvalidRequest, field by field, unless it is confirmed and well-formed."""
    faults: dict[str, str] = {}
    if confirm is not True:
        faults["confirm"] = "Must be true: a rollback replaces data."
    if wish.mode not in MODES:
        faults["mode"] = f"Must be one of: {', '.join(MODES)}."
    faults |= _faults_of_values(wish)
    for name, given in (("rules", wish.rules), ("settled", wish.settled)):
        if given and wish.mode != KEEP:
            faults[name] = f"Belong to the mode {KEEP}: {EXACT} leaves nothing of what was written since."
    unknown = [name for name, what in wish.rules.items() if what not in RULES.get(name, ())]
    if unknown:
        known = "; ".join(f"{name}: {' or '.join(hows)}" for name, hows in RULES.items())
        faults["rules"] = f"{', '.join(unknown)} cannot be decided so. Possible: {known}."
    if fault := fault_of_settled(wish.settled):
        faults["settled"] = f"{fault}."
    if faults:
        texts = " ".join(f"{name}: {text}" for name, text in faults.items())
        details = {name: [text] for name, text in faults.items()}
        raise InvalidRequest(f"Nothing was rolled back. {texts}", details=details)


def _faults_of_values(wish: Wish) -> dict[str, str]:
    faults = {}
    if len(wish.reason) > _LONGEST_REASON:
        faults["reason"] = f"Must have at most {_LONGEST_REASON} characters."
    elif any(category(each) in _CONTROLS and each not in _BREAKS for each in wish.reason):
        faults["reason"] = "Must be plain text: of control characters, line breaks and tabs alone."
    if isinstance(wish.allowance, bool) or not 0 <= wish.allowance <= MOST_ALLOWANCE:
        faults["allowance"] = f"Must be a whole number from 0 to {MOST_ALLOWANCE:,}."
    elif wish.allowance and wish.preview_id is None:
        faults["allowance"] = "Belongs to a preview: without one there are no counts that may have moved."
    return faults


def options_of(connection: Connection, wish: Wish, plan: Plan, now: datetime) -> tuple[dict[str, Any], str]:
    """The run's options and the target that the backup is of. Raises NotFound, BackupError, Refused, InvalidRequest."""
    backup = find_backup(connection, wish.backup)
    _require_restorable(backup, plan, now)
    origin = runs.get(connection, backup.run_id) if backup.run_id else None
    since = runs.altering_since(connection, origin) if origin is not None else ()
    known = _planned(backup, plan)
    tables = _checked_tables(backup, wish.tables, known)
    options = {
        "backup_id": str(backup.id), "backup_name": backup.name, "mode": wish.mode,
        "tables": tables, "reason": wish.reason,
        "preview_id": None, "expected": None, "expected_classes": None, "expected_outside": None,
        "allowance": wish.allowance, "reverts": [str(run_id) for run_id in since],
        "rules": dict(wish.rules), "settled": checked_settled(wish.settled, plan, known if tables is None else tables),
        "allow": [storable(name) for name in wish.allow],
    }  # fmt: skip
    options |= _of_migration(connection, origin)
    if wish.mode == KEEP and options["origin"] is None:
        raise Refused(
            f"{backup.name} was not taken by a migration: there is nothing that {KEEP} could undo alone.",
            remedy=f"Use the mode {EXACT}, or a backup that a migration took.",
        )
    if wish.preview_id is not None:
        options |= _confirmed(connection, wish.preview_id, backup, options["tables"], wish.mode)
    return options, backup.target_id


def _of_migration(connection: Connection, origin: Row[Any] | None) -> dict[str, Any]:
    """The migration that took the backup, and the columns that triggers wrote when it updated rows."""
    if origin is None or RunKind(origin.kind) is not RunKind.MIGRATION:
        return {"origin": None, "trigger_columns": {}}
    expand = details.phases(connection, [origin.id])[origin.id].get(Phase.EXPAND.value)
    before = ((expand.result if expand is not None else None) or {}).get("before") or {}
    return {
        "origin": {"run_id": str(origin.id), "number": origin.number},
        "trigger_columns": before.get("trigger_columns") or {},
    }


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


def _planned(backup: Row[Any], plan: Plan) -> list[str]:
    """The backup's tables that can go back: those of the plan, in its order."""
    held = {table["table"] for table in backup.tables}
    return [table.name for table in plan.tables if table.name in held]


def _checked_tables(backup: Row[Any], tables: Sequence[str] | None, known: Sequence[str]) -> list[str] | None:
    """None for all of the plan's, however they were named."""
    if tables is None:
        return None
    unknown = [name for name in tables if name not in known]
    if unknown or not tables:
        text = f"Must be tables of the backup that the plan has: {', '.join(known)}."
        raise InvalidRequest(f"{backup.name} cannot be restored so: {text}", details={"tables": [text]})
    chosen = [name for name in known if name in tables]
    return None if chosen == known else chosen


def _confirmed(
    connection: Connection, preview_id: str, backup: Row[Any], tables: Sequence[str] | None, mode: str
) -> dict[str, Any]:
    """The options that bind a rollback to what its preview counted. Raises NotFound, Refused."""
    row = _preview(connection, preview_id, backup)
    previewed = row.options.get("tables")
    if previewed is not None and not (tables is not None and set(tables) <= set(previewed)):
        raise Refused(
            f"Run {row.number} is a preview of {', '.join(previewed)} alone.",
            remedy="Preview all tables that are to go back, then confirm that.",
        )
    counted: Mapping[str, Any] = (row.report or {}).get("preview", {})
    if mode == KEEP and counted.get("classes") is None:
        raise Refused(
            f"Run {row.number} counted for an older version, which did not tell what {KEEP} goes by.", remedy=_PREVIEW
        )
    return {
        "preview_id": str(row.id), "expected": counted.get("tables", {}), "expected_classes": counted.get("classes"),
        "expected_outside": _touched(counted.get("outside") or ()),
    }  # fmt: skip


def _preview(connection: Connection, preview_id: str, backup: Row[Any]) -> Row[Any]:
    try:
        row = find_run(connection, preview_id)
    except NotFound:
        shown = storable(str(preview_id))[:_SHOWN]
        raise NotFound(f"There is no such run to be the preview: '{shown}'.", remedy=_PREVIEW) from None
    state, remedy = RunState(row.state), _PREVIEW
    if row.kind != RunKind.PREVIEW:
        what = f"a {row.kind}"
    elif row.options.get("backup_id") != str(backup.id):
        what = f"a preview of {row.options.get('backup_name')}"
    elif state in ACTIVE:
        what, remedy = f"still {state}", "Wait until it is done, then confirm that."
    elif state is not RunState.COMPLETED:
        what = str(state)
    else:
        return row
    raise Refused(f"Run {row.number} is no finished preview of {backup.name}: it is {what}.", remedy=remedy)


def _touched(outside: Sequence[Any]) -> dict[str, int] | None:
    """Rows that foreign keys delete or change, by "schema.table"; None for previews that did not count them so."""
    if not all(isinstance(entry, Mapping) for entry in outside):
        return None
    touched: dict[str, int] = {}
    for entry in outside:
        if entry.get("action") in _TOUCHING and not entry.get("blocks"):
            touched[entry["table"]] = touched.get(entry["table"], 0) + int(entry["rows"])
    return touched


def undone(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    """Settle what a finished rollback undid; the options that say what that was: run id → its former state, and the
    quarantined rows that are open again.

    Migrations and replays that a whole restore takes back become rolled_back, a migration's quarantine is closed. What
    they had cured of the quarantine of others is open again. Where the backup was an earlier rollback's own, that
    rollback is undone instead, and what it had undone gets its former state back.
    """
    if row.options.get("tables") is not None:
        return {"undone": {}}
    backup = find_backup(connection, row.options["backup_id"])
    origin = runs.get(connection, backup.run_id) if backup.run_id else None
    if origin is None:
        return {"undone": {}}
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
    return {"undone": former} | _reopened(connection, row, [other.id for other in taken_back])


def _reopened(connection: Connection, row: Row[Any], taken_back: Sequence[UUID]) -> dict[str, Any]:
    """Rows that these runs had cured of the quarantine of runs that stay are open again: [run, closed by, table, key];
    `uncompleted`: the runs that were completed by that.

    More than can be kept in a run's options are left out: once the rollback is undone they stay open, and a replay
    takes them out again.
    """
    cured = details.reopen_cured(connection, closed_by=taken_back, but=taken_back)
    uncompleted = []
    for run_id in sorted({each.run_id for each in cured}):
        if runs.transition(
            connection, run_id, RunState.COMPLETED_WITH_SKIPS, before={RunState.COMPLETED}, by=f"run {row.number}"
        ):
            uncompleted.append(str(run_id))
        # What replays before the backup had made stands.
        details.settle_notes(
            connection, [run_id], old=BY_REPLAY, state="waiting", note=_WAITS_AGAIN, by=taken_back
        )  # fmt: skip
    reopened = [[str(each.run_id), str(each.closed_by), each.table, each.key] for each in cured[:_MOST_REOPENED]]
    return {"reopened": reopened, "uncompleted": uncompleted}


def _give_back(connection: Connection, rollback: Row[Any]) -> None:
    by = f"run {rollback.number}"
    for run_id, state in (rollback.options.get("undone") or {}).items():
        other = find_run(connection, run_id)
        runs.transition(connection, other.id, RunState(state), before={RunState.ROLLED_BACK}, by=by)
    details.reopen_quarantine(connection, closed_by=rollback.id)
    cured: dict[tuple[UUID, UUID], list[tuple[str, str]]] = {}
    for run_id, closed_by, table, key in rollback.options.get("reopened") or ():
        cured.setdefault((UUID(run_id), UUID(closed_by)), []).append((table, key))
    for (run_id, closed_by), keys in cured.items():
        details.close_rows(connection, run_id, keys, by=closed_by)
        details.settle_notes(connection, [run_id], old=_WAITS_AGAIN, state="made", note=BY_REPLAY)
    # One whose rows a later migration had taken over was never completed.
    completed = {UUID(run_id) for run_id in rollback.options.get("uncompleted") or ()}
    for run_id in completed - details.open_quarantine(connection).keys():
        runs.transition(connection, run_id, RunState.COMPLETED, before={RunState.COMPLETED_WITH_SKIPS}, by=by)
