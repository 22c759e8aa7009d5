"""What a look at a backup brought: tables that are equal, foreign keys that hold, or all damage."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from briefly_admin.domain.errors import BackupDamaged
from briefly_admin.domain.runs import Phase, RunKind, RunState
from briefly_admin.services.views import BackupView, RunView
from briefly_admin.web import formats
from briefly_admin.web.parts import Grid

PROVING: Final = frozenset({RunKind.VERIFICATION, RunKind.DRILL})
_HEAD: Final = (("Table", ""), ("Rows", "num"))
Results = Mapping[str, Mapping[str, Any]]


def proof_stats(view: RunView, results: Results) -> Iterator[tuple[str, str]]:
    """The figures of a verification or a drill that came to its end."""
    if view.kind not in PROVING:
        return
    found = results.get(Phase.VERIFY, {})
    if "level" in found:
        yield "Level", str(found["level"])
    if found.get("rows"):
        words = "Rows compared" if view.kind is RunKind.DRILL else "Rows counted and hashed"
        yield words, formats.number(found["rows"])
    if "bytes" in found:
        yield "Read from the store", formats.size(found["bytes"])


def damage_of(view: RunView, backup: BackupView | None) -> tuple[str, ...]:
    """All that a run found to be damaged."""
    if view.kind not in PROVING or view.error_code != BackupDamaged.code or backup is None:
        return ()
    return backup.damage


def proof_grids(view: RunView, results: Results, backup: BackupView | None) -> Iterator[Grid]:
    """The tables that were looked at, each with what came of it."""
    if view.kind is RunKind.VERIFICATION and view.state is RunState.COMPLETED and backup is not None:
        yield _verified(str(view.options.get("level", "")), backup)
    if view.kind is RunKind.DRILL:
        verify = results.get(Phase.VERIFY, {})
        yield _compared(verify)
        yield _foreign_keys(verify)


def proof_notes(view: RunView, results: Results) -> Iterator[str]:
    """What a missing table would leave open."""
    verify = results.get(Phase.VERIFY, {})
    if view.kind is RunKind.DRILL and verify and not verify.get("foreign_keys"):
        yield "The backup holds no foreign keys to try."


def _verified(level: str, backup: BackupView) -> Grid:
    """All of them are whole, or the run would have failed."""
    said = "there" if level == "L0" else "whole"
    rows = tuple(
        (str(t.get("table", "")), formats.number(t.get("rows")), formats.size(t.get("bytes")), said)
        for t in backup.tables
    )
    return Grid("What was looked at", (*_HEAD, ("Sealed size", "num"), ("Found", "")), rows)


def _compared(verify: Mapping[str, Any]) -> Grid:
    rows = tuple(
        (
            str(t.get("table", "")),
            formats.number(t.get("rows")),
            formats.duration(t.get("seconds")),
            "equal" if t.get("equal", True) else "different",
        )
        for t in _mappings(verify.get("tables"))
    )
    return Grid("Restored and compared", (*_HEAD, ("Took", "num"), ("Digest", "")), rows)


def _foreign_keys(verify: Mapping[str, Any]) -> Grid:
    rows = tuple(
        (
            str(k.get("table", "")),
            str(k.get("name", "")),
            str(k.get("references", "")),
            _held(k),
        )
        for k in _mappings(verify.get("foreign_keys"))
    )
    columns = (("Table", ""), ("Foreign key", ""), ("References", ""), ("Found", ""))
    return Grid("Foreign keys", columns, rows, wide=True)


def _held(key: Mapping[str, Any]) -> str:
    """'holds', or why it does not, or why that was not tried."""
    holds = key.get("holds")
    words = "not tried" if holds is None else "holds" if holds else "does not hold"
    orphans = key.get("orphans")
    if orphans:
        words += f", {orphans:,} {'row lacks its' if orphans == 1 else 'rows lack their'} counterpart"
    return f"{words}: {key['remark']}" if key.get("remark") else words


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else ()
