"""A rollback as its run's page shows it: what was asked for, who approved it, what was written where."""

from collections.abc import Mapping
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
_HOWS: Final = {"keep": "kept", "restore": "restored", "edit": "edited"}
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


def written(restore: Mapping[str, Any]) -> tuple[Grid, ...]:
    """What a rollback wrote: by table, outside, the digests, and how long each step took."""
    tables, recomputed = _map(restore.get("tables")), _map(restore.get("recomputed"))
    parts = ["same", "update", "insert", "delete"]
    heads = ["Table", "Untouched", "Restored", "Brought back", "Deleted"]
    rows = [(name, *(formats.number(_map(counts).get(part, 0)) for part in parts)) for name, counts in tables.items()]
    if any(recomputed.values()):
        heads.append("Computed anew")
        rows = [(*row, formats.number(recomputed.get(row[0], 0))) for row in rows]
    outside = tuple((name, formats.number(count)) for name, count in _map(restore.get("outside")).items())
    digests = tuple((name, str(digest)) for name, digest in _map(restore.get("digests")).items())
    seconds = _map(restore.get("seconds"))
    steps = tuple((words, formats.duration(seconds[step])) for step, words in _STEPS.items() if step in seconds)
    which = "of what stands there now" if restore.get("mode") == KEEP else "equal to the backup’s"
    return (
        Grid("What was restored", _heads(*heads), tuple(rows), wide=len(heads) > len(parts) + 1),
        Grid("Rows of other tables that went or changed", _heads("Table", "Rows"), outside),
        Grid("How long it took", _heads("Step", "Took"), steps),
        Grid(
            "Digests",
            (("Table", ""), ("Rows and digest", "")),
            digests,
            f"Rows, and the digest of all: {which}.",
            wide=True,
        ),
    )


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
