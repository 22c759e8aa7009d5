"""Findings by table, as their page shows them: small, however many rows have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import url_for

from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.permissions import Actor, Permission
from briefly_admin.plans import PLANS
from briefly_admin.services.finding_views import Trend
from briefly_admin.services.views import RunView
from briefly_admin.web.paths import row_url

PHASES: Final = {"validate": "Before the migration", "verify": "Left after it"}
CLASSES: Final = {
    FindingClass.BLOCKING: "the repairs do not cure these; they stop a run unless such rows are skipped",
    FindingClass.REPAIRABLE: "the plan's repairs cure these",
    FindingClass.NOTICE: "worth a look; these never stop a run",
}
A_PAGE: Final = 50
"""Findings of one page: with their samples it stays below 200 kB."""
_FEW: Final = 25
_MOST_SAMPLES: Final = 10
_LESS_SAMPLES: Final = 5
"""Where a page has more than a few findings."""
_LONGEST: Final = 80
"""Characters of a value."""
_MOST_GONE: Final = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """What the findings are narrowed to; '' is all."""

    phase: str
    table: str
    kind: str
    page: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """A row that has it; `url` leads to its form, '' where its key cannot be told from the text."""

    key: str
    value: str | None
    has_value: bool
    url: str


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. `trend` says how it stands to the validation before: '−12', '+3', 'new', 'same' or ''."""

    message: str
    kind: str
    rule: str
    rows: int
    trend: str
    trend_tone: str
    samples: tuple[Sample, ...]
    more: int
    """Rows beyond the samples shown."""
    fix_url: str
    files: tuple[tuple[str, str], ...]
    """(form, address) of all rows that have it now."""


@dataclass(frozen=True, slots=True)
class Part:
    """The findings of one table."""

    table: str
    findings: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """A choice of the filter; `options` are (value, words, whether it is chosen)."""

    name: str
    label: str
    options: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingsPage:
    """What `findings/index.html` prints."""

    title: str
    run_url: str
    parts: tuple[Part, ...]
    totals: tuple[tuple[str, int, str], ...]
    """(class, rows, what it means)."""
    since: str
    """The validation that this one is compared with: 'run 40', or ''."""
    gone: tuple[str, ...]
    gone_more: int
    range: str
    narrowed: bool
    filters: tuple[Filter, ...]
    clear_url: str
    newer_url: str
    older_url: str
    corrects: bool
    """Whether whoever looks may change rows."""
    quarantined: int
    quarantine_url: str
    files: tuple[tuple[str, str], ...]
    """(form, address) of the findings as files."""


