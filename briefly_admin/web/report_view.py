"""What a run brought, phase by phase, as its report prints it. A result that lacks a part leaves that part out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import url_for

from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.plans import PLANS
from briefly_admin.services.restoring import KEEP
from briefly_admin.services.views import BackupView, RunView
from briefly_admin.web import formats
from briefly_admin.web.backup_view import MOST_DAMAGE, backup_url
from briefly_admin.web.parts import Grid
from briefly_admin.web.paths import page_path
from briefly_admin.web.preview_view import Counted, counted_of, is_plain_index
from briefly_admin.web.proof_view import PROVING, damage_of, proof_grids, proof_notes, proof_stats
from briefly_admin.web.rehearsal_view import Rehearsal, rehearsal_of
from briefly_admin.web.rollback_view import figures, written

_SAMPLES: Final = 20


@dataclass(frozen=True, slots=True)
class ChangeLine:
    """A schema change, and what is to be said of it."""

    text: str
    note: str


@dataclass(frozen=True, slots=True)
class ChangeGroup:
    """Schema changes that stand alike: made, waiting, reverted."""

    state: str
    title: str
    changes: tuple[ChangeLine, ...]


@dataclass(frozen=True, slots=True)
class BackupLine:
    """The backup that the run took, or that it restored."""

    name: str
    text: str
    url: str
    rollback_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The parts of a report; empty ones are not printed."""

    stats: tuple[tuple[str, str], ...]
    grids: tuple[Grid, ...]
    findings: tuple[str, ...]
    findings_url: str
    changes: tuple[ChangeGroup, ...]
    changes_left: str
    others: Grid | None
    notes: tuple[str, ...]
    backup: BackupLine | None
    rehearsal: Rehearsal | None
    damage: tuple[str, ...]
    damage_more: int
    counted: Counted | None
    """What a preview found."""
    quarantine_url: str = ""
    """Where rows of the run are in quarantine."""


def report_of(view: RunView, backup: BackupView | None = None) -> Report:
    """The report of a finished run, from the results of its phases; `backup` is the one that it looked at."""
    results = _results(view)
    migrate, verify = results.get(Phase.MIGRATE, {}), results.get(Phase.VERIFY, {})
    rehearsing = is_rehearsal(view)
    preview = results.get(Phase.PREVIEW, {})
    grids = (
        _looked_at(migrate, last=_last(view)),
        _validated(results.get(Phase.VALIDATE, {})) if view.kind is RunKind.VALIDATION else None,
        _backed_up(results.get(Phase.BACKUP, {})) if view.kind is RunKind.BACKUP else None,
        *proof_grids(view, results, backup),
        *(written(view, preview, results.get(Phase.RESTORE, {})) if view.kind is RunKind.ROLLBACK else ()),
        _sizes(verify),
        _timings(verify),
    )
    left = view.changes_left
    damage = damage_of(view, backup)
    return Report(
        stats=_stats(view, results),
        grids=tuple(grid for grid in grids if grid is not None and grid.rows),
        findings=_findings(results.get(Phase.VALIDATE, {})),
        findings_url=url_for("findings.show", run_id=view.number) if _validates(view) else "",
        changes=(*_changes(results), *_reverted(preview, results.get(Phase.RESTORE, {}))),
        changes_left=f"{left:,} schema {_plural(left, 'change waits', 'changes wait')} for quarantined rows."
        if left
        else "",
        quarantine_url=url_for("quarantine.index", run=view.number) if view.quarantined else "",
        others=_others(verify),
        notes=tuple(proof_notes(view, results)),
        backup=_backup(view),
        rehearsal=rehearsal_of(migrate) if rehearsing and migrate else None,
        damage=damage[:MOST_DAMAGE],
        damage_more=max(0, len(damage) - MOST_DAMAGE),
        counted=counted_of(preview, tuple(_map(preview.get("tables"))))
        if view.kind is RunKind.PREVIEW and preview
        else None,
    )


def _validates(view: RunView) -> bool:
    return any(phase.phase is Phase.VALIDATE for phase in view.phases)


def is_rehearsal(view: RunView) -> bool:
    """Whether the run commits nothing."""
    return view.kind is RunKind.MIGRATION and bool(view.config.get("dryRun"))


