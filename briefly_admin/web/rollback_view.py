"""A rollback as its run's page shows it: what was asked for, who approved it, what was written where."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from briefly_admin.domain.runs import RunKind
from briefly_admin.services.approving import APPROVAL
from briefly_admin.services.restoring import EXACT, KEEP, RULES
from briefly_admin.services.views import RunView
from briefly_admin.web import formats
from briefly_admin.web.parts import Grid

MODES: Final = {
    EXACT: "exact: the tables become what they were at the backup",
    KEEP: "keep: what the migration did is undone, what others wrote since stays by the rules",
}
_DECIDED: Final = {
    ("edited", "keep"): "edited since: kept", ("edited", "restore"): "edited since: restored",
    ("created", "keep"): "created since: kept", ("created", "delete"): "created since: deleted",
    ("deleted", "leave"): "deleted since: left out", ("deleted", "bring_back"): "deleted since: brought back",
}  # fmt: skip
_FOUND: Final = {
    "untouched": "Untouched", "migrated": "Changed by the migration alone", "edited": "Edited since",
    "created": "Created since", "deleted": "Deleted since",
}  # fmt: skip
_DIGESTS: Final = (("Table", ""), ("Rows", "num"), ("Digest", "long"))
_MOST_SETTLED: Final = 100
"""Rows in the report."""
_TENTH: Final = 0.05
_HOWS: Final[Mapping[Any, str]] = {"keep": "kept", "restore": "restored", "edit": "edited"}
_STEPS: Final = {
    "lock": "Waiting for the locks", "compare": "Comparing again", "write": "Writing the rows that differ",
    "constraints": "Checking and putting back constraints", "verify": "Verifying",
}  # fmt: skip


def asked_for(view: RunView) -> tuple[tuple[str, str], ...]:
    """What a rollback or a preview was asked to do, as terms and values."""
    options = view.options
    tables = options.get("tables")
    found = [("Tables", ", ".join(tables) if tables else "all of the backup")]
    if view.kind is RunKind.PREVIEW:
        return tuple(found)
    mode = str(options.get("mode") or EXACT)
    found.insert(0, ("Mode", MODES.get(mode, mode)))
    if mode == KEEP:
        found += [("Rules", _rules(options.get("rules") or {})), ("Decided row by row", _settled(options))]
    if options.get("allow"):
        found.append(("Allowed to go or change", f"rows of {', '.join(options['allow'])}"))
    if options.get("allowance"):
        found.append(("Rows that may have moved", formats.number(options["allowance"])))
    if options.get("reason"):
        found.append(("Reason", str(options["reason"])))
    return tuple(found)


def approval(view: RunView) -> tuple[tuple[str, str], ...]:
    """Until when an approval is awaited, or who approved what until when; nothing where none was asked for."""
    option = view.options.get(APPROVAL)
    if not option:
        return ()
    names = option.get("names") or {}
    if not option.get("by"):
        return (("Waits for an approval", f"until {_moment(option.get('asked_until'))}"),)
    tables = names.get("tables")
    parts = [
        f"plan {names.get('plan') or view.plan} {str(names.get('fingerprint') or '')[:12]}".strip(),
        names.get("backup") or "", f"mode {names['mode']}" if names.get("mode") else "",
        (f"tables {', '.join(tables)}" if tables else "all tables") if names.get("backup") else "",
    ]  # fmt: skip
    return (
        ("Approved by", f"{option['by']} at {_moment(option.get('at'))}, good until {_moment(option.get('until'))}"),
        ("What was approved", ", ".join(part for part in parts if part)),
    )


def figures(restore: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a rollback wrote, in a few numbers."""
    tables = [_map(counts) for counts in _map(restore.get("tables")).values()]
    if not tables:
        return ()
    wrote = sum(counts.get(part, 0) for counts in tables for part in ("update", "insert", "delete"))
    outside = sum(_map(restore.get("outside")).values())
    found = [("Rows written", wrote), ("Rows left as they were", sum(counts.get("same", 0) for counts in tables))]
    if outside:
        found.append(("Rows of other tables", outside))
    return tuple((name, formats.number(count)) for name, count in found)