def findings_page(
    run: RunView, findings: Sequence[Finding], chosen: Choice, trend: Trend, actor: Actor, *, quarantined: int,
    back: str,
) -> FindingsPage:  # fmt: skip
    """The page of one run's findings; `back` is its own address."""
    kept = in_order(narrowed(findings, chosen), findings)
    last = max(1, -(-len(kept) // A_PAGE))
    number = min(max(chosen.page, 1), last)
    shown = kept[(number - 1) * A_PAGE : number * A_PAGE]
    lines = _Lines(run, trend, actor, back, _MOST_SAMPLES if len(shown) <= _FEW else _LESS_SAMPLES)
    tables = tuple(dict.fromkeys(finding.table for finding in shown))
    gone = narrowed(trend.gone, chosen)
    return FindingsPage(
        title=f"Findings of run {run.number}",
        run_url=url_for("runs.show", run_id=run.number),
        parts=tuple(Part(table, tuple(lines.line(f) for f in shown if f.table == table)) for table in tables),
        totals=tuple(
            (c.value, sum(f.count for f in findings if f.finding_class is c), words) for c, words in CLASSES.items()
        ),
        since=f"run {trend.number}" if trend.number is not None else "",
        gone=tuple(_gone(finding) for finding in gone[:_MOST_GONE]),
        gone_more=max(0, len(gone) - _MOST_GONE),
        range=_range(len(shown), number, len(kept), len(findings)),
        narrowed=bool(chosen.table or chosen.kind),
        filters=_filters(tuple(dict.fromkeys(finding.table for finding in findings)), chosen),
        clear_url=url_for("findings.show", run_id=run.number, phase=chosen.phase),
        newer_url=_page_url(run, chosen, number - 1) if number > 1 else "",
        older_url=_page_url(run, chosen, number + 1) if number < last else "",
        corrects=actor.may(Permission.CORRECT),
        quarantined=quarantined,
        quarantine_url=url_for("quarantine.index", run=run.number),
        files=tuple(
            (form.upper(), url_for("findings.download", run_id=run.number, form=form, **_asked(chosen)))
            for form in ("csv", "json", "ndjson")
        ),
    )


class _Lines:
    """Makes the lines of one page."""

    def __init__(self, run: RunView, trend: Trend, actor: Actor, back: str, samples: int) -> None:
        self._run = run
        self._trend = trend
        self._corrects = actor.may(Permission.CORRECT)
        self._back = back
        self._samples = samples
        plan = PLANS.get(run.plan)
        self._keys = {table.name: len(table.key) for table in plan.tables} if plan else {}

    def line(self, finding: Finding) -> Line:
        """One finding."""
        cause: dict[str, Any] = {"table": finding.table, "field": finding.field, "rule": finding.rule}
        kind: dict[str, Any] = {"class": finding.finding_class.value}
        samples = tuple(self._sample(finding.table, sample) for sample in finding.samples[: self._samples])
        # One row is corrected where it stands.
        fixable = self._corrects and finding.finding_class is FindingClass.BLOCKING and samples and finding.count > 1
        words, tone = _trend(finding, self._trend)
        return Line(
            message=finding.message, kind=finding.finding_class.value, rule=f"{finding.field}: {finding.rule}",
            rows=finding.count, trend=words, trend_tone=tone, samples=samples, more=finding.count - len(samples),
            fix_url=url_for("fix.show", **cause, back=self._back) if fixable else "",
            files=tuple(
                (form.upper(), url_for("findings.rows", run_id=self._run.number, form=form, **cause, **kind))
                for form in ("csv", "ndjson")
            ) if samples else (),
        )  # fmt: skip

    def _sample(self, table: str, sample: Any) -> Sample:
        text, value = str(sample.get("key", "")), sample.get("value")
        wanted = self._keys.get(table, 0)
        key = (text,) if wanted == 1 else tuple(text.split(", "))
        return Sample(
            key=text, value=None if value is None else cut(str(value)), has_value="value" in sample,
            url=row_url(table, key) if wanted == len(key) else "",
        )  # fmt: skip


def cut(text: str, longest: int = _LONGEST) -> str:
    """The beginning of a long text."""
    return text if len(text) <= longest else f"{text[:longest]}…"


def _trend(finding: Finding, trend: Trend) -> tuple[str, str]:
    """How it stands to the validation before, and the colour of that."""
    if trend.number is None:
        return "", ""
    before = trend.before.get(_name(finding))
    if before is None:
        return "new", "warn"
    difference = finding.count - before
    if difference < 0:
        return f"−{-difference:,}", "good"
    return (f"+{difference:,}", "warn") if difference else ("same", "neutral")


def _name(finding: Finding) -> tuple[str, str, str, str]:
    return finding.table, finding.field, finding.rule, finding.finding_class.value


def _gone(finding: Finding) -> str:
    rows = "1 row" if finding.count == 1 else f"{finding.count:,} rows"
    return f"{finding.message.rstrip('.')} ({rows} then)"


def _range(shown: int, page: int, kept: int, every: int) -> str:
    """'51 to 100 of 230 findings', '12 of 40 findings shown'."""
    if shown == kept:
        return f"{kept:,} of {every:,} {'finding' if every == 1 else 'findings'} shown"
    first = (page - 1) * A_PAGE
    return f"{first + 1:,} to {first + shown:,} of {kept:,} findings"


def _asked(chosen: Choice) -> dict[str, Any]:
    query = {"phase": chosen.phase, "table": chosen.table, "class": chosen.kind}
    return {name: value for name, value in query.items() if value}


def _page_url(run: RunView, chosen: Choice, page: int) -> str:
    return url_for("findings.show", run_id=run.number, page=page if page > 1 else None, **_asked(chosen))


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


def in_order(kept: Sequence[Finding], findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Table by table, as the tables come first among all `findings`."""
    place = {table: number for number, table in enumerate(dict.fromkeys(finding.table for finding in findings))}
    return tuple(sorted(kept, key=lambda finding: place[finding.table]))
