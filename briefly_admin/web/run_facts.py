"""What a run is: its kind in words, what it works on, how it was started."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from briefly_admin.domain.config import AUTO
from briefly_admin.domain.runs import RunKind
from briefly_admin.services.views import RunView
from briefly_admin.web import formats
from briefly_admin.web.backup_view import backup_url
from briefly_admin.web.report_view import is_rehearsal
from briefly_admin.web.rollback_view import approval, asked_for

KINDS: Final = {
    RunKind.MIGRATION: "migration", RunKind.VALIDATION: "validation", RunKind.BACKUP: "backup",
    RunKind.VERIFICATION: "verification", RunKind.DRILL: "drill", RunKind.PREVIEW: "preview of a rollback",
    RunKind.ROLLBACK: "rollback", RunKind.REPLAY: "replay",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BackupLink:
    """A backup's name, its page, and what the run has to do with it."""

    name: str
    url: str
    words: str = "Backup"


def what(view: RunView) -> str:
    """Its kind: 'migration', 'rehearsal', 'drill'."""
    return "rehearsal" if is_rehearsal(view) else KINDS[view.kind]


def subtitle(view: RunView) -> str:
    """What it does to what: a backup is looked at by itself, a plan goes over the target."""
    of = str(view.options.get("backup_name", ""))
    match view.kind:
        case RunKind.VERIFICATION:
            return f"Verification of {of}, level {view.options.get('level', 'L1')}"
        case RunKind.DRILL:
            return f"Drill of {of}, in a scratch schema of {view.target_title}"
        case _:
            return f"{what(view).capitalize()} of {view.target_title}, plan {view.plan_title}"


def backup_link(view: RunView) -> BackupLink | None:
    """The backup that the run looks at or restores, or None."""
    name = view.options.get("backup_name")
    words = {RunKind.ROLLBACK: "Back to", RunKind.PREVIEW: "Compared with"}.get(view.kind, "Backup")
    return BackupLink(str(name), backup_url(str(name)), words) if name else None


def objects_alone(view: RunView) -> bool:
    """Whether it looks at the objects of a backup, and at no table."""
    return view.kind is RunKind.VERIFICATION and view.options.get("level") == "L0"


def facts(view: RunView) -> tuple[tuple[str, str], ...]:
    """How it was started and is led, as terms and values."""
    found = [("Started by", f"{view.created_by}, {_exact(view.created_at)}")]
    if view.started_at:
        found.append(("Began", _exact(view.started_at)))
    if view.completed_at:
        found.append(("Ended", _exact(view.completed_at)))
    rehearsing = is_rehearsal(view)
    if view.leader:
        found.append(("Led by", f"{view.leader}, attempt {view.attempt}"))
    if view.kind is RunKind.DRILL:
        found.append(("Restored into", f"a scratch schema of {view.target_title}, dropped at the end"))
    if view.kind in {RunKind.ROLLBACK, RunKind.PREVIEW}:
        found += asked_for(view)
    if view.kind is RunKind.REPLAY:
        found.append(("Replays", _replayed(view)))
    found += approval(view)
    beyond = view.options.get("beyond")
    if beyond:
        words = "Also backed up first" if view.kind is RunKind.ROLLBACK else "Also tables outside the plan"
        found.append((words, ", ".join(".".join(map(str, pair)) for pair in beyond)))
    if view.kind is RunKind.MIGRATION:
        found += [
            ("Rows a batch", _batch_size(view.config.get("batchSize"))),
            ("Workers", formats.number(view.config.get("workers", 1))),
            ("Invalid rows", {"skip": "are skipped into quarantine"}.get(view.config.get("onInvalid", ""), "stop it")),
        ]
    if view.kind is RunKind.MIGRATION and not rehearsing:
        kept = view.config.get("createBackup", True)
        found.append(("Backup", "is taken and proven first" if kept else "none: no rollback"))
    return tuple(found)


def _replayed(view: RunView) -> str:
    """'the quarantine of run 41', 'users, email: one row of the quarantine of run 41'."""
    options = view.options
    scope = [str(options[name]) for name in ("table", "field", "cause") if options.get(name)]
    rows = f"row {', '.join(map(str, options['key']))} of " if options.get("key") else ""
    return f"{', '.join(scope)}{': ' if scope else ''}{rows}the quarantine of run {options.get('of_number', '')}"


def _exact(at: datetime) -> str:
    return formats.moment(at, at).exact


def _batch_size(wanted: Any) -> str:
    return "found by itself (auto)" if wanted == AUTO else formats.number(wanted)