def written(view: RunView, preview: Mapping[str, Any], restore: Mapping[str, Any]) -> tuple[Grid, ...]:
    """What a rollback found, and wrote: by table, row by row, outside, the digests, and how long each step took."""
    outside = tuple((name, formats.number(count)) for name, count in _map(restore.get("outside")).items())
    seconds = _map(restore.get("seconds"))
    steps = tuple((words, _took(seconds[step])) for step, words in _STEPS.items() if step in seconds)
    digests = tuple(
        (name, formats.number(int(rows)) if rows.isdecimal() else formats.UNKNOWN, digest)
        for name, (rows, _, digest) in (
            (name, str(text).partition(":")) for name, text in _map(restore.get("digests")).items()
        )
    )  # fmt: skip
    which = "of what stands there now" if restore.get("mode") == KEEP else "equal to the backup’s"
    return (
        _wrote(restore),
        Grid("How long it took", _heads("Step", "Took"), steps),
        Grid("Rows of other tables that went or changed", _heads("Table", "Rows"), outside),
        _found(preview) if restore else Grid("", (), ()),
        _one_by_one(view),
        Grid("Digests", _DIGESTS, digests, f"Of all rows: {which}.", wide=True),
    )  # fmt: skip


def _wrote(restore: Mapping[str, Any]) -> Grid:
    tables, recomputed = _map(restore.get("tables")), _map(restore.get("recomputed"))
    parts = {"same": "Left", "update": "Restored", "insert": "Brought back", "delete": "Deleted"}
    columns = {
        words: {name: _map(counts).get(part, 0) for name, counts in tables.items()} for part, words in parts.items()
    }
    if any(recomputed.values()):
        columns["Computed anew"] = {name: recomputed.get(name, 0) for name in tables}
    return _by_table("What was written", tables, columns, wide=True)


def _found(preview: Mapping[str, Any]) -> Grid:
    """What became of the rows between the backup and the rollback."""
    classes = _map(preview.get("classes"))
    columns = {
        words: {name: _map(counts).get(kind, 0) for name, counts in classes.items()} for kind, words in _FOUND.items()
    }
    note = "Since the backup, counted just before anything was written."
    return _by_table("What stood there before", classes, columns, note, wide=True)


def _by_table(
    title: str, names: Iterable[str], columns: Mapping[str, Mapping[str, int]], note: str = "", *, wide: bool
) -> Grid:
    rows = [(name, *(formats.number(counts[name]) for counts in columns.values())) for name in names]
    if rows:
        rows.append(("together", *(formats.number(sum(counts.values())) for counts in columns.values())))
    return Grid(title, _heads("Table", *columns), tuple(rows), note, wide=wide)


def _one_by_one(view: RunView) -> Grid:
    """The rows that were decided by themselves; values stand in no report."""
    rows = [
        (
            table, ", ".join(map(str, row.get("key") or ())), _HOWS.get(row.get("how"), ""),
            ", ".join(row.get("values") or ()),
        )
        for table, settled in _map(view.options.get("settled")).items()
        for row in settled
    ]  # fmt: skip
    note = f"{_MOST_SETTLED:,} of {len(rows):,} rows are shown." if len(rows) > _MOST_SETTLED else ""
    heads = (("Table", ""), ("Row", "long"), ("What became of it", ""), ("Columns edited", ""))
    return Grid("Decided row by row", heads, tuple(rows[:_MOST_SETTLED]), note, wide=True)


def _took(seconds: float) -> str:
    return formats.duration(seconds) if seconds >= _TENTH else "under 0.1 s"


def _rules(rules: Mapping[str, Any]) -> str:
    decided = [(name, rules.get(name) or hows[0]) for name, hows in RULES.items()]
    return "; ".join(_DECIDED.get(pair, ": ".join(pair)) for pair in decided)


def _settled(options: Mapping[str, Any]) -> str:
    hows = [row.get("how") for rows in _map(options.get("settled")).values() for row in rows]
    counts = [f"{hows.count(how):,} {words}" for how, words in _HOWS.items() if how in hows]
    return ", ".join(counts) or "none"


def _moment(text: Any) -> str:
    """'2026-03-10 12:00:00 UTC'."""
    at = datetime.fromisoformat(text) if text else None
    return formats.moment(at, at).exact if at else formats.UNKNOWN


def _heads(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, "num" if position else "") for position, name in enumerate(names))


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
