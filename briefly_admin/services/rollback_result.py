"""What a rollback wrote and what it left, from its options and its report: the figures of one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_KEEP: Final = "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackResult:
    """Rows of all tables together. What was left stands there under `keep` alone; None where nothing told of it."""

    mode: str
    tables: tuple[str, ...] = ()
    """Those that were chosen; empty for all of the backup."""
    put_back: int = 0
    brought_back: int = 0
    removed: int = 0
    recomputed: int = 0
    outside: int = 0
    """Of tables that were not restored, which foreign keys deleted or changed."""
    edited_kept: int | None = None
    """Rows that others edited since, and that stay as they are."""
    created_kept: int | None = None
    deleted_left: int | None = None


def rollback_result(options: Mapping[str, Any], report: Mapping[str, Any]) -> RollbackResult | None:
    """None where the report does not say what was written."""
    restore = report.get("restore")
    written = restore.get("tables") if isinstance(restore, Mapping) else None
    if not isinstance(restore, Mapping) or not isinstance(written, Mapping):
        return None
    mode = str(restore.get("mode") or options.get("mode") or "exact")
    left: dict[str, int | None] = {}
    classes = (report.get("preview") or {}).get("classes")
    if mode == _KEEP and isinstance(classes, Mapping):
        left = _left(options, classes)
    return RollbackResult(
        mode=mode, tables=tuple(options.get("tables") or ()), put_back=_sum(written, "update"),
        brought_back=_sum(written, "insert"), removed=_sum(written, "delete"),
        recomputed=sum((restore.get("recomputed") or {}).values()),
        outside=sum((restore.get("outside") or {}).values()), **left,
    )  # fmt: skip


def _left(options: Mapping[str, Any], classes: Mapping[str, Mapping[str, int]]) -> dict[str, int | None]:
    """Rows of others that `keep` left alone, by the rules and by what was settled row by row."""
    rules = options.get("rules") or {}
    settled = [row["how"] for rows in (options.get("settled") or {}).values() for row in rows]
    kept = settled.count("keep")
    if rules.get("edited", "keep") == "keep":
        kept = _sum(classes, "edited") - (len(settled) - kept)
    return {
        "edited_kept": max(0, kept),
        "created_kept": _sum(classes, "created") if rules.get("created", "keep") == "keep" else 0,
        "deleted_left": _sum(classes, "deleted") if rules.get("deleted", "leave") == "leave" else 0,
    }


def _sum(tables: Mapping[str, Mapping[str, int]], what: str) -> int:
    return sum(counts.get(what, 0) for counts in tables.values())


def previewed(report: Mapping[str, Any]) -> dict[str, int] | None:
    """Of a preview: how many rows "exact" and "keep" would write, and were "edited" since; what it does not say is
    absent.
    """
    preview = report.get("preview")
    tables = preview.get("tables") if isinstance(preview, Mapping) else None
    if not isinstance(preview, Mapping) or not isinstance(tables, Mapping):
        return None
    found = {"exact": sum(_sum(tables, what) for what in ("update", "insert", "delete"))}
    if preview.get("keep") is not None:
        found[_KEEP] = _sum(preview["keep"], "update")
    if preview.get("classes") is not None:
        found["edited"] = _sum(preview["classes"], "edited")
    return found


def in_words(result: RollbackResult) -> str:
    """'Rolled back by keep: 22,307 rows put back, 3 edited since kept …', without a full stop."""
    written = [f"{result.put_back:,} {'row' if result.put_back == 1 else 'rows'} put back"]
    others: tuple[tuple[int | None, str], ...] = (
        (result.brought_back, "brought back"), (result.removed, "removed"), (result.recomputed, "computed anew"),
        (result.outside, "of other tables gone or changed"),
        (result.edited_kept, "edited since kept"), (result.created_kept, "created since kept"),
        (result.deleted_left, "deleted since left so"),
    )  # fmt: skip
    written += [f"{number:,} {what}" for number, what in others if number]
    end = "what the migration did is undone" if result.mode == _KEEP else "the data is as it was at the backup"
    where = f" of {', '.join(result.tables)}" if result.tables else ""
    return f"Rolled back{where} by {result.mode}: {', '.join(written)}; {end}"
