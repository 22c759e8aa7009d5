"""Findings by table, as their page and their download show them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import url_for

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.services.finding_views import QuarantineRow
from briefly_admin.services.views import RunView

PHASES: Final = {"validate": "Before the migration", "verify": "Left after it"}
CLASSES: Final = {
    FindingClass.BLOCKING: "the repairs do not cure these; they stop a run unless such rows are skipped",
    FindingClass.REPAIRABLE: "the plan's repairs cure these",
    FindingClass.NOTICE: "worth a look; these never stop a run",
}
_COLUMNS: Final = ("table", "field", "rule", "class", "rows", "message", "sample_keys")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_MOST_QUARANTINE: Final = 500


@dataclass(frozen=True, slots=True)
class Choice:
    """What the findings are narrowed to; '' is all."""

    phase: str
    table: str
    kind: str


@dataclass(frozen=True, slots=True)
class Part:
    """The findings of one table."""

    table: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """A choice of the filter; `options` are (value, words, whether it is chosen)."""

    name: str
    label: str
    options: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True)
class FindingsPage:
    """What `findings/index.html` prints."""

    title: str
    run_url: str
    parts: tuple[Part, ...]
    totals: tuple[tuple[str, int, str], ...]
    """(class, rows, what it means)."""
    shown: int
    all: int
    narrowed: bool
    filters: tuple[Filter, ...]
    clear_url: str
    quarantine: tuple[QuarantineRow, ...]
    quarantined: int
    csv_url: str
    json_url: str


def findings_page(
    run: RunView, findings: Sequence[Finding], quarantine: Sequence[QuarantineRow], chosen: Choice
) -> FindingsPage:
    """The page of one run's findings."""
    kept = narrowed(findings, chosen)
    tables = tuple(dict.fromkeys(finding.table for finding in findings))
    query = {"phase": chosen.phase, "table": chosen.table, "class": chosen.kind}
    asked: dict[str, Any] = {name: value for name, value in query.items() if value}
    return FindingsPage(
        title=f"Findings of run {run.number}",
        run_url=url_for("runs.show", run_id=run.number),
        parts=tuple(Part(t, tuple(f for f in kept if f.table == t)) for t in tables if any(f.table == t for f in kept)),
        totals=tuple(
            (c.value, sum(f.count for f in findings if f.finding_class is c), words) for c, words in CLASSES.items()
        ),
        shown=len(kept),
        all=len(findings),
        narrowed=bool(chosen.table or chosen.kind),
        filters=_filters(tables, chosen),
        clear_url=url_for("findings.show", run_id=run.number, phase=chosen.phase),
        quarantine=tuple(row for row in quarantine if not row.closed)[:_MOST_QUARANTINE],
        quarantined=sum(not row.closed for row in quarantine),
        csv_url=url_for("findings.download", run_id=run.number, form="csv", **asked),
        json_url=url_for("findings.download", run_id=run.number, form="json", **asked),
    )


def _filters(tables: Sequence[str], chosen: Choice) -> tuple[Filter, ...]:
    kinds = [("", "all classes"), *((kind.value, kind.value) for kind in CLASSES)]
    return (
        _filter("phase", "When", list(PHASES.items()), chosen.phase),
        _filter("table", "Table", [("", "all tables"), *((table, table) for table in tables)], chosen.table),
        _filter("class", "Class", kinds, chosen.kind),
    )


def _filter(name: str, label: str, options: Sequence[tuple[str, str]], chosen: str) -> Filter:
    return Filter(name, label, tuple((value, words, value == chosen) for value, words in options))


def narrowed(findings: Sequence[Finding], chosen: Choice) -> tuple[Finding, ...]:
    """Those of the chosen table and class."""
    return tuple(
        finding
        for finding in findings
        if chosen.table in {"", finding.table} and chosen.kind in {"", finding.finding_class.value}
    )


def as_json(run: RunView, findings: Sequence[Finding]) -> dict[str, Any]:
    """`{run, kind, plan, target, findings: […]}`."""
    return {
        "run": run.id, "kind": run.kind.value, "plan": run.plan, "target": run.target_title,
        "findings": [finding.to_json() for finding in findings],
    }  # fmt: skip


def as_csv(findings: Sequence[Finding]) -> str:
    """A line a finding. What a spreadsheet would take for a formula gets a quote before it."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for finding in findings:
        keys = "; ".join(str(sample.get("key", "")) for sample in finding.samples)
        texts = (finding.table, finding.field, finding.rule, finding.finding_class.value)
        writer.writerow([*map(_harmless, texts), finding.count, _harmless(finding.message), _harmless(keys)])
    return out.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