def _results(view: RunView) -> Mapping[str, Mapping[str, Any]]:
    """Phase → its result, whichever of phases and report has it."""
    found: dict[str, Mapping[str, Any]] = {
        name: value for name, value in (view.report or {}).items() if isinstance(value, Mapping)
    }
    found |= {phase.phase.value: phase.result for phase in view.phases if phase.result}
    known = PLANS.get(view.plan)
    place = {table.name: number for number, table in enumerate(known.tables if known else ())}
    return {name: _in_plan_order(result, place) for name, result in found.items()}


def _in_plan_order(value: Any, place: Mapping[str, int]) -> Any:
    """The same JSON with tables in the plan's order: a jsonb column does not keep that of its keys."""
    if not isinstance(value, Mapping):
        return value
    names = sorted(value, key=lambda name: place.get(name, len(place)))
    return {name: _in_plan_order(value[name], place) for name in names}


def _stats(view: RunView, results: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    migrate = results.get(Phase.MIGRATE, {})
    looked = migrate.get("looked", 0 if view.kind in PROVING else view.records_processed)
    stats = [("Rows looked at", formats.number(looked))] if looked or migrate else []
    if "changed" in migrate:
        word = "Would change" if is_rehearsal(view) else "Changed"
        stats.append((word, formats.number(migrate["changed"])))
    if view.kind is RunKind.REPLAY and migrate:
        stats += [
            ("Replayed", formats.number(migrate.get("replayed", 0))),
            ("Left in quarantine", formats.number(migrate.get("left", 0))),
        ]
    elif "skipped" in migrate:
        stats.append(("Skipped", formats.number(migrate["skipped"])))
    if view.quarantined:
        stats.append(("In quarantine", formats.number(view.quarantined)))
    if view.kind is RunKind.ROLLBACK:
        stats += figures(results.get(Phase.RESTORE, {}))
    stats += proof_stats(view, results)
    if view.started_at and view.completed_at:
        stats.append(("Took", formats.duration((view.completed_at - view.started_at).total_seconds())))
    return tuple(stats)


def _last(view: RunView) -> tuple[str, str, str]:
    """What becomes of rows: (what changed, which figure is the last, what it says)."""
    if is_rehearsal(view):
        return "Would change", "failed", "Would fail"
    return "Changed", "skipped", "Still wrong" if view.kind is RunKind.REPLAY else "Skipped"


def _looked_at(migrate: Mapping[str, Any], *, last: tuple[str, str, str]) -> Grid | None:
    changed, figure, words = last
    rows = tuple(
        (str(t.get("table", "")), *(formats.number(t.get(name, 0)) for name in ("looked", "changed", figure)))
        for t in _list(migrate.get("tables"))
        if isinstance(t, Mapping)
    )
    return Grid("Rows by table", _columns("Table", "Looked at", changed, words), rows)


def _validated(validate: Mapping[str, Any]) -> Grid | None:
    rows = tuple((name, formats.number(count)) for name, count in _map(validate.get("rows")).items())
    return Grid("Rows validated", _columns("Table", "Rows"), rows)


def _backed_up(backup: Mapping[str, Any]) -> Grid | None:
    rows = tuple(
        (str(t.get("table", "")), formats.number(t.get("rows")), formats.size(t.get("bytes")))
        for t in _list(backup.get("tables"))
        if isinstance(t, Mapping)
    )
    return Grid("What the backup holds", _columns("Table", "Rows", "Sealed size"), rows)


def _sizes(verify: Mapping[str, Any]) -> Grid | None:
    before = _map(_map(verify.get("before")).get("tables"))
    after = _map(_map(verify.get("after")).get("tables"))
    rows = tuple(
        (
            name,
            formats.size(_map(before.get(name)).get("bytes")),
            formats.size(_map(now).get("bytes")),
        )
        for name, now in after.items()
    )
    return Grid("Sizes", _columns("Table", "Before", "After"), rows)


def _timings(verify: Mapping[str, Any]) -> Grid | None:
    before = {
        query.get("name"): query
        for query in _list(_map(verify.get("before")).get("queries"))
        if isinstance(query, Mapping)
    }
    rows = tuple(
        (
            str(query.get("name", "")),
            _milliseconds(_map(before.get(query.get("name")))),
            _milliseconds(query),
            ", ".join(str(node) for node in _list(query.get("nodes"))[:3]),
        )
        for query in _list(_map(verify.get("after")).get("queries"))
        if isinstance(query, Mapping)
    )
    columns = (("Query", ""), ("Before", "num"), ("After", "num"), ("How it is answered now", ""))
    return Grid("Timing of representative queries", columns, rows, "The fastest of three tries each.", wide=True)


def _milliseconds(query: Mapping[str, Any]) -> str:
    value = query.get("ms")
    if isinstance(value, int | float):
        return f"{value:,.3f} ms" if value < 1 else f"{value:,.1f} ms"
    return str(query.get("note") or formats.UNKNOWN)


def _others(verify: Mapping[str, Any]) -> Grid | None:
    """Rows that others changed while the run went, or how many buckets differ where no backup can tell."""
    rows = []
    for name, found in _map(verify.get("unchanged")).items():
        others = _map(_map(found).get("others"))
        keys = [str(_map(s).get("key", "")) for s in _list(_map(found).get("samples"))[:_SAMPLES]]
        if any(others.values()):
            counts = ", ".join(f"{count:,} {what}" for what, count in others.items() if count)
            rows.append((name, counts, ", ".join(keys)))
        elif not _map(found).get("compared", True):
            rows.append((name, f"{_map(found).get('buckets', 0):,} of 4,096 buckets differ; no backup to compare", ""))
    columns = (("Table", ""), ("Changed by others since", ""), ("Keys", ""))
    return Grid("Changed by others", columns, tuple(rows)) if rows else None


def _findings(validate: Mapping[str, Any]) -> tuple[str, ...]:
    words = {
        "blocking": "that the repairs do not cure", "repairable": "that the repairs cure",
        "notice": "worth a look, which never stop a run",
    }  # fmt: skip
    return tuple(
        f"{validate[name]:,} {_plural(validate[name], 'row', 'rows')} {text}"
        for name, text in words.items()
        if isinstance(validate.get(name), int) and validate[name]
    )


def _changes(results: Mapping[str, Mapping[str, Any]]) -> tuple[ChangeGroup, ...]:
    """What constrain tells of; before it, the columns and indexes that expand made. What waits stands first."""
    groups: dict[str, list[ChangeLine]] = {}
    for change in _told(results):
        kind = str(change.get("kind", "")).replace("_", " ")
        line = ChangeLine(f"{change.get('table', '')}: {kind} {change.get('name', '')}", str(change.get("note") or ""))
        groups.setdefault(str(change.get("state", "")), []).append(line)
    return tuple(
        ChangeGroup(state, f"{len(lines):,} {state}", tuple(lines))
        for state, lines in sorted(groups.items(), reverse=True)
    )


def _reverted(preview: Mapping[str, Any], restore: Mapping[str, Any]) -> tuple[ChangeGroup, ...]:
    """Of a rollback that came to its end; plain indexes stay where what others did is kept."""
    if not restore:
        return ()
    groups: dict[str, list[ChangeLine]] = {"reverted": [], "kept": []}
    for text in map(str, _list(preview.get("schema_changes"))):
        stays = restore.get("mode") == KEEP and is_plain_index(text)
        groups["kept" if stays else "reverted"].append(ChangeLine(text, ""))
    return tuple(
        ChangeGroup(state, f"{len(lines):,} {state}", tuple(lines)) for state, lines in groups.items() if lines
    )


def _told(results: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    told = [c for c in _list(results.get(Phase.CONSTRAIN, {}).get("changes")) if isinstance(c, Mapping)]
    if told:
        return told
    expand = results.get(Phase.EXPAND, {})
    columns = (str(name).rpartition(".") for name in _list(expand.get("columns")))
    return [
        *({"table": table, "kind": "column", "name": name, "state": "made"} for table, _, name in columns),
        *({"table": "expand", "kind": "index", "name": name, "state": "made"} for name in _list(expand.get("indexes"))),
    ]


def _backup(view: RunView) -> BackupLine | None:
    if view.backup_name is None:
        return None
    rollback = page_path(f"/backups/{view.backup_name}/rollback") if view.rollback_available else ""
    text = "can be rolled back" if view.rollback_available else "cannot be restored any more"
    if view.kind is RunKind.BACKUP:
        text = "was taken and proven by this run"
    if view.kind is RunKind.ROLLBACK:
        text = f"was taken and proven first: this rollback {text}"
    return BackupLine(view.backup_name, text, backup_url(view.backup_name), rollback)


def _columns(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, "num" if position else "") for position, name in enumerate(names))


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
